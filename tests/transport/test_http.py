"""HTTP on a real socket: every way it can go wrong is one of our errors."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_agent_sdk.errors import ConnectError, ProtocolError, TransportError, VLLMError
from vllm_agent_sdk.transport.base import Request
from vllm_agent_sdk.transport.http import AiohttpTransport
from vllm_agent_sdk.types.options import HTTPOptions

OK = b"HTTP/1.1 200 OK\r\n"


@contextlib.asynccontextmanager
async def answering(
    data: bytes, *, stay: bool = False
) -> AsyncIterator[tuple[AiohttpTransport, Request]]:
    """A server that answers every request with these bytes, and a transport to it."""
    left = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(data)
            await writer.drain()
            if stay:
                await left.wait()
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = AiohttpTransport(HTTPOptions())
    request = Request(method="GET", url=f"http://127.0.0.1:{port}/v1/models", headers={})
    try:
        yield transport, request
    finally:
        left.set()
        await transport.aclose()
        server.close()


async def body(transport: AiohttpTransport, request: Request) -> bytes:
    stream = await transport.send(request)
    parts = []
    try:
        while data := await stream.receive():
            parts.append(data)
    finally:
        await stream.aclose()
    return b"".join(parts)


async def test_a_body_is_read_to_its_end() -> None:
    async with answering(OK + b"content-length: 2\r\n\r\nhi") as (transport, request):
        assert await body(transport, request) == b"hi"


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux alone has it")
@pytest.mark.parametrize(("kind", "at_once"), [("text/event-stream", 0), ("application/json", 1)])
async def test_the_packets_of_an_event_stream_are_not_acknowledged_one_by_one(
    kind: str, at_once: int
) -> None:
    head = OK + b"content-type: %s; charset=utf-8\r\n" % kind.encode()
    async with answering(head + b"content-length: 9\r\n\r\nhi", stay=True) as (transport, request):
        stream = await transport.send(request)
        assert await stream.receive() == b"hi"
        connection = stream._held
        assert isinstance(connection, Connection)
        assert connection.transport is not None
        connected = connection.transport.get_extra_info("socket")
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == at_once
        await stream.aclose()


@pytest.mark.feature("S-08")
@pytest.mark.parametrize("coding", ["plain", "chunked", "gzip"])
async def test_a_body_that_is_read_late_stops_the_connection_and_comes_whole(
    coding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused, pause = asyncio.Event(), ResponseHandler.pause_reading

    def pausing(handler: ResponseHandler) -> None:
        pause(handler)
        paused.set()

    monkeypatch.setattr(ResponseHandler, "pause_reading", pausing)
    text = random.Random(1).randbytes(3_000_000)
    sent = gzip.compress(text) if coding == "gzip" else text
    if coding == "chunked":
        pieces = [sent[at : at + 70_000] for at in range(0, len(sent), 70_000)]
        head = b"transfer-encoding: chunked\r\n"
        sent = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    else:
        head = b"content-length: %d\r\n" % len(sent)
        head += b"content-encoding: gzip\r\n" if coding == "gzip" else b""
    async with answering(OK + head + b"\r\n" + sent) as (transport, request):
        stream = await transport.send(request)
        await asyncio.wait_for(paused.wait(), 10)  # nobody reads: no more than a part is taken
        first = await stream.receive()
        assert 0 < len(first) < 1_000_000
        rest = [first]
        while data := await stream.receive():
            rest.append(data)
        assert b"".join(rest) == text
        await stream.aclose()


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 204 No Content\r\n\r\n", OK + b"content-length: 0\r\n\r\n"]
)
async def test_a_reply_without_a_body_ends_at_once(head: bytes) -> None:
    async with answering(head, stay=True) as (transport, request):
        assert await body(transport, request) == b""


async def test_a_second_reader_is_refused_and_the_first_reads_on() -> None:
    async with answering(OK + b"content-length: 9\r\n\r\nhi", stay=True) as (transport, request):
        stream = await transport.send(request)
        assert await stream.receive() == b"hi"
        cancelled = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        cancelled.cancel()
        first = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        with pytest.raises(TransportError, match="two tasks read it"):
            await stream.receive()
        stream.abort(ProtocolError("enough"))
        with pytest.raises(ProtocolError):
            await first
        assert cancelled.cancelled()
        await stream.aclose()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 ",
        OK,
        OK + b"content-length: 5\r\n\r\nhi",
        OK + b"content-length: x\r\n\r\nhi",
        OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n",
        OK + b"content-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope",
        OK + b"\xff\xfe: \x00\r\n\r\n",
        OK + b"x: y\r\n" * 20_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
async def test_what_is_not_a_whole_http_reply_is_a_transport_error(data: bytes) -> None:
    async with answering(data) as (transport, request):
        with pytest.raises(TransportError):
            await body(transport, request)


@pytest.mark.feature("S-01")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200)
    | st.binary(max_size=60).map((OK + b"transfer-encoding: chunked\r\n\r\n").__add__)
    | st.binary(max_size=60).map(OK.__add__)
)
def test_whatever_bytes_come_it_is_a_body_or_an_error_of_ours(data: bytes) -> None:
    async def run() -> bytes | VLLMError:
        async with answering(data) as (transport, request):
            try:
                return await body(transport, request)
            except VLLMError as error:
                return error

    assert isinstance(asyncio.run(run()), (bytes, TransportError))


async def test_an_unknown_host_and_a_closed_port_say_what_to_check() -> None:
    transport = AiohttpTransport(HTTPOptions())
    try:
        for url, text in (
            ("http://no.such.host.invalid/v1", "'no.such.host.invalid' is not known"),
            ("http://127.0.0.1:9/v1", "Is the server running"),
        ):
            with pytest.raises(ConnectError, match=text) as caught:
                await transport.send(Request(method="GET", url=url, headers={}))
            assert caught.value.retryable
    finally:
        await transport.aclose()


async def test_abort_wakes_the_reader_with_its_error_and_later_reads_too() -> None:
    head = OK + b"content-length: 9\r\n\r\nhi"
    async with answering(head, stay=True) as (transport, request):
        stream = await transport.send(request)
        assert await stream.receive() == b"hi"
        reader = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        error = ProtocolError("enough")
        stream.abort(error)
        for read in (reader, stream.receive()):
            with pytest.raises(ProtocolError) as caught:
                await read
            assert caught.value is error
        await stream.aclose()
        await stream.aclose()


async def test_any_status_is_a_reply_and_redirects_are_not_followed() -> None:
    head = b"HTTP/1.1 302 Found\r\nlocation: http://other/\r\ncontent-length: 0\r\n\r\n"
    async with answering(head) as (transport, request):
        stream = await transport.send(request)
        assert (stream.status, stream.headers["Location"]) == (302, "http://other/")
        assert stream.headers["location"] == "http://other/"
        await stream.aclose()


async def test_no_cookie_is_kept() -> None:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK + b"set-cookie: a=b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "localhost", 0, family=socket.AF_INET)
    port = server.sockets[0].getsockname()[1]
    transport = AiohttpTransport(HTTPOptions())
    async with server:
        for _ in range(2):
            request = Request(method="GET", url=f"http://localhost:{port}/", headers={})
            assert await body(transport, request) == b""
        await transport.aclose()
    assert len(seen) == 2
    assert not any(b"cookie" in head.lower() for head in seen)
