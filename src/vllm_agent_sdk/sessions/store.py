"""The log that a run is written to before it is acted on, and the store of such logs."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from vllm_agent_sdk.errors import SessionNotFoundError, StoreError, UsageError
from vllm_agent_sdk.types.events import MessageAdded, ModelEnded, StoredEvent
from vllm_agent_sdk.types.sessions import SessionInfo

__all__ = [
    "EventLog",
    "MemoryLog",
    "Pending",
    "SessionLog",
    "SessionQuery",
    "SessionStore",
    "Snapshot",
    "check_id",
    "check_numbers",
    "check_snapshot",
    "named",
    "not_found",
    "said",
]

T = TypeVar("T")

#: The longest id of a session, in characters.
MAX_ID = 200

#: The largest snapshot, in bytes: a value of SQLite and of PostgreSQL ends below 1 GB.
MAX_SNAPSHOT = 256 * 1024 * 1024


class EventLog(Protocol):
    """An append-only log of events."""

    async def append(self, *events: StoredEvent) -> None:
        """Keep the events, all or none; they are durable when this returns.

        Events are numbered (`seq`) from 1, without a gap. One that is kept already is kept once.
        A cancelled append has kept nothing, or it returns as if it had not been cancelled and the
        next thing that is awaited raises (`Pending`).

        Raises:
            StoreError: They could not be kept; a number is missing, or has another event already.
            SessionLockedError: Another owner has taken the session over.
        """
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a session's log has come to, so that the next opening need not read all of it.

    It is a cache: a session whose snapshot is lost reads its whole log, and nothing else changes.

    Attributes:
        seq: The number of the last event that it stands for.
        data: Bytes that mean nothing to a store.
    """

    seq: int
    data: bytes


class SessionLog(EventLog, Protocol):
    """The log of an open session. Who holds it is the session's one writer."""

    async def read(self, after: int = 0) -> Sequence[StoredEvent]:
        """Give the events after a sequence number, in order."""
        ...

    async def snapshot(self) -> Snapshot | None:
        """Give the snapshot that was kept last, `None` if there is none.

        Raises:
            StoreError: It cannot be read.
        """
        ...

    async def keep_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, in place of the one before; the session's last change stays when it was.

        Raises:
            StoreError: It could not be kept: the log has no event of its number, it is older than
                the one that is kept, or larger than 256 MiB; the one before stays.
            SessionLockedError: Another owner has taken the session over.
        """
        ...

    async def aclose(self) -> None:
        """Give the session free for others. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """Which sessions are asked for.

    Attributes:
        limit: So many at most.
        before: Only those after this one in the order (time of the last event, then id).
        tag: Only those that have it.
        text: Only those that have it in id, title, tags or the text of a message; case-folded.
    """

    limit: int = 50
    before: tuple[float, str] | None = None
    tag: str | None = None
    text: str | None = None


@runtime_checkable
class SessionStore(Protocol):
    """Where sessions are kept.

    `vllm_agent_sdk.testing.store_contract` checks one of your own. Every method may raise
    `StoreError`, and `UsageError` for an id that cannot be one (`check_id`).
    """

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

    async def read(
        self, session_id: str, after: int = 0, limit: int | None = None
    ) -> Sequence[StoredEvent]:
        """Give the events after a sequence number, in order, also of a session that is open.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        ...

    async def stat(self, session_id: str) -> SessionInfo:
        """Describe a session.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        ...

    async def sessions(self, query: SessionQuery) -> Sequence[SessionInfo]:
        """Describe sessions, the one that was written to last first; ties by id, backwards."""
        ...

    async def describe(self, session_id: str, *, title: str | None, tags: tuple[str, ...]) -> None:
        """Set what a session is called, and its tags; its last change stays when it was.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        ...

    async def delete(self, session_id: str) -> None:
        """Remove a session, its log and its snapshot.

        Raises:
            SessionNotFoundError: There is no such session.
            SessionLockedError: It is open.
        """
        ...

    async def aclose(self) -> None:
        """Let go of files and connections; the store can be used again. Idempotent."""
        ...


class MemoryLog:
    """A log that lasts as long as the process (`EventLog`)."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []

    async def append(self, *events: StoredEvent) -> None:
        """Keep the events."""
        self.events.extend(events)


