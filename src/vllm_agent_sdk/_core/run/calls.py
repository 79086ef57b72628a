"""What becomes of the calls of a turn: judged, permitted, run, answered.

A call is executed only if it is known, parses, is permitted, and its reply was not cut.
"""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk._core.run.checkpoints import edits_noted
from vllm_agent_sdk._core.run.effects import call_hooks
from vllm_agent_sdk._core.run.policy import decide, denied
from vllm_agent_sdk._core.run.state import (
    ANSWER_TOOL,
    CallState,
    CallStatus,
    IllegalTransitionError,
    State,
    Stop,
    replace,
)
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.events import (
    HookRan,
    PermissionAsked,
    PermissionDecided,
    SubagentEnded,
    ToolEnded,
    ToolStarted,
    UserAnswered,
    UserAsked,
)
from vllm_agent_sdk.types.hooks import (
    AddContext,
    Ask,
    Block,
    HookOutput,
    Rewrite,
    RewriteOutput,
)
from vllm_agent_sdk.types.hooks import Stop as StopOutput
from vllm_agent_sdk.types.messages import ToolCall, ToolMessage
from vllm_agent_sdk.types.permissions import Allow, PermissionRule
from vllm_agent_sdk.types.results import ErrorInfo, Usage

__all__ = [
    "add_usage",
    "advanced",
    "answered_unknown",
    "guard_repetition",
    "hook_on_call",
    "judged",
    "permission_asked",
    "permission_decided",
    "stopped_by",
    "subagent_ended",
    "tool_ended",
    "tool_started",
    "user_answered",
    "user_asked",
]


def judged(
    state: State, call: ToolCall, outside: tuple[str, ...] = (), repairs: tuple[str, ...] = ()
) -> CallState:
    """Say what becomes of a call, before anyone is asked."""
    spec = state.spec(call.name)
    if call.name == ANSWER_TOOL and state.turn_mode == "required":
        reason = "Give the final answer alone, after the results of the other calls."
        return CallState(call, CallStatus.INVALID, None, reason)
    if spec is None or call.unexpected or not state.tools_offered:
        names = ", ".join(tool.name for tool in state.tools) or "none"
        reason = f"There is no tool {call.name!r}. The tools are: {names}."
        if spec is not None:
            reason = "No tool can be called in this turn: answer from what is there."
        return CallState(call, CallStatus.INVALID, spec, reason)
    if call.arguments is None and spec.coerce:
        call = call.unwrapped() or call
    if call.arguments is None:
        reason = f"{call.error} Call {call.name} again with a JSON object of its arguments."
        return CallState(call, CallStatus.INVALID, spec, reason)
    return CallState(call, CallStatus.HOOKED, spec, outside=outside, repairs=repairs)


def guard_repetition(state: State) -> State:
    """End the run when the same call comes again and again."""
    for entry in state.calls:
        arguments = entry.call.arguments
        text = entry.call.arguments_json.encode()
        key = (entry.call.name, text if arguments is None else _codec.canonical(arguments))
        repeats = state.repeats + 1 if key == state.last_call else 1
        state = replace(state, last_call=key, repeats=repeats)
        if repeats >= state.started.limits.repeated_calls:
            return replace(state, stop=Stop("repeated_call"))
    return state


#: Of calls that may go further by themselves.
_PASSING = frozenset({CallStatus.HOOKED, CallStatus.ENDED})


def advanced(state: State) -> State:
    """Let each call that waits for nobody go one status further."""
    if _PASSING.isdisjoint([entry.status for entry in state.calls]):
        return state
    entries = tuple(_advanced(state, entry) for entry in state.calls)
    refused = [
        entry.call
        for entry, before in zip(entries, state.calls, strict=True)
        if entry.status is CallStatus.DENIED and before.status is CallStatus.HOOKED
    ]
    return replace(state, calls=entries, denials=(*state.denials, *refused))


def _advanced(state: State, entry: CallState) -> CallState:
    if entry.status is CallStatus.ENDED and not call_hooks(state, entry):
        return replace(entry, status=CallStatus.DONE)
    spec = entry.spec
    if entry.status is not CallStatus.HOOKED or spec is None or call_hooks(state, entry):
        return entry
    # A hook's yes counts as a rule that allows: what denies or asks still beats it.
    yes = (PermissionRule(tool=entry.call.name),) if entry.allowed else ()
    verdict = decide(
        state.permissions,
        (*state.grants, *yes),
        spec,
        entry.call,
        ask=entry.ask,
        outside=entry.outside,
    )
    match verdict.answer:
        case "allow":
            return replace(entry, status=CallStatus.ALLOWED)
        case "ask":
            return replace(entry, status=CallStatus.ASKING, reason=verdict.reason, hook=0)
    text = f"{entry.call.name} was not permitted: {verdict.reason}"
    return replace(entry, status=CallStatus.DENIED, reason=text)


