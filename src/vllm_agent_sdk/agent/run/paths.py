"""Whether the paths in a call's arguments lie within the permitted folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["named_paths", "outside"]

_ABSENT = object()


def outside(
    spec: ToolSpec, arguments: Mapping[str, Any], directories: Sequence[str]
) -> tuple[str, ...]:
    """Find the paths that lie outside all permitted folders.

    Looked at are the arguments that the tool names in `reads_files` and `edits_files`: text, or a
    list of it; `a.b` is the field `b` of the argument `a`, or of each item of it. One that was
    left out counts with its schema's default. What is no text counts as outside.

    A path is read as the operating system reads it: relative to the working directory, symbolic
    links followed (also in the part that exists of a path that does not), `..` taken after them.
    Because tools differ, a path must lie inside under every usual reading: with `..` taken before
    the links, and with a `~` at its beginning expanded, too; text that holds a JSON list is also
    read as this list. Upper and lower case differ, but on Windows.

    Args:
        spec: The tool.
        arguments: The call's arguments.
        directories: The folders, absolute or relative to the working directory, `~` expanded;
            empty: no limit.

    Returns:
        What lies outside, as it stands in the arguments, each once, in their order.
    """
    if not directories:
        return ()
    roots = [_real(os.path.expanduser(each)) for each in directories]
    found: dict[str, None] = {}
    for name in dict.fromkeys((*spec.reads_files, *spec.edits_files)):
        for value in _values(spec, arguments, name):
            if not _inside(value, roots):
                found[_shown(value)] = None
    return tuple(found)


def named_paths(
    spec: ToolSpec, arguments: Mapping[str, Any], names: Sequence[str]
) -> tuple[str, ...]:
    """Give the paths in a call's arguments, as `outside` finds them; what is no text is left out.

    Args:
        spec: The tool.
        arguments: The call's arguments.
        names: The arguments: those of `reads_files` or `edits_files`.
    """
    values = (value for name in names for value in _values(spec, arguments, name))
    return tuple(dict.fromkeys(value for value in values if isinstance(value, str)))


# ── what is in the arguments ─────────────────────────────────────────────────────────────────────


def _values(spec: ToolSpec, arguments: Mapping[str, Any], name: str) -> Iterator[Any]:
    value = arguments.get(name, _ABSENT)
    if value is _ABSENT and "." in name:
        first, *rest = name.split(".")
        yield from _nested(arguments.get(first), rest)
        return
    if value is _ABSENT:
        schema = spec.parameters.get("properties", {}).get(name)
        value = schema.get("default") if isinstance(schema, dict) else None
    yield from _items(value)


def _nested(value: Any, names: list[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _nested(item, names)
    elif not names:
        yield from _items(value)
    elif isinstance(value, Mapping):
        yield from _nested(value.get(names[0]), names[1:])
    elif value is not None:
        yield value


def _items(value: Any) -> Iterator[Any]:
    """Give each path; `None` is no path."""
    if isinstance(value, list):
        for item in value:
            yield from _items(item)
    elif value is not None:
        yield value


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else _codec.encode(value).decode()
    return text.encode("utf-8", "backslashreplace").decode()


# ── where they lead ──────────────────────────────────────────────────────────────────────────────


def _inside(value: Any, roots: list[str]) -> bool:
    if not isinstance(value, str):
        return False
    try:
        reached = {_real(reading) for reading in _readings(value)}
    except ValueError:  # a NUL byte, or half of a character
        return False
    items = _json_list(value)
    if items is not None and not all(_inside(item, roots) for item in _items(items)):
        return False
    return all(any(_within(path, root) for root in roots) for path in reached)


def _readings(text: str) -> Iterator[str]:
    for path in {text, os.path.expanduser(text)}:
        yield path
        yield os.path.abspath(path)


def _json_list(text: str) -> list[Any] | None:
    """Give the list that text holds: arguments are repaired so where a list is expected."""
    if not text.lstrip().startswith("["):
        return None
    value = _codec.decode_or_none(text.encode())
    return value if isinstance(value, list) else None


def _real(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
