"""Models that are no servers: what they say is said in the test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from vllm_agent_sdk import ChatCompletion, ChatEvents, Finished, StreamEvent, TextDelta, Timing
from vllm_agent_sdk.types.chat import (
    ChatChoice,
    ChatMessage,
    ChatToolCall,
    CompletionUsage,
    FunctionCall,
)

TIMING = Timing(None, 0.0, None, 1)


def text(said: str, finish_reason: str = "stop") -> ChatCompletion[Any]:
    message = ChatMessage(role="assistant", content=said)
    usage = CompletionUsage(prompt_tokens=7, completion_tokens=5, total_tokens=12)
    return ChatCompletion(choices=[ChatChoice(0, message, None, finish_reason)], usage=usage)


def calls(name: str, arguments: str) -> ChatCompletion[Any]:
    call = ChatToolCall("call_1", FunctionCall(name, arguments), "function")
    message = ChatMessage(role="assistant", tool_calls=[call])
    return ChatCompletion(choices=[ChatChoice(0, message, None, "tool_calls")])


class Events:
    """The events of a stand-in, as they are given."""

    def __init__(self, events: Sequence[StreamEvent | BaseException]) -> None:
        self._events = iter(events)
        self.partial = ChatCompletion[Any]()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._events = iter(())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        for event in self._events:
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, TextDelta):
                self.partial = text(self.partial.text + event.text, "")
            return event
        raise StopAsyncIteration


class Scripted:
    """A stand-in without a network: it gives the replies in order, and keeps what it was asked."""

    def __init__(self, *replies: ChatCompletion[Any], profile: Any = None) -> None:
        self._replies = iter(replies)
        self.asked: list[dict[str, Any]] = []
        self.profile = profile

    @property
    def chat(self) -> Scripted:
        return self

    @property
    def completions(self) -> Scripted:
        return self

    async def resolve_model(self, model: str | None = None) -> str:
        return model or "scripted"

    async def create(self, *, messages: Iterable[Any], **params: Any) -> ChatCompletion[Any]:
        self.asked.append({"messages": list(messages), **params})
        return next(self._replies)

    def stream(self, *, messages: Iterable[Any], **params: Any) -> ChatEvents:
        self.asked.append({"messages": list(messages), **params})
        reply = next(self._replies)
        said = [TextDelta(text=piece) for piece in reply.text.split()] if reply.text else []
        if said:
            said = [TextDelta(text=reply.text[:3]), TextDelta(text=reply.text[3:])]
        return Events([*said, Finished(completion=reply, timing=TIMING)])
