"""The run as a machine: `evolve(state, event)` is the only place where a state changes.

1. An event that its phase does not know is a bug of ours (`IllegalTransitionError`).
2. A run ends in exactly one `RunEnded`. Once `stop` is set, `Finish` is the only effect, every open
   call has been closed, and the transcript is valid.
3. A call is executed only if it is known, parses, is permitted, and its reply was not cut.
4. Text never enters the machine: it goes from the stream to whoever watches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from vllm_agent_sdk._core.effects import effects
from vllm_agent_sdk._core.run_state import (
    CallState,
    CallStatus,
    IllegalTransitionError,
    Phase,
    State,
    Stop,
)
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.events import (
    Interrupted,
    MessageAdded,
    ModelEnded,
    ModelStarted,
    Notice,
    PermissionAsked,
    PermissionDecided,
    RunEnded,
    RunStarted,
    SettingsChanged,
    StoredEvent,
    ToolEnded,
    ToolStarted,
    TurnStarted,
)
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ContentBlock,
    Message,
    ToolCall,
    ToolMessage,
)
from vllm_agent_sdk.types.results import ErrorInfo, StopReason

__all__ = ["TRANSITIONS", "Rule", "evolve"]


def evolve(state: State, event: StoredEvent) -> State:
    """Give the state after an event.

    Raises:
        IllegalTransitionError: The event cannot come in this phase.
    """
    if isinstance(event, Notice):
        return state
    rule = TRANSITIONS.get((state.phase, type(event)))
    over = state.stop is not None and not isinstance(event, (RunEnded, RunStarted))
    if rule is None or over:
        raise IllegalTransitionError(f"{type(event).__name__} in phase {state.phase}")
    return _settled(rule.handler(state, event))


def _run_started(state: State, event: RunStarted) -> State:
    history = state.history.appended(*event.history)
    return State(
        phase=Phase.PREPARING,
        started=event,
        history=history,
        said_before=len(history),
        turn_mode=event.turn_mode,
        dialect=event.dialect,
    )


def _message_added(state: State, event: MessageAdded) -> State:
    return replace(state, history=state.history.appended(event.message))


def _turn_started(state: State, event: TurnStarted) -> State:
    return replace(state, phase=Phase.MODEL, turn=event.turn, calls=())


def _unchanged(state: State, _event: StoredEvent) -> State:
    return state


def _settings_changed(state: State, event: SettingsChanged) -> State:
    if event.what == "turn_mode":
        mode = str(event.new)
        dialect = "text" if mode in {"guided", "envelope"} else "native"
        return replace(state, turn_mode=mode, dialect=dialect)
    return state


def _model_ended(state: State, event: ModelEnded) -> State:
    usage = event.usage
    history, message = state.history, event.message
    if message is not None and message.content:
        history = history.appended(message)
    state = replace(
        state,
        history=history,
        usage_by_turn=state.usage_by_turn.appended(usage),
        total_tokens=state.total_tokens + usage.total_tokens,
        model_time_s=state.model_time_s + event.duration_s,
        ttft_s=event.ttft_s if state.ttft_s is None else state.ttft_s,
        finish_reason=event.finish_reason,
    )
    said = message or AssistantMessage()
    calls = said.tool_calls
    state = replace(state, calls=tuple(_judged(state, call) for call in calls))
    if event.error is not None:
        reason: StopReason = (
            "context_overflow" if event.error.type == "ContextLengthError" else "error"
        )
        return replace(state, stop=Stop(reason, event.error))
    stop = _ending(event.finish_reason, said)
    if stop is not None:
        return replace(state, stop=stop)
    if not calls:
        return replace(state, stop=_without_calls(state, said))
    return _guard_repetition(replace(state, phase=Phase.GATING))


def _ending(finish_reason: str | None, said: AssistantMessage) -> Stop | None:
    """Say whether the server's own reason ends the run, whatever was said."""
    ends: dict[str, StopReason] = {
        "length": "length",
        "abort": "aborted",
        "repetition": "repetition",
        "refusal": "refusal",
        "content_filter": "refusal",
    }
    reason = ends.get(finish_reason or "")
    if reason is not None:
        return Stop(reason)
    if not said.tool_calls and not said.text.strip():
        return Stop("empty_reply")
    return None


