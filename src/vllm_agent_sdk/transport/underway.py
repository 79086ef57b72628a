"""What a client has under way: it is waited for when the client closes, and then ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from vllm_agent_sdk.errors import TransportError, VLLMError
from vllm_agent_sdk.transport.base import ByteStream
from vllm_agent_sdk.transport.open_stream import Clock, OpenStream

__all__ = ["Scope", "Underway"]

#: Seconds that calls are given to fall over once they are ended.
_FALL_S = 1.0


class Scope:
    """A call's time: it ends in a `TimeoutError` at its deadline, or as the client closes.

    As `asyncio.timeout`, at less than half of what that costs: each call needs one, whether it has
    a deadline or not.

    Attributes:
        closed: It was ended because the client closed.
    """

    __slots__ = ("_cancelling", "_cut", "_deadline", "_task", "_timer", "_underway", "closed")

    def __init__(self, underway: Underway, deadline: float | None) -> None:
        self._underway = underway
        self._deadline = deadline
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelling = 0
        self._cut = self.closed = False

    def __enter__(self) -> Self:
        task = self._task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is made inside a task")
        self._cancelling = task.cancelling()
        if self._deadline is not None:
            self._timer = task.get_loop().call_at(self._deadline, self._end)
        self._underway.calls.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._underway.over(self)
        if self._timer is not None:
            self._timer.cancel()
        task, self._task = self._task, None
        if not self._cut or task is None:
            return
        # Somebody else may have cancelled the task too: then it is cancelled.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def close(self) -> None:
        """End the call: the client closes."""
        if not self._cut:
            self.closed = True
            self._end()

    def _end(self) -> None:
        if self._task is not None and not self._cut:
            self._cut = True
            self._task.cancel()


class Underway:
    """Calls that wait for a reply, and streams that are open.

    Attributes:
        calls: The scopes of calls that were entered.
    """

    def __init__(self) -> None:
        self.calls: set[Scope] = set()
        self._streams: set[OpenStream] = set()
        self._changed = asyncio.Event()

    def scope(self, deadline: float | None) -> Scope:
        """Give what a call is made within.

        Args:
            deadline: When it ends, by the loop's clock.
        """
        return Scope(self, deadline)

    def over(self, scope: Scope) -> None:
        """Let go of a call."""
        self.calls.discard(scope)
        self._changed.set()

    def stream(
        self,
        stream: ByteStream,
        clock: Clock,
        closed: Callable[[OpenStream], None],
        hide: Callable[[VLLMError], None],
        begin: Callable[[OpenStream], Awaitable[bytes]],
    ) -> OpenStream:
        """Open a stream and hold it until it is over."""

        def over() -> None:
            self._streams.discard(opened)
            self._changed.set()
            closed(opened)

        opened = OpenStream(stream, clock, over, hide, begin)
        self._streams.add(opened)
        return opened

    async def end(self, after: float) -> None:
        """Wait up to `after` seconds until nothing is under way, then end what is."""
        try:
            await self._empty(after)
        finally:
            self._abort()
            await self._empty(_FALL_S)

    async def _empty(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.calls or self._streams:
                    self._changed.clear()
                    await self._changed.wait()

    def _abort(self) -> None:
        for stream in list(self._streams):
            stream.abort(TransportError("The connection was lost: the client was closed."))
        for scope in list(self.calls):
            scope.close()
