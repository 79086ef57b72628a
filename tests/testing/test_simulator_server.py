"""The simulator as a server: connections, faults, what it records, how it ends."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from typing import Any

import pytest

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.testing import Reply, Simulator, SimulatorRequest

from .clients import CHAT, Socket, ask, chat, stream

pytestmark = pytest.mark.feature("Q-01")

# ── replies in order ─────────────────────────────────────────────────────────────────────────────


def said(reply: Any) -> Any:
    return reply.json["choices"][0]["message"]["content"]


async def test_replies_are_used_in_order_and_the_last_one_again_and_again() -> None:
    async with Simulator(Reply.text("a"), Reply.text("b")) as server:
        assert [said(await ask(server, CHAT, chat())) for _ in range(4)] == ["a", "b", "b", "b"]


async def test_without_a_script_it_answers_ok() -> None:
    async with Simulator() as server:
        assert said(await ask(server, CHAT, chat())) == "OK"


async def test_a_refused_request_uses_up_no_reply() -> None:
    async with Simulator(Reply.text("a"), Reply.text("b")) as server:
        await ask(server, CHAT, chat(tools=[]))
        assert said(await ask(server, CHAT, chat())) == "a"


async def test_a_function_decides_by_the_request() -> None:
    def echo(request: SimulatorRequest) -> Reply:
        return Reply.text(request.json["messages"][-1]["content"].upper())

    async def late(request: SimulatorRequest) -> Reply:
        await asyncio.sleep(0)
        return Reply.text("late")

    async with Simulator(late, echo) as server:
        assert said(await ask(server, CHAT, chat("x"))) == "late"
        assert said(await ask(server, CHAT, chat("yes"))) == "YES"
        assert said(await ask(server, CHAT, chat("no"))) == "NO"


async def test_what_a_function_raises_is_a_500_and_is_raised_again_at_the_end() -> None:
    def broken(request: SimulatorRequest) -> Reply:
        raise ZeroDivisionError("in the script")

    got = []

    async def use() -> None:
        async with Simulator(broken) as server:
            got.append(await ask(server, CHAT, chat()))

    with pytest.raises(ZeroDivisionError, match="in the script"):
        await use()
    assert got[0].status == 500
    assert got[0].json["error"]["message"] == "ZeroDivisionError: in the script"


def test_what_a_function_raises_explains_what_the_client_ran_into() -> None:
    def broken(request: SimulatorRequest) -> Reply:
        raise AssertionError("wrong request")

    def use() -> None:
        with Simulator(broken) as server:
            status, _ = post(server, chat())
            raise RuntimeError(f"status {status}")

    with pytest.raises(AssertionError, match="wrong request") as caught:
        use()
    assert str(caught.value.__cause__) == "status 500"


async def test_an_interrupt_is_not_replaced_by_what_a_function_raised() -> None:
    def broken(request: SimulatorRequest) -> Reply:
        raise AssertionError("wrong request")

    async def use() -> None:
        async with Simulator(broken) as server:
            await ask(server, CHAT, chat())
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await use()


async def test_a_function_must_give_a_reply() -> None:
    async def use() -> None:
        async with Simulator(lambda request: "text") as server:  # type: ignore[arg-type,return-value]
            await ask(server, CHAT, chat())

    with pytest.raises(UsageError, match="gave str, not a Reply"):
        await use()


def test_mistakes_in_a_script_are_named_at_once() -> None:
    with pytest.raises(UsageError, match="not str"):
        Simulator("text")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="options are api_key"):
        Simulator(modell="m")  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="no option 'deley'"):
        Reply.text("a", deley=1)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="needs a call"):
        Reply.calls()
    with pytest.raises(UsageError, match="don't make it up"):
        Reply.text("ab", chunks=["a"])
    with pytest.raises(UsageError, match="1 or more"):
        Reply.text("ab", split=0)
    with pytest.raises(UsageError, match="or -1"):
        Reply.text("ab", cut_after=-2)


# ── what it records ──────────────────────────────────────────────────────────────────────────────


async def test_requests_are_recorded_as_they_came() -> None:
    async with Simulator() as server:
        await ask(server, "/v1/models?x=1")
        await ask(server, CHAT, chat("é", seed=1), X_Own="7")
        models, request = server.requests
        assert (models.method, models.path, models.query) == ("GET", "/v1/models", "x=1")
        assert (models.body, models.json) == (b"", None)
        assert (request.method, request.path) == ("POST", CHAT)
        assert request.headers["x-own"] == "7"
        assert request.json == chat("é", seed=1)
        assert json.loads(request.body) == request.json
        assert server.chats == [request]
        assert "7" not in repr(request)


async def test_it_has_no_url_outside_its_block() -> None:
    server = Simulator()
    async with server:
        assert server.base_url.startswith("http://127.0.0.1:")
        assert server.base_url.endswith("/v1")
    with pytest.raises(UsageError, match="with"):
        _ = server.base_url


# ── connections ──────────────────────────────────────────────────────────────────────────────────


async def test_one_connection_carries_many_requests() -> None:
    async with Simulator(Reply.text("a b")) as server, Socket(server) as client:
        for streamed in (True, False, True):
            client.send(CHAT, chat(stream=streamed))
            assert (await client.reply()).status == 200
        client.send("/health")
        assert (await client.reply()).status == 200
        assert len(server.requests) == 4


async def test_requests_sent_ahead_are_answered_one_after_the_other() -> None:
    async with Simulator(Reply.text("a"), Reply.text("b")) as server, Socket(server) as client:
        client.send(CHAT, chat())
        client.send(CHAT, chat())
        assert [said(await client.reply()) for _ in range(2)] == ["a", "b"]


async def test_a_request_may_come_in_pieces() -> None:
    async with Simulator() as server, Socket(server) as client:
        body = json.dumps(chat()).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nContent-Type: application/json\r\n"
        for piece in (head, f"Content-Length: {len(body)}\r\n\r\n", body[:9], body[9:]):
            client.writer.write(piece if isinstance(piece, bytes) else piece.encode())
            await client.writer.drain()
        assert said(await client.reply()) == "OK"


async def test_an_idle_connection_is_closed() -> None:
    async with Simulator(keepalive_s=0.01) as server, Socket(server) as client:
        client.send("/version")
        await client.reply()
        assert await client.reader.read() == b""


async def test_connection_close_is_obeyed() -> None:
    async with Simulator() as server, Socket(server) as client:
        client.send("/version", connection="close")
        got = await client.reply()
        assert got.headers["connection"] == "close"
        assert await client.reader.read() == b""


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"])
async def test_what_is_no_http_is_refused(data: bytes) -> None:
    async with Simulator() as server, Socket(server) as client:
        client.writer.write(data)
        got = await client.reply()
        assert (got.status, got.body) == (400, b"Invalid HTTP request received.")
        assert await client.reader.read() == b""


# ── faults ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("size", [0, 1, 100])
async def test_a_cut_ends_the_connection_after_exactly_that_many_bytes(
    streamed: bool, size: int
) -> None:
    reply = Reply.text("a b c", cut_after=size)
    async with Simulator(Reply.text("a b c"), reply) as server, Socket(server) as client:
        whole = await ask(server, CHAT, chat(stream=streamed), x_request_id="X")
        client.send(CHAT, chat(stream=streamed), x_request_id="X")
        head = await client.head()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await client.rest(head)
        assert head.body + caught.value.partial == whole.body[:size]
        assert server.disconnects == 0


async def test_a_cut_that_resets_is_a_reset_to_the_client() -> None:
    reply = Reply.text("a b c", cut_after=20, reset=True)
    async with Simulator(reply) as server, Socket(server) as client:
        client.send(CHAT, chat(stream=True))
        with pytest.raises(ConnectionResetError):
            await client.reply()


async def test_a_cut_before_the_head_gives_no_byte_at_all() -> None:
    async with Simulator(Reply.text("a", cut_after=-1), Reply.text("b")) as server:
        async with Socket(server) as client:
            client.send(CHAT, chat(stream=True))
            assert await client.reader.read() == b""
        assert said(await ask(server, CHAT, chat())) == "b"


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_split_sends_pieces_of_that_size(size: int) -> None:
    text = "ünïcode 🦊 " * 3
    async with Simulator(Reply.text(text), Reply.text(text, split=size)) as server:
        plain, split = [await stream(server) for _ in range(2)]
    assert split.body == plain.body
    assert {len(chunk) for chunk in split.chunks[:-1]} <= {size}
    assert 0 < len(split.chunks[-1]) <= size


async def test_a_delay_holds_back_each_chunk_but_not_the_head() -> None:
    reply = Reply.text("a b", delay=0.01, first_delay=0.03)
    async with Simulator(reply) as server, Socket(server) as client:
        start = time.perf_counter()
        client.send(CHAT, chat(stream=True))
        await client.head()
        times = []
        while await client.chunk():
            times.append(time.perf_counter() - start)
    # Role, two words, the end, [DONE]; only lower bounds hold on a busy machine.
    assert len(times) == 5
    assert times[0] >= 0.03
    assert times[-1] >= 0.03 + 4 * 0.01


async def test_a_delay_holds_back_a_whole_reply_once() -> None:
    async with Simulator(Reply.text("a b c d", delay=0.02)) as server:
        start = time.perf_counter()
        await ask(server, CHAT, chat())
    assert time.perf_counter() - start >= 0.02


# ── clients that leave ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_while_it_waits_is_noticed(streamed: bool) -> None:
    async with Simulator(Reply.text("a", first_delay=60)) as server:
        async with Socket(server) as client:
            client.send(CHAT, chat(stream=streamed))
            await server.wait_for(lambda: server.running == 1)
        await server.wait_for(lambda: server.running == 0)
        assert server.disconnects == 1


async def test_a_client_that_stops_reading_and_leaves_is_noticed() -> None:
    async with Simulator(Reply.text(chunks=["word " * 20_000] * 200)) as server:
        async with Socket(server) as client:
            client.send(CHAT, chat(stream=True))
            await client.head()
            assert server.running == 1
        await server.wait_for(lambda: server.disconnects == 1)
        assert server.running == 0


async def test_who_has_read_a_reply_finds_the_server_done_with_it() -> None:
    async with Simulator(Reply.text("a b", delay=0.001)) as server:
        for streamed in (True, False):
            async with Socket(server) as client:
                client.send(CHAT, chat(stream=streamed))
                await client.reply()
                assert server.running == 0
        assert server.disconnects == 0


async def test_leaving_the_block_ends_what_is_being_answered() -> None:
    async with Simulator(Reply.text("a", first_delay=60)) as server:
        client = Socket(server)
        async with client:
            client.send(CHAT, chat(stream=True))
            await client.head()
            await server.__aexit__(None, None, None)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await client.chunk()
    assert (server.running, server.disconnects) == (0, 0)


async def test_waiting_in_vain_ends() -> None:
    async with Simulator() as server:
        with pytest.raises(TimeoutError):
            await server.wait_for(lambda: False, timeout=0.01)
        with pytest.raises(TimeoutError):
            server.wait_for_sync(lambda: False, timeout=0.01)


# ── plain `with` ─────────────────────────────────────────────────────────────────────────────────


def post(server: Simulator, body: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(server.base_url.split("/")[2], timeout=10)
    try:
        connection.request("POST", CHAT, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_plain_with_serves_blocking_clients() -> None:
    before = threading.active_count()
    with Simulator(Reply.text("a"), Reply.text("b")) as server:
        texts = [post(server, chat())[1]["choices"][0]["message"]["content"] for _ in range(2)]
        assert texts == ["a", "b"]
        assert [request.path for request in server.requests] == [CHAT, CHAT]
    assert threading.active_count() == before


def test_plain_with_tells_when_a_client_has_left() -> None:
    with Simulator(Reply.text("a", first_delay=60)) as server:
        connection = http.client.HTTPConnection(server.base_url.split("/")[2], timeout=10)
        connection.request("POST", CHAT, json.dumps(chat()), {"Content-Type": "application/json"})
        server.wait_for_sync(lambda: server.running == 1)
        connection.close()
        server.wait_for_sync(lambda: server.disconnects == 1)
        assert server.running == 0


def test_plain_with_ends_though_a_client_still_waits() -> None:
    with Simulator(Reply.text("a", first_delay=60)) as server:
        connection = http.client.HTTPConnection(server.base_url.split("/")[2], timeout=10)
        connection.request("POST", CHAT, json.dumps(chat()), {"Content-Type": "application/json"})
        server.wait_for_sync(lambda: server.running == 1)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        connection.getresponse()
    connection.close()
