"""The thread that writes: it commits together what was asked for meanwhile.

One thread and one connection for each database file of a process, however many stores name it;
made by the first use, and ended a second after the last. What is asked for while a commit is under
way is done in the next one: the more sessions write at once, the fewer commits each event costs.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import queue
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from vllm_agent_sdk.errors import SessionError, StoreError, UsageError
from vllm_agent_sdk.sessions.sqlite import _schema
from vllm_agent_sdk.sessions.sqlite._owner import LockFile, is_alive
from vllm_agent_sdk.sessions.sqlite._place import Place, store_error
from vllm_agent_sdk.sessions.sqlite._work import Append, append_all, append_one
from vllm_agent_sdk.sessions.store import Pending

__all__ = ["Engine", "Work", "end_if_idle", "use"]

T = TypeVar("T")

#: What is done with the connection.
Work = Callable[[sqlite3.Connection], T]

#: Seconds the thread waits for more after the last use.
_LINGER_S = 1.0
#: Seconds the end of the process waits for the thread.
_EXIT_S = 5.0
#: Things done in one transaction at most.
_GROUP = 1024


@dataclass(slots=True)
class _Task:
    """Something to be done in a transaction, and who waits for it."""

    what: Append | Work[Any] | None
    pending: Pending[Any] | None = None
    result: Any = None
    error: Exception | None = None
    end: bool = False


#: By process and file; a child of this process makes its own.
_engines: dict[tuple[int, str], Engine] = {}
_lock = threading.Lock()


def use(place: Place) -> Engine:
    """Give the engine of a database file, to be released after use."""
    key = (os.getpid(), place.uri)
    with _lock:
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = Engine(place, key)
            engine.start()
        engine.uses += 1
    return engine


async def end_if_idle(place: Place) -> None:
    """End a file's engine, if there is one and nobody uses it, instead of a little later."""
    with _lock:  # one that is there now hears it, or is not there any more
        engine = _engines.get((os.getpid(), place.uri))
        heard = None if engine is None else engine.ask_to_end()
    if engine is not None and heard is not None:
        await heard
        if not engine.uses:
            await asyncio.to_thread(engine.thread.join, _EXIT_S)


