"""What is done inside a transaction, on the thread that owns the connection."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vllm_agent_sdk.errors import SessionLockedError, SessionNotFoundError, StoreError
from vllm_agent_sdk.sessions.store import SessionQuery, Snapshot, check_snapshot, named
from vllm_agent_sdk.types.sessions import SessionInfo

__all__ = [
    "Append",
    "append_all",
    "append_one",
    "close_session",
    "delete_session",
    "describe_session",
    "keep_snapshot",
    "list_sessions",
    "open_session",
    "read_lines",
    "read_snapshot",
    "stat_session",
]

#: Tells whether the owner of a number still lives, and has the session of a number open.
Holds = Callable[[int, int], bool]

#: Rows in one INSERT at most: SQLite takes 32,766 values, and each number of rows is a statement
#: of its own in the connection's cache.
_ROWS = 128


@dataclass(slots=True)
class Append:
    """Lines for the log of a session.

    Attributes:
        session: The session's number.
        id: Its id.
        owner: Who appends.
        first: The number of the first line.
        rows: For each line, the line and the text said in it, if there is any.
    """

    session: int
    id: str
    owner: int
    first: int
    rows: list[tuple[bytes, str | None]]


# ── appending ────────────────────────────────────────────────────────────────────────────────────


def append_all(connection: sqlite3.Connection, appends: Sequence[Append], now: float) -> bool:
    """Append to many sessions, where all of them stand as is expected.

    Returns:
        False if one does not: then nothing that was done here may be kept.
    """
    changed = connection.executemany(
        "UPDATE sessions SET events = ?, size_bytes = size_bytes + ?, updated_at = ?"
        " WHERE number = ? AND owner = ? AND events = ?",
        [
            (
                each.first - 1 + len(each.rows),
                sum(len(line) for line, _ in each.rows),
                now,
                each.session,
                each.owner,
                each.first - 1,
            )
            for each in appends
        ],
    ).rowcount
    if changed != len(appends):
        return False
    _insert(
        connection,
        [
            value
            for each in appends
            for seq, (line, said) in enumerate(each.rows, each.first)
            for value in (each.session, seq, line, said)
        ],
    )
    return True


def _insert(connection: sqlite3.Connection, values: list[Any]) -> None:
    """Insert rows of four values, many with one statement: each one gives the other threads way."""
    at = 0
    rows = len(values) // 4
    size = _ROWS
    while rows:
        while size > rows:
            size //= 2
        places = ",".join(["(?,?,?,?)"] * size)
        connection.execute(
            f"INSERT INTO events (session, seq, line, said) VALUES {places}",  # noqa: S608
            values[at : at + 4 * size],
        )
        at += 4 * size
        rows -= size


def append_one(connection: sqlite3.Connection, append: Append, now: float) -> None:
    """Append to one session, whatever state it is in.

    Raises:
        SessionLockedError: It was taken over.
        StoreError: It is gone, a number is missing, or has another event already.
    """
    last = _last_event(connection, append.session, append.id, append.owner)
    if append.first > last + 1:
        raise StoreError(f"Event {last + 1} is missing: the next one given is {append.first}.")
    overlap = last + 1 - append.first
    known = connection.execute(
        "SELECT line FROM events WHERE session = ? AND seq >= ? ORDER BY seq LIMIT ?",
        (append.session, append.first, len(append.rows)),
    )
    for seq, ((line,), (given, _)) in enumerate(
        zip(known, append.rows, strict=False), append.first
    ):
        if line != given:
            raise StoreError(f"Event {seq} of {append.id!r} is another one already.")
    rest = append.rows[overlap:]
    if rest:
        whole = Append(append.session, append.id, append.owner, last + 1, rest)
        append_all(connection, [whole], now)


def _last_event(connection: sqlite3.Connection, session: int, id: str, owner: int) -> int:
    """Give the number of the last event of a session that is the owner's.

    Raises:
        SessionLockedError: It was taken over.
        StoreError: It is gone.
    """
    row = connection.execute(
        "SELECT events, owner FROM sessions WHERE number = ?", (session,)
    ).fetchone()
    if row is None:
        raise StoreError(f"Session {id!r} was deleted meanwhile.")
    if row[1] != owner:
        holder = holder_of(connection, row[1])
        raise SessionLockedError(
            f"Session {id!r} was taken over by {holder}; nothing more is written here.",
            holder=holder,
        )
    return int(row[0])


# ── snapshots ────────────────────────────────────────────────────────────────────────────────────


def keep_snapshot(
    connection: sqlite3.Connection, session: int, id: str, owner: int, snapshot: Snapshot
) -> None:
    """Keep a snapshot in place of the one before.

    Raises:
        SessionLockedError: The session was taken over.
        StoreError: It is gone, or the snapshot may not be kept.
    """
    last = _last_event(connection, session, id, owner)
    kept = connection.execute("SELECT seq FROM snapshots WHERE session = ?", (session,)).fetchone()
    check_snapshot(snapshot, last, 0 if kept is None else kept[0])
    connection.execute(
        "INSERT OR REPLACE INTO snapshots (session, seq, data) VALUES (?, ?, ?)",
        (session, snapshot.seq, snapshot.data),
    )


def read_snapshot(connection: sqlite3.Connection, session: int) -> Snapshot | None:
    """Give the snapshot of a session, if it has one."""
    row = connection.execute(
        "SELECT seq, CAST(data AS BLOB) FROM snapshots WHERE session = ?", (session,)
    ).fetchone()
    return None if row is None else Snapshot(*row)


# ── one writer ───────────────────────────────────────────────────────────────────────────────────


def holder_of(connection: sqlite3.Connection, owner: int | None) -> str:
    """Say who an owner is."""
    row = connection.execute("SELECT pid, host FROM owners WHERE number = ?", (owner,)).fetchone()
    return "another process" if row is None else f"process {row[0]} on {row[1]}"


def _check_free(
    connection: sqlite3.Connection, session_id: str, session: int, owner: int | None, holds: Holds
) -> None:
    """Refuse a session that is open; free all those of an owner that is dead.

    Raises:
        SessionLockedError: It is open.
    """
    if owner is None:
        return
    if holds(owner, session):
        holder = holder_of(connection, owner)
        raise SessionLockedError(
            f"Session {session_id!r} is open in {holder}; close it there first.", holder=holder
        )
    connection.execute("UPDATE sessions SET owner = NULL WHERE number = ?", (session,))


def open_session(
    connection: sqlite3.Connection,
    session_id: str,
    *,
    owner: int,
    create: bool,
    holds: Holds,
    now: float,
) -> tuple[int, int]:
    """Make an owner the writer of a session; give its number, and how many events it has."""
    row = connection.execute(
        "SELECT number, owner, events FROM sessions WHERE id = ?", (session_id,)
    ).fetchone()
    if row is None:
        if not create:
            raise missing(session_id)
        cursor = connection.execute(
            "INSERT INTO sessions (id, named, created_at, updated_at, owner)"
            " VALUES (?, ?, ?, ?, ?)",
            (session_id, named(session_id, None, ()), now, now, owner),
        )
        return cursor.lastrowid or 0, 0
    number, held, events = row
    _check_free(connection, session_id, number, held, holds)
    connection.execute("UPDATE sessions SET owner = ? WHERE number = ?", (owner, number))
    return int(number), int(events)


def close_session(connection: sqlite3.Connection, number: int, owner: int) -> None:
    """Give a session free."""
    connection.execute(
        "UPDATE sessions SET owner = NULL WHERE number = ? AND owner = ?", (number, owner)
    )


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────


def missing(session_id: str) -> SessionNotFoundError:
    """Make the error for a session that is not there."""
    return SessionNotFoundError(f"There is no session {session_id!r}.")


def _number(connection: sqlite3.Connection, session_id: str) -> int:
    row = connection.execute("SELECT number FROM sessions WHERE id = ?", (session_id,)).fetchone()
    if row is None:
        raise missing(session_id)
    return int(row[0])


def describe_session(
    connection: sqlite3.Connection, session_id: str, title: str | None, tags: tuple[str, ...]
) -> None:
    """Set title and tags."""
    connection.execute(
        "UPDATE sessions SET title = ?, tags = ?, named = ? WHERE number = ?",
        (
            title,
            json.dumps(tags, ensure_ascii=False),
            named(session_id, title, tags),
            _number(connection, session_id),
        ),
    )


def delete_session(connection: sqlite3.Connection, session_id: str, holds: Holds) -> None:
    """Remove a session that is not open."""
    number = _number(connection, session_id)
    (owner,) = connection.execute(
        "SELECT owner FROM sessions WHERE number = ?", (number,)
    ).fetchone()
    _check_free(connection, session_id, number, owner, holds)
    connection.execute("DELETE FROM events WHERE session = ?", (number,))
    connection.execute("DELETE FROM snapshots WHERE session = ?", (number,))
    connection.execute("DELETE FROM sessions WHERE number = ?", (number,))


_INFO = (
    "SELECT s.id, s.title, s.tags, s.created_at, s.updated_at, s.events, s.size_bytes, s.owner,"
    " o.pid, o.host FROM sessions s LEFT JOIN owners o ON o.number = s.owner"
)


def _info(row: tuple[Any, ...]) -> SessionInfo:
    holder = None
    if row[7] is not None:
        holder = "another process" if row[8] is None else f"process {row[8]} on {row[9]}"
    return SessionInfo(
        id=row[0],
        title=row[1],
        tags=tuple(json.loads(row[2])),
        created_at=row[3],
        updated_at=row[4],
        events=row[5],
        size_bytes=row[6],
        holder=holder,
    )


def stat_session(connection: sqlite3.Connection, session_id: str) -> SessionInfo:
    """Describe a session."""
    row = connection.execute(f"{_INFO} WHERE s.id = ?", (session_id,)).fetchone()
    if row is None:
        raise missing(session_id)
    return _info(row)


def list_sessions(connection: sqlite3.Connection, query: SessionQuery) -> list[SessionInfo]:
    """Describe sessions, the one that was written to last first."""
    wheres: list[str] = []
    values: list[Any] = []
    if query.before is not None:
        wheres.append("(s.updated_at, s.id) < (?, ?)")
        values += query.before
    if query.tag is not None:
        wheres.append("EXISTS (SELECT 1 FROM json_each(s.tags) WHERE value = ?)")
        values.append(query.tag)
    if query.text is not None:
        wheres.append(
            "(instr(s.named, ?) OR EXISTS"
            " (SELECT 1 FROM events e WHERE e.session = s.number AND instr(e.said, ?)))"
        )
        values += [query.text.casefold()] * 2
    where = f" WHERE {' AND '.join(wheres)}" if wheres else ""
    rows = connection.execute(
        f"{_INFO}{where} ORDER BY s.updated_at DESC, s.id DESC LIMIT ?", (*values, query.limit)
    )
    return [_info(row) for row in rows]


def read_lines(
    connection: sqlite3.Connection, session_id: str, after: int, limit: int | None
) -> list[bytes]:
    """Give the lines after a number."""
    rows = connection.execute(
        "SELECT line FROM events WHERE session = ? AND seq > ? ORDER BY seq LIMIT ?",
        (_number(connection, session_id), after, -1 if limit is None else limit),
    )
    return [line for (line,) in rows]
