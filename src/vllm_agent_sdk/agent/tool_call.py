"""One tool call: run within its time, its result as the model reads it."""

from __future__ import annotations

import asyncio
from typing import Any

from vllm_agent_sdk.agent.guarded import not_ours
from vllm_agent_sdk.types.events import ToolEnded
from vllm_agent_sdk.types.messages import ToolCall, ToolMessage
from vllm_agent_sdk.types.protocols import Tool
from vllm_agent_sdk.types.tools import RunContext, ToolOutput

__all__ = ["run_tool"]


async def run_tool(
    tool: Tool[Any], call: ToolCall, ctx: RunContext[Any], limit: float | None
) -> ToolEnded:
    """Run a tool; whatever it does, its call is answered.

    Args:
        tool: The tool.
        call: The call, its arguments parsed.
        ctx: Where the call comes from.
        limit: Seconds it may take, or `None`.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            with not_ours():
                output = await tool.invoke(call.arguments or {}, ctx)
    except Exception as error:  # noqa: BLE001 - a tool of another's making may break its contract
        late = isinstance(error, TimeoutError) and scope.expired()
        text = _timed_out(tool, limit) if late else f"{type(error).__name__}: {error}"
        output = ToolOutput(text, is_error=True)
    twice = call.arguments_json.lstrip().startswith('"')
    repairs = ("the arguments were a JSON string that held the object",) if twice else ()
    return ToolEnded(
        name=call.name,
        message=ToolMessage(call.id, output.content, output.is_error),
        executed=output.executed,
        repairs=(*repairs, *output.repairs),
        duration_s=loop.time() - begun,
    )


def _timed_out(tool: Tool[Any], limit: float | None) -> str:
    if getattr(tool, "is_async", True):
        return f"{tool.spec.name} was cancelled after {limit} s (its timeout); it may have acted."
    return f"{tool.spec.name} did not end within {limit} s: outcome unknown (still running)."