def _without_calls(state: State, said: AssistantMessage) -> Stop:
    choice = state.tool_choice
    if isinstance(choice, dict) or choice == "required":
        return Stop(
            "error",
            ErrorInfo(
                "ToolCallMissingError",
                f"A tool call was required and the model answered with text: {said.text[:200]!r}",
            ),
        )
    return Stop("end_turn")


def _judged(state: State, call: ToolCall) -> CallState:
    """Say what becomes of a call, before anyone is asked."""
    spec = state.spec(call.name)
    if spec is None or call.unexpected:
        names = ", ".join(tool.name for tool in state.started.tools) or "none"
        reason = f"There is no tool {call.name!r}. The tools are: {names}."
        return CallState(call, CallStatus.INVALID, spec, reason)
    if call.arguments is None and spec.coerce:
        call = call.unwrapped() or call
    if call.arguments is None:
        reason = f"{call.error} Call {call.name} again with a JSON object of its arguments."
        return CallState(call, CallStatus.INVALID, spec, reason)
    if spec.destructive:
        reason = f"{call.name} is marked destructive."
        return CallState(call, CallStatus.ASKING, spec, reason)
    return CallState(call, CallStatus.ALLOWED, spec)


def _guard_repetition(state: State) -> State:
    """End the run when the same call comes again and again."""
    for entry in state.calls:
        arguments = entry.call.arguments
        text = entry.call.arguments_json.encode() if arguments is None else _canonical(arguments)
        key = (entry.call.name, text)
        repeats = state.repeats + 1 if key == state.last_call else 1
        state = replace(state, last_call=key, repeats=repeats)
        if repeats >= state.started.limits.repeated_calls:
            return replace(state, stop=Stop("repeated_call"))
    return state


def _canonical(value: Any) -> bytes:
    return _codec.encode(_sorted(value))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def _with_call(state: State, call_id: str, **changes: Any) -> State:
    if not any(entry.call.id == call_id for entry in state.calls):
        raise IllegalTransitionError(f"There is no call {call_id!r} in turn {state.turn}")
    calls = tuple(
        replace(entry, **changes) if entry.call.id == call_id else entry for entry in state.calls
    )
    return replace(state, calls=calls)


def _permission_decided(state: State, event: PermissionDecided) -> State:
    if event.decision == "allow":
        return _with_call(state, event.call_id, status=CallStatus.ALLOWED)
    state = _with_call(state, event.call_id, status=CallStatus.DENIED, reason=event.reason)
    denied = next(entry.call for entry in state.calls if entry.call.id == event.call_id)
    return replace(state, denials=(*state.denials, denied))


def _tool_started(state: State, event: ToolStarted) -> State:
    return _with_call(state, event.call.id, status=CallStatus.RUNNING)


def _tool_ended(state: State, event: ToolEnded) -> State:
    call_id = event.message.call_id
    entry = next((entry for entry in state.calls if entry.call.id == call_id), None)
    status = CallStatus.DONE
    if entry is not None and entry.status is CallStatus.DENIED:
        status = CallStatus.DENIED
    elif not event.executed:
        status = CallStatus.INVALID
    state = _with_call(state, call_id, status=status, result=event.message)
    if event.executed:
        state = replace(state, executed=state.executed.appended(event.name))
    return state


def _interrupted(state: State, event: Interrupted) -> State:
    partial = event.partial
    if partial is not None:
        # A call that was cut is nobody's call: what was said stays, without it.
        kept: list[ContentBlock] = [
            block for block in partial.content if not isinstance(block, ToolCall)
        ]
        if kept:
            state = replace(state, history=state.history.appended(AssistantMessage(kept)))
    reason: StopReason = "max_seconds" if event.by == "max_seconds" else "interrupted"
    return replace(state, stop=Stop(reason))


def _run_ended(state: State, _event: RunEnded) -> State:
    return replace(state, phase=Phase.DONE)


# ── rules that follow from the state, applied after every event until none applies ───────────────


def _settled(state: State) -> State:
    if state.stop is not None:
        return _closed(state)
    if state.phase is Phase.GATING and not _open(state, CallStatus.ASKING):
        state = replace(state, phase=Phase.TOOLS)
    if state.phase is Phase.TOOLS:
        if all(entry.result is not None for entry in state.calls):
            return _settled(_turn_over(state))
        if not effects(state):
            return _closed(replace(state, stop=Stop("max_tool_calls")))
    if state.phase is Phase.PREPARING and state.turn:
        limits = state.started.limits
        if limits.max_total_tokens is not None and state.total_tokens >= limits.max_total_tokens:
            return _closed(replace(state, stop=Stop("max_total_tokens")))
        if state.turn >= limits.max_turns:
            return _closed(replace(state, stop=Stop("max_turns")))
    return state