# ── events ───────────────────────────────────────────────────────────────────────────────────────


def hook_on_call(state: State, event: HookRan) -> State:
    """Let what a hook answered about a call have its effect."""
    call_id = event.call_id or ""
    state = state.with_call(call_id, hook=_entry(state, call_id).hook + 1)
    for output in event.outputs:
        if isinstance(output, StopOutput):
            return replace(state, stop=stopped_by(event.hook, output.reason))
        if isinstance(output, AddContext):
            state = replace(state, context=(*state.context, output.text))
            continue
        entry = _entry(state, call_id)
        if entry.status is CallStatus.DENIED:
            continue  # nothing but the end of the run can follow a no
        state = state.with_call(call_id, **_changed(entry, output, event.outside))
        if isinstance(output, Block) and entry.status is not CallStatus.ENDED:
            state = replace(state, denials=(*state.denials, entry.call))
    return _deny_beats(state, call_id)


def _changed(entry: CallState, output: HookOutput, outside: tuple[str, ...]) -> dict[str, Any]:
    match output:
        case Block(reason=reason) if entry.status is CallStatus.ENDED:
            return {"result": ToolMessage(entry.call.id, reason, is_error=True)}
        case Block(reason=reason):
            return {"status": CallStatus.DENIED, "reason": reason}
        case Rewrite(input=given):
            return {"call": _with_input(entry.call, given), "outside": outside, "repairs": ()}
        case RewriteOutput(value=value):
            text = value if isinstance(value, str) else _codec.encode(value).decode()
            failed = entry.result is not None and entry.result.is_error
            return {"result": ToolMessage(entry.call.id, text, is_error=failed)}
        case Ask(prompt=prompt):
            return {"ask": prompt}
        case Allow(input=given):
            changes: dict[str, Any] = {"allowed": True}
            if given is not None:
                given_call = _with_input(entry.call, given)
                changes |= {"call": given_call, "outside": outside, "repairs": ()}
            if entry.status is CallStatus.ASKING:
                changes["status"] = CallStatus.ALLOWED
            return changes
    return {}


def _deny_beats(state: State, call_id: str) -> State:
    """Ask the rules again that say no: another's yes, or other arguments, don't get past them."""
    entry = _entry(state, call_id)
    if entry.spec is None or entry.status not in {CallStatus.ASKING, CallStatus.ALLOWED}:
        return state
    verdict = denied(state.permissions, entry.spec, entry.call)
    if verdict is None:
        return state
    text = f"{entry.call.name} was not permitted: {verdict.reason}"
    state = replace(state, denials=(*state.denials, entry.call))
    return state.with_call(call_id, status=CallStatus.DENIED, reason=text)


def stopped_by(hook: str, reason: str) -> Stop:
    return Stop("hook_stopped", ErrorInfo("HookStopped", reason, {"hook": hook}))


def _with_input(call: ToolCall, given: dict[str, Any]) -> ToolCall:
    """Give the call with other arguments; what the model wrote stays in `arguments_json`."""
    return ToolCall(call.id, call.name, given, call.arguments_json)


def permission_asked(state: State, event: PermissionAsked) -> State:
    """Somebody is asked: nothing changes until the answer."""
    _entry(state, event.call.id)
    return state


def permission_decided(state: State, event: PermissionDecided) -> State:
    """Somebody has answered."""
    entry = _entry(state, event.call_id)
    if entry.status not in {CallStatus.ASKING, CallStatus.WAITING}:
        raise IllegalTransitionError(f"{event.call_id} is {entry.status}: nobody was asked")
    if event.decision == "defer":
        waits_for = entry.waits_for or "approval"
        return state.with_call(event.call_id, status=CallStatus.WAITING, waits_for=waits_for)
    if event.decision == "allow":
        call = entry.call if event.input is None else _with_input(entry.call, event.input)
        grants = tuple(PermissionRule.of(rule) for rule in event.remember)
        state = replace(state, grants=(*state.grants, *grants))
        state = state.with_call(
            event.call_id,
            call=call,
            repairs=entry.repairs if event.input is None else (),
            status=CallStatus.ALLOWED,
            waits_for=None,
            allowed=True,
        )
        return _deny_beats(state, event.call_id)
    if entry.waits_for == "decision":
        result = _unknown(entry, "It was not run again.")
        return state.with_call(event.call_id, status=CallStatus.DONE, waits_for=None, result=result)
    state = state.with_call(
        event.call_id, status=CallStatus.DENIED, reason=event.reason, waits_for=None
    )
    state = replace(state, denials=(*state.denials, entry.call))
    if event.interrupt:
        facts = {"tool": entry.call.name}
        error = ErrorInfo("ToolDeniedError", event.reason, facts)
        return replace(state, stop=Stop("denied", error))
    return state


