"""One request through guard and clocks to a whole reply or an open stream.

Deadlines are absolute times of the loop's monotonic clock; they cover everything: retries, and the
wait for a slot too.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from vllm_agent_sdk._core.server.failures import first_failure, server_error
from vllm_agent_sdk._core.stream.sse import SSEDecoder
from vllm_agent_sdk.errors import (
    ClientClosedError,
    ProtocolError,
    TransportError,
    VLLMError,
)
from vllm_agent_sdk.telemetry.recorder import (
    Outcome,
    RequestFinished,
    RequestStarted,
    ServerFact,
    StreamFinished,
)
from vllm_agent_sdk.transport.base import ByteStream, Request, Transport
from vllm_agent_sdk.transport.call import Call, Whole, hide, mask_of
from vllm_agent_sdk.transport.guard import Admission, Guard, Passage
from vllm_agent_sdk.transport.open_stream import Clock, OpenStream, total_expired
from vllm_agent_sdk.transport.underway import Scope, Underway

__all__ = ["Call", "OpenStream", "Pipeline", "Whole", "mask_of"]

T = TypeVar("T")
#: Seconds that the beginning of a reply that is no stream is waited for, to show it.
_LOOK_S = 1.0


class Pipeline:
    """Sends calls over one transport, and turns what comes back into values and typed errors.

    Args:
        transport: What carries the requests.
        guard: What stands before every attempt, and decides what follows a failure.
        servers: The addresses of the guard's servers.
        report: Takes facts, if anybody wants them.
    """

    def __init__(
        self,
        transport: Transport,
        guard: Guard,
        servers: Sequence[str],
        report: Callable[[ServerFact], None] | None = None,
    ) -> None:
        self._transport = transport
        self._guard = guard
        self._servers = servers
        self._report = report
        self._underway = Underway()

    async def aclose(self, drain: float) -> None:
        """Wait up to `drain` seconds for what is under way, then end it. Repeatable."""
        try:
            await self._underway.end(drain)
        finally:
            await self._guard.aclose()

    def fetch(self, call: Call) -> Coroutine[Any, Any, Whole]:
        """Get a whole reply.

        Raises:
            TransportError: It was lost on the way, or took longer than `timeout.total`.
            ServerError: The server answered with an error status.
        """
        passage = self._guard.passage(call.booking, call.request_id)
        if self._report is None:
            return self._fetch(call, passage)
        return self._reported(call, passage, self._fetch(call, passage), stream=False)

    async def _fetch(self, call: Call, passage: Passage) -> Whole:
        total = call.timeout.total
        scope = self._underway.scope(
            None if total is None else asyncio.get_running_loop().time() + total
        )
        try:
            with scope:
                return await self._guard.run(passage, partial(self._whole, call))
        except VLLMError as error:
            raise error.with_facts(request_id=call.request_id) from error.__cause__
        except TimeoutError:
            failure = _closed(scope) or total_expired(call.timeout)
            raise failure.with_facts(request_id=call.request_id) from None

    async def _whole(self, call: Call, admission: Admission) -> Whole:
        try:
            stream = await self._transport.send(_request(call, admission, None))
            admission.replied = True
            try:
                body = await _read(stream, call.max_response_bytes)
            finally:
                await stream.aclose()
            if not 200 <= stream.status < 300:
                raise _refusal(stream, call, admission, body)
        except VLLMError as error:
            hide(call, error)
            raise
        admission.release()
        return Whole(headers=stream.headers, body=body)

    async def open(self, call: Call) -> OpenStream:
        """Send a call and give its stream once the head of a good reply has come.

        An error frame in the place of its first event, or a wait for that over its limit, is a
        failure of the attempt: the stream goes on with another one, if one is to follow.

        Raises:
            FirstTokenTimeoutError: The head alone took longer than `timeout.first_token`.
            ProtocolError: The reply is no event stream.
        """
        passage = self._guard.passage(call.booking, call.request_id)
        if self._report is None:
            return await self._open(call, passage)
        return await self._reported(call, passage, self._open(call, passage), stream=True)

    async def _open(self, call: Call, passage: Passage) -> OpenStream:
        clock = Clock(asyncio.get_running_loop(), call.timeout)
        stream = await self._within(
            call, clock, self._guard.run(passage, partial(self._stream, call, clock))
        )
        return self._underway.stream(
            stream,
            clock,
            partial(self._over, call, passage),
            partial(hide, call),
            partial(self._begin, call, passage, clock),
        )

    async def _within(self, call: Call, clock: Clock, sent: Coroutine[Any, Any, T]) -> T:
        """Wait for a reply's head until the call's deadline, or the client's end."""
        scope = self._underway.scope(clock.deadline)
        try:
            with scope:
                return await sent
        except VLLMError as error:
            raise error.with_facts(request_id=call.request_id) from error.__cause__
        except TimeoutError:
            failure = _closed(scope) or clock.expired()
            raise failure.with_facts(request_id=call.request_id) from None
        finally:
            sent.close()

    async def _begin(self, call: Call, passage: Passage, clock: Clock, opened: OpenStream) -> bytes:
        """Wait for a stream's first event, with further attempts; give what was read of it."""
        while True:
            try:
                return await _first_event(opened, call.max_response_bytes)
            except VLLMError as error:
                hide(call, error)
                failure = error
            await opened.pause()
            again = self._guard.again(passage, failure, partial(self._stream, call, clock))
            try:
                stream = await self._within(call, clock, again)
            except TransportError as error:
                if error is failure or isinstance(error, TimeoutError):
                    raise
                # There was a reply: how it failed says more than why there is no other one.
                raise failure.with_facts(attempts=passage.attempts.made) from error
            if not opened.go_on(stream):
                await stream.aclose()
                raise TransportError("The connection was lost: the stream was closed.")

    async def _stream(self, call: Call, clock: Clock, admission: Admission) -> ByteStream:
        try:
            stream = await self._head(call, clock, admission)
            await _check_kind(stream, call, admission)
        except VLLMError as error:
            hide(call, error)
            raise
        return stream

    async def _head(self, call: Call, clock: Clock, admission: Admission) -> ByteStream:
        """Send an attempt and wait for the head of a good reply."""
        clock.restart()
        scope = asyncio.timeout(None)

        def connected() -> None:
            clock.restart()
            if clock.first_limit is not None:
                scope.reschedule(clock.next_end())

        try:
            async with scope:
                stream = await self._transport.send(_request(call, admission, connected))
                admission.replied = True
                if not 200 <= stream.status < 300:
                    try:
                        body = await _read(stream, call.max_response_bytes)
                    finally:
                        await stream.aclose()
                    raise _refusal(stream, call, admission, body)
        except VLLMError:
            raise
        except TimeoutError:
            raise clock.expired() from None
        return stream

    # ── facts ────────────────────────────────────────────────────────────────────────────────────

    def _over(self, call: Call, passage: Passage, stream: OpenStream) -> None:
        """Take note of a stream's end."""
        server = passage.server or 0
        if passage.admission is not None:
            passage.admission.release()
        if stream.tokens is not None:
            self._guard.used(call.booking.tokens, stream.tokens)
        if stream.error is not None:
            self._guard.failed_later(server, stream.error)
        if self._report is not None:
            done = stream.complete_at
            ended = asyncio.get_running_loop().time() if done is None else done
            outcome: Outcome = "closed" if stream.error is None else "failed"
            self._report(
                StreamFinished(
                    request_id=call.request_id,
                    server=self._servers[server],
                    attempts=passage.attempts.made,
                    outcome=outcome if done is None else "complete",
                    error=None if stream.error is None else type(stream.error).__name__,
                    first_event_s=None
                    if stream.first_at is None
                    else stream.first_at - stream.begun,
                    duration_s=ended - stream.begun,
                    tokens=stream.tokens,
                )
            )

    async def _reported(
        self, call: Call, passage: Passage, sent: Coroutine[Any, Any, T], *, stream: bool
    ) -> T:
        """Tell of a call's beginning and of its end."""
        report = self._report or _nobody
        begun = asyncio.get_running_loop().time()
        report(
            RequestStarted(
                request_id=call.request_id, method=call.method, url=call.url, stream=stream
            )
        )
        failure: BaseException | None = None
        try:
            return await sent
        except BaseException as error:
            failure = error
            raise
        finally:
            server = passage.server
            report(
                RequestFinished(
                    request_id=call.request_id,
                    server=None if server is None else self._servers[server],
                    attempts=passage.attempts.made,
                    error=None if failure is None else type(failure).__name__,
                    status=getattr(failure, "status", None),
                    duration_s=asyncio.get_running_loop().time() - begun,
                )
            )
            failure = None  # an error and its frame don't hold each other