# ── what all stores need ─────────────────────────────────────────────────────────────────────────


def check_id(session_id: str) -> str:
    """Give an id back that can be one: 1 to 200 printable characters, no slash, no backslash.

    Raises:
        UsageError: It cannot be one.
    """
    if not session_id:
        raise UsageError("A session id is not empty.")
    bad = "/" in session_id or "\\" in session_id or session_id.strip(".") == ""
    if bad or not session_id.isprintable():
        raise UsageError(
            f"A session id has no slash, backslash or control character: {session_id!r}."
        )
    if len(session_id) > MAX_ID:
        raise UsageError(f"A session id has {MAX_ID} characters at most, not {len(session_id)}.")
    return session_id


def not_found(session_id: str, where: object) -> SessionNotFoundError:
    """Make the error for a session that is not there."""
    return SessionNotFoundError(f"There is no session {session_id!r} in {where!r}.")


def check_numbers(events: Sequence[StoredEvent]) -> int:
    """Give the number of the first of some events, which follow each other.

    Raises:
        StoreError: They don't, or have no numbers.
    """
    first = events[0].seq
    if first is None or first < 1:
        raise StoreError(f"An event of a session's log is numbered from 1; this one: {first}.")
    for expected, event in enumerate(events, first):
        if event.seq != expected:
            raise StoreError(f"Event {expected} is missing: the next one given is {event.seq}.")
    return first


def check_snapshot(snapshot: Snapshot, events: int, kept: int) -> None:
    """Check whether a snapshot may be kept.

    Args:
        snapshot: What is to be kept.
        events: The number of the last event of the log.
        kept: That of the snapshot that is there, 0 for none; one that the log has not is no bar.

    Raises:
        StoreError: It may not.
    """
    if not 1 <= snapshot.seq <= events:
        raise StoreError(
            f"A snapshot of event {snapshot.seq} cannot be kept: the log has {events} events."
        )
    if snapshot.seq < kept <= events:
        raise StoreError(
            f"A snapshot of event {snapshot.seq} is older than the one of event {kept} that is "
            "kept."
        )
    if len(snapshot.data) > MAX_SNAPSHOT:
        raise StoreError(
            f"A snapshot of {len(snapshot.data):,} bytes is not kept: {MAX_SNAPSHOT:,} at most."
        )


def said(event: StoredEvent) -> str:
    """Give the text of the message in an event, case-folded; empty where there is none."""
    if isinstance(event, (MessageAdded, ModelEnded)) and event.message is not None:
        return event.message.text.casefold()
    return ""


def named(session_id: str, title: str | None, tags: tuple[str, ...]) -> str:
    """Give what a session is called, case-folded, for searching."""
    return "\n".join([session_id, title or "", *tags]).casefold()


class Pending(Generic[T]):
    """Something a writer was asked for; `await` gives its result.

    It is not to be cut: who waits for it and is cancelled meanwhile gets the result all the same,
    and the cancellation with the next thing that is awaited. So what was kept is taken note of.
    """

    __slots__ = ("_future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._future: asyncio.Future[T] = self.loop.create_future()

    def settle(self, result: T, error: Exception | None = None) -> None:
        """Say how it went; on the loop it was made on."""
        if self._future.done():
            return
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    def __await__(self) -> Generator[Any, None, T]:
        cancelled = False
        while True:
            try:
                yield from self._future
            except asyncio.CancelledError:
                cancelled = True
                if self._future.cancelled():
                    self._future = self.loop.create_future()
                    continue
            except Exception:  # noqa: BLE001, S110 - it is the result, and raised with it
                pass
            break
        if cancelled and (task := asyncio.current_task()) is not None:
            # In place of the one that was caught: `asyncio.timeout` counts them.
            task.uncancel()
            task.cancel()
        return self._future.result()
