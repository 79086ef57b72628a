"""The task that writes: it commits together what was asked for meanwhile.

It has a connection of its own, which holds the lock that says that this owner of sessions lives.
When the server is lost, what was asked for waits for it to come back, and is asked for again: what
had been kept after all is not kept twice.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from vllm_agent_sdk.errors import SessionError, StoreError
from vllm_agent_sdk.sessions.postgres._server import Connection, DatabaseError, Pool, Server
from vllm_agent_sdk.sessions.postgres._work import Append, append_all, append_one, become_owner
from vllm_agent_sdk.sessions.store import Pending

__all__ = ["Engine", "Work", "use"]

T = TypeVar("T")

#: What is done with a connection.
Work: TypeAlias = Callable[[Connection], Awaitable[T]]
#: The server's and the schema's names, and the patience.
_Key: TypeAlias = tuple[tuple[str, ...], float]

#: Things done in one transaction at most.
_GROUP = 1024
#: Seconds between two tries to reach a server that was lost: the first, doubled up to the last.
_PAUSES_S = (0.05, 1.0)


@dataclass(slots=True)
class _Task:
    """Something to be done in a transaction, and who waits for it."""

    what: Append | Work[Any]
    pending: Pending[Any]
    result: Any = None
    error: Exception | None = None


#: By loop, then by place: stores that name the same one share its engine.
_engines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, Engine]] = WeakKeyDictionary()


def use(server: Server, patience_s: float) -> Engine:
    """Give the engine of a place, to be released after use."""
    engines = _engines.setdefault(asyncio.get_running_loop(), {})
    key = (server.place, patience_s)
    engine = engines.get(key)
    if engine is None:
        engine = engines[key] = Engine(server, patience_s)
    engine.uses += 1
    return engine


class Engine:
    """Writes to one schema, and reads from it; of one event loop.

    Attributes:
        owner: This engine's number among the owners of sessions, once it has one.
        opened: The ids of the sessions that are open here.
        uses: How many users it has.
    """

    def __init__(self, server: Server, patience_s: float) -> None:
        self.server = server
        self.loop = asyncio.get_running_loop()
        self.owner = 0
        self.opened: set[str] = set()
        self.uses = 0
        self._patience_s = patience_s
        self._tasks: deque[_Task] = deque()
        self._news = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._pool: Pool | None = None
        self._pool_lock = asyncio.Lock()
        self._now = 0.0

    def submit(self, what: Append | Work[T]) -> Pending[T]:
        """Have something done in a transaction; `await` it: then it is durable."""
        pending: Pending[T] = Pending()
        self._tasks.append(_Task(what, pending))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name=f"sessions {self.server.name}")
        self._news.set()
        return pending

    async def read(self, work: Work[T]) -> T:
        """Read what is durable, beside what is being written. Raises `StoreError`."""
        begun = time.monotonic()
        while True:
            try:
                pool = await self._opened_pool()
                async with pool.connection() as connection:
                    return await work(connection)
            except DatabaseError as cause:
                # A server that was never reached is not waited for.
                known = self._pool is not None or self.owner != 0
                late = time.monotonic() - begun > self._patience_s
                if late or not known or not self.server.is_gone(cause, None):
                    raise self.server.error(cause) from cause
            await asyncio.sleep(_PAUSES_S[0])

    async def _opened_pool(self) -> Pool:
        async with self._pool_lock:
            if self._pool is None:
                connection = await self.server.connect()
                try:
                    await self.server.bring_up(connection)
                finally:
                    await connection.close()
                pool = self.server.pool()
                await pool.open()
                self._pool = pool
            return self._pool

    def now(self) -> float:
        """Give the time, later than any this engine gave before."""
        self._now = max(time.time(), self._now + 1e-6)
        return self._now

    async def release(self) -> None:
        """Say that a user is gone; the last one closes the connections."""
        self.uses -= 1
        if not self.uses:
            _engines[self.loop].pop((self.server.place, self._patience_s), None)
            # Not to be cut: a cancelled user would leave the connections open.
            ending = asyncio.create_task(self._end())
            pending: Pending[None] = Pending()
            ending.add_done_callback(lambda _: pending.settle(None))
            await pending
            ending.result()

    async def _end(self) -> None:
        """Give up ownership, and close the connections."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        if self._connection is not None:
            # Where that fails, whoever opens one of its sessions sees that it is dead.
            with suppress(DatabaseError):
                await self._connection.execute(
                    "DELETE FROM owners WHERE number = %s", (self.owner,)
                )
            await self._connection.close()
        if self._pool is not None:
            await self._pool.close()

    # ── the task ─────────────────────────────────────────────────────────────────────────────────

    async def _write(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._tasks:
                group = [self._tasks.popleft() for _ in range(min(len(self._tasks), _GROUP))]
                await self._do(group)
                for task in group:
                    task.pending.settle(task.result, task.error)

    async def _do(self, tasks: list[_Task]) -> None:
        """Do all in one transaction, again if the server is lost and comes back in time."""
        begun, pause = time.monotonic(), _PAUSES_S[0]
        while True:
            for task in tasks:
                task.result = task.error = None
            try:
                connection = await self._connected()
                async with connection.transaction():
                    await self._do_each(connection, tasks)
            except DatabaseError as cause:
                known = self.owner != 0
                gone = self.server.is_gone(cause, self._connection)
                if gone or self._connection is None:
                    await self._drop()
                if not known or not gone or time.monotonic() - begun > self._patience_s:
                    self._failed(tasks, self.server.error(cause), cause)
                    return
            except StoreError as error:
                self._failed(tasks, error, None)
                return
            except Exception as error:  # noqa: BLE001 - a bug: who waits is told, the task goes on
                for task in tasks:
                    task.error = error
                return
            else:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSES_S[1])

    @staticmethod
    def _failed(tasks: list[_Task], error: StoreError, cause: Exception | None) -> None:
        for task in tasks:
            # Each its own: an exception gathers the frames of everyone who raises it.
            task.error = StoreError(str(error))
            task.error.__cause__ = cause

    async def _connected(self) -> Connection:
        if self._connection is not None:
            return self._connection
        connection = await self.server.connect()
        try:
            await self.server.bring_up(connection)
            if not self.owner:
                self.owner = await become_owner(
                    connection,
                    self.server.lock_class,
                    os.getpid(),
                    socket.gethostname(),
                    time.time(),
                )
            else:
                # The same owner as before: sessions that were taken over meanwhile name another.
                await connection.execute(
                    "SELECT pg_advisory_lock(%s, %s)", (self.server.lock_class, self.owner)
                )
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return connection

    async def _drop(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _do_each(self, connection: Connection, tasks: list[_Task]) -> None:
        appends: list[_Task] = []
        for task in tasks:
            if isinstance(task.what, Append):
                appends.append(task)
                continue
            await self._append(connection, appends)
            appends = []
            await self._guarded(connection, task, task.what)
        await self._append(connection, appends)

    async def _append(self, connection: Connection, tasks: list[_Task]) -> None:
        appends = [task.what for task in tasks if isinstance(task.what, Append)]
        if not appends:
            return
        try:
            async with connection.transaction():
                if not await append_all(connection, appends, self.owner, self.now()):
                    raise _NotAllError
        except _NotAllError:
            # One was repeated, or may not be: each by itself, to see which.
            for task, append in zip(tasks, appends, strict=True):
                await self._guarded(connection, task, self._one(append))

    def _one(self, append: Append) -> Work[None]:
        return lambda connection: append_one(connection, append, self.owner, self.now())

    @staticmethod
    async def _guarded(connection: Connection, task: _Task, work: Work[Any]) -> None:
        """Do one thing; if it is refused, nothing of it is kept, and the others go on."""
        try:
            async with connection.transaction():
                task.result = await work(connection)
        except SessionError as error:
            task.error = error


class _NotAllError(Exception):
    """Not all sessions stand as was expected."""
