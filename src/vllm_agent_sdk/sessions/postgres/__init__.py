"""Sessions in a PostgreSQL database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from vllm_agent_sdk.errors import SessionLockedError, StoreError, UsageError
from vllm_agent_sdk.sessions.store import (
    SessionLog,
    SessionQuery,
    Snapshot,
    check_id,
    check_numbers,
    said,
)
from vllm_agent_sdk.types.event_lines import read_line, write_line
from vllm_agent_sdk.types.events import StoredEvent
from vllm_agent_sdk.types.sessions import SessionInfo

if TYPE_CHECKING:
    from vllm_agent_sdk.sessions.postgres._engine import Engine, Work

__all__ = ["PostgresStore"]

T = TypeVar("T")

#: Seconds that the server has to notice that the connection of a dead process is gone.
_GRACE_S = 0.5
_PAUSE_S = 0.05


class PostgresStore:
    """Sessions in a PostgreSQL database (`SessionStore`): many machines may share it.

    Writes go through one connection, which commits together what comes together; reads through a
    pool. That connection holds an advisory lock, by which others see that this process lives: give
    a connection to the server itself, not to a pooler that hands out transactions. When the server
    goes away, appends and reads wait for it, and go on where they were.

    Connections are opened when they are needed and closed with the last session, unless the store
    is kept open by `async with`. Stores of one schema share them, on one event loop.

    Args:
        conninfo: As libpq takes it: `"postgresql://user:password@host/database"`, or `key=value`
            pairs. What it leaves out is read from libpq's own variables (`PGHOST`, …).
        schema: The schema of the tables, made if there is none.
        max_connections: For reading, at most.
        patience_s: Seconds that a server which was lost has to come back.

    Raises:
        UsageError: The extra `postgres` is not installed, or an argument is wrong.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        schema: str = "vllm_agent",
        max_connections: int = 4,
        patience_s: float = 30.0,
    ) -> None:
        try:
            from vllm_agent_sdk.sessions.postgres._server import Server
        except ImportError as cause:
            raise UsageError(
                "PostgresStore needs psycopg: pip install 'vllm-agent-sdk[postgres]'."
            ) from cause
        if max_connections < 1:
            raise UsageError(f"max_connections={max_connections}: it is 1 or more.")
        self._server = Server(conninfo, schema, max_connections)
        self._patience_s = patience_s
        self._entered: list[Engine] = []

    def __repr__(self) -> str:
        return f"PostgresStore({self._server.name}, schema={self._server.schema!r})"

    async def __aenter__(self) -> Self:
        self._entered.append(self._use())
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def open(self, session_id: str, *, create: bool = True) -> SessionLog:
        """Become the one writer of a session.

        Args:
            session_id: Its id.
            create: Make it if there is none.

        Raises:
            SessionNotFoundError: There is none, and it is not to be made.
            SessionLockedError: Another session object, here or in another process, has it.
            StoreError: The server cannot be reached, or refuses.
        """
        from vllm_agent_sdk.sessions.postgres import _work

        check_id(session_id)
        engine = self._use()
        if session_id in engine.opened:
            engine.uses -= 1
            raise self._open_here(session_id)
        engine.opened.add(session_id)
        give_up = engine.loop.time() + _GRACE_S
        try:
            while True:
                try:
                    number = await engine.submit(
                        lambda c: _work.open_session(
                            c,
                            session_id,
                            owner=engine.owner,
                            create=create,
                            lock_class=engine.server.lock_class,
                            now=engine.now(),
                        )
                    )
                except SessionLockedError:
                    if engine.loop.time() > give_up:
                        raise
                    await asyncio.sleep(_PAUSE_S)
                else:
                    return _Log(engine, number, session_id)
        except BaseException:
            engine.opened.discard(session_id)
            await engine.release()
            raise

    async def read(
        self, session_id: str, after: int = 0, limit: int | None = None
    ) -> Sequence[StoredEvent]:
        """Give the events after a sequence number, in order, also of a session that is open.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        from vllm_agent_sdk.sessions.postgres import _work

        check_id(session_id)
        lines = await self._read(lambda c: _work.read_lines(c, session_id, after, limit))
        return [read_line(line) for line in lines]

    async def stat(self, session_id: str) -> SessionInfo:
        """Describe a session.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        from vllm_agent_sdk.sessions.postgres import _work

        check_id(session_id)
        return await self._read(lambda c: _work.stat_session(c, session_id))

    async def sessions(self, query: SessionQuery) -> Sequence[SessionInfo]:
        """Describe sessions, the one that was written to last first."""
        from vllm_agent_sdk.sessions.postgres import _work

        return await self._read(lambda c: _work.list_sessions(c, query))

    async def describe(self, session_id: str, *, title: str | None, tags: tuple[str, ...]) -> None:
        """Set what a session is called, and its tags.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        from vllm_agent_sdk.sessions.postgres import _work

        check_id(session_id)
        engine = self._use()
        try:
            await engine.submit(lambda c: _work.describe_session(c, session_id, title, tags))
        finally:
            await engine.release()

    async def delete(self, session_id: str) -> None:
        """Remove a session, its log and its snapshot.

        Raises:
            SessionNotFoundError: There is no such session.
            SessionLockedError: It is open.
        """
        from vllm_agent_sdk.sessions.postgres import _work

        check_id(session_id)
        engine = self._use()
        lock_class = engine.server.lock_class
        try:
            if session_id in engine.opened:
                raise self._open_here(session_id)
            await engine.submit(
                lambda c: _work.delete_session(c, session_id, engine.owner, lock_class)
            )
        finally:
            await engine.release()

    async def aclose(self) -> None:
        """Close the connections, once no session is open. Idempotent; usable again."""
        if self._entered:
            await self._entered.pop().release()

    # ── its engine ───────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def _open_here(session_id: str) -> SessionLockedError:
        return SessionLockedError(
            f"Session {session_id!r} is open already, in this process; close it first.",
            holder=f"process {os.getpid()} (this one)",
        )

    def _use(self) -> Engine:
        from vllm_agent_sdk.sessions.postgres._engine import use

        return use(self._server, self._patience_s)

    async def _read(self, work: Work[T]) -> T:
        engine = self._use()
        try:
            return await engine.read(work)
        finally:
            await engine.release()


class _Log:
    """The log of a session that is open here."""

    __slots__ = ("_closed", "_engine", "_id", "_number")

    def __init__(self, engine: Engine, number: int, session_id: str) -> None:
        self._engine = engine
        self._number = number
        self._id = session_id
        self._closed = False

    async def append(self, *events: StoredEvent) -> None:
        from vllm_agent_sdk.sessions.postgres import _work

        self._check_open()
        if not events:
            return
        first = check_numbers(events)
        # PostgreSQL's text has no NUL; for searching a gap is as good.
        rows = [(write_line(event), said(event).replace("\0", " ") or None) for event in events]
        append = _work.Append(self._number, self._id, first, rows)
        await self._engine.submit(append)

    async def read(self, after: int = 0) -> Sequence[StoredEvent]:
        from vllm_agent_sdk.sessions.postgres import _work

        self._check_open()
        lines = await self._engine.read(lambda c: _work.read_lines(c, self._id, after, None))
        return [read_line(line) for line in lines]

    async def snapshot(self) -> Snapshot | None:
        from vllm_agent_sdk.sessions.postgres import _work

        self._check_open()
        return await self._engine.read(lambda c: _work.read_snapshot(c, self._number))

    async def keep_snapshot(self, snapshot: Snapshot) -> None:
        from vllm_agent_sdk.sessions.postgres import _work

        self._check_open()
        engine, number = self._engine, self._number
        await engine.submit(
            lambda c: _work.keep_snapshot(c, number, self._id, engine.owner, snapshot)
        )

    async def aclose(self) -> None:
        from vllm_agent_sdk.sessions.postgres import _work

        if self._closed:
            return
        self._closed = True
        engine, number = self._engine, self._number
        try:
            await engine.submit(lambda c: _work.close_session(c, number, engine.owner))
        except StoreError:
            pass  # free here, all the same; for others when this store has let go of its lock
        finally:
            engine.opened.discard(self._id)
            await engine.release()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"The log of session {self._id!r} is closed.")
