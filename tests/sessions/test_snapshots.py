"""Sessions that are opened from a snapshot: over every store, as if all of the log was read."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmarks.appends import session_log

from vllm_agent_sdk import Allow, Checkpoints, Context, Permissions, StoreError, tool
from vllm_agent_sdk._core.run import snapshot as snapshots
from vllm_agent_sdk._core.run.state import State
from vllm_agent_sdk.agent.session import replay
from vllm_agent_sdk.sessions import (
    SessionLog,
    SessionStore,
    Snapshot,
    SQLiteStore,
    fork_session,
    get_session_messages,
)
from vllm_agent_sdk.sessions.functions import folded
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.types.events import RunEnded, StoredEvent


class WatchedLog:
    """A log that tells what was read of it, and fails or waits where a test wants it to."""

    def __init__(self, log: SessionLog, store: Watched) -> None:
        self._log = log
        self._store = store

    async def append(self, *events: StoredEvent) -> None:
        await self._log.append(*events)

    async def read(self, after: int = 0) -> Sequence[StoredEvent]:
        events = await self._log.read(after)
        self._store.reads.append([event.seq or 0 for event in events])
        return events

    async def snapshot(self) -> Snapshot | None:
        if self._store.unreadable:
            raise StoreError("the page is damaged")
        return self._store.given or await self._log.snapshot()

    async def keep_snapshot(self, snapshot: Snapshot) -> None:
        self._store.keeping.set()
        await self._store.let.wait()
        if self._store.full:
            raise StoreError("the disk is full")
        await self._log.keep_snapshot(snapshot)
        self._store.kept.append(snapshot.seq)

    async def aclose(self) -> None:
        await self._log.aclose()


class Watched:
    """A store whose logs are watched."""

    def __init__(self, store: SessionStore) -> None:
        self._inner = store
        self.reads: list[list[int]] = []
        self.kept: list[int] = []
        self.keeping, self.let = asyncio.Event(), asyncio.Event()
        self.let.set()
        self.full = self.unreadable = False
        self.given: Snapshot | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def open(self, session_id: str, *, create: bool = True) -> SessionLog:
        return WatchedLog(await self._inner.open(session_id, create=create), self)


@pytest.fixture
def watched(store: SessionStore) -> Any:
    return Watched(store)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot is kept after every run, and at every closing."""
    monkeypatch.setattr(replay, "EVENTS", 1)
    monkeypatch.setattr(replay, "BYTES", 1 << 30)


async def state_of(store: SessionStore, session_id: str = "s") -> State:
    """What the whole log comes to."""
    return folded(await store.read(session_id))


async def kept_by(store: Any, session_id: str = "s") -> Snapshot:
    log = await store.open(session_id)
    found = await log.snapshot()
    await log.aclose()
    assert found is not None
    return found


# ── long sessions ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("D-02")
async def test_a_long_session_is_opened_by_its_last_events_only(watched: Any, agent: Any) -> None:
    one = await agent(Reply.text("The last answer."))
    log = await watched.open("s")
    await log.append(*session_log(1001))
    await log.aclose()
    events = (await watched.stat("s")).events
    async with one.session("s", store=watched):
        assert [len(read) for read in watched.reads] == [events], "there is no snapshot yet"
    assert watched.kept == [events], "closing it kept one"
    async with one.session("s", store=watched) as session:
        result = await session.run("And now?")
    watched.reads.clear()
    async with one.session("s", store=watched) as session:
        assert watched.reads == [list(range(events, (await watched.stat("s")).events + 1))]
        assert session._state == await state_of(watched)
        assert session.messages == result.messages
        assert session.messages == await get_session_messages(watched, "s")
        everything = [event async for event in session.events(after=0, until="run_end")]
        assert everything[0].seq == 1
    assert watched.kept == [events], "another one is due a thousand events later"


@pytest.mark.feature("D-02")
@pytest.mark.usefixtures("always")
async def test_all_events_are_given_from_the_first_on(watched: Any, agent: Any) -> None:
    one = await agent(Reply.text("a"), Reply.text("b"), Reply.text("c"))
    async with one.session("s", store=watched) as session:
        for prompt in ("1", "2", "3"):
            await session.run(prompt)
    async with one.session("s", store=watched) as session:
        feed = session.events(after=0, until="close")
        last = (await watched.stat("s")).events
        events = [await anext(feed) for _ in range(last)]
    assert [event.seq for event in events] == list(range(1, last + 1))
    ends = [event for event in events if isinstance(event, RunEnded)]
    assert [len(end.result.messages) for end in ends] == [2, 4, 6]


