"""Requests with small bodies: what reaches the server is what aiohttp's own would send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from vllm_agent_sdk.transport.base import Request
from vllm_agent_sdk.transport.http import AiohttpTransport, lean
from vllm_agent_sdk.types.options import HTTPOptions

SENT = {"Authorization": "Bearer k", "content-type": "application/json", "X-Twice": "ä"}


@contextlib.asynccontextmanager
async def served(*, reads: bool = True) -> AsyncIterator[tuple[AiohttpTransport, str, list[bytes]]]:
    """A server that keeps what it gets, and answers each request on the same connection."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(length or 0)) if reads else b""
                heard.append(head + body)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    transport = AiohttpTransport(HTTPOptions())
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x?y=%20z"
    try:
        yield transport, url, heard
    finally:
        await transport.aclose()
        server.close()


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


SIZES = [0, 1, 9_000, lean._SMALL, lean._SMALL + 1, 300_000, (1 << 20) + 1]


@pytest.mark.feature("C-14")
@pytest.mark.parametrize("size", SIZES)
async def test_bodies_of_all_sizes_arrive_with_the_headers_of_aiohttps_own(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    async with served() as (transport, url, heard):
        assert await posted(transport, url, body[:size]) == b"hi"
        monkeypatch.setattr(lean, "_TOLD", None)  # a release that is not known: aiohttp's own
        assert await posted(transport, url, body[:size]) == b"hi"
    ours, own = map(lines, heard)
    assert ours == own
    assert ours[0] == b"POST /v1/x?y=%20z HTTP/1.1"
    assert ours[2] == body[:size]
    assert b"Content-Length: %d" % size in ours[1]
    assert not [line for line in ours[1] if line.lower().startswith(b"user-agent")]


async def test_a_request_without_a_body_has_no_length() -> None:
    async with served() as (transport, url, heard):
        assert await posted(transport, url, None) == b"hi"
    first, head, body = lines(heard[0])
    assert first.startswith(b"GET ")
    assert {b"Accept: */*", "X-Twice: ä".encode()} < head
    assert not [line for line in head if line.lower().startswith(b"content-length")]
    assert body == b""


@pytest.mark.parametrize("size", [lean._SMALL, 3_000_000])
async def test_a_server_that_answers_without_reading_is_heard(size: int) -> None:
    async with served(reads=False) as (transport, url, _heard):
        assert await posted(transport, url, b"x" * size) == b"hi"


async def test_a_small_body_needs_no_task() -> None:
    made: list[object] = []
    loop = asyncio.get_running_loop()

    def counted(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        made.append(work)
        return asyncio.Task(work, loop=loop, **more)

    async with served() as (transport, url, _heard):
        assert await posted(transport, url, b"first") == b"hi"  # makes the connection
        loop.set_task_factory(counted)
        try:
            assert await posted(transport, url, b"{}") == b"hi"
        finally:
            loop.set_task_factory(None)
    assert made == []


def test_a_response_that_is_to_be_told_more_is_left_to_aiohttp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert lean._TOLD is not None
    assert {"writer", "request_info", "session"} < lean._TOLD

    class Response:
        def __init__(self, method: str, url: object, *, writer: object, trailers: object) -> None:
            raise AssertionError

    monkeypatch.setattr("aiohttp.ClientResponse", Response)
    assert lean._told() is None
