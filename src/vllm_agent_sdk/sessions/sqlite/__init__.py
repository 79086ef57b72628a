"""Sessions in an SQLite file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar

from vllm_agent_sdk.errors import StoreError, UsageError
from vllm_agent_sdk.sessions.sqlite import _work
from vllm_agent_sdk.sessions.sqlite._engine import Engine, Work, end_if_idle, use
from vllm_agent_sdk.sessions.sqlite._place import Place
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

__all__ = ["SQLiteStore"]

T = TypeVar("T")


class SQLiteStore:
    """Sessions in an SQLite file (`SessionStore`): what was acknowledged survives any crash.

    Writes go through one thread for each file of a process, which commits together what comes
    together (write-ahead log, `synchronous=FULL`). Processes may share the file, never a session.
    A process that died leaves no lock behind. Nothing is opened before it is needed; what is open
    is closed a second after the last use, or by `aclose()`.

    Args:
        path: The file, made if there is none, readable for this user alone; its folder must be
            there. An SQLite URI (`"file:agents.db?mode=ro"`) opens it for reading only.

    Raises:
        UsageError: The path names no file (`":memory:"`, say).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._place = Place(path)

    def __repr__(self) -> str:
        return repr(self._place)

    @property
    def path(self) -> str:
        """The file, as an absolute path."""
        return self._place.path

    async def __aenter__(self) -> Self:
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
            StoreError: The file cannot be used; the message says why.
        """
        check_id(session_id)
        if self._place.read_only:
            raise StoreError(f"{self.path} is read-only: no session can be opened in it.")
        engine = use(self._place)

        def work(connection: sqlite3.Connection) -> tuple[int, int]:
            return _work.open_session(
                connection,
                session_id,
                owner=engine.owner,
                create=create,
                holds=engine.holds,
                now=engine.now(),
            )

        try:
            number, events = await engine.submit(work)
        except BaseException:
            engine.release()
            raise
        engine.opened(number)
        return _Log(engine, number, session_id, empty=not events)

    async def read(
        self, session_id: str, after: int = 0, limit: int | None = None
    ) -> Sequence[StoredEvent]:
        """Give the events after a sequence number, in order, also of a session that is open.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        check_id(session_id)
        lines = await self._read(lambda c: _work.read_lines(c, session_id, after, limit))
        return [read_line(line) for line in lines]

    async def stat(self, session_id: str) -> SessionInfo:
        """Describe a session.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        check_id(session_id)
        return await self._read(lambda c: _work.stat_session(c, session_id))

    async def sessions(self, query: SessionQuery) -> Sequence[SessionInfo]:
        """Describe sessions, the one that was written to last first."""
        return await self._read(lambda c: _work.list_sessions(c, query))

    async def describe(self, session_id: str, *, title: str | None, tags: tuple[str, ...]) -> None:
        """Set what a session is called, and its tags.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        check_id(session_id)
        await self._write(lambda c: _work.describe_session(c, session_id, title, tags))

    async def delete(self, session_id: str) -> None:
        """Remove a session, its log and its snapshot.

        Raises:
            SessionNotFoundError: There is no such session.
            SessionLockedError: It is open.
        """
        check_id(session_id)
        engine = use(self._place)
        try:
            await engine.submit(lambda c: _work.delete_session(c, session_id, engine.holds))
        finally:
            engine.release()

    async def aclose(self) -> None:
        """Let go of the file, unless sessions are open in it. Idempotent; usable again."""
        await end_if_idle(self._place)

    async def _read(self, work: Work[T]) -> T:
        engine = use(self._place)
        try:
            return await engine.read(work)
        finally:
            engine.release()

    async def _write(self, work: Work[T]) -> T:
        engine = use(self._place)
        try:
            return await engine.submit(work)
        finally:
            engine.release()


class _Log:
    """The log of a session that is open here."""

    __slots__ = ("_closed", "_empty", "_engine", "_id", "_number")

    def __init__(self, engine: Engine, number: int, session_id: str, *, empty: bool) -> None:
        self._engine = engine
        self._number = number
        self._id = session_id
        self._empty = empty  # as the one writer it knows: there is nothing to be read yet
        self._closed = False

    async def append(self, *events: StoredEvent) -> None:
        self._check_open()
        if not events:
            return
        first = check_numbers(events)
        rows = [(write_line(event), said(event) or None) for event in events]
        append = _work.Append(self._number, self._id, self._engine.owner, first, rows)
        self._empty = False
        await self._engine.submit(append)

    async def read(self, after: int = 0) -> Sequence[StoredEvent]:
        self._check_open()
        if self._empty:
            await asyncio.sleep(0)  # who was cancelled while it was opened is told here
            return []
        lines = await self._engine.read(lambda c: _work.read_lines(c, self._id, after, None))
        return [read_line(line) for line in lines]

    async def snapshot(self) -> Snapshot | None:
        self._check_open()
        if self._empty:
            return None
        return await self._engine.read(lambda c: _work.read_snapshot(c, self._number))

    async def keep_snapshot(self, snapshot: Snapshot) -> None:
        self._check_open()
        number, owner = self._number, self._engine.owner
        await self._engine.submit(
            lambda c: _work.keep_snapshot(c, number, self._id, owner, snapshot)
        )

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        engine, number = self._engine, self._number
        try:
            await engine.submit(lambda c: _work.close_session(c, number, engine.owner))
        except UsageError:
            pass  # a child of the process that opened it: it is not the child's to give free
        except StoreError:
            # Free here, all the same; for others when this process ends.
            engine.left.add(number)
        finally:
            engine.release(log=True)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"The log of session {self._id!r} is closed.")
