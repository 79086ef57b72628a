"""The beginning of a JSON document as the value that is there so far."""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk.errors import ProtocolError
from vllm_agent_sdk.types import _codec

__all__ = ["partial_json"]

_SPACE = " \t\n\r"
_NOTHING = (False, None)


def partial_json(text: str) -> tuple[bool, Any]:
    """Read the beginning of a JSON document.

    Lists, objects and texts are given as far as they have come; a number or word only when it is
    over, because it could become another; a key only with its value.

    Returns:
        Whether there is a value yet, and the value. What is no beginning of JSON has none.
    """
    place = _Place()
    for at, character in enumerate(text):
        place.take(character, at)
    beginning = place.beginning(text)
    if beginning is None:
        return _NOTHING
    try:
        return True, _codec.decode(beginning.encode("utf-8", "surrogatepass"))
    except ProtocolError:
        return _NOTHING


class _Place:
    """Where in the document its beginning ends, and where it could be closed.

    The text is not checked here: what is no JSON fails when it is decoded.
    """

    def __init__(self) -> None:
        self._open: list[str] = []  # the brackets that close what is open
        self._cut: tuple[int, str] | None = None  # up to where there are whole values; the closers
        self._in_string = False
        self._is_key = False
        self._escape_at: int | None = None
        self._escape_ends = 0
        self._bare = False  # inside a number or word
        self._key_next = False

    def take(self, character: str, at: int) -> None:
        """Take the next character."""
        if self._in_string:
            self._in_text(character, at)
        elif character == '"':
            self._in_string, self._is_key = True, self._key_next
        elif character in "{[":
            self._open.append("}" if character == "{" else "]")
            self._key_next = character == "{"
            self._settle(at + 1)
        elif character in "]}":
            if self._open:
                self._open.pop()
            self._bare = self._key_next = False
            self._settle(at + 1)
        elif character == "," or character in _SPACE:
            if self._bare:
                self._bare = False
                self._settle(at)
            if character == ",":
                self._key_next = self._open[-1:] == ["}"]
        elif character == ":":
            self._key_next = False
        else:
            self._bare = True

    def _in_text(self, character: str, at: int) -> None:
        if self._escape_at is not None:
            if at == self._escape_at + 1:
                self._escape_ends = at + (4 if character == "u" else 0)
            if at >= self._escape_ends:
                self._escape_at = None
        elif character == "\\":
            self._escape_at, self._escape_ends = at, at + 1
        elif character == '"':
            self._in_string = False
            if not self._is_key:
                self._settle(at + 1)

    def _settle(self, end: int) -> None:
        self._cut = (end, "".join(reversed(self._open)))

    def beginning(self, text: str) -> str | None:
        """Give the beginning as a document of its own, or `None` if there is no value yet."""
        if self._in_string and not self._is_key:
            end = len(text) if self._escape_at is None else self._escape_at
            closers = '"' + "".join(reversed(self._open))
            return text[: _before_half(text, end)] + closers
        if self._cut is None:
            return None
        end, closers = self._cut
        return text[:end] + closers


def _before_half(text: str, end: int) -> int:
    """Step back before an escaped half of a character whose other half is to come."""
    half = text[end - 6 : end] if end >= 6 else ""
    if half[:2] != "\\u" or half[2:3] not in ("d", "D") or half[3:4] not in "89abAB":
        return end
    begun = end - 6
    slashes = len(text[:begun]) - len(text[:begun].rstrip("\\"))
    return end if slashes % 2 else begun
