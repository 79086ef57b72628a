"""The tool that reads on in results of which the model was shown the beginning only."""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk._core.run.read_back import READ_TOOL, read_on
from vllm_agent_sdk.agent.tools.tool import tool
from vllm_agent_sdk.types.tools import RunContext

__all__ = ["read_output"]


@tool(name=READ_TOOL, read_only=True, idempotent=True)
async def read_output(call_id: str, offset: int, ctx: RunContext[Any]) -> str:
    """Read on in the result of an earlier call, of which only the beginning was shown.

    Args:
        call_id: As it stands where the result was cut.
        offset: How many characters to skip.
        ctx: Where the call comes from.
    """
    return read_on(ctx.host.outputs(), call_id, offset)
