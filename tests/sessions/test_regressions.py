"""What stores and rewinds of other agents have got wrong, each as a test.

A rewind that deletes the user's files, spoils binaries and cannot be tried first; session files
that others can read, and that a crash in the middle of a write destroys; a store that is written
anew with each change, so that it gets slower as it grows, and one client overwrites another's.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import Agent, Checkpoints, Permissions, tool
from vllm_agent_sdk.sessions import SQLiteStore, list_sessions
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.types.events import MessageAdded
from vllm_agent_sdk.types.messages import UserMessage


def said(seq: int, text: str = "a") -> MessageAdded:
    return MessageAdded(message=UserMessage(text), seq=seq, run_id="r", time=1.0, agent_id="main")


@tool(edits_files=("path",))
def overwrite(path: str) -> str:
    """Overwrite a file."""
    Path(path).write_text("overwritten")
    return "done"


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}


def modes_of(folder: Path) -> dict[str, int]:
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}


@pytest.mark.feature("D-05")
async def test_a_rewind_deletes_no_users_file_spoils_no_binary_and_can_be_tried_first(
    tmp_path: Path,
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    image = bytes(range(256)) * 40
    (root / "image.png").write_bytes(image)
    calls = Reply.calls(("overwrite", {"path": str(root / "image.png")}))
    async with Simulator(calls, Reply.text("done")) as server:
        agent = Agent(
            client=server.base_url,
            tools=[overwrite],
            turn_mode="native",
            permissions=Permissions(mode="bypassPermissions"),
            checkpoints=Checkpoints(str(root), folder=str(tmp_path / "kept")),
        )
        async with agent.session() as session:
            await session.run("go")
            notes = root / "notes.txt"
            notes.write_text("the user's own")
            before = contents(root)
            plan = await session.rewind("c1", dry_run=True)
            assert contents(root) == before
            assert [(each.path, each.action) for each in plan.files] == [
                ("image.png", "restore"),
                ("notes.txt", "keep"),
            ]
            await session.rewind("c1")
    assert contents(root) == {"image.png": image, "notes.txt": b"the user's own"}


@pytest.mark.feature("D-01")
async def test_nobody_else_can_read_what_was_said_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        async with SQLiteStore(tmp_path / "sessions.db") as store:
            log = await store.open("s")
            await log.append(said(1))
            modes = modes_of(tmp_path)
            await log.aclose()
    finally:
        os.umask(old)
    assert "sessions.db" in modes
    assert set(modes.values()) == {0o600}


@pytest.mark.feature("D-01")
async def test_a_write_that_was_cut_short_takes_nothing_else_with_it(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    async with SQLiteStore(path) as store:
        log = await store.open("s")
        await log.append(said(1, "one"), said(2, "two"))
        await log.aclose()
    # A writer that died in the middle of its transaction.
    torn = sqlite3.connect(path, isolation_level=None)
    torn.execute("BEGIN IMMEDIATE")
    torn.execute("DELETE FROM events")
    torn.close()
    async with SQLiteStore(path) as store:
        assert [event.seq for event in await store.read("s")] == [1, 2]


@pytest.mark.feature("D-01")
async def test_a_change_writes_what_is_new_however_long_the_session_is(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    async with SQLiteStore(path) as store:
        log = await store.open("s")
        await log.append(*(said(number, "x" * 1000) for number in range(1, 2001)))
        wal = path.with_name("sessions.db-wal")
        sizes = []
        for number in range(2001, 2004):
            before = wal.stat().st_size
            await log.append(said(number, "y"))
            sizes.append(wal.stat().st_size - before)
        await log.aclose()
    assert path.stat().st_size > 1_000_000
    assert max(sizes) < 100_000


@pytest.mark.feature("D-01")
async def test_two_clients_of_one_file_keep_each_others_sessions(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    async with SQLiteStore(path) as one, SQLiteStore(path) as other:
        logs: list[Any] = [await one.open("a"), await other.open("b")]
        for number in range(1, 20):
            for log in logs:
                await log.append(said(number))
        for log in logs:
            await log.aclose()
        page = await list_sessions(one)
        assert sorted(info.id for info in page.sessions) == ["a", "b"]
        assert [len(await other.read(name)) for name in ("a", "b")] == [19, 19]
