"""What a client has under way: it is waited for when the client closes, and then ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from vllm_agent_sdk.errors import TransportError, VLLMError
from vllm_agent_sdk.transport.base import ByteStream
from vllm_agent_sdk.transport.open_stream import Clock, OpenStream

__all__ = ["Underway"]

#: Seconds that calls are given to fall over once they are ended.
_FALL_S = 1.0


class Underway:
    """Calls that wait for a reply, and streams that are open."""

    def __init__(self) -> None:
        self._calls: set[asyncio.Timeout] = set()
        self._ended: set[asyncio.Timeout] = set()
        self._streams: set[OpenStream] = set()
        self._changed = asyncio.Event()

    def begin(self, scope: asyncio.Timeout) -> None:
        """Hold a call, whose `scope` is entered afterwards, until `over`."""
        self._calls.add(scope)

    def over(self, scope: asyncio.Timeout) -> None:
        """Let go of a call."""
        self._calls.discard(scope)
        self._ended.discard(scope)
        self._changed.set()

    def was_ended(self, scope: asyncio.Timeout) -> bool:
        """Tell whether a call was ended because the client closed."""
        return scope in self._ended

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
                while self._calls or self._streams:
                    self._changed.clear()
                    await self._changed.wait()

    def _abort(self) -> None:
        for stream in list(self._streams):
            stream.abort(TransportError("The connection was lost: the client was closed."))
        now = asyncio.get_running_loop().time()
        for scope in self._calls:
            # One that expires at this moment ends anyway.
            with contextlib.suppress(RuntimeError):
                scope.reschedule(now)
                self._ended.add(scope)
