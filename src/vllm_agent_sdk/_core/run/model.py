"""What follows from the end of a model call: go on, ask again, or end.

Replies are judged by the calls that are there, and a cut reply is never taken for a whole one.
"""

from __future__ import annotations

from vllm_agent_sdk._core.run.calls import add_usage, guard_repetition, judged
from vllm_agent_sdk._core.run.effects import compactable
from vllm_agent_sdk._core.run.log import Log
from vllm_agent_sdk._core.run.state import (
    ANSWER_TOOL,
    CallState,
    CallStatus,
    Change,
    Phase,
    State,
    Stop,
    replace,
)
from vllm_agent_sdk.types.context import CacheTurn
from vllm_agent_sdk.types.events import Compacted, ModelEnded, ModelStarted, TurnStarted
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vllm_agent_sdk.types.options import Price
from vllm_agent_sdk.types.results import ErrorInfo, StopReason, Usage

__all__ = [
    "NEXT_MODE",
    "OVERFLOW_ROOM",
    "compacted",
    "compacted_between",
    "model_ended",
    "model_started",
    "turn_started",
    "with_options",
]

#: Where a run goes whose turn mode the server does not keep.
NEXT_MODE = {"native": "guided", "required": "guided", "guided": "envelope"}

#: An answer cut with less room than this in the window ran into its end.
OVERFLOW_ROOM = 64

#: Errors after which another model is asked, where there is one.
_FALLBACK = frozenset(
    {
        "CircuitOpenError",
        "ConnectError",
        "ConnectTimeoutError",
        "EngineDeadError",
        "FirstTokenTimeoutError",
        "IdleTimeoutError",
        "InternalServerError",
        "ModelNotFoundError",
        "RateLimitError",
        "ServerOverloadedError",
        "StreamFailedError",
        "StreamTruncatedError",
        "TotalTimeoutError",
    }
)

_ENDS: dict[str, StopReason] = {
    "length": "length",
    "abort": "aborted",
    "repetition": "repetition",
    "refusal": "refusal",
    "content_filter": "refusal",
}


def turn_started(state: State, event: TurnStarted) -> State:
    """A turn begins; where its request is too long, older messages are summarised first."""
    state = with_options(state)
    state = replace(
        state,
        phase=Phase.MODEL,
        turn=event.turn,
        attempt=0,
        empty=0,
        missing=0,
        thinking_off=False,
        compacted=False,
        overflow=None,
        ending=None,
        calls=(),
        before_turn=state.history,
        context_tokens=event.context_tokens,
        exact=event.exact,
        window=state.window if event.window is None else event.window,
    )
    window, tokens = state.window, event.context_tokens
    if window is None or tokens is None:
        return state
    wanted = tokens > state.started.context.compact_at * window
    if wanted and _can_compact(state):
        return replace(state, phase=Phase.COMPACTING, hook=0, instruction="")
    return _unless_full(state)


def with_options(state: State) -> State:
    """Go on with other options, where there are any."""
    new, old = state.options, state.started
    if new is None:
        return state
    # What was changed while the run was active stays, unless it is what the options change.
    rules = state.permissions if new.permissions == old.permissions else new.permissions
    return replace(state, options=None, started=new, permissions=rules, hook=0)


def _unless_full(state: State) -> State:
    """Stop a turn whose request cannot fit; what is only estimated is left to the server."""
    window, tokens = state.window, state.context_tokens
    if window is None or tokens is None or not state.exact or tokens < window:
        return state
    return replace(state, stop=_overflow(f"The request has {tokens} tokens", window))


def compacted(state: State, event: Compacted) -> State:
    """Older messages were summarised, or stay."""
    state = replace(state, phase=Phase.MODEL, hook=0)
    state = _counted(state, event.usage, 0.0)
    if event.error is None:
        state = replace(_summarised(state, event), attempt=state.attempt + 1)
        return replace(state, overflow=None, context_tokens=None)
    state = replace(state, compacted=True)
    if state.overflow is not None:
        return replace(state, stop=Stop("context_overflow", state.overflow))
    return _unless_full(state)


def compacted_between(state: State, event: Compacted) -> State:
    """The user wanted a summary while no run was active."""
    state = replace(state, hook=0, instruction="")
    return state if event.error is not None else _summarised(state, event)


