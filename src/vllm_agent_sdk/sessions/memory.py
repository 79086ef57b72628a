"""Sessions in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from vllm_agent_sdk.errors import SessionLockedError, StoreError
from vllm_agent_sdk.sessions.store import (
    SessionLog,
    SessionQuery,
    Snapshot,
    check_id,
    check_numbers,
    check_snapshot,
    named,
    not_found,
    said,
)
from vllm_agent_sdk.types.event_lines import write_line
from vllm_agent_sdk.types.events import StoredEvent
from vllm_agent_sdk.types.sessions import SessionInfo

__all__ = ["MemoryStore"]

_HOLDER = "this process"


@dataclass
class _Kept:
    """What is kept of a session."""

    id: str
    created_at: float
    updated_at: float
    events: list[StoredEvent] = field(default_factory=list[StoredEvent])
    title: str | None = None
    tags: tuple[str, ...] = ()
    writer: _MemorySession | None = None
    snapshot: Snapshot | None = None

    def info(self) -> SessionInfo:
        return SessionInfo(
            id=self.id,
            title=self.title,
            tags=self.tags,
            created_at=self.created_at,
            updated_at=self.updated_at,
            events=len(self.events),
            size_bytes=sum(len(write_line(event)) for event in self.events),
            holder=None if self.writer is None else _HOLDER,
        )

    def has(self, text: str) -> bool:
        called = named(self.id, self.title, self.tags)
        return text in called or any(text in said(event) for event in self.events)


class MemoryStore:
    """Sessions that last as long as this object (`SessionStore`)."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Kept] = {}
        self._last_change = 0.0

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._sessions)} sessions)"

    async def open(self, session_id: str, *, create: bool = True) -> SessionLog:
        """Become the one writer of a session. Raises as `SessionStore.open` does."""
        session = self._sessions.get(check_id(session_id))
        if session is None:
            if not create:
                raise not_found(session_id, self)
            now = self.now()
            session = self._sessions[session_id] = _Kept(session_id, now, now)
        self._not_open(session)
        session.writer = _MemorySession(self, session)
        return session.writer

    async def read(
        self, session_id: str, after: int = 0, limit: int | None = None
    ) -> Sequence[StoredEvent]:
        """Give the events after a sequence number, in order, also of a session that is open."""
        events = self._known(session_id).events
        return events[after : None if limit is None else after + limit]

    async def stat(self, session_id: str) -> SessionInfo:
        """Describe a session."""
        return self._known(session_id).info()

    async def sessions(self, query: SessionQuery) -> Sequence[SessionInfo]:
        """Describe sessions, the one that was written to last first."""
        text = None if query.text is None else query.text.casefold()
        found = [
            session
            for session in self._sessions.values()
            if (query.before is None or (session.updated_at, session.id) < query.before)
            and (query.tag is None or query.tag in session.tags)
            and (text is None or session.has(text))
        ]
        found.sort(key=lambda session: (session.updated_at, session.id), reverse=True)
        return [session.info() for session in found[: query.limit]]

    async def describe(self, session_id: str, *, title: str | None, tags: tuple[str, ...]) -> None:
        """Set what a session is called, and its tags."""
        session = self._known(session_id)
        session.title, session.tags = title, tags

    async def delete(self, session_id: str) -> None:
        """Remove a session, its log and its snapshot."""
        self._not_open(self._known(session_id))
        del self._sessions[session_id]

    async def aclose(self) -> None:
        """Do nothing: the sessions stay until the store is gone."""

    def now(self) -> float:
        """Give the time, later than any time before."""
        self._last_change = max(time.time(), self._last_change + 1e-6)
        return self._last_change

    def _known(self, session_id: str) -> _Kept:
        session = self._sessions.get(check_id(session_id))
        if session is None:
            raise not_found(session_id, self)
        return session

    def _not_open(self, session: _Kept) -> None:
        if session.writer is not None:
            raise SessionLockedError(
                f"Session {session.id!r} is open already, in this process; close it first.",
                holder=_HOLDER,
            )


class _MemorySession:
    def __init__(self, store: MemoryStore, session: _Kept) -> None:
        self._store = store
        self._session = session

    async def append(self, *events: StoredEvent) -> None:
        session = self._open()
        if not events:
            return
        first, last = check_numbers(events), len(session.events)
        if first > last + 1:
            raise StoreError(f"Event {last + 1} is missing: the next one given is {first}.")
        for known, event in zip(session.events[first - 1 :], events, strict=False):
            if known is not event and write_line(known) != write_line(event):
                raise StoreError(f"Event {event.seq} of {session.id!r} is another one already.")
        fresh = events[last + 1 - first :]
        if fresh:
            session.events.extend(fresh)
            session.updated_at = self._store.now()

    async def read(self, after: int = 0) -> Sequence[StoredEvent]:
        return self._session.events[after:]

    async def snapshot(self) -> Snapshot | None:
        return self._open().snapshot

    async def keep_snapshot(self, snapshot: Snapshot) -> None:
        session = self._open()
        kept = 0 if session.snapshot is None else session.snapshot.seq
        check_snapshot(snapshot, len(session.events), kept)
        session.snapshot = snapshot

    async def aclose(self) -> None:
        if self._session.writer is self:
            self._session.writer = None

    def _open(self) -> _Kept:
        if self._session.writer is not self:
            raise StoreError(f"The log of session {self._session.id!r} is closed.")
        return self._session
