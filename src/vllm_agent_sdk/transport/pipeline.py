"""One request through guard and clocks to a whole reply or an open stream.

Deadlines are absolute times of the loop's monotonic clock; they cover everything: retries, and the
wait for a slot too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

from vllm_agent_sdk._core.failures import server_error
from vllm_agent_sdk.errors import ProtocolError, UsageError, VLLMError
from vllm_agent_sdk.transport.base import ByteStream, Request, Transport
from vllm_agent_sdk.transport.guard import Admission, Booking, Guard
from vllm_agent_sdk.transport.open_stream import Clock, OpenStream, total_expired
from vllm_agent_sdk.transport.underway import Underway
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
        booking: What the guard has to know.
        max_response_bytes: When to stop reading.
    """

    method: str = "POST"
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    timeout: Timeout
    request_id: str | None = None
    has_key: bool = False
    booking: Booking = Booking()
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
    """Sends calls over one transport, and turns what comes back into values and typed errors.

    Args:
        transport: What carries the requests.
        guard: What stands before every attempt, and decides what follows a failure.
    """

    def __init__(self, transport: Transport, guard: Guard) -> None:
        self._transport = transport
        self._guard = guard
        self._underway = Underway()

    async def aclose(self, drain: float) -> None:
        """Wait up to `drain` seconds for what is under way, then end it. Repeatable."""
        await self._underway.end(drain)

    async def fetch(self, call: Call) -> Whole:
        """Get a whole reply.

        Raises:
            TransportError: It was lost on the way, or took longer than `timeout.total`.
            ServerError: The server answered with an error status.
        """
        scope = asyncio.timeout(call.timeout.total)
        try:
            with self._underway.call(scope):
                async with scope:
                    return await self._guard.run(call.booking, partial(self._whole, call))
        except VLLMError as error:
            raise error.with_facts(request_id=call.request_id) from error.__cause__
        except TimeoutError:
            raise total_expired(call.timeout).with_facts(request_id=call.request_id) from None

    async def _whole(self, call: Call, admission: Admission) -> Whole:
        stream = await self._transport.send(_request(call, None))
        admission.replied = True
        try:
            body = await _read(stream, call.max_response_bytes)
        finally:
            await stream.aclose()
        _check_status(stream, call, body)
        admission.release()
        return Whole(headers=stream.headers, body=body)

    async def open(self, call: Call) -> OpenStream:
        """Send a call and give its stream once the head of a good reply has come.

        Raises:
            FirstTokenTimeoutError: The head alone took longer than `timeout.first_token`.
            ProtocolError: The reply is no event stream.
        """
        clock = Clock(asyncio.get_running_loop(), call.timeout)
        scope = asyncio.timeout_at(clock.deadline)
        try:
            with self._underway.call(scope):
                async with scope:
                    return await self._guard.run(call.booking, partial(self._stream, call, clock))
        except VLLMError as error:
            raise error.with_facts(request_id=call.request_id) from error.__cause__
        except TimeoutError:
            raise clock.expired().with_facts(request_id=call.request_id) from None

    async def _stream(self, call: Call, clock: Clock, admission: Admission) -> OpenStream:
        clock.restart()
        scope = asyncio.timeout(None)

        def connected() -> None:
            clock.restart()
            if clock.first_limit is not None:
                scope.reschedule(clock.next_end())

        try:
            async with scope:
                stream = await self._transport.send(_request(call, connected))
                admission.replied = True
                if not 200 <= stream.status < 300:
                    try:
                        _check_status(stream, call, await _read(stream, call.max_response_bytes))
                    finally:
                        await stream.aclose()
        except VLLMError:
            raise
        except TimeoutError:
            raise clock.expired() from None
        await _check_kind(stream, call)
        return self._underway.stream(stream, clock, admission.release)


def _without_key(body: bytes, call: Call) -> bytes:
    """Mask the key where a server or proxy repeats it in what it says."""
    key = call.headers.get("authorization", "").rpartition(" ")[2].encode()
    return body.replace(key, b"***") if key else body


async def _check_kind(stream: ByteStream, call: Call) -> None:
    """Refuse a reply that is no event stream."""
    kind = stream.headers.get("content-type", "text/event-stream")
    if not kind.lower().startswith("text/event-stream"):
        body = b""
        try:
            # What the reply begins with is to be shown, if it comes soon.
            with contextlib.suppress(VLLMError, TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    while len(body) < 200 and (data := await stream.receive()):
                        body += data
        finally:
            await stream.aclose()
        shown = _without_key(body, call)[:200].decode("utf-8", "replace")
        raise ProtocolError(
            f"The server answered a streamed request with {kind!r}, not an event stream "
            f"({call.url}): {shown}",
            request_id=call.request_id,
        )


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
