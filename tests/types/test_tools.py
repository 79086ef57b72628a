"""What tools get and give."""

from __future__ import annotations

import dataclasses

import pytest

from vllm_agent_sdk import RunContext, ToolCall

CALL = ToolCall("call_1", "f", {}, "{}")


def test_a_context_can_be_made_with_the_type_of_its_deps() -> None:
    ctx = RunContext[int](deps=7, call=CALL)
    assert ctx == RunContext(deps=7, call=CALL)
    assert ctx.deps == 7


def test_a_context_does_not_change() -> None:
    ctx = RunContext(deps=7, call=CALL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ctx.deps = 8  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
