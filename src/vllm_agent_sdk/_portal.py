"""The background event loop of every blocking facade, over anyio's portal.

One daemon thread, started by the first blocking call and ended with the process. After a fork the
child starts its own.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

from vllm_agent_sdk.errors import UsageError

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

__all__ = ["call", "run_there"]

T = TypeVar("T")

#: Seconds that a call which was broken off has to clean up; then its caller goes on.
_CLEANUP_S = 2.0


class _Loop:
    """The loop's thread, as long as this process has one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._thread = 0
        self._context: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None

    def portal(self) -> BlockingPortal:
        """Give the portal, started on first use."""
        from anyio.from_thread import start_blocking_portal

        if self._thread == threading.get_ident() and self._pid == os.getpid():
            raise UsageError(
                "A blocking call from inside a blocking call's own coroutine would wait for "
                "itself; await the async method there."
            )
        with self._lock:
            if self._portal is None or self._pid != os.getpid():
                self._context = start_blocking_portal("asyncio")
                self._portal = self._context.__enter__()
                self._thread = self._portal.call(threading.get_ident)
                self._pid = os.getpid()
                atexit.register(self._stop, self._pid)
            return self._portal

    def _stop(self, pid: int) -> None:
        if pid == os.getpid() and self._context is not None:
            self._portal = None
            self._context.__exit__(None, None, None)


_loop = _Loop()


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

    future = _loop.portal().start_task_soon(run)
    try:
        return future.result()
    except BaseException:
        if future.cancel():  # else the error is the function's own
            ended.wait(_CLEANUP_S)
        raise


def run_there(function: Callable[[], T]) -> T:
    """Run a plain function on the background loop, and give what it returned or raised."""

    async def run() -> T:
        return function()

    return call(run)
