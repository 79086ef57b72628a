"""Agents as tools of other agents."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from vllm_agent_sdk.agent.tools.function import FunctionTool, running_loop
from vllm_agent_sdk.agent.tools.results import NO_OUTPUT, error_text, failure
from vllm_agent_sdk.agent.tools.subagent_host import Host
from vllm_agent_sdk.agent.tools.tool import tool
from vllm_agent_sdk.errors import ToolError, UsageError
from vllm_agent_sdk.types.events import (
    RunEnded,
    RunStarted,
    RunSuspended,
    StoredEvent,
    SubagentEnded,
    SubagentStarted,
    stamp,
)
from vllm_agent_sdk.types.hooks import Hooks
from vllm_agent_sdk.types.messages import UserMessage
from vllm_agent_sdk.types.permissions import Permissions
from vllm_agent_sdk.types.results import RunResult
from vllm_agent_sdk.types.tools import TOOL_NAME, RunContext, ToolOutput

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.definition import Agent
    from vllm_agent_sdk.agent.run.driver import Driver

__all__ = ["agent_tool"]

#: Seconds that a subagent has to end when the run that called it does.
_END_S = 1.0

#: Whoever guards or records the calls of a run does so in its subagents.
_OF_TOOLS = {
    "pre_tool_use",
    "post_tool_use",
    "post_tool_use_failure",
    "permission_request",
    "subagent_start",
    "subagent_stop",
}

#: `SubagentStarted` and `SubagentEnded` stand for these in the run that calls.
_BRACKETS = (RunStarted, RunEnded, RunSuspended)


def agent_tool(
    agent: Agent[Any, Any], name: str | None, description: str | None, background: bool
) -> FunctionTool[Any, Any, Any]:
    """Make a tool that runs an agent.

    Raises:
        UsageError: There is no name, or it cannot be a tool's.
    """
    called = agent.name if name is None else name
    if called is None or not re.fullmatch(TOOL_NAME, called):
        raise UsageError(
            f"as_tool() needs a name that a tool can have, not {called!r}: 1 to 64 of A-Z a-z 0-9 "
            '_ -. Give as_tool(name="…"), or the agent a name.'
        )
    about = agent.description if description is None else description

    async def run(prompt: str, ctx: RunContext[Any]) -> ToolOutput:
        """Run the agent.

        Args:
            prompt: What it is to do, with all it has to know: it sees nothing of this conversation.
            ctx: Where the call comes from.
        """
        return await _Subagent(agent, called, ctx).run(prompt)

    made = tool(name=called, description=about or "", background=background)(run)
    return made.specified(made.spec.of_agent())


class _Subagent:
    """One call of an agent by another."""

    def __init__(self, agent: Agent[Any, Any], name: str, ctx: RunContext[Any]) -> None:
        host = ctx.host
        if not isinstance(host, Host) or (host.play is None and running_loop() is None):
            raise ToolError(f"{name} is an agent: it runs in a run of another one only.")
        self._agent = agent
        self._name = name
        self._ctx = ctx
        self._host = host
        self._id = f"{ctx.agent_id}/{name}:{ctx.call.id}"
        self._driver: Driver | None = None

    async def run(self, prompt: str) -> ToolOutput:
        """Run it; however it ends, whoever called is told what it used."""
        self._host.tell(SubagentStarted(call_id=self._ctx.call.id, agent=self._id))
        try:
            async with AsyncExitStack() as stack:
                result = await self._result(prompt, stack)
        except asyncio.CancelledError:
            self._ended(self._partial())
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, its caller goes on
            self._ended(self._partial(), "error")
            return failure(f"{self._name} could not run: {error_text(error)}")
        self._ended(result, result.stop_reason)
        return _output(self._name, result)

    def _partial(self) -> RunResult[Any]:
        return RunResult() if self._driver is None else self._driver.partial()

    def _ended(self, result: RunResult[Any], stop_reason: str | None = None) -> None:
        # What was used before the run began is nothing.
        reason = "interrupted" if self._driver is None else result.stop_reason
        self._host.tell(
            SubagentEnded(
                call_id=self._ctx.call.id,
                stop_reason=stop_reason or reason,
                usage=result.usage,
                usage_by_model=result.usage_by_model,
                cost=result.cost,
            )
        )

    async def _result(self, prompt: str, stack: AsyncExitStack) -> RunResult[Any]:
        from vllm_agent_sdk.agent.run.driver import Driver
        from vllm_agent_sdk.agent.run.opening import make_world, opening

        caller, shared = self._host.world, self._agent.client is None
        if self._host.play is not None:
            return self._host.play(self._within(shared), self._id, self._ctx, prompt)
        client = caller.client if shared else await self._agent.opened(stack)
        learnt = caller.learnt if shared else self._agent.learnt
        agent = self._within(shared)
        made = make_world(agent, client, deps=self._ctx.deps, learnt=learnt)
        world = dataclasses.replace(made, run_id=self._ctx.run_id, agent_id=self._id)
        stack.push_async_callback(world.background.aclose)
        driver = Driver(world, self._show)
        events = await opening(agent, driver, UserMessage(prompt), history=[])
        self._driver = driver
        return await _driven(driver, events)

    def _within(self, shared: bool) -> Agent[Any, Any]:
        """Give the agent as it runs here: where it says nothing itself, its caller's word counts.

        Nobody could take up a run in a run: an approval that nobody answers is a no.
        """
        agent, caller = self._agent, self._host
        own = agent.permissions
        fields = {name: getattr(own, name) for name in own.__struct_fields__}
        fields["can_use_tool"] = own.can_use_tool or caller.world.can_use_tool
        rules = caller.state.permissions
        fields["deny"] = (*own.deny, *(str(rule) for rule in rules.deny))
        fields["ask"] = (*own.ask, *(str(rule) for rule in rules.ask))
        fields["directories"] = own.directories or rules.directories
        fields["unanswered"] = "deny"
        return agent.with_(
            permissions=Permissions(**fields),
            hooks=_hooks(agent.hooks, caller),
            ask_user=agent.ask_user or caller.world.ask_user,
            prices=agent.prices or caller.state.started.prices or None,
            model=agent.model or (caller.state.model if shared else None),
        )

    def _show(self, event: Any) -> None:
        if isinstance(event, _BRACKETS):
            return
        if isinstance(event, StoredEvent):
            # It is not in the log of who called, whose numbers it must not be taken for.
            stamp(event, self._ctx.run_id, self._id, event.time or 0.0)
        self._host.show(event)


def _hooks(own: Hooks, caller: Host) -> Hooks:
    """Give its own hooks, and after them its caller's of tools, which see what will really run."""
    fields = {name: getattr(own, name) for name in own.__struct_fields__}
    for spec, matcher in zip(caller.world.hook_specs, caller.world.hooks, strict=True):
        if spec.event in _OF_TOOLS:
            fields[spec.event] = (*fields[spec.event], matcher)
    return Hooks(**fields)


async def _driven(driver: Driver, events: list[StoredEvent]) -> RunResult[Any]:
    """Run to the end; cancelled, it is interrupted, so that what it used is known."""
    task = asyncio.create_task(driver.run(events), name="subagent")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            driver.interrupt()
            await asyncio.wait({task}, timeout=_END_S)
        finally:
            task.cancel()
        raise


def _output(name: str, result: RunResult[Any]) -> ToolOutput:
    """Give what the model reads of it: the answer, or why there is none."""
    if result.stop_reason == "end_turn":
        return ToolOutput(result.text or NO_OUTPUT)
    said = [f"{name} ended without an answer ({result.stop_reason})."]
    if result.error is not None:
        said.append(error_text(result.error))
    if result.pending:
        waits = ", ".join(f"{each.call.name} ({each.kind})" for each in result.pending)
        said.append(f"It waits for {waits}, which cannot be given here.")
    if result.text:
        said.append(f"It had said: {result.text}")
    return failure("\n".join(said))
