"""The background event loop of every blocking facade, over anyio's portal.

One daemon thread, started by the first blocking call and ended with the process. After a fork the
child starts its own.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, TypeVar

from vllm_agent_sdk.errors import UsageError

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

__all__ = ["call", "run_there"]

T = TypeVar("T")

#: Seconds that a call which was broken off has to clean up; then its caller goes on.
_CLEANUP_S = 2.0
#: Seconds that a loop which is ending has to end.
_END_S = 0.5


class _Loop:
    """A loop and its thread."""

    def __init__(self) -> None:
        self._ready: Future[BlockingPortal] = Future()
        self._ended_by: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="vllm-agent-sdk", daemon=True)
        self._thread.start()
        self.portal = self._ready.result()

    @property
    def alive(self) -> bool:
        """Whether it runs; not in the child of a fork."""
        return self._thread.is_alive()

    @property
    def here(self) -> bool:
        """Whether this is its thread."""
        return self._thread is threading.current_thread()

    def _run(self) -> None:
        import anyio
        from anyio.from_thread import BlockingPortal

        async def live() -> None:
            async with BlockingPortal() as portal:
                self._ready.set_result(portal)
                await portal.sleep_until_stopped()

        try:
            anyio.run(live, backend="asyncio")
        except BaseException as error:  # noqa: BLE001 - it is raised where a call waits
            self._ended_by = error
            if not self._ready.done():
                self._ready.set_exception(error)

    def stop(self) -> None:
        """Cancel what still runs, and end."""
        if self.alive:
            self.portal.start_task_soon(self.portal.stop, True)
            self._thread.join(_CLEANUP_S)

    def raise_end(self) -> None:
        """Raise what has ended the loop, if something has (`sys.exit()` in a tool)."""
        self._thread.join(_END_S)
        if self._ended_by is not None:
            raise self._ended_by


class _Loops:
    """The loop of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: _Loop | None = None
        self._known = False

    def get(self) -> _Loop:
        """Give the loop, started on first use."""
        loop = self._loop
        if loop is not None and loop.here:
            raise UsageError(
                "A blocking call from inside a blocking call's own coroutine would wait for "
                "itself; await the async method there."
            )
        with self._lock:
            if not self._known:
                self._known = True
                atexit.register(self._stop)
                if hasattr(os, "register_at_fork"):
                    os.register_at_fork(after_in_child=self._forget)
            if self._loop is None or not self._loop.alive:
                self._loop = _Loop()
            return self._loop

    def _forget(self) -> None:
        """Begin anew in the child of a fork: the parent's thread is not there."""
        self._lock = threading.Lock()
        self._loop = None

    def _stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()


_loops = _Loops()


def call(function: Callable[[], Awaitable[T]]) -> T:
    """Run an async function on the background loop and wait for its result.

    Ctrl-C cancels it, and waits (two seconds at most) until it has cleaned up.

    Raises:
        UsageError: It is called on the background loop itself.
    """
    ended = threading.Event()

    async def run() -> T:
        try:
            return await function()
        finally:
            ended.set()

    loop = _loops.get()
    future = loop.portal.start_task_soon(run)
    try:
        return future.result()
    except CancelledError:
        loop.raise_end()
        raise
    except BaseException:
        if future.cancel():  # else the error is the function's own
            ended.wait(_CLEANUP_S)
        raise


def run_there(function: Callable[[], T]) -> T:
    """Run a plain function on the background loop, and give what it returned or raised."""

    async def run() -> T:
        return function()

    return call(run)
