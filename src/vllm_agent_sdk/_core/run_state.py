"""A run at one moment: the value that `run.evolve` folds events into."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from vllm_agent_sdk._core.log import Log
from vllm_agent_sdk.types.events import RunStarted
from vllm_agent_sdk.types.messages import Message, ToolCall, ToolMessage
from vllm_agent_sdk.types.results import ErrorInfo, StopReason, Usage
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["CallState", "CallStatus", "IllegalTransitionError", "Phase", "State", "Stop"]


class IllegalTransitionError(AssertionError):
    """An event came in a phase that does not know it: a bug of this library."""


class Phase(enum.StrEnum):
    """Where a run stands."""

    IDLE = "idle"
    PREPARING = "preparing"
    MODEL = "model"
    GATING = "gating"
    TOOLS = "tools"
    DONE = "done"


class CallStatus(enum.StrEnum):
    """Where a call stands."""

    INVALID = "invalid"  # answered without being run
    ASKING = "asking"  # waits for permission
    DENIED = "denied"
    ALLOWED = "allowed"
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class CallState:
    """A call of the current turn.

    Attributes:
        result: How it was answered, once it was.
        reason: Why it is invalid, is asked for, or was denied.
    """

    call: ToolCall
    status: CallStatus
    spec: ToolSpec | None = None
    reason: str = ""
    result: ToolMessage | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the run is to end."""

    reason: StopReason
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A run at one moment.

    Attributes:
        started: What it was started with.
        history: The conversation, what was said before this run included.
        said_before: How many messages of it were said before this run.
        calls: The calls of the current turn.
        executed: The names of the tools that ran, in order.
        last_call: Name and canonical arguments of the last call.
        repeats: How often in a row it was made.
        invalid_in_row: Turns in a row in which no call was valid.
    """

    phase: Phase = Phase.IDLE
    started: RunStarted = field(default_factory=RunStarted)
    history: Log[Message] = field(default_factory=Log[Message])
    said_before: int = 0
    turn: int = 0
    turn_mode: str = "plain"
    dialect: str = "native"
    calls: tuple[CallState, ...] = ()
    executed: Log[str] = field(default_factory=Log[str])
    usage_by_turn: Log[Usage] = field(default_factory=Log[Usage])
    total_tokens: int = 0
    last_call: tuple[str, bytes] | None = None
    repeats: int = 0
    invalid_in_row: int = 0
    denials: tuple[ToolCall, ...] = ()
    stop: Stop | None = None
    finish_reason: str | None = None
    model_time_s: float = 0.0
    ttft_s: float | None = None

    def spec(self, name: str) -> ToolSpec | None:
        """Give a tool's specification."""
        return next((tool for tool in self.started.tools if tool.name == name), None)

    @property
    def tool_choice(self) -> str | dict[str, Any] | None:
        """What counts in the current turn: a forced choice is for the first one only."""
        return self.started.tool_choice if self.turn <= 1 else None
