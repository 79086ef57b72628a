"""How a server of one's own comes up, shown on stderr: bars and a spinner, or plain lines."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from vllm_agent_sdk import UsageError
from vllm_agent_sdk.cli.output import Output, printable
from vllm_agent_sdk.local import ProgressEvent, gather_facts

__all__ = ["Provisioning", "split_args"]

_BEAT_S = 10.0
_DETAIL_CHARS = 100
#: How vLLM begins a line of its log: which process, how loud, when, where.
_PREFIX = re.compile(r"^(\([^)]*pid=\d+\)\s*)?([A-Z]+ \d\d-\d\d [\d:.]+ (\[[^\]]*\])?\s*)?")
_DONE = {
    "environment": "Environment made",
    "install": "Installed",
    "model": "Model converted",
    "start": "vLLM started",
}
#: What is going on, where the detail is a line of a log and does not say it itself.
_DOING = {"start": "Starting vLLM: "}


class Provisioning:
    """Shows progress events while `async with` lasts; give it to `LocalServer(progress=…)`.

    Attributes:
        steps: The steps that were begun, in order.
    """

    def __init__(self, output: Output) -> None:
        self.steps: list[str] = []
        self._output = output
        self._detail = ""
        self._fraction: float | None = None
        self._since = 0.0
        self._bar: Progress | None = None
        self._beat: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._output.settle()
        if not self._output.moves:
            self._beat = asyncio.create_task(self._beats(), name="progress")
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stop_bar()
        if self._beat is not None:
            self._beat.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beat

    def __call__(self, event: ProgressEvent) -> None:
        """Show one sign of progress."""
        said = _PREFIX.sub("", printable(event.detail))
        new = not self.steps or self.steps[-1] != event.step
        self._detail = f"{'' if new else _DOING.get(event.step, '')}{said}"[:_DETAIL_CHARS]
        self._fraction = event.fraction
        if new:
            self._next(event)
        if self._bar is not None:
            task = self._bar.task_ids[0]
            total = None if event.fraction is None else 1.0
            self._bar.update(
                task,
                description=self._detail,
                # A bar that is full stops its clock, and the step goes on.
                completed=min(event.fraction or 0.0, 0.999),
                total=total,
                visible=True,
            )

    def _next(self, event: ProgressEvent) -> None:
        self._stop_bar()
        ended = self.steps[-1] if self.steps else ""
        if ended in _DONE:
            self._output.say(f"{_DONE[ended]} ({time.monotonic() - self._since:.0f} s).", "green")
        self.steps.append(event.step)
        self._since = time.monotonic()
        if event.step == "environment" and "model-tools" not in event.detail:
            self._output.say(
                "Installing vLLM's CPU build once, about 4 GB, into "
                f"{gather_facts().cache}; this takes some minutes."
            )
        if event.step == "ready":
            return
        if self._output.moves:
            self._bar = _bar(self._output.console, with_bar=event.step != "start")
            self._bar.add_task(self._detail, total=None)
            self._bar.start()
        else:
            self._output.say(f"{self._detail} …")

    def _stop_bar(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    async def _beats(self) -> None:
        """In a log: a line now and then, so that nobody takes it for dead."""
        while True:
            await asyncio.sleep(_BEAT_S)
            if self.steps and self.steps[-1] != "ready":
                share = "" if self._fraction is None else f" {self._fraction:.0%}"
                waited = time.monotonic() - self._since
                self._output.say(f"  {waited:.0f} s: {self._detail}{share}", "dim")


def split_args(text: str) -> list[str]:
    """Split `--pip-args` as a shell would.

    Raises:
        UsageError: A quote is open.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--pip-args {text!r} has an open quote.") from error


def _bar(console: Console, *, with_bar: bool) -> Progress:
    text = TextColumn(
        "{task.description}",
        style="dim",
        table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
    )
    elapsed = TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7))
    share = BarColumn(20, table_column=Column(no_wrap=True, min_width=20))
    columns = [SpinnerColumn(), elapsed, *([share] if with_bar else []), text]
    return Progress(
        *columns,
        console=console,
        transient=True,
        expand=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
