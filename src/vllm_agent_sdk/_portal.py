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

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

__all__ = ["call"]

T = TypeVar("T")


class _Loop:
    """The loop's thread, as long as this process has one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._context: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None

    def portal(self) -> BlockingPortal:
        """Give the portal, started on first use."""
        from anyio.from_thread import start_blocking_portal

        with self._lock:
            if self._portal is None or self._pid != os.getpid():
                self._context = start_blocking_portal("asyncio")
                self._portal = self._context.__enter__()
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

    Ctrl-C cancels it.
    """
    future = _loop.portal().start_task_soon(function)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
