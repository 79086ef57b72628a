"""Messages in the wire's shape.

Our classes and wire dicts may be mixed: a dict is passed on as it is. The text dialect of guided
turns is written by `dialect`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types._codec import Raw
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    AudioBlock,
    ContentBlock,
    FileBlock,
    ImageBlock,
    SystemMessage,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
    VideoBlock,
)

__all__ = ["wire_message", "wire_messages"]


def wire_messages(messages: Iterable[Any], *, reasoning: bool = False) -> list[Any]:
    """Give messages in the wire's shape.

    Args:
        messages: Ours or the wire's; dicts are passed on as they are.
        reasoning: Send what the model thought in earlier turns, under vLLM's name `reasoning`:
            for models whose templates read it (`model_family.sends_reasoning`).

    Raises:
        UsageError: One is neither a message of ours nor a dict.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise UsageError(
            f"messages= takes a list of messages, not {type(messages).__name__}; "
            'a single one is [{"role": "user", "content": "…"}] or [UserMessage("…")].'
        )
    return [wire_message(message, reasoning=reasoning) for message in messages]


def wire_message(message: object, *, reasoning: bool = False) -> Any:
    """Give one message in the wire's shape (native dialect)."""
    match message:
        case Mapping() | Raw():
            return message
        case SystemMessage(content=content):
            return {"role": "system", "content": content}
        case UserMessage(content=content):
            return {"role": "user", "content": wire_content(content)}
        case AssistantMessage():
            return _assistant(message, reasoning)
        case ToolMessage(call_id=call_id, content=content):
            return {"role": "tool", "tool_call_id": call_id, "content": wire_content(content)}
        case _:
            raise UsageError(
                "A message is a SystemMessage, UserMessage, AssistantMessage, ToolMessage or a "
                f"dict in the wire's shape, not {type(message).__name__}."
            )


def _assistant(message: AssistantMessage, reasoning: bool) -> dict[str, Any]:
    # Where no policy says so reasoning is not sent back: most templates drop it, some refuse it.
    calls = [_call(block) for block in message.content if isinstance(block, ToolCall)]
    wire: dict[str, Any] = {"role": "assistant", "content": message.text or None}
    if calls:
        wire["tool_calls"] = calls
    elif wire["content"] is None:
        wire["content"] = ""
    if reasoning and message.reasoning:
        wire["reasoning"] = message.reasoning
    return wire


def _call(call: ToolCall) -> dict[str, Any]:
    # vLLM gives invalid arguments to the template as {}; older servers answered 400 to them.
    arguments = call.arguments_json if call.arguments is not None else "{}"
    function = {"name": call.name, "arguments": arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}


def wire_content(content: str | list[ContentBlock]) -> str | list[dict[str, Any]]:
    """Give text as text, and blocks as parts; text alone stays text."""
    if isinstance(content, str):
        return content
    if len(content) == 1 and isinstance(content[0], TextBlock):
        return content[0].text
    return [_part(block) for block in content]


def _part(block: ContentBlock) -> dict[str, Any]:
    match block:
        case TextBlock(text=text):
            return {"type": "text", "text": text}
        case ImageBlock(url=url):
            return {"type": "image_url", "image_url": {"url": url}}
        case AudioBlock(url=url):
            return {"type": "audio_url", "audio_url": {"url": url}}
        case VideoBlock(url=url):
            return {"type": "video_url", "video_url": {"url": url}}
        case FileBlock(url=url, name=name):
            return {"type": "file", "file": {"filename": name, "file_data": url}}
        case _:
            raise UsageError(f"A message to the model cannot hold a {type(block).__name__}.")
