"""What is done inside a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_agent_sdk.errors import SessionLockedError, SessionNotFoundError, StoreError
from vllm_agent_sdk.sessions.postgres._server import Connection
from vllm_agent_sdk.sessions.store import SessionQuery, Snapshot, check_snapshot, named
from vllm_agent_sdk.types.sessions import SessionInfo

__all__ = [
    "Append",
    "append_all",
    "append_one",
    "become_owner",
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


@dataclass(slots=True)
class Append:
    """Lines for the log of a session.

    Attributes:
        session: The session's number.
        id: Its id.
        first: The number of the first line.
        rows: For each line, the line and the text said in it, if there is any.
    """

    session: int
    id: str
    first: int
    rows: list[tuple[bytes, str | None]]


# ── appending ────────────────────────────────────────────────────────────────────────────────────


async def append_all(
    connection: Connection, appends: Sequence[Append], owner: int, now: float
) -> bool:
    """Append to many sessions, where all of them stand as is expected.

    Returns:
        False if one does not: then nothing that was done here may be kept.
    """
    changed = await connection.execute(
        "UPDATE sessions s SET events = g.last, size_bytes = s.size_bytes + g.size, updated_at = %s"
        " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
        " AS g(number, before, last, size)"
        " WHERE s.number = g.number AND s.owner = %s AND s.events = g.before",
        (
            now,
            [each.session for each in appends],
            [each.first - 1 for each in appends],
            [each.first - 1 + len(each.rows) for each in appends],
            [sum(len(line) for line, _ in each.rows) for each in appends],
            owner,
        ),
    )
    if changed.rowcount != len(appends):
        return False
    await connection.execute(
        "INSERT INTO events (session, seq, line, said)"
        " SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[], %s::text[])",
        (
            [each.session for each in appends for _ in each.rows],
            [each.first + at for each in appends for at in range(len(each.rows))],
            [line for each in appends for line, _ in each.rows],
            [said for each in appends for _, said in each.rows],
        ),
    )
    return True


async def append_one(connection: Connection, append: Append, owner: int, now: float) -> None:
    """Append to one session, whatever state it is in.

    Raises:
        SessionLockedError: It was taken over.
        StoreError: It is gone, a number is missing, or has another event already.
    """
    last = await _last_event(connection, append.session, append.id, owner)
    if append.first > last + 1:
        raise StoreError(f"Event {last + 1} is missing: the next one given is {append.first}.")
    cursor = await connection.execute(
        "SELECT line FROM events WHERE session = %s AND seq >= %s ORDER BY seq LIMIT %s",
        (append.session, append.first, len(append.rows)),
    )
    known = await cursor.fetchall()
    for seq, ((line,), (given, _)) in enumerate(
        zip(known, append.rows, strict=False), append.first
    ):
        if bytes(line) != given:
            raise StoreError(f"Event {seq} of {append.id!r} is another one already.")
    rest = append.rows[last + 1 - append.first :]
    if rest:
        await append_all(
            connection, [Append(append.session, append.id, last + 1, rest)], owner, now
        )


async def _last_event(connection: Connection, session: int, id: str, owner: int) -> int:
    """Give the number of the last event of a session that is the owner's.

    Raises:
        SessionLockedError: It was taken over.
        StoreError: It is gone.
    """
    cursor = await connection.execute(
        "SELECT events, owner FROM sessions WHERE number = %s FOR UPDATE", (session,)
    )
    row = await cursor.fetchone()
    if row is None:
        raise StoreError(f"Session {id!r} was deleted meanwhile.")
    last, held = row
    if held != owner:
        holder = await _holder_of(connection, held)
        raise SessionLockedError(
            f"Session {id!r} was taken over by {holder}; nothing more is written here.",
            holder=holder,
        )
    return int(last)


# ── snapshots ────────────────────────────────────────────────────────────────────────────────────


async def keep_snapshot(
    connection: Connection, session: int, id: str, owner: int, snapshot: Snapshot
) -> None:
    """Keep a snapshot in place of the one before.

    Raises:
        SessionLockedError: The session was taken over.
        StoreError: It is gone, or the snapshot may not be kept.
    """
    last = await _last_event(connection, session, id, owner)
    cursor = await connection.execute("SELECT seq FROM snapshots WHERE session = %s", (session,))
    kept = await cursor.fetchone()
    check_snapshot(snapshot, last, 0 if kept is None else kept[0])
    await connection.execute(
        "INSERT INTO snapshots (session, seq, data) VALUES (%s, %s, %b)"
        " ON CONFLICT (session) DO UPDATE SET seq = excluded.seq, data = excluded.data",
        (session, snapshot.seq, snapshot.data),
    )


async def read_snapshot(connection: Connection, session: int) -> Snapshot | None:
    """Give the snapshot of a session, if it has one."""
    cursor = await connection.execute(
        "SELECT seq, data FROM snapshots WHERE session = %s", (session,), binary=True
    )
    row = await cursor.fetchone()
    return None if row is None else Snapshot(row[0], bytes(row[1]))


# ── one writer ───────────────────────────────────────────────────────────────────────────────────


async def become_owner(
    connection: Connection, lock_class: int, pid: int, host: str, now: float
) -> int:
    """Write this process down as an owner, locked before anybody can see it; give its number."""
    async with connection.transaction():
        cursor = await connection.execute(
            "INSERT INTO owners (pid, host, since) VALUES (%s, %s, %s) RETURNING number",
            (pid, host, now),
        )
        row = await cursor.fetchone()
        assert row is not None
        await connection.execute("SELECT pg_advisory_lock(%s, %s)", (lock_class, row[0]))
        dead = "SELECT number FROM owners WHERE pg_try_advisory_xact_lock(%s, number)"
        cursor = await connection.execute(f"{dead} AND number <> %s", (lock_class, row[0]))
        numbers = [number for (number,) in await cursor.fetchall()]
        await connection.execute(
            "UPDATE sessions SET owner = NULL WHERE owner = ANY(%s)", (numbers,)
        )
        await connection.execute("DELETE FROM owners WHERE number = ANY(%s)", (numbers,))
    return int(row[0])


async def _holder_of(connection: Connection, owner: int | None) -> str:
    cursor = await connection.execute("SELECT pid, host FROM owners WHERE number = %s", (owner,))
    row = await cursor.fetchone()
    return "another process" if row is None else f"process {row[0]} on {row[1]}"


async def _check_free(
    connection: Connection, session_id: str, held: int | None, lock_class: int
) -> None:
    """Refuse a session whose owner still has its lock."""
    if held is None:
        return
    cursor = await connection.execute(
        "SELECT pg_try_advisory_xact_lock(%s, %s)", (lock_class, held)
    )
    row = await cursor.fetchone()
    if row is None or not row[0]:
        holder = await _holder_of(connection, held)
        raise SessionLockedError(
            f"Session {session_id!r} is open in {holder}; close it there first.", holder=holder
        )


async def open_session(
    connection: Connection,
    session_id: str,
    *,
    owner: int,
    create: bool,
    lock_class: int,
    now: float,
) -> int:
    """Make an owner the writer of a session, whom it may be open in; give the session's number."""
    if create:
        await connection.execute(
            "INSERT INTO sessions (id, named, created_at, updated_at) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (id) DO NOTHING",
            (session_id, named(session_id, None, ()), now, now),
        )
    number, held = await _locked_row(connection, session_id)
    if held != owner:
        await _check_free(connection, session_id, held, lock_class)
    await connection.execute("UPDATE sessions SET owner = %s WHERE number = %s", (owner, number))
    return number


