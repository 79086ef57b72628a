"""The events that a reader has not read yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

from vllm_agent_sdk.types.events import ReasoningDelta, TextDelta, ToolCallDelta
from vllm_agent_sdk.types.joined import joined

__all__ = ["QUEUE_SIZE", "EventQueue"]

#: Events that wait for the reader before deltas are joined.
QUEUE_SIZE = 256
_JOINABLE = (TextDelta, ReasoningDelta, ToolCallDelta)


class EventQueue:
    """What a reader has not read yet. Full, it joins deltas; it never drops or reorders."""

    def __init__(self) -> None:
        self._events: deque[Any] = deque()
        self._news = asyncio.Event()
        self._over = False

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Any) -> None:
        """Add an event; nobody waits here, so that a slow reader stalls nothing."""
        if self._over:
            return
        if len(self._events) >= QUEUE_SIZE and isinstance(event, _JOINABLE):
            both = joined(self._events[-1], event)
            if both is not None:
                self._events[-1] = both
                return
        self._events.append(event)
        self._news.set()

    def put_first(self, events: Iterable[Any]) -> None:
        """Put events before all others, in their order."""
        self._events.extendleft(reversed(list(events)))

    def close(self) -> None:
        """Say that nothing more will come."""
        self._over = True
        self._news.set()

    async def get(self) -> Any:
        """Give the next event, `None` at the end."""
        while not self._events:
            if self._over:
                return None
            self._news.clear()
            await self._news.wait()
        return self._events.popleft()

    def rest(self) -> list[Any]:
        """Take what is there, without waiting."""
        events = list(self._events)
        self._events.clear()
        return events
