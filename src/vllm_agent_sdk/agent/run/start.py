"""How a run of an agent begins and ends, outside a session."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from vllm_agent_sdk.agent.definition_check import checked_history
from vllm_agent_sdk.agent.run.run import Run, Start, alone, load
from vllm_agent_sdk.agent.session.prompts import PromptRuns
from vllm_agent_sdk.types.messages import (
    Message,
    Prompt,
    Prompts,
    UserMessage,
    as_user_message,
)

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.definition import Agent
    from vllm_agent_sdk.agent.run.driver import Driver
    from vllm_agent_sdk.types.events import StoredEvent
    from vllm_agent_sdk.types.results import RunResult

__all__ = ["begin", "run_alone"]


def begin(
    agent: Agent[Any, Any], prompt: Prompt | Prompts, history: Iterable[Message], deps: Any
) -> Run[Any]:
    """Give a run, as its caller handles it.

    Raises:
        UsageError: The prompt or the history cannot be one.
    """
    return Run(_start(agent, prompt, history, deps))


def run_alone(
    agent: Agent[Any, Any], prompt: Prompt | Prompts, history: Iterable[Message], deps: Any
) -> Awaitable[RunResult[Any]]:
    """Run to the end in the task of the caller. Raises what `begin` does."""
    return alone(_start(agent, prompt, history, deps))


def _start(
    agent: Agent[Any, Any], prompt: Prompt | Prompts, history: Iterable[Message], deps: Any
) -> Start:
    said = checked_history(history)
    if isinstance(prompt, AsyncIterable):
        return _start_all(agent, prompt, said, deps)
    return _start_one(agent, as_user_message(prompt), said, deps)


def _start_one(
    agent: Agent[Any, Any], message: UserMessage, history: list[Message], deps: Any
) -> Start:
    """Give how a run of one prompt begins and ends."""
    stack, background = AsyncExitStack(), None
    shared = agent.has_client

    async def prepare(publish: Callable[[Any], None]) -> tuple[Driver, list[StoredEvent]]:
        nonlocal background
        await load(agent.api)
        from vllm_agent_sdk.agent.run.driver import Driver
        from vllm_agent_sdk.agent.run.opening import make_world, opening

        client = await agent.opened(stack)
        world = make_world(agent, client, deps=deps, learnt=agent.learnt)
        background = world.background
        stack.push_async_callback(background.aclose)
        driver = Driver(world, publish)
        return driver, await opening(agent, driver, message, history=history)

    def close() -> Awaitable[None] | None:
        nothing = shared and (background is None or not background.ids)
        return None if nothing else stack.aclose()

    return Start(prepare, close)


def _start_all(
    agent: Agent[Any, Any], prompts: Prompts, history: list[Message], deps: Any
) -> Start:
    """Give how the runs of several prompts begin and end, one after the other."""
    stack = AsyncExitStack()

    async def prepare(publish: Callable[[Any], None]) -> tuple[PromptRuns, list[StoredEvent]]:
        await load(agent.api)
        open_ = agent.with_client(await agent.opened(stack))

        async def begin(message: UserMessage, before: RunResult[Any] | None) -> Run[Any]:
            return Run(_start_one(open_, message, before.messages if before else history, deps))

        return PromptRuns(prompts, begin, publish), []

    return Start(prepare, stack.aclose)
