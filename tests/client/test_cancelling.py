"""Whoever leaves closes the socket, so that the server stops; who stays uses it again."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM, TextDelta
from vllm_agent_sdk.errors import ClientClosedError, StreamTruncatedError, UsageError
from vllm_agent_sdk.testing import Reply, Simulator

from .support import HI, WAYS, served

pytestmark = pytest.mark.feature("C-09")

ENDLESS = Reply.text("word " * 10_000, delay=0.002)
LATE = Reply.text("late", first_delay=60)


async def check_stopped(server: Simulator) -> None:
    await server.wait_for(lambda: server.running == 0)
    assert server.disconnects == 1


async def check_cancelled(server: Simulator, task: asyncio.Task[Any]) -> None:
    await server.wait_for(lambda: server.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await check_stopped(server)


@pytest.mark.parametrize("way", WAYS)
async def test_cancelling_a_whole_reply(way: str) -> None:
    async with served(LATE, way=way) as (server, vllm):
        await check_cancelled(
            server, asyncio.create_task(vllm.chat.completions.create(messages=HI))
        )


@pytest.mark.parametrize("way", WAYS)
async def test_cancelling_a_stream_that_waits_for_its_first_token(way: str) -> None:
    async with served(LATE, way=way) as (server, vllm):
        stream = vllm.chat.completions.stream(messages=HI)
        await check_cancelled(server, asyncio.create_task(stream.text()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("entered", [False, True])
async def test_cancelling_in_the_middle_of_a_stream(way: str, entered: bool) -> None:
    begun = asyncio.Event()
    stream: Any = None

    async def read(vllm: AsyncVLLM) -> None:
        nonlocal stream
        stream = vllm.chat.completions.stream(messages=HI)
        if entered:
            await stream.__aenter__()
        async for event in stream:
            if isinstance(event, TextDelta):
                begun.set()

    async with served(ENDLESS, way=way) as (server, vllm):
        task = asyncio.create_task(read(vllm))
        await begun.wait()
        await check_cancelled(server, task)
        assert stream.partial.text.startswith("word")


@pytest.mark.parametrize("way", WAYS)
async def test_breaking_out_of_the_loop(way: str) -> None:
    async with served(ENDLESS, way=way) as (server, vllm):
        async with vllm.chat.completions.stream(messages=HI) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    break
        await check_stopped(server)


@pytest.mark.parametrize("way", WAYS)
async def test_an_error_inside_the_block(way: str) -> None:
    async with served(ENDLESS, way=way) as (server, vllm):
        with pytest.raises(ZeroDivisionError):
            await fail_inside(vllm)
        await check_stopped(server)


async def fail_inside(vllm: AsyncVLLM) -> None:
    async with vllm.chat.completions.stream(messages=HI) as stream:
        async for _ in stream:
            raise ZeroDivisionError


@pytest.mark.parametrize("way", WAYS)
async def test_closing_a_stream_and_closing_it_again(way: str) -> None:
    async with served(ENDLESS, way=way) as (server, vllm):
        stream = vllm.chat.completions.stream(messages=HI)
        await anext(stream)
        await stream.aclose()
        await stream.aclose()
        await check_stopped(server)
        chunks = await vllm.chat.completions.create(messages=HI, stream=True)
        assert server.running == 1
        await chunks.aclose()
        await server.wait_for(lambda: server.running == 0)


@pytest.mark.parametrize("way", WAYS)
async def test_dropping_a_stream_is_one_warning_and_closes_its_socket(way: str) -> None:
    async with served(ENDLESS, way=way) as (server, vllm):
        stream = vllm.chat.completions.stream(messages=HI)
        await anext(stream)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            del stream
            gc.collect()
            await check_stopped(server)
            gc.collect()
        assert [each.category for each in seen] == [ResourceWarning]
        assert "use `async with`, or call aclose()" in str(seen[0].message)


@pytest.mark.parametrize("way", WAYS)
async def test_dropping_chunks_or_text_deltas_is_one_warning_too(way: str) -> None:
    async with served(ENDLESS, way=way) as (server, vllm):
        for _ in range(2):
            deltas = vllm.chat.completions.stream(messages=HI).text_deltas()
            await anext(deltas)
            with pytest.warns(ResourceWarning, match="dropped before its end"):
                del deltas
            chunks = await vllm.chat.completions.create(messages=HI, stream=True)
            with pytest.warns(ResourceWarning, match="dropped before its end"):
                del chunks
        gc.collect()
        await server.wait_for(lambda: server.running == 0)
        assert server.disconnects == 4


async def test_a_stream_that_has_ended_can_be_dropped_without_a_word() -> None:
    async with served(Reply.text("a"), way="socket") as (server, vllm):
        stream = vllm.chat.completions.stream(messages=HI)
        async for _ in stream:
            continue
        never = vllm.chat.completions.stream(messages=HI)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del stream, never
            gc.collect()
        assert server.disconnects == 0


async def test_closing_the_client_ends_what_it_reads() -> None:
    async with served(ENDLESS, way="socket") as (server, vllm):
        async with vllm.chat.completions.stream(messages=HI) as stream:
            await anext(stream)
            await vllm.aclose()
            with pytest.raises(StreamTruncatedError, match="connection was lost") as caught:
                await stream.final()
            assert caught.value.partial is not None
        await check_stopped(server)
        with pytest.raises(ClientClosedError):
            await vllm.chat.completions.create(messages=HI)


@pytest.mark.parametrize("way", WAYS)
async def test_two_tasks_cannot_read_one_stream_and_the_first_goes_on(way: str) -> None:
    async with served(Reply.text("a b", first_delay=0.05), way=way) as (_, vllm):
        stream = vllm.chat.completions.stream(messages=HI)
        first = asyncio.create_task(stream.text())
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="Two tasks"):
            await anext(stream)
        assert await first == "a b"


async def test_cancelling_after_the_end_leaves_no_connection_behind() -> None:
    # The reply is whole, and its connection is not: what follows is waited for a moment.
    async with served(Reply.text("a", delay=0.02), way="socket") as (server, vllm):
        stream = vllm.chat.completions.stream(messages=HI)
        async for event in stream:
            if type(event).__name__ == "Finished":
                break
        task = asyncio.create_task(stream.aclose())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert stream._stream is None
        await server.wait_for(lambda: server.running == 0)


# ── connections are used again ───────────────────────────────────────────────────────────────────


async def connections(*kinds: str) -> int:
    """How many connections these calls need, one after the other."""
    opened = 0
    async with Simulator(Reply.text("a b")) as server:
        connect = server._http._connect

        def counting() -> Any:
            nonlocal opened
            opened += 1
            return connect()

        server._http._connect = counting  # type: ignore[method-assign]
        await server._http.stop()
        server._port = await server._http.start()
        async with AsyncVLLM(server.base_url, model="sim-model") as vllm:
            for kind in kinds:
                await CALLS[kind](vllm)
    return opened


async def broken_off(vllm: AsyncVLLM) -> None:
    async with vllm.chat.completions.stream(messages=HI) as stream:
        await anext(stream)


async def by_chunks(vllm: AsyncVLLM) -> None:
    async for _ in await vllm.chat.completions.create(messages=HI, stream=True):
        continue


CALLS: dict[str, Any] = {
    "create": lambda vllm: vllm.chat.completions.create(messages=HI),
    "text": lambda vllm: vllm.chat.completions.stream(messages=HI).text(),
    "chunks": by_chunks,
    "broken off": broken_off,
    "models": lambda vllm: vllm.models.list(),
}


@pytest.mark.parametrize(
    ("kinds", "opened"),
    [
        (["create", "text", "chunks", "text", "models", "create"], 1),
        (["text", "broken off", "text", "text"], 2),
    ],
)
async def test_a_finished_reply_leaves_its_connection_for_the_next(
    kinds: list[str], opened: int
) -> None:
    assert await connections(*kinds) == opened
