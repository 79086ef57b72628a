"""Envelope turns: one JSON object a turn, for servers that know no structural tags.

1. A turn is `{"tool": NAME, "arguments": {…}}` or `{"final": answer}`, kept to by a JSON Schema as
   the response format. One call a turn.
2. Any split of the text gives the same calls and the same answer; the text of an answer comes
   piece by piece.
3. An object whose keys came in another order counts too: some grammars leave the order open.
4. What is no such object means that the constraint was ignored; it is kept, and marked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from vllm_agent_sdk._core.dialect.answer import arguments_schema, moved, refers
from vllm_agent_sdk._core.schema.grammar import bounded, response_schema
from vllm_agent_sdk._core.stream.guided import JsonValue
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.events import (
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallReady,
)
from vllm_agent_sdk.types.messages import ContentBlock, TextBlock, ToolCall
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["EnvelopeParser", "envelope_call", "envelope_final", "envelope_format"]

Schema = dict[str, Any]


def envelope_format(
    tools: Sequence[ToolSpec], *, output: Schema | None = None, require_call: bool = False
) -> dict[str, Any]:
    """Give the `response_format` of an envelope turn.

    Args:
        tools: What may be called; none leaves only the answer.
        output: The JSON Schema of a typed answer; `None` for text.
        require_call: Admit no answer in this turn.

    Raises:
        SchemaError: A schema cannot be made a grammar.
    """
    defs: Schema = {}
    forms: list[Schema] = []
    for at, tool in enumerate(tools):
        arguments = _placed(arguments_schema(tool), f"call_{at}", defs)
        forms.append(_object({"tool": {"const": tool.name}, "arguments": arguments}))
    if not (require_call and forms):
        answer = {"type": "string"} if output is None else _placed(output, "final", defs)
        forms.append(_object({"final": answer}))
    schema = {"anyOf": forms} if len(forms) > 1 else forms[0]
    if defs:
        schema = {**schema, "$defs": defs}
    schema = bounded(response_schema(schema, "The schema of an envelope turn"))
    form = {"name": "turn", "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": form}


def _object(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _placed(schema: Schema, name: str, defs: Schema) -> Schema:
    """Give a schema for use inside another one."""
    if not refers(schema):
        return schema
    place = f"#/$defs/{name}"
    defs[name] = moved(schema, place)
    return {"$ref": place}


def envelope_call(name: str, arguments_json: str) -> str:
    """Write a call as a turn."""
    return f'{{"tool": {_json(name)}, "arguments": {arguments_json}}}'


def envelope_final(answer: str, *, typed: bool) -> str:
    """Write an answer as a turn; a typed one is JSON already."""
    return f'{{"final": {answer if typed else _json(answer)}}}'


def _json(text: str) -> str:
    return _codec.encode(text).decode()


# ── reading ──────────────────────────────────────────────────────────────────────────────────────

_TOOL, _FINAL, _ARGUMENTS = '{"tool":', '{"final":', '{"arguments":'
_TOOL_HEAD = re.compile(r'\s*\{\s*"tool"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')
_BEGUN_HEAD = re.compile(r'\s*\{\s*"tool"\s*:\s*("(?:[^"\\]|\\.)*("[\s,:arguments"]*)?)?')
_FINAL_HEAD = re.compile(r'\s*\{\s*"final"\s*:\s*(?=\S)')
_SAFE = re.compile(
    r'(?:[^"\\]|\\["\\/bfnrt]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*"
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
#: Characters of two escapes that together are one character.
_PAIR = 12


class EnvelopeParser:
    """Reads the text of one envelope turn.

    Args:
        id_prefix: Ids of calls are this and a number from 1.
        typed: The final answer is JSON; it is given as it stands there.
    """

    def __init__(self, id_prefix: str, *, typed: bool = False) -> None:
        self._id = f"{id_prefix}1"
        self._typed = typed
        self._rest = ""
        self._state: Callable[[list[StreamEvent], bool], bool] = self._begin
        self._value = JsonValue()
        self._generated: list[str] = []
        self._text: list[str] = []
        self._arguments: list[str] = []
        self._name = ""
        self._call: ToolCall | None = None
        self.ignored = False
        self.final = False

    @property
    def verbatim(self) -> str:
        """The text as it was generated."""
        return "".join(self._generated)

    @property
    def whole(self) -> bool:
        """True if the text is nothing but one whole object."""
        return self._state == self._closed and not self.ignored

    def push(self, text: str) -> list[StreamEvent]:
        """Take the next piece; give the events it makes."""
        self._generated.append(text)
        self._rest += text
        return self._read(ended=False)

    def finish(self) -> list[StreamEvent]:
        """Take the end of the text, whole or cut; give the last events."""
        events = self._read(ended=True)
        if self._name and self._call is None:
            self._close_call(events)
        return events

    def blocks(self) -> list[ContentBlock]:
        """Give what the turn said, as blocks."""
        text: list[ContentBlock] = [TextBlock("".join(self._text))] if self._text else []
        return text if self._call is None else [*text, self._call]

    def _read(self, *, ended: bool) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        while self._rest and self._state(events, ended):
            pass
        return events

    # Each state reads from `_rest`, and gives False when it needs more.

    def _begin(self, events: list[StreamEvent], ended: bool) -> bool:
        squeezed = "".join(self._rest.split())
        if any(opener.startswith(squeezed) for opener in (_TOOL, _FINAL, _ARGUMENTS)):
            return False  # what a cut leaves of it is no text
        if squeezed.startswith(_ARGUMENTS):
            return ended and self._unordered(events)
        if head := _FINAL_HEAD.match(self._rest):
            if self._typed or self._rest[head.end()] == '"':
                self._rest = self._rest[head.end() + (not self._typed) :]
                self._state = self._in_value if self._typed else self._in_string
                self.final = True
                return True
        elif head := _TOOL_HEAD.match(self._rest):
            self._name = _unescaped(head[1][1:-1])
            self._rest, self._state = self._rest[head.end() :], self._in_arguments
            events.append(ToolCallDelta(index=0, id=self._id, name=self._name))
            return True
        elif squeezed == _FINAL or _BEGUN_HEAD.fullmatch(self._rest):
            return False
        return self._outside(events)

    def _unordered(self, events: list[StreamEvent]) -> bool:
        """Read an object whose arguments stand before the tool's name."""
        if JsonValue().end(self._rest) is None:
            return False  # it was cut
        found = _codec.decode_or_none(self._rest.encode("utf-8", "replace"))
        if not isinstance(found, dict) or set(found) != {"tool", "arguments"}:
            return self._outside(events)
        self._name = str(found["tool"])
        events.append(ToolCallDelta(index=0, id=self._id, name=self._name))
        self._argue(_codec.encode(found["arguments"]).decode(), events)
        self._close_call(events)
        self._rest, self._state = "", self._closed
        return False

    def _outside(self, events: list[StreamEvent]) -> bool:
        self.ignored, self._state = True, self._free
        return self._free(events, False)

    def _free(self, events: list[StreamEvent], _ended: bool) -> bool:
        self._say(self._rest, events)
        self._rest = ""
        return False

    def _in_arguments(self, events: list[StreamEvent], _ended: bool) -> bool:
        end = self._value.end(self._rest)
        self._argue(self._rest[:end], events)
        self._rest = "" if end is None else self._rest[end:]
        if end is not None:
            self._close_call(events)
            self._state = self._at_brace
        return end is not None

    def _argue(self, text: str, events: list[StreamEvent]) -> None:
        self._arguments.append(text)
        events.append(ToolCallDelta(index=0, arguments=text))

    def _close_call(self, events: list[StreamEvent]) -> None:
        self._call = ToolCall.from_text(self._id, self._name, "".join(self._arguments))
        events.append(ToolCallReady(call=self._call))

    def _in_value(self, events: list[StreamEvent], _ended: bool) -> bool:
        end = self._value.end(self._rest)
        self._say(self._rest[:end], events)
        self._rest = "" if end is None else self._rest[end:]
        if end is not None:
            self._state = self._at_brace
        return end is not None

    def _in_string(self, events: list[StreamEvent], _ended: bool) -> bool:
        safe = _SAFE.match(self._rest)
        text = safe[0] if safe else ""
        self._say(_unescaped(text), events)
        self._rest = self._rest[len(text) :]
        if self._rest[:1] == '"':
            self._rest, self._state = self._rest[1:], self._at_brace
            return True
        size = _lone(self._rest)
        if size:
            self._say("\ufffd", events)
            self._rest = self._rest[size:]
        return size > 0

    def _at_brace(self, events: list[StreamEvent], _ended: bool) -> bool:
        rest = self._rest.lstrip()
        if not rest:
            return False
        if rest[0] != "}":
            return self._outside(events)
        self._rest, self._state = rest[1:], self._closed
        return True

    def _closed(self, events: list[StreamEvent], _ended: bool) -> bool:
        return bool(self._rest.strip()) and self._outside(events)

    def _say(self, text: str, events: list[StreamEvent]) -> None:
        if text:
            self._text.append(text)
            events.append(TextDelta(text=text))


def _lone(text: str) -> int:
    """Give how many characters stand for none: half of a pair, or no escape. 0: more must come."""
    if text[1:2] not in {"", "u"}:
        return 2
    after = text[6:]
    if not after or (len(text) < _PAIR and "\\u".startswith(after[:2])):
        return 0
    return 6


def _unescaped(text: str) -> str:
    """Read the inside of a JSON string whose escapes are whole."""
    if "\\" not in text:
        return text

    def one(found: re.Match[str]) -> str:
        return chr(int(found[1], 16)) if found[1] else _SHORT.get(found[2], found[2])

    read = _ESCAPE.sub(one, text)
    return read.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
