"""`Agent`: a value that says what an agent is, and the ways to run it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, overload

from typing_extensions import TypeVar

from vllm_agent_sdk.agent.mode import Choice, Learnt, choose_mode
from vllm_agent_sdk.agent.run import Run, Start
from vllm_agent_sdk.agent.tools import check_tools
from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.errors import UsageError, VLLMError
from vllm_agent_sdk.sessions.store import MemoryLog
from vllm_agent_sdk.types.events import (
    MessageAdded,
    ModelEnded,
    Notice,
    RunEnded,
    RunStarted,
    StoredEvent,
    TextDelta,
    ToolEnded,
    TurnStarted,
)
from vllm_agent_sdk.types.messages import (
    Message,
    Prompt,
    SystemMessage,
    UserMessage,
    as_user_message,
)
from vllm_agent_sdk.types.options import Limits, Sampling, TurnMode
from vllm_agent_sdk.types.protocols import Tool
from vllm_agent_sdk.types.results import ErrorInfo, RunResult
from vllm_agent_sdk.types.tools import ToolSpec

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.driver import Driver

__all__ = ["Agent", "query"]

Deps = TypeVar("Deps", default=None)
T = TypeVar("T", default=str)

_MODES = ("auto", "plain", "native", "guided")


class _Own:
    """What an open agent owns, and what it has learnt; the one part of an agent that changes."""

    __slots__ = ("client", "learnt")

    def __init__(self) -> None:
        self.client: AsyncVLLM | None = None
        self.learnt = Learnt()


@dataclass(frozen=True, kw_only=True)
class Agent(Generic[Deps, T]):
    """An agent: instructions, tools and limits. It is a value; running it changes nothing in it.

    `async with agent:` opens what it needs once; `agent.run()` outside such a block opens and
    closes its own. A client that is passed in is never closed.

    Attributes:
        instructions: The system text.
        tools: What the model can call: `@tool` functions, and whatever fulfils `Tool`.
        model: The served model's name; unset: the client's, else the server's only one.
        client: An `AsyncVLLM`, a server's address, or nothing: the environment decides.
        name: For logs and events.
        description: What the agent is for.
        sampling: How tokens are chosen; unset fields are the server's defaults.
        limits: What a run may use.
        tool_choice: `"auto"`, `"required"` or `"none"`, for the first turn only.
        turn_mode: How tools are offered: `"auto"` decides by the server; `"native"` is the server's
            own tool calling; `"guided"` constrains each turn to valid calls or the answer, and
            works with any model; `"plain"` offers none.
        examples: Worked turns before the conversation: messages, calls and results included.
        deps_type: The type of `deps`, for type checkers.

    Raises:
        UsageError: A field cannot work.
    """

    instructions: str | None = None
    tools: Sequence[Tool[Any]] = ()
    model: str | None = None
    client: AsyncVLLM | str | None = None
    name: str | None = None
    description: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    tool_choice: Literal["auto", "required", "none"] | None = None
    turn_mode: TurnMode = "auto"
    examples: Sequence[Message] = ()
    deps_type: type[Deps] | None = None
    _own: _Own = field(default_factory=_Own, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check what can be checked without a server."""
        check_tools(self.tools)
        if self.turn_mode not in _MODES:
            raise UsageError(f"turn_mode={self.turn_mode!r}: give one of {', '.join(_MODES)}.")
        if self.tool_choice is not None and not self.tools:
            raise UsageError("tool_choice= needs tools=.")
        if self.client is not None and not isinstance(self.client, (AsyncVLLM, str)):
            raise UsageError(
                f"client= takes an AsyncVLLM or a server's address, not "
                f"{type(self.client).__name__}."
            )

    def with_(self, **changes: Any) -> Self:
        """Give a copy with some fields changed. Raises `UsageError` for an unknown field."""
        known = {f.name for f in fields(self) if f.init}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise UsageError(
                f"Agent has no field {unknown[0]!r}; it has {', '.join(sorted(known))}."
            )
        return replace(self, **changes)

    async def __aenter__(self) -> Self:
        if self._own.client is None and not isinstance(self.client, AsyncVLLM):
            self._own.client = AsyncVLLM(self.client)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        client, self._own.client = self._own.client, None
        if client is not None:
            await client.aclose()

    @overload
    async def run(
        self: Agent[None, T], prompt: Prompt, *, history: Iterable[Message] = ()
    ) -> RunResult[T]: ...

    @overload
    async def run(
        self, prompt: Prompt, *, history: Iterable[Message] = (), deps: Deps
    ) -> RunResult[T]: ...

    async def run(
        self, prompt: Prompt, *, history: Iterable[Message] = (), deps: Any = None
    ) -> RunResult[T]:
        """Run the agent to its end.

        It never raises for what the model or a tool did: the result has a `stop_reason`, and
        `raise_for_error()`.

        Args:
            prompt: Text, blocks, or a `UserMessage`.
            history: What was said before: `result.messages` of an earlier run.
            deps: What tools get as `ctx.deps`.

        Raises:
            UsageError: The call cannot work as it is.
        """
        return await self._begin(prompt, history, deps)

    @overload
    def stream(
        self: Agent[None, T], prompt: Prompt, *, history: Iterable[Message] = ()
    ) -> Run[T]: ...

    @overload
    def stream(self, prompt: Prompt, *, history: Iterable[Message] = (), deps: Deps) -> Run[T]: ...

    def stream(
        self, prompt: Prompt, *, history: Iterable[Message] = (), deps: Any = None
    ) -> Run[T]:
        """Run the agent and watch: `async with agent.stream(…) as run: async for event in run`."""
        return self._begin(prompt, history, deps)

    @overload
    def run_sync(
        self: Agent[None, T], prompt: Prompt, *, history: Iterable[Message] = ()
    ) -> RunResult[T]: ...

    @overload
    def run_sync(
        self, prompt: Prompt, *, history: Iterable[Message] = (), deps: Deps
    ) -> RunResult[T]: ...

    def run_sync(
        self, prompt: Prompt, *, history: Iterable[Message] = (), deps: Any = None
    ) -> RunResult[T]:
        """Run the agent to its end, blocking; in a running loop (a notebook) too.

        Raises:
            UsageError: `client=` is an `AsyncVLLM`, which belongs to a loop of yours.
        """
        if isinstance(self.client, AsyncVLLM):
            raise UsageError(
                "run_sync() cannot use an AsyncVLLM, which belongs to an event loop of yours; give "
                "client= the server's address, or use `await agent.run(…)`."
            )
        from vllm_agent_sdk._portal import call

        # Its own connections: those of an open agent belong to another loop.
        alone = replace(self)
        alone._own.learnt = self._own.learnt

        async def run() -> RunResult[T]:
            return await alone._begin(prompt, history, deps)

        return call(run)

    def _begin(self, prompt: Prompt, history: Iterable[Message], deps: Any) -> Run[T]:
        message = as_user_message(prompt)
        said = list(history)
        for item in said:
            if isinstance(item, SystemMessage) or not isinstance(item, Message):
                raise UsageError(
                    "history= takes the messages of earlier runs (result.messages), not "
                    f"{type(item).__name__}; a system text goes into instructions=."
                )
        stack = AsyncExitStack()
        learnt = self._own.learnt

        async def prepare(publish: Callable[[Any], None]) -> tuple[Driver, list[StoredEvent]]:
            # Imported by the first run: a program that only uses the client never needs it.
            from vllm_agent_sdk.agent.driver import Driver, World

            client = await self._client(stack)
            world = World(
                client=client,
                tools=check_tools(self.tools),
                deps=deps,
                log=MemoryLog(),
                learnt=learnt,
                run_id=os.urandom(8).hex(),
                agent_id=self.name or "main",
            )
            driver = Driver(world, publish)
            try:
                return driver, await self._opening(client, message, said)
            except UsageError:
                raise
            except VLLMError as error:
                # The server's failure is how the run ends, not how the call does.
                return driver, self._failed(driver.failed(error), message, said)

        return Run(Start(prepare, stack.aclose))

    async def _client(self, stack: AsyncExitStack) -> AsyncVLLM:
        if isinstance(self.client, AsyncVLLM):
            return self.client
        if self._own.client is not None:
            return self._own.client
        return await stack.enter_async_context(AsyncVLLM(self.client))

    async def _opening(
        self, client: AsyncVLLM, message: UserMessage, history: list[Message]
    ) -> list[StoredEvent]:
        """Learn what is to be known of the server, and give the run's first events."""
        model = await client.resolve_model(self.model)
        offered = [] if self.turn_mode == "plain" else list(self.tools)
        tools = [item.spec for item in offered]
        choice = await choose_mode(self.turn_mode, tools, client, model, self._own.learnt)
        started = self._started(model, tools, choice, history)
        notices = [] if choice.notice is None else [Notice("turn_mode", choice.notice)]
        return [started, MessageAdded(message, "prompt"), *notices]

    def _failed(
        self, error: ErrorInfo, message: UserMessage, history: list[Message]
    ) -> list[StoredEvent]:
        """Give the events of a run whose server could not be asked anything."""
        unknown = Choice("plain", "the server could not be asked")
        return [
            self._started(self.model, [], unknown, history),
            MessageAdded(message, "prompt"),
            TurnStarted(1),
            ModelEnded(1, error=error),
        ]

    def _started(
        self, model: str | None, tools: list[ToolSpec], choice: Choice, history: list[Message]
    ) -> RunStarted:
        sampling = self.sampling.wire()
        if self.sampling.extra_body is not None:
            sampling["extra_body"] = self.sampling.extra_body
        return RunStarted(
            agent=self.name,
            model=model,
            instructions=self.instructions,
            tools=tools,
            limits=self.limits,
            sampling=sampling,
            tool_choice=self.tool_choice if tools else None,
            turn_mode_asked=self.turn_mode,
            turn_mode=choice.mode,
            turn_mode_reason=choice.reason,
            dialect=choice.dialect,
            examples=list(self.examples),
            history=history,
        )


