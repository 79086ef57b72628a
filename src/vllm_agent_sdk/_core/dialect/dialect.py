"""Guided turns: a grammar of calls and answers, and the history as text.

1. The delimiters are plain ASCII of our own, in no model's special tokens and no parser's syntax:
   `[[call NAME]]{json}[[/call]]`, `[[final]]answer[[/final]]`, `[[result NAME]]…[[/result]]`.
   (Native markers are stripped by servers with an engine-based tool parser, on every reply.)
2. The grammar (vLLM's structural tags, xgrammar 0.2.8) admits calls of known tools with arguments
   by their schema, or the final answer, and nothing else.
3. What the model generated is sent back to the letter, so that the prefix cache holds.
4. In results and in the user's text our own markers are written `[ [`: a page cannot forge a call.
5. Small models call tools because worked turns show it, as real messages; words in the system text
   do not. That names the tools (`tool_lines`).

What is said of small models was measured on one of 135 million parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

from vllm_agent_sdk._core.dialect.answer import answer_text, arguments_schema
from vllm_agent_sdk._core.dialect.envelope import envelope_call, envelope_final
from vllm_agent_sdk._core.dialect.transcript import answered, wire_content
from vllm_agent_sdk._core.run.state import ANSWER_TOOL
from vllm_agent_sdk._core.schema import refs
from vllm_agent_sdk._core.schema.grammar import bounded, grammar_schema
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ContentBlock,
    MediaBlock,
    Message,
    SystemMessage,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
    text_of,
)
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["Form", "TextHistory", "guided_format", "worked_turns"]

#: How a turn is written in the text dialect.
Form: TypeAlias = Literal["guided", "envelope"]

_MARKERS = re.compile(r"\[\[(?=call |final\]\]|result |/)")


def _turn(asked: str, call: ToolCall, result: str, answer: str) -> tuple[Message, ...]:
    return (
        UserMessage(asked),
        AssistantMessage([call]),
        ToolMessage(call.id, result),
        AssistantMessage([TextBlock(answer)]),
    )


# Two that differ in tool, number and types of the arguments: after one alone, small models copy its
# words and its shape. Words with a blank between them keep them from writing `apple_pie`.
_COLOR = _turn(
    "What is the color of the sky?",
    ToolCall("example_1", "get_color", {"thing": "sky"}, '{"thing": "sky"}'),
    '{"color": "blue"}',
    "The color of the sky is blue.",
)
_BAKE = _turn(
    "Bake the apple pie for 2 hours.",
    ToolCall(
        "example_2", "bake", {"dish": "apple pie", "hours": 2}, '{"dish": "apple pie", "hours": 2}'
    ),
    '{"ready_at": "6 pm"}',
    "The apple pie is ready at 6 pm.",
)
# Without one that ends, they write lists until their tokens are used up.
_PACK = _turn(
    "Pack the red hat and the scarf.",
    ToolCall(
        "example_3", "pack", {"items": ["red hat", "scarf"]}, '{"items": ["red hat", "scarf"]}'
    ),
    '{"kilos": 2}',
    "They are packed and weigh 2 kilos.",
)


def worked_turns(tools: Iterable[ToolSpec]) -> tuple[Message, ...]:
    """Give worked turns for agents that bring none of their own: neutral, and about nothing.

    The same tools give the same turns. They are no turns of the tools themselves, whose values
    small models copy from there.
    """
    lists = any(
        "array" in (kind if isinstance(kind := each.get("type"), list) else [kind])
        for tool in tools
        for each in refs.subschemas(tool.parameters)
    )
    return (*_COLOR, *(_PACK if lists else ()), *_BAKE)


def escape(text: str) -> str:
    """Write our own markers so that they are text and nothing else."""
    return _MARKERS.sub("[ [", text)


# ── the grammar ──────────────────────────────────────────────────────────────────────────────────


def guided_format(
    tools: Sequence[ToolSpec],
    *,
    output: dict[str, Any] | None = None,
    require_call: bool = False,
    max_calls: int = 1,
    think: bool = False,
) -> dict[str, Any]:
    """Give the `response_format` of a guided turn.

    Args:
        tools: What may be called; none leaves only the answer.
        output: The JSON Schema of a typed answer; `None` for text.
        require_call: Admit no answer in this turn.
        max_calls: Calls in one turn at most.
        think: Admit a thought in `<think>` tags before it.

    Raises:
        SchemaError: A schema cannot be made a grammar.
    """
    content: dict[str, Any] = {"type": "any_text", "excludes": ["[[/"]}
    if output is not None:
        schema = bounded(grammar_schema(output, "The output's schema"))
        content = {"type": "json_schema", "json_schema": schema}
    final = {"type": "tag", "begin": "[[final]]", "content": content, "end": "[[/final]]"}
    if not tools:
        form: dict[str, Any] = final
    else:
        calls = _calls([_tag(tool) for tool in tools], max_calls)
        form = calls if require_call else {"type": "or", "elements": [calls, final]}
    if think:
        text = {"type": "any_text"}
        thought = {"type": "tag", "begin": "<think>", "content": text, "end": "</think>"}
        form = {"type": "sequence", "elements": [{"type": "optional", "content": thought}, form]}
    return {"type": "structural_tag", "format": form}


def _tag(tool: ToolSpec) -> dict[str, Any]:
    schema = grammar_schema(arguments_schema(tool), f"The parameters of the tool {tool.name!r}")
    content = {"type": "json_schema", "json_schema": bounded(schema)}
    return {"type": "tag", "begin": f"[[call {tool.name}]]", "content": content, "end": "[[/call]]"}


def _calls(tags: list[dict[str, Any]], max_calls: int) -> dict[str, Any]:
    one = {
        "type": "tags_with_separator",
        "separator": "\n",
        "at_least_one": True,
        "stop_after_first": True,
        "tags": tags,
    }
    if max_calls == 1:
        return one
    # Without a cap a small model repeats a call until its tokens are used up.
    next_call = {"type": "sequence", "elements": [{"type": "const_string", "value": "\n"}, one]}
    more = {"type": "repeat", "min": 0, "max": max_calls - 1, "content": next_call}
    return {"type": "sequence", "elements": [one, more]}


# ── the history as text ──────────────────────────────────────────────────────────────────────────


class TextHistory:
    """Writes messages in the text dialect.

    It remembers the names of the calls it has written, because a result names its tool.

    Args:
        form: How turns are written.
        output: The JSON Schema of a typed answer; `None` for text.
    """

    def __init__(self, form: Form = "guided", output: dict[str, Any] | None = None) -> None:
        self._form = form
        self._output = output
        self._names: dict[str, str] = {}

    def wire(self, messages: Iterable[Message]) -> list[dict[str, Any]]:
        """Give the messages in the wire's shape; results of one turn become one user message."""
        wire: list[dict[str, Any]] = []
        results: list[ToolMessage] = []
        for message in answered(messages):
            if isinstance(message, ToolMessage):
                results.append(message)
                continue
            wire += self._results(results)
            results = []
            wire.append(self._message(message))
        return wire + self._results(results)

    def _message(self, message: Message) -> dict[str, Any]:
        match message:
            case SystemMessage(content=text):
                return {"role": "system", "content": text}
            case UserMessage(content=content):
                return {"role": "user", "content": wire_content(_escaped(content))}
            case AssistantMessage():
                return {"role": "assistant", "content": self._generated(message)}
            case _:
                raise TypeError(type(message).__name__)

    def _generated(self, message: AssistantMessage) -> str:
        calls = message.tool_calls
        for call in calls:
            self._names[call.id] = call.name
        verbatim = message.verbatim
        if verbatim is not None and _form_of(verbatim) == self._form:
            return verbatim
        if len(calls) == 1 and calls[0].name == ANSWER_TOOL:
            return self._final(answer_text(calls[0], self._output))
        if calls:
            return "\n".join(self._call(call) for call in calls)
        return self._final(message.text)

    def _call(self, call: ToolCall) -> str:
        # What is no JSON object was never run, and no grammar would have let it pass.
        arguments = (call.arguments_json if call.arguments is not None else "") or "{}"
        if self._form == "envelope":
            return envelope_call(call.name, arguments)
        return f"[[call {call.name}]]{arguments}[[/call]]"

    def _final(self, text: str) -> str:
        if self._form == "envelope":
            data = text.encode("utf-8", "replace")
            typed = self._output is not None and _codec.decode_or_none(data) is not None
            return envelope_final(text, typed=typed)
        return f"[[final]]{escape(text)}[[/final]]"

    def _results(self, messages: list[ToolMessage]) -> list[dict[str, Any]]:
        """Give the results of a turn as one message of the user's."""
        text = "\n".join(line for message in messages for line in self._result(message))
        blocks = [
            block
            for each in messages
            if not isinstance(each.content, str)
            for block in each.content
        ]
        media: list[ContentBlock] = [block for block in blocks if isinstance(block, MediaBlock)]
        if not text and not media:
            return []
        content = wire_content([TextBlock(text), *media] if media else text)
        return [{"role": "user", "content": content}]

    def _result(self, message: ToolMessage) -> list[str]:
        """Give a result as text; that of the answer's tool says nothing but what was wrong."""
        name = self._names.get(message.call_id, "tool")
        text = escape(text_of(message.content))
        if name == ANSWER_TOOL:
            return [text] if message.is_error else []
        return [f"[[result {name}]]{text}[[/result]]"]


def _form_of(verbatim: str) -> Form:
    return "envelope" if verbatim.lstrip().startswith("{") else "guided"


def _escaped(content: str | list[ContentBlock]) -> str | list[ContentBlock]:
    if isinstance(content, str):
        return escape(content)
    return [TextBlock(escape(b.text)) if isinstance(b, TextBlock) else b for b in content]