async def _locked_row(connection: Connection, session_id: str) -> tuple[int, int | None]:
    cursor = await connection.execute(
        "SELECT number, owner FROM sessions WHERE id = %s FOR UPDATE", (session_id,)
    )
    row = await cursor.fetchone()
    if row is None:
        raise _missing(session_id)
    return row[0], row[1]


async def close_session(connection: Connection, number: int, owner: int) -> None:
    """Give a session free."""
    await connection.execute(
        "UPDATE sessions SET owner = NULL WHERE number = %s AND owner = %s", (number, owner)
    )


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────


def _missing(session_id: str) -> SessionNotFoundError:
    return SessionNotFoundError(f"There is no session {session_id!r}.")


async def describe_session(
    connection: Connection, session_id: str, title: str | None, tags: tuple[str, ...]
) -> None:
    """Set title and tags."""
    number, _ = await _locked_row(connection, session_id)
    await connection.execute(
        "UPDATE sessions SET title = %s, tags = %s, named = %s WHERE number = %s",
        (title, list(tags), named(session_id, title, tags), number),
    )


async def delete_session(
    connection: Connection, session_id: str, owner: int, lock_class: int
) -> None:
    """Remove a session that is not open elsewhere."""
    number, held = await _locked_row(connection, session_id)
    if held != owner:
        await _check_free(connection, session_id, held, lock_class)
    await connection.execute("DELETE FROM events WHERE session = %s", (number,))
    await connection.execute("DELETE FROM snapshots WHERE session = %s", (number,))
    await connection.execute("DELETE FROM sessions WHERE number = %s", (number,))


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
        tags=tuple(row[2]),
        created_at=row[3],
        updated_at=row[4],
        events=row[5],
        size_bytes=row[6],
        holder=holder,
    )


async def stat_session(connection: Connection, session_id: str) -> SessionInfo:
    """Describe a session."""
    cursor = await connection.execute(f"{_INFO} WHERE s.id = %s", (session_id,))
    row = await cursor.fetchone()
    if row is None:
        raise _missing(session_id)
    return _info(row)


async def list_sessions(connection: Connection, query: SessionQuery) -> list[SessionInfo]:
    """Describe sessions, the one that was written to last first."""
    wheres: list[str] = []
    values: list[Any] = []
    if query.before is not None:
        wheres.append("(s.updated_at, s.id) < (%s, %s)")
        values += query.before
    if query.tag is not None:
        wheres.append("%s = ANY(s.tags)")
        values.append(query.tag)
    if query.text is not None:
        wheres.append(
            "(strpos(s.named, %s) > 0 OR EXISTS"
            " (SELECT 1 FROM events e WHERE e.session = s.number AND strpos(e.said, %s) > 0))"
        )
        values += [query.text.casefold()] * 2
    where = f" WHERE {' AND '.join(wheres)}" if wheres else ""
    cursor = await connection.execute(
        f"{_INFO}{where} ORDER BY s.updated_at DESC, s.id DESC LIMIT %s".encode(),
        (*values, query.limit),
    )
    return [_info(row) for row in await cursor.fetchall()]


async def read_lines(
    connection: Connection, session_id: str, after: int, limit: int | None
) -> list[bytes]:
    """Give the lines after a number."""
    cursor = await connection.execute("SELECT number FROM sessions WHERE id = %s", (session_id,))
    row = await cursor.fetchone()
    if row is None:
        raise _missing(session_id)
    cursor = await connection.execute(
        "SELECT line FROM events WHERE session = %s AND seq > %s ORDER BY seq LIMIT %s",
        (row[0], after, limit),
        binary=True,
    )
    return [bytes(line) for (line,) in await cursor.fetchall()]