def _summarised(state: State, event: Compacted) -> State:
    summary: Message = UserMessage(event.summary)
    history, before = (
        Log[Message]([summary, *messages.since(event.messages)])
        for messages in (state.history, state.before_turn)
    )
    return replace(
        state,
        history=history,
        before_turn=before,
        summaries=state.summaries + 1,
        last_tokens=0,
        measured=0,
        said_before=max(1, state.said_before - event.messages + 1),
    )


def _can_compact(state: State) -> bool:
    off = state.started.context.strategy == "off"
    return not off and not state.compacted and compactable(state) > 0


def _overflow(what: str, window: int) -> Stop:
    facts = {"max": window}
    text = f"{what}, the model's window has {window}: nothing more fits."
    return Stop("context_overflow", ErrorInfo("ContextLengthError", text, facts))


def model_started(state: State, event: ModelStarted) -> State:
    """A request goes out."""
    return replace(state, prefix=event.prefix)


def model_ended(state: State, event: ModelEnded) -> State:
    """The model has answered, or could not."""
    state = _model_ended(_with_cache(state, event), event)
    if not event.usage.input_tokens:
        return state
    return replace(state, last_tokens=event.usage.total_tokens, measured=len(state.history))


def _with_cache(state: State, event: ModelEnded) -> State:
    """Note what the call could find in the prefix cache, and what it found."""
    prefix, expected = state.prefix, None
    if prefix is not None and prefix.previous_bytes and prefix.kept_bytes is not None:
        seen = state.cache.since(len(state.cache) - 1)[0].input_tokens if len(state.cache) else 0
        expected = seen * prefix.kept_bytes // prefix.previous_bytes if seen else None
    found = CacheTurn(
        turn=state.turn,
        prefix=prefix,
        input_tokens=event.usage.input_tokens,
        expected_tokens=expected,
        cached_tokens=event.cached_tokens,
    )
    return replace(state, prefix=None, cache=state.cache.appended(found))


def _model_ended(state: State, event: ModelEnded) -> State:
    state = _counted(state, event.usage, event.duration_s, failed=event.error is not None)
    state = replace(
        state,
        usage_by_turn=state.usage_by_turn.appended(event.usage),
        model_time_s=state.model_time_s + event.duration_s,
        ttft_s=event.ttft_s if state.ttft_s is None else state.ttft_s,
        finish_reason=event.finish_reason,
    )
    said = event.message or AssistantMessage()
    if event.error is not None:
        again = _after_error(state, event.error)
        if again is not None:
            return again
        reason: StopReason = (
            "context_overflow" if event.error.type == "ContextLengthError" else "error"
        )
        return replace(_kept(state, event), stop=Stop(reason, event.error))
    stop = _ending(state, event)
    if stop is not None:
        return replace(_kept(state, event), stop=stop)
    calls = said.tool_calls
    if not calls and not said.text.strip():
        return _empty(state, event)
    if state.turn_mode == "required" and [call.name for call in calls] == [ANSWER_TOOL]:
        return _with_output(_kept(state, event), event)
    if calls:
        return guard_repetition(replace(_kept(state, event), phase=Phase.GATING))
    if _call_missing(state):
        return _without_required_call(state, said)
    return _with_output(_kept(state, event), event)


def _counted(state: State, usage: Usage, seconds: float, *, failed: bool = False) -> State:
    if not usage.requests:
        return state
    state = add_usage(state, state.model, usage)
    cost = state.cost
    if cost is not None:
        prices = state.started.prices
        price = prices.get(state.model or "", prices.get("*"))
        untold = not usage.total_tokens and not failed
        if price is None or (untold and price.gpu_hour is None):
            cost = None  # unknown is not nothing
        else:
            cost += _cost(price, usage, seconds)
    return replace(state, total_tokens=state.total_tokens + usage.total_tokens, cost=cost)


def _cost(price: Price, usage: Usage, seconds: float) -> float:
    return price.of(usage.input_tokens, usage.cached_tokens, usage.output_tokens, seconds)


def _kept(state: State, event: ModelEnded) -> State:
    """What was said joins the history, its calls are judged."""
    said = event.message
    if said is None or not said.content:
        return state
    calls = tuple(
        judged(state, call, event.outside.get(call.id, ()), event.repairs.get(call.id, ()))
        for call in said.tool_calls
    )
    return replace(state, history=state.history.appended(said), calls=calls)


