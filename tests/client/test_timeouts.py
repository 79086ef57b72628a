"""Time: each limit has its own typed error, and only what stands still is ended."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM, Timeout
from vllm_agent_sdk.errors import (
    ConnectTimeoutError,
    FirstTokenTimeoutError,
    IdleTimeoutError,
    TotalTimeoutError,
    TransportError,
)
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.transport.base import ByteStream, Request

from .support import HI, WAYS, FixedStream, recorded, served

pytestmark = pytest.mark.feature("C-04")

SOON, LONG = 0.05, 60.0


def stream(vllm: AsyncVLLM, **timeout: Any) -> Any:
    return vllm.chat.completions.stream(messages=HI, timeout=Timeout(**timeout))


async def ask(vllm: AsyncVLLM, streamed: bool) -> None:
    if streamed:
        await vllm.chat.completions.stream(messages=HI).final()
    else:
        await vllm.chat.completions.create(messages=HI)


async def gone(server: Simulator) -> None:
    await server.wait_for(lambda: server.running == 0)


# ── connecting ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def full_backlog() -> Iterator[str]:
    """The address of a listener that takes no more connections."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(8):
            other = sockets.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("streamed", [False, True])
async def test_no_connection_in_time(full_backlog: str, streamed: bool) -> None:
    async with AsyncVLLM(full_backlog, model="m", timeout=Timeout(connect=SOON)) as vllm:
        with pytest.raises(ConnectTimeoutError, match=r"within 0\.05 s.*Timeout\(connect=…\)") as e:
            await ask(vllm, streamed)
    assert isinstance(e.value, TimeoutError)
    assert e.value.request_id
    assert e.value.retryable


async def test_the_total_covers_connecting_and_first_token_does_not(full_backlog: str) -> None:
    async with AsyncVLLM(full_backlog, model="m") as vllm:
        with pytest.raises(TotalTimeoutError):
            await stream(vllm, connect=None, first_token=SOON / 5, total=SOON).final()


# ── whole replies ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
async def test_a_whole_reply_knows_the_total_only(way: str) -> None:
    async with served(Reply.text("a", delay=2 * SOON), way=way) as (server, vllm):
        create = vllm.chat.completions.create
        limits = Timeout(first_token=SOON / 10, idle=SOON / 10)
        assert (await create(messages=HI, timeout=limits)).text == "a"
        for limit in (SOON / 2, Timeout(total=SOON / 2)):
            with pytest.raises(TotalTimeoutError, match=r"0\.025 s") as caught:
                await create(messages=HI, timeout=limit)
            assert caught.value.request_id == server.chats[-1].headers["x-request-id"]
            assert not caught.value.retryable
        await gone(server)


async def test_the_clients_total_counts_where_a_call_has_none() -> None:
    async with served(Reply.text("a", delay=LONG), client={"timeout": SOON}) as (server, vllm):
        with pytest.raises(TotalTimeoutError):
            await vllm.chat.completions.create(messages=HI)
        with pytest.raises(TotalTimeoutError):
            await vllm.chat.completions.stream(messages=HI).final()
        await gone(server)


# ── streams ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
async def test_no_first_token_in_time(way: str) -> None:
    async with served(Reply.text("a", first_delay=LONG), way=way) as (server, vllm):
        with pytest.raises(FirstTokenTimeoutError, match=r"0\.05 s.*Timeout\.first_token") as e:
            await stream(vllm, first_token=SOON).final()
        assert e.value.partial.choices == []
        assert e.value.request_id == server.chats[0].headers["x-request-id"]
        assert not e.value.retryable
        await gone(server)


@pytest.mark.parametrize("way", WAYS)
async def test_a_stream_that_stands_still_ends_with_what_had_come(way: str) -> None:
    reply = Reply.text("a b c", delay=LONG, first_delay=0)
    async with served(reply, way=way) as (server, vllm):
        with pytest.raises(IdleTimeoutError, match=r"nothing for 0\.05 s.*Timeout\.idle") as caught:
            await stream(vllm, idle=SOON).final()
        assert caught.value.partial.choices[0].finish_reason is None
        assert isinstance(caught.value, TimeoutError)
        await gone(server)


