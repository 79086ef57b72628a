"""Requests held against the table of vLLM's fields: names, types, and what is missing.

The table (`fields.json`) is made from a running server by `make record`. vLLM ignores a field that
it does not know, so that a misspelt one has no effect and no error; here it fails the test.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.testing.checks import RefusedError
from vllm_agent_sdk.testing.jsontypes import is_list, is_object

__all__ = ["FieldCheck", "Table", "table"]

_SHOWN_ERRORS = 10
_TRUTHS = frozenset(["true", "false", "1", "0", "yes", "no", "on", "off", "y", "n", "t", "f"])


@dataclass(frozen=True)
class _Problem:
    """What is wrong with a value.

    Attributes:
        path: Where it is, as people write it: `messages[0].content`.
        what: What is wrong, and what is expected.
        errors: How vLLM says so; empty for what vLLM lets pass.
        name: Of the field, where it is unknown.
    """

    path: str
    what: str
    errors: tuple[dict[str, Any], ...] = ()
    name: str = ""


class Table:
    """The fields of requests, by route.

    Attributes:
        version: The vLLM that it was made from.
        endpoints: The type of each route's body.
        types: The fields of each object.
    """

    def __init__(self, written: Mapping[str, Any]) -> None:
        self.version: str = written["vllm"]
        self.endpoints: Mapping[str, Any] = written["endpoints"]
        self.types: Mapping[str, Any] = written["types"]

    def problems(self, path: str, body: Mapping[str, Any]) -> list[_Problem]:
        """Give what is wrong with a route's body; nothing for a route that is not in the table."""
        type_ = self.endpoints.get(path)
        return [] if type_ is None else self._find(body, type_, "", ("body",))

    def _find(self, value: Any, type_: Any, path: str, at: tuple[str, ...]) -> list[_Problem]:
        if is_list(type_):
            return self._in_union(value, type_, path, at)
        if isinstance(type_, str) and type_.startswith("#"):
            return self._in_object(value, self.types[type_[1:]], path, at)
        if not is_object(type_):
            return _primitive(value, type_, path, at)
        if "one of" in type_:
            return _literal(value, type_["one of"], path, at)
        if "list" in type_:
            return self._in_list(value, type_, path, at)
        if "map" in type_:
            if not is_object(value):
                return [_mistyped(value, type_, path, _error("dict_type", at, value))]
            return self._in_map(value, type_["map"], path, at)
        return self._in_object(value, type_, path, at)

    def _in_union(
        self, value: Any, types: list[Any], path: str, at: tuple[str, ...]
    ) -> list[_Problem]:
        found = [self._find(value, each, path, at) for each in types]
        if [] in found:
            return []
        # What is told is what is wrong with the alternative that comes closest: the one that the
        # value names, or where it is of the right kind and little in it is wrong.
        _, best = min(
            zip(types, found, strict=True),
            key=lambda each: (
                not self._tag_fits(value, each[0]),
                each[1][0].path == path,
                len(each[1]),
            ),
        )
        accepted = not all(any(problem.errors for problem in each) for each in found)
        errors = tuple(
            error
            for type_, each in zip(types, found, strict=True)
            if type_ != "null" and not accepted
            for problem in each
            for error in problem.errors
        )
        if best[0].path == path:
            return [_Problem(path, _expects(value, types), errors)]
        known = self._known_elsewhere(value, types)
        others = [_Problem(each.path, each.what) for each in best if each.name not in known]
        if not errors:
            return others
        return [_Problem(best[0].path, best[0].what, errors), *others[1:]]

    def _tag_fits(self, value: object, type_: object) -> bool | None:
        """Whether the value's `type` or `role` is this kind's; `None` where that says nothing."""
        if not (is_object(value) and isinstance(type_, str) and type_.startswith("#")):
            return None
        fields: Mapping[str, Any] = self.types[type_[1:]]["fields"]
        fits = [
            value[tag] in fields[tag]["one of"]
            for tag in ("type", "role")
            if tag in value and tag in fields and "one of" in fields[tag]
        ]
        return all(fits) if fits else None

    def _known_elsewhere(self, value: object, types: list[Any]) -> set[str]:
        """The fields of an object that one of the kinds it may be of has, and finds right.

        A message with `content: null` is an assistant's, its `reasoning` a field of messages of
        any role: vLLM takes them together.
        """
        if not is_object(value):
            return set()
        return {
            name
            for type_ in types
            if isinstance(type_, str) and type_.startswith("#")
            if self._tag_fits(value, type_) is not False
            for name, expected in self.types[type_[1:]]["fields"].items()
            if name in value and not self._find(value[name], expected, name, ())
        }

    def _in_object(
        self, value: Any, type_: Mapping[str, Any], path: str, at: tuple[str, ...]
    ) -> list[_Problem]:
        if not is_object(value):
            return [_mistyped(value, type_, path, _error("model_attributes_type", at, value))]
        fields: Mapping[str, Any] = type_["fields"]
        problems: list[_Problem] = []
        for name, expected in fields.items():
            where = f"{path}.{name}" if path else name
            if name in value:
                problems += self._find(value[name], expected, where, (*at, name))
            elif name in type_.get("required", ()):
                error = _error("missing", (*at, name), value)
                problems.append(_Problem(where, f"is missing; {_describe(expected)}", (error,)))
        for name in value:
            if name not in fields:
                where = f"{path}.{name}" if path else name
                problems.append(_Problem(where, _unknown(name, fields), name=name))
        return problems

    def _in_list(
        self, value: Any, type_: Mapping[str, Any], path: str, at: tuple[str, ...]
    ) -> list[_Problem]:
        if not is_list(value):
            return [_mistyped(value, type_, path, _error("list_type", at, value))]
        most = type_.get("max")
        if most is not None and len(value) > most:
            message = f"List should have at most {most} items after validation, not {len(value)}"
            error = _error("too_long", at, value, message)
            return [_Problem(path, f"has {len(value)} items; at most {most}", (error,))]
        return [
            problem
            for number, each in enumerate(value)
            for problem in self._find(each, type_["list"], f"{path}[{number}]", (*at, str(number)))
        ]

    def _in_map(
        self, value: Mapping[str, Any], type_: Any, path: str, at: tuple[str, ...]
    ) -> list[_Problem]:
        return [
            problem
            for key, each in value.items()
            for problem in self._find(each, type_, f"{path}.{key}", (*at, key))
        ]


