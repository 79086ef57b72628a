"""Several processes and one SQLite file: locks, deaths, takeovers, forks."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vllm_agent_sdk import SessionLockedError, StoreError
from vllm_agent_sdk.sessions import Snapshot, SQLiteStore, stat_session
from vllm_agent_sdk.types.events import Notice

BEGIN = r"""
import asyncio, os, sys
from vllm_agent_sdk.sessions import SQLiteStore
from vllm_agent_sdk.types.events import Notice

def note(seq, text="child"):
    return Notice("n", text, seq=seq)

def say(*words):
    os.write(1, f"{' '.join(map(str, words))}\n".encode())  # at once: two processes may speak

async def hear():
    return await asyncio.to_thread(sys.stdin.readline)

store = SQLiteStore(sys.argv[1])
"""


def note(seq: int, text: str = "parent") -> Notice:
    return Notice("n", text, seq=seq)


@contextmanager
def child(store: SQLiteStore, program: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has imported what it needs and made `store`."""
    body = textwrap.indent(textwrap.dedent(program), "    ")
    text = f"{BEGIN}\nasync def main():\n{body}\nasyncio.run(main())\n"
    process = subprocess.Popen(
        [sys.executable, "-c", text, store.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def owner_files(store: SQLiteStore) -> list[str]:
    folder = os.path.dirname(store.path)
    return sorted(name for name in os.listdir(folder) if "-owner-" in name)


@pytest.mark.feature("D-04")
async def test_a_session_of_another_process_is_locked_until_that_process_is_dead(
    sqlite: SQLiteStore,
) -> None:
    program = """
    log = await store.open("s")
    say("open")
    seq = 0
    while True:
        seq += 1
        await log.append(note(seq))
        say(seq)
    """
    with child(sqlite, program) as process:
        assert line(process) == "open"
        with pytest.raises(SessionLockedError) as caught:
            await sqlite.open("s")
        assert f"process {process.pid} on " in caught.value.holder
        with pytest.raises(SessionLockedError):
            await sqlite.delete("s")
        assert caught.value.holder == (await stat_session(sqlite, "s")).holder
        # Another session of the same file is free, meanwhile.
        log = await sqlite.open("mine")
        await log.append(note(1))
        await log.aclose()
        while int(line(process)) < 20:
            pass
        process.kill()
        assert process.stdout is not None
        acknowledged = max([20, *map(int, process.stdout.read().split())])
    log = await sqlite.open("s")  # at once: the kernel has freed the dead one's lock
    kept = await log.read()
    assert len(kept) - acknowledged in {0, 1}, "one may be kept that it could not say any more"
    assert [event.seq for event in kept] == list(range(1, len(kept) + 1))
    await log.append(note(len(kept) + 1))
    await log.aclose()
    assert owner_files(sqlite) == ["sessions.db-owner-2"], "the dead one's file is cleared away"


@pytest.mark.feature("D-04")
async def test_a_writer_that_was_taken_over_can_write_no_more(sqlite: SQLiteStore) -> None:
    """Somebody has removed its lock file: to others it looks dead."""
    log = await sqlite.open("s")
    await log.append(note(1))
    (mine,) = owner_files(sqlite)
    os.unlink(os.path.join(os.path.dirname(sqlite.path), mine))
    program = """
    log = await store.open("s")
    await log.append(note(2))
    say("taken")
    await hear()
    await log.append(note(3))
    await log.aclose()
    say("closed")
    """
    with child(sqlite, program) as process:
        assert line(process) == "taken"
        with pytest.raises(SessionLockedError, match="taken over") as caught:
            await log.append(note(2))
        assert str(process.pid) in caught.value.holder
        with pytest.raises(SessionLockedError, match="taken over"):
            await log.keep_snapshot(Snapshot(1, b"parent"))
        assert await log.snapshot() is None
        await log.aclose()  # it does not free what is another's
        assert str(process.pid) in str((await stat_session(sqlite, "s")).holder)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert line(process) == "closed"
    texts = [event.text for event in await sqlite.read("s") if isinstance(event, Notice)]
    assert texts == ["parent", "child", "child"]
    with pytest.raises(StoreError, match="closed"):
        await log.append(note(4))


@pytest.mark.feature("D-04")
async def test_processes_write_to_one_file_at_once(sqlite: SQLiteStore) -> None:
    program = """
    log = await store.open(f"s{os.getpid()}")
    say("open")
    for seq in range(1, 101):
        await log.append(note(seq))
    await log.aclose()
    say("done")
    """
    with child(sqlite, program) as one, child(sqlite, program) as two:
        assert [line(one), line(two)] == ["open", "open"]
        log = await sqlite.open("mine")
        for seq in range(1, 101):
            await log.append(note(seq))
        await log.aclose()
        assert [line(one), line(two)] == ["done", "done"]
    for session_id in ("mine", f"s{one.pid}", f"s{two.pid}"):
        assert (await stat_session(sqlite, session_id)).events == 100


@pytest.mark.feature("D-04")
async def test_a_forked_child_has_none_of_its_parents_sessions(tmp_path: Path) -> None:
    """It opens others, with a thread of its own; and it does not keep the parent's lock."""
    store = SQLiteStore(tmp_path / "sessions.db")
    program = """
    import warnings
    from vllm_agent_sdk import SessionLockedError, UsageError
    warnings.simplefilter("ignore")
    log = await store.open("s")
    await log.append(note(1))

    async def in_child():
        try:
            await log.append(note(2))
        except UsageError as error:
            say("refused" if "fork" in str(error) else error)
        try:
            await store.open("s")
        except SessionLockedError as error:
            say("locked" if str(os.getppid()) in error.holder else error.holder)
        other = await store.open("t")
        await other.append(note(1))
        await other.aclose()
        say("child", os.getpid())
        await hear()

    if os.fork() == 0:
        import threading
        done = threading.Thread(target=lambda: asyncio.run(in_child()))
        done.start()
        done.join()
        os._exit(0)
    await log.append(note(2))
    say("parent")
    await asyncio.sleep(60)
    """
    with child(store, program) as process:
        said = {line(process) for _ in range(4)}
        assert {"refused", "locked", "parent"} <= said
        process.kill()
        process.wait(20)
        log = await store.open("s")  # the child lives, and does not hold what its parent held
        assert len(await log.read()) == 2
        await log.aclose()
    await store.aclose()
