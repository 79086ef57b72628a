"""The PostgreSQL store: owners, a server that is lost, and what can be wrong with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from vllm_agent_sdk import SessionLockedError, StoreError, UsageError
from vllm_agent_sdk.sessions import (
    PostgresStore,
    SessionQuery,
    Snapshot,
    get_session_messages,
    stat_session,
)
from vllm_agent_sdk.sessions.postgres import _engine, _server
from vllm_agent_sdk.sessions.postgres._engine import use
from vllm_agent_sdk.types.events import Notice

Make = Callable[..., PostgresStore]


def notes(first: int, last: int, text: str = "") -> list[Notice]:
    return [Notice("n", f"{text}{seq}", seq=seq) for seq in range(first, last + 1)]


class Line:
    """A line to the server that can be cut, and be deaf in one direction."""

    def __init__(self, conninfo: str) -> None:
        self._facts = conninfo_to_dict(conninfo)
        self._conninfo = conninfo
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._connections: set[asyncio.Task[None]] = set()
        self.deaf = asyncio.Event()  # when set, nothing of what the server says comes back

    @property
    def conninfo(self) -> str:
        return make_conninfo(
            self._conninfo,
            host="127.0.0.1",
            port=self._port,
            sslmode="disable",
            gssencmode="disable",
        )

    async def up(self) -> None:
        self.deaf.clear()
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def down(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        host, port = str(self._facts.get("host") or "localhost"), self._facts.get("port") or 5432
        if host.startswith("/"):
            there = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            there = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.wait(
                [
                    asyncio.create_task(self._copy(reader, there[1], deaf=False)),
                    asyncio.create_task(self._copy(there[0], writer, deaf=True)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()
            there[1].transport.abort()
            self._connections.discard(task)

    async def _copy(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, deaf: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if not (deaf and self.deaf.is_set()):
                    sink.write(data)


@pytest.fixture
async def line(postgres_server: str) -> AsyncIterator[Line]:
    made = Line(postgres_server)
    await made.up()
    yield made
    await made.down()


@pytest.fixture
async def over(make_postgres: Make, line: Line) -> AsyncIterator[PostgresStore]:
    """A store that reaches its server over the line."""
    schema = make_postgres()._server.schema
    async with PostgresStore(line.conninfo, schema=schema, patience_s=20) as store:
        yield store


# ── one writer ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("D-04")
async def test_another_owners_session_is_locked(make_postgres: Make) -> None:
    # Two patiences: two owners, as if they were two processes.
    async with make_postgres(patience_s=1) as one, make_postgres(patience_s=2) as two:
        log = await one.open("s")
        with pytest.raises(SessionLockedError) as caught:
            await two.open("s")
        assert f"process {os.getpid()} on " in caught.value.holder
        with pytest.raises(SessionLockedError):
            await two.delete("s")
        assert caught.value.holder == (await stat_session(two, "s")).holder
        other = await two.open("t")
        await asyncio.gather(log.append(*notes(1, 3)), other.append(*notes(1, 2)))
        await log.aclose()
        again = await two.open("s")
        assert len(await again.read()) == 3
        await again.aclose()
        await other.aclose()


def started(program: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.feature("D-03", "D-04")
async def test_a_killed_process_loses_nothing_it_said_and_leaves_no_lock(
    make_postgres: Make, postgres_server: str
) -> None:
    store = make_postgres()
    program = """
import asyncio, sys
from vllm_agent_sdk.sessions import PostgresStore
from vllm_agent_sdk.types.events import Notice
async def main():
    log = await PostgresStore(sys.argv[1], schema=sys.argv[2]).open("s")
    for seq in range(1, 10_000):
        await log.append(Notice("n", str(seq), seq=seq))
        print(seq, flush=True)
