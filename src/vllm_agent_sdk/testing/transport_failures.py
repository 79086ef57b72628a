"""What every `Transport` must do when something goes wrong or is left: the rest of its suite."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from vllm_agent_sdk.errors import (
    ConnectError,
    ConnectTimeoutError,
    ProtocolError,
    TransportError,
    VLLMError,
)
from vllm_agent_sdk.testing.contract_server import (
    Make,
    asking,
    chunked,
    exactly,
    left_at,
    nothing,
    opened,
    raw_server,
    refused,
    replying,
    same,
    serving,
    soon,
    stalling,
    whole,
)
from vllm_agent_sdk.testing.exchange import Answer, Pacing, SimulatorRequest, Sink, deliver

__all__ = [
    "a_cancelled_request_ends_at_the_server",
    "a_closed_stream_ends_at_the_server",
    "a_closed_transport_is_closed",
    "a_cut_body_is_an_error",
    "a_kept_connection_that_is_lost_is_said_to_be_one",
    "a_reply_that_never_begins_is_an_error",
    "an_aborted_stream_raises_what_it_was_given",
    "connecting_has_its_limit",
    "no_connection_is_a_connect_error",
    "what_came_before_a_cut_is_given",
    "what_is_no_whole_reply_is_an_error",
    "what_was_not_read_is_no_part_of_the_next_reply",
]

# ── failures ─────────────────────────────────────────────────────────────────────────────────────


async def a_reply_that_never_begins_is_an_error(make: Make) -> None:
    """`TransportError`, and no `ConnectError`: the server may have acted on the request."""
    for reset in (False, True):

        async def respond(_request: SimulatorRequest, sink: Sink, reset: bool = reset) -> None:
            pacing = Pacing(cut_after=-1, reset=reset)
            await deliver(Answer(200, (), (b"ok",), pacing=pacing), sink, nothing)

        async with serving(make, respond) as (server, transport):
            what = f"A connection that {'was reset' if reset else 'ended'} before the head"
            error = await refused(TransportError, transport.send(asking(server.at())), what)
            assert not isinstance(error, (ConnectError, ConnectTimeoutError)), (
                f"{what} is a TransportError and no {type(error).__name__}: a request that was "
                "sent may not be repeated like one that never was."
            )
            assert len(server.requests) == 1, f"{what}: the request was sent again."


async def a_cut_body_is_an_error(make: Make) -> None:
    """Never a regular end: with a length or in chunks, by an end or by a reset."""
    for streamed in (True, False):
        for reset in (False, True):
            read = asyncio.Event()

            async def respond(
                _request: SimulatorRequest,
                sink: Sink,
                streamed: bool = streamed,
                reset: bool = reset,
                read: asyncio.Event = read,
            ) -> None:
                sink.start(chunked() if streamed else Answer(200, (), (bytes(100),)))
                await sink.write(b"begun")
                await read.wait()
                sink.cut(reset)

            async with serving(make, respond) as (server, transport):
                stream = await opened(transport, server)
                await exactly(stream, b"begun")
                read.set()
                how = f"{'reset' if reset else 'ended'} {'between chunks' if streamed else 'early'}"
                for _ in range(2):
                    await refused(
                        TransportError, stream.receive(), f"receive of a body that was {how}"
                    )
                await stream.aclose()


async def what_came_before_a_cut_is_given(make: Make) -> None:
    """However late it is read: the partial reply has all of it."""
    piece = b"came" * 100

    async def respond(_request: SimulatorRequest, sink: Sink) -> None:
        sink.start(chunked())
        for _ in range(3):
            await sink.write(piece)
        sink.cut(reset=False)

    async with serving(make, respond) as (server, transport):
        stream = await opened(transport, server)
        for _ in range(200):
            await asyncio.sleep(0)  # the cut is there before anything is read
        await exactly(stream, piece * 3)
        await refused(TransportError, stream.receive(), "receive of a body that was cut")
        await stream.aclose()


# ── leaving ──────────────────────────────────────────────────────────────────────────────────────


async def a_cancelled_request_ends_at_the_server(make: Make) -> None:
    """Before the head has come; the transport works on."""
    async with serving(make, stalling()) as (server, transport):
        task = asyncio.ensure_future(transport.send(asking(server.at())))
        await soon(server.until(lambda: len(server.requests) == 1), "A request")
        task.cancel()
        await soon(asyncio.wait([task]), "A request that was cancelled")
        assert task.cancelled(), "send was cancelled and did not say so."
        await left_at(server, 1, "A request that was cancelled")
        await whole(transport, asking(server.at("/?answer")))


async def a_closed_stream_ends_at_the_server(make: Make) -> None:
    """In the middle of a body, be somebody reading or not; closing again does nothing."""
    async with serving(make, stalling(b"begun")) as (server, transport):
        for count in (1, 2):
            stream = await opened(transport, server)
            await exactly(stream, b"begun")
            if count == 2:
                reader = asyncio.ensure_future(stream.receive())
                await asyncio.sleep(0)
                reader.cancel()
                await soon(asyncio.wait([reader]), "A receive that was cancelled")
            await soon(stream.aclose(), "aclose of a stream")
            await soon(stream.aclose(), "A second aclose of a stream")
            await left_at(server, count, "A stream that was closed")
        _, body = await whole(transport, asking(server.at("/?answer")))
        assert body == b"answer", f"The request after a closed stream got {body!r}."


async def an_aborted_stream_raises_what_it_was_given(make: Make) -> None:
    """`abort` wakes the reader with its error, which stays; the server sees the end."""
    async with serving(make, stalling(b"begun")) as (server, transport):
        stream = await opened(transport, server)
        await exactly(stream, b"begun")
        reader = asyncio.ensure_future(stream.receive())
        await asyncio.sleep(0)
        given = ProtocolError("enough")
        stream.abort(given)
        await _raises(reader, given)
        await _raises(stream.receive(), given)
        await left_at(server, 1, "A stream that was aborted")
        await soon(transport.aclose(), "aclose of a transport")
        await _raises(stream.receive(), given)
        await soon(stream.aclose(), "aclose of an aborted stream")


async def _raises(work: Awaitable[object], given: VLLMError) -> None:
    error = await refused(VLLMError, work, "receive after abort")
    assert error is given, f"receive after abort raised {error!r}, not what abort was given."


async def what_was_not_read_is_no_part_of_the_next_reply(make: Make) -> None:
    """A reply that was left in its middle leaves nothing on its connection."""
    sent = b"first" * 200_000 + b"rest"
    async with serving(make, replying(sent)) as (server, transport):
        for _ in range(3):
            stream = await opened(transport, server)
            await soon(stream.receive(), "The body's beginning")
            await soon(stream.aclose(), "aclose of a stream")
            _, body = await whole(transport, asking(server.at()))
            same(body, sent, "The next reply")


async def a_closed_transport_is_closed(make: Make) -> None:
    """What was open ends at the server and in its reader; nothing is sent any more."""
    async with serving(make, stalling(b"begun")) as (server, transport):
        stream = await opened(transport, server)
        await exactly(stream, b"begun")
        reader = asyncio.ensure_future(stream.receive())
        await asyncio.sleep(0)
        await soon(transport.aclose(), "aclose of a transport")
        await soon(transport.aclose(), "A second aclose of a transport")
        await left_at(server, 1, "A transport that was closed")
        await refused(TransportError, reader, "receive on a transport that was closed")
        await soon(stream.aclose(), "aclose of a stream after its transport's")
        told: list[None] = []
        request = asking(server.at("/?answer"), connected=lambda: told.append(None))
        await refused(ConnectError, transport.send(request), "send on a closed transport")
        assert not told, "A transport that is closed makes no connections."
        assert len(server.requests) == 1, "A transport that is closed sent a request."


# ── connections ──────────────────────────────────────────────────────────────────────────────────


async def no_connection_is_a_connect_error(make: Make) -> None:
    """Nobody listens there: the request cannot have been acted on, and may be sent again."""
    async with raw_server() as (closed, _):
        pass
    async with serving(make, replying(b"ok")) as (_, transport):
        told: list[None] = []
        request = asking(closed, connected=lambda: told.append(None))
        await refused(ConnectError, transport.send(request), "send to a closed port")
        assert not told, "`connected` was called, and there is no connection."


async def connecting_has_its_limit(make: Make) -> None:
    """`connect_timeout` covers TLS; `ConnectTimeoutError`."""
    async with raw_server(b"") as (silent, _), serving(make, replying(b"ok")) as (_, transport):
        url = silent.replace("http:", "https:")  # the server never answers the first TLS message
        request = asking(url, connect_timeout=0.05)
        await refused(ConnectTimeoutError, transport.send(request), "send where no TLS is spoken")


async def what_is_no_whole_reply_is_an_error(make: Make) -> None:
    """A head or a chunk that is cut, and bytes that are no HTTP."""
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    for reply in (
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        head + b"5\r\nbe",
        head + b"5\r\nbegun\r\n",
        head + b"zz\r\nbegun\r\n0\r\n\r\n",
    ):
        async with (
            raw_server(reply) as (url, heads),
            serving(make, replying(b"ok")) as (_, transport),
        ):
            what = f"A reply of {reply!r}"
            request = asking(url)
            error = await refused(TransportError, whole(transport, request), what)
            assert not isinstance(error, (ConnectError, ConnectTimeoutError)), (
                f"{what} is a TransportError and no {type(error).__name__}: the request was sent."
            )
            assert len(heads) == 1, f"{what}: the request was sent again."


async def a_kept_connection_that_is_lost_is_said_to_be_one(make: Make) -> None:
    """`reused`: the server had most likely closed it. Nothing is sent again by the transport."""
    good = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    for method, body in (("GET", None), ("POST", b"")):
        async with (
            raw_server(good, b"") as (url, heads),
            serving(make, replying(b"ok")) as (_, transport),
        ):
            request = asking(url, method=method, body=body)
            await whole(transport, request)
            lost: TransportError | None = None
            try:
                await whole(transport, request)
            except TransportError as error:
                lost = error
            assert lost is None or lost.reused, (
                "The connection of an earlier request was lost before the reply had begun: "
                "TransportError.reused says so, and the request is sent again at once."
            )
            assert len(heads) == 2, f"A {method} that was lost was sent again by the transport."