def _again(state: State, **changes: object) -> State:
    """Ask once more, as if this call had not been."""
    return replace(
        state,
        history=state.before_turn,
        calls=(),
        attempt=state.attempt + 1,
        **changes,
    )


def _after_error(state: State, error: ErrorInfo) -> State | None:
    auto = state.started.turn_mode_asked == "auto"
    refused = error.type == "UnsupportedByServerError" and error.facts.get("feature") in {
        "tool_choice",
        "structural_tag",
    }
    if auto and (refused or error.type == "ConstraintIgnoredError"):
        mode = NEXT_MODE.get(state.turn_mode)
        if mode is not None:
            return _again(state, change=Change("turn_mode", mode, error.message))
    if error.type == "ContextLengthError" and _can_compact(state):
        told = error.facts.get("max")
        return replace(
            state,
            window=told if isinstance(told, int) else state.window,
            phase=Phase.COMPACTING,
            history=state.before_turn,
            overflow=error,
            hook=0,
            instruction="",
        )
    fallback = state.started.fallback_model
    if fallback is not None and state.model != fallback and error.type in _FALLBACK:
        return _again(state, change=Change("model", fallback, error.message))
    return None


def _ending(state: State, event: ModelEnded) -> Stop | None:
    """Say whether the server's own reason ends the run, whatever was said."""
    reason = _ENDS.get(event.finish_reason or "")
    if reason is None:
        return None
    window, usage = state.window, event.usage
    if reason == "length" and window is not None and usage.input_tokens:  # noqa: SIM102
        if window - usage.total_tokens < OVERFLOW_ROOM:
            return _overflow("The answer was cut at the end of the context", window)
    return Stop(reason)


def _empty(state: State, event: ModelEnded) -> State:
    if not state.empty:
        return _again(state, empty=1, thinking_off=True)
    state = _kept(state, event)
    reasoning = event.message.reasoning if event.message is not None else None
    if reasoning is None:
        return replace(state, stop=Stop("empty_reply"))
    text = "The model thought and did not answer."
    error = ErrorInfo("RunError", text, {"reasoning": reasoning})
    return replace(state, stop=Stop("empty_reply", error))


def _call_missing(state: State) -> bool:
    if not state.tools_offered:
        return False
    required = isinstance(state.tool_choice, dict) or state.tool_choice == "required"
    return required or state.turn_mode == "required"


def _without_required_call(state: State, said: AssistantMessage) -> State:
    if not state.missing:
        return _again(state, missing=1)
    mode = NEXT_MODE.get(state.turn_mode)
    if state.turn_mode == "required" and state.started.turn_mode_asked == "auto" and mode:
        reason = "the server did not keep to tool_choice='required'"
        return _again(state, missing=0, change=Change("turn_mode", mode, reason))
    text = f"A tool call was required and the model answered with text: {said.text[:200]!r}"
    error = ErrorInfo("ToolCallMissingError", text)
    return replace(state, history=state.history.appended(said), stop=Stop("error", error))


def _with_output(state: State, event: ModelEnded) -> State:
    """The model has given its final answer; where it is typed, it counts only if it is valid."""
    call = next((entry.call for entry in state.calls), None)
    wrong = event.output_error if state.started.output is not None else None
    if call is not None:
        state = replace(state, calls=(_answer(call, wrong),))
    if wrong is None:
        return replace(state, ending=Stop("end_turn"), output=event.output, hook=0)
    in_row = state.invalid_in_row + 1
    state = replace(state, invalid_in_row=in_row)
    if in_row > state.started.limits.repairs:
        return replace(state, stop=Stop("output_invalid", wrong))
    if call is not None:
        return replace(state, phase=Phase.TOOLS)
    text = f"That is no valid answer: {wrong.message} Answer again, in the required form."
    return replace(state, phase=Phase.PREPARING, say=(UserMessage(text), "repair"))


def _answer(call: ToolCall, wrong: ErrorInfo | None) -> CallState:
    if wrong is None:
        return CallState(call, CallStatus.DONE, result=ToolMessage(call.id, "Accepted."))
    reason = f"That is no valid answer: {wrong.message} Answer again."
    return CallState(call, CallStatus.INVALID, reason=reason)
