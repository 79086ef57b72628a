"""The text of a whole reply, read as a stream's is: think tags, and calls left in it."""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk._core.stream.think import ThinkSplitter
from vllm_agent_sdk._core.text_calls.text_calls import TextCalls, find_calls
from vllm_agent_sdk.types.chat import (
    ChatChoice,
    ChatCompletion,
    ChatMessage,
    ChatToolCall,
    FunctionCall,
)

__all__ = ["read_text"]


def read_text(
    reply: ChatCompletion[Any], *, think_tags: bool, text_calls: TextCalls | None
) -> None:
    """Split reasoning and calls off the text of a reply's choices; its bytes stay as they were.

    Args:
        reply: The reply, which is changed.
        think_tags: `<think>…</think>` at the beginning of a text is reasoning.
        text_calls: How calls are found in a text.
    """
    if not think_tags and text_calls is None:
        return
    for choice in reply.choices:
        if think_tags:
            _split(choice.message)
        if text_calls is not None and not choice.message.tool_calls:
            _find(choice, text_calls)


def _split(message: ChatMessage) -> None:
    if not isinstance(message.content, str) or message.reasoning or message.reasoning_content:
        return
    splitter = ThinkSplitter()
    pieces = [*splitter.push(message.content), *splitter.close()]
    reasoning = "".join(thought for thought, _ in pieces)
    if reasoning or len(pieces) != 1:
        message.reasoning = reasoning or None
        message.content = "".join(text for _, text in pieces)


def _find(choice: ChatChoice, calls: TextCalls) -> None:
    message = choice.message
    text = message.content if isinstance(message.content, str) else ""
    said, found = find_calls(text, calls)
    if found:
        message.content = said or None
    elif not text.strip() and not message.content and choice.finish_reason == "stop":
        found = find_calls(message.reasoning or message.reasoning_content or "", calls)[1]
    if found:
        message.tool_calls = [
            ChatToolCall(
                id=f"call_{position}",
                type="function",
                function=FunctionCall(call.name, call.arguments),
            )
            for position, call in enumerate(found)
        ]
