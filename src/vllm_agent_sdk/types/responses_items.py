"""What goes into a Responses request and comes out of it: items, and the parts of their content.

One class stands for all kinds of items, `type` tells them apart (as users of OpenAI's SDK read
them: `item.type == "function_call"`); a kind that is not known here loses nothing but the fields
that no other kind has, and those are in `Response.extra`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ContentBlock,
    FileBlock,
    ImageBlock,
    Message,
    ReasoningBlock,
    SystemMessage,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)

__all__ = ["InputItem", "ResponseItem", "ResponsePart", "response_input"]


class ResponsePart(msgspec.Struct, omit_defaults=True):
    """A part of an item's content.

    Attributes:
        type: `output_text`, `refusal` or `reasoning_text` in replies, `summary_text` in summaries.
        text: Its text; `""` for a refusal.
        refusal: A refusal's text.
        logprobs: With `include=["message.output_text.logprobs"]`: one entry a token.
    """

    type: str = "output_text"
    text: str = ""
    refusal: str | None = None
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class ResponseItem(msgspec.Struct, omit_defaults=True):
    """An item of a response's output.

    Attributes:
        type: `message`, `reasoning`, `function_call`, `custom_tool_call`, `mcp_call`,
            `web_search_call`, `code_interpreter_call`, or a kind that is new.
        id: The item's id (`msg_…`, `rs_…`, `fc_…`, …).
        status: `in_progress`, `completed` or `incomplete`; `None` for reasoning.
        content: The parts of a message or of reasoning.
        summary: The parts of a reasoning's summary; vLLM sends none.
        call_id: The id that a call's result names.
        name: The called tool's name, without its namespace.
        namespace: The tool's namespace, where it has one.
        arguments: A function call's arguments, JSON text.
        input: A custom tool call's input, free text.
    """

    type: str = ""
    id: str | None = None
    status: str | None = None
    role: str | None = None
    content: list[ResponsePart] | None = None
    summary: list[ResponsePart] | None = None
    encrypted_content: str | None = None
    phase: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: Any = None
    error: Any = None
    action: Any = None
    code: str | None = None
    container_id: str | None = None
    outputs: list[Any] | None = None
    server_label: str | None = None
    approval_request_id: str | None = None
    caller: Any = None
    asynchronous: Any = msgspec.field(default=None, name="async")

    @property
    def text(self) -> str:
        """The text of a message's parts, or of a reasoning's; `""` if it has none."""
        return "".join(part.text for part in self.content or self.summary or ())

    @property
    def tool_name(self) -> str:
        """The called tool's name as a request's `tool_choice` names it, namespace included."""
        name = self.name or ""
        return f"{self.namespace}__{name}" if self.namespace else name

    def as_input(self) -> dict[str, Any]:
        """Give the item in the form in which a later request sends it back."""
        item: dict[str, Any] = _codec.to_builtins(self)
        item = {"type": self.type} | {k: v for k, v in item.items() if v is not None}
        if self.type == "reasoning":
            item.setdefault("summary", [])
        elif self.type == "message" and not self.content:
            item["content"] = ""  # vLLM fails on a list without parts
        for part in (*(item.get("content") or ()), *(item.get("summary") or ())):
            # Defaults are left out above; here the wire insists on them.
            part.setdefault("type", "output_text")
            if part["type"] != "refusal":
                part.setdefault("text", "")
        return item


#: What `input=` may hold: messages of ours, items of a response, dicts in the wire's shape.
InputItem: TypeAlias = Message | ResponseItem | Mapping[str, Any]


def response_input(
    messages: str | Iterable[InputItem], *, reasoning: bool = True
) -> str | list[Any]:
    """Give a request's `input` in the wire's shape: items of Responses' own kinds.

    A user's, system's or assistant's message becomes a message item, each call a `function_call`,
    a tool's result a `function_call_output`, reasoning a `reasoning` item before the text it
    belongs to. Text and wire dicts are passed on as they are.

    Args:
        messages: Text, or messages, items and dicts, mixed as you like.
        reasoning: Send the assistant's reasoning back; most chat templates drop it.

    Raises:
        UsageError: Something is of no kind that Responses takes.
    """
    if isinstance(messages, str):
        return messages
    if isinstance(messages, (bytes, Mapping)) or not isinstance(messages, Iterable):
        raise UsageError(
            f"input= takes text or a list of items, not {type(messages).__name__}; a single one is "
            '[{"role": "user", "content": "…"}] or [UserMessage("…")].'
        )
    return [item for message in messages for item in _items(message, reasoning)]


def _items(message: object, reasoning: bool) -> list[Any]:
    match message:
        case Mapping() | _codec.Raw():
            return [message]
        case ResponseItem():
            return [message.as_input()]
        case SystemMessage(content=content):
            return [_message("system", content)]
        case UserMessage(content=content):
            return [_message("user", _content(content))]
        case AssistantMessage():
            return _assistant(message, reasoning)
        case ToolMessage(call_id=call_id, content=content):
            output = _content(content)
            return [{"type": "function_call_output", "call_id": call_id, "output": output}]
        case _:
            raise UsageError(
                "An item of input= is a SystemMessage, UserMessage, AssistantMessage, ToolMessage, "
                "an item of a response's output or a dict in the wire's shape, not "
                f"{type(message).__name__}."
            )


def _message(role: str, content: object) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def _assistant(message: AssistantMessage, reasoning: bool) -> list[dict[str, Any]]:
    # vLLM puts neighbouring items together again, and reads the first part of each only: reasoning,
    # text and calls are one item each, in this order.
    items: list[dict[str, Any]] = []
    thought = message.reasoning
    if thought and reasoning:
        part = {"type": "reasoning_text", "text": thought}
        items.append({"type": "reasoning", "summary": [], "content": [part]})
    calls = [_call(block) for block in message.content if isinstance(block, ToolCall)]
    if message.text or not (items or calls):
        items.append(_message("assistant", message.text))
    for block in message.content:
        if not isinstance(block, (TextBlock, ReasoningBlock, ToolCall)):
            raise UsageError(f"An assistant's message cannot hold a {type(block).__name__}.")
    return items + calls


def _call(call: ToolCall) -> dict[str, Any]:
    # What is no JSON object is sent as {}, as in chat: templates read the arguments.
    arguments = call.arguments_json if call.arguments is not None else "{}"
    return {
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments or "{}",
    }


def _content(content: str | list[ContentBlock]) -> str | list[dict[str, Any]]:
    """Give text as text, and blocks as parts; text alone stays text."""
    if isinstance(content, str):
        return content
    if len(content) == 1 and isinstance(content[0], TextBlock):
        return content[0].text
    return [_part(block) for block in content]


def _part(block: ContentBlock) -> dict[str, Any]:
    match block:
        case TextBlock(text=text):
            return {"type": "input_text", "text": text}
        case ImageBlock(url=url):
            return {"type": "input_image", "image_url": url, "detail": "auto"}
        case FileBlock(url=url, name=name):
            where = "file_data" if url.startswith("data:") else "file_url"
            return {"type": "input_file", where: url} | ({"filename": name} if name else {})
        case _:
            raise UsageError(
                f"Responses takes text, images and files, not {type(block).__name__}; chat "
                "completions take more."
            )
