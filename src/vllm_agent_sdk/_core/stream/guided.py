"""The text of a guided turn to events: calls, and the answer without its tags.

1. Any split of the text gives the same calls and the same answer.
2. The end of the JSON ends a call, and a typed answer, not the first end tag: it may stand in a
   string.
3. Of the answer, only what may be the beginning of its end tag is held back.
4. Text outside the tags means that the constraint was ignored; it is kept, and marked. What a cut
   leaves of a tag is no text.
"""

from __future__ import annotations

from collections.abc import Callable

from vllm_agent_sdk.types.events import (
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallReady,
)
from vllm_agent_sdk.types.messages import ContentBlock, ReasoningBlock, TextBlock, ToolCall

__all__ = ["GuidedParser", "JsonValue"]

_CALL, _FINAL, _THINK = "[[call ", "[[final]]", "<think>"
_OPENERS = (_CALL, _FINAL, _THINK)
_CALL_END, _FINAL_END, _THINK_END = "[[/call]]", "[[/final]]", "</think>"

_VALUE_ENDS = frozenset(",}][ \t\r\n")


class JsonValue:
    """Finds the end of one JSON value in a text that comes in pieces."""

    __slots__ = ("_begun", "_depth", "_escaped", "_in_string", "_plain")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = self._begun = self._plain = False

    def end(self, text: str) -> int | None:
        """Take the next piece; give the place behind the value, or `None` if it goes on."""
        for at, character in enumerate(text):
            if self._in_string:
                if self._ends_string(character) and not self._depth:
                    return at + 1
            elif self._plain:
                if character in _VALUE_ENDS:
                    return at
            elif character == '"':
                self._in_string = self._begun = True
            elif character in "{[":
                self._depth += 1
                self._begun = True
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return at + 1
            elif not self._begun and not character.isspace():
                self._plain = True
        return None

    def _ends_string(self, character: str) -> bool:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False
        return not self._in_string


