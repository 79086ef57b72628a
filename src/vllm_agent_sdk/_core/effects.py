"""What a run wants done: `effects(state)` follows from the state alone.

1. An effect has a stable id, made of its turn and its call. It is under way until the event that
   ends it, and is cancelled when it is no longer among the effects.
2. `RunTool` is the one effect with side effects: it starts only after its `ToolStarted` is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from vllm_agent_sdk._core.run_state import CallStatus, Phase, State
from vllm_agent_sdk.types.messages import ToolCall, ToolMessage
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = [
    "Answer",
    "AskPermission",
    "BeginTurn",
    "CallModel",
    "Effect",
    "Finish",
    "RunTool",
    "effects",
]


@dataclass(frozen=True, slots=True)
class BeginTurn:
    """Begin a turn (`TurnStarted`)."""

    turn: int

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"turn-{self.turn}"


@dataclass(frozen=True, slots=True)
class CallModel:
    """Ask the model (`ModelStarted`, then `ModelEnded`)."""

    turn: int
    turn_mode: str

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"model-{self.turn}-{self.turn_mode}"


@dataclass(frozen=True, slots=True)
class AskPermission:
    """Ask whether a call may run (`PermissionAsked`, then `PermissionDecided`)."""

    call: ToolCall
    reason: str

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"permission-{self.call.id}"


@dataclass(frozen=True, slots=True)
class RunTool:
    """Run a tool (`ToolStarted`, then `ToolEnded`): the one effect with side effects."""

    call: ToolCall
    spec: ToolSpec

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"tool-{self.call.id}"


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a call without running it (`ToolEnded`)."""

    call: ToolCall
    message: ToolMessage

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"answer-{self.call.id}"


@dataclass(frozen=True, slots=True)
class Finish:
    """End the run (`RunEnded`)."""

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return "finish"


Effect: TypeAlias = BeginTurn | CallModel | AskPermission | RunTool | Answer | Finish


def effects(state: State) -> tuple[Effect, ...]:
    """Say what is to be under way now."""
    if state.phase in {Phase.IDLE, Phase.DONE}:
        return ()
    if state.stop is not None:
        return (Finish(),)
    if state.phase is Phase.PREPARING:
        return (BeginTurn(state.turn + 1),) if len(state.history) else ()
    if state.phase is Phase.MODEL:
        return (CallModel(state.turn, state.turn_mode),)
    return (*_answers(state), *_questions(state), *_tools(state))


def _answers(state: State) -> tuple[Effect, ...]:
    return tuple(
        Answer(entry.call, ToolMessage(entry.call.id, entry.reason, is_error=True))
        for entry in state.calls
        if entry.status in {CallStatus.INVALID, CallStatus.DENIED} and entry.result is None
    )


def _questions(state: State) -> tuple[Effect, ...]:
    return tuple(
        AskPermission(entry.call, entry.reason)
        for entry in state.calls
        if entry.status is CallStatus.ASKING
    )


def _tools(state: State) -> tuple[Effect, ...]:
    """Give the tools that run or may: in the order of the calls, a serial one by itself."""
    chosen: list[Effect] = []
    limits = state.started.limits
    room = limits.max_tool_calls
    room = None if room is None else room - len(state.executed)
    for entry in state.calls:
        if entry.spec is None or entry.status not in {CallStatus.ALLOWED, CallStatus.RUNNING}:
            continue
        running = entry.status is CallStatus.RUNNING
        if not running:
            if room is not None and room <= 0:
                break
            if len(chosen) >= limits.max_parallel_tools or (entry.spec.serial and chosen):
                break
            room = None if room is None else room - 1
        chosen.append(RunTool(entry.call, entry.spec))
        if entry.spec.serial:
            break
    return tuple(chosen)
