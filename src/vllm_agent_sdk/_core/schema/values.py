"""JSON values as Python objects, part by part, and Python defaults as JSON.

A `Decode` takes a value and its path. It checks types, not limits: those are for the validator,
which runs before it.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from vllm_agent_sdk._core.schema.refs import at
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types import _codec

__all__ = [
    "PLAIN",
    "Decode",
    "MismatchError",
    "decode_array",
    "decode_choice",
    "decode_dict",
    "decode_object",
    "decode_tuple",
    "decode_union",
    "encode_json",
    "keep",
    "to_json",
]

Decode: TypeAlias = Callable[[Any, str], Any]


class MismatchError(ValueError):
    """A value is not of its type.

    Attributes:
        path: Where, such as `items[2].price`.
        text: What is wrong, in half a sentence.
        choice: True if it is none of a few allowed values: in a union, probably another member's.
    """

    def __init__(self, path: str, text: str, *, choice: bool = False) -> None:
        super().__init__(f"{path}: {text}" if path else text)
        self.path = path
        self.text = text
        self.choice = choice


def keep(value: Any, path: str) -> Any:
    """Take any value as it is; containers are copied, so that a tool cannot change the call."""
    return copy.deepcopy(value) if isinstance(value, (dict, list)) else value


def _wrong(value: Any, path: str, expected: str) -> MismatchError:
    return MismatchError(
        path, f"expected {expected}, got {_KINDS.get(type(value), 'another type')}"
    )


_KINDS = {
    str: "a string", bool: "a boolean", int: "an integer", float: "a number", type(None): "null",
    list: "an array", dict: "an object",
}  # fmt: skip


def _str(value: Any, path: str) -> Any:
    if type(value) is not str:
        raise _wrong(value, path, "a string")
    return value


def _bool(value: Any, path: str) -> Any:
    if type(value) is not bool:
        raise _wrong(value, path, "a boolean")
    return value


def _none(value: Any, path: str) -> Any:
    if value is not None:
        raise _wrong(value, path, "null")
    return value


def _int(value: Any, path: str) -> Any:
    if type(value) is float and value.is_integer():
        return int(value)  # 3.0 is an integer to JSON Schema
    if type(value) is not int:
        raise _wrong(value, path, "an integer")
    return value


def _float(value: Any, path: str) -> Any:
    if type(value) is int:
        try:
            return float(value) if float(value) == value else value
        except OverflowError:
            return value
    if type(value) is not float:
        raise _wrong(value, path, "a number")
    return value


#: Python type → its name in JSON Schema (`None`: anything), and its decoder.
PLAIN: dict[Any, tuple[str | None, Decode]] = {
    str: ("string", _str),
    int: ("integer", _int),
    float: ("number", _float),
    bool: ("boolean", _bool),
    type(None): ("null", _none),
    None: ("null", _none),
    Any: (None, keep),
    object: (None, keep),
}


def decode_choice(pairs: Sequence[tuple[Any, Any]]) -> Decode:
    """Decode a closed set of values; 1, 1.0 and True are told apart where it matters."""
    exact = {(type(plain), plain): value for plain, value in reversed(pairs)}

    def decode(value: Any, path: str) -> Any:
        try:
            if (type(value), value) in exact:
                return exact[type(value), value]
            for (kind, plain), member in exact.items():
                if kind in (int, float) and type(value) in (int, float) and plain == value:
                    return member
        except TypeError:  # an array or object: not hashable
            pass
        allowed = ", ".join(repr(plain) for _, plain in exact)
        raise MismatchError(path, f"expected one of {allowed}", choice=True)

    return decode


def decode_array(make: Callable[[Iterable[Any]], Any], item: Decode) -> Decode:
    """Decode an array into a list, tuple or set."""

    def decode(value: Any, path: str) -> Any:
        if type(value) is not list:
            raise _wrong(value, path, "an array")
        items = [item(entry, at(path, index)) for index, entry in enumerate(value)]
        try:
            return make(items)
        except TypeError as cause:
            raise MismatchError(path, f"its items cannot be in a set: {cause}") from cause

    return decode


def decode_tuple(items: Sequence[Decode]) -> Decode:
    """Decode an array of fixed length."""

    def decode(value: Any, path: str) -> Any:
        if type(value) is not list or len(value) != len(items):
            raise MismatchError(path, f"expected an array of {len(items)} items")
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(item(entry, at(path, index)) for index, (item, entry) in pairs)

    return decode


def decode_dict(key: Decode, item: Decode) -> Decode:
    """Decode an object with free keys."""

    def decode(value: Any, path: str) -> Any:
        if type(value) is not dict:
            raise _wrong(value, path, "an object")
        return {key(name, path): item(entry, at(path, str(name))) for name, entry in value.items()}

    return decode


def decode_object(
    fields: Mapping[str, Decode], required: Sequence[str], make: Callable[..., Any]
) -> Decode:
    """Decode an object with known keys, and build an instance of it."""

    def decode(value: Any, path: str) -> Any:
        if type(value) is not dict:
            raise _wrong(value, path, "an object")
        for name in required:
            if name not in value:
                raise MismatchError(at(path, name), "is required")
        values = {}
        for name, entry in value.items():
            if name not in fields:
                raise MismatchError(at(path, name), "is not a known key")
            values[name] = fields[name](entry, at(path, name))
        try:
            return make(**values)
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as cause:
            # What a class's own __init__ or __post_init__ refuses.
            raise MismatchError(path, str(cause) or type(cause).__name__) from cause

    return decode


def decode_union(members: Sequence[Decode], plain: set[type]) -> Decode:
    """Decode by the first member that takes the value.

    Args:
        members: In the order they were written.
        plain: Values of these types are taken as they are.
    """

    def decode(value: Any, path: str) -> Any:
        if type(value) in plain:
            return value
        found: list[MismatchError] = []
        for member in members:
            try:
                return member(value, path)
            except MismatchError as mismatch:
                found.append(mismatch)
        # The member that came furthest is the one that was meant.
        raise max(found, key=lambda mismatch: (not mismatch.choice, len(mismatch.path)))

    return decode


def to_json(value: Any) -> Any:
    """Turn a Python object into JSON data: what a tool's result and a default are written as.

    Dataclasses, structs, pydantic models, enums, paths, sets and the standard library's dates and
    numbers are known.

    Raises:
        UsageError: It has no JSON form (bytes have none either), holds NaN, or contains itself.
    """
    return _codec.decode_or_none(encode_json(value))


def encode_json(value: Any) -> bytes:
    """Write what `to_json` gives as compact JSON. Raises `UsageError` as it does."""
    try:
        return _codec.encode_checked(_to_json(value))
    except RecursionError as cause:
        raise UsageError("The value contains itself or is nested too deeply for JSON.") from cause


def _to_json(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return _to_json(value.value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return {_key(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, tuple) and callable(fields := getattr(value, "_asdict", None)):
        return _to_json(fields())  # a named tuple, as its schema says
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, (set, frozenset)):
        # In one order: the hashes of text differ from process to process.
        return sorted(map(_to_json, value), key=repr)
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise UsageError(f"The value holds {type(value).__name__}, which JSON has no form for.")
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        try:
            return dump(mode="json")
        except ValueError as cause:
            raise UsageError(f"{type(value).__name__} cannot be written: {cause}") from cause
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def _key(key: Any) -> Any:
    plain = key.value if isinstance(key, enum.Enum) else key
    return str(plain) if isinstance(plain, pathlib.PurePath) else plain
