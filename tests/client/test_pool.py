"""Several servers: which one takes a call, and what happens when one fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from vllm_agent_sdk import (
    AsyncVLLM,
    Breaker,
    CircuitOpenError,
    EngineDeadError,
    HTTPOptions,
    RetryPolicy,
    ServerOverloadedError,
    Timeout,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.testing import Reply, Simulator

from .support import HI
from .test_telemetry import Facts

pytestmark = pytest.mark.feature("C-08")

FAST = RetryPolicy(base_s=0.001, cap_s=0.002)
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@contextlib.asynccontextmanager
async def pool(one: Simulator, other: Simulator, **options: Any) -> AsyncIterator[AsyncVLLM]:
    options.setdefault("retry", FAST)
    urls = [one.base_url, other.base_url]
    async with AsyncVLLM(urls, model="sim-model", **options) as vllm:
        yield vllm


async def ask(vllm: AsyncVLLM, *, stream: bool = False, **options: Any) -> str:
    if stream:
        async with vllm.chat.completions.stream(messages=HI, **options) as events:
            return await events.text()
    return (await vllm.chat.completions.create(messages=HI, **options)).text


async def test_each_server_has_its_turn() -> None:
    http = HTTPOptions(balance="round_robin")
    async with Simulator() as one, Simulator() as other, pool(one, other, http=http) as vllm:
        for _ in range(6):
            await ask(vllm)
        assert (len(one.chats), len(other.chats)) == (3, 3)


async def test_the_least_busy_server_takes_the_call() -> None:
    async with Simulator() as one, Simulator() as other, pool(one, other) as vllm:
        async with vllm.chat.completions.stream(messages=HI) as held:
            await anext(held)
            for _ in range(3):
                await ask(vllm)
            assert (len(one.chats), len(other.chats)) == (1, 3)
        await ask(vllm)
        await ask(vllm)
        assert len(one.chats) == 2  # it is free again


@pytest.mark.feature("C-05")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "failure",
    [Reply.error(503), Reply.error(500), Reply.error(500, message=DEAD), Reply.text(cut_after=-1)],
    ids=["503", "500", "dead engine", "lost"],
)
async def test_what_fails_on_one_server_is_sent_to_the_other_at_once(
    failure: Reply, stream: bool
) -> None:
    slow = RetryPolicy(base_s=100, cap_s=100)  # a wait between attempts would be seen
    async with Simulator(failure) as one, Simulator(Reply.text("ok")) as other:
        async with pool(one, other, retry=slow) as vllm:
            assert await asyncio.wait_for(ask(vllm, stream=stream), 10) == "ok"
        assert (len(one.chats), len(other.chats)) == (1, 1)


@pytest.mark.feature("C-05")
async def test_a_500_is_sent_to_one_other_server_and_not_further() -> None:
    async with Simulator(Reply.error(500)) as one, Simulator(Reply.error(500)) as other:
        async with pool(one, other) as vllm:
            with pytest.raises(VLLMError) as caught:
                await ask(vllm)
            assert caught.value.attempts == 2
        assert (len(one.chats), len(other.chats)) == (1, 1)


@pytest.mark.feature("C-05", "C-04")
async def test_a_late_first_token_is_waited_for_on_the_other_server() -> None:
    late = Reply.text("late", first_delay=60)
    timeout = Timeout(first_token=0.1)
    async with Simulator(late) as one, Simulator(Reply.text("ok")) as other:
        async with pool(one, other, timeout=timeout) as vllm:
            assert await ask(vllm, stream=True) == "ok"
        assert (len(one.chats), len(other.chats)) == (1, 1)


async def test_a_server_that_is_not_there_is_asked_once_and_then_left_alone() -> None:
    facts = Facts()
    async with Simulator() as gone:
        url = gone.base_url
    async with Simulator() as other:
        urls = [url, other.base_url]
        async with AsyncVLLM(urls, model="sim-model", retry=FAST, telemetry=facts) as vllm:
            for _ in range(4):
                await ask(vllm)
        assert len(other.chats) == 4
    assert facts.count("request_retried") == facts.count("server_ejected") == 1


async def test_an_ejected_server_comes_back_when_its_health_says_yes() -> None:
    facts = Facts()
    http = HTTPOptions(breaker=Breaker(failures=1, reset_s=0.02))
    failing = Simulator(Reply.error(503), Reply.text("back"))
    failing.healthy = False
    async with failing as one, Simulator() as other:
        async with pool(one, other, http=http, telemetry=facts) as vllm:

            async def ask_until(done: Callable[[], bool]) -> None:
                async with asyncio.timeout(10):
                    while not done():
                        await ask(vllm)

            # It is asked how it is, and says no: it gets no call.
            await ask_until(lambda: any(each.path == "/health" for each in one.requests))
            assert len(one.chats) == 1
            assert facts.count("server_ejected") == 1
            one.healthy = True
            await ask_until(lambda: len(one.chats) > 1)
    assert facts.count("server_returned") == facts.count("breaker_closed") == 1


async def test_without_any_server_the_error_says_how_long_they_are_left_alone() -> None:
    async with Simulator() as one, Simulator() as other:
        urls = [one.base_url, other.base_url]
    async with AsyncVLLM(urls, model="sim-model", retry=FAST) as vllm:
        with pytest.raises(VLLMError):
            await ask(vllm)
        with pytest.raises(CircuitOpenError, match="Each server failed") as caught:
            await ask(vllm)
        assert 0 < caught.value.retry_after <= 10


@pytest.mark.feature("C-05")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_dead_engine_is_not_asked_before_its_health_says_yes(stream: bool) -> None:
    dead = Reply.error(500, message=DEAD)
    replies = (dead, Reply.text("ok"))
    async with (
        Simulator(*replies) as server,
        AsyncVLLM(server.base_url, model="sim-model", retry=FAST) as vllm,
    ):
        server.healthy = False
        for _ in range(3):
            with pytest.raises(EngineDeadError):
                await ask(vllm, stream=stream)
        assert len(server.chats) == 1
        server.healthy = True
        assert await ask(vllm, stream=stream) == "ok"


async def test_an_overloaded_pool_is_waited_for_between_rounds() -> None:
    busy = Reply.error(503)
    async with Simulator(busy) as one, Simulator(busy) as other:
        async with pool(one, other) as vllm:
            with pytest.raises(ServerOverloadedError) as caught:
                await ask(vllm)
            assert caught.value.attempts == 3
        assert len(one.chats) + len(other.chats) == 3


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ([], "one or more"),
        (["http://a", ""], "one or more"),
        (["http://a", "http://a/v1/"], "twice"),
        (["http://a", "ftp://b"], "no http"),
    ],
)
def test_a_list_that_is_no_pool_is_refused(urls: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AsyncVLLM(urls)


def test_options_for_one_server_are_refused_for_several() -> None:
    with pytest.raises(UsageError, match="are for one server"):
        AsyncVLLM(["http://a", "http://b"], http=HTTPOptions(root_url="http://c"))
    with pytest.raises(UsageError, match="balance"):
        HTTPOptions(balance="random")  # type: ignore[arg-type]