def _nobody(_fact: ServerFact) -> None:
    return None


def _closed(scope: Scope) -> VLLMError | None:
    """Say that the client was closed, if that is why a call ended."""
    if scope.closed:
        return ClientClosedError("The client was closed while the call ran.")
    return None


async def _first_event(stream: OpenStream, limit: int | None) -> bytes:
    """Wait until a stream has begun, and give what was read for that.

    An error frame in the first event's place is raised: nobody has seen anything of the reply, so
    that the call may be sent again.
    """
    decoder = SSEDecoder(limit)
    held: list[bytes] = []
    try:
        while data := await stream.receive():
            stream.waiting_since = None
            held.append(data)
            event = next(iter(decoder.feed(data)), None)
            if event is not None:
                stream.data_came()
                failure = first_failure(event)
                if failure is not None:
                    raise failure
                break
    except (TransportError, ProtocolError) as error:
        if isinstance(error, TimeoutError):
            raise
        # The reader comes upon it again, and says what it means for the reply.
    return b"".join(held)


async def _check_kind(stream: ByteStream, call: Call, admission: Admission) -> None:
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
        # Masked before it is cut: half a key would not be found.
        shown = mask_of(call).text(body.decode("utf-8", "replace"))[:200]
        raise ProtocolError(
            f"The server answered a streamed request with {kind!r}, not an event stream "
            f"({call.at(admission.server)}): {shown}",
            request_id=call.request_id,
        )


def _request(call: Call, admission: Admission, connected: Callable[[], None] | None) -> Request:
    return Request(
        method=call.method,
        url=call.at(admission.server),
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


def _refusal(stream: ByteStream, call: Call, admission: Admission, body: bytes) -> VLLMError:
    """Give what a reply with an error status says."""
    mask = mask_of(call)
    headers = {name.lower(): mask.text(value) for name, value in stream.headers.items()}
    error = server_error(
        stream.status,
        headers,
        mask.data(body),
        url=call.at(admission.server),
        has_key=call.has_key,
        now=time.time(),
        sent=call.body,
    )
    return error.with_facts(request_id=call.request_id)