asyncio.run(main())
"""
    process = started(program, postgres_server, store._server.schema)
    assert process.stdout is not None
    async with store:
        try:
            seen = 0
            while seen < 20:
                seen = int(await asyncio.to_thread(process.stdout.readline))
            with pytest.raises(SessionLockedError):
                await store.open("s")
        finally:
            process.kill()
        said = [seen, *map(int, process.communicate()[0].split())]
        log = await store.open("s")
        kept = [event.seq for event in await log.read()]
        assert kept == list(range(1, len(kept) + 1))
        assert len(kept) - said[-1] in {0, 1}, "one may be kept that it could not say any more"
        await log.append(*notes(len(kept) + 1, len(kept) + 1))
        await log.aclose()


@pytest.mark.feature("D-04")
async def test_a_writer_that_was_taken_over_while_it_was_cut_off_can_write_no_more(
    over: PostgresStore, line: Line, make_postgres: Make
) -> None:
    log = await over.open("s")
    await log.append(*notes(1, 1))
    await line.down()
    async with make_postgres() as other:
        theirs = await other.open("s")
        await theirs.append(*notes(2, 2, "theirs"))
        await line.up()
        with pytest.raises(SessionLockedError, match="taken over"):
            await log.append(*notes(2, 2, "mine"))
        with pytest.raises(SessionLockedError, match="taken over"):
            await log.keep_snapshot(Snapshot(1, b"mine"))
        assert await theirs.snapshot() is None
        await log.aclose()  # it does not free what is another's
        assert (await stat_session(other, "s")).holder is not None
        await theirs.append(*notes(3, 3, "theirs"))
        texts = [event.text for event in await theirs.read() if isinstance(event, Notice)]
        assert texts == ["1", "theirs2", "theirs3"]
        await theirs.aclose()


# ── a server that is lost ────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("D-01")
async def test_appends_and_reads_wait_for_a_server_that_comes_back(
    over: PostgresStore, line: Line
) -> None:
    log = await over.open("s")
    await log.append(*notes(1, 1))
    for round_ in range(3):
        await line.down()
        append = asyncio.create_task(log.append(*notes(round_ + 2, round_ + 2)))
        read = asyncio.create_task(over.read("s"))
        done, _ = await asyncio.wait([append, read], timeout=0.1)
        assert not done, "they wait"
        await line.up()
        await append
        assert len(await read) in {round_ + 1, round_ + 2}
    assert [event.seq for event in await log.read()] == [1, 2, 3, 4]
    await log.aclose()


@pytest.mark.feature("D-01", "D-03")
async def test_what_was_kept_though_the_answer_was_lost_is_kept_once(
    over: PostgresStore, line: Line, make_postgres: Make
) -> None:
    log = await over.open("s")
    await log.append(*notes(1, 1))
    # The statements arrive one by one, each after the answer to the one before: the answer to the
    # last one, COMMIT, is what is lost.
    async with make_postgres() as direct:
        lost = asyncio.create_task(_deafen_at_commit(line, log, direct))
        await lost
        assert [event.seq for event in await direct.read("s")] == [1, 2, 3]
    await log.append(*notes(4, 4))
    await log.aclose()


async def _deafen_at_commit(line: Line, log: Any, direct: PostgresStore) -> None:
    connection = log._engine._connection
    original = connection._exec_command

    def watched(command: Any, *args: Any, **kwargs: Any) -> Any:
        if bytes(command).startswith(b"COMMIT"):
            line.deaf.set()
        return original(command, *args, **kwargs)

    connection._exec_command = watched
    append = asyncio.create_task(log.append(*notes(2, 3)))
    while len(await direct.read("s")) < 3:  # noqa: ASYNC110 - nobody says when it is committed
        await asyncio.sleep(0.01)
    assert not append.done(), "nobody has been told"
    await line.down()
    await line.up()
    await append


@pytest.mark.feature("D-01")
async def test_a_server_that_stays_away_is_an_error_and_the_session_goes_on_later(
    make_postgres: Make, line: Line
) -> None:
    schema = make_postgres()._server.schema
    async with PostgresStore(line.conninfo, schema=schema, patience_s=0.1) as store:
        log = await store.open("s")
        await log.append(*notes(1, 1))
        await line.down()
        with pytest.raises(StoreError, match="at 127"):
            await log.append(*notes(2, 2))
        with pytest.raises(StoreError):
            await store.read("s")
        await line.up()
        await log.append(*notes(2, 2))
        assert len(await log.read()) == 2
        await log.aclose()


@pytest.mark.feature("D-01")
async def test_a_session_runs_on_when_its_server_comes_back(
    over: PostgresStore, line: Line, agent: Any
) -> None:
    one = await agent()
    async with one.session("s", store=over) as session:
        await session.run("one")
        await line.down()
        run = await session.send("two")
        await asyncio.sleep(0)
        await line.up()
        assert (await run).text == "yes"
    assert len(await get_session_messages(over, "s")) == 4


# ── group commit ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("D-01")
async def test_what_is_appended_meanwhile_is_committed_together(
    make_postgres: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    append_all = _engine.append_all

    async def counted(connection: Any, appends: Any, *rest: Any) -> bool:
        groups.append(len(appends))
        return await append_all(connection, appends, *rest)

    monkeypatch.setattr(_engine, "append_all", counted)
    async with make_postgres() as store:
        logs = [await store.open(f"s{number}") for number in range(32)]
        engine = use(store._server, store._patience_s)
        go = asyncio.Event()
        held = engine.submit(lambda _: go.wait())
        appends = [asyncio.create_task(log.append(*notes(1, 4))) for log in logs]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(held, *appends)
        assert sum(groups) == 32
        assert len(groups) <= 2, "those that came while one was under way are one group"
        for log in logs:
            await log.aclose()
        await engine.release()


# ── what can be wrong ────────────────────────────────────────────────────────────────────────────


async def test_a_server_that_is_not_there_is_an_error_at_once_without_the_password() -> None:
    store = PostgresStore("postgresql://user:hunter2@127.0.0.1:1/db")
    assert "hunter2" not in repr(store)
    for ask in (store.open("s"), store.read("s"), store.delete("s")):
        with pytest.raises(StoreError) as caught:
            await ask
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"schema": "Robert'); DROP"}, {"schema": ""}, {"max_connections": 0}, {"conninfo": "hunter2"}],
)
def test_arguments_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        PostgresStore(**{"conninfo": "host=localhost", **options})
    assert "hunter2" not in str(caught.value)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vllm_agent_sdk.sessions.postgres._server")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"vllm-agent-sdk\[postgres\]"):
        PostgresStore("host=localhost")


@pytest.mark.feature("D-01")
async def test_an_older_schema_is_upgraded_and_a_newer_one_refused(
    make_postgres: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_postgres() as store:
        log = await store.open("s")
        await log.append(*notes(1, 3))
        await log.aclose()
    newer = ("0009_colours", "ALTER TABLE sessions ADD COLUMN colour text; CREATE TABLE x (y text)")
    with monkeypatch.context() as patched:
        patched.setattr(_server, "MIGRATIONS", (*_server.MIGRATIONS, newer))
        assert len(await make_postgres().read("s")) == 3
    with pytest.raises(StoreError, match=r"newer vllm-agent-sdk.*0009_colours"):
        await make_postgres().open("s")
    with pytest.raises(StoreError, match=r"newer vllm-agent-sdk"):
        await make_postgres().sessions(SessionQuery())


@pytest.mark.feature("D-01")
async def test_the_first_schema_is_upgraded_and_keeps_snapshots(
    make_postgres: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(_server, "MIGRATIONS", _server.MIGRATIONS[:1])
        log = await make_postgres().open("s")
        await log.append(*notes(1, 3))
        await log.aclose()
    log = await make_postgres().open("s")
    assert await log.snapshot() is None
    await log.keep_snapshot(Snapshot(3, b"state"))
    await log.aclose()
    log = await make_postgres().open("s")
    assert (await log.snapshot(), len(await log.read())) == (Snapshot(3, b"state"), 3)
    await log.aclose()


async def test_no_connection_stays_open_after_the_last_use(
    make_postgres: Make, postgres_server: str
) -> None:
    store = make_postgres()
    log = await store.open("s")
    await log.append(*notes(1, 1))
    await log.read()
    await log.aclose()
    schema = store._server.schema
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        assert connection.execute(f"SELECT count(*) FROM {schema}.owners").fetchone() == (0,)
        wanted = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vllm-agent-sdk'"
        while connection.execute(wanted).fetchone() != (0,):  # noqa: ASYNC110 - it sees it later
            await asyncio.sleep(0.01)
