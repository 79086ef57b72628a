"""Literals as models write them in pythonic calls: Python's own, and JSON's names for them.

Read without `ast`, whose parser can be brought down by what a model writes.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["PythonLiteralError", "read_literal", "skip_space"]

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[A-Za-z]+")
_WORDS = {
    "True": True, "False": False, "None": None, "true": True, "false": False, "null": None,
}  # fmt: skip
_ESCAPES = {
    "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0",
    "\\": "\\", "'": "'", '"': '"', "\n": "",
}  # fmt: skip
_DIGITS = {"x": 2, "u": 4, "U": 8}
_SPACE = re.compile(r"\s*")
_CLOSERS = {"[": "]", "(": ")", "{": "}"}
_DEEPEST = 64
_LONGEST_NUMBER = 300


class PythonLiteralError(ValueError):
    """The text is no literal."""


def skip_space(text: str, at: int) -> int:
    """Give the first place from `at` on that is no white space."""
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def read_literal(text: str, at: int, depth: int = 0) -> tuple[Any, int]:
    """Read the literal that begins at `at`; give it as JSON data, and the place behind it.

    Tuples become lists.

    Raises:
        PythonLiteralError: There is none, or it is nested deeper than 64 levels.
    """
    if depth > _DEEPEST:
        raise PythonLiteralError("it is nested too deeply")
    first = text[at : at + 1]
    if first in ("'", '"'):
        return _text(text, at)
    if first in _CLOSERS and first:
        return _items(text, at, depth)
    if (number := _NUMBER.match(text, at)) is not None:
        return _number(number[0]), number.end()
    if (word := _WORD.match(text, at)) is not None and word[0] in _WORDS:
        return _WORDS[word[0]], word.end()
    raise PythonLiteralError(f"no literal: {text[at : at + 20]!r}")


def _number(digits: str) -> int | float:
    if len(digits) > _LONGEST_NUMBER:
        raise PythonLiteralError("a number is too long")
    value = float(digits) if any(each in digits for each in ".eE") else int(digits)
    if value in (float("inf"), float("-inf")):
        raise PythonLiteralError("a number is too large")
    return value


def _text(text: str, at: int) -> tuple[str, int]:
    """Read a string; with three quotes it may go over lines."""
    quote = text[at] * 3 if text.startswith(text[at] * 3, at) else text[at]
    at += len(quote)
    parts: list[str] = []
    while at < len(text):
        if text.startswith(quote, at):
            return "".join(parts), at + len(quote)
        if text[at] == "\\":
            part, at = _escape(text, at)
            parts.append(part)
        else:
            parts.append(text[at])
            at += 1
    raise PythonLiteralError("a string has no end")


def _escape(text: str, at: int) -> tuple[str, int]:
    letter = text[at + 1 : at + 2]
    size = _DIGITS.get(letter)
    if size is None:
        return _ESCAPES.get(letter, f"\\{letter}"), at + 2
    digits = text[at + 2 : at + 2 + size]
    try:
        code = int(digits, 16)
        if len(digits) != size or 0xD800 <= code < 0xE000:
            raise ValueError
        return chr(code), at + 2 + size
    except (ValueError, OverflowError):
        raise PythonLiteralError(f"no character: {text[at : at + 2 + size]!r}") from None


def _items(text: str, at: int, depth: int) -> tuple[Any, int]:
    """Read a list, tuple or dict."""
    closer = _CLOSERS[text[at]]
    keyed = closer == "}"
    values: list[Any] = []
    pairs: dict[str, Any] = {}
    at = skip_space(text, at + 1)
    while not text.startswith(closer, at):
        value, at = read_literal(text, at, depth + 1)
        at = skip_space(text, at)
        if keyed:
            if not isinstance(value, str) or not text.startswith(":", at):
                raise PythonLiteralError("the keys of a JSON object are text")
            pairs[value], at = read_literal(text, skip_space(text, at + 1), depth + 1)
            at = skip_space(text, at)
        else:
            values.append(value)
        if text.startswith(",", at):
            at = skip_space(text, at + 1)
        elif not text.startswith(closer, at):
            raise PythonLiteralError("a comma or an end is missing")
    return (pairs if keyed else values), at + 1
