"""The blocking twins of `Run` and of event feeds: the same names, without `await`.

Each method runs its async twin on the background loop. So they work without a loop, inside a
running one (a notebook), and from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self

from typing_extensions import TypeVar

from vllm_agent_sdk._portal import call, run_there
from vllm_agent_sdk.errors import VLLMError
from vllm_agent_sdk.types.events import RunEvent, TextDelta

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.run.run import Run
    from vllm_agent_sdk.agent.session.feed import EventFeed
    from vllm_agent_sdk.types.results import RunResult

__all__ = ["BlockingEvents", "BlockingRun", "BlockingTextDeltas"]

T = TypeVar("T", default=str)
R = TypeVar("R")

#: Seconds that Ctrl-C gives a run to end with what has come; then it is cancelled.
_INTERRUPT_S = 1.0


class _Batched:
    """An iterator of events that come in batches; no batch is the end. Threads take turns."""

    def __init__(self) -> None:
        self._events: deque[RunEvent] = deque()
        self._lock = threading.Lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RunEvent:
        with self._lock:
            if not self._events:
                self._events.extend(self._batch())
            if not self._events:
                raise StopIteration
            return self._events.popleft()

    def _batch(self) -> list[RunEvent]:
        raise NotImplementedError


class BlockingRun(_Batched, Generic[T]):
    """A run of an agent, blocking.

    Iterate over it for its events (`for event in run`), `wait()` for its result, or both. Nothing
    happens before one of them begins. Use it as `with agent.stream_sync(…) as run`: what is left is
    cancelled at the end, and the server stops generating.

    Events come over in batches: all that there are, each time this thread asks. Ctrl-C while it
    waits interrupts the run (the server stops, `result` is what had come), and is raised.
    """

    def __init__(self, run: Run[T]) -> None:
        super().__init__()
        self._run = run

    def __enter__(self) -> Self:
        call(self._run.__aenter__)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def wait(self) -> RunResult[T]:
        """Wait for the end, and give the result: the twin of `await run`."""

        async def ended() -> RunResult[T]:
            # Shielded: Ctrl-C interrupts, which keeps what has come; a cancel would not.
            return await asyncio.shield(asyncio.ensure_future(self._run))

        return self._interruptible(ended)

    @property
    def result(self) -> RunResult[T]:
        """The result, once the run has ended.

        Raises:
            UsageError: It has not ended yet; `partial` is what has come so far.
        """
        return run_there(lambda: self._run.result)

    @property
    def partial(self) -> RunResult[T]:
        """What has come so far, as the result that an interrupt would give; at any time."""
        return run_there(lambda: self._run.partial)

    def text_deltas(self) -> BlockingTextDeltas:
        """Give the answer's text, piece by piece, as an iterator."""
        return BlockingTextDeltas(self)

    def interrupt(self) -> None:
        """End the run now, with what has come; returns when it has ended. Ended: does nothing."""
        call(self._run.interrupt)

    def close(self) -> None:
        """Cancel what is left of the run; its sockets are closed. Idempotent."""
        call(self._run.aclose)

    def begin(self) -> None:
        """Begin now, and keep the events for whoever reads them later."""
        run_there(self._run.begin)

    def _batch(self) -> list[RunEvent]:
        return self._interruptible(self._run.batch)

    def _interruptible(self, wait: Callable[[], Awaitable[R]]) -> R:
        try:
            return call(wait)
        except BaseException as error:
            if not isinstance(error, VLLMError):  # Ctrl-C, or what another signal's handler raised
                self._stop()
            raise

    def _stop(self) -> None:
        async def stop() -> None:
            try:
                async with asyncio.timeout(_INTERRUPT_S):
                    await self._run.interrupt()
            finally:
                await self._run.aclose()

        with contextlib.suppress(TimeoutError):
            call(stop)


class BlockingTextDeltas:
    """The text of a run's answers, piece by piece (`for`)."""

    def __init__(self, events: Iterator[object]) -> None:
        self._events = events

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        while True:
            event = next(self._events)
            if isinstance(event, TextDelta) and not event.of_subagent:
                return event.text


class BlockingEvents(_Batched):
    """The events of a session (`for`), blocking: what was kept, then what comes.

    Breaking out of the loop cancels nothing.
    """

    def __init__(self, feed: EventFeed) -> None:
        super().__init__()
        self._feed = feed

    def _batch(self) -> list[RunEvent]:
        return call(self._feed.batch)

    def close(self) -> None:
        """Stop reading; the session goes on. Idempotent."""
        call(self._feed.aclose)
        self._events.clear()
