"""Every store passes the suite that is exported for users' own, and a broken one does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk.sessions import (
    MemoryStore,
    PostgresStore,
    SessionInfo,
    SessionLog,
    SessionQuery,
    Snapshot,
    SQLiteStore,
)
from vllm_agent_sdk.testing import store_contract
from vllm_agent_sdk.testing.store_contract import CHECKS, Check, Place
from vllm_agent_sdk.types.events import Notice, StoredEvent


async def check_store(check: Check, place: Place) -> None:
    """A check raises what it found."""
    await check(place)


each = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


@each
@pytest.mark.feature("D-01")
async def test_the_memory_store_keeps_the_contract(check: Check) -> None:
    store = MemoryStore()
    await check_store(check, lambda: store)


@each
@pytest.mark.feature("D-01")
async def test_the_sqlite_store_keeps_the_contract(check: Check, tmp_path: Path) -> None:
    await check_store(check, lambda: SQLiteStore(tmp_path / "sessions.db"))
    await SQLiteStore(tmp_path / "sessions.db").aclose()


@each
@pytest.mark.feature("D-01")
async def test_the_postgres_store_keeps_the_contract(
    check: Check, make_postgres: Callable[[], PostgresStore]
) -> None:
    async with make_postgres():  # the connections stay open for all of the check
        await check_store(check, make_postgres)


# ── stores that are broken ───────────────────────────────────────────────────────────────────────


class BrokenLog:
    """A log with one fault."""

    def __init__(self, inner: Any, fault: str) -> None:
        self._inner = inner
        self._fault = fault
        self._snapshots: list[Snapshot] = []

    async def append(self, *events: StoredEvent) -> None:
        events_of = self._inner._session.events
        if self._fault == "keeps twice" and events and events[0].seq != len(events_of) + 1:
            events_of.extend(events)
        elif self._fault == "changes what is kept" and events and (events[0].seq or 0) > 0:
            events_of[(events[0].seq or 1) - 1 :] = events
        elif self._fault == "takes a part" and len(events) > 1:
            for event in events:
                await self._inner.append(event)
        elif self._fault == "forgets fields" and events:
            cut = [
                Notice(e.code, e.text, seq=e.seq) if isinstance(e, Notice) else e for e in events
            ]
            await self._inner.append(*cut)
        elif self._fault == "raises though it was kept":
            await self._inner.append(*events)
            await asyncio.sleep(0)
        else:
            await self._inner.append(*events)

    async def snapshot(self) -> Snapshot | None:
        if self._fault == "forgets snapshots":
            return None
        if self._fault == "gives the first snapshot":
            return self._snapshots[0] if self._snapshots else None
        return await self._inner.snapshot()

    async def keep_snapshot(self, snapshot: Snapshot) -> None:
        session = self._inner._session
        self._snapshots.append(snapshot)
        if self._fault == "takes any snapshot":
            await self._inner.append()  # which raises where it is closed
            session.snapshot = snapshot
        elif self._fault == "takes one of a stale writer" and session.writer is not self._inner:
            session.snapshot = snapshot
        else:
            await self._inner.keep_snapshot(snapshot)
        if self._fault == "takes it for an event":
            session.updated_at += 1

    async def read(self, after: int = 0) -> Sequence[StoredEvent]:
        return await self._inner.read(after + 1 if self._fault == "reads too little" else after)

    async def aclose(self) -> None:
        if self._fault != "never gives free":
            await self._inner.aclose()


class BrokenStore(MemoryStore):
    """A store with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault
        self._left: dict[str, Snapshot | None] = {}

    async def open(self, session_id: str, *, create: bool = True) -> SessionLog:
        if self._fault == "lets two write" and session_id in self._sessions:
            self._sessions[session_id].writer = None
        if self._fault == "makes what is asked for":
            create = True
        if self._fault == "takes any id":
            session_id = session_id.replace("/", "_")
        log = BrokenLog(await super().open(session_id, create=create), self._fault)
        if session_id in self._left:
            self._sessions[session_id].snapshot = self._left.pop(session_id)
        return log

    async def sessions(self, query: SessionQuery) -> Sequence[SessionInfo]:
        if self._fault == "has no pages":
            query = SessionQuery(limit=query.limit, tag=query.tag, text=query.text)
        if self._fault == "finds by case" and query.text and query.text.casefold() != query.text:
            return []
        found = await super().sessions(query)
        return found[::-1] if self._fault == "lists the oldest first" else found

    async def delete(self, session_id: str) -> None:
        if self._fault == "deletes what is open" and session_id in self._sessions:
            self._sessions[session_id].writer = None
        if self._fault == "keeps one of what is deleted" and session_id in self._sessions:
            self._left[session_id] = self._sessions[session_id].snapshot
        await super().delete(session_id)


FAULTS = {
    "keeps twice": store_contract.an_event_is_kept_once,
    "changes what is kept": store_contract.another_event_of_the_same_number_is_refused,
    "takes a part": store_contract.a_gap_is_refused,
    "forgets fields": store_contract.an_event_is_kept_once,
    "raises though it was kept": store_contract.an_append_that_is_cancelled_is_whole,
    "reads too little": store_contract.what_was_appended_is_read_back,
    "never gives free": store_contract.a_session_has_one_writer,
    "lets two write": store_contract.of_many_who_open_one_gets_it,
    "makes what is asked for": store_contract.what_is_not_there_is_not_found,
    "takes any id": store_contract.an_id_that_cannot_be_one_is_refused,
    "has no pages": store_contract.sessions_are_listed_the_newest_first,
    "lists the oldest first": store_contract.sessions_are_listed_the_newest_first,
    "finds by case": store_contract.sessions_are_found_by_what_was_said,
    "deletes what is open": store_contract.what_is_deleted_is_gone,
    "forgets snapshots": store_contract.a_snapshot_takes_the_place_of_the_one_before,
    "gives the first snapshot": store_contract.a_snapshot_takes_the_place_of_the_one_before,
    "takes it for an event": store_contract.a_snapshot_takes_the_place_of_the_one_before,
    "takes any snapshot": store_contract.a_snapshot_is_never_newer_than_the_log,
    "takes one of a stale writer": store_contract.only_the_writer_keeps_a_snapshot,
    "keeps one of what is deleted": store_contract.a_snapshot_goes_with_its_session,
}


@pytest.mark.feature("D-01")
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_store_is_caught(fault: str) -> None:
    store = BrokenStore(fault)
    with pytest.raises(AssertionError):
        await FAULTS[fault](lambda: store)


@each
async def test_what_breaks_the_broken_stores_is_their_fault_alone(check: Check) -> None:
    store = BrokenStore("none")
    await check_store(check, lambda: store)
