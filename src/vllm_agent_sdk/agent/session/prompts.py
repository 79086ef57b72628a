"""Prompts that come one after the other: each its own run, with the conversation going on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from vllm_agent_sdk.agent.run.run import Run
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.events import StoredEvent
from vllm_agent_sdk.types.messages import Prompt, Prompts, UserMessage, as_user_message
from vllm_agent_sdk.types.results import RunResult

__all__ = ["PromptRuns"]

#: Seconds that an iterator which is being read has to end when it is cancelled.
_CANCEL_S = 1.0


class PromptRuns:
    """The runs of an iterator of prompts, driven as one (`Drives`).

    The next prompt is read while a run is active, one ahead. The end is that of the iterator, an
    interrupt, or a run that was suspended. What the iterator raises is raised when the active run
    has ended.

    Args:
        prompts: The iterator; it is closed at the end.
        begin: Gives the run of a prompt, and is told the result of the run before.
        publish: Gets every event.
    """

    def __init__(
        self,
        prompts: Prompts,
        begin: Callable[[UserMessage, RunResult[Any] | None], Awaitable[Run[Any]]],
        publish: Callable[[Any], None],
    ) -> None:
        self._prompts: AsyncIterator[Prompt] = aiter(prompts)
        self._begin = begin
        self._publish = publish
        self._next: asyncio.Task[list[Prompt]] | None = None
        self._run: Run[Any] | None = None
        self._result: RunResult[Any] | None = None
        self._stopping = False

    def interrupt(self) -> None:
        """End the active run with what has come, and begin no other."""
        self._stopping = True
        if self._run is not None:
            self._run.stop()
        elif self._next is not None:
            self._next.cancel()

    def partial(self) -> RunResult[Any]:
        """Give what has come of the active run, or of the last one."""
        if self._run is not None:
            return self._run.partial
        return self._result or RunResult(stop_reason="interrupted")

    async def run(self, _opening: Sequence[StoredEvent]) -> RunResult[Any]:
        """Run all; give the last result."""
        try:
            self._read()
            while prompts := await self._read_prompt():
                message = as_user_message(prompts[0])
                self._read()
                self._result = await self._one(message)
                if self._stopping or self._result.stop_reason == "suspended":
                    break
        finally:
            await self._close()
        if self._result is None and not self._stopping:
            raise UsageError("The iterator of prompts ended before its first prompt.")
        return self._result or RunResult(stop_reason="interrupted")

    async def _one(self, message: UserMessage) -> RunResult[Any]:
        run = self._run = await self._begin(message, self._result)
        try:
            async with run:
                if self._stopping:
                    run.stop()
                async for event in run:
                    self._publish(event)
                return await run
        finally:
            self._run = None

    def _read(self) -> None:
        async def read() -> list[Prompt]:
            async for prompt in self._prompts:
                return [prompt]
            return []

        self._next = asyncio.create_task(read(), name="next prompt")

    async def _read_prompt(self) -> list[Prompt]:
        """Give the prompt that is read, none at the end."""
        reading = self._next
        if reading is None or self._stopping:
            return []
        await asyncio.wait([reading])
        if not reading.cancelled():
            return reading.result()
        if self._stopping:
            return []
        raise RuntimeError("The iterator of prompts was cancelled by itself.")

    async def _close(self) -> None:
        reading = self._next
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading], timeout=_CANCEL_S)
            if not reading.done():
                return
            if not reading.cancelled():
                reading.exception()  # it was raised by `run`, or comes after what was asked for
        close = getattr(self._prompts, "aclose", None)
        if close is not None:
            await close()