@pytest.mark.parametrize("way", WAYS)
async def test_the_total_ends_a_stream_that_moves(way: str) -> None:
    reply = Reply.text("a " * 1000, delay=SOON / 10)
    async with served(reply, way=way) as (server, vllm):
        with pytest.raises(TotalTimeoutError) as caught:
            await stream(vllm, idle=LONG, total=2 * SOON).final()
        assert caught.value.partial.text.startswith("a")
        await gone(server)


async def test_a_slow_stream_that_moves_is_never_ended() -> None:
    # Longer than the limit in all, and never still for nearly as long.
    async with served(Reply.text("a b c d e f g h", delay=SOON)) as (_, vllm):
        assert await stream(vllm, idle=6 * SOON, first_token=6 * SOON).text() == "a b c d e f g h"


async def test_a_slow_reader_is_not_a_slow_server() -> None:
    async with served(Reply.text("a b c")) as (_, vllm):
        async with stream(vllm, idle=SOON) as events:
            await anext(events)
            await asyncio.sleep(3 * SOON)
            assert await events.text() == "a b c"


async def test_first_token_does_not_count_the_wait_for_the_reader() -> None:
    async with served(Reply.text("a b c")) as (_, vllm):
        async with stream(vllm, first_token=SOON, idle=SOON) as events:
            await anext(events)
            await asyncio.sleep(2 * SOON)
            assert await events.text() == "a b c"


class Paced:
    """A transport whose stream gives each piece after its seconds."""

    def __init__(self, *steps: tuple[float, bytes]) -> None:
        self._steps = steps

    async def send(self, request: Request) -> ByteStream:
        if request.connected is not None:
            request.connected()
        return PacedStream(self._steps)

    async def aclose(self) -> None:
        return None


class PacedStream(FixedStream):
    def __init__(self, steps: tuple[tuple[float, bytes], ...]) -> None:
        super().__init__([])
        self._steps = self._each(steps)
        self._ended = asyncio.get_running_loop().create_future()

    async def _each(self, steps: tuple[tuple[float, bytes], ...]) -> AsyncIterator[bytes]:
        for seconds, data in steps:
            await asyncio.wait([self._ended], timeout=seconds)
            if self._ended.done():
                raise self._ended.result()
            yield data

    async def receive(self) -> bytes:
        return await anext(self._steps, b"")

    def abort(self, error: Any) -> None:
        self._ended.set_result(error)


COMMENT = b": keep-alive\n\n"


async def test_comments_count_for_idle() -> None:
    chunks = recorded("plain_length").split(b"\n\n")
    steps = [(0.0, chunks[0] + b"\n\n"), *[(SOON, COMMENT)] * 8, (0.0, b"\n\n".join(chunks[1:]))]
    async with AsyncVLLM("http://x", model="m", transport=Paced(*steps)) as vllm:
        assert await stream(vllm, idle=6 * SOON).text() == "Hello"


async def test_comments_do_not_count_for_first_token() -> None:
    steps = [*[(SOON / 2, COMMENT)] * 20, (0.0, recorded("plain_length"))]
    async with AsyncVLLM("http://x", model="m", transport=Paced(*steps)) as vllm:
        with pytest.raises(FirstTokenTimeoutError):
            await stream(vllm, first_token=2 * SOON).final()


async def test_idle_does_not_count_before_the_first_event() -> None:
    steps = [(2 * SOON, COMMENT), (2 * SOON, recorded("plain_length"))]
    async with AsyncVLLM("http://x", model="m", transport=Paced(*steps)) as vllm:
        assert await stream(vllm, idle=SOON).text() == "Hello"


async def test_a_timeout_is_raised_again_and_nothing_is_left_running() -> None:
    async with served(Reply.text("a", first_delay=LONG)) as (server, vllm):
        events = stream(vllm, first_token=SOON)
        for _ in range(2):
            with pytest.raises(FirstTokenTimeoutError):
                await anext(events)
        await gone(server)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_timeout_of_ones_own_around_a_call_works(streamed: bool) -> None:
    async with served(Reply.text("a", delay=LONG), way="socket") as (server, vllm):
        with pytest.raises(TimeoutError) as caught:
            await asyncio.wait_for(ask(vllm, streamed), SOON)
        assert not isinstance(caught.value, TransportError)
        await gone(server)
