"""`query()`: ask once, and read the messages as they are said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from vllm_agent_sdk.agent.definition import Agent
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.events import MessageAdded, ModelEnded, RunEnded, TextDelta, ToolEnded
from vllm_agent_sdk.types.messages import Message, Prompt, Prompts
from vllm_agent_sdk.types.results import RunResult

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.run.run import Run

__all__ = ["query"]


class query:  # noqa: N801 - it reads as the function it is to its caller
    """Ask once: an async iterator of the messages as they are said, and last the `RunResult`.

    ```python
    async for message in query("Write a haiku"):
        print(message)
    ```

    Args:
        prompt: Text, blocks, or a `UserMessage`; or an async iterator of these: each its own run,
            with a result of its own.
        include_partial: Yield text deltas too.
        agent: The agent's fields: `instructions=`, `tools=`, `model=`, `client=`, ….

    Raises:
        UsageError: A field is unknown or cannot work; the prompt cannot be one.
    """

    def __init__(
        self, prompt: Prompt | Prompts, *, include_partial: bool = False, **agent: Any
    ) -> None:
        known = {f.name for f in fields(Agent) if f.init}
        unknown = sorted(set(agent) - known)
        if unknown:
            raise UsageError(f"query() has no argument {unknown[0]!r}.")
        self._run: Run[Any] = Agent(**agent).stream(prompt)
        self._partial = include_partial
        self._ended = False

    def __aiter__(self) -> AsyncIterator[Message | TextDelta | RunResult[Any]]:
        return self

    async def __anext__(self) -> Message | TextDelta | RunResult[Any]:
        while True:
            try:
                event = await anext(self._run)
            except StopAsyncIteration:
                if self._ended:
                    raise
                self._ended = True
                return await self._run  # it is suspended: no event has the result
            match event:
                case event if event.of_subagent:
                    await asyncio.sleep(0)
                case MessageAdded(message=message):
                    return message
                case ModelEnded(message=message) if message is not None and message.content:
                    return message
                case ToolEnded(message=message):
                    return message
                case TextDelta() as delta if self._partial:
                    return delta
                case RunEnded(result=result):
                    self._ended = True
                    return result
                case _:
                    await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Cancel what is left."""
        await self._run.aclose()
