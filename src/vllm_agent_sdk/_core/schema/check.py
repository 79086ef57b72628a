"""Checking JSON values against a schema, and repairing what can be repaired without loss.

The one importer of jsonschema_rs, which costs 22 ms: it is loaded when the first value is checked,
or the first schema that was written by hand.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from vllm_agent_sdk._core.schema import refs
from vllm_agent_sdk.errors import SchemaError

__all__ = ["Validator", "coerce", "is_loaded", "load"]

_MOST_ERRORS = 10
_LONGEST = 300
_DEEPEST = 250
#: A value in a value in a value, each written as text: more than this is not a slip of a model.
_ROUNDS = 8

# Patterns are compiled at their first use: importing stays quick.
_INTEGER = r"0|-?[1-9]\d{0,99}"
_NUMBER = r"-?(0|[1-9]\d{0,99})(\.\d{1,99})?([eE][+-]?\d{1,3})?"


def is_loaded() -> bool:
    """Whether validating needs no import any more."""
    return hasattr(sys.modules.get("jsonschema_rs"), "validator_for")


def load() -> None:
    """Import what validates; it takes long: not for the loop."""
    import jsonschema_rs  # noqa: F401


class Validator:
    """A JSON Schema, compiled at the first use.

    Args:
        schema: The schema; the draft its `$schema` names, else 2020-12.
        where: What it belongs to, for errors.
    """

    def __init__(self, schema: dict[str, Any], where: str = "The schema") -> None:
        self.schema = schema
        self._where = where
        self._compiled: Any = None

    def check(self) -> None:
        """Compile the schema now. Raises `SchemaError` naming keyword and path if it is wrong."""
        if self._compiled is not None:
            return
        import jsonschema_rs

        try:
            self._compiled = jsonschema_rs.validator_for(self.schema, retriever=_no_retriever)
        except jsonschema_rs.ValidationError as cause:
            raise SchemaError(f"{self._where} is no valid JSON Schema{_place(cause)}.") from cause
        except ValueError as cause:
            raise SchemaError(f"{self._where} is no valid JSON Schema: {cause}.") from cause

    def is_valid(self, value: Any) -> bool:
        """True if the value matches."""
        self.check()
        try:
            return not _too_deep(value) and bool(self._compiled.is_valid(value))
        except (ValueError, RecursionError):
            return False

    def errors(self, value: Any) -> list[str]:
        """Say what is wrong with a value: path and reason each, at most ten; empty if it matches.

        Raises:
            SchemaError: The schema is wrong.
        """
        if self.is_valid(value):
            return []
        try:
            found = [text for error in self._iterate(value) for text in _sentences(error)]
        except (ValueError, RecursionError) as cause:
            return [f"the value cannot be checked: {cause}"]
        found = list(dict.fromkeys(found))
        if len(found) > _MOST_ERRORS:
            found[_MOST_ERRORS:] = [f"… and {len(found) - _MOST_ERRORS} more"]
        return found

    def _iterate(self, value: Any) -> Iterator[Any]:
        self.check()
        if _too_deep(value):
            raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
        yield from self._compiled.iter_errors(value)

    def coerce(self, value: Any) -> tuple[Any, tuple[str, ...]]:
        """Repair a value where nothing is lost.

        Text that holds the number, boolean, object or array that is expected becomes it, and an
        integer written as `3.0` becomes `3`. All other values stay as they are, and so does
        everything if the result would still not match.

        Returns:
            The value (never changed in place), and each repair as text, such as `count: "3" → 3`.
        """
        original, repairs = value, []
        if self.is_valid(value) and not _has_float(value):
            return value, ()
        try:
            for _ in range(_ROUNDS):
                fixes = [fix for error in self._iterate(value) if (fix := _fix(error)) is not None]
                for path, old, new in [f for group in fixes for f in group]:
                    value = _replaced(value, path, new)
                    repairs.append(_repair(path, old, new))
                if not fixes:
                    break
            if not self._compiled.is_valid(value):
                return original, ()
        except (ValueError, RecursionError):
            return original, ()
        for path, old, new in _whole_floats(value, self.schema, self.schema, []):
            value = _replaced(value, path, new)
            repairs.append(_repair(path, old, new))
        return value, tuple(repairs)


def coerce(value: Any, schema: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """Repair a value where nothing is lost; see `Validator.coerce`."""
    return Validator(schema).coerce(value)


def _too_deep(value: Any) -> bool:
    """Look level by level: jsonschema_rs recurses, and overflows a thread's stack."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(_DEEPEST):
        level = [
            item
            for each in level
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return False
    return True


def _no_retriever(uri: str) -> Any:
    # Nothing is fetched: the library speaks to the servers the user named and to no others.
    raise ValueError(f"{uri} is elsewhere; put its schema into $defs")


# ── messages ─────────────────────────────────────────────────────────────────────────────────────


def _path(parts: list[str | int]) -> str:
    path = ""
    for part in parts:
        path = refs.at(path, part)
    return path


def _place(error: Any) -> str:
    path = _path(error.instance_path)
    if not path:
        return f": {_short(error.message)}"
    return f": keyword {error.instance_path[-1]!r} at {path}: {_short(error.message)}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _kind(error: Any) -> str:
    return type(error.kind).__name__.removeprefix("ValidationErrorKind_")


def _sentences(error: Any) -> list[str]:
    kind, path = _kind(error), _path(error.instance_path)
    if kind == "Required":
        return [f"{refs.at(path, error.kind.property)}: is required"]
    if kind == "AdditionalProperties":
        return [f"{refs.at(path, name)}: is not a known argument" for name in error.kind.unexpected]
    if kind in ("AnyOf", "OneOfNotValid"):
        branches = _branches(error)
        near = [
            branch
            for branch in branches
            if not any(
                _kind(e) == "Type" and e.instance_path == error.instance_path for e in branch
            )
        ]
        if len(near) == 1:  # the one member of the right kind is the one that was meant
            return [text for inner in near[0] for text in _sentences(inner)]
        if branches and not near:
            types = [t for b in branches for e in b if _kind(e) == "Type" for t in e.kind.types]
            names = " or ".join(f'"{name}"' for name in dict.fromkeys(types))
            return [_at(path, f"{_shown(error.instance)} is not of type {names}")]
        if near:
            texts = [" and ".join(t for e in branch for t in _sentences(e)) for branch in near]
            return [_at(path, "matches no alternative: " + ", or ".join(texts))]
    return [_at(path, error.message)]


def _at(path: str, text: str) -> str:
    return f"{path}: {_short(text)}" if path else _short(text)


def _branches(error: Any) -> list[list[Any]]:
    """Give the errors of each member of a union (none where jsonschema_rs does not tell)."""
    return [list(branch) for branch in getattr(error.kind, "context", ())]


def _shown(value: Any) -> str:
    import json  # only what is wrong needs it

    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _repair(path: list[str | int], old: Any, new: Any) -> str:
    return f"{_path(path) or 'arguments'}: {_shown(old)} → {_shown(new)}"


# ── repairs ──────────────────────────────────────────────────────────────────────────────────────

Fix = tuple[list[str | int], Any, Any]


def _fix(error: Any) -> list[Fix] | None:
    """Find the repairs that answer one error, or `None`."""
    kind = _kind(error)
    if kind == "Type":
        return _fix_type(error)
    if kind in ("AnyOf", "OneOfNotValid"):
        for branch in _branches(error):
            fixes = [_fix(inner) for inner in branch]
            if fixes and all(fix is not None for fix in fixes):
                return [f for fix in fixes if fix is not None for f in fix]
    return None


def _fix_type(error: Any) -> list[Fix] | None:
    value = error.instance
    if not isinstance(value, str):
        return None
    for name in error.kind.types:
        new = _from_text(value, name)
        if new is not None:
            return [(list(error.instance_path), value, new)]
    return None


def _from_text(text: str, name: str) -> Any:
    """Read text as a value of a JSON type, or give `None` if it is not exactly one."""
    if name == "boolean":
        return {"true": True, "false": False}.get(text)
    if name in ("integer", "number"):
        return _number(text, name)
    if name in ("object", "array") and text.strip()[:1] in ("{", "["):
        import json

        try:
            value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_distinct_keys)
        except (ValueError, RecursionError):
            return None
        return value if type(value) is (dict if name == "object" else list) else None
    return None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key comes twice: reading it would lose one")
    return value


