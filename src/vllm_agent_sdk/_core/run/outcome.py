"""A run's state to its result."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vllm_agent_sdk._core.run.state import CallStatus, Phase, State, Stop
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.messages import AssistantMessage
from vllm_agent_sdk.types.results import Pending, RunResult, StopReason, Usage

__all__ = ["outcome"]


def outcome(state: State, *, run_id: str, duration_s: float) -> RunResult[Any]:
    """Give the result of a run that stops; of one that goes on, what an interrupt would give."""
    text = _last_text(state)
    by_model = dict(state.usage_by_model)
    total = sum(by_model.values(), Usage())
    stop = state.stop
    reason: StopReason = stop.reason if stop is not None else "interrupted"
    waiting = [
        Pending(entry.waits_for or "approval", entry.call, entry.reason)
        for entry in state.calls
        if entry.status is CallStatus.WAITING
    ]
    if state.phase is Phase.SUSPENDED:
        reason = "suspended"
    return RunResult(
        text=text,
        messages=state.history.since(0),
        usage=total,
        usage_by_turn=state.usage_by_turn.since(0),
        cache_by_turn=state.cache.since(state.cached_before),
        usage_by_model=by_model,
        turns=min(state.turn, len(state.usage_by_turn), total.requests),
        output_json=_output(state, text) if reason == "end_turn" else _codec.NULL,
        pending=waiting,
        tool_calls=dict(Counter(state.executed)),
        stop_reason=reason,
        finish_reason=state.finish_reason,
        error_info=stop.error if stop is not None else None,
        permission_denials=list(state.denials),
        turn_mode=state.turn_mode,
        run_id=run_id,
        session_id=state.started.session_id,
        model=state.model,
        cost=state.cost,
        duration_s=duration_s,
        model_time_s=state.model_time_s,
        ttft_s=state.ttft_s,
    )


def _output(state: State, text: str) -> _codec.Raw:
    return state.output if state.started.output is not None else _codec.Raw(_codec.encode(text))


def _last_text(state: State) -> str:
    for message in reversed(state.history.since(state.said_before)):
        if isinstance(message, AssistantMessage):
            # An answer that was given by the answer tool is its JSON.
            answered = state.started.output is not None and state.stop == Stop("end_turn")
            return message.text or (bytes(state.output).decode() if answered else "")
    return ""
