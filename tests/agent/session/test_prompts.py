"""Prompts from an async iterator: each its own run, one read ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    Prompt,
    RunEnded,
    RunStarted,
    TextBlock,
    TextDelta,
    UsageError,
    UserMessage,
)
from vllm_agent_sdk.testing import Reply, Simulator

from .waiting import Gate, order


class Source:
    """Prompts that say when they are read, and what became of their iterator."""

    def __init__(self, *prompts: Prompt | BaseException) -> None:
        self.prompts = prompts
        self.read: list[Any] = []
        self.closed = False
        self.news = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[Prompt]:
        try:
            for prompt in self.prompts:
                self.read.append(prompt)
                self.news.set()
                if isinstance(prompt, BaseException):
                    raise prompt
                yield prompt
        finally:
            self.closed = True


class Endless(Source):
    """One prompt, and then a wait for another that never comes."""

    async def __aiter__(self) -> AsyncIterator[Prompt]:
        try:
            yield "first"
            self.news.set()
            await asyncio.Event().wait()
        finally:
            self.closed = True


def sent(server: Simulator) -> list[Any]:
    return [[m["content"] for m in chat.json["messages"]] for chat in server.chats]


THREE = (Reply.text("1"), Reply.text("2"), Reply.text("3"))


@pytest.mark.feature("A-01")
async def test_each_prompt_is_its_own_run_and_the_conversation_goes_on(client: Any) -> None:
    source = Source("a", ["b", TextBlock("c")], UserMessage("d"))
    async with Simulator(*THREE) as server:
        agent = Agent(client=client(server))
        async with agent.stream(source) as run:
            events = [event async for event in run]
    results = [event.result for event in events if isinstance(event, RunEnded)]
    assert [result.text for result in results] == ["1", "2", "3"]
    assert len({result.run_id for result in results}) == 3
    assert sum(isinstance(event, RunStarted) for event in events) == 3
    assert run.result == results[-1]
    assert sent(server)[2][:2] == ["a", "1"]
    assert sent(server)[2][-2:] == ["2", "d"]
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "123"
    assert source.closed


@pytest.mark.feature("A-01")
async def test_the_history_stands_before_the_first_prompt(client: Any) -> None:
    async with Simulator(*THREE) as server:
        agent = Agent(client=client(server))
        before = await agent.run("old")
        result = await agent.run(Source("a", "b"), history=before.messages)
    assert result.text == "3"
    assert sent(server)[-1] == ["old", "1", "a", "2", "b"]


@pytest.mark.feature("A-01")
async def test_one_prompt_is_read_ahead_and_no_more(client: Any) -> None:
    gate = Gate()
    source = Source("a", "b", "c")
    replies = (Reply.calls(("work", {})), Reply.text("1"), Reply.text("2"), Reply.text("3"))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server), tools=[gate.tool]).stream(source) as run:
            await gate.begun.wait()
            while len(source.read) < 2:
                source.news.clear()
                await source.news.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            assert source.read == ["a", "b"]
            gate.go_on.set()
            assert (await run).text == "3"
    assert source.read == ["a", "b", "c"]


@pytest.mark.feature("A-01")
async def test_what_the_iterator_raises_is_raised_when_the_active_run_has_ended(
    client: Any,
) -> None:
    async with Simulator(Reply.text("1")) as server:
        async with Agent(client=client(server)).stream(Source("a", LookupError("gone"))) as run:
            ends = await anext(event async for event in run if isinstance(event, RunEnded))
            with pytest.raises(LookupError, match="gone"):
                await anext(run)
            with pytest.raises(LookupError, match="gone"):
                await run
    assert ends.result.text == "1"


@pytest.mark.feature("A-01")
async def test_an_iterator_that_raises_at_once_asks_nothing(client: Any) -> None:
    async with Simulator() as server:
        with pytest.raises(LookupError, match="gone"):
            await Agent(client=client(server)).run(Source(LookupError("gone")))
        assert server.chats == []


@pytest.mark.feature("A-01")
async def test_an_iterator_without_prompts_is_the_callers_mistake(client: Any) -> None:
    async with Simulator() as server:
        with pytest.raises(UsageError, match="ended before its first prompt"):
            await Agent(client=client(server)).run(Source())
        assert server.chats == []


@pytest.mark.feature("A-01")
async def test_what_cannot_be_a_prompt_is_told_when_it_comes(client: Any) -> None:
    source = Source("a", 3)  # type: ignore[arg-type]
    async with Simulator(Reply.text("1")) as server:
        with pytest.raises(UsageError, match="prompt"):
            await Agent(client=client(server)).run(source)
    assert len(server.chats) == 1
    assert source.closed


@pytest.mark.feature("A-01", "A-08")
async def test_an_interrupt_ends_the_active_run_and_begins_no_other(client: Any) -> None:
    gate, source = Gate(), Source("a", "b")
    async with Simulator(Reply.calls(("work", {})), Reply.text("never")) as server:
        async with Agent(client=client(server), tools=[gate.tool]).stream(source) as run:
            await gate.begun.wait()
            await run.interrupt()
            events = [event async for event in run]
    assert run.result.stop_reason == "interrupted"
    assert sum(isinstance(event, RunEnded) for event in events) == 1
    assert len(server.chats) == 1
    assert source.closed


@pytest.mark.feature("A-01", "A-08")
async def test_an_interrupt_while_a_prompt_is_awaited_gives_the_last_result(client: Any) -> None:
    source = Endless()
    async with Simulator(Reply.text("1")) as server:
        async with Agent(client=client(server)).stream(source) as run:
            async for event in run:
                if isinstance(event, RunEnded):
                    break
            await source.news.wait()
            assert run.partial.text == "1"
            await run.interrupt()
            assert (await run).text == "1"
    assert source.closed


@pytest.mark.feature("A-01", "C-09")
async def test_closing_ends_the_active_run_and_the_iterator(client: Any) -> None:
    source = Endless()
    async with Simulator(Reply.text("late", first_delay=60)) as server:
        async with Agent(client=client(server)).stream(source):
            await server.wait_for(lambda: server.running == 1)
            await source.news.wait()
        await server.wait_for(lambda: server.running == 0)
    assert source.closed


@pytest.mark.feature("A-01", "A-14")
async def test_a_run_that_is_suspended_is_the_end(client: Any) -> None:
    source = Source("tea", "never asked")
    async with Simulator(Reply.calls(("order", {"item": "tea"}))) as server:
        result = await Agent(client=client(server), tools=[order]).run(source)
    assert result.stop_reason == "suspended"
    assert [pending.kind for pending in result.pending] == ["tool_result"]
    assert len(server.chats) == 1
    assert source.closed


@pytest.mark.feature("A-01")
async def test_an_error_of_the_server_ends_one_run_and_the_next_is_begun(client: Any) -> None:
    replies = (Reply.error(400, message="bad luck"), Reply.text("better"))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server)).stream(Source("a", "b")) as run:
            ends = [e.result.stop_reason async for e in run if isinstance(e, RunEnded)]
    assert ends == ["error", "end_turn"]
    assert run.result.text == "better"


@pytest.mark.feature("A-01")
async def test_an_iterator_that_has_no_aclose_is_read_too(client: Any) -> None:
    class Plain:
        def __init__(self) -> None:
            self.left = ["b", "a"]

        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> str:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    async with Simulator(*THREE) as server:
        assert (await Agent(client=client(server)).run(Plain())).text == "2"


@pytest.mark.feature("A-01")
def test_the_blocking_twins_take_prompts_one_after_the_other() -> None:
    with Simulator(*THREE, *THREE) as server:
        agent = Agent(client=server.base_url)
        assert agent.run_sync(Source("a", "b", "c")).text == "3"
        with agent.session_sync() as session:
            assert session.run(Source("a", "b", "c")).text == "3"
            assert len(session.messages) == 6


# ── over a session ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-01")
async def test_a_session_keeps_all_runs(client: Any) -> None:
    async with Simulator(*THREE) as server:
        async with Agent(client=client(server)).session() as session:
            async with session.stream(Source("a", "b", "c")) as run:
                events = [event async for event in run]
            kept = [event.text for event in session.messages]
    assert kept == ["a", "1", "b", "2", "c", "3"]
    numbers = [event.seq for event in events if event.seq is not None]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.feature("A-01", "A-20")
async def test_prompts_wait_for_the_sessions_active_run(client: Any) -> None:
    gate = Gate()
    replies = (Reply.calls(("work", {})), *THREE)
    async with Simulator(*replies) as server:
        async with Agent(client=client(server), tools=[gate.tool]).session() as session:
            first = await session.send("x")
            await gate.begun.wait()
            reading = asyncio.create_task(session.run(Source("a", "b")))
            gate.go_on.set()
            assert (await reading).text == "3"
            assert first.result.text == "1"


@pytest.mark.feature("A-01", "A-08")
async def test_a_sessions_interrupt_hits_one_run_and_the_next_prompt_goes_on(client: Any) -> None:
    gate = Gate()
    replies = (Reply.calls(("work", {})), Reply.text("b it is"))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server), tools=[gate.tool]).session() as session:
            async with session.stream(Source("a", "b")) as run:
                await gate.begun.wait()
                await session.interrupt()
                assert (await run).text == "b it is"


@pytest.mark.feature("A-01", "A-08")
async def test_closing_prompts_over_a_session_leaves_it_to_be_taken_up(client: Any) -> None:
    gate, source = Gate(), Source("a", "b")
    replies = (Reply.calls(("work", {})), Reply.text("went on"))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server), tools=[gate.tool]).session() as session:
            async with session.stream(source):
                await gate.begun.wait()
            assert source.closed
            with pytest.raises(UsageError, match="unfinished run"):
                await session.run("c")
            await session.interrupt()
            assert (await session.run("c")).text == "went on"
