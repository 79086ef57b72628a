"""Code of others, called so that whatever it does has a defined outcome."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

from vllm_agent_sdk.agent.tools.function import in_thread, is_async, running_loop

__all__ = ["Unlimited", "called", "ends_program", "is_async", "not_ours", "time_limit"]


async def called(fn: Callable[..., Any], *args: Any, name: str) -> Any:
    """Await an async function, run a sync one in a thread of its own; give what it returned.

    Raises:
        RuntimeError: It cancelled itself.
    """
    call = functools.partial(fn, *args)
    with not_ours():
        answer = call() if is_async(fn) else await in_thread(call, name)
        return await answer if inspect.isawaitable(answer) else answer


class not_ours:  # noqa: N801 - it reads as the `with` it is
    """Turns a cancellation that nobody asked for into an error: it must not end who waits.

    So is an end of the program, where it is not the program that runs here.
    """

    def __init__(self) -> None:
        self._task = None if running_loop() is None else asyncio.current_task()
        self._cancels = 0 if self._task is None else self._task.cancelling()

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, (KeyboardInterrupt, SystemExit)) and not ends_program(error):
            raise RuntimeError(f"it raised {error!r}") from error
        if not isinstance(error, asyncio.CancelledError):
            return
        if self._task is not None and self._task.cancelling() > self._cancels:
            return
        raise RuntimeError("it was cancelled by itself") from error


def ends_program(error: BaseException) -> bool:
    """Whether it is to end the program: in another thread it would end that one's loop alone."""
    leaves = isinstance(error, (KeyboardInterrupt, SystemExit))
    return leaves and threading.current_thread() is threading.main_thread()


def time_limit(seconds: float | None) -> asyncio.Timeout | Unlimited:
    """Give `asyncio.timeout(seconds)`; without an event loop (a scripted run) nothing is timed."""
    return Unlimited() if running_loop() is None else asyncio.timeout(seconds)


class Unlimited:
    """A time limit that never passes."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_error: object) -> None:
        return None

    def expired(self) -> bool:
        """Whether the time has passed."""
        return False