def user_asked(state: State, event: UserAsked) -> State:
    """The user is asked; until the answer the call is under way."""
    return state.with_call(event.call_id, status=CallStatus.RUNNING)


def user_answered(state: State, event: UserAnswered) -> State:
    """The user has answered, or will later."""
    entry = _entry(state, event.call_id)
    if event.deferred:
        return state.with_call(event.call_id, status=CallStatus.WAITING, waits_for="question")
    if entry.status not in {CallStatus.RUNNING, CallStatus.WAITING}:
        raise IllegalTransitionError(f"{event.call_id} is {entry.status}: nothing was asked")
    text = _codec.encode({"answers": event.answers}).decode()
    state = replace(state, executed=state.executed.appended(entry.call.name))
    return state.with_call(
        event.call_id,
        status=CallStatus.ENDED,
        waits_for=None,
        hook=0,
        result=ToolMessage(event.call_id, text),
    )


def tool_started(state: State, event: ToolStarted) -> State:
    """A tool begins; a deferred one begins elsewhere."""
    entry = _entry(state, event.call.id)
    if entry.status not in {CallStatus.ALLOWED, CallStatus.RUNNING}:
        raise IllegalTransitionError(f"{event.call.id} is {entry.status}: it may not start")
    state = edits_noted(state, entry)
    if entry.spec is not None and entry.spec.deferred:
        return state.with_call(event.call.id, status=CallStatus.WAITING, waits_for="tool_result")
    return state.with_call(event.call.id, status=CallStatus.RUNNING)


def tool_ended(state: State, event: ToolEnded) -> State:
    """A call is answered."""
    entry = _entry(state, event.message.call_id)
    if entry.result is not None:
        raise IllegalTransitionError(f"{entry.call.id} has been answered")
    changes: dict[str, Any] = {"result": event.message, "waits_for": None}
    if event.executed:
        if entry.status not in {CallStatus.RUNNING, CallStatus.WAITING}:
            raise IllegalTransitionError(f"{entry.call.id} is {entry.status}: it cannot have ended")
        state = replace(state, executed=state.executed.appended(event.name))
        changes |= {
            "status": CallStatus.ENDED,
            "hook": 0,
            "failed": event.message.is_error,
        }
    elif entry.status is not CallStatus.DENIED:
        changes["status"] = CallStatus.INVALID
    if event.task is not None:
        state = replace(state, background=(*state.background, (event.task, entry.call)))
        changes["detached"] = True
    return state.with_call(entry.call.id, **changes)


def subagent_ended(state: State, event: SubagentEnded) -> State:
    """What a subagent used is the run's use too."""
    for model, usage in event.usage_by_model.items():
        state = add_usage(state, model, usage)
    cost = state.cost
    if cost is not None:
        cost = None if event.cost is None else cost + event.cost
    return replace(state, total_tokens=state.total_tokens + event.usage.total_tokens, cost=cost)


def add_usage(state: State, model: str | None, usage: Usage) -> State:
    """Count tokens for a model."""
    by_model = dict(state.usage_by_model)
    by_model[model or ""] = by_model.get(model or "", Usage()) + usage
    return replace(state, usage_by_model=tuple(by_model.items()))


# ── the end of a turn, and of the run ────────────────────────────────────────────────────────────


def answered_unknown(entry: CallState) -> CallState:
    """Answer a call whose tool ran when the process died."""
    result = _unknown(entry, "It was not run again.")
    return replace(entry, status=CallStatus.DONE, result=result, waits_for=None)


def _unknown(entry: CallState, more: str) -> ToolMessage:
    text = f"The outcome of {entry.call.name} is unknown: the program ended while it ran. {more}"
    return ToolMessage(entry.call.id, text, is_error=True)


def _entry(state: State, call_id: str) -> CallState:
    entry = state.call(call_id)
    if entry is None:
        raise IllegalTransitionError(f"There is no call {call_id!r} in turn {state.turn}")
    return entry
