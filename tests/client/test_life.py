"""A client's life: one loop, one end, no copy."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM
from vllm_agent_sdk.client import calls as module
from vllm_agent_sdk.errors import ClientClosedError, UsageError
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.types.options import HTTPOptions

from .support import HI, WAYS, FixedTransport, served


def test_a_client_belongs_to_the_loop_of_its_first_call() -> None:
    with Simulator() as server:
        vllm = AsyncVLLM(server.base_url, model="sim-model")

        async def ask(close: bool = False) -> str:
            reply = await vllm.chat.completions.create(messages=HI)
            if close:
                await vllm.aclose()
            return reply.text

        with asyncio.Runner() as first, asyncio.Runner() as second:
            assert first.run(ask()) == "OK"
            with pytest.raises(UsageError, match="event loop of its first call"):
                second.run(ask())
            assert first.run(ask(close=True)) == "OK"
        assert len(server.requests) == 2


def test_a_client_may_be_made_outside_any_loop() -> None:
    transport = FixedTransport(b'{"choices": []}')
    vllm = AsyncVLLM("http://x", model="m", transport=transport)
    asyncio.run(vllm.chat.completions.create(messages=HI))  # type: ignore[arg-type]
    assert len(transport.requests) == 1


@pytest.mark.feature("C-14")
@pytest.mark.parametrize("way", WAYS)
async def test_a_closed_client_takes_no_calls_and_may_be_closed_again(way: str) -> None:
    async with served(way=way) as (server, vllm):
        await vllm.chat.completions.create(messages=HI)
        await vllm.aclose()
        await vllm.aclose()
        for call in (
            lambda: vllm.chat.completions.create(messages=HI),
            lambda: vllm.chat.completions.create(messages=HI, stream=True),
            lambda: vllm.chat.completions.stream(messages=HI).text(),
            vllm.models.list,
            lambda: vllm.tokenize("a"),
            vllm.server.wait_until_ready,
        ):
            with pytest.raises(ClientClosedError, match="closed"):
                await call()
        assert len(server.requests) == 1


async def test_a_client_that_was_never_used_closes() -> None:
    vllm = AsyncVLLM("http://127.0.0.1:1")
    await vllm.aclose()
    with pytest.raises(ClientClosedError):
        await vllm.models.list()


async def test_a_client_that_is_closed_while_its_first_call_begins_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Closing] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Closing(FixedTransport):
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    async def slowly(*_: Any) -> Any:
        begun.set()
        await go_on.wait()
        made.append(Closing())
        return made[0]

    monkeypatch.setattr(module, "_http", slowly)
    vllm = AsyncVLLM("http://x", model="m")
    call = asyncio.create_task(vllm.chat.completions.create(messages=HI))  # type: ignore[arg-type]
    await begun.wait()
    await vllm.aclose()
    go_on.set()
    with pytest.raises(ClientClosedError):
        await call
    assert made[0].closed
    assert made[0].requests == []


async def test_a_transport_that_was_given_is_not_closed() -> None:
    class Mine(FixedTransport):
        async def aclose(self) -> None:
            raise AssertionError

    async with AsyncVLLM("http://x", model="m", transport=Mine(b'{"choices": []}')) as vllm:
        assert (await vllm.chat.completions.create(messages=HI)).text == ""


async def test_many_calls_at_once_make_one_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    real = module._http

    async def counting(*args: Any) -> Any:
        nonlocal made
        made += 1
        return await real(*args)

    monkeypatch.setattr(module, "_http", counting)
    async with served(Reply.text("a", delay=0.01), way="socket") as (_, vllm):
        replies = await asyncio.gather(
            *(vllm.chat.completions.create(messages=HI) for _ in range(20))
        )
    assert [reply.text for reply in replies] == ["a"] * 20
    assert made == 1


def test_a_client_cannot_be_pickled() -> None:
    with pytest.raises(UsageError, match="cannot be pickled"):
        pickle.dumps(AsyncVLLM("http://x", api_key="k"))


@pytest.mark.feature("C-13")
async def test_an_idle_connection_goes_after_its_seconds() -> None:
    settings = {"http": HTTPOptions(keepalive_s=0.05)}
    async with served(way="socket", client=settings) as (server, vllm):
        await vllm.chat.completions.create(messages=HI)
        assert len(server._http._connections) == 1
        # aiohttp looks for idle connections once in that time.
        async with asyncio.timeout(5):
            while server._http._connections:  # noqa: ASYNC110 - the server does not tell
                await asyncio.sleep(0.02)
        assert (await vllm.chat.completions.create(messages=HI)).text == "OK"
