"""A response as a chat completion, whole or event by event as the chunks of one.

So all that is known of reading chat (calls merged, thinking tags, calls left in the text) holds for
Responses too, and an agent sees the same events. A response has no finish reason: it follows from
its status and from the calls in it.
"""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk.types import responses_events as wire
from vllm_agent_sdk.types.chat import (
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatMessage,
    ChatToolCall,
    ChunkChoice,
    ChunkDelta,
    CompletionTokensDetails,
    CompletionUsage,
    FunctionCall,
    PromptTokensDetails,
)
from vllm_agent_sdk.types.responses import Response, ResponseUsage
from vllm_agent_sdk.types.responses_items import ResponseItem

__all__ = ["ChunkWriter", "completion_of"]

_FINISH = {"incomplete": "length", "cancelled": "abort"}


class ChunkWriter:
    """Writes the events of one response as a chat's chunks.

    Args:
        stop_reason: What the reply says where it ended by itself or by a stop text: a response does
            not tell which.
    """

    def __init__(self, stop_reason: str | None = None) -> None:
        self._stop_reason = stop_reason
        self._calls: dict[int, int] = {}
        # What has been said of each part, so that what comes only with its end is said then.
        self._said: dict[tuple[Any, ...], int] = {}

    def push(self, event: wire.ResponseEvent) -> ChatCompletionChunk | None:
        """Take an event; give the chunk that it makes, if it says anything new."""
        match event:
            case wire.ResponseCreatedEvent(response=response):
                return _head(response)
            case wire.ResponseTextDeltaEvent(delta=text):
                return self._text(event, "content", text)
            case wire.ResponseTextDoneEvent(text=text):
                return self._text(event, "content", text, whole=True)
            case wire.ResponseReasoningTextDeltaEvent(delta=text):
                return self._text(event, "reasoning", text)
            case wire.ResponseReasoningTextDoneEvent(text=text):
                return self._text(event, "reasoning", text, whole=True)
            case wire.ResponseOutputItemAddedEvent(output_index=at, item=item):
                return self._begun(at, item)
            case wire.ResponseOutputItemDoneEvent(output_index=at, item=item):
                return self._done(at, item)
            case wire.ResponseCompletedEvent() | wire.ResponseIncompleteEvent():
                return self._end(event.response)
            case _:
                return self._rarer(event)

    def _rarer(self, event: wire.ResponseEvent) -> ChatCompletionChunk | None:
        match event:
            case wire.ResponseFunctionCallArgumentsDeltaEvent(output_index=at, delta=text):
                return self._arguments(at, text)
            case wire.ResponseFunctionCallArgumentsDoneEvent(output_index=at, arguments=text):
                return self._arguments(at, text, whole=True)
            case wire.ResponseRefusalDeltaEvent(delta=text):
                return self._text(event, "refusal", text)
            case wire.ResponseRefusalDoneEvent(refusal=text):
                return self._text(event, "refusal", text, whole=True)
            case _:
                return None

    def _text(
        self, event: Any, field: str, text: str, *, whole: bool = False
    ) -> ChatCompletionChunk | None:
        fresh = self._fresh((event.output_index, event.content_index, field), text, whole)
        if not fresh:
            return None
        delta = ChunkDelta()
        setattr(delta, field, fresh)
        return _chunk(delta)

    def _fresh(self, part: tuple[Any, ...], text: str, whole: bool) -> str:
        said = self._said.get(part, 0)
        fresh = text[said:] if whole else text
        self._said[part] = said + len(fresh)
        return fresh

    def _begun(self, at: int, item: ResponseItem) -> ChatCompletionChunk | None:
        """Take the beginning of an item: that of a call says who is called."""
        if item.type != "function_call" or at in self._calls:
            return None
        index = self._calls[at] = len(self._calls)
        function = FunctionCall(item.tool_name, item.arguments or "")
        self._said[(at, "arguments")] = len(item.arguments or "")
        return _call(ChatToolCall(item.call_id or item.id, function, "function", index))

    def _done(self, at: int, item: ResponseItem) -> ChatCompletionChunk | None:
        """Take the end of an item, and what of it had not been said."""
        if item.type != "function_call":
            return None
        if at not in self._calls:
            return self._begun(at, item)
        return self._arguments(at, item.arguments or "", whole=True)

    def _arguments(self, at: int, text: str, *, whole: bool = False) -> ChatCompletionChunk | None:
        fresh = self._fresh((at, "arguments"), text, whole)
        if not fresh:
            return None
        index = self._calls.setdefault(at, len(self._calls))
        return _call(ChatToolCall(None, FunctionCall(None, fresh), None, index))

    def _end(self, response: Response) -> ChatCompletionChunk:
        reason = _finish_reason(response)
        stop = self._stop_reason if reason == "stop" else None
        chunk = _head(response)
        chunk.choices = [ChunkChoice(finish_reason=reason, stop_reason=stop)]
        chunk.usage = _usage(response.usage)
        return chunk


def completion_of(
    response: Response, stop_reason: str | None = None, *, whole: bool = True
) -> ChatCompletion[Any]:
    """Give a response as a chat completion.

    Args:
        response: The response.
        stop_reason: As `ChunkWriter` takes it.
        whole: False for one that was cut: it has no finish reason.
    """
    calls = [
        ChatToolCall(
            item.call_id or item.id or f"call_{position}",
            FunctionCall(item.tool_name, item.arguments or ""),
            "function",
        )
        for position, item in enumerate(response.output)
        if item.type == "function_call"
    ]
    message = ChatMessage(
        role="assistant",
        content=response.text or None,
        refusal=_refusal(response) or None,
        tool_calls=calls or None,
        reasoning=response.reasoning,
    )
    reason = _finish_reason(response) if whole else None
    stop = stop_reason if reason == "stop" else None
    choice = ChatChoice(message=message, finish_reason=reason, stop_reason=stop)
    return ChatCompletion(
        id=response.id,
        created=int(response.created_at),
        model=response.model,
        choices=[choice],
        service_tier=response.service_tier,
        usage=_usage(response.usage),
    )


def _finish_reason(response: Response) -> str:
    status = response.status or "completed"
    if status in _FINISH:
        why = response.incomplete_details and response.incomplete_details.reason
        return why if why and why != "max_output_tokens" else _FINISH[status]
    called = any(item.type == "function_call" for item in response.output)
    return "tool_calls" if called else "stop"


def _refusal(response: Response) -> str:
    return "".join(part.refusal or "" for item in response.output for part in item.content or ())


def _usage(usage: ResponseUsage | None) -> CompletionUsage | None:
    if usage is None:
        return None
    read, written = usage.input_tokens_details, usage.output_tokens_details
    return CompletionUsage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details=None
        if read is None
        else PromptTokensDetails(cached_tokens=read.cached_tokens),
        completion_tokens_details=None
        if written is None
        else CompletionTokensDetails(reasoning_tokens=written.reasoning_tokens),
    )


def _head(response: Response) -> ChatCompletionChunk:
    created = int(response.created_at)
    return ChatCompletionChunk(id=response.id, created=created, model=response.model)


def _chunk(delta: ChunkDelta) -> ChatCompletionChunk:
    return ChatCompletionChunk(choices=[ChunkChoice(delta=delta)])


def _call(call: ChatToolCall) -> ChatCompletionChunk:
    return _chunk(ChunkDelta(tool_calls=[call]))
