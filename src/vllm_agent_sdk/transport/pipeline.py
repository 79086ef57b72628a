"""One request through its clocks to a whole reply or an open stream.

1. Deadlines are absolute times of the loop's monotonic clock; they cover everything, retries too.
2. A stream has one timer for its whole life. It is re-armed by comparing times, never per chunk,
   and it ends the stream by `abort`, which wakes the reader: no task is cancelled.
3. `first_token` counts from the moment the request is written to the first event; `idle` counts
   only while the reader waits, so that a slow consumer is not taken for a slow server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from vllm_agent_sdk._core.failures import server_error
from vllm_agent_sdk.errors import (
    FirstTokenTimeoutError,
    IdleTimeoutError,
    ProtocolError,
    TotalTimeoutError,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.transport.base import ByteStream, Request, Transport
from vllm_agent_sdk.types._codec import Record
from vllm_agent_sdk.types.options import Timeout

__all__ = ["Call", "OpenStream", "Pipeline", "Whole"]

#: Seconds that the beginning of a reply that is no stream is waited for, to show it.
_LOOK_S = 1.0


class Call(Record, frozen=True, kw_only=True):
    """A request with everything that decides how it goes.

    Attributes:
        url: The whole URL.
        headers: All headers, the key among them.
        body: The bytes to send, `None` for a GET.
        timeout: The clocks.
        request_id: The `X-Request-Id` sent, if one is.
        has_key: True if a key is among the headers.
        max_response_bytes: When to stop reading.
    """

    method: str = "POST"
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    timeout: Timeout
    request_id: str | None = None
    has_key: bool = False
    max_response_bytes: int | None = None

    def __repr__(self) -> str:
        return f"Call({self.method} {self.url}, request_id={self.request_id!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("method", self.method), ("url", self.url), ("request_id", self.request_id)]

    def __reduce__(self) -> NoReturn:
        raise UsageError("A call cannot be pickled: it may hold a key.")


class Whole(Record, frozen=True, kw_only=True):
    """A whole reply with a status of 2xx."""

    headers: Mapping[str, str]
    body: bytes


class Pipeline:
    """Sends calls over one transport, and turns what comes back into values and typed errors."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def fetch(self, call: Call) -> Whole:
        """Get a whole reply.

        Raises:
            TransportError: It was lost on the way, or took longer than `timeout.total`.
            ServerError: The server answered with an error status.
        """
        try:
            async with asyncio.timeout(call.timeout.total):
                stream = await self._transport.send(_request(call, None))
                try:
                    body = await _read(stream, call.max_response_bytes)
                finally:
                    await stream.aclose()
        except VLLMError as error:
            raise error.with_facts(request_id=call.request_id) from error.__cause__
        except TimeoutError:
            raise _total(call) from None
        _check_status(stream, call, body)
        return Whole(headers=stream.headers, body=body)

    async def open(self, call: Call) -> OpenStream:
        """Send a call and give its stream once the head of a good reply has come.

        Raises:
            FirstTokenTimeoutError: The head alone took longer than `timeout.first_token`.
            ProtocolError: The reply is no event stream.
        """
        loop = asyncio.get_running_loop()
        clock = Clock(loop, call)
        try:
            async with asyncio.timeout_at(clock.deadline) as scope:

                def connected() -> None:
                    clock.started = loop.time()
                    if clock.first_limit is not None:
                        scope.reschedule(clock.next_end())

                stream = await self._transport.send(_request(call, connected))
                if not 200 <= stream.status < 300:
                    try:
                        _check_status(stream, call, await _read(stream, call.max_response_bytes))
                    finally:
                        await stream.aclose()
        except VLLMError as error:
            raise error.with_facts(request_id=call.request_id) from error.__cause__
        except TimeoutError:
            raise clock.expired() from None
        return await _opened(stream, call, clock)


def _without_key(body: bytes, call: Call) -> bytes:
    """Mask the key where a server or proxy repeats it in what it says."""
    key = call.headers.get("authorization", "").rpartition(" ")[2].encode()
    return body.replace(key, b"***") if key else body


async def _opened(stream: ByteStream, call: Call, clock: Clock) -> OpenStream:
    kind = stream.headers.get("content-type", "text/event-stream")
    if not kind.lower().startswith("text/event-stream"):
        body = b""
        try:
            # What the reply begins with is to be shown, if it comes soon.
            async with asyncio.timeout(_LOOK_S):
                while len(body) < 200 and (data := await stream.receive()):
                    body += data
        except (VLLMError, TimeoutError):
            pass
        finally:
            await stream.aclose()
        shown = _without_key(body, call)[:200].decode("utf-8", "replace")
        raise ProtocolError(
            f"The server answered a streamed request with {kind!r}, not an event stream "
            f"({call.url}): {shown}",
            request_id=call.request_id,
        )
    return OpenStream(stream, clock)