class Engine:
    """Writes to one database file, and reads from it.

    Attributes:
        owner: This process's number among the owners of sessions, once it has one.
        left: Sessions that were closed here and could not be given free.
        thread: The thread that writes.
        uses: How many users it has.
        logs: How many of them are sessions that are open.
    """

    def __init__(self, place: Place, key: tuple[int, str]) -> None:
        self.place = place
        self.owner = 0
        self.left: set[int] = set()
        self.uses = 0
        self.logs = 0
        self._key = key
        self._queue: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=f"sessions {place.path}", daemon=True)
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._file: LockFile | None = None
        self._now = 0.0
        self._reader: sqlite3.Connection | None = None
        self._read_from = (0, 0)
        self._reading = threading.Lock()

    def start(self) -> None:
        """Begin."""
        self.thread.start()
        atexit.register(self._at_exit)

    def opened(self, session: int) -> None:
        """Say that the user is a session that is open now."""
        self.left.discard(session)
        with _lock:
            self.logs += 1

    def release(self, *, log: bool = False) -> None:
        """Say that a user is gone."""
        with _lock:
            self.uses -= 1
            self.logs -= log
            if not self.uses:
                self._queue.put(_Task(None))

    def submit(self, what: Append | Work[T]) -> Pending[T]:
        """Have something done in a transaction; `await` it: then it is durable.

        Raises:
            UsageError: The process was forked since the engine was made.
        """
        if os.getpid() != self._key[0]:
            raise UsageError(
                "The session was opened before the process was forked: open it in the child."
            )
        pending: Pending[T] = Pending()
        self._queue.put(_Task(what, pending))
        return pending

    async def read(self, work: Work[T]) -> T:
        """Read what is durable, beside what is being written."""
        if self._connection is None:
            await self.submit(_nothing)  # so that the tables are there
        return await asyncio.to_thread(self._read, work)

    def now(self) -> float:
        """Give the time, later than any this engine gave before."""
        self._now = max(time.time(), self._now + 1e-6)
        return self._now

    def holds(self, owner: int, session: int) -> bool:
        """Tell whether an owner lives, and has the session open."""
        if owner == self.owner:
            return session not in self.left
        return is_alive(self._lock_path(owner))

    def ask_to_end(self) -> Pending[None]:
        """Have the thread end now if nobody uses it."""
        pending: Pending[None] = Pending()
        self._queue.put(_Task(None, pending, end=True))
        return pending

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def _read(self, work: Work[T]) -> T:
        with self._reading:
            try:
                if self._reader is None or self.place.identity() != self._read_from:
                    self._close_reader()
                    self._reader = self.place.connect()
                    self._read_from = self.place.identity()
                return work(self._reader)
            except sqlite3.Error as cause:
                self._close_reader()
                raise store_error(cause, self.place.path) from cause

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # ── the thread ───────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while True:
            try:
                tasks = [self._queue.get(timeout=None if self.uses else _LINGER_S)]
            except queue.Empty:
                if self._retired():
                    return
                continue
            while len(tasks) < _GROUP:
                try:
                    tasks.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            ends = [task for task in tasks if task.end]
            work = [task for task in tasks if task.what is not None]
            if work:
                self._do(work)
                _deliver(work)
            over = bool(ends) and self._retired()
            _deliver(ends)
            if over:
                return

    def _retired(self) -> bool:
        with _lock:
            if self.uses or not self._queue.empty():
                return False
            if _engines.get(self._key) is self:
                del _engines[self._key]
        self._end()
        atexit.unregister(self._at_exit)
        return True

    def _end(self) -> None:
        with self._reading:
            self._close_reader()
        if self._connection is not None and self.owner:
            # Where that fails, whoever opens one of its sessions sees that it is dead.
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("DELETE FROM owners WHERE number = ?", (self.owner,))
        if self._file is not None:
            self._file.free()
        self.owner, self._file = 0, None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _at_exit(self) -> None:
        if os.getpid() == self._key[0] and self.thread.is_alive():
            self.uses = 0
            self._queue.put(_Task(None, end=True))
            self.thread.join(_EXIT_S)

    # ── a group of tasks ─────────────────────────────────────────────────────────────────────────

    def _do(self, tasks: list[_Task]) -> None:
        """Do all in one transaction. What goes wrong with the database goes wrong for all."""
        try:
            connection = self._connected()
            if not self.place.read_only and not self.owner:
                self._become_owner(connection)
            connection.execute("BEGIN" if self.place.read_only else "BEGIN IMMEDIATE")
            try:
                self._do_each(connection, tasks)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as cause:
            self._failed(tasks, store_error(cause, self.place.path), cause)
        except OSError as cause:
            text = f"{self._lock_path(0)} and the like cannot be made: {cause.strerror}."
            self._failed(tasks, StoreError(text), cause)
        except StoreError as error:
            self._failed(tasks, error, None)
        except Exception as error:  # noqa: BLE001 - a bug: who waits is told, the thread goes on
            for task in tasks:
                task.error = error

    def _failed(self, tasks: list[_Task], error: StoreError, cause: Exception | None) -> None:
        for task in tasks:
            # Each its own: an exception gathers the frames of everyone who raises it.
            task.error = StoreError(str(error))
            task.error.__cause__ = cause

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self.place.identity() == self._identity:
                return self._connection
            if self.logs:
                raise StoreError(
                    f"{self.place.path} was moved or replaced: what is written now would be lost. "
                    "Sessions that are open go on when it is back."
                )
            self._end()
        self.place.make()
        connection = self.place.connect()
        try:
            _schema.bring_up(connection, self.place.path, self.place.read_only)
            self._identity = self.place.identity()
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _become_owner(self, connection: sqlite3.Connection) -> None:
        """Write this process down as an owner, with its file locked before anybody can see it."""
        file: LockFile | None = None
        number = 0
        connection.execute("BEGIN IMMEDIATE")
        try:
            while file is None:  # a file that is locked: a number of a backup that was restored
                cursor = connection.execute(
                    "INSERT INTO owners (pid, host, since) VALUES (?, ?, ?)",
                    (os.getpid(), socket.gethostname(), time.time()),
                )
                number = cursor.lastrowid or 0
                file = LockFile.take(self._lock_path(number))
            for (other,) in connection.execute("SELECT number FROM owners").fetchall():
                if other != number and not is_alive(self._lock_path(other)):
                    connection.execute("UPDATE sessions SET owner = NULL WHERE owner = ?", (other,))
                    connection.execute("DELETE FROM owners WHERE number = ?", (other,))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if file is not None:
                file.free()
            raise
        self.owner, self._file = number, file

    def _lock_path(self, owner: int) -> str:
        return f"{self.place.path}-owner-{owner}"

    def _do_each(self, connection: sqlite3.Connection, tasks: list[_Task]) -> None:
        appends: list[_Task] = []
        for task in tasks:
            if isinstance(task.what, Append):
                appends.append(task)
                continue
            self._append(connection, appends)
            appends = []
            self._guarded(connection, task, task.what)
        self._append(connection, appends)

    def _append(self, connection: sqlite3.Connection, tasks: list[_Task]) -> None:
        appends = [task.what for task in tasks if isinstance(task.what, Append)]
        if not appends:
            return
        connection.execute("SAVEPOINT appends")
        done = append_all(connection, appends, self.now())
        if not done:
            connection.execute("ROLLBACK TO appends")
        connection.execute("RELEASE appends")
        if not done:
            # One was repeated, or may not be: each by itself, to see which.
            for task, append in zip(tasks, appends, strict=True):
                self._guarded(connection, task, _one(append, self.now()))

    def _guarded(self, connection: sqlite3.Connection, task: _Task, work: Work[Any] | None) -> None:
        """Do one thing; if it is refused, nothing of it is kept, and the others go on."""
        if work is None:
            return
        connection.execute("SAVEPOINT one")
        try:
            task.result = work(connection)
        except SessionError as error:
            task.error = error
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")


def _nothing(_connection: sqlite3.Connection) -> None:
    """Do nothing: what is wanted is what comes before it."""


def _one(append: Append, now: float) -> Work[None]:
    return lambda connection: append_one(connection, append, now)


def _deliver(tasks: list[_Task]) -> None:
    """Tell those who wait, each loop with one wake-up."""
    loops: dict[asyncio.AbstractEventLoop, list[_Task]] = {}
    for task in tasks:
        if task.pending is not None:
            loops.setdefault(task.pending.loop, []).append(task)
    for loop, of_loop in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, of_loop)


def _settle(tasks: list[_Task]) -> None:
    for task in tasks:
        if task.pending is not None:
            task.pending.settle(task.result, task.error)
