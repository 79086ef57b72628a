"""One tool call: its arguments repaired, run within its time, its result as the model reads it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from vllm_agent_sdk._core.schema.check import is_loaded, load
from vllm_agent_sdk.agent.run.guarded import ends_program
from vllm_agent_sdk.agent.tools.function import running_loop
from vllm_agent_sdk.agent.tools.results import checked, error_text, failure
from vllm_agent_sdk.types.events import ToolEnded
from vllm_agent_sdk.types.messages import AssistantMessage, ToolCall, ToolMessage, text_of
from vllm_agent_sdk.types.protocols import Tool
from vllm_agent_sdk.types.tools import RunContext, ToolOutput

__all__ = ["coerced", "coerced_calls", "run_tool"]

_log = logging.getLogger("vllm_agent_sdk.tools")
#: Seconds that a tool has to end once it was cancelled.
_CANCEL_S = 1.0
_TWICE = "the arguments were a JSON string that held the object"


async def coerced_calls(
    message: AssistantMessage, tools: Mapping[str, Tool[Any]]
) -> tuple[AssistantMessage, dict[str, tuple[str, ...]]]:
    """Repair the arguments of a message's calls, so that what is judged is what will run.

    Args:
        message: What the model said.
        tools: The tools by name.

    Returns:
        The message (`arguments_json` stays as the model wrote it), and the repairs by call id.
    """
    blocks, repairs = list(message.content), {}
    for at, block in enumerate(blocks):
        if not isinstance(block, ToolCall) or (tool := tools.get(block.name)) is None:
            continue
        call = block
        made: tuple[str, ...] = ()
        if block.arguments is None and tool.spec.coerce:
            unwrapped = block.unwrapped()
            call, made = (block, ()) if unwrapped is None else (unwrapped, (_TWICE,))
        if call.arguments is None:
            continue
        arguments, more = await coerced(tool, call.arguments)
        if made or more:
            blocks[at] = ToolCall(
                call.id, call.name, arguments, call.arguments_json, None, call.unexpected
            )
            repairs[call.id] = (*made, *more)
    if not repairs:
        return message, {}
    return AssistantMessage(blocks, verbatim=message.verbatim), repairs


async def coerced(
    tool: Tool[Any], arguments: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Repair arguments as the tool would itself; a tool that repairs nothing gets them as they are.

    Args:
        tool: The tool; its method `coerced(arguments)` gives arguments and repairs, if it has one.
        arguments: The parsed object; it is not changed.
    """
    repair = getattr(tool, "coerced", None)
    if repair is None or not tool.spec.coerce:
        return arguments, ()
    if not is_loaded():
        await asyncio.to_thread(load)
    try:
        repaired, repairs = repair(arguments)
    except Exception as error:  # noqa: BLE001 - a tool of another's making; it is validated anyway
        _log.warning("%s cannot repair arguments: %s", tool.spec.name, type(error).__name__)
        return arguments, ()
    return repaired, tuple(repairs)


async def run_tool(
    tool: Tool[Any],
    call: ToolCall,
    ctx: RunContext[Any],
    limit: float | None,
    repairs: tuple[str, ...] = (),
) -> ToolEnded:
    """Run a tool; whatever it does, its call is answered.

    Args:
        tool: The tool.
        call: The call, its arguments parsed.
        ctx: Where the call comes from.
        limit: Seconds it may take, or `None`.
        repairs: What was repaired in the arguments before.
    """
    begun = time.monotonic()
    output = await _output(tool, call, ctx, limit)
    return ToolEnded(
        name=call.name,
        message=ToolMessage(call.id, output.content, output.is_error),
        executed=output.executed,
        repairs=(*repairs, *output.repairs),
        duration_s=time.monotonic() - begun,
    )


async def _output(
    tool: Tool[Any], call: ToolCall, ctx: RunContext[Any], limit: float | None
) -> ToolOutput:
    """Give what the tool gave, in a task of its own: one that will not end holds up nobody."""
    loop = running_loop()
    if loop is None:
        return await _invoked(tool, call, ctx)
    name = tool.spec.name
    task = loop.create_task(_invoked(tool, call, ctx))
    # `asyncio.wait` would do, for three times as much.
    over = loop.create_future()

    def settle(_task: object = None) -> None:
        if not over.done():
            over.set_result(None)

    task.add_done_callback(settle)
    timer = None if limit is None else loop.call_later(limit, settle)
    try:
        await over
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    finally:
        if timer is not None:
            timer.cancel()
    if not task.done():
        await _cancel(task)
        if not task.done():
            return failure(
                f"{name} was to end after {limit} s (its timeout) and does not: outcome unknown "
                "(still running)."
            )
        if task.cancelled() or task.exception() is not None:
            return failure(_timed_out(tool, limit))
        if task.result().is_error:
            said = text_of(task.result().content)
            return failure(f"{_timed_out(tool, limit)} Then: {said}")
    if task.cancelled():
        return failure(f"{name} cancelled itself; it may have acted.")
    error = task.exception()
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        raise error
    return task.result() if error is None else failure(error_text(error))


async def _cancel(task: asyncio.Task[ToolOutput]) -> None:
    """Cancel a tool, and wait a moment for what it does then."""
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    task.cancel()
    await asyncio.wait({task}, timeout=_CANCEL_S)


async def _invoked(tool: Tool[Any], call: ToolCall, ctx: RunContext[Any]) -> ToolOutput:
    """Run the tool; what it raises is what it gave, unless that ends the call or the program."""
    try:
        output = await tool.invoke(call.arguments or {}, ctx)
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:
        if ends_program(error):
            raise
        return failure(error_text(error))
    return checked(output, tool.spec.name)


def _timed_out(tool: Tool[Any], limit: float | None) -> str:
    name = tool.spec.name
    if tool.spec.threaded:
        return f"{name} did not end within {limit} s: outcome unknown (still running)."
    return f"{name} was cancelled after {limit} s (its timeout); it may have acted."
