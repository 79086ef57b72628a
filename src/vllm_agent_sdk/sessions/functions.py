"""What can be done with sessions that are kept, without running them: each takes the store first.

None of these needs the session to be closed, but for `delete_session`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from vllm_agent_sdk._core.run.run import evolve
from vllm_agent_sdk._core.run.state import IllegalTransitionError, State
from vllm_agent_sdk.errors import SessionNotFoundError, StoreError, UsageError
from vllm_agent_sdk.sessions.store import SessionQuery, SessionStore, check_id
from vllm_agent_sdk.types.event_lines import read_line, write_line
from vllm_agent_sdk.types.events import StoredEvent
from vllm_agent_sdk.types.messages import Message
from vllm_agent_sdk.types.sessions import SessionInfo, SessionPage

__all__ = [
    "delete_session",
    "export_session",
    "fork_session",
    "get_session_messages",
    "import_session",
    "list_sessions",
    "rename_session",
    "search_sessions",
    "stat_session",
    "tag_session",
]

#: Events read at a time.
_PART = 1000


async def list_sessions(
    store: SessionStore, *, limit: int = 50, cursor: str | None = None, tag: str | None = None
) -> SessionPage:
    """Give the sessions of a store, the one that was written to last first.

    Args:
        store: Where they are.
        limit: So many at most.
        cursor: `SessionPage.cursor` of the page before.
        tag: Only those that have this tag.

    Raises:
        UsageError: The limit is below 1, or the cursor is none.
    """
    return await _page(store, limit, cursor, tag, None)


async def search_sessions(
    store: SessionStore,
    text: str,
    *,
    limit: int = 50,
    cursor: str | None = None,
    tag: str | None = None,
) -> SessionPage:
    """Give the sessions in which something was said, or that are called so.

    Args:
        store: Where they are.
        text: What is looked for, as it is, in what users and models said and in ids, titles and
            tags; without regard to case.
        limit: So many at most.
        cursor: `SessionPage.cursor` of the page before.
        tag: Only those that have this tag.

    Raises:
        UsageError: The text is empty, the limit is below 1, or the cursor is none.
    """
    if not text:
        raise UsageError("search_sessions('') would find everything: list_sessions does that.")
    return await _page(store, limit, cursor, tag, text)


async def _page(
    store: SessionStore, limit: int, cursor: str | None, tag: str | None, text: str | None
) -> SessionPage:
    if limit < 1:
        raise UsageError(f"limit={limit}: it is 1 or more.")
    before = None if cursor is None else _read_cursor(cursor)
    # One more than asked for tells whether there are more.
    found = list(
        await store.sessions(SessionQuery(limit=limit + 1, before=before, tag=tag, text=text))
    )
    more = len(found) > limit
    found = found[:limit]
    return SessionPage(sessions=found, cursor=_write_cursor(found[-1]) if more else None)


def _write_cursor(last: SessionInfo) -> str:
    return f"{last.updated_at!r} {last.id}"


def _read_cursor(cursor: str) -> tuple[float, str]:
    time, _, session_id = cursor.partition(" ")
    try:
        return float(time), check_id(session_id)
    except (ValueError, UsageError) as cause:
        raise UsageError(
            f"{cursor!r} is no cursor: give SessionPage.cursor of the page before."
        ) from cause


async def stat_session(store: SessionStore, session_id: str) -> SessionInfo:
    """Describe a session.

    Raises:
        SessionNotFoundError: There is no such session.
    """
    return await store.stat(session_id)


async def get_session_messages(
    store: SessionStore, session_id: str, *, offset: int = 0, limit: int | None = None
) -> list[Message]:
    """Give the conversation as the next run would have it before it, without the system text.

    Args:
        store: Where the session is.
        session_id: Its id.
        offset: Leave out so many messages from the beginning.
        limit: So many at most; `None`: all.

    Raises:
        SessionNotFoundError: There is no such session.
        UsageError: Offset or limit is negative.
    """
    if offset < 0 or (limit is not None and limit < 0):
        raise UsageError(f"offset={offset}, limit={limit}: neither is negative.")
    messages = folded(await store.read(session_id)).history.since(offset)
    return messages[:limit]


async def rename_session(store: SessionStore, session_id: str, title: str | None) -> SessionInfo:
    """Give a session a title, or take it away; its id stays.

    Raises:
        SessionNotFoundError: There is no such session.
    """
    info = await store.stat(session_id)
    await store.describe(session_id, title=title or None, tags=info.tags)
    return await store.stat(session_id)


async def tag_session(
    store: SessionStore, session_id: str, *tags: str, remove: Iterable[str] = ()
) -> SessionInfo:
    """Add tags to a session, and take others away.

    Args:
        store: Where the session is.
        session_id: Its id.
        tags: Those it shall have, besides those it has.
        remove: Those it shall not have any more; `"*"`: none of those it has.

    Raises:
        SessionNotFoundError: There is no such session.
        UsageError: A tag is empty, or `remove` is a single text.
    """
    if isinstance(remove, str):
        raise UsageError(f"remove={remove!r}: give a list of tags.")
    if any(not tag.strip() for tag in tags):
        raise UsageError("A tag is not empty.")
    gone = set(remove)
    info = await store.stat(session_id)
    stay = [] if "*" in gone else [tag for tag in info.tags if tag not in gone]
    await store.describe(session_id, title=info.title, tags=tuple(dict.fromkeys([*stay, *tags])))
    return await store.stat(session_id)


async def delete_session(store: SessionStore, session_id: str) -> None:
    """Remove a session, its log and its snapshot, for good.

    Raises:
        SessionNotFoundError: There is no such session.
        SessionLockedError: It is open.
    """
    await store.delete(session_id)


async def fork_session(
    store: SessionStore, session_id: str, new_id: str | None = None, *, at: int | None = None
) -> str:
    """Make a session that begins like another one, and goes its own way.

    Args:
        store: Where the session is, and where the new one will be.
        session_id: The session that is copied; it stays as it is.
        new_id: The new session's id; unset: a new one.
        at: Copy the events up to this number; unset: all. In the middle of a run, the new session
            has an unfinished run, which `resume()` takes up as after a crash.

    Returns:
        The new session's id.

    Raises:
        SessionNotFoundError: There is no such session.
        UsageError: The new id is in use, or the log has no event `at`.
    """
    events = await store.read(session_id, 0, at)
    if at is not None and (at < 0 or len(events) < at):
        raise UsageError(f"at={at}: session {session_id!r} has {len(events)} events.")
    info = await store.stat(session_id)
    new_id = await _written(store, new_id, events)
    await store.describe(new_id, title=info.title, tags=info.tags)
    return new_id


async def export_session(
    store: SessionStore, session_id: str, to: str | os.PathLike[str] | BinaryIO
) -> int:
    """Write the complete log of a session as JSON lines, one event each; secrets in it too.

    Args:
        store: Where the session is.
        session_id: Its id.
        to: A file that is open for bytes, or the path of one that will be made, readable for this
            user alone.

    Returns:
        How many events were written.

    Raises:
        SessionNotFoundError: There is no such session.
        UsageError: The file is there already, or cannot be made.
    """
    await store.stat(session_id)
    if not isinstance(to, (str, os.PathLike)):
        return await _export(store, session_id, to)
    with await asyncio.to_thread(_new_file, to) as file:
        return await _export(store, session_id, file)


def _new_file(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")
    except OSError as cause:
        raise UsageError(f"{os.fspath(path)} cannot be made: {cause.strerror}.") from cause


async def _export(store: SessionStore, session_id: str, file: BinaryIO) -> int:
    count = 0
    while events := await store.read(session_id, count, _PART):
        await asyncio.to_thread(file.writelines, [write_line(event) + b"\n" for event in events])
        count += len(events)
    return count


async def import_session(
    store: SessionStore,
    source: str | os.PathLike[str] | Iterable[bytes],
    session_id: str | None = None,
) -> str:
    """Make a session of a log that `export_session` wrote; all of it, or nothing.

    Args:
        store: Where the session will be.
        source: The path of the log, or its lines (a file that is open for bytes has them).
        session_id: The session's id; unset: a new one.

    Returns:
        The session's id.

    Raises:
        StoreError: A line is no event, or cannot follow what comes before it; its number is named.
        UsageError: The id is in use, or the file cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        path = source
        try:
            lines: Iterable[bytes] = await asyncio.to_thread(lambda: _lines_of(path))
        except OSError as cause:
            raise UsageError(f"{os.fspath(path)} cannot be read: {cause.strerror}.") from cause
    else:
        lines = source
    events: list[StoredEvent] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = read_line(line.strip())
        except StoreError as error:
            raise StoreError(f"Line {number}: {error}") from error
        if event.seq != len(events) + 1:
            raise StoreError(
                f"Line {number} is event {event.seq}, and not {len(events) + 1}: the log is not "
                "complete, or not in order."
            )
        events.append(event)
    folded(events)
    return await _written(store, session_id, events)


def _lines_of(path: str | os.PathLike[str]) -> list[bytes]:
    with open(path, "rb") as file:
        return file.readlines()


async def _written(
    store: SessionStore, session_id: str | None, events: Sequence[StoredEvent]
) -> str:
    """Make a session of events, and give its id."""
    new_id = check_id(session_id if session_id is not None else os.urandom(12).hex())
    try:
        await store.stat(new_id)
    except SessionNotFoundError:
        pass
    else:
        raise UsageError(f"There is a session {new_id!r} already: choose another id.")
    log = await store.open(new_id)
    try:
        await log.append(*events)
    except BaseException:
        await log.aclose()
        await store.delete(new_id)
        raise
    await log.aclose()
    return new_id


def folded(events: Sequence[StoredEvent]) -> State:
    """Give the state that a log leads to.

    Raises:
        StoreError: An event cannot follow those before it.
    """
    state = State()
    for number, event in enumerate(events, 1):
        try:
            state = evolve(state, event)
        except IllegalTransitionError as cause:
            raise StoreError(f"Event {number} cannot follow those before it: {cause}.") from cause
    return state
