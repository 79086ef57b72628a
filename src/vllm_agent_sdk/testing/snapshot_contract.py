"""What every `SessionStore` must do with snapshots: a part of `store_contract`."""

from __future__ import annotations

from vllm_agent_sdk.errors import StoreError
from vllm_agent_sdk.sessions import SessionLog, Snapshot
from vllm_agent_sdk.testing.store_checks import Place, expect_log, notes, refused

__all__ = [
    "a_snapshot_goes_with_its_session",
    "a_snapshot_is_never_newer_than_the_log",
    "a_snapshot_takes_the_place_of_the_one_before",
    "only_the_writer_keeps_a_snapshot",
]

_FIRST = Snapshot(3, bytes(range(256)))
_LARGE = Snapshot(4, b"\0a large one" * 200_000)


async def _expect(log: SessionLog, wanted: Snapshot | None) -> None:
    found = await log.snapshot()
    if found != wanted:
        raise AssertionError(f"The snapshot is {_shown(found)}; {_shown(wanted)} was kept.")


def _shown(snapshot: Snapshot | None) -> str:
    if snapshot is None:
        return "none"
    size = len(snapshot.data)
    return f"that of event {snapshot.seq} ({size} bytes, {bytes(snapshot.data[:20])!r} …)"


async def a_snapshot_takes_the_place_of_the_one_before(place: Place) -> None:
    """The newest is given, whoever opens the session; and the session is otherwise as it was."""
    store = place()
    log, other = await store.open("s"), await store.open("t")
    await _expect(log, None)
    await log.append(*notes(1, 5))
    before = await store.stat("s")
    for snapshot in (_FIRST, Snapshot(3, b""), _LARGE):
        await log.keep_snapshot(snapshot)
        await _expect(log, snapshot)
    await refused(StoreError, log.keep_snapshot(_FIRST), "keep_snapshot of an older one")
    await _expect(log, _LARGE)
    await _expect(other, None)
    assert await store.stat("s") == before, "A snapshot is no event: stat says what it said."
    await expect_log(place(), "s", notes(1, 5))
    await log.aclose()
    await other.aclose()
    again = await place().open("s")
    await _expect(again, _LARGE)
    await again.aclose()


async def a_snapshot_is_never_newer_than_the_log(place: Place) -> None:
    """It stands for events that are kept."""
    log = await place().open("s")
    await refused(StoreError, log.keep_snapshot(Snapshot(0, b"x")), "keep_snapshot of no event")
    await refused(StoreError, log.keep_snapshot(Snapshot(1, b"x")), "keep_snapshot of no event")
    await log.append(*notes(1, 3))
    await refused(StoreError, log.keep_snapshot(_LARGE), "keep_snapshot of event 4 of 3")
    await _expect(log, None)
    await log.keep_snapshot(_FIRST)
    await refused(StoreError, log.keep_snapshot(_LARGE), "keep_snapshot of event 4 of 3")
    await _expect(log, _FIRST)
    await log.aclose()


async def only_the_writer_keeps_a_snapshot(place: Place) -> None:
    """Whoever has closed its log does not, also where another has the session open now."""
    log = await place().open("s")
    await log.append(*notes(1, 5))
    await log.keep_snapshot(_FIRST)
    await log.aclose()
    await refused(StoreError, log.keep_snapshot(_LARGE), "keep_snapshot by a log that was closed")
    again = await place().open("s")
    await refused(StoreError, log.keep_snapshot(_LARGE), "keep_snapshot by a log that was closed")
    await _expect(again, _FIRST)
    await again.keep_snapshot(_LARGE)
    await _expect(again, _LARGE)
    await again.aclose()


async def a_snapshot_goes_with_its_session(place: Place) -> None:
    """A session that is made in place of a deleted one has none."""
    log = await place().open("s")
    await log.append(*notes(1, 5))
    await log.keep_snapshot(_LARGE)
    await log.aclose()
    await place().delete("s")
    new = await place().open("s")
    await _expect(new, None)
    await new.append(*notes(1, 5))
    await _expect(new, None)
    await new.aclose()