@functools.cache
def table() -> Table:
    """Give the table of the vLLM that the simulator speaks like."""
    files = importlib.resources.files("vllm_agent_sdk.testing")
    return Table(json.loads((files / "fields.json").read_text(encoding="utf-8")))


class FieldCheck:
    """Holds requests against the table, and remembers what it found.

    Args:
        enforced: Whether what is found fails the test.

    Attributes:
        found: What was found so far, a sentence each.
    """

    def __init__(self, enforced: bool) -> None:
        self._enforced = enforced
        self.found: dict[str, None] = {}

    def check(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        """Look at a request.

        Raises:
            RefusedError: It has a field of a wrong type, or lacks one; as vLLM refuses it.
        """
        problems = table().problems(path, body)
        if self._enforced:
            self.found.update(
                (f"{method} {path}: {each.path} {each.what}", None) for each in problems
            )
        errors = [error for problem in problems for error in problem.errors]
        if errors:
            raise _refusal(errors)

    def failure(self) -> UsageError | None:
        """Give the error that the test is to fail with; `None` if all requests were right."""
        if not self.found:
            return None
        lines = "".join(f"\n- {each}" for each in self.found)
        return UsageError(
            f"The simulator was sent what vLLM {table().version} has no field for, or one of "
            f"another type:{lines}\nIf the test means it: Simulator(check_fields=False) answers "
            "as vLLM does, which ignores unknown fields and refuses wrong types."
        )


def _refusal(errors: list[dict[str, Any]]) -> RefusedError:
    count = f"{len(errors)} validation error{'s' if len(errors) > 1 else ''}:"
    lines = [f"  {each}" for each in errors[:_SHOWN_ERRORS]]
    if (more := len(errors) - _SHOWN_ERRORS) > 0:
        lines.append(f"  ...and {more} more error{'s' if more > 1 else ''}")
    message = "\n".join((count, *lines))
    return RefusedError(message, type="Bad Request", param=errors[0]["loc"])


# ── values of no parts ───────────────────────────────────────────────────────────────────────────

_MESSAGES = {
    "string_type": "Input should be a valid string",
    "int_type": "Input should be a valid integer",
    "int_parsing": "Input should be a valid integer, unable to parse string as an integer",
    "int_from_float": "Input should be a valid integer, got a number with a fractional part",
    "float_type": "Input should be a valid number",
    "float_parsing": "Input should be a valid number, unable to parse string as a number",
    "bool_type": "Input should be a valid boolean",
    "bool_parsing": "Input should be a valid boolean, unable to interpret input",
    "none_required": "Input should be None",
    "list_type": "Input should be a valid list",
    "dict_type": "Input should be a valid dictionary",
    "model_attributes_type": (
        "Input should be a valid dictionary or object to extract fields from"
    ),
    "missing": "Field required",
}


def _primitive(value: Any, type_: str, path: str, at: tuple[str, ...]) -> list[_Problem]:
    """Look at a value of no parts; what vLLM would convert (`"1"` to 1) is of a wrong type, too."""
    kind: str | None
    match type_:
        case "any":
            return []
        case "string":
            right, kind = isinstance(value, str), "string_type"
        case "integer":
            right, kind = _is_number(value) and value == int(value), _not_an_integer(value)
        case "number":
            right, kind = _is_number(value), _not_a_number(value)
        case "boolean":
            right, kind = isinstance(value, bool), _not_a_boolean(value)
        case _:
            right, kind = value is None, "none_required"
    if right:
        return []
    return [_mistyped(value, type_, path, None if kind is None else _error(kind, at, value))]


def _is_number(value: object) -> bool:
    finite = isinstance(value, int) or (isinstance(value, float) and abs(value) < float("inf"))
    return finite and not isinstance(value, bool)


def _not_an_integer(value: object) -> str | None:
    if isinstance(value, str):
        return None if re.fullmatch(r"\s*[+-]?\d+\s*", value) else "int_parsing"
    if isinstance(value, float):
        return "int_from_float"
    return None if isinstance(value, bool) else "int_type"


def _not_a_number(value: object) -> str | None:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return "float_parsing"
        return None
    return None if isinstance(value, bool) else "float_type"


def _not_a_boolean(value: object) -> str | None:
    if isinstance(value, (str, int, float)):
        known = value in {0, 1} or (isinstance(value, str) and value.lower() in _TRUTHS)
        return None if known else "bool_parsing"
    return "bool_type"


def _literal(value: Any, known: list[Any], path: str, at: tuple[str, ...]) -> list[_Problem]:
    if value in known:
        return []
    shown = [repr(each) for each in known]
    expected = " or ".join((", ".join(shown[:-1]), shown[-1])) if len(shown) > 1 else shown[0]
    error = _error("literal_error", at, value, f"Input should be {expected}")
    error["ctx"] = {"expected": expected}
    return [_mistyped(value, {"one of": known}, path, error)]


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def _error(
    type_: str, at: tuple[str, ...], value: object, message: str | None = None
) -> dict[str, Any]:
    """Make an entry of vLLM's own list of errors."""
    if is_list(value) or is_object(value):
        shown = f"<{type(value).__name__} of {len(value)} items>"
    else:
        shown = str(value)
    message = _MESSAGES[type_] if message is None else message
    return {"type": type_, "loc": ".".join(at), "msg": message, "input": shown}


def _mistyped(value: object, type_: Any, path: str, error: dict[str, Any] | None) -> _Problem:
    return _Problem(path, _expects(value, type_), () if error is None else (error,))


def _expects(value: object, type_: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return f"is {shown}; {_describe(type_)}"


def _describe(type_: Any) -> str:
    return f"the table expects {_named(type_)}"


def _named(type_: Any) -> str:
    if is_list(type_):
        return " | ".join(dict.fromkeys(_named(each) for each in type_))
    if isinstance(type_, str):
        return "object" if type_.startswith("#") else type_
    if "one of" in type_:
        return " | ".join(json.dumps(each) for each in type_["one of"])
    if "list" in type_:
        inner = _named(type_["list"])
        return f"list of ({inner})" if " | " in inner else f"list of {inner}"
    return "object"


def _unknown(name: str, fields: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, fields, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"is no field that the table knows there{meant}"
