"""An open stream and its clocks.

1. A stream has one timer for its whole life. It is re-armed by comparing times, never per chunk,
   and it ends the stream by `abort`, which wakes the reader: no task is cancelled.
2. `first_token` counts from the moment the request is written to the first event; `idle` counts
   only while the reader waits, so that a slow consumer is not taken for a slow server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from vllm_agent_sdk.errors import (
    FirstTokenTimeoutError,
    IdleTimeoutError,
    TotalTimeoutError,
    VLLMError,
)
from vllm_agent_sdk.transport.base import ByteStream
from vllm_agent_sdk.types.options import Timeout

__all__ = ["Clock", "OpenStream", "total_expired"]


def total_expired(timeout: Timeout) -> TotalTimeoutError:
    """Say that a call took too long in all."""
    return TotalTimeoutError(
        f"The call took longer than {timeout.total} s in all (Timeout.total).",
    )


class Clock:
    """The times of one stream."""

    __slots__ = ("_loop", "_timeout", "begun", "deadline", "first_limit", "idle_limit", "started")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: Timeout) -> None:
        self._loop = loop
        self._timeout = timeout
        self.begun = loop.time()
        self.started = self.begun
        self.deadline = None if timeout.total is None else self.begun + timeout.total
        self.first_limit = timeout.first_token
        self.idle_limit = timeout.idle

    def restart(self) -> None:
        """Begin another attempt: the deadline stays, the wait for the first event begins anew."""
        self.started = self._loop.time()

    def next_end(self) -> float | None:
        """When the wait for the head and the first event ends."""
        ends = [self.deadline] if self.deadline is not None else []
        if self.first_limit is not None:
            ends.append(self.started + self.first_limit)
        return min(ends, default=None)

    def expired(self) -> VLLMError:
        """Say which limit was reached before the first event."""
        if self.deadline is not None and self._loop.time() >= self.deadline:
            return total_expired(self._timeout)
        return FirstTokenTimeoutError(
            f"The server sent no data within {self.first_limit} s (Timeout.first_token). It may be "
            "busy with other requests, or with a long prompt.",
        )

    def idle(self) -> IdleTimeoutError:
        """Say that the stream stood still."""
        return IdleTimeoutError(
            f"The stream sent nothing for {self.idle_limit} s (Timeout.idle).",
        )


class OpenStream:
    """An open stream and its timer.

    Args:
        stream: The reply.
        clock: Its times.
        closed: Called once, when the stream is over.
        hide: Hides the request's key in an error.
        begin: Waits for the first event, and may put another reply in this one's place.

    Attributes:
        first_at: When its first event came, by the loop's clock.
        complete_at: When its reply was complete.
        tokens: What the server said that prompt and reply took together.
        error: What it failed with.
        has_data: `data_came` was called.
        waiting_since: Since when somebody waits for bytes: `receive` says it. Who waited sets it to
            `None` when they are there: `idle` counts from the next wait on.
    """

    __slots__ = (
        "_begin", "_clock", "_closed", "_hide", "_loop", "_stream", "_timer", "complete_at",
        "error", "first_at", "has_data", "tokens", "waiting_since",
    )  # fmt: skip

    def __init__(
        self,
        stream: ByteStream,
        clock: Clock,
        closed: Callable[[], None],
        hide: Callable[[VLLMError], None],
        begin: Callable[[OpenStream], Awaitable[bytes]] | None = None,
    ) -> None:
        self._begin = begin
        self._stream = stream
        self._clock = clock
        self._closed: Callable[[], None] | None = closed
        self._hide = hide
        self.first_at: float | None = None
        self.complete_at: float | None = None
        self.tokens: int | None = None
        self.error: VLLMError | None = None
        self._loop = asyncio.get_running_loop()
        self.has_data = False
        self.waiting_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._arm(self._next())

    @property
    def begun(self) -> float:
        """When the call began, by the loop's clock."""
        return self._clock.begun

    def receive(self) -> Awaitable[bytes]:
        """Give the next bytes, `b""` at the end. Raises what `ByteStream.receive` and timers do.

        (No coroutine of its own: at the pace of a server that was a tenth of what a chunk costs.)
        """
        if self._begin is not None:
            return self._first(self._begin)
        self.waiting_since = self._loop.time()
        return self._stream.receive()

    async def _first(self, begin: Callable[[OpenStream], Awaitable[bytes]]) -> bytes:
        self._begin = None
        return await begin(self) or await self.receive()

    def data_came(self) -> None:
        """Tell that the first event is there: from now on `idle` counts."""
        self.has_data = True
        self.first_at = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
        self._arm(self._next())

    async def pause(self) -> None:
        """Let go of the reply: another attempt is made in its place."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._stream.aclose()

    def go_on(self, stream: ByteStream) -> bool:
        """Go on with the reply of another attempt; `False` if the stream was closed meanwhile."""
        if self._closed is None:
            return False
        self._stream = stream
        self.has_data, self.first_at = False, None
        self._arm(self._next())
        return True

    def ended(self, failure: BaseException | None, reply: object | None) -> None:
        """Tell how its reading ended; the request's key is hidden in the failure.

        Args:
            failure: What it failed with, if it did.
            reply: The whole reply, if there is one; its usage says what it took.
        """
        if isinstance(failure, VLLMError):
            self._hide(failure)
            self.error = failure
        elif reply is not None:
            self.complete_at = self._loop.time()
            self.tokens = getattr(getattr(reply, "usage", None), "total_tokens", None)

    def abort(self, error: VLLMError) -> None:
        """Close the socket now."""
        self._over()
        self._stream.abort(error)

    async def aclose(self) -> None:
        """Let go of the connection. Idempotent."""
        self._over()
        await self._stream.aclose()

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()

    def _next(self) -> float | None:
        """When something could have expired at the earliest."""
        if not self.has_data:
            return self._clock.next_end()
        ends = [] if self._clock.deadline is None else [self._clock.deadline]
        if self._clock.idle_limit is not None:
            ends.append((self.waiting_since or self._loop.time()) + self._clock.idle_limit)
        return min(ends, default=None)

    def _arm(self, at: float | None) -> None:
        self._timer = None if at is None else self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        """See whether a limit was reached; if not, look again when one could be."""
        at = self._next()
        if at is None:
            self._timer = None
        elif at > self._loop.time():
            self._arm(at)
        else:
            self._timer = None
            deadline = self._clock.deadline
            total = deadline is not None and self._loop.time() >= deadline
            early = total or not self.has_data
            self._stream.abort(self._clock.expired() if early else self._clock.idle())
