"""How a run of an agent begins and ends, outside a session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from vllm_agent_sdk.agent.run.run import Run, Start, load
from vllm_agent_sdk.agent.session.prompts import PromptRuns, Prompts
from vllm_agent_sdk.types.messages import Message, UserMessage

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.definition import Agent
    from vllm_agent_sdk.agent.run.driver import Driver
    from vllm_agent_sdk.types.events import StoredEvent
    from vllm_agent_sdk.types.results import RunResult

__all__ = ["start", "start_all"]


def start(agent: Agent[Any, Any], message: UserMessage, history: list[Message], deps: Any) -> Start:
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


def start_all(agent: Agent[Any, Any], prompts: Prompts, history: list[Message], deps: Any) -> Start:
    """Give how the runs of several prompts begin and end, one after the other."""
    stack = AsyncExitStack()

    async def prepare(publish: Callable[[Any], None]) -> tuple[PromptRuns, list[StoredEvent]]:
        open_ = agent.with_client(await agent.opened(stack))

        async def begin(message: UserMessage, before: RunResult[Any] | None) -> Run[Any]:
            return Run(start(open_, message, before.messages if before else history, deps))

        return PromptRuns(prompts, begin, publish), []

    return Start(prepare, stack.aclose)