@pytest.mark.feature("D-02")
@pytest.mark.usefixtures("always")
async def test_results_of_later_events_need_no_earlier_ones(watched: Any, agent: Any) -> None:
    one = await agent(Reply.text("a"), Reply.text("b"))
    async with one.session("s", store=watched) as session:
        await session.run("1")
    first = (await watched.stat("s")).events
    assert (await kept_by(watched)).seq == first
    async with one.session("s", store=watched) as session:
        watched.full = True  # no newer one
        await session.run("2")
    async with one.session("s", store=watched) as session:
        watched.reads.clear()
        events = [event async for event in session.events(after=first)]
    assert isinstance(events[-1], RunEnded)
    assert [message.text for message in events[-1].result.messages] == ["1", "a", "2", "b"]
    assert min(min(read) for read in watched.reads) >= first


# ── whatever a session stands at ─────────────────────────────────────────────────────────────────


@pytest.mark.feature("D-02", "H-04", "A-20")
@pytest.mark.usefixtures("always")
async def test_approvals_and_queued_prompts_are_in_a_snapshot(watched: Any, agent: Any) -> None:
    @tool(destructive=True)
    async def wipe(path: str) -> str:
        """Wipe."""
        return f"{path} wiped"

    replies = (Reply.calls(("wipe", {"path": "/x"})), Reply.text("done"), Reply.text("next"))
    one = await agent(*replies, tools=[wipe], permissions=Permissions(unanswered="suspend"))
    async with one.session("s", store=watched) as session:
        assert (await session.run("wipe it")).stop_reason == "suspended"
        await session.send("and then?")
    last = (await watched.stat("s")).events
    assert watched.kept == [last]
    watched.reads.clear()
    async with one.session("s", store=watched) as session:
        assert watched.reads == [[last]], "its own last event only, to see that it is this log's"
        assert session._state == await state_of(watched)
        (pending,) = session.pending
        assert (pending.kind, pending.call.arguments) == ("approval", {"path": "/x"})
        assert (await (await session.resolve(pending.call.id, Allow()))).text == "done"
        following = await session.resume()
        if following is not None:
            await following
        assert [message.text for message in session.messages][-2:] == ["and then?", "next"]


@pytest.mark.feature("D-02", "D-03")
@pytest.mark.usefixtures("always")
async def test_a_run_that_was_cut_is_in_a_snapshot(watched: Any, agent: Any) -> None:
    begun = asyncio.Event()

    @tool
    async def hang() -> str:
        """Hang."""
        begun.set()
        await asyncio.Event().wait()
        return "never"

    one = await agent(Reply.calls(("hang", {})), Reply.text("on"), tools=[hang])
    async with one.session("s", store=watched) as session:
        await session.send("go")
        await asyncio.wait_for(begun.wait(), 10)
    last = (await watched.stat("s")).events
    assert watched.kept == [last]
    async with one.session("s", store=watched, on_unknown="skip") as session:
        assert session._state == await state_of(watched)
        run = await session.resume()
        assert run is not None
        assert (await run).text == "on"


@pytest.mark.feature("D-02", "D-06")
@pytest.mark.usefixtures("always")
async def test_forks_rewinds_and_summaries_go_on_from_snapshots(
    watched: Any, agent: Any, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    folder = tmp_path / "kept"
    one = await agent(
        *(Reply.text(text) for text in ("a", "b", "c", "They spoke.", "d", "e")),
        checkpoints=Checkpoints(str(tmp_path / "files"), when="turn", folder=str(folder)),
        context=Context(keep_last=1),
    )

    async def same() -> None:
        """Opened from the snapshot, it is what the log says."""
        watched.reads.clear()
        async with one.session("s", store=watched) as session:
            assert watched.reads[0][0] > 1
            assert session._state == await state_of(watched)

    async with one.session("s", store=watched) as session:
        await session.run("1")
        await session.run("2")
    await same()
    async with one.session("s", store=watched) as session:
        await session.rewind(session.checkpoints()[1], files=False)
        assert [message.text for message in session.messages] == ["1", "a", "2"]
    await same()
    async with one.session("s", store=watched) as session:
        fork = await session.fork()
        await session.run("3")
        await session.compact()
    await same()
    async with fork as session:
        assert [message.text for message in session.messages] == ["1", "a", "2"]
        assert (await session.run("4")).text == "d"
        other = session.id
    assert (await kept_by(watched, other)).seq == (await watched.stat(other)).events
    async with one.session("s", store=watched) as session:
        await session.rewind(session.checkpoints()[1], files=False)
        assert [message.text for message in session.messages] == ["1", "a", "2"]
        assert (await session.run("5")).text == "e"
    await same()
    again = await fork_session(watched, "s", at=3)
    async with one.session(again, store=watched) as session:
        assert session._state == await state_of(watched, again)


# ── what is no snapshot of the session ───────────────────────────────────────────────────────────


def damaged(good: bytes, last: int) -> dict[str, Snapshot]:
    """By what is wrong with it, a snapshot of a session of so many events."""
    return {
        "a bit is another": Snapshot(last, good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]),
        "it was cut": Snapshot(last, good[:-1]),
        "it is empty": Snapshot(last, b""),
        "its format is older": Snapshot(last, b"0" + good[1:]),
        "it is of another event": Snapshot(last, snapshots.encode(State(), last - 1)),
        "it is newer than the log": Snapshot(last + 9, snapshots.encode(State(), last + 9)),
        "the next event cannot follow it": Snapshot(3, snapshots.encode(State(), 3)),
    }


