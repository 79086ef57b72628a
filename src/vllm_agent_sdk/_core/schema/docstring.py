"""Docstrings as data: what a function does, and what its parameters mean.

Google, NumPy and Sphinx (reStructuredText) styles are read; they may be mixed.
"""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

__all__ = ["Docstring", "parse_docstring"]


class Docstring(NamedTuple):
    """A docstring's parts.

    Attributes:
        description: The text before the first section.
        parameters: What is said of each parameter (or attribute of a class), by name.
    """

    description: str
    parameters: dict[str, str]


_NAMED = {"args", "arguments", "parameters", "params", "keyword args", "keyword arguments"} | {
    "other parameters", "attributes", "fields",
}  # fmt: skip
_OTHER = {
    "example", "examples", "note", "notes", "raise", "raises", "reference", "references", "return",
    "returns", "see also", "todo", "warning", "warnings", "warns", "yield", "yields",
}  # fmt: skip

# Patterns are compiled at their first use: importing stays quick.
_GOOGLE_ITEM = r"^\*{0,2}(\w+)\s*(?:\([^)]*(?:\([^)]*\)[^)]*)*\))?\s*:(?:\s+(.*))?$"
_NUMPY_ITEM = r"^(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$"
_FIELD = (
    r"^[:@](?:(param|parameter|arg|argument|key|keyword|ivar|cvar|var|attribute)\s+"
    r"(?:[^:]*?\s)?\*{0,2}(\w+)|[a-z]+(?:\s[^:]*)?):\s*(.*)$"
)


def parse_docstring(text: str | None) -> Docstring:
    """Read a docstring. `None`, and text of no known style, are description only."""
    lines = inspect.cleandoc(text or "").splitlines()
    description: list[str] = []
    found: dict[str, list[str]] = {}
    seen_section = False
    at = 0
    while at < len(lines):
        title = lines[at].strip().rstrip(":").lower()
        numpy = (
            title in _NAMED | _OTHER
            and at + 1 < len(lines)
            and re.fullmatch(r"\s*-{3,}\s*", lines[at + 1]) is not None
        )
        google = title in _NAMED | _OTHER and lines[at].rstrip().endswith(":")
        field = re.match(_FIELD, lines[at])
        if numpy:
            seen_section = True
            end = _numpy_end(lines, at + 2)
            if title in _NAMED:
                _read_items(lines[at + 2 : end], _NUMPY_ITEM, found)
            at = end
        elif google and _indent(lines, at + 1) > _indent(lines, at):
            seen_section = True
            end = _block_end(lines, at + 1, _indent(lines, at))
            if title in _NAMED:
                _read_items(lines[at + 1 : end], _GOOGLE_ITEM, found)
            at = end
        elif field is not None:
            seen_section = True
            end = _block_end(lines, at + 1, _indent(lines, at))
            if field[2]:
                found[field[2]] = [field[3], *lines[at + 1 : end]]
            at = end
        else:
            if not seen_section:
                description.append(lines[at])
            at += 1
    parameters = {name: " ".join(" ".join(parts).split()) for name, parts in found.items()}
    return Docstring(
        "\n".join(description).strip(), {name: said for name, said in parameters.items() if said}
    )


def _indent(lines: list[str], at: int) -> int:
    """Give the indentation of the first line from `at` on that holds text; -1 if none does."""
    line = next((line for line in lines[at:] if line.strip()), None)
    return -1 if line is None else len(line) - len(line.lstrip())


def _block_end(lines: list[str], at: int, indent: int) -> int:
    """Find where lines that are deeper than `indent` (or empty) end."""
    while at < len(lines) and (not lines[at].strip() or _indent(lines, at) > indent):
        at += 1
    return at


def _numpy_end(lines: list[str], at: int) -> int:
    """Find the next underlined title."""
    while at < len(lines):
        underlined = at + 1 < len(lines) and re.fullmatch(r"\s*-{3,}\s*", lines[at + 1])
        if underlined and lines[at].strip():
            return at
        at += 1
    return at


def _read_items(lines: list[str], item: str, found: dict[str, list[str]]) -> None:
    base = _indent(lines, 0)
    current: list[list[str]] = []
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        match = re.match(item, line.strip()) if _indent(lines, at) == base else None
        if match is not None:
            names = [name.strip().lstrip("*") for name in match[1].split(",")]
            first = [match[2] or ""] if item == _GOOGLE_ITEM else []
            current = [found.setdefault(name, []) for name in names]
            for parts in current:
                parts[:] = first
        else:
            for parts in current:
                parts.append(line.strip())
