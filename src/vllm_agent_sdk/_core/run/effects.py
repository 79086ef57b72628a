"""What a run wants done: `effects(state)` follows from the state alone.

1. An effect has a stable id, made of its turn and its call. It is under way until the event that
   ends it, and is cancelled when it is no longer among the effects.
2. `RunTool` is the one effect with side effects: it starts only after its `ToolStarted` is stored.
"""

from __future__ import annotations

from typing import TypeAlias

from vllm_agent_sdk._core.run.state import CallState, CallStatus, Change, Phase, State
from vllm_agent_sdk.types._codec import Fact
from vllm_agent_sdk.types.messages import ToolCall, ToolMessage, UserMessage
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = [
    "Answer",
    "AskPermission",
    "AskUser",
    "BeginTurn",
    "CallModel",
    "ChangeSetting",
    "Compact",
    "Effect",
    "Finish",
    "RunHook",
    "RunTool",
    "Say",
    "Suspend",
    "call_hooks",
    "compactable",
    "effects",
]


class BeginTurn(Fact, frozen=True):
    """Begin a turn (`TurnStarted`)."""

    turn: int

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"turn-{self.turn}"


class CallModel(Fact, frozen=True):
    """Ask the model (`ModelStarted`, then `ModelEnded`)."""

    turn: int
    attempt: int

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"model-{self.turn}-{self.attempt}"


class Compact(Fact, frozen=True):
    """Summarise the first messages (`Compacted`)."""

    turn: int
    messages: int

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"compact-{self.turn}"


class RunHook(Fact, frozen=True):
    """Run a hook (`HookRan`).

    Attributes:
        event: What it runs for.
        number: Which of `RunStarted.hooks`.
        about: The call it runs for, or what else tells this time from another.
        call: The call, for the events that are about one.
    """

    event: str
    number: int
    about: str
    call: CallState | None = None

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"hook-{self.event}-{self.about}-{self.number}"


class AskPermission(Fact, frozen=True):
    """Ask whether a call may run (`PermissionAsked`, then `PermissionDecided`)."""

    call: ToolCall
    reason: str

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"permission-{self.call.id}"


class AskUser(Fact, frozen=True):
    """Ask the user what the model wants to know (`UserAsked`, then `UserAnswered`)."""

    call: ToolCall

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"question-{self.call.id}"


class RunTool(Fact, frozen=True):
    """Run a tool (`ToolStarted`, then `ToolEnded`): the one effect with side effects."""

    call: ToolCall
    spec: ToolSpec

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"tool-{self.call.id}"


class TakeCheckpoint(Fact, frozen=True):
    """Keep the files as they are (`Checkpointed`)."""

    turn: int

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"checkpoint-{self.turn}"


class Answer(Fact, frozen=True):
    """Answer a call without running it (`ToolEnded`)."""

    call: ToolCall
    message: ToolMessage

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"answer-{self.call.id}"


class Say(Fact, frozen=True):
    """Say something to the model (`MessageAdded`)."""

    message: UserMessage
    when: str
    turn: int

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"say-{self.turn}"


class ChangeSetting(Fact, frozen=True):
    """Change something about the run (`SettingsChanged`)."""

    change: Change
    turn: int

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return f"change-{self.turn}-{self.change.what}-{self.change.new}"


class Suspend(Fact, frozen=True):
    """Stand still (`RunSuspended`)."""

    waiting: tuple[CallState, ...]

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return "suspend"


class Finish(Fact, frozen=True):
    """End the run (`RunEnded`)."""

    @property
    def id(self) -> str:
        """The effect's stable id."""
        return "finish"


Effect: TypeAlias = (
    BeginTurn
    | CallModel
    | Compact
    | RunHook
    | AskPermission
    | AskUser
    | RunTool
    | TakeCheckpoint
    | Answer
    | Say
    | ChangeSetting
    | Suspend
    | Finish
)


_STILL = frozenset({Phase.IDLE, Phase.DONE, Phase.SUSPENDED})


def effects(state: State) -> tuple[Effect, ...]:
    """Say what is to be under way now."""
    if state.phase in _STILL:
        return ()
    if state.stop is not None:
        return (Finish(),)
    match state.phase:
        case Phase.PREPARING:
            return _preparing(state)
        case Phase.COMPACTING:
            return _step(state, "pre_compact", str(state.turn)) or (
                Compact(state.turn, compactable(state)),
            )
        case Phase.MODEL:
            if state.ending is not None:
                return _step(state, "stop", str(state.turn))
            if state.change is not None:
                return (ChangeSetting(state.change, state.turn),)
            return (CallModel(state.turn, state.attempt),)
    wanted = (*_answers(state), *_questions(state), *_tools(state))
    waiting = tuple(entry for entry in state.calls if entry.status is CallStatus.WAITING)
    return wanted or ((Suspend(waiting),) if waiting else ())


