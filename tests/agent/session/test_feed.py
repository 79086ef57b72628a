"""Readers of a session's events: each its own, from where it wants, to the end it wants."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk import (
    Agent,
    MessageAdded,
    Notice,
    ReasoningDelta,
    RunEnded,
    RunStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallReady,
    UsageError,
)
from vllm_agent_sdk.agent.run.event_queue import QUEUE_SIZE
from vllm_agent_sdk.agent.session.feed import Feeds
from vllm_agent_sdk.sessions import MemoryStore
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.types.messages import ToolCall


async def rest(feed: Any) -> list[Any]:
    return [event async for event in feed]


def stored(events: list[Any]) -> list[int]:
    return [event.seq for event in events if event.seq is not None]


@pytest.mark.feature("A-16")
async def test_readers_do_not_take_events_from_each_other(client: Any) -> None:
    async with Simulator(Reply.text("one two three")) as server:
        async with Agent(client=client(server)).session() as session:
            feeds = [session.events() for _ in range(3)]
            run = await session.send("go")
            seen = await asyncio.gather(*(rest(feed) for feed in feeds), rest(run))
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert isinstance(seen[0][0], RunStarted)
    assert isinstance(seen[0][-1], RunEnded)


@pytest.mark.feature("A-16")
@pytest.mark.parametrize("after", [0, 1, 4, 6, 7, 99])
async def test_a_reader_begins_after_the_number_it_names(client: Any, after: int) -> None:
    async with Simulator(Reply.text("one"), Reply.text("two")) as server:
        async with Agent(client=client(server)).session() as session:
            await session.run("a")
            feed = session.events(after=after, until="close")
            await session.run("b")
        events = await rest(feed)
    last = 12
    assert stored(events) == list(range(after + 1, last + 1))


@pytest.mark.feature("A-16")
async def test_a_reader_that_begins_in_the_middle_gets_each_event_once_and_in_order(
    client: Any,
) -> None:
    async with Simulator(Reply.text("a b c d e f")) as server:
        async with Agent(client=client(server)).session() as session:
            feed = None
            async for event in await session.send("go"):
                if isinstance(event, TextDelta) and feed is None:
                    feed = session.events(after=0)
            assert feed is not None
            events = await rest(feed)
    kinds = [type(event).__name__ for event in events]
    assert stored(events) == list(range(1, 7))
    # The pieces that came while it read stand before the reply that they make up.
    assert kinds.index("TextDelta") < kinds.index("ModelEnded")
    assert kinds.index("ModelStarted") < kinds.index("TextDelta")


@pytest.mark.feature("A-16")
async def test_what_is_kept_but_not_shown_yet_comes_once(client: Any) -> None:
    """A store may have an event for good some time before it says so."""
    kept, go_on = asyncio.Event(), asyncio.Event()

    class Late(MemoryStore):
        async def open(self, session_id: str, *, create: bool = True) -> Any:
            log = await super().open(session_id, create=create)
            keep = log.append

            async def append(*events: Any) -> None:
                await keep(*events)
                if any(isinstance(event, RunEnded) for event in events):
                    kept.set()
                    await go_on.wait()

            log.append = append  # type: ignore[method-assign]
            return log

    async with Simulator(Reply.text("ok")) as server:
        async with Agent(client=client(server)).session(store=Late()) as session:
            run = await session.send("go")
            await kept.wait()
            feed = session.events(after=0)
            first = await anext(feed)
            go_on.set()
            events = [first, *await rest(feed)]
            await run
    assert stored(events) == list(range(1, 7))


@pytest.mark.feature("A-16")
async def test_the_end_is_saved_before_it_is_seen(client: Any) -> None:
    store = MemoryStore()
    async with Simulator(Reply.text("ok")) as server:
        async with Agent(client=client(server)).session("s", store=store) as session:
            feed = session.events()
            await session.send("go")
            async for event in feed:
                if not isinstance(event, RunEnded):
                    continue
                # What another reader finds in the log, without waiting for anything.
                log = await rest(session.events(after=0))
                assert log[-1] == event
                assert [message.text for message in session.messages] == ["go", "ok"]
                return
    raise AssertionError("the end was not seen")


@pytest.mark.feature("A-16")
async def test_until_run_end_ends_with_the_run_and_until_close_with_the_session(
    client: Any,
) -> None:
    async with Simulator(Reply.text("one"), Reply.text("two")) as server:
        async with Agent(client=client(server)).session() as session:
            short, long = session.events(), session.events(until="close")
            await session.run("a")
            await session.run("b")
            assert stored(await rest(short)) == list(range(1, 7))
            with pytest.raises(UsageError, match="'run_end' or 'close'"):
                session.events(until="whenever")  # type: ignore[arg-type]
        assert stored(await rest(long)) == list(range(1, 13))
        with pytest.raises(UsageError, match="not open"):
            session.events()


@pytest.mark.feature("A-16")
async def test_a_reader_that_is_gone_is_forgotten_and_the_run_goes_on(client: Any) -> None:
    async with Simulator(Reply.text("one two")) as server:
        async with Agent(client=client(server)).session() as session:
            feed = session.events(until="close")
            gone = weakref.ref(feed)
            run = await session.send("go")
            async for _ in feed:
                break
            del feed
            gc.collect()
            assert gone() is None
            assert (await run).text == "one two"


@pytest.mark.feature("A-16")
async def test_a_reader_that_is_closed_ends_for_who_waits(client: Any) -> None:
    async with Simulator(Reply.text("ok")) as server:
        async with Agent(client=client(server)).session() as session:
            feed = session.events(until="close")
            reading = asyncio.create_task(rest(feed))
            await asyncio.sleep(0)
            await feed.aclose()
            await feed.aclose()
            assert await reading == []
            assert (await session.run("go")).text == "ok"


class Empty:
    """A log without events."""

    async def read(self, after: int = 0) -> list[Any]:
        return []

    async def append(self, *events: Any) -> None: ...

    async def snapshot(self) -> None: ...

    async def keep_snapshot(self, snapshot: Any) -> None: ...

    async def aclose(self) -> None: ...


_deltas = st.builds(TextDelta, text=st.text(min_size=1, max_size=3)) | st.builds(
    ReasoningDelta, text=st.text(min_size=1, max_size=3)
)
_pieces = st.builds(ToolCallDelta, index=st.integers(0, 1), arguments=st.text(max_size=3))
_whole = st.builds(ToolCallReady, call=st.just(ToolCall("c", "work", {})))


def _written(events: list[Any]) -> list[Any]:
    """Runs of deltas of one kind as one, everything else as it is."""
    said: list[Any] = []
    for event in events:
        match event:
            case TextDelta(text=text) | ReasoningDelta(text=text):
                key, more = (type(event).__name__, 0), text
            case ToolCallDelta(index=index, arguments=more):
                key = ("ToolCallDelta", index)
            case _:
                said.append(event)
                continue
        if said and isinstance(said[-1], tuple) and said[-1][0] == key:
            said[-1] = (key, said[-1][1] + more)
        else:
            said.append((key, more))
    return said


@pytest.mark.feature("A-16", "S-08")
@given(st.lists(_deltas | _pieces | _whole, max_size=40), st.integers(0, 20))
def test_a_slow_reader_gets_all_text_in_order(said: list[Any], ahead: int) -> None:
    async def check() -> None:
        feeds = Feeds()
        feed = feeds.open(Empty(), None, "close")
        filler = [Notice(code="x", text=str(n), seq=n + 1) for n in range(QUEUE_SIZE - ahead)]
        for event in (*filler, *said):
            feeds.put(event)
        feeds.close()
        events = await rest(feed)
        assert events[: len(filler)] == filler
        assert _written(events[len(filler) :]) == _written(said)

    asyncio.run(check())


async def test_a_batch_is_all_that_is_there_and_none_at_the_end() -> None:
    feeds = Feeds()
    feed = feeds.open(Empty(), None, "close")
    for number in range(1, 4):
        feeds.put(Notice(code="x", text="", seq=number))
    assert stored(await feed.batch()) == [1, 2, 3]
    waiting = asyncio.create_task(feed.batch())
    await asyncio.sleep(0)
    feeds.put(Notice(code="x", text="", seq=4))
    assert stored(await waiting) == [4]
    feeds.close()
    assert await feed.batch() == []


async def test_a_session_that_is_opened_again_numbers_on_and_replays_all(client: Any) -> None:
    store = MemoryStore()
    async with Simulator(Reply.text("ok")) as server:
        agent = Agent(client=client(server))
        async with agent.session("s", store=store) as session:
            await session.run("a")
        async with agent.session("s", store=store) as session:
            feed = session.events(after=2, until="close")
            await session.run("b")
        events = await rest(feed)
    assert stored(events) == list(range(3, 13))
    assert [e.message.text for e in events if isinstance(e, MessageAdded)] == ["b"]
