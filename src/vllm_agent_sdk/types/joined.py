"""Deltas that nobody has read yet, joined to one."""

from __future__ import annotations

import msgspec

from vllm_agent_sdk.types.events import ReasoningDelta, RunEvent, TextDelta, ToolCallDelta

__all__ = ["joined"]


def joined(first: object, second: object) -> RunEvent | None:
    """Join two deltas of one kind, choice, agent and call; `None` where they cannot be."""
    match first, second:
        case (TextDelta() as a, TextDelta() as b) if _same(a, b):
            return msgspec.structs.replace(b, text=a.text + b.text)
        case (ReasoningDelta() as a, ReasoningDelta() as b) if _same(a, b):
            return msgspec.structs.replace(b, text=a.text + b.text)
        case (ToolCallDelta() as a, ToolCallDelta() as b) if _same(a, b) and a.index == b.index:
            if b.id is None and b.name is None:
                return msgspec.structs.replace(a, arguments=a.arguments + b.arguments)
    return None


def _same(
    first: TextDelta | ReasoningDelta | ToolCallDelta,
    second: TextDelta | ReasoningDelta | ToolCallDelta,
) -> bool:
    same_run = first.run_id == second.run_id and first.agent_id == second.agent_id
    return same_run and first.choice == second.choice
