"""An event loop that Ctrl-C and SIGTERM end in order: what runs is ended first, then the program.

The first signal ends things gracefully, the second at once. At once is safe: a server of our own
has a supervisor that ends it when this process is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from vllm_agent_sdk.cli.output import Output

__all__ = ["Interrupts", "run_loop"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = "\x1b[?25h"


class Interrupts:
    """What a signal does: by default it cancels the command, and `heard` is called."""

    def __init__(self, heard: Callable[[], object]) -> None:
        self._heard = heard
        self.received: signal.Signals | None = None
        self._task: asyncio.Task[Any] | None = None
        self._gracefully: Callable[[], object] | None = None

    @property
    def code(self) -> int:
        """The exit code of a command that the signal ended."""
        return 128 + (self.received or signal.SIGINT)

    @contextlib.contextmanager
    def doing(self, gracefully: Callable[[], object]) -> Iterator[None]:
        """Meanwhile the first signal calls this instead of cancelling the command."""
        self._gracefully = gracefully
        try:
            yield
        finally:
            self._gracefully = None

    def install(self) -> None:
        """Take the signals, in the task that they are to cancel."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            # Windows has no such handlers: there asyncio's own Ctrl-C cancels the task.
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self._receive, number)

    def remove(self) -> None:
        """Give the signals back."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(number)

    def _receive(self, number: signal.Signals) -> None:
        if self.received is not None:
            if sys.stderr.isatty():
                sys.stderr.write(f"{_SHOW_CURSOR}\n")
            sys.stderr.flush()
            os._exit(self.code)
        self.received = number
        if self._gracefully is not None:
            self._gracefully()
        elif self._task is not None:
            self._heard()  # ending a server takes some seconds
            self._task.cancel()


def run_loop(main: Callable[[Interrupts], Coroutine[Any, Any, int]], output: Output) -> int:
    """Run a command's coroutine; its exit code, or 130 (143) where a signal ended it."""
    interrupts = Interrupts(lambda: output.say("Stopping; Ctrl-C again stops at once.", "yellow"))

    async def run() -> int:
        interrupts.install()
        try:
            return await main(interrupts)
        except asyncio.CancelledError:
            if interrupts.received is None:
                raise
            return interrupts.code
        finally:
            output.settle()
            interrupts.remove()

    return asyncio.run(run())
