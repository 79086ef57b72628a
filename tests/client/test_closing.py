"""Closing: nothing new begins, what runs gets its time, and then it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM, RetryPolicy
from vllm_agent_sdk.errors import ClientClosedError, StreamTruncatedError, UsageError
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.types.options import HTTPOptions

from .support import HI, WAYS, served

pytestmark = pytest.mark.feature("C-14")

EXAMPLE = Path(__file__).parents[2] / "examples" / "sigterm.py"
ENDLESS = Reply.text("a " * 1000, delay=0.05)
LATE = Reply.text("late", first_delay=60)


async def seconds(awaitable: Any) -> float:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await awaitable
    return loop.time() - begun


@pytest.mark.parametrize("way", WAYS)
async def test_calls_and_streams_under_way_end_by_themselves_in_the_time_given(way: str) -> None:
    async with served(Reply.text("a b c", delay=0.05), way=way) as (server, vllm):
        stream = vllm.chat.completions.stream(messages=HI)
        await anext(stream)
        call = asyncio.create_task(vllm.chat.completions.create(messages=HI))
        text = asyncio.create_task(stream.text())
        await server.wait_for(lambda: len(server.chats) == 2)
        closing = asyncio.create_task(vllm.aclose(drain=30))
        await asyncio.sleep(0)
        with pytest.raises(ClientClosedError):
            await vllm.chat.completions.create(messages=HI)
        assert await seconds(closing) < 10  # not longer than is needed
        assert (await call).text == "a b c"
        assert await text == "a b c"
        assert (len(server.chats), server.disconnects) == (2, 0)


@pytest.mark.parametrize("way", WAYS)
async def test_what_does_not_end_in_the_time_is_ended(way: str) -> None:
    async with served(ENDLESS, LATE, way=way) as (server, vllm):
        stream = vllm.chat.completions.stream(messages=HI)
        await anext(stream)
        text = asyncio.create_task(stream.text())
        call = asyncio.create_task(vllm.chat.completions.create(messages=HI, request_id="mine"))
        await server.wait_for(lambda: len(server.chats) == 2)
        assert 0.2 <= await seconds(vllm.aclose(drain=0.2)) < 5
        with pytest.raises(ClientClosedError, match="closed while the call ran") as ended:
            await call
        assert ended.value.request_id == "mine"
        with pytest.raises(StreamTruncatedError, match="client was closed") as cut:
            await text
        assert cut.value.partial.text.startswith("a ")
        await server.wait_for(lambda: server.disconnects == 2)


async def test_without_a_time_all_ends_at_once_waits_between_attempts_too() -> None:
    policy = RetryPolicy(retry_after_cap_s=60)
    busy = Reply.error(503, headers={"retry-after": "60"})
    settings: dict[str, Any] = {"retry": policy, "http": HTTPOptions(max_concurrency=1)}
    async with served(busy, client=settings, way="socket") as (server, vllm):
        calls = [
            asyncio.create_task(vllm.chat.completions.create(messages=HI)),
            asyncio.create_task(vllm.chat.completions.stream(messages=HI).text()),
        ]
        await server.wait_for(lambda: len(server.chats) == 2 and server.running == 0)
        assert await seconds(vllm.aclose()) < 5
        for call in calls:
            with pytest.raises(ClientClosedError):
                await call
        assert len(server.chats) == 2


async def test_closing_again_with_a_shorter_time_cuts_the_wait_short() -> None:
    async with served(LATE, way="socket") as (server, vllm):
        call = asyncio.create_task(vllm.chat.completions.create(messages=HI))
        await server.wait_for(lambda: len(server.chats) == 1)
        first = asyncio.create_task(vllm.aclose(drain=60))
        await asyncio.sleep(0)
        await vllm.aclose()
        await asyncio.wait_for(first, 5)
        await vllm.aclose(drain=60)
        with pytest.raises(ClientClosedError):
            await call


async def test_a_close_that_is_cancelled_closes_all_the_same() -> None:
    async with served(LATE, way="socket") as (server, vllm):
        call = asyncio.create_task(vllm.chat.completions.create(messages=HI))
        await server.wait_for(lambda: len(server.chats) == 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(vllm.aclose(drain=60), 0.05)
        with pytest.raises(ClientClosedError):
            await call
        await server.wait_for(lambda: server.disconnects == 1)


async def test_a_total_time_that_ends_while_closing_is_still_that() -> None:
    async with served(LATE, way="socket") as (server, vllm):
        call = asyncio.create_task(vllm.chat.completions.create(messages=HI, timeout=0.2))
        await server.wait_for(lambda: len(server.chats) == 1)
        assert await seconds(vllm.aclose(drain=30)) < 10
        with pytest.raises(TimeoutError):
            await call


@pytest.mark.parametrize("drain", [-1, float("nan")])
async def test_a_time_that_is_none_is_refused(drain: float) -> None:
    async with AsyncVLLM("http://x", model="m") as vllm:
        with pytest.raises(UsageError, match="drain="):
            await vllm.aclose(drain=drain)


def test_the_example_finishes_its_calls_at_sigterm() -> None:
    with Simulator(Reply.text("whole", first_delay=1.0)) as server:
        child = subprocess.Popen(
            [sys.executable, str(EXAMPLE)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "VLLM_BASE_URL": server.base_url, "VLLM_MODEL": "sim-model"},
            text=True,
        )
        with child:
            server.wait_for_sync(lambda: len(server.chats) == 2, timeout=30)
            child.send_signal(signal.SIGTERM)
            said, errors = child.communicate(timeout=30)
        assert (child.returncode, errors) == (0, "")
        assert sorted(said.splitlines()) == ["1 has ended", "1: whole", "2 has ended", "2: whole"]
        assert (len(server.chats), server.disconnects) == (2, 0)


async def test_a_first_call_that_is_cancelled_does_not_take_the_others_with_it() -> None:
    async with served(Reply.text("Hi"), Reply.text("Hi"), way="socket") as (server, vllm):
        first, *others = (
            asyncio.create_task(vllm.chat.completions.create(messages=HI)) for _ in range(3)
        )
        await asyncio.sleep(0)  # it has begun to open the client, and the others wait for that
        first.cancel()
        assert [(await call).text for call in others] == ["Hi", "Hi"]
        assert first.cancelled()
        assert len(server.chats) == 2


async def test_a_client_that_is_closed_while_it_opens_refuses_all_its_calls() -> None:
    async with served(way="socket") as (server, vllm):
        calls = [asyncio.create_task(vllm.chat.completions.create(messages=HI)) for _ in range(3)]
        await asyncio.sleep(0)
        await vllm.aclose()
        for call in calls:
            with pytest.raises(ClientClosedError, match="closed while a call began"):
                await call
        assert server.chats == []
