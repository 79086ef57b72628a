"""A pool of two real servers: who takes a call, and what happens when one goes and comes back.

Each stands behind a door, which can be shut and opened: a server that dies and returns without an
engine that is started twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from vllm_agent_sdk import AsyncVLLM, Breaker, HTTPOptions, RetryPolicy, StreamTruncatedError
from vllm_agent_sdk.telemetry import recorder as facts

from .servers import LiveServer

pytestmark = [pytest.mark.live, pytest.mark.server("A", "B"), pytest.mark.feature("C-08")]

MESSAGES: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi."},
]
ENDLESS: Any = {"max_tokens": 400, "ignore_eos": True}
SOON = Breaker(reset_s=0.2)


class Door:
    """A TCP proxy in front of a server. Shut, it resets what is under way and takes nothing new.

    Attributes:
        base_url: Its address, with `/v1`; the same when it is opened again.
        asked: The requests for completions that went through.
        came: Set by each of them.
    """

    def __init__(self, base_url: str) -> None:
        self._behind = urlsplit(base_url)
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._port = 0
        self.asked = 0
        self.came = asyncio.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def open(self) -> None:
        self._listener = await asyncio.start_server(self._enter, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError):
            there = await asyncio.open_connection(self._behind.hostname, self._behind.port)
            ways = [
                asyncio.create_task(self._carry(reader, there[1], count=True)),
                asyncio.create_task(self._carry(there[0], writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                there[1].transport.abort()
                writer.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool = False
    ) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
            if count and (more := data.count(b"POST /v1/chat/completions ")):
                self.asked += more
                self.came.set()


class Facts:
    """Keeps what a client tells."""

    def __init__(self) -> None:
        self.all: list[facts.ServerFact] = []

    def record(self, fact: facts.ServerFact) -> None:
        self.all.append(fact)

    def of(self, kind: type[Any]) -> list[Any]:
        return [fact for fact in self.all if isinstance(fact, kind)]


@contextlib.asynccontextmanager
async def pool(
    live: dict[str, LiveServer], told: Facts | None = None, **http: Any
) -> AsyncIterator[tuple[AsyncVLLM, Door, Door]]:
    """A client of both servers, each behind its door."""
    first, second = Door(live["A"].base_url), Door(live["B"].base_url)
    await first.open()
    await second.open()
    client = AsyncVLLM(
        [first.base_url, second.base_url],
        api_key=live["B"].api_key,  # A takes any
        model=live["A"].model,
        retry=RetryPolicy(base_s=0.01),
        http=HTTPOptions(**http),
        telemetry=told,
    )
    try:
        async with client as vllm:
            yield vllm, first, second
    finally:
        await first.shut()
        await second.shut()


async def ask(vllm: AsyncVLLM, **params: Any) -> Any:
    given = {"max_tokens": 2, "temperature": 0, **params}
    return await vllm.chat.completions.create(messages=MESSAGES, **given)


async def test_each_server_has_its_turn(live_servers: dict[str, LiveServer]) -> None:
    async with pool(live_servers, balance="round_robin") as (vllm, first, second):
        for _ in range(4):
            assert (await ask(vllm)).usage.completion_tokens
    assert (first.asked, second.asked) == (2, 2)


async def test_the_least_busy_server_takes_the_call(live_servers: dict[str, LiveServer]) -> None:
    async with pool(live_servers) as (vllm, first, second):
        async with vllm.chat.completions.stream(messages=MESSAGES, **ENDLESS) as held:
            await anext(held)
            for _ in range(3):
                await ask(vllm)
            assert sorted([first.asked, second.asked]) == [1, 3]


async def test_a_call_under_way_goes_on_elsewhere_when_its_server_dies(
    live_servers: dict[str, LiveServer],
) -> None:
    told = Facts()
    async with pool(live_servers, told) as (vllm, first, second):
        came = first.came = second.came = asyncio.Event()
        call = asyncio.create_task(ask(vllm, **{**ENDLESS, "max_tokens": 60}))
        await came.wait()
        taken, other = (first, second) if first.asked else (second, first)
        await taken.shut()
        reply = await call
    assert reply.usage.completion_tokens == 60
    assert (taken.asked, other.asked) == (1, 1)
    assert [fact.server for fact in told.of(facts.RequestRetried)] == [taken.base_url]


async def test_a_stream_that_has_begun_is_cut_and_never_sent_again(
    live_servers: dict[str, LiveServer],
) -> None:
    async with pool(live_servers) as (vllm, first, second):
        async with vllm.chat.completions.stream(messages=MESSAGES, **ENDLESS) as stream:
            await anext(stream)
            await (first if first.asked else second).shut()
            with pytest.raises(StreamTruncatedError) as caught:
                await stream.final()
    assert caught.value.partial.text
    assert first.asked + second.asked == 1


async def test_a_server_that_died_is_left_alone_and_comes_back_by_its_health(
    live_servers: dict[str, LiveServer],
) -> None:
    told = Facts()
    options: Any = {"balance": "round_robin", "breaker": SOON}
    async with pool(live_servers, told, **options) as (vllm, first, second):
        await ask(vllm)
        await ask(vllm)
        await second.shut()
        for _ in range(4):
            await ask(vllm)
        assert (first.asked, second.asked) == (5, 1)
        assert [fact.server for fact in told.of(facts.ServerEjected)] == [second.base_url]

        await second.open()
        async with asyncio.timeout(20):
            while second.asked == 1:
                await ask(vllm, max_tokens=1)
        assert [fact.server for fact in told.of(facts.ServerReturned)] == [second.base_url]
        before = first.asked, second.asked
        await ask(vllm)
        await ask(vllm)
        assert (first.asked - before[0], second.asked - before[1]) == (1, 1)
