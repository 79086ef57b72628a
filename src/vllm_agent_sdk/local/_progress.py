"""What a caller is told while a server is being provided: events, never printed text."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Progress", "ProgressCallback", "ProgressEvent", "Step"]

Step: TypeAlias = Literal["waiting", "environment", "install", "model", "start", "ready"]


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One sign of progress.

    Attributes:
        step: `"waiting"` (another process is installing), `"environment"` (a virtual environment is
            made), `"install"` (packages are downloaded and installed), `"model"` (the bundled model
            is converted), `"start"` (the server was started and is not ready yet), `"ready"` (it
            answers; sent once).
        fraction: How far the file or phase named in `detail` is, 0.0 to 1.0, where that is known.
        detail: What is going on, as one line for people.
        elapsed_s: Seconds since the step began.
    """

    step: Step
    fraction: float | None
    detail: str
    elapsed_s: float


ProgressCallback: TypeAlias = Callable[[ProgressEvent], None]


class Progress:
    """Sends progress to a callback, with the seconds since each step began."""

    def __init__(self, callback: ProgressCallback | None = None) -> None:
        self._callback = callback
        self._step: Step | None = None
        self._since = 0.0

    def __call__(self, step: Step, detail: str, fraction: float | None = None) -> None:
        """Report; a new step starts its clock anew."""
        now = time.monotonic()
        if step != self._step:
            self._step, self._since = step, now
        if self._callback is not None:
            self._callback(ProgressEvent(step, fraction, detail, now - self._since))