def _open(state: State, status: CallStatus) -> bool:
    return any(entry.status is status for entry in state.calls)


def _turn_over(state: State) -> State:
    """All calls are answered: their results join the history, in the order of the calls."""
    results = [entry.result for entry in state.calls if entry.result is not None]
    invalid = all(entry.status is CallStatus.INVALID for entry in state.calls)
    in_row = state.invalid_in_row + 1 if invalid else 0
    last = state.calls[-1]
    state = replace(
        state,
        phase=Phase.PREPARING,
        history=state.history.appended(*results),
        invalid_in_row=in_row,
        calls=(),
    )
    if in_row > state.started.limits.repairs:
        said = last.result.text if last.result is not None else last.reason
        facts = {"tool": last.call.name, "arguments_json": last.call.arguments_json}
        return replace(
            state, stop=Stop("invalid_tool_call", ErrorInfo("ToolArgumentsError", said, facts))
        )
    return state


def _closed(state: State) -> State:
    """Answer the calls that are still open, so that the transcript is valid."""
    if not state.calls or state.stop is None:
        return state
    results: list[Message] = []
    for entry in state.calls:
        if entry.result is not None:
            results.append(entry.result)
        elif entry.status is CallStatus.RUNNING:
            text = (
                f"The run ended ({state.stop.reason}) while this tool ran: its outcome is unknown."
            )
            results.append(ToolMessage(entry.call.id, text, is_error=True))
        else:
            text = f"Not executed: the run ended ({state.stop.reason})."
            results.append(ToolMessage(entry.call.id, text, is_error=True))
    return replace(state, history=state.history.appended(*results), calls=())


@dataclass(frozen=True, slots=True)
class Rule:
    """What an event changes in a phase, and the phases it may lead to."""

    handler: Callable[[State, Any], State]
    to: tuple[Phase, ...]


_IDLE, _PREPARING, _MODEL, _GATING, _TOOLS, _DONE = Phase

#: What may happen when. An event that sets `stop` leaves the phase as it is: `RunEnded` follows.
TRANSITIONS: dict[tuple[Phase, type[StoredEvent]], Rule] = {
    (_IDLE, RunStarted): Rule(_run_started, (_PREPARING,)),
    (_DONE, RunStarted): Rule(_run_started, (_PREPARING,)),
    (_PREPARING, MessageAdded): Rule(_message_added, (_PREPARING,)),
    (_PREPARING, TurnStarted): Rule(_turn_started, (_MODEL,)),
    (_PREPARING, SettingsChanged): Rule(_settings_changed, (_PREPARING,)),
    (_PREPARING, Interrupted): Rule(_interrupted, (_PREPARING,)),
    (_PREPARING, RunEnded): Rule(_run_ended, (_DONE,)),
    (_MODEL, ModelStarted): Rule(_unchanged, (_MODEL,)),
    (_MODEL, SettingsChanged): Rule(_settings_changed, (_MODEL,)),
    (_MODEL, ModelEnded): Rule(_model_ended, (_MODEL, _GATING, _TOOLS)),
    (_MODEL, Interrupted): Rule(_interrupted, (_MODEL,)),
    (_MODEL, RunEnded): Rule(_run_ended, (_DONE,)),
    (_GATING, PermissionAsked): Rule(_unchanged, (_GATING,)),
    (_GATING, PermissionDecided): Rule(_permission_decided, (_GATING, _TOOLS)),
    (_GATING, ToolStarted): Rule(_tool_started, (_GATING,)),
    (_GATING, ToolEnded): Rule(_tool_ended, (_GATING,)),
    (_GATING, Interrupted): Rule(_interrupted, (_GATING,)),
    (_GATING, RunEnded): Rule(_run_ended, (_DONE,)),
    (_TOOLS, ToolStarted): Rule(_tool_started, (_TOOLS,)),
    (_TOOLS, ToolEnded): Rule(_tool_ended, (_TOOLS, _PREPARING)),
    (_TOOLS, Interrupted): Rule(_interrupted, (_TOOLS,)),
    (_TOOLS, RunEnded): Rule(_run_ended, (_DONE,)),
}
