"""The events of a session, for anyone who wants to watch: each reader has its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self, cast
from weakref import WeakSet

from vllm_agent_sdk._core.run.run import evolve
from vllm_agent_sdk._core.run.state import State
from vllm_agent_sdk.agent.run.event_queue import EventQueue
from vllm_agent_sdk.agent.session.replay import replay
from vllm_agent_sdk.sessions.store import SessionLog, Snapshot
from vllm_agent_sdk.types.event_lines import restored
from vllm_agent_sdk.types.events import (
    RunEnded,
    RunEvent,
    RunSuspended,
    StoredEvent,
)

__all__ = ["EventFeed", "Feeds"]

Until = Literal["run_end", "close"]


class Feeds:
    """All readers of a session."""

    def __init__(self) -> None:
        #: The number of the last kept event that was shown.
        self.shown = 0
        # Who breaks out of its loop says nothing: what is no longer read is forgotten.
        self._feeds: WeakSet[EventFeed] = WeakSet()

    def put(self, event: Any) -> None:
        """Give an event to every reader."""
        if event.seq is not None:
            self.shown = event.seq
        if len(self._feeds):  # to go through none of them costs more than to ask
            for feed in self._feeds:
                feed.put(event)

    def open(self, log: SessionLog, after: int | None, until: Until) -> EventFeed:
        """Begin to read."""
        feed = EventFeed(log, after, self.shown, until)
        self._feeds.add(feed)
        return feed

    def close(self) -> None:
        """Say that nothing more will come."""
        for feed in list(self._feeds):
            feed.end()


class EventFeed:
    """The events of a session (`async for`): what was kept after a number, then what comes.

    Deltas are not kept: a reader gets those that come while it reads. Breaking out of the loop
    cancels nothing.

    Args:
        log: The session's log.
        after: Begin with the kept events after this number; `None`: none of them.
        shown: The number of the last event that was shown before; later ones come by `put`.
        until: What ends it.
    """

    def __init__(self, log: SessionLog, after: int | None, shown: int, until: Until) -> None:
        self._log = log
        self._after = 0 if after is None else after
        self._shown = shown
        self._until = until
        self._queue = EventQueue()
        self._read = after is None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunEvent:
        if not self._read:
            await self._read_log()
        event = await self._queue.get()
        if event is None:
            raise StopAsyncIteration
        if self._until == "run_end" and isinstance(event, (RunEnded, RunSuspended)):
            await self.aclose()
        return cast("RunEvent", event)

    async def batch(self) -> list[RunEvent]:
        """Give the next events: all that are there, at least one; none at the end."""
        events: list[RunEvent] = []
        async for event in self:
            events.append(event)
            if not self._queue:
                break
        return events

    async def _read_log(self) -> None:
        self._read = True
        kept = await self._log.read(self._after)
        if any(isinstance(event, RunEnded) and not event.result.messages for event in kept):
            told = self._with_conversations
            after = self._after
            kept = await replay(self._log, told, after) if after else told(State(), None, kept)
        self._queue.put_first(e for e in kept if e.seq is None or e.seq <= self._shown)

    def _with_conversations(
        self, state: State, _kept: Snapshot | None, log: Sequence[StoredEvent]
    ) -> list[StoredEvent]:
        """Give the events after the number; results have the conversation that their log tells."""
        events: list[StoredEvent] = []
        for event in log:
            state = evolve(state, event)
            if (event.seq or 0) <= self._after:
                continue
            if isinstance(event, RunEnded) and not event.result.messages:
                event = restored(event, state.history.since(0))
            events.append(event)
        return events

    def put(self, event: Any) -> None:
        """Take an event; a full queue joins deltas, and never drops or reorders."""
        if event.seq is None or event.seq > self._after:
            self._queue.put(event)

    def end(self) -> None:
        """Say that nothing more will come."""
        self._queue.close()

    async def aclose(self) -> None:
        """Stop reading; the session goes on. Idempotent."""
        self._read = True
        self._queue.rest()
        self.end()
