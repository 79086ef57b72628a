"""The log that a run is written to before it is acted on."""

from __future__ import annotations

from typing import Protocol

from vllm_agent_sdk.types.events import StoredEvent

__all__ = ["EventLog", "MemoryLog"]


class EventLog(Protocol):
    """An append-only log of one run's events."""

    async def append(self, *events: StoredEvent) -> None:
        """Keep the events, all or none; they are durable when this returns."""


class MemoryLog:
    """A log that lasts as long as the process (`EventLog`)."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []

    async def append(self, *events: StoredEvent) -> None:
        """Keep the events."""
        self.events.extend(events)
