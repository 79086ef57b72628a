"""A run's state to its result."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vllm_agent_sdk._core.run_state import State
from vllm_agent_sdk.types.messages import AssistantMessage
from vllm_agent_sdk.types.results import RunResult, StopReason, Usage

__all__ = ["outcome"]


def outcome(state: State, *, run_id: str, duration_s: float) -> RunResult[Any]:
    """Give the result of a run that stops; of one that goes on, what an interrupt would give."""
    by_turn = state.usage_by_turn.since(0)
    total = sum(by_turn, Usage())
    model = state.started.model
    stop = state.stop
    reason: StopReason = stop.reason if stop is not None else "interrupted"
    return RunResult(
        text=_last_text(state),
        messages=state.history.since(0),
        usage=total,
        usage_by_turn=by_turn,
        usage_by_model={model: total} if model is not None and total.requests else {},
        turns=total.requests,
        tool_calls=dict(Counter(state.executed)),
        stop_reason=reason,
        finish_reason=state.finish_reason,
        error_info=stop.error if stop is not None else None,
        permission_denials=list(state.denials),
        turn_mode=state.turn_mode,
        run_id=run_id,
        model=model,
        duration_s=duration_s,
        model_time_s=state.model_time_s,
        ttft_s=state.ttft_s,
    )


def _last_text(state: State) -> str:
    for message in reversed(state.history.since(state.said_before)):
        if isinstance(message, AssistantMessage):
            return message.text
    return ""
