"""A session's state from its log: from the newest snapshot on, or from the beginning.

A snapshot spares an opening the events before it. It decides nothing: one that is missing, damaged,
of another format, or does not fit the log is as good as none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from vllm_agent_sdk._core.run.run import evolve
from vllm_agent_sdk._core.run.snapshot import decode, encode
from vllm_agent_sdk._core.run.state import IllegalTransitionError, State
from vllm_agent_sdk.errors import StoreError
from vllm_agent_sdk.sessions.store import SessionLog, Snapshot
from vllm_agent_sdk.types.events import StoredEvent

__all__ = ["Snapshots", "replay"]

T = TypeVar("T")
_log = logging.getLogger("vllm_agent_sdk.sessions")

#: Events after which another snapshot is kept: to read and fold so many takes 20 ms.
EVENTS = 1000
#: Bytes of the last snapshot for each of them, where that makes more: a state that only grows is
#: not written again and again; what snapshots take is about what the log takes.
BYTES = 1000


async def replay(
    log: SessionLog,
    fold: Callable[[State, Snapshot | None, Sequence[StoredEvent]], T],
    upto: int | None = None,
) -> T:
    """Fold a log, from its snapshot on where there is one.

    Args:
        log: The session's log.
        fold: What is given the state to begin with, the snapshot that it is of, and the events that
            follow.
        upto: The state to begin with has taken in no event after this one; unset: any.

    Raises:
        IllegalTransitionError: An event cannot follow those before it.
        StoreError: The log cannot be read.
    """
    kept = await _newest(log)
    if kept is not None and (upto is None or kept.seq <= upto):
        found = decode(kept.data)
        if found is not None and found[1] == kept.seq:
            # Its last event is read, too: a log that does not have it is another's.
            events = await log.read(kept.seq - 1)
            if events and events[0].seq == kept.seq:
                with contextlib.suppress(IllegalTransitionError):  # then it is another's as well
                    return fold(found[0], kept, events[1:])
    return fold(State(), None, await log.read())


async def _newest(log: SessionLog) -> Snapshot | None:
    try:
        return await log.snapshot()
    except StoreError as error:
        _log.warning("A snapshot cannot be read, so the whole log is: %s", error)
        return None


class Snapshots:
    """The snapshots of an open session.

    Args:
        session_id: The session's id.
        log: Its log.
    """

    def __init__(self, session_id: str, log: SessionLog) -> None:
        self._id = session_id
        self._log = log
        #: The number of the last event in the newest one, as far as known; 0 for none.
        self.seq = 0
        self._size = 0
        self._keeping: asyncio.Task[None] | None = None

    async def replay(self) -> tuple[State, int]:
        """Give the state that the log leads to, and the number of its last event.

        Raises as the function `replay` does.
        """

        def fold(
            state: State, kept: Snapshot | None, events: Sequence[StoredEvent]
        ) -> tuple[State, int]:
            self.seq, self._size = (0, 0) if kept is None else (kept.seq, len(kept.data))
            seq = self.seq
            for event in events:
                state = evolve(state, event)
                seq = event.seq or seq + 1
            return state, seq

        return await replay(self._log, fold)

    def keep(self, state: State, seq: int) -> None:
        """Begin to keep a state, if enough has come since the last time, and none is under way."""
        if self._keeping is not None and not self._keeping.done():
            return
        if seq - self.seq >= max(EVENTS, self._size // BYTES):
            self._keeping = asyncio.create_task(self._keep(state, seq), name="snapshot")

    async def aclose(self, state: State, seq: int) -> None:
        """Keep a last one, if it is time."""
        if self._keeping is not None:
            await self._keeping
        self.keep(state, seq)
        if self._keeping is not None:
            await self._keeping

    async def _keep(self, state: State, seq: int) -> None:
        self.seq = seq  # whether it works or not: the next one is due after as many events
        try:
            data = await asyncio.to_thread(encode, state, seq)
            self._size = len(data)
            await self._log.keep_snapshot(Snapshot(seq, data))
        except Exception as error:  # noqa: BLE001 - the run has ended, and the log has all of it
            _log.warning(
                "Session %s has no new snapshot, its next opening reads more of its log: %s: %s",
                self._id,
                type(error).__name__,
                error,
            )