class GuidedParser:
    """Reads the text of one guided turn.

    Args:
        id_prefix: Ids of calls are this and a number from 1.
        typed: The final answer is JSON.
    """

    def __init__(self, id_prefix: str, *, typed: bool = False) -> None:
        self._prefix = id_prefix
        self._typed = typed
        self._rest = ""
        self._state: Callable[[list[StreamEvent]], bool] = self._between
        self._text: list[str] = []
        self._thought: list[str] = []
        self._generated: list[str] = []
        self._calls: list[ToolCall] = []
        self._name = ""
        self._arguments: list[str] = []
        self._value = JsonValue()
        self._tag = ""
        self.ignored = False
        self.final = False

    @property
    def verbatim(self) -> str:
        """The text as it was generated, without a thought."""
        return "".join(self._generated)

    @property
    def whole(self) -> bool:
        """True if the text is nothing but whole calls or a whole answer."""
        return bool(self._generated) and self._state == self._between and not self.ignored

    def push(self, text: str) -> list[StreamEvent]:
        """Take the next piece; give the events it makes."""
        self._rest += text
        events: list[StreamEvent] = []
        while self._rest and self._state(events):
            pass
        return events

    def finish(self) -> list[StreamEvent]:
        """Take the end of the text, whole or cut; give the last events."""
        events: list[StreamEvent] = []
        rest, self._rest = self._rest, ""
        if self._state == self._in_call:
            self._close_call(events)
            self._state = self._cut
        elif self._state == self._in_final:
            # The grammar keeps `[[/` out of the answer: it can only be the cut end tag.
            self._answer("" if rest.startswith("[[/") else rest, events)
        elif self._state == self._in_thought:
            self._think(rest, events)
        elif self._state == self._between and not _begins_a_tag(rest.strip()):
            self._outside(rest, events)
        return events

    def blocks(self) -> list[ContentBlock]:
        """Give what the turn said, as blocks."""
        thought = [ReasoningBlock("".join(self._thought))] if self._thought else []
        text = [TextBlock("".join(self._text))] if self._text else []
        return [*thought, *text, *self._calls]

    # Each state reads from `_rest`, and gives False when it needs more.

    def _between(self, events: list[StreamEvent]) -> bool:
        rest = self._rest.lstrip()
        if not rest:
            return False
        for opener in _OPENERS:
            if rest.startswith(opener):
                self._rest = rest[len(opener) :]
                if opener == _THINK:
                    self._state = self._in_thought
                    return True
                if self._generated:
                    self._generated.append("\n")
                self._generated.append(opener)
                self.final = self.final or opener == _FINAL
                self._state = self._in_name
                if opener == _FINAL:
                    self._value = JsonValue()
                    self._state = self._in_value if self._typed else self._in_final
                return True
            if opener.startswith(rest):
                return False
        self._outside(self._rest, events)
        self._rest = ""
        return False

    def _outside(self, text: str, events: list[StreamEvent]) -> None:
        self.ignored = True
        self._generated.append(text)
        self._answer(text, events, generated=False)
        self._state = self._free

    def _free(self, events: list[StreamEvent]) -> bool:
        self._outside(self._rest, events)
        self._rest = ""
        return False

    def _in_name(self, events: list[StreamEvent]) -> bool:
        name, end, after = self._rest.partition("]]")
        if not end:
            return False
        self._name, self._rest = name, after
        self._generated.append(f"{name}]]")
        events.append(ToolCallDelta(len(self._calls), self._next_id(), name))
        self._arguments, self._value = [], JsonValue()
        self._state = self._in_call
        return True

    def _in_call(self, events: list[StreamEvent]) -> bool:
        rest = self._rest
        end = self._value.end(rest)
        self._argue(rest[:end], events)
        self._rest = "" if end is None else rest[end:]
        if end is None:
            return False
        self._close_call(events)
        return True

    def _argue(self, text: str, events: list[StreamEvent]) -> None:
        self._arguments.append(text)
        self._generated.append(text)
        events.append(ToolCallDelta(len(self._calls), arguments=text))

    def _close_call(self, events: list[StreamEvent]) -> None:
        arguments = "".join(self._arguments)
        if arguments.strip():
            call = ToolCall.from_text(self._next_id(), self._name, arguments)
        else:
            # The grammar has arguments in every call: without any it was cut, and must not run.
            error = "The call was cut before its arguments."
            call = ToolCall(self._next_id(), self._name, None, arguments, error)
        self._calls.append(call)
        events.append(ToolCallReady(call))
        self._tag, self._state = _CALL_END, self._at_end_tag

    def _next_id(self) -> str:
        return f"{self._prefix}{len(self._calls) + 1}"

    def _at_end_tag(self, _events: list[StreamEvent]) -> bool:
        rest, tag = self._rest.lstrip(), self._tag
        if not rest.startswith(tag):
            if tag.startswith(rest):
                return False
            self._state = self._between
            return True
        self._rest = rest[len(tag) :]
        self._generated.append(tag)
        self._state = self._between
        return True

    def _cut(self, _events: list[StreamEvent]) -> bool:
        return False

    def _in_value(self, events: list[StreamEvent]) -> bool:
        rest = self._rest
        end = self._value.end(rest)
        self._answer(rest[:end], events)
        self._rest = "" if end is None else rest[end:]
        if end is not None:
            self._tag, self._state = _FINAL_END, self._at_end_tag
        return end is not None

    def _in_final(self, events: list[StreamEvent]) -> bool:
        text, end, after = self._rest.partition(_FINAL_END)
        if end:
            self._answer(text, events)
            self._generated.append(_FINAL_END)
            self._rest, self._state = after, self._between
            return True
        held = _held_back(text, _FINAL_END)
        self._rest = text[len(text) - held :]
        self._answer(text[: len(text) - held], events)
        return False

    def _answer(self, text: str, events: list[StreamEvent], *, generated: bool = True) -> None:
        if text:
            self._text.append(text)
            if generated:
                self._generated.append(text)
            events.append(TextDelta(text))

    def _in_thought(self, events: list[StreamEvent]) -> bool:
        text, end, after = self._rest.partition(_THINK_END)
        if end:
            self._think(text, events)
            self._rest, self._state = after, self._between
            return True
        held = _held_back(text, _THINK_END)
        self._rest = text[len(text) - held :]
        self._think(text[: len(text) - held], events)
        return False

    def _think(self, text: str, events: list[StreamEvent]) -> None:
        if text:
            self._thought.append(text)
            events.append(ReasoningDelta(text))


def _begins_a_tag(text: str) -> bool:
    """True for what a cut leaves of a tag that opens something, and for nothing."""
    return any(opener.startswith(text) for opener in _OPENERS)


def _held_back(text: str, tag: str) -> int:
    """How many characters at the end of the text may be the beginning of the tag."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if tag.startswith(text[-size:]):
            return size
    return 0
