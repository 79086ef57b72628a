"""Where things are written: what was asked for to stdout, everything else to stderr.

Law: stdout holds the answer and nothing else, whatever tools print. Colours and movement only on a
terminal.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from vllm_agent_sdk.cli.failure import sentence_of

__all__ = ["Output", "printable"]

# What could move a terminal's cursor or change its state; a model may say anything.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Text without control characters, but for tabs and line breaks."""
    return _CONTROL.sub("", text)


class Output:
    """The two streams of a command.

    Attributes:
        console: stderr, for rich things.
        shown: stdout, for rich things.
    """

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            # What a terminal of another encoding cannot show is no reason to end.
            with contextlib.suppress(AttributeError, OSError):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        self._stdout = sys.stdout
        self.console = _console(sys.stderr)
        self.shown = _console(sys.stdout)
        self._open_line = False
        self._thinking = False
        self._live: Live | None = None

    # ── stdout ───────────────────────────────────────────────────────────────────────────────────

    def answer(self, text: str) -> None:
        """Write a piece of the answer, at once."""
        self.settle()
        if text:
            self._stdout.write(printable(text) if self.shown.is_terminal else text)
            self._stdout.flush()
            self._open_line = not text.endswith("\n")

    def end_answer(self) -> None:
        """End the line of the answer, if it was not ended."""
        if self._open_line:
            self.answer("\n")

    def line(self, text: str, label: str = "") -> None:
        """Write a line to stdout, perhaps after a label."""
        self.end_answer()
        self.label(label)
        self.answer(text + "\n")

    def label(self, text: str) -> None:
        """Begin a line of stdout with a label; what follows stands in a column of its own."""
        self.settle()
        if text:
            self.shown.print(Text(f"{text:<9}", style="bold"), end="")
            self._open_line = True

    @contextlib.contextmanager
    def kept_clean(self) -> Iterator[None]:
        """What tools and their modules print goes to stderr meanwhile."""
        with contextlib.redirect_stdout(_ToStderr()):
            yield

    # ── stderr ───────────────────────────────────────────────────────────────────────────────────

    def say(self, text: str, style: str = "") -> None:
        """Write a line to stderr."""
        self._say(Text(printable(text), style=style))

    def complain(self, error: BaseException | str) -> None:
        """Write what went wrong to stderr."""
        text = error if isinstance(error, str) else sentence_of(error)
        self._say(Text.assemble(("Error: ", "bold red"), printable(text)))

    def _say(self, text: Text) -> None:
        self.settle()
        self.end_answer()
        self.console.print(text, soft_wrap=True)

    def think(self, text: str) -> None:
        """Write a piece of the model's reasoning to stderr, if that is a terminal."""
        if self.console.is_terminal and text:
            self._unwait()
            self.end_answer()
            self.console.print(Text(printable(text), style="dim"), end="", soft_wrap=True)
            self._thinking = True

    def wait(self, text: str) -> None:
        """Show on a terminal that something is awaited; the next output removes it."""
        self.settle()
        if self.moves:
            self.end_answer()
            live = Live(
                _Waiting(text),
                console=self.console,
                transient=True,
                redirect_stdout=False,  # what is printed meanwhile goes to stderr, see kept_clean
            )
            self._live = live
            live.start()

    def settle(self) -> None:
        """Remove what `wait` showed, and end the line of what `think` showed."""
        self._unwait()
        if self._thinking:
            self._thinking = False
            self.console.print()

    def _unwait(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    @property
    def moves(self) -> bool:
        """Whether stderr can show something that moves."""
        return self.console.is_terminal and not self.console.is_dumb_terminal


class _ToStderr(io.TextIOBase):
    """Writes to what `sys.stderr` is now: while something moves there, that puts lines above it."""

    def write(self, text: str) -> int:
        """Write to stderr."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush stderr."""
        sys.stderr.flush()

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True


class _Waiting:
    """A spinner, what is awaited, and for how long already."""

    def __init__(self, text: str) -> None:
        self._spinner = Spinner("dots")
        self._text = text
        self._since = time.monotonic()

    def __rich__(self) -> Table:
        row = Table.grid(padding=(0, 1))
        waited = time.monotonic() - self._since
        row.add_row(self._spinner, Text(f"{self._text} {waited:.0f} s", style="dim"))
        return row


def _console(stream: TextIO) -> Console:
    # A terminal is what says so of itself; variables that force colours don't make a file one.
    return Console(file=stream, force_terminal=stream.isatty(), highlight=False, markup=False)