def _number(text: str, name: str) -> int | float | None:
    if re.fullmatch(_INTEGER, text):
        return int(text)
    if not re.fullmatch(_NUMBER, text):
        return None
    number = float(text)
    try:
        exact = math.isfinite(number) and Decimal(repr(number)) == Decimal(text)
    except InvalidOperation:
        return None
    if not exact:
        return None  # more digits than a float holds
    if name == "integer":
        signed_zero = number == 0 and text.startswith("-")
        whole = number.is_integer() and abs(number) < 2**53 and not signed_zero
        return int(number) if whole else None
    return number


def _replaced(value: Any, path: list[str | int], new: Any) -> Any:
    """Copy a value with one place changed."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copy


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_float, value.values()))
    return any(map(_has_float, value)) if isinstance(value, list) else type(value) is float


def _whole_floats(value: Any, schema: Any, root: Any, path: list[str | int]) -> Iterator[Fix]:
    """Find `3.0` where the schema says integer. JSON Schema takes it; a function would not."""
    schema = _member(value, refs.resolve(schema, root), root)
    if not isinstance(schema, dict):
        return
    if type(value) is float:
        if schema.get("type") == "integer" and value.is_integer() and abs(value) < 2**53:
            yield path, value, int(value)
    elif isinstance(value, dict):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        rest = None if "patternProperties" in schema else rest
        for key, item in value.items():
            yield from _whole_floats(item, properties.get(key, rest), root, [*path, key])
    elif isinstance(value, list):
        first = schema.get("prefixItems", [])
        for index, item in enumerate(value):
            inner = first[index] if index < len(first) else schema.get("items")
            yield from _whole_floats(item, inner, root, [*path, index])


def _member(value: Any, schema: Any, root: Any) -> Any:
    """Give the one member of a union that is of the value's kind; other schemas as they are."""
    members = schema.get("anyOf") if isinstance(schema, dict) else None
    if not isinstance(members, list):
        return schema
    kinds = {dict: ("object",), list: ("array",), float: ("integer", "number")}.get(type(value), ())
    found = [refs.resolve(member, root) for member in members]
    fitting = [one for one in found if isinstance(one, dict) and one.get("type") in (*kinds, None)]
    return fitting[0] if len(fitting) == 1 else None