@pytest.mark.feature("D-02")
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("damage", damaged(b" " * 9, 1))
async def test_a_snapshot_that_is_none_is_ignored_and_the_session_works(
    watched: Any, agent: Any, damage: str
) -> None:
    one = await agent(Reply.text("a"), Reply.text("b"), Reply.text("c"))
    async with one.session("s", store=watched) as session:
        await session.run("1")
        await session.run("2")
    state, last = await state_of(watched), (await watched.stat("s")).events
    watched.given = damaged((await kept_by(watched)).data, last)[damage]
    watched.reads.clear()
    async with one.session("s", store=watched) as session:
        assert watched.reads[-1] == list(range(1, last + 1)), "all of it was read"
        assert session._state == state
        assert (await session.run("3")).text == "c"
    watched.given = None
    watched.reads.clear()
    async with one.session("s", store=watched) as session:
        assert len(watched.reads) == 1
        assert watched.reads[0][0] > last, "a new one has taken its place"
        assert session._state == await state_of(watched)


@pytest.mark.feature("D-02")
@pytest.mark.usefixtures("always")
async def test_a_damaged_row_is_ignored_and_replaced(
    sqlite: SQLiteStore, agent: Any, tmp_path: Path
) -> None:
    one = await agent(Reply.text("a"))
    for row in ("'text'", "x'00'", "zeroblob(99)"):
        async with one.session("s", store=sqlite) as session:
            await session.run("1")
        good = await kept_by(sqlite)
        with contextlib.closing(sqlite3.connect(sqlite.path)) as connection, connection:
            connection.execute(f"UPDATE snapshots SET data = {row}, seq = seq + 500")
        async with one.session("s", store=sqlite) as session:
            assert session._state == await state_of(sqlite)
        assert (await kept_by(sqlite)).seq == good.seq, "the one that is newer than the log is gone"


@pytest.mark.usefixtures("always")
async def test_a_snapshot_that_cannot_be_read_is_told_of_and_all_of_the_log_is_read(
    watched: Any, agent: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one = await agent(Reply.text("a"), Reply.text("b"))
    async with one.session("s", store=watched) as session:
        await session.run("1")
    watched.unreadable = True
    async with one.session("s", store=watched) as session:
        assert (await session.run("2")).text == "b"
        assert session.messages == await get_session_messages(watched, "s")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("vllm_agent_sdk.sessions", "WARNING")
    assert "the page is damaged" in record.getMessage()


# ── keeping one ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("always")
async def test_one_that_cannot_be_kept_is_told_of_and_no_runs_failure(
    watched: Any, agent: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one = await agent(Reply.text("a"))
    watched.full = True
    async with one.session("s", store=watched) as session:
        assert (await session.run("1")).text == "a"
    async with one.session("s", store=watched) as session:
        assert [message.text for message in session.messages] == ["1", "a"]
    assert {record.name for record in caplog.records} == {"vllm_agent_sdk.sessions"}
    text = caplog.records[0].getMessage()
    assert "Session s has no new snapshot" in text
    assert "StoreError: the disk is full" in text


@pytest.mark.usefixtures("always")
async def test_no_run_waits_for_a_snapshot_and_closing_does(watched: Any, agent: Any) -> None:
    one = await agent(Reply.text("a"), Reply.text("b"), Reply.text("c"))
    watched.let.clear()
    async with one.session("s", store=watched) as session:
        assert (await session.run("1")).text == "a"
        await asyncio.wait_for(watched.keeping.wait(), 10)
        assert (await session.run("2")).text == "b"
        second = await session.send("3")
        assert [type(event) async for event in second][-1] is RunEnded
        assert watched.kept == []
        watched.let.set()
    assert len(watched.kept) == 2, "the first run's, and at the end the last one's"
    assert watched.kept[-1] == (await watched.stat("s")).events
