"""The log that a run is written to before it is acted on, and the store of such logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from vllm_agent_sdk.errors import SessionLockedError, SessionNotFoundError
from vllm_agent_sdk.types.events import StoredEvent

__all__ = ["EventLog", "MemoryLog", "MemoryStore", "SessionLog", "SessionStore"]


class EventLog(Protocol):
    """An append-only log of events."""

    async def append(self, *events: StoredEvent) -> None:
        """Keep the events, all or none; they are durable when this returns."""
        ...


class SessionLog(EventLog, Protocol):
    """The log of an open session. Who holds it is the session's one writer."""

    async def read(self, after: int = 0) -> Sequence[StoredEvent]:
        """Give the events after a sequence number, in order."""
        ...

    async def aclose(self) -> None:
        """Give the session free for others. Idempotent."""
        ...


@runtime_checkable
class SessionStore(Protocol):
    """Where sessions are kept."""

    async def open(self, session_id: str, *, create: bool = True) -> SessionLog:
        """Become the one writer of a session.

        Args:
            session_id: Its id.
            create: Make it if there is none.

        Raises:
            SessionNotFoundError: There is none, and it is not to be made.
            SessionLockedError: Another writer has it.
        """
        ...

    async def latest(self) -> str | None:
        """Give the id of the session that was written to last, or `None`."""
        ...


class MemoryLog:
    """A log that lasts as long as the process (`EventLog`)."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []

    async def append(self, *events: StoredEvent) -> None:
        """Keep the events."""
        self.events.extend(events)


class MemoryStore:
    """Sessions that last as long as this object (`SessionStore`)."""

    def __init__(self) -> None:
        self._sessions: dict[str, list[StoredEvent]] = {}
        self._open: set[str] = set()

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._sessions)} sessions)"

    async def open(self, session_id: str, *, create: bool = True) -> SessionLog:
        """Become the one writer of a session.

        Raises:
            SessionNotFoundError: There is none, and it is not to be made.
            SessionLockedError: It is open already.
        """
        if session_id in self._open:
            raise SessionLockedError(
                f"Session {session_id!r} is open already, in this process; close it first.",
                holder="this process",
            )
        if session_id not in self._sessions and not create:
            raise SessionNotFoundError(
                f"There is no session {session_id!r} in {self!r}; create=True makes one."
            )
        # What is written last is at the end.
        events = self._sessions.pop(session_id, [])
        self._sessions[session_id] = events
        self._open.add(session_id)
        return _MemorySession(self, session_id, events)

    async def latest(self) -> str | None:
        """Give the id of the session that was opened or written to last, or `None`."""
        return next(reversed(self._sessions), None)

    def closed(self, session_id: str) -> None:
        """Take note that a session has no writer any more."""
        self._open.discard(session_id)

    def written(self, session_id: str) -> None:
        """Take note that a session was written to."""
        self._sessions[session_id] = self._sessions.pop(session_id)


class _MemorySession:
    def __init__(self, store: MemoryStore, session_id: str, events: list[StoredEvent]) -> None:
        self._store = store
        self._id = session_id
        self._events = events

    async def append(self, *events: StoredEvent) -> None:
        self._events.extend(events)
        self._store.written(self._id)

    async def read(self, after: int = 0) -> Sequence[StoredEvent]:
        return self._events[after:]

    async def aclose(self) -> None:
        self._store.closed(self._id)
