"""Messages in the wire's shape.

Our classes and wire dicts may be mixed: a dict is passed on as it is, but for an empty
`tool_calls`, which servers and templates take for calls or refuse. The text dialect of guided turns
is written by `dialect`.
"""

from __future__ import annotations

import re
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
    Message,
    SystemMessage,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
    VideoBlock,
)

__all__ = [
    "NO_RESULT",
    "NativeHistory",
    "answered",
    "nine_characters",
    "wire_content",
    "wire_message",
    "wire_messages",
]

#: What the model is told of a call that nobody answered.
NO_RESULT = "There is no result: the call was not answered."
_NINE = re.compile(r"[A-Za-z0-9]{9}")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class NativeHistory:
    """Writes messages in the native dialect: calls as `tool_calls`, results with the role `tool`.

    Args:
        nine_ids: The ids of calls are nine letters and digits, as Mistral's templates demand.
        reasoning: The model gets its reasoning of earlier turns back.
    """

    def __init__(self, *, nine_ids: bool = False, reasoning: bool = False) -> None:
        self._nine = nine_ids
        self._reasoning = reasoning

    def wire(self, messages: Iterable[Message]) -> list[dict[str, Any]]:
        """Give the messages in the wire's shape; calls that nobody answered are answered."""
        wire: list[dict[str, Any]] = [
            wire_message(message, reasoning=self._reasoning) for message in answered(messages)
        ]
        if self._nine:
            for message in wire:
                if "tool_call_id" in message:
                    message["tool_call_id"] = nine_characters(message["tool_call_id"])
                for call in message.get("tool_calls", ()):
                    call["id"] = nine_characters(call["id"])
        return wire


def answered(messages: Iterable[Message]) -> list[Message]:
    """Answer the calls that nobody answered, where the next message begins."""
    result: list[Message] = []
    unanswered: dict[str, None] = {}
    for message in messages:
        if isinstance(message, ToolMessage):
            unanswered.pop(message.call_id, None)
        else:
            result += [ToolMessage(call_id, NO_RESULT, is_error=True) for call_id in unanswered]
            unanswered.clear()
        result.append(message)
        if isinstance(message, AssistantMessage):
            unanswered = dict.fromkeys(call.id for call in message.tool_calls)
    return [*result, *(ToolMessage(each, NO_RESULT, is_error=True) for each in unanswered)]


def nine_characters(call_id: str) -> str:
    """Give an id of nine letters and digits, the same for the same id."""
    if _NINE.fullmatch(call_id):
        return call_id
    import hashlib  # few models want this, and it loads OpenSSL's

    number = int.from_bytes(hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).digest())
    letters: list[str] = []
    for _ in range(9):
        number, at = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[at])
    return "".join(letters)


def wire_messages(messages: Iterable[Any], *, reasoning: bool = False) -> list[Any]:
    """Give messages in the wire's shape.

    Args:
        messages: Ours or the wire's; dicts are passed on as they are.
        reasoning: Send what the model thought in earlier turns, under vLLM's name `reasoning`:
            for models whose templates read it (`model_family.sends_reasoning`).

    Raises:
        UsageError: One is neither a message of ours nor a dict.
    """
    if type(messages) is not list and (
        isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable)
    ):
        raise UsageError(
            f"messages= takes a list of messages, not {type(messages).__name__}; "
            'a single one is [{"role": "user", "content": "…"}] or [UserMessage("…")].'
        )
    return [
        each if type(each) is Raw else wire_message(each, reasoning=reasoning) for each in messages
    ]


def wire_message(message: object, *, reasoning: bool = False) -> Any:
    """Give one message in the wire's shape (native dialect)."""
    if type(message) is Raw or (type(message) is dict and "tool_calls" not in message):
        return message
    match message:
        case Mapping():
            if "tool_calls" in message and not message["tool_calls"]:
                return {key: value for key, value in message.items() if key != "tool_calls"}
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
