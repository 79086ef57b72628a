"""Guided turns: a grammar of calls and answers, and the history as text.

1. The delimiters are plain ASCII of our own, in no model's special tokens and no parser's syntax:
   `[[call NAME]]{json}[[/call]]`, `[[final]]answer[[/final]]`, `[[result NAME]]…[[/result]]`.
   (Native markers are stripped by servers with an engine-based tool parser, on every reply.)
2. The grammar (vLLM's structural tags, xgrammar 0.2.8) admits calls of known tools with arguments
   by their schema, or the final answer, and nothing else.
3. What the model generated is sent back to the letter, so that the prefix cache holds.
4. In results and in the user's text our own markers are written `[ [`: a page cannot forge a call.
5. Small models call tools because a worked turn shows it, as real messages; words in the system
   text do not (measured on a model of 135 million parameters).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from vllm_agent_sdk._core.transcript import wire_content
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ContentBlock,
    Message,
    SystemMessage,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
    text_of,
)
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["WORKED_TURN", "TextHistory", "guided_format", "system_text"]

_MARKERS = re.compile(r"\[\[(?=call |final\]\]|result |/)")

#: A worked turn for agents that bring none of their own: neutral, and about nothing.
WORKED_TURN: tuple[Message, ...] = (
    UserMessage("What is the color of the sky?"),
    AssistantMessage([ToolCall("example_1", "get_color", {"thing": "sky"}, '{"thing": "sky"}')]),
    ToolMessage("example_1", '{"color": "blue"}'),
    AssistantMessage([TextBlock("The color of the sky is blue.")]),
)


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
) -> dict[str, Any]:
    """Give the `response_format` of a guided turn.

    Args:
        tools: What may be called; none leaves only the answer.
        output: The JSON Schema of a typed answer; `None` for text.
        require_call: Admit no answer in this turn.
        max_calls: Calls in one turn at most.
    """
    content = (
        {"type": "any_text", "excludes": ["[[/"]}
        if output is None
        else {"type": "json_schema", "json_schema": output}
    )
    final = {"type": "tag", "begin": "[[final]]", "content": content, "end": "[[/final]]"}
    if not tools:
        form: dict[str, Any] = final
    else:
        calls = _calls([_tag(tool) for tool in tools], max_calls)
        form = calls if require_call else {"type": "or", "elements": [calls, final]}
    return {"type": "structural_tag", "format": form}


def _tag(tool: ToolSpec) -> dict[str, Any]:
    schema = {"type": "json_schema", "json_schema": tool.parameters}
    return {"type": "tag", "begin": f"[[call {tool.name}]]", "content": schema, "end": "[[/call]]"}


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


def system_text(instructions: str | None, tools: Sequence[ToolSpec]) -> str:
    """Give the system text: the instructions, and the tools, one a line."""
    parts = [instructions] if instructions else []
    if tools:
        if not instructions:
            parts.append("Use the tools to answer.")
        parts.append("Tools:")
        parts.extend(_line(tool) for tool in tools)
    return "\n".join(parts)


def _line(tool: ToolSpec) -> str:
    properties: dict[str, Any] = tool.parameters.get("properties", {})
    required = set(tool.parameters.get("required", ()))
    arguments = ", ".join(
        _argument(name, schema, name in required) for name, schema in properties.items()
    )
    description = " ".join(tool.description.split())
    return (
        f"{tool.name}({arguments}): {description}" if description else f"{tool.name}({arguments})"
    )


def _argument(name: str, schema: object, required: bool) -> str:
    """Give an argument as small models read it best: the bare name where it is plain text."""
    schema = schema if isinstance(schema, dict) else {}
    if "enum" in schema:
        kind = " | ".join(_codec.encode(value).decode() for value in schema["enum"])
    else:
        kind = schema.get("type", "")
        kind = "" if kind == "string" or not isinstance(kind, str) else kind
    text = f"{name}: {kind}" if kind else name
    return text if required else f"{text}?"


class TextHistory:
    """Writes messages in the text dialect.

    It remembers the names of the calls it has written, because a result names its tool.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def wire(self, messages: Iterable[Message]) -> list[dict[str, Any]]:
        """Give the messages in the wire's shape; results of one turn become one user message."""
        wire: list[dict[str, Any]] = []
        results: list[str] = []
        for message in messages:
            if isinstance(message, ToolMessage):
                results.append(self._result(message))
                continue
            if results:
                wire.append({"role": "user", "content": "\n".join(results)})
                results = []
            wire.append(self._message(message))
        if results:
            wire.append({"role": "user", "content": "\n".join(results)})
        return wire

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
        for call in message.tool_calls:
            self._names[call.id] = call.name
        if message.verbatim is not None:
            return message.verbatim
        if message.tool_calls:
            return "\n".join(
                f"[[call {call.name}]]{call.arguments_json or '{}'}[[/call]]"
                for call in message.tool_calls
            )
        return f"[[final]]{escape(message.text)}[[/final]]"

    def _result(self, message: ToolMessage) -> str:
        name = self._names.get(message.call_id, "tool")
        return f"[[result {name}]]{escape(text_of(message.content))}[[/result]]"


def _escaped(content: str | list[ContentBlock]) -> str | list[ContentBlock]:
    if isinstance(content, str):
        return escape(content)
    return [TextBlock(escape(b.text)) if isinstance(b, TextBlock) else b for b in content]
