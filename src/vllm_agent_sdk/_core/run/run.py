"""The run as a machine: `evolve(state, event)` is the only place where a state changes.

1. An event that its phase does not know is a bug of ours (`IllegalTransitionError`).
2. A run ends in exactly one `RunEnded`, or stands in `RunSuspended`. Once `stop` is set, `Finish`
   is the only effect, every open call has been closed, and the transcript is valid.
3. Nothing that was said to a run is lost: what it did not get to waits for the next one.
4. Text never enters the machine: it goes from the stream to whoever watches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vllm_agent_sdk._core.run import calls, checkpoints, model, results
from vllm_agent_sdk._core.run.effects import call_hooks, effects, waits_for_background
from vllm_agent_sdk._core.run.hooks import hook_ran
from vllm_agent_sdk._core.run.state import (
    CallState,
    CallStatus,
    IllegalTransitionError,
    Phase,
    State,
    Stop,
    replace,
)
from vllm_agent_sdk.types.events import (
    Checkpointed,
    Compacted,
    HookRan,
    Interrupted,
    MessageAdded,
    ModelEnded,
    ModelStarted,
    Notice,
    PermissionAsked,
    PermissionDecided,
    Rewound,
    RunEnded,
    RunResumed,
    RunStarted,
    RunSuspended,
    SettingsChanged,
    StoredEvent,
    SubagentEnded,
    SubagentStarted,
    ToolEnded,
    ToolStarted,
    TurnStarted,
    UserAnswered,
    UserAsked,
)
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ContentBlock,
    Message,
    ToolCall,
    UserMessage,
)
from vllm_agent_sdk.types.results import StopReason

__all__ = ["TRANSITIONS", "Rule", "evolve"]


def evolve(state: State, event: StoredEvent) -> State:
    """Give the state after an event.

    Raises:
        IllegalTransitionError: The event cannot come in this phase.
    """
    rule = TRANSITIONS.get((state.phase, type(event)))
    if rule is None and isinstance(event, _UNHEARD):
        return state
    over = state.stop is not None and state.phase is not Phase.DONE
    if rule is None or (over and not isinstance(event, _AFTER_STOP)):
        raise IllegalTransitionError(f"{type(event).__name__} in phase {state.phase}")
    return _settled(rule.handler(state, event))


# ── a run begins, is spoken to, and ends ─────────────────────────────────────────────────────────


def _run_started(state: State, event: RunStarted) -> State:
    history = state.history.appended(*event.history, *state.notes)
    return State(
        phase=Phase.PREPARING,
        started=event,
        model=event.model,
        tools=tuple(event.tools),
        permissions=event.permissions,
        grants=state.grants,
        history=history,
        said_before=len(history),
        queue=state.queue,
        background=state.background,
        outputs=state.outputs,
        checkpoints=state.checkpoints,
        edits=state.edits,
        turn_mode=event.turn_mode,
        dialect=event.dialect,
        window=event.window,
        summaries=state.summaries,
        last_tokens=state.last_tokens,
        measured=state.measured,
        cache=state.cache,
        cached_before=len(state.cache),
        cost=0.0 if event.prices else None,
    )


def _message_added(state: State, event: MessageAdded) -> State:
    message = event.message
    if not isinstance(message, UserMessage):
        raise IllegalTransitionError(f"A run is not told a {type(message).__name__}")
    over = state.stop is not None or state.phase in {Phase.IDLE, Phase.DONE}
    match event.when:
        case "repair" | "hook":
            return replace(state, history=state.history.appended(message), say=None)
        case "notification":
            state, message = results.background_ended(state, event.task, message)
            if over:
                return replace(state, notes=(*state.notes, message))
            return replace(state, prompts=(*state.prompts, message))
        case "after" | "interrupt":
            return replace(state, queue=(*state.queue, message))
        case "steer" if over:
            return replace(state, queue=(*state.queue, message))
    queue = state.queue[1:] if event.queued else state.queue
    return replace(state, prompts=(*state.prompts, message), queue=queue)


def _unchanged(state: State, _event: StoredEvent) -> State:
    return state


def _settings_changed(state: State, event: SettingsChanged) -> State:
    asked = state.change is not None and state.change.what == event.what
    state = replace(state, change=None) if asked else state
    new = event.new
    match event.what:
        case "turn_mode":
            dialect = "text" if new in {"guided", "envelope"} else "native"
            return replace(state, turn_mode=str(new), dialect=dialect)
        case "model":
            return replace(state, model=new, window=state.window if new == state.model else None)
        case "permission_mode":
            return replace(state, permissions=_with(state.permissions, mode=new))
        case "directories":
            return replace(state, permissions=_with(state.permissions, directories=tuple(new)))
        case "tools" if event.tools is not None:
            return replace(state, tools=tuple(event.tools))
        case "options" if event.options is not None:
            state = replace(state, options=event.options)
            # A turn whose calls are under way ends by what they were judged by.
            return state if state.calls else model.with_options(state)
    return state


def _with(rules: Any, **changes: Any) -> Any:
    fields = {name: getattr(rules, name) for name in rules.__struct_fields__}
    return type(rules)(**{**fields, **changes})


def _interrupted(state: State, event: Interrupted) -> State:
    partial = event.partial
    if partial is not None:
        # A call that was cut is nobody's call: what was said stays, without it.
        kept: list[ContentBlock] = [
            block for block in partial.content if not isinstance(block, ToolCall)
        ]
        if kept:
            state = replace(state, history=state.history.appended(AssistantMessage(kept)))
    if state.phase is Phase.SUSPENDED:
        state = replace(state, phase=Phase.TOOLS)
    reason: StopReason = "max_seconds" if event.by == "max_seconds" else "interrupted"
    return replace(state, stop=Stop(reason))


def _run_suspended(state: State, _event: RunSuspended) -> State:
    return replace(state, phase=Phase.SUSPENDED)


def _run_resumed(state: State, event: RunResumed) -> State:
    if event.reason == "retry":
        if state.phase is not Phase.DONE or state.stop is None or state.stop.reason != "error":
            raise IllegalTransitionError("There is no failed model call to repeat")
        return replace(
            state,
            phase=Phase.MODEL,
            stop=None,
            history=state.before_turn,
            attempt=state.attempt + 1,
        )
    if state.phase is Phase.DONE:
        raise IllegalTransitionError("The run has ended")
    if state.stop is not None and event.reason == "answered":
        raise IllegalTransitionError("The run is about to end")
    phase = Phase.TOOLS if state.phase is Phase.SUSPENDED else state.phase
    entries = tuple(_resumed(entry, event.unknown) for entry in state.calls)
    state = replace(state, phase=phase, calls=entries)
    if event.reason == "restart":
        # Its tasks died with the process; its tools may have acted.
        for _, call in state.background:
            text = f"The background task of {call.name} was lost: its outcome is unknown."
            state = replace(state, prompts=(*state.prompts, UserMessage(text)))
        state = replace(state, background=())
    return state


def _resumed(entry: CallState, unknown: str) -> CallState:
    if entry.status is not CallStatus.RUNNING or entry.spec is None:
        return entry
    if entry.spec.repeatable or entry.spec.kind == "question":
        return replace(entry, status=CallStatus.ALLOWED)
    if unknown == "skip":
        return calls.answered_unknown(entry)
    return replace(entry, status=CallStatus.WAITING, waits_for="decision")


def _run_ended(state: State, _event: RunEnded) -> State:
    return replace(state, phase=Phase.DONE)


# ── rules that follow from the state, applied after every event until none applies ───────────────


def _settled(state: State) -> State:
    if state.stop is not None:
        return _stopped(state)
    if state.phase is Phase.PREPARING:
        return _prepared(state)
    if state.phase is Phase.MODEL and state.ending is not None:
        return _ended(state)
    if state.phase in {Phase.GATING, Phase.TOOLS}:
        return _worked(state)
    return state


def _stopped(state: State) -> State:
    """Close what is open; what was not said yet waits for the next run."""
    if state.phase is Phase.DONE:
        return state
    state = results.closed(state)
    if state.prompts or state.say or state.change:
        queue = (*state.prompts, *state.queue)
        state = replace(state, prompts=(), say=None, change=None, queue=queue)
    return state


def _prepared(state: State) -> State:
    while state.prompts and not state.hooks("user_prompt_submit")[state.hook :]:
        first, *rest = state.prompts
        history = state.history.appended(first)
        state = replace(state, history=history, prompts=tuple(rest), hook=0, ending=None)
    if not state.turn or state.prompts or waits_for_background(state):
        return state
    if state.ending is not None:
        return _stopped(replace(state, stop=state.ending))
    limits = state.started.limits
    if limits.max_total_tokens is not None and state.total_tokens >= limits.max_total_tokens:
        return _stopped(replace(state, stop=Stop("max_total_tokens")))
    if limits.max_cost is not None and state.cost is not None and state.cost >= limits.max_cost:
        return _stopped(replace(state, stop=Stop("max_cost")))
    if state.turn >= limits.max_turns:
        return _stopped(replace(state, stop=Stop("max_turns")))
    return state


def _ended(state: State) -> State:
    """The model has answered: the run ends, unless a hook or a new message wants more."""
    if state.hooks("stop")[state.hook :]:
        return state
    waiting = bool(state.background) and state.started.session_id is None
    if not (state.say or state.prompts or waiting):
        return _stopped(replace(state, stop=state.ending))
    answers: list[Message] = [entry.result for entry in state.calls if entry.result is not None]
    return _settled(
        replace(
            state,
            phase=Phase.PREPARING,
            history=state.history.appended(*answers),
            calls=(),
            hook=0,
            ending=state.ending if waiting and not (state.say or state.prompts) else None,
        )
    )


_OPEN = frozenset({CallStatus.HOOKED, CallStatus.ASKING})
#: What somebody works at, or is waited for.
_UNDER_WAY = frozenset({CallStatus.RUNNING, CallStatus.WAITING})


def _worked(state: State) -> State:
    state = calls.advanced(state)
    if state.phase is Phase.GATING:
        if not _OPEN.isdisjoint([entry.status for entry in state.calls]):
            return state
        state = replace(state, phase=Phase.TOOLS)
    if not [entry for entry in state.calls if entry.result is None or call_hooks(state, entry)]:
        return _settled(replace(results.turn_over(state), phase=Phase.PREPARING, hook=0))
    waits = not _UNDER_WAY.isdisjoint([entry.status for entry in state.calls])
    if not waits and not effects(state):
        return _stopped(replace(state, stop=Stop("max_tool_calls")))
    return state


# ── the table ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Rule:
    """What an event changes in a phase, and the phases it may lead to."""

    handler: Callable[[State, Any], State]
    to: tuple[Phase, ...]


_IDLE, _PREPARING, _COMPACTING, _MODEL, _GATING, _TOOLS, _SUSPENDED, _DONE = Phase
_STILL = (_IDLE, _DONE)
_ACTIVE = (_PREPARING, _COMPACTING, _MODEL, _GATING, _TOOLS)
_WORKING = (_GATING, _TOOLS)

#: What the machine does not act on.
_UNHEARD = (Notice, SubagentStarted)
#: What may still come when `stop` is set.
_AFTER_STOP = (RunEnded, RunResumed, MessageAdded, SettingsChanged, SubagentEnded)

_Row = tuple[
    type[StoredEvent],
    tuple[Phase, ...],
    Callable[[State, Any], State],
    tuple[Phase | None, ...],
]

#: Event, the phases that know it, what it changes, and the phases it leads to (`None`: it stays).
_ROWS: tuple[_Row, ...] = (
    (RunStarted, _STILL, _run_started, (_PREPARING,)),
    (MessageAdded, (*_STILL, *_ACTIVE, _SUSPENDED), _message_added, (None,)),
    (SettingsChanged, (_DONE, *_ACTIVE, _SUSPENDED), _settings_changed, (None,)),
    (TurnStarted, (_PREPARING,), model.turn_started, (_MODEL, _COMPACTING)),
    (Compacted, (_COMPACTING,), model.compacted, (_MODEL,)),
    (Compacted, (_DONE,), model.compacted_between, (None,)),
    (ModelStarted, (_MODEL,), model.model_started, (None,)),
    (
        ModelEnded,
        (_MODEL,),
        model.model_ended,
        (None, _PREPARING, _COMPACTING, _GATING, _TOOLS),
    ),
    (HookRan, (*_STILL, _SUSPENDED, _PREPARING), hook_ran, (None,)),
    (HookRan, (_COMPACTING,), hook_ran, (None, _MODEL)),
    (HookRan, (_MODEL,), hook_ran, (None, _PREPARING)),
    (HookRan, (_GATING,), hook_ran, (None, _TOOLS)),
    (HookRan, (_TOOLS,), hook_ran, (None, _PREPARING)),
    (PermissionAsked, (_GATING,), calls.permission_asked, (None,)),
    (PermissionDecided, (_GATING,), calls.permission_decided, (None, _TOOLS)),
    (PermissionDecided, (_TOOLS,), calls.permission_decided, (None, _PREPARING)),
    (UserAsked, _WORKING, calls.user_asked, (None,)),
    (UserAnswered, (_GATING,), calls.user_answered, (None,)),
    (UserAnswered, (_TOOLS,), calls.user_answered, (None, _PREPARING)),
    (ToolStarted, _WORKING, calls.tool_started, (None,)),
    (ToolEnded, (_GATING,), calls.tool_ended, (None,)),
    (ToolEnded, (_TOOLS,), calls.tool_ended, (None, _PREPARING)),
    (SubagentEnded, (*_ACTIVE, _SUSPENDED, _DONE), calls.subagent_ended, (None,)),
    (Checkpointed, (_PREPARING, *_WORKING, _DONE), checkpoints.checkpointed, (None,)),
    (Rewound, (_DONE,), checkpoints.rewound, (None,)),
    (Interrupted, _ACTIVE, _interrupted, (None,)),
    (Interrupted, (_SUSPENDED,), _interrupted, (_TOOLS,)),
    (RunSuspended, (_TOOLS,), _run_suspended, (_SUSPENDED,)),
    (RunResumed, (_PREPARING, _COMPACTING, _MODEL, _GATING), _run_resumed, (None,)),
    (RunResumed, (_TOOLS,), _run_resumed, (None, _PREPARING)),
    (RunResumed, (_SUSPENDED,), _run_resumed, (_TOOLS,)),
    (RunResumed, (_DONE,), _run_resumed, (_MODEL,)),
    (RunEnded, _ACTIVE, _run_ended, (_DONE,)),
)

#: What may happen when. An event that sets `stop` leaves the phase as it is: `RunEnded` follows.
TRANSITIONS: dict[tuple[Phase, type[StoredEvent]], Rule] = {
    (phase, event): Rule(handler, tuple(phase if there is None else there for there in to))
    for event, phases, handler, to in _ROWS
    for phase in phases
}
