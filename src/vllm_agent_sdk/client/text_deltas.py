"""The text of a stream, without its other events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

from vllm_agent_sdk.types.events import TextDelta

__all__ = ["TextDeltas"]


class TextDeltas:
    """The text of a stream's first choice, piece by piece (`async for`)."""

    def __init__(self, events: AsyncIterator[object]) -> None:
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            event = await anext(self._events)
            if isinstance(event, TextDelta) and event.choice == 0:
                return event.text