def compactable(state: State) -> int:
    """Give how many of the first messages can be summarised; 0 if none can.

    The newest prompt and what follows stays, and so does a call with its results.
    """
    history = state.history.since(0)
    cut = len(history) - state.started.context.keep_last
    newest = max(
        (at for at, message in enumerate(history) if isinstance(message, UserMessage)), default=0
    )
    cut = min(cut, newest)
    while cut > 0 and isinstance(history[cut], ToolMessage):
        cut -= 1
    return cut if cut > 1 else 0


def _preparing(state: State) -> tuple[Effect, ...]:
    if state.prompts:
        return _step(state, "user_prompt_submit", f"{state.turn}-{len(state.history)}")
    if state.say is not None:
        message, when = state.say
        return (Say(message, when, state.turn),)
    if state.change is not None:
        return (ChangeSetting(state.change, state.turn),)
    if waits_for_background(state) or not len(state.history):
        return ()
    if state.started.checkpoints == "turn" and state.checkpointed <= state.turn:
        return (TakeCheckpoint(state.turn + 1),)
    return (BeginTurn(state.turn + 1),)


def waits_for_background(state: State) -> bool:
    """True while a run without a session has nothing to do but to wait for its background tasks.

    With a session their results would go to its next run.
    """
    return state.ending is not None and bool(state.background)


def _step(state: State, event: str, about: str) -> tuple[Effect, ...]:
    """Give the next hook of the present step."""
    numbers = state.hooks(event)[state.hook :]
    return (RunHook(event, numbers[0], about),) if numbers else ()


def call_hooks(state: State, entry: CallState) -> list[int]:
    """Give the numbers of the hooks of a call's status that have not run, in order."""
    if entry.spec is None or not state.started.hooks:
        return []
    agent = entry.spec.kind == "agent"
    match entry.status:
        case CallStatus.HOOKED:
            events = ["pre_tool_use", "subagent_start"] if agent else ["pre_tool_use"]
        case CallStatus.ASKING:
            events = ["permission_request"]
        case CallStatus.ENDED:
            ended = "post_tool_use_failure" if entry.failed else "post_tool_use"
            events = [ended, "subagent_stop"] if agent else [ended]
        case _:
            return []
    numbers = [number for event in events for number in state.hooks(event, entry.call.name)]
    return numbers[entry.hook :]


def _hook_of(state: State, entry: CallState, numbers: list[int]) -> RunHook:
    event = state.hook_spec(numbers[0]).event
    return RunHook(event, numbers[0], entry.call.id, entry)


def _answers(state: State) -> tuple[Effect, ...]:
    return tuple(
        Answer(entry.call, ToolMessage(entry.call.id, entry.reason, is_error=True))
        for entry in state.calls
        if entry.status in {CallStatus.INVALID, CallStatus.DENIED} and entry.result is None
    )


def _questions(state: State) -> tuple[Effect, ...]:
    """Give the hooks of calls, and what is asked of people."""
    wanted: list[Effect] = []
    for entry in state.calls:
        numbers = call_hooks(state, entry)
        if numbers:
            wanted.append(_hook_of(state, entry, numbers))
        elif entry.status is CallStatus.ASKING:
            wanted.append(AskPermission(entry.call, entry.reason))
    return tuple(wanted)


#: What is waited for by calls that have begun.
_BEGUN = frozenset({"tool_result", "question", "decision"})


def _tools(state: State) -> tuple[Effect, ...]:
    """Give the tools that run, and those that may begin: in the order of the calls."""
    running = [entry for entry in state.calls if entry.status is CallStatus.RUNNING]
    chosen = [_running(entry) for entry in running]
    if [entry for entry in running if entry.spec is not None and entry.spec.serial]:
        return tuple(chosen)
    limits = state.started.limits
    # A call may have begun before an earlier one that had to be asked about: count them first.
    room = limits.max_parallel_tools - len(running)
    if limits.max_tool_calls is not None:
        elsewhere = [entry for entry in state.calls if entry.waits_for in _BEGUN]
        begun = len(state.executed) + len(running) + len(elsewhere)
        room = min(room, limits.max_tool_calls - begun)
    for entry in state.calls:
        if entry.spec is None or entry.status is not CallStatus.ALLOWED:
            continue
        if room <= 0 or (entry.spec.serial and chosen):
            break
        before_edits = state.started.checkpoints == "tools" and state.checkpointed < state.turn
        if before_edits and entry.spec.edits_files:
            chosen.append(TakeCheckpoint(state.turn))
            break
        chosen.append(_running(entry))
        room -= 1
        if entry.spec.serial:
            break
    return tuple(chosen)


def _running(entry: CallState) -> Effect:
    spec = entry.spec
    if spec is None:
        raise AssertionError(f"{entry.call.name} runs and is unknown")
    return AskUser(entry.call) if spec.kind == "question" else RunTool(entry.call, spec)
