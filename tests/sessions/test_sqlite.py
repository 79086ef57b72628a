"""The SQLite store: group commit, its file, and what can be wrong with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import SessionLockedError, StoreError, UsageError, tool
from vllm_agent_sdk.sessions import (
    SessionQuery,
    Snapshot,
    SQLiteStore,
    get_session_messages,
    list_sessions,
    rename_session,
    stat_session,
)
from vllm_agent_sdk.sessions.sqlite import _place, _schema
from vllm_agent_sdk.sessions.sqlite._engine import Engine, use
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.types.events import Notice, RunEnded


def notes(first: int, last: int, text: str = "") -> list[Notice]:
    return [Notice("n", f"{text}{seq}", seq=seq) for seq in range(first, last + 1)]


@contextlib.asynccontextmanager
async def engine_of(store: SQLiteStore) -> AsyncIterator[Engine]:
    engine = use(store._place)
    yield engine
    engine.release()


async def pragma(store: SQLiteStore, text: str) -> Any:
    async with engine_of(store) as engine:
        return await engine.submit(lambda c: c.execute(f"PRAGMA {text}").fetchone()[0])


class Held:
    """Keeps the writer busy until it is let go."""

    def __init__(self, engine: Engine) -> None:
        self._go = threading.Event()
        self._begun = threading.Event()
        self.done = engine.submit(lambda _: (self._begun.set(), self._go.wait(20)))

    async def begun(self) -> None:
        await asyncio.to_thread(self._begun.wait, 20)

    def let_go(self) -> None:
        self._go.set()


# ── group commit ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("D-01")
async def test_what_is_appended_meanwhile_is_committed_together(sqlite: SQLiteStore) -> None:
    logs = [await sqlite.open(f"s{number}") for number in range(64)]
    statements: list[str] = []
    async with engine_of(sqlite) as engine:
        await engine.submit(lambda c: c.set_trace_callback(statements.append))
        statements.clear()
        held = Held(engine)
        await held.begun()
        appends = [asyncio.create_task(log.append(*notes(1, 4))) for log in logs]
        await asyncio.sleep(0)
        held.let_go()
        await asyncio.gather(*appends)
        await engine.submit(lambda c: c.set_trace_callback(None))
    commits = [text for text in statements if text.startswith("COMMIT")]
    # The one that was held, the 64 appends, and the end of the trace (which is not seen any more).
    assert len(commits) == 2
    assert [(await stat_session(sqlite, f"s{n}")).events for n in range(64)] == [4] * 64
    for log in logs:
        await log.aclose()


@pytest.mark.feature("D-01")
async def test_one_that_is_refused_does_not_hold_up_those_committed_with_it(
    sqlite: SQLiteStore,
) -> None:
    logs = [await sqlite.open(f"s{number}") for number in range(5)]
    for log in logs:
        await log.append(*notes(1, 2))
    async with engine_of(sqlite) as engine:
        held = Held(engine)
        await held.begun()
        given = [notes(3, 4), notes(2, 3), notes(5, 5), notes(2, 2, "other"), notes(3, 3)]
        appends = [
            asyncio.create_task(log.append(*events))
            for log, events in zip(logs, given, strict=True)
        ]
        await asyncio.sleep(0)
        held.let_go()
        done = await asyncio.gather(*appends, return_exceptions=True)
    assert [type(each) for each in done] == [
        type(None), type(None), StoreError, StoreError, type(None),
    ]  # fmt: skip
    assert [len(await log.read()) for log in logs] == [4, 3, 2, 2, 3]
    for log in logs:
        await log.aclose()


async def test_every_commit_is_synced(sqlite: SQLiteStore) -> None:
    assert await pragma(sqlite, "journal_mode") == "wal"
    assert await pragma(sqlite, "synchronous") == 2  # FULL


@pytest.mark.feature("D-01")
async def test_an_append_writes_itself_and_not_the_session_again(sqlite: SQLiteStore) -> None:
    log = await sqlite.open("s")
    written: list[int] = []
    async with engine_of(sqlite) as engine:
        for seq in (1, 2001, 4001):
            before = await engine.submit(lambda c: c.total_changes)
            await log.append(*notes(seq, seq))
            after = await engine.submit(lambda c: c.total_changes)
            written.append(after - before)
            await log.append(*notes(seq + 1, seq + 1999))
    assert written == [2, 2, 2], "the event, and the session's row"
    await log.aclose()


async def test_a_result_is_kept_without_the_conversation_that_the_log_has(
    sqlite: SQLiteStore, agent: Any
) -> None:
    one = await agent(Reply.text("y" * 1000))
    async with one.session("s", store=sqlite) as session:
        for _ in range(10):
            await session.run("x" * 1000)
    events = await sqlite.read("s")
    assert [e.result.messages for e in events if isinstance(e, RunEnded)] == [[]] * 10
    assert len(await get_session_messages(sqlite, "s")) == 20
    # Twice each text (the answer is the result's text too), not once for every later run.
    assert (await stat_session(sqlite, "s")).size_bytes < 80_000


# ── its life ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("D-01")
async def test_files_are_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = SQLiteStore(tmp_path / "sessions.db")
        log = await store.open("s")
        await log.append(*notes(1, 1))
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}
    assert set(modes) == {
        "sessions.db",
        "sessions.db-wal",
        "sessions.db-shm",
        "sessions.db-owner-1",
    }
    assert set(modes.values()) == {0o600}
    await log.aclose()
    await store.aclose()


async def test_nothing_stays_open_after_the_last_use(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "sessions.db")
    async with store:
        log = await store.open("s")
        await store.aclose()  # a session is open: it keeps what it needs
        await log.append(*notes(1, 1))
        await log.aclose()
    assert os.listdir(tmp_path) == ["sessions.db"]
    assert not [t for t in threading.enumerate() if t.name.endswith(store.path)]


async def test_stores_of_one_file_share_a_thread_and_its_locks(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    (tmp_path / "link.db").symlink_to(path)
    one, two = SQLiteStore(path), SQLiteStore(tmp_path / "link.db")
    log = await one.open("s")
    with pytest.raises(SessionLockedError, match="close it") as caught:
        await two.open("s")
    assert str(os.getpid()) in caught.value.holder
    other = await two.open("t")
    assert len([t for t in threading.enumerate() if t.name.endswith(one.path)]) == 1
    await log.aclose()
    await other.aclose()
    await one.aclose()


async def test_an_open_that_is_cancelled_leaves_the_session_free(
    sqlite: SQLiteStore, agent: Any
) -> None:
    one = await agent()
    async with engine_of(sqlite) as engine:
        held = Held(engine)
        await held.begun()

        async def use_it() -> None:
            async with one.session("s", store=sqlite):
                raise AssertionError("it was cancelled")

        task = asyncio.create_task(use_it())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        held.let_go()
        with pytest.raises(asyncio.CancelledError):
            await task
    await (await sqlite.open("s")).aclose()


# ── older and newer files ────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("D-01")
async def test_an_older_file_is_upgraded_and_a_newer_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sessions.db"
    async with SQLiteStore(path) as store:
        log = await store.open("s")
        await log.append(*notes(1, 3))
        await log.aclose()
    newer = ("0009_colours", "ALTER TABLE sessions ADD COLUMN colour TEXT; CREATE TABLE x (y)")
    with monkeypatch.context() as patched:
        patched.setattr(_schema, "MIGRATIONS", (*_schema.MIGRATIONS, newer))
        with pytest.raises(StoreError, match="older"):
            await list_sessions(SQLiteStore(f"file:{path}?mode=ro"))
        async with SQLiteStore(path) as store:
            assert len(await store.read("s")) == 3
    with pytest.raises(StoreError, match=r"newer vllm-agent-sdk.*0009_colours"):
        await SQLiteStore(path).open("s")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM migrations")]
        assert names == ["0000_migrations", "0001_sessions", "0002_snapshots", "0009_colours"]
        assert connection.execute("SELECT colour FROM sessions").fetchall() == [(None,)]


@pytest.mark.feature("D-01")
async def test_a_file_of_the_first_schema_is_upgraded_and_keeps_snapshots(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    script = (Path(__file__).parents[1] / "fixtures" / "stores" / "0001_sessions.sql").read_text()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    async with SQLiteStore(path) as store:
        assert len(await store.read("support-42")) == 32
        log = await store.open("support-42", create=False)
        assert await log.snapshot() is None
        await log.keep_snapshot(Snapshot(32, b"state"))
        await log.append(*notes(33, 33))
        await log.aclose()
    async with SQLiteStore(path) as store:
        log = await store.open("support-42", create=False)
        assert await log.snapshot() == Snapshot(32, b"state")
        await log.aclose()


async def test_an_upgrade_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sessions.db"
    async with SQLiteStore(path) as store:
        await (await store.open("s")).aclose()
    wrong = ("0009_wrong", "CREATE TABLE x (y); CREATE TABLE sessions (z)")
    with monkeypatch.context() as patched:
        patched.setattr(_schema, "MIGRATIONS", (*_schema.MIGRATIONS, wrong))
        with pytest.raises(StoreError, match="already exists"):
            await SQLiteStore(path).open("s")
    async with SQLiteStore(path) as store:
        assert (await stat_session(store, "s")).events == 0


# ── what can be wrong with the file ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", [":memory:", "", "file::memory:", "file:x?mode=memory"])
def test_a_path_that_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="MemoryStore"):
        SQLiteStore(path)


@pytest.mark.feature("D-01")
async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "no" / "sessions.db")
    for _ in range(2):
        with pytest.raises(StoreError, match="no does not exist: make it first"):
            await store.open("s")
    (tmp_path / "no").mkdir()
    await (await store.open("s")).aclose()
    await store.aclose()
    with pytest.raises(StoreError, match="is a folder"):
        await SQLiteStore(tmp_path).open("s")


@pytest.mark.feature("D-01")
async def test_a_read_only_database_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    read_only = SQLiteStore(f"file:{path}?mode=ro")
    with pytest.raises(StoreError, match="cannot be opened"):
        await list_sessions(read_only)
    async with SQLiteStore(path) as store:
        log = await store.open("s")
        await log.append(*notes(1, 3))
        await log.aclose()
    assert len(await read_only.read("s")) == 3
    assert (await stat_session(read_only, "s")).events == 3
    with pytest.raises(StoreError, match="read-only"):
        await read_only.open("s")
    for change in (rename_session(read_only, "s", "x"), read_only.delete("s")):
        with pytest.raises(StoreError, match="read-only"):
            await change
    await read_only.aclose()


@pytest.mark.feature("D-01")
@pytest.mark.parametrize(
    "content", [b"not a database, " * 100, b"SQLite format 3\0" + b"\xff" * 4000]
)
async def test_a_file_that_is_no_database_is_refused_and_left_alone(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "sessions.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"no SQLite database|damaged"):
        await SQLiteStore(path).open("s")
    assert path.read_bytes() == content


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (x)")
    with pytest.raises(StoreError, match=r"something else.*recipes"):
        await SQLiteStore(path).open("s")


@pytest.mark.feature("D-01")
async def test_a_damaged_page_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    async with SQLiteStore(path) as store:
        for session_id in ("bad", "good"):
            log = await store.open(session_id)
            await log.append(*notes(1, 300, "x" * 100))
            await log.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        count = connection.execute("PRAGMA page_count").fetchone()[0]
    with path.open("r+b") as file:
        file.seek((count - 1) * page)
        file.write(b"\xff" * page)
    store = SQLiteStore(path)
    assert len(await store.read("bad")) == 300, "what is not damaged can be read"
    with pytest.raises(StoreError, match="damaged"):
        await store.read("good")
    await store.aclose()


@pytest.mark.feature("D-01")
async def test_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(SQLiteStore(tmp_path / "sessions.db").path).parent
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"22 21 0:40 / {root} rw shared:2 - nfs4 host:/x rw\n"
        f"23 22 0:41 / {root}/local\\040disk rw - tmpfs tmpfs rw\n"
    )
    monkeypatch.setattr(_place, "_MOUNTS", str(mounts))
    with pytest.raises(StoreError, match=r"network file system \(nfs4\)"):
        await SQLiteStore(root / "sessions.db").open("s")
    assert not (root / "sessions.db").exists()
    (root / "local disk").mkdir()
    async with SQLiteStore(root / "local disk" / "sessions.db") as store:
        await (await store.open("s")).aclose()
    monkeypatch.setattr(_place, "_MOUNTS", str(tmp_path / "no"))
    assert _place.file_system("/") == ""


@pytest.mark.feature("D-01", "D-03")
async def test_a_disk_that_is_full_in_the_middle_of_a_run_loses_nothing(
    sqlite: SQLiteStore, agent: Any
) -> None:
    @tool
    async def fill(text: str) -> str:
        """Fill the disk."""
        pages = await pragma(sqlite, "page_count")
        await pragma(sqlite, f"max_page_count={pages}")
        return text * 20_000

    one = await agent(Reply.calls(("fill", {"text": "x"})), Reply.text("done"), tools=[fill])
    async with one.session("s", store=sqlite) as session:
        with pytest.raises(StoreError, match="disk is full"):
            await session.run("go")
        kept = await sqlite.read("s")
        assert [type(event).__name__ for event in kept][-1] == "ToolStarted"
        await pragma(sqlite, "max_page_count=100000")
    # The tool's end was not kept, so nobody was told of it; whether it runs again is asked.
    async with one.session("s", store=sqlite) as session:
        run = await session.resume()
        assert run is not None
        assert (await run).stop_reason == "suspended"
        assert [pending.kind for pending in session.pending] == ["decision"]


async def test_a_session_that_cannot_be_written_free_is_free_in_this_process(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sessions.db"
    store = SQLiteStore(path)
    log = await store.open("s")
    await log.append(*notes(1, 1))
    path.rename(tmp_path / "away.db")
    await log.aclose()
    (tmp_path / "away.db").rename(path)
    again = await store.open("s")
    assert len(await again.read()) == 1
    await again.aclose()
    await store.aclose()


@pytest.mark.feature("D-01")
async def test_a_file_that_is_moved_away_is_not_written_until_it_is_back(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sessions.db"
    store = SQLiteStore(path)
    log = await store.open("s")
    await log.append(*notes(1, 1))
    path.rename(tmp_path / "away.db")
    with pytest.raises(StoreError, match="moved or replaced"):
        await log.append(*notes(2, 2))
    with pytest.raises(StoreError, match="cannot be opened"):
        await store.read("s")
    assert not path.exists()
    (tmp_path / "away.db").rename(path)
    await log.append(*notes(2, 2))
    await log.aclose()
    assert len(await store.read("s")) == 2
    # With no session open, a new file is as good as any.
    for name in os.listdir(tmp_path):
        os.unlink(tmp_path / name)
    await (await store.open("new")).aclose()
    assert [info.id for info in await store.sessions(SessionQuery())] == ["new"]
    await store.aclose()


async def test_a_process_that_holds_the_lock_for_too_long_is_an_error_and_then_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_place, "_BUSY_S", 0.05)
    path = tmp_path / "sessions.db"
    store = SQLiteStore(path)
    log = await store.open("s")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="held its lock for too long"):
            await log.append(*notes(1, 1))
        other.execute("ROLLBACK")
    await log.append(*notes(1, 1))
    await log.aclose()
    await store.aclose()


@pytest.mark.feature("A-16")
async def test_results_that_are_read_again_have_their_conversation(
    sqlite: SQLiteStore, agent: Any
) -> None:
    one = await agent(Reply.text("a"), Reply.text("b"))
    async with one.session("s", store=sqlite) as session:
        results = [await session.run("1"), await session.run("2")]
    async with one.session("s", store=sqlite) as session:
        first = [e async for e in session.events(after=0)][-1]
        last = [e async for e in session.events(after=first.seq)][-1]
    read = [event.result for event in (first, last) if isinstance(event, RunEnded)]
    assert [len(result.messages) for result in read] == [2, 4]
    assert [result.messages for result in read] == [result.messages for result in results]


@pytest.mark.feature("D-04")
def test_many_that_make_one_new_file_at_the_same_moment_all_get_it(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def connect(path: Path, all_there: threading.Barrier) -> None:
        place = _place.Place(str(path))
        all_there.wait()
        try:
            place.make()
            connection = place.connect()
            _schema.bring_up(connection, place.path, read_only=False)
            connection.close()
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    for number in range(60):  # without waiting, some 2 of 360 failed
        all_there = threading.Barrier(6)
        arguments = (tmp_path / f"{number}.db", all_there)
        threads = [threading.Thread(target=connect, args=arguments) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
