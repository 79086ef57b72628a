"""What the streams of chats and of completions share: head, usage, end.

1. Text is never de-duplicated, trimmed or re-ordered: deltas `2`, `2` give `22`.
2. Complete means: no error frame, and a finish reason for each choice that was asked for.
   `[DONE]` proves nothing (vLLM sends it after an error too).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from vllm_agent_sdk._core.server.failures import stream_failure
from vllm_agent_sdk.errors import StreamTruncatedError
from vllm_agent_sdk.types.chat import CompletionUsage
from vllm_agent_sdk.types.events import UsageUpdated
from vllm_agent_sdk.types.logprobs import RequestMetrics

__all__ = ["ChunkFold"]


class _Chunk(Protocol):
    error: Any
    usage: CompletionUsage | None
    id: str | None
    created: int | None
    model: str | None
    system_fingerprint: str | None
    metrics: RequestMetrics | None

    @property
    def choices(self) -> Sequence[Any] | None: ...


class _Choice(Protocol):
    finish_reason: str | None


Chunk = TypeVar("Chunk", bound=_Chunk)
Choice = TypeVar("Choice", bound=_Choice)
Reply = TypeVar("Reply")


class ChunkFold(Generic[Chunk, Choice, Reply]):
    """Folds the chunks of one stream.

    Args:
        choices: How many choices were asked for (`n` for each prompt).
        head: Stands for the first chunk until that comes.
    """

    def __init__(self, choices: int, head: Chunk) -> None:
        self._expected = choices
        self._choices: dict[int, Choice] = {}
        self._head = head
        self._fingerprint: str | None = None
        self._metrics: RequestMetrics | None = None
        self.usage: CompletionUsage | None = None
        self.chunks = 0

    @property
    def complete(self) -> bool:
        """True when every choice that was asked for has its finish reason."""
        return self._finished() >= self._expected

    def push(self, chunk: Chunk) -> list[Any]:
        """Take a chunk; give the events it makes.

        Raises:
            StreamFailedError: The chunk is the server's error frame.
            OutputStalledError: A constrained reply writes nothing but white space.
        """
        if chunk.error is not None:
            raise stream_failure(chunk.error)
        if self.chunks == 0:
            self._head = chunk
        self.chunks += 1
        events: list[Any] = []
        for part in chunk.choices or ():
            self._push_choice(part, events)
        if chunk.usage is not None:
            self.usage = chunk.usage
            events.append(UsageUpdated(chunk.usage))
        if chunk.system_fingerprint is not None:
            self._fingerprint = chunk.system_fingerprint
        if chunk.metrics is not None:
            self._metrics = chunk.metrics
        return events

    def _push_choice(self, part: Any, events: list[Any]) -> None:
        raise NotImplementedError

    def snapshot(self) -> Reply:
        """Give the reply as far as it has come."""
        raise NotImplementedError

    def _shared(self) -> dict[str, Any]:
        """What both kinds of reply have, by field."""
        head = self._head
        return {
            "id": head.id or "",
            "created": head.created or 0,
            "model": head.model or "",
            "system_fingerprint": self._fingerprint,
            "usage": self.usage,
            "metrics": self._metrics,
        }

    def finish(self) -> Reply:
        """Give the whole reply at the end of the stream.

        Raises:
            StreamTruncatedError: It is not complete; `partial` holds what had come.
            OutputError: It is not what was asked for.
        """
        reply = self.snapshot()
        if not self.complete:
            raise StreamTruncatedError(
                "The stream ended before the reply was complete: "
                f"{self._open()} without a finish reason after {self.chunks} chunks.",
                partial=reply,
            )
        return reply

    def _finished(self) -> int:
        return sum(choice.finish_reason is not None for choice in self._choices.values())

    def _open(self) -> str:
        if self._expected == 1:
            return "the reply is"
        return f"{self._expected - self._finished()} of {self._expected} choices are"
