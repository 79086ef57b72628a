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
    """Give the tools that run, and those that may begin: in the order of the calls."""
    running = [entry for entry in state.calls if entry.status is CallStatus.RUNNING]
    chosen = [RunTool(entry.call, entry.spec) for entry in running if entry.spec is not None]
    if any(effect.spec.serial for effect in chosen):
        return tuple(chosen)
    limits = state.started.limits
    # A call may have begun before an earlier one that had to be asked about: count them first.
    room = limits.max_parallel_tools - len(running)
    if limits.max_tool_calls is not None:
        room = min(room, limits.max_tool_calls - len(state.executed) - len(running))
    for entry in state.calls:
        if entry.spec is None or entry.status is not CallStatus.ALLOWED:
            continue
        if room <= 0 or (entry.spec.serial and chosen):
            break
        chosen.append(RunTool(entry.call, entry.spec))
        room -= 1
        if entry.spec.serial:
            break
    return tuple(chosen)