class query:  # noqa: N801 - it reads as the function it is to its caller
    """Ask once: an async iterator of the messages as they are said, and last the `RunResult`.

    ```python
    async for message in query("Write a haiku"):
        print(message)
    ```

    Args:
        prompt: Text, blocks, or a `UserMessage`.
        include_partial: Yield text deltas too.
        agent: The agent's fields: `instructions=`, `tools=`, `model=`, `client=`, ….
    """

    def __init__(self, prompt: Prompt, *, include_partial: bool = False, **agent: Any) -> None:
        known = {f.name for f in fields(Agent) if f.init}
        unknown = sorted(set(agent) - known)
        if unknown:
            raise UsageError(f"query() has no argument {unknown[0]!r}.")
        self._run: Run[Any] = Agent(**agent).stream(prompt)
        self._partial = include_partial

    def __aiter__(self) -> AsyncIterator[Message | TextDelta | RunResult[Any]]:
        return self

    async def __anext__(self) -> Message | TextDelta | RunResult[Any]:
        while True:
            match await anext(self._run):
                case MessageAdded(message=message):
                    return message
                case ModelEnded(message=message) if message is not None and message.content:
                    return message
                case ToolEnded(message=message):
                    return message
                case TextDelta() as delta if self._partial:
                    return delta
                case RunEnded(result=result):
                    return result
                case _:
                    await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Cancel what is left."""
        await self._run.aclose()
