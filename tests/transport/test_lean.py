"""Requests with small bodies: what reaches the server is what aiohttp's own would send."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from vllm_agent_sdk.transport.base import Request
from vllm_agent_sdk.transport.http import AiohttpTransport
from vllm_agent_sdk.transport.http import transport as transport_module
from vllm_agent_sdk.types.options import HTTPOptions

SENT = {"Authorization": "Bearer k", "content-type": "application/json", "X-Twice": "ä"}


class Served(NamedTuple):
    transport: AiohttpTransport
    url: str
    heard: list[bytes]
    came: asyncio.Event


@contextlib.asynccontextmanager
async def served(
    *, reads: bool = True, answers: bool = True, before: bytes = b""
) -> AsyncIterator[Served]:
    """A server that keeps what it gets, and answers each request on the same connection."""
    heard: list[bytes] = []
    came, serving = asyncio.Event(), set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(length or 0)) if reads else b""
                heard.append(head + body)
                came.set()
                if not answers:
                    continue
                writer.write(before + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                await writer.drain()
                if not reads and b"POST" in head:
                    await reader.read()
        writer.close()

    listening = socket.create_server(("127.0.0.1", 0))
    if not reads:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server = await asyncio.start_server(answer, sock=listening, limit=4096)
    transport = AiohttpTransport(HTTPOptions())
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x?y=%20z"
    try:
        yield Served(transport, url, heard, came)
    finally:
        await transport.aclose()
        server.close()
        await asyncio.gather(*serving)


async def posted(transport: AiohttpTransport, url: str, body: bytes | None) -> bytes:
    method = "GET" if body is None else "POST"
    stream = await transport.send(Request(method=method, url=url, headers=SENT, body=body))
    data = await stream.receive()
    await stream.aclose()
    return data


def lines(heard: bytes) -> tuple[bytes, set[bytes], bytes]:
    head, _, body = heard.partition(b"\r\n\r\n")
    first, *rest = head.split(b"\r\n")
    return first, set(rest), body


SIZES = [0, 1, 9_000, 300_000, 1 << 20, (1 << 20) + 1]


@pytest.mark.feature("C-14")
@pytest.mark.parametrize("size", SIZES)
async def test_bodies_of_all_sizes_arrive_with_the_headers_of_aiohttps_own(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    async with served() as (transport, url, heard, _came):
        assert await posted(transport, url, body[:size]) == b"hi"
        monkeypatch.setattr(transport_module, "_LARGE", -1)  # all go by aiohttp's own way
        assert await posted(transport, url, body[:size]) == b"hi"
    ours, own = map(lines, heard)
    assert ours == own
    assert ours[0] == b"POST /v1/x?y=%20z HTTP/1.1"
    assert ours[2] == body[:size]
    assert b"Content-Length: %d" % size in ours[1]
    assert not [line for line in ours[1] if line.lower().startswith(b"user-agent")]


async def test_a_request_without_a_body_has_no_length() -> None:
    async with served() as (transport, url, heard, _came):
        assert await posted(transport, url, None) == b"hi"
    first, head, body = lines(heard[0])
    assert first.startswith(b"GET ")
    assert {b"Accept: */*", "X-Twice: ä".encode()} < head
    assert not [line for line in head if line.lower().startswith(b"content-length")]
    assert body == b""


@pytest.mark.parametrize("size", [10, 1_000_000, 3_000_000])
async def test_a_server_that_answers_without_reading_is_heard(size: int) -> None:
    async with served(reads=False) as (transport, url, _heard, _came):
        assert await posted(transport, url, b"x" * size) == b"hi"


async def test_what_a_server_did_not_read_is_no_beginning_of_the_next_request() -> None:
    async with served(reads=False) as (transport, url, _heard, _came):
        assert await posted(transport, url, None) == b"hi"
        ((protocol, _since),) = next(iter(transport._connector._conns.values()))
        assert protocol.transport is not None
        connected = protocol.transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert await posted(transport, url, b"x" * 1_000_000) == b"hi"
        assert not transport._connector._conns


async def test_a_small_body_needs_no_task() -> None:
    made: list[object] = []
    loop = asyncio.get_running_loop()

    def counted(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        made.append(work)
        return asyncio.Task(work, loop=loop, **more)

    async with served() as (transport, url, _heard, _came):
        assert await posted(transport, url, b"first") == b"hi"  # makes the connection
        loop.set_task_factory(counted)
        try:
            assert await posted(transport, url, b"{}") == b"hi"
        finally:
            loop.set_task_factory(None)
    assert made == []


async def test_a_reply_that_is_announced_is_waited_for() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    async with served(before=early) as (transport, url, _heard, _came):
        assert await posted(transport, url, b"{}") == b"hi"


async def test_headers_take_the_place_of_those_that_are_added() -> None:
    given = {"host": "models.example", "accept": "text/event-stream", "content-length": "99"}
    async with served() as (transport, url, heard, _came):
        stream = await transport.send(Request(method="POST", url=url, headers=given, body=b"abc"))
        await stream.aclose()
    lower = {line.lower() for line in lines(heard[0])[1]}
    assert {b"host: models.example", b"accept: text/event-stream", b"content-length: 3"} < lower
    assert len(lower) == 4  # and the codings that are read


async def test_a_header_cannot_begin_another_line() -> None:
    async with served() as (transport, url, heard, _came):
        request = Request(method="POST", url=url, headers={"x-a": "1\r\nx-b: 2"}, body=b"")
        with pytest.raises(ValueError, match="header injection"):
            await transport.send(request)
        assert await posted(transport, url, b"{}") == b"hi"
    assert len(heard) == 1


async def test_the_connection_of_a_request_that_was_cancelled_is_closed() -> None:
    async with served(answers=False) as (transport, url, _heard, came):
        sending = asyncio.ensure_future(posted(transport, url, b"{}"))
        await came.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert transport._connector._acquired == set()
