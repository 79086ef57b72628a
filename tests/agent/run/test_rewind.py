"""Checkpoints of a session, and the way back to them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    Checkpointed,
    CheckpointNotFoundError,
    Checkpoints,
    FileChange,
    ModelStarted,
    Notice,
    Permissions,
    Rewound,
    Session,
    StoreError,
    ToolStarted,
    UnsupportedControlError,
    UsageError,
    tool,
)
from vllm_agent_sdk.sessions import MemoryStore, SessionLog, SQLiteStore
from vllm_agent_sdk.testing import Reply, Simulator

pytestmark = pytest.mark.feature("D-05")

FREE = Permissions(mode="bypassPermissions")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(folder)
    return folder


@tool(edits_files=("path",))
def write(path: str, text: str) -> str:
    """Write a file."""
    Path(path).write_text(text)
    return "written"


@tool(read_only=True)
async def look() -> str:
    """Look around."""
    return ", ".join(sorted(os.listdir()))


def by_hand(path: Path, text: str) -> None:
    path.write_text(text)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def writes(*pairs: tuple[str, str]) -> Reply:
    return Reply.calls(*(("write", {"path": path, "text": text}) for path, text in pairs))


@pytest.fixture
async def server() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


def agent_of(client: Any, server: Simulator, root: Path, **options: Any) -> Agent[None, str]:
    checkpoints = options.pop("checkpoints", Checkpoints(str(root)))
    tools = options.pop("tools", [write, look])
    return Agent(
        client=client(server),
        tools=tools,
        turn_mode="native",
        checkpoints=checkpoints,
        permissions=FREE,
        **options,
    )


async def events_of(session: Session[str]) -> list[Any]:
    log = session._log
    assert log is not None
    return list(await log.read())


async def test_what_a_run_did_to_files_is_undone(client: Any, root: Path) -> None:
    (root / "kept.txt").write_bytes(b"\x00\xff old")
    (root / "mine.txt").write_text("mine")
    replies = (
        Reply.calls(("look", {})),
        writes(("kept.txt", "new"), ("made.txt", "by the tool")),
        Reply.text("done"),
    )
    async with (
        Simulator(*replies) as server,
        agent_of(client, server, root).session() as session,
    ):
        await session.run("write")
        by_hand(root / "users.txt", "written by hand")
        (checkpoint,) = session.checkpoints()
        assert (checkpoint.id, checkpoint.turn, checkpoint.files) == ("c1", 2, 2)
        planned = await session.rewind(checkpoint, dry_run=True)
        assert (root / "kept.txt").read_text() == "new"
        done = await session.rewind("c1")
        assert planned.files == done.files
        assert {(each.path, each.action) for each in done.files} == {
            ("kept.txt", "restore"),
            ("made.txt", "delete"),
            ("users.txt", "keep"),
        }
        assert (planned.applied, done.applied, done.undo, done.failed) == (False, True, "c2", ())
        assert contents(root) == {
            "kept.txt": b"\x00\xff old",
            "mine.txt": b"mine",
            "users.txt": b"written by hand",
        }
        # What was there before the rewind can be had back, too.
        again = await session.rewind("c2", conversation=False)
        assert {each.action for each in again.files} == {"restore", "recreate"}
        assert (root / "made.txt").read_text() == "by the tool"


@pytest.mark.feature("D-06")
async def test_the_conversation_goes_on_from_the_checkpoint(client: Any, root: Path) -> None:
    replies = (
        Reply.text("hello"),
        writes(("a", "1")),
        Reply.text("done"),
        Reply.text("I know nothing of it"),
    )
    async with (
        Simulator(*replies) as server,
        agent_of(client, server, root).session() as session,
    ):
        await session.run("hi")
        await session.run("write")
        assert len(session.messages) == 6
        plan = await session.rewind("c1")
        assert plan.messages == 3
        assert [message.text for message in session.messages] == ["hi", "hello", "write"]
        await session.run("and now?")
        sent = [m["content"] for m in server.requests[-1].json["messages"] if m["role"] == "user"]
    assert sent == ["hi", "write", "and now?"]


async def test_only_the_files_or_only_the_conversation(client: Any, root: Path) -> None:
    async with (
        Simulator(writes(("a", "1")), Reply.text("done")) as server,
        agent_of(client, server, root).session() as session,
    ):
        await session.run("write")
        before = session.messages
        plan = await session.rewind("c1", conversation=False)
        assert (plan.messages, session.messages, (root / "a").exists()) == (0, before, False)
        (root / "a").write_text("2")
        plan = await session.rewind("c1", files=False)
        assert (plan.files, plan.undo, (root / "a").read_text()) == ((), None, "2")
        assert [message.text for message in session.messages] == ["write"]
        with pytest.raises(UsageError, match="would do nothing"):
            await session.rewind("c1", files=False, conversation=False)


async def test_the_files_are_kept_before_the_first_tool_of_a_turn_that_edits(
    client: Any, root: Path
) -> None:
    replies = (
        Reply.calls(
            ("look", {}),
            ("write", {"path": "a", "text": "1"}),
            ("write", {"path": "b", "text": "1"}),
        ),
        Reply.calls(("look", {})),
        writes(("c", "1")),
        Reply.text("done"),
    )
    async with (
        Simulator(*replies) as server,
        agent_of(client, server, root).session() as session,
    ):
        await session.run("write")
        log = await events_of(session)
    kept = [event.seq for event in log if isinstance(event, Checkpointed)]
    begun = [e.seq for e in log if isinstance(e, ToolStarted) and e.call.name == "write"]
    assert len(kept) == 2
    assert kept[0] < begun[0] < begun[1] < kept[1] < begun[2]


async def test_or_before_each_turn(client: Any, root: Path) -> None:
    checkpoints = Checkpoints(str(root), when="turn")
    replies = (Reply.calls(("look", {})), Reply.text("done"))
    async with (
        Simulator(*replies) as server,
        agent_of(client, server, root, checkpoints=checkpoints).session() as session,
    ):
        await session.run("look")
        assert [(each.id, each.turn, each.messages) for each in session.checkpoints()] == [
            ("c1", 1, 1),
            ("c2", 2, 3),
        ]


async def test_a_users_file_that_a_tool_edits_is_not_deleted(client: Any, root: Path) -> None:
    replies = (
        writes(("a", "1")),
        Reply.text("done"),
        writes(("users", "changed")),
        Reply.text("done"),
    )
    async with (
        Simulator(*replies) as server,
        agent_of(client, server, root).session() as session,
    ):
        await session.run("write")
        (root / "users").write_text("mine")
        await session.run("write")
        plan = await session.rewind("c1")
    assert FileChange("users", "keep", "it is new, and no tool is known to have made it") in (
        plan.files
    )
    assert (root / "users").read_text() == "changed"
    assert not (root / "a").exists()


async def test_without_a_session_nothing_is_kept(client: Any, root: Path, tmp_path: Path) -> None:
    async with Simulator(writes(("a", "1")), Reply.text("done")) as server:
        result = await agent_of(client, server, root).run("write")
    assert result.stop_reason == "end_turn"
    assert not (tmp_path / "data").exists()


async def test_files_that_cannot_be_kept_are_told_and_the_run_goes_on(
    client: Any, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(str(root), folder=str(tmp_path / "file"))
    async with (
        Simulator(writes(("a", "1")), Reply.text("done")) as server,
        agent_of(client, server, root, checkpoints=checkpoints).session() as session,
    ):
        result = await session.run("write")
        assert (result.stop_reason, (root / "a").read_text()) == ("end_turn", "1")
        (notice,) = [event for event in await events_of(session) if isinstance(event, Notice)]
        assert notice.code == "checkpoint"
        assert "cannot be kept" in notice.text
        (checkpoint,) = session.checkpoints()
        assert checkpoint.error is not None
        with pytest.raises(StoreError, match=r"files=False\) for the conversation"):
            await session.rewind("c1")
        plan = await session.rewind("c1", files=False)
        assert plan.messages == 3


@pytest.mark.feature("A-17")
async def test_a_rewind_that_cannot_work_is_refused_before_anything_happens(
    client: Any, root: Path
) -> None:
    async with Simulator(Reply.text("a"), Reply.text("b", first_delay=30)) as server:
        plain = agent_of(client, server, root, checkpoints=None)
        async with plain.session() as session:
            await session.run("hi")
            with pytest.raises(UnsupportedControlError, match="no checkpoints=") as caught:
                await session.rewind("c1")
            assert (caught.value.control, bool(caught.value.reason)) == ("rewind", True)
            with pytest.raises(CheckpointNotFoundError, match="it has: none"):
                await session.rewind("c1", files=False)
            run = await session.send("go on")
            with pytest.raises(UnsupportedControlError, match="a run is active"):
                await session.rewind("c1", files=False)
            await run.interrupt()


async def test_a_root_that_is_none_is_refused_when_the_session_is_opened(
    client: Any, root: Path, server: Simulator
) -> None:
    agent = agent_of(client, server, root, checkpoints=Checkpoints(str(root / "none")))
    store = MemoryStore()
    with pytest.raises(UsageError, match="there is no such folder"):
        async with agent.session("s", store=store):
            pass
    async with agent.with_(checkpoints=None).session("s", store=store) as session:
        assert session.messages == []


async def test_a_session_that_is_opened_again_can_still_be_rewound(client: Any, root: Path) -> None:
    store = MemoryStore()
    async with Simulator(writes(("a", "1")), Reply.text("done")) as server:
        agent = agent_of(client, server, root)
        async with agent.session("s", store=store) as session:
            await session.run("write")
        async with agent.session("s", store=store) as session:
            plan = await session.rewind("c1")
            assert [(each.path, each.action) for each in plan.files] == [("a", "delete")]
            (event,) = [e for e in await events_of(session) if isinstance(e, Rewound)]
            assert (event.checkpoint, event.undo, event.files) == ("c1", "c2", list(plan.files))
        async with agent.session("s", store=store) as session:
            assert [message.text for message in session.messages] == ["write"]


def test_the_blocking_session_can_too(client: Any, root: Path) -> None:
    with Simulator(writes(("a", "1")), Reply.text("done")) as server:
        agent = Agent(
            client=server.base_url,
            tools=[write],
            turn_mode="native",
            checkpoints=Checkpoints(root),  # type: ignore[arg-type]
            permissions=FREE,
        )
        with agent.session_sync() as session:
            session.run("write")
            (checkpoint,) = session.checkpoints()
            assert session.rewind(checkpoint).applied
    assert list(root.iterdir()) == []


async def test_the_store_of_the_session_is_none_of_its_files(client: Any, root: Path) -> None:
    (root / "a").write_text("0")
    replies = (writes(("a", "1")), Reply.text("done"), Reply.text("more"))
    async with (
        Simulator(*replies) as server,
        SQLiteStore(root / "sessions.db") as store,
        agent_of(client, server, root).session("s", store=store) as session,
    ):
        await session.run("write")
        done = await session.rewind("c1", delete_new=True)
        assert [(each.path, each.action) for each in done.files] == [("a", "restore")]
        assert (await session.run("and?")).text == "more"
    async with SQLiteStore(root / "sessions.db") as store:
        assert (await store.stat("s")).events > 10


# ── forks ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("D-06")
async def test_a_fork_goes_its_own_way(client: Any, root: Path) -> None:
    store = MemoryStore()
    async with Simulator(*(Reply.text(each) for each in ("a", "b", "c"))) as server:
        agent = agent_of(client, server, root)
        async with agent.session("s", store=store) as session:
            await session.run("1")
            fork = await session.fork()
            async with fork:
                await fork.run("2")
                await session.run("3")
                said = [message.text for message in fork.messages]
            assert said == ["1", "a", "2", "b"]
            assert [message.text for message in session.messages] == ["1", "a", "3", "c"]
            assert fork.id != session.id


@pytest.mark.feature("D-06")
async def test_a_fork_from_a_checkpoint_has_its_conversation_and_its_files(
    client: Any, root: Path
) -> None:
    (root / "a").write_text("0")
    async with Simulator(writes(("a", "1")), Reply.text("done")) as server:
        agent = agent_of(client, server, root)
        async with agent.session() as session:
            await session.run("write")
            async with await session.fork("c1") as fork:
                assert [message.text for message in fork.messages] == ["write"]
                assert (root / "a").read_text() == "1"
                assert [each.id for each in fork.checkpoints()] == ["c1"]
                await fork.rewind("c1")
                assert (root / "a").read_text() == "0"
            assert len(session.messages) == 4


@pytest.mark.feature("D-06")
async def test_a_fork_from_an_event_has_what_was_kept_up_to_it(client: Any, root: Path) -> None:
    async with Simulator(Reply.text("a"), Reply.text("b")) as server:
        agent = agent_of(client, server, root)
        async with agent.session() as session:
            await session.run("1")
            number = len(await events_of(session))
            await session.run("2")
            async with await session.fork(number) as fork:
                assert [message.text for message in fork.messages] == ["1", "a"]
                assert await fork.resume() is None
            with pytest.raises(UsageError, match="at=1000"):
                await session.fork(1000)
            with pytest.raises(CheckpointNotFoundError):
                await session.fork("c7")


@pytest.mark.feature("D-06")
async def test_a_fork_of_an_active_run_is_unfinished_and_can_be_taken_up(
    client: Any, root: Path
) -> None:
    replies = (Reply.text("slow", first_delay=30), Reply.text("quick"))
    async with Simulator(*replies) as server:
        agent = agent_of(client, server, root)
        async with agent.session() as session:
            run = await session.send("1")
            async for event in run:
                if isinstance(event, ModelStarted):
                    break
            with pytest.raises(UnsupportedControlError, match="a run is active"):
                await session.fork("c1")
            async with await session.fork() as fork:
                taken_up = await fork.resume()
                assert taken_up is not None
                assert (await taken_up).text == "quick"
            await run.interrupt()


class Slow(MemoryStore):
    """A store in memory that opens another session than `s` only once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def open(self, session_id: str, *, create: bool = True) -> SessionLog:
        if session_id != "s":
            self.asked.set()
            await self.go.wait()
        return await super().open(session_id, create=create)


@pytest.mark.feature("D-06")
async def test_a_run_that_begins_while_a_fork_is_made_comes_after_it(
    client: Any, root: Path
) -> None:
    (root / "a").write_text("0")
    store = Slow()
    replies = (writes(("a", "1")), Reply.text("done"), Reply.text("more"), Reply.text("forked"))
    async with Simulator(*replies) as server:
        agent = agent_of(client, server, root)
        async with agent.session("s", store=store) as session:
            await session.run("write")
            forking = asyncio.create_task(session.fork("c1"))
            await store.asked.wait()
            run = asyncio.ensure_future(session.run("and?"))
            await asyncio.wait({run}, timeout=0.05)  # one that does not wait would be over
            store.go.set()
            assert (await run).text == "more"
            async with await forking as fork:
                assert [message.text for message in fork.messages] == ["write"]
                assert (await fork.run("again")).text == "forked"
