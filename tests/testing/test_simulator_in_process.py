"""Without a socket: the same bytes, the same faults, the same notice of who left."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from vllm_agent_sdk.errors import ConnectError, IdleTimeoutError, TransportError
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.transport.base import ByteStream, Request

from .clients import CHAT, ask, chat, request_of

pytestmark = pytest.mark.feature("Q-01")


async def read(stream: ByteStream) -> list[bytes]:
    pieces: list[bytes] = []
    await _read_into(stream, pieces)
    await stream.aclose()
    return pieces


SCRIPTS: dict[str, tuple[Reply, dict[str, Any]]] = {
    "text": (Reply.text("a b c"), {"stream_options": {"include_usage": True}}),
    "calls": (Reply.calls(("f", {"a": 1}), ("g", {}), text="So"), {"n": 2}),
    "reasoning": (Reply.reasoning("I think", "so"), {}),
    "error": (Reply.error(503, headers={"retry-after": "1"}), {}),
    "error frame": (Reply.text("a b c", error_after=2), {}),
    "split": (Reply.text("a b c", split=11), {}),
    "raw": (Reply.raw(b": hello\n\ndata: 1\n\ndata: tail"), {}),
    "refused": (Reply.text("a"), {"tools": []}),
}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", SCRIPTS)
async def test_the_bytes_are_those_of_the_socket(name: str, streamed: bool) -> None:
    reply, fields = SCRIPTS[name]
    fields = fields if streamed else {k: v for k, v in fields.items() if k != "stream_options"}
    body = chat(stream=streamed, **fields)
    async with Simulator(reply) as server:
        expected = await ask(server, CHAT, body)
    async with Simulator(reply) as server:
        stream = await server.transport.send(request_of(body))
        pieces = await read(stream)
    assert (stream.status, dict(stream.headers)) == (expected.status, expected.headers)
    if streamed:
        assert pieces == expected.chunks
    assert b"".join(pieces) == expected.body


async def test_requests_are_recorded_as_if_they_had_come_over_a_socket() -> None:
    async with Simulator(api_key="k") as server:
        headers = {"Content-Type": "application/json", "Authorization": "Bearer k"}
        body = json.dumps(chat()).encode()
        url = f"http://sim{CHAT}?a=b"
        request = Request(method="POST", url=url, headers=headers, body=body)
        assert (await server.transport.send(request)).status == 200
        (recorded,) = server.requests
    assert (recorded.path, recorded.query, recorded.json) == (CHAT, "a=b", chat())
    assert recorded.headers["authorization"] == "Bearer k"
    assert recorded.headers["content-length"] == str(len(body))


async def test_the_server_tells_that_the_connection_is_there() -> None:
    told: list[bool] = []
    async with Simulator() as server:
        request = Request(
            method="GET", url="http://sim/version", headers={}, connected=lambda: told.append(True)
        )
        await read(await server.transport.send(request))
    assert told == [True]


async def test_chunks_come_as_they_are_made() -> None:
    async with Simulator(Reply.text("a", delay=60, first_delay=0)) as server:
        stream = await server.transport.send(request_of(chat(stream=True)))
        first = await stream.receive()
        assert b'"role":"assistant"' in first
        assert server.running == 1
        await stream.aclose()


@pytest.mark.parametrize("size", [0, 10, 300])
async def test_a_cut_comes_after_exactly_that_many_bytes(size: int) -> None:
    async with Simulator(Reply.text("a b c", cut_after=size)) as server:
        stream = await server.transport.send(request_of(chat(stream=True)))
        got: list[bytes] = []
        with pytest.raises(TransportError, match="ended before"):
            await _read_into(stream, got)
        with pytest.raises(TransportError):
            await stream.receive()
        await stream.aclose()
        assert (len(b"".join(got)), server.disconnects, server.running) == (size, 0, 0)


async def _read_into(stream: ByteStream, pieces: list[bytes]) -> None:
    while piece := await stream.receive():
        pieces.append(piece)


async def test_a_cut_before_the_head_fails_the_request() -> None:
    async with Simulator(Reply.text("a", cut_after=-1, reset=True)) as server:
        with pytest.raises(TransportError, match="was reset"):
            await server.transport.send(request_of(chat()))


async def test_cancelling_a_request_is_leaving() -> None:
    async with Simulator(Reply.text("a", delay=60)) as server:
        task = asyncio.create_task(_send(server, chat()))
        await server.wait_for(lambda: server.running == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (server.running, server.disconnects) == (0, 1)


async def _send(server: Simulator, body: Any) -> ByteStream:
    return await server.transport.send(request_of(body))


async def test_closing_a_stream_early_is_leaving() -> None:
    async with Simulator(Reply.text("word " * 1000)) as server:
        stream = await server.transport.send(request_of(chat(stream=True)))
        await stream.receive()
        await stream.aclose()
        await stream.aclose()
        assert (server.running, server.disconnects) == (0, 1)
        with pytest.raises(TransportError):
            await stream.receive()


async def test_an_abort_wakes_who_waits_and_stays() -> None:
    error = IdleTimeoutError("too slow")
    async with Simulator(Reply.text("a", delay=60)) as server:
        stream = await server.transport.send(request_of(chat(stream=True)))
        waiting = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        stream.abort(error)
        with pytest.raises(IdleTimeoutError) as caught:
            await waiting
        assert caught.value is error
        with pytest.raises(IdleTimeoutError):
            await stream.receive()
        await stream.aclose()
        await server.wait_for(lambda: server.running == 0)
        assert server.disconnects == 1


async def test_closing_the_transport_ends_its_streams_and_no_others() -> None:
    async with Simulator(Reply.text("a", delay=60)) as server:
        closed, open_ = server.transport, server.transport
        stream = await closed.send(request_of(chat(stream=True)))
        other = await open_.send(request_of(chat(stream=True)))
        await closed.aclose()
        await closed.aclose()
        with pytest.raises(TransportError):
            await stream.receive()
        with pytest.raises(ConnectError):
            await closed.send(request_of(chat()))
        assert (server.running, server.disconnects) == (1, 1)
        await other.aclose()


async def test_a_reader_that_is_slow_holds_the_server_back() -> None:
    async with Simulator(Reply.text("word " * 1000)) as server:
        stream = await server.transport.send(request_of(chat(stream=True)))
        for _ in range(300):
            await asyncio.sleep(0)
        assert server.running == 1
        pieces = await read(stream)
        assert (len(pieces), server.running, server.disconnects) == (1004, 0, 0)


async def test_it_needs_no_open_socket() -> None:
    server = Simulator(Reply.text("a"))
    pieces = await read(await server.transport.send(request_of(chat())))
    assert json.loads(b"".join(pieces))["choices"][0]["message"]["content"] == "a"
