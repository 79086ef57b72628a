"""Keywords held against the typed fields of their endpoint, before anything is sent.

What each field takes is read from its annotation once. vLLM ignores a field that it does not know
and converts many a wrong value in silence; here both are errors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from vllm_agent_sdk.errors import UsageError

__all__ = ["check_fields"]


class _Kind(NamedTuple):
    """What a field takes.

    Attributes:
        exact: Types that are taken without a second look.
        fits: Tells it of any other value.
        text: The same for people; `several` of many.
        inner: The fields of a dict that has fields of its own.
    """

    exact: frozenset[type]
    fits: Callable[[Any], bool]
    text: str
    several: str
    inner: type | None = None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    return type(value) is list or (
        isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
    )


_ANY = _Kind(frozenset({object}), lambda _value: True, "anything", "anything")
_MAP = _Kind(frozenset({dict}), lambda value: isinstance(value, Mapping), "a dict", "dicts")
_SIMPLE: dict[object, _Kind] = {
    str: _Kind(frozenset({str}), lambda value: isinstance(value, str), "text", "texts"),
    bool: _Kind(frozenset({bool}), lambda _value: False, "True or False", "truth values"),
    int: _Kind(frozenset({int}), _is_whole, "a whole number", "whole numbers"),
    float: _Kind(frozenset({int, float}), _is_number, "a number", "numbers"),
}


def check_fields(given: Mapping[str, Any], typed: type, where: str) -> None:
    """Refuse unknown names, and values of another type than their field's.

    Args:
        given: The keywords, by name; `None` is null and always taken.
        typed: The endpoint's `TypedDict`.
        where: What the names belong to, for the error.

    Raises:
        UsageError: Names the field and what it takes, or the nearest known name.
    """
    kinds = _kinds(typed)
    for name, value in given.items():
        kind = kinds.get(name)
        if kind is None:
            raise _unknown(name, kinds, where)
        if value is None or type(value) in kind.exact:
            continue
        if not kind.fits(value):
            raise UsageError(f"{name}= takes {kind.text}, not {_described(value)}.")
        if kind.inner is not None:
            check_fields(value, kind.inner, f"{name}=")


def _unknown(name: str, known: Mapping[str, Any], where: str) -> UsageError:
    import difflib  # only mistakes need it

    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}=?" if near else ""
    more = "What vLLM knows and this version does not goes into extra_body={…}."
    return UsageError(f"{where} has no field {name!r}.{hint} {more}")


@functools.cache
def _kinds(typed: type) -> Mapping[str, _Kind]:
    return {name: _kind(hint) for name, hint in get_type_hints(typed).items()}


def _kind(hint: Any) -> _Kind:
    """Read an annotation; what it does not know is taken as it is."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        return _either([_kind(each) for each in inner if each is not NoneType])
    if origin is Literal:
        return _SIMPLE[str]._replace(text=" or ".join(map(repr, inner)))
    if is_typeddict(hint):
        return _MAP._replace(exact=frozenset(), inner=hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _MAP if NoneType in get_args(inner[1]) else _map_of(_kind(inner[1]))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _list_of(_kind(inner[0]))
    return _SIMPLE.get(hint, _ANY)


def _either(kinds: list[_Kind]) -> _Kind:
    if len(kinds) == 1 or _ANY in kinds:
        return kinds[0] if len(kinds) == 1 else _ANY
    exact = frozenset[type]().union(*(kind.exact for kind in kinds))
    text = " or ".join(dict.fromkeys(kind.text for kind in kinds))
    kinds.sort(key=lambda kind: bool(kind.exact))  # what is not taken at the first look comes first
    return _Kind(exact, lambda value: any(kind.fits(value) for kind in kinds), text, text)


def _list_of(item: _Kind) -> _Kind:
    if item is _ANY:
        return _Kind(frozenset({list, tuple}), _is_list, "a list", "lists")

    def fits(value: Any) -> bool:
        return _is_list(value) and (
            item.exact.issuperset(map(type, value)) or all(map(item.fits, value))
        )

    return _Kind(frozenset(), fits, f"a list of {item.several}", f"lists of {item.several}")


def _map_of(item: _Kind) -> _Kind:
    if item not in _SIMPLE.values():
        return _MAP

    def fits(value: Any) -> bool:
        return isinstance(value, Mapping) and all(map(item.fits, value.values()))

    return _Kind(frozenset(), fits, f"a dict of {item.several}", f"dicts of {item.several}")


def _described(value: object) -> str:
    """Name a value's type, and those of the items of a list or dict."""
    name = type(value).__name__
    items = value.values() if isinstance(value, Mapping) else value if _is_list(value) else ()
    inner = sorted({type(item).__name__ for item in items})  # type: ignore[attr-defined]
    return f"{name} of {' and '.join(inner)}" if inner else name