def _request(call: Call, connected: Callable[[], None] | None) -> Request:
    return Request(
        method=call.method,
        url=call.url,
        headers=call.headers,
        body=call.body,
        connect_timeout=call.timeout.connect,
        connected=connected,
    )


async def _read(stream: ByteStream, limit: int | None) -> bytes:
    parts: list[bytes] = []
    size = 0
    while data := await stream.receive():
        parts.append(data)
        size += len(data)
        if limit is not None and size > limit:
            raise ProtocolError(
                f"The reply is larger than {limit} bytes; HTTPOptions(max_response_bytes=…) "
                "sets the limit."
            )
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_status(stream: ByteStream, call: Call, body: bytes) -> None:
    if not 200 <= stream.status < 300:
        body = _without_key(body, call)
        error = server_error(
            stream.status, stream.headers, body, url=call.url, has_key=call.has_key
        )
        raise error.with_facts(request_id=call.request_id)


def _total(call: Call) -> TotalTimeoutError:
    return TotalTimeoutError(
        f"The call took longer than {call.timeout.total} s in all (Timeout.total).",
        request_id=call.request_id,
    )


class Clock:
    """The times of one stream."""

    __slots__ = ("_call", "_loop", "begun", "deadline", "first_limit", "idle_limit", "started")

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Call) -> None:
        self._loop = loop
        self._call = call
        self.begun = loop.time()
        self.started = self.begun
        total = call.timeout.total
        self.deadline = None if total is None else self.begun + total
        self.first_limit = call.timeout.first_token
        self.idle_limit = call.timeout.idle

    def next_end(self) -> float | None:
        """When the wait for the head and the first event ends."""
        ends = [self.deadline] if self.deadline is not None else []
        if self.first_limit is not None:
            ends.append(self.started + self.first_limit)
        return min(ends, default=None)

    def expired(self) -> VLLMError:
        """Say which limit was reached before the first event."""
        if self.deadline is not None and self._loop.time() >= self.deadline:
            return _total(self._call)
        return FirstTokenTimeoutError(
            f"The server sent no data within {self.first_limit} s (Timeout.first_token). It may be "
            "busy with other requests, or with a long prompt.",
            request_id=self._call.request_id,
        )

    def idle(self) -> IdleTimeoutError:
        """Say that the stream stood still."""
        return IdleTimeoutError(
            f"The stream sent nothing for {self.idle_limit} s (Timeout.idle).",
            request_id=self._call.request_id,
        )


class OpenStream:
    """An open stream and its timer."""

    __slots__ = ("_clock", "_has_data", "_loop", "_stream", "_timer", "_waiting_since")

    def __init__(self, stream: ByteStream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._has_data = False
        self._waiting_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._arm(self._next())

    @property
    def begun(self) -> float:
        """When the call began, by the loop's clock."""
        return self._clock.begun

    async def receive(self) -> bytes:
        """Give the next bytes, `b""` at the end. Raises what `ByteStream.receive` and timers do."""
        self._waiting_since = self._loop.time()
        try:
            return await self._stream.receive()
        finally:
            self._waiting_since = None

    def data_came(self) -> None:
        """Tell that the first event is there: from now on `idle` counts."""
        self._has_data = True
        if self._timer is not None:
            self._timer.cancel()
        self._arm(self._next())

    @property
    def has_data(self) -> bool:
        """True once `data_came` was called."""
        return self._has_data

    def abort(self, error: VLLMError) -> None:
        """Close the socket now."""
        self._disarm()
        self._stream.abort(error)

    async def aclose(self) -> None:
        """Let go of the connection. Idempotent."""
        self._disarm()
        await self._stream.aclose()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self) -> float | None:
        """When something could have expired at the earliest."""
        if not self._has_data:
            return self._clock.next_end()
        ends = [] if self._clock.deadline is None else [self._clock.deadline]
        if self._clock.idle_limit is not None:
            ends.append((self._waiting_since or self._loop.time()) + self._clock.idle_limit)
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
            early = total or not self._has_data
            self._stream.abort(self._clock.expired() if early else self._clock.idle())
