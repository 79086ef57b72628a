"""Stand-ins for `LocalServer`: what the command line does with one, without a vLLM."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from vllm_agent_sdk import LocalServerError
from vllm_agent_sdk.local import ProgressEvent
from vllm_agent_sdk.testing import Reply, Simulator

STEPS = (
    ProgressEvent("environment", None, "Creating a folder", 0.0),
    ProgressEvent("install", 0.5, "Downloading torch (200 MB)", 0.1),
    ProgressEvent("model", None, "Converting the bundled model", 0.2),
    ProgressEvent("start", None, "(APIServer pid=7) INFO 11-21 11:03:38 [api.py:1] Loading", 0.3),
    ProgressEvent("ready", 1.0, "ready", 0.4),
)


class FakeServer:
    """A server that comes up, or fails after some steps, or dies; made by calling it."""

    def __init__(
        self,
        steps: Sequence[ProgressEvent] = STEPS,
        error: LocalServerError | None = None,
        dies: int | None = None,
        when_ready: Callable[[], object] = lambda: None,
    ) -> None:
        self._steps = steps
        self._error = error
        self._dies = dies
        self._when_ready = when_ready
        self.simulator = Simulator(
            Reply.calls(("get_weather", {"city": "Paris"})), Reply.text("It is 21 °C.")
        )
        self.model: str | None = None
        self.args: Sequence[str] = ()
        self.options: dict[str, Any] = {}
        self.closed = False
        self.api_key: str | None = None
        self.log_path = Path("server.log")

    def __call__(self, model: str | None = None, args: Sequence[str] = (), **options: Any) -> Self:
        """Be made, as `LocalServer` is."""
        self.model, self.args, self.options = model, args, options
        self.api_key = options.get("api_key")
        return self

    @property
    def base_url(self) -> str:
        return self.simulator.base_url

    async def __aenter__(self) -> Self:
        for step in self._steps:
            self.options["progress"](step)
            await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        self.model = "sim-model"
        await self.simulator.__aenter__()
        self._when_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if not self.closed and self._error is None:
            await self.simulator.__aexit__(None, None, None)
        self.closed = True

    async def wait(self) -> int | None:
        if self._dies is None:
            await asyncio.Event().wait()
        return self._dies


#: Makes `LocalServer` give a server.
Local = Callable[[FakeServer], FakeServer]


def interrupt() -> None:
    """Press Ctrl-C."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
