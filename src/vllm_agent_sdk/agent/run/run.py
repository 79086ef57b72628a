"""A run in the caller's hands: an async iterator of its events, and something to await."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, Self, cast

from typing_extensions import TypeVar

from vllm_agent_sdk.agent.run.event_queue import EventQueue
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.events import (
    RunEvent,
    StoredEvent,
    TextDelta,
)
from vllm_agent_sdk.types.results import RunResult

__all__ = ["Drives", "Run", "Start", "alone", "load", "unwatched"]

T = TypeVar("T", default=str)

#: What a run needs besides its definition; a program that only uses the client never loads it.
_MODULES = (
    "vllm_agent_sdk.agent.run.driver",
    "vllm_agent_sdk.agent.run.opening",
    "vllm_agent_sdk.client.chat",
    "vllm_agent_sdk.client.server",
    "vllm_agent_sdk._core.server.drift",
)
_OF_API = {"responses": ("vllm_agent_sdk.agent.model.responses_call",)}


async def load(api: str = "chat") -> None:
    """Load what runs need, once, in a thread: the loop goes on meanwhile."""
    modules = (*_MODULES, *_OF_API.get(api, ()))
    if not all(module in sys.modules for module in modules):
        await asyncio.to_thread(lambda: [importlib.import_module(module) for module in modules])


class Drives(Protocol):
    """What performs a run, or several one after the other."""

    async def run(self, opening: Sequence[StoredEvent], /) -> RunResult[Any]:
        """Run to the end."""
        ...

    def interrupt(self) -> None:
        """Ask for the end; nothing happens if it has ended."""
        ...

    def partial(self) -> RunResult[Any]:
        """Give what has come so far."""
        ...


class Start:
    """How a run begins and ends.

    Args:
        prepare: Makes its driver and its opening events.
        close: Closes what it owns; `None` where there is nothing to be closed.
    """

    def __init__(
        self,
        prepare: Callable[[Callable[[Any], None]], Awaitable[tuple[Drives, list[StoredEvent]]]],
        close: Callable[[], Awaitable[None] | None],
    ) -> None:
        self.prepare = prepare
        self._close = close

    async def ended(self) -> None:
        """Close what there is to be closed, whoever is cancelled meanwhile."""
        closing = self._close()
        if closing is not None:
            await asyncio.shield(asyncio.ensure_future(closing))


class _Work:
    """The run's task and what it shares with the handle; it does not know the handle."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self.queue = EventQueue()
        self.watched = False
        self.driver: Drives | None = None
        self.result: RunResult[Any] | None = None
        self.begun = self.stop_asked = self.over = False

    async def run(self) -> RunResult[Any]:
        self.begun = True
        try:
            self.driver, opening = await self._start.prepare(self._publish)
            if self.stop_asked:
                self.driver.interrupt()
            self.result = await self.driver.run(opening)
            self.driver = None  # it holds this; what a cancelled run had said stays there
            return self.result
        finally:
            self.queue.close()
            await self._start.ended()
            self.over = True
            del self._start  # a session's knows the handle, which holds this

    def _publish(self, event: Any) -> None:
        if self.watched:
            self.queue.put(event)


class Run(Generic[T]):
    """A run of an agent.

    Iterate over it for its events (`async for event in run`), await it for its result, or both.
    Nothing happens before one of them begins. Use it as `async with agent.stream(…) as run`: what
    is left is cancelled at the end, and the server stops generating.
    """

    def __init__(self, start: Start) -> None:
        self._work = _Work(start)
        self._task: asyncio.Task[RunResult[Any]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        self._watch()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunEvent:
        task = self._watch()
        event = await self._work.queue.get()
        if event is None:
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
            raise StopAsyncIteration
        return cast("RunEvent", event)

    async def batch(self) -> list[RunEvent]:
        """Give the next events: all that are there, at least one; none at the end.

        Raises as iterating does.
        """
        first = await anext(self, None)
        return [] if first is None else [first, *self._work.queue.rest()]

    def __await__(self) -> Generator[Any, None, RunResult[T]]:
        return self._result().__await__()

    async def _result(self) -> RunResult[T]:
        task = self._begun()
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if task.cancelled() and waiter is not None and not waiter.cancelling():
                raise UsageError(
                    "The run was closed before its end; `partial` is what had come."
                ) from None
            # Who waits was cancelled: nobody else ends the run.
            await self.aclose()
            raise

    @property
    def result(self) -> RunResult[T]:
        """The result, once the run has ended.

        Raises:
            UsageError: It has not ended yet; `partial` is what has come so far.
        """
        if self._task is None or not self._task.done() or self._task.cancelled():
            raise UsageError("The run has no result yet; `partial` is what has come so far.")
        return self._task.result()

    @property
    def partial(self) -> RunResult[T]:
        """What has come so far, as the result that an interrupt would give; at any time."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            return self._task.result()
        work = self._work
        if work.driver is None:
            return work.result or RunResult(stop_reason="interrupted")
        return work.driver.partial()

    def text_deltas(self) -> RunTextDeltas:
        """Give the answer's text, piece by piece, as an async iterator."""
        return RunTextDeltas(self)

    async def interrupt(self) -> None:
        """End the run now, with what has come; returns when it has ended. Ended: does nothing."""
        self.stop()
        if self._task is not None:
            await asyncio.wait([self._task])

    def stop(self) -> None:
        """Ask for what `interrupt` does, and don't wait for it."""
        if self._task is None or self._task.done():
            return
        if self._work.driver is None:
            self._work.stop_asked = True
        else:
            self._work.driver.interrupt()

    async def aclose(self) -> None:
        """Cancel what is left of the run; its sockets are closed. Idempotent."""
        self._closed = True
        task = self._task
        if task is None:
            return
        try:
            if not self._work.begun:  # cancelled before its first step, a task cleans up nothing
                await asyncio.sleep(0)
        finally:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):  # told by `result`, or nobody
            await asyncio.shield(asyncio.wait([task]))

    def __del__(self) -> None:
        task, loop = getattr(self, "_task", None), getattr(self, "_loop", None)
        if task is None or task.done() or loop is None or loop.is_closed() or self._work.over:
            return
        loop.call_soon_threadsafe(task.cancel)
        warnings.warn(
            "A run was dropped before its end; use `async with`, or call aclose().",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def begin(self) -> None:
        """Begin now, and keep the events for whoever reads them later."""
        self._watch()

    def ignore(self) -> None:
        """Keep no events: nobody will read them."""
        self._work.watched = False

    def _watch(self) -> asyncio.Task[RunResult[Any]]:
        if self._task is None:
            self._work.watched = True
        return self._begun()

    def _begun(self) -> asyncio.Task[RunResult[Any]]:
        if self._task is None:
            if self._closed:
                raise UsageError("The run is closed.")
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.create_task(self._work.run(), name="run")
        elif self._loop is not asyncio.get_running_loop():
            raise UsageError(
                "The run belongs to another event loop, or to the process that forked."
            )
        return self._task


async def alone(start: Start) -> RunResult[Any]:
    """Run to the end in the task of the caller, who has no handle: nobody sees its events."""
    try:
        driver, opening = await start.prepare(unwatched)
        return await driver.run(opening)
    finally:
        await start.ended()


def unwatched(_event: Any) -> None:
    """Show an event to nobody."""


class RunTextDeltas:
    """The text of a run's answers, piece by piece (`async for`)."""

    def __init__(self, run: AsyncIterator[object]) -> None:
        self._events = run

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            event = await anext(self._events)
            if isinstance(event, TextDelta) and not event.of_subagent:
                return event.text
