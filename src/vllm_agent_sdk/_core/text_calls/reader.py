"""What a format of calls written as text is to the parser of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from vllm_agent_sdk.types._codec import Fact

__all__ = ["NO_CALL", "PYTHON_TAG", "SPACE", "TOOL_CALL", "Found", "Reader", "Tools", "tag_place"]

#: The offered tools by name, with the JSON Schema of their arguments.
Tools = Mapping[str, Mapping[str, Any]]
SPACE = " \t\r\n"
#: The tags around a call, of more than one format.
TOOL_CALL = ("<tool_call>", "</tool_call>")
PYTHON_TAG = "<|python_tag|>"


class Found(Fact, frozen=True, gc=False):
    """Calls (name, arguments), and the place behind them."""

    calls: tuple[tuple[str, str], ...]
    end: int


#: What looked like the beginning of a call is none.
NO_CALL = Found((), 0)


class Reader(Protocol):
    """One format."""

    #: Characters that may stand between calls.
    separator: str

    def begin(self, text: str, line_begins: bool, begun: bool, ended: bool) -> int | None:
        """Give the first place at which a call begins or could, or `None`.

        Args:
            text: What is to be searched.
            line_begins: Nothing but white space stands before it on its line.
            begun: Something but white space stands before it.
            ended: Nothing comes after it.
        """
        ...

    def read(self, text: str, ended: bool) -> Found | None:
        """Read the call at the beginning of a text; `None` if more must come first."""
        ...


def _begun_tag(text: str, tag: str) -> int:
    """How many characters at the end of the text may be the beginning of the tag."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return size
    return 0


def tag_place(text: str, tags: tuple[str, ...], ended: bool) -> int | None:
    """Find the first of some tags, or what may become one at the end."""
    places = [at for tag in tags if (at := text.find(tag)) >= 0]
    if not ended:
        places += [len(text) - size for tag in tags if (size := _begun_tag(text, tag))]
    return min(places) if places else None
