"""Reasoning that a server without a reasoning parser leaves in the text: `<think>…</think>`."""

from __future__ import annotations

__all__ = ["ThinkSplitter"]

_OPEN = "<think>"
_CLOSE = "</think>"


class ThinkSplitter:
    """Splits streamed text into reasoning and text, wherever the tags are cut.

    A model thinks at the beginning of its reply, so a tag is one only there (white space before it
    is dropped): a text that speaks of `<think>` later stays as it is. Without an end tag all of it
    is reasoning.

    Args:
        opened: The template has written the opening tag already, so the reply begins inside; one
            that the model writes all the same is dropped too.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._opened = opened
        self._begun = False  # what the reply begins with is settled
        self._inside = False
        self._held = ""

    def push(self, text: str) -> list[tuple[str, str]]:
        """Take a piece; give what it settles, in order, as `(reasoning, text)`, one of them empty.

        What may be the beginning of a tag is held back.
        """
        self._held += text
        if not self._begun and not self._begin():
            return []
        pieces: list[tuple[str, str]] = []
        if self._inside:
            thought, end, after = self._held.partition(_CLOSE)
            if not end:
                kept = _begun_tag(thought, _CLOSE)
                thought, after = thought[: len(thought) - kept], thought[len(thought) - kept :]
            if thought:
                pieces.append((thought, ""))
            self._held = after
            self._inside = not end
        if not self._inside and self._held:
            pieces.append(("", self._held))
            self._held = ""
        return pieces

    def close(self) -> list[tuple[str, str]]:
        """Give what was held back, at the end of the reply."""
        held, self._held = self._held, ""
        if not held:
            return []
        inside = self._inside or (self._opened and not self._begun)
        return [(held, "")] if inside else [("", held)]

    def _begin(self) -> bool:
        """Settle whether the reply begins with a tag; False if more must come first."""
        start = self._held.lstrip()
        if len(start) < len(_OPEN) and _OPEN.startswith(start):
            return False
        self._begun = True
        tagged = start.startswith(_OPEN)
        self._inside = tagged or self._opened
        if tagged:
            self._held = start[len(_OPEN) :]
        return True


def _begun_tag(text: str, tag: str) -> int:
    """How many characters at the end of the text may be the beginning of the tag."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return size
    return 0
