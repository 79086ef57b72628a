"""`Agent`: a value that says what an agent is, and the ways to run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, overload

from typing_extensions import TypeForm, TypeVar

from vllm_agent_sdk.agent.model.client import is_address
from vllm_agent_sdk.agent.tools.toolset import Offered, Toolset, given_tools
from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.checkpoints import Checkpoints
from vllm_agent_sdk.types.hooks import Hooks
from vllm_agent_sdk.types.messages import (
    Message,
    Prompt,
    Prompts,
)
from vllm_agent_sdk.types.options import Context, Limits, Price, Sampling, TurnMode
from vllm_agent_sdk.types.permissions import Permissions
from vllm_agent_sdk.types.protocols import ChatModel, Tool
from vllm_agent_sdk.types.results import RunResult

if TYPE_CHECKING:
    from vllm_agent_sdk._core.schema.output import OutputType
    from vllm_agent_sdk.agent.model.mode import Learnt
    from vllm_agent_sdk.agent.run.blocking import BlockingRun
    from vllm_agent_sdk.agent.run.run import Run
    from vllm_agent_sdk.agent.session.blocking import BlockingSession
    from vllm_agent_sdk.agent.session.session import Session
    from vllm_agent_sdk.agent.tools.function import FunctionTool
    from vllm_agent_sdk.sessions.store import SessionStore

__all__ = ["Agent"]

Deps = TypeVar("Deps", default=None)
T = TypeVar("T", default=str)


class _Own:
    """What an open agent owns, and what it has learnt; the one part of an agent that changes."""

    __slots__ = ("client", "learnt", "offered", "output")

    def __init__(self) -> None:
        self.offered: dict[str, Offered] = {}
        self.client: AsyncVLLM | None = None
        self.learnt: Learnt | None = None
        self.output: OutputType | None = None


@dataclass(frozen=True, kw_only=True)
class Agent(Generic[Deps, T]):
    """An agent: instructions, tools and limits. It is a value; running it changes nothing in it.

    `async with agent:` opens what it needs once; `agent.run()` outside such a block opens and
    closes its own. A client that is passed in is never closed.

    Attributes:
        instructions: The system text.
        tools: What the model can call: `@tool` functions, whatever fulfils `Tool`, and toolsets.
        model: The served model's name; unset: the client's, else the server's only one.
        client: An `AsyncVLLM` or another `ChatModel`, a server's address or several, or nothing:
            the environment decides.
        api: `"chat"`, or `"responses"`: the whole conversation each time, nothing kept there.
        name: For logs and events; without a slash, which is in the ids of subagents.
        description: What the agent is for.
        sampling: How tokens are chosen; unset fields are the server's defaults.
        limits: What a run may use.
        tool_choice: `"auto"`, `"required"` or `"none"`, for the first turn only.
        turn_mode: How tools are offered: `"auto"` decides by the server; `"native"` is the server's
            own tool calling; `"required"` the same with each turn forced to be a call, the typed
            answer among them; `"guided"` constrains each turn to valid calls or the answer, and
            works with any model; `"envelope"` does so by a JSON schema; `"plain"` offers none.
        examples: Worked turns before the conversation: messages, calls and results included.
        deps_type: The type of `deps`, for type checkers.
        output: The type of the answer: `str`, or what `response_type=` of the client takes, or
            `json_schema({…})`.
        fallback_model: Asked instead when the model cannot be reached or fails.
        permissions: What tools may run, and who is asked.
        hooks: Functions that watch and steer the run.
        context: When older messages are replaced by a summary.
        ask_user: Answers the model's questions: `ask_user(questions, ctx)`, sync or async, gives
            answers by question id, or `Defer()`. With it the model has the tool
            `ask_user_question`.
        checkpoints: Keep the files of a folder, so that a session can go back; in sessions only.
        streaming: `False` asks for whole replies: the same events but for deltas.
        prices: What a model costs, for `result.cost` and `Limits(max_cost=…)`: one `Price`, or one
            for each model, `"*"` for all others.

    Raises:
        UsageError: A field cannot work.
    """

    instructions: str | None = None
    tools: Sequence[Tool[Any] | Toolset] = ()
    model: str | None = None
    client: ChatModel | str | Sequence[str] | None = None
    api: Literal["chat", "responses"] = "chat"
    name: str | None = None
    description: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    tool_choice: Literal["auto", "required", "none"] | None = None
    turn_mode: TurnMode = "auto"
    examples: Sequence[Message] = ()
    deps_type: type[Deps] | None = None
    # The ignored default is what type checkers take `T` from where no output is given.
    output: TypeForm[T] = str  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    fallback_model: str | None = None
    permissions: Permissions = field(default_factory=Permissions)
    hooks: Hooks = field(default_factory=Hooks)
    context: Context = field(default_factory=Context)
    ask_user: Callable[..., Any] | None = None
    prices: Price | Mapping[str, Price] | None = None
    checkpoints: Checkpoints | None = None
    streaming: bool = True
    _own: _Own = field(default_factory=_Own, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check what can be checked without a server."""
        from vllm_agent_sdk.agent.definition_check import check

        self._own.offered = given_tools(self.tools)
        check(self)
        if self.output is not str:
            # Made once here, so that a type that cannot be an output is told at once.
            from vllm_agent_sdk._core.schema.output import OutputType

            self._own.output = OutputType.of(self.output)

    def with_(self, **changes: Any) -> Self:
        """Give a copy with some fields changed. Raises `UsageError` for an unknown field."""
        from vllm_agent_sdk.agent.definition_check import check_changes

        check_changes(self, changes)
        return replace(self, **changes)

    def as_tool(
        self, name: str | None = None, description: str | None = None, *, background: bool = False
    ) -> FunctionTool[Any, Any, Any]:
        """Give the agent as a tool of others: the model that calls it writes its prompt.

        It runs with its own instructions, tools, model and limits; its server, its prices and who
        answers its questions are the caller's where it names none itself.

        Args:
            name: The tool's name; the agent's.
            description: What the calling model reads about it; the agent's.
            background: Its call is answered at once, its answer comes later, as a message.

        Raises:
            UsageError: There is no name, or it cannot be a tool's.
        """
        from vllm_agent_sdk.agent.tools.subagent import agent_tool

        return agent_tool(self, name, description, background)

    async def __aenter__(self) -> Self:
        if self._own.client is None and is_address(self.client):
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
        self: Agent[None, T], prompt: Prompt | Prompts, *, history: Iterable[Message] = ()
    ) -> RunResult[T]: ...

    @overload
    async def run(
        self, prompt: Prompt | Prompts, *, history: Iterable[Message] = (), deps: Deps
    ) -> RunResult[T]: ...

    async def run(
        self, prompt: Prompt | Prompts, *, history: Iterable[Message] = (), deps: Any = None
    ) -> RunResult[T]:
        """Run the agent to its end.

        It never raises for what the model or a tool did: the result has a `stop_reason`, and
        `raise_for_error()`.

        Args:
            prompt: Text, blocks, or a `UserMessage`; or an async iterator of these: each its own
                run, with the conversation going on. The result is then the last run's.
            history: What was said before: `result.messages` of an earlier run.
            deps: What tools get as `ctx.deps`.

        Raises:
            UsageError: The call cannot work as it is.
        """
        # What runs need is loaded by the first: importing the class stays quick.
        from vllm_agent_sdk.agent.run.start import run_alone

        return await run_alone(self, prompt, history, deps)

    @overload
    def stream(
        self: Agent[None, T], prompt: Prompt | Prompts, *, history: Iterable[Message] = ()
    ) -> Run[T]: ...

    @overload
    def stream(
        self, prompt: Prompt | Prompts, *, history: Iterable[Message] = (), deps: Deps
    ) -> Run[T]: ...

    def stream(
        self, prompt: Prompt | Prompts, *, history: Iterable[Message] = (), deps: Any = None
    ) -> Run[T]:
        """Run the agent and watch: `async with agent.stream(…) as run: async for event in run`."""
        from vllm_agent_sdk.agent.run.start import begin

        return begin(self, prompt, history, deps)

    @overload
    def run_sync(
        self: Agent[None, T], prompt: Prompt | Prompts, *, history: Iterable[Message] = ()
    ) -> RunResult[T]: ...

    @overload
    def run_sync(
        self, prompt: Prompt | Prompts, *, history: Iterable[Message] = (), deps: Deps
    ) -> RunResult[T]: ...

    def run_sync(
        self, prompt: Prompt | Prompts, *, history: Iterable[Message] = (), deps: Any = None
    ) -> RunResult[T]:
        """Run the agent to its end, blocking; in a running loop (a notebook) too.

        It takes what `run` takes, and raises as little. Ctrl-C ends the run, and is raised.

        Raises:
            UsageError: The call cannot work as it is; or `client=` is an `AsyncVLLM`, which belongs
                to a loop of yours.
        """
        from vllm_agent_sdk.agent.run.blocking import BlockingRun

        twin = self._blocking("run_sync", "run")
        return BlockingRun(twin.stream(prompt, history=history, deps=deps)).wait()

    @overload
    def stream_sync(
        self: Agent[None, T], prompt: Prompt | Prompts, *, history: Iterable[Message] = ()
    ) -> BlockingRun[T]: ...

    @overload
    def stream_sync(
        self, prompt: Prompt | Prompts, *, history: Iterable[Message] = (), deps: Deps
    ) -> BlockingRun[T]: ...

    def stream_sync(
        self, prompt: Prompt | Prompts, *, history: Iterable[Message] = (), deps: Any = None
    ) -> BlockingRun[T]:
        """Run the agent and watch: `with agent.stream_sync(…) as run: for event in run`.

        Raises:
            UsageError: As `run_sync` has it.
        """
        from vllm_agent_sdk.agent.run.blocking import BlockingRun

        twin = self._blocking("stream_sync", "stream")
        return BlockingRun(twin.stream(prompt, history=history, deps=deps))

    def session(
        self,
        id: str | None = None,
        *,
        store: SessionStore | None = None,
        create: bool = True,
        latest: bool = False,
        deps: Any = None,
        on_unknown: Literal["ask", "skip"] = "ask",
    ) -> Session[T]:
        """Give a conversation of several runs: `async with agent.session("support-42") as session`.

        Args:
            id: The session's id; none makes a new session, with an id of its own.
            store: Where it is kept; unset: `VLLM_AGENT_SESSION_STORE_PATH`, else in memory.
            create: Make the session if there is none of this id.
            latest: Take the session that was written to last.
            deps: What tools get as `ctx.deps`.
            on_unknown: What becomes of calls whose outcome is unknown after a crash: `"ask"`
                suspends for a decision, `"skip"` tells the model.

        Raises:
            UsageError: The options cannot work together. Entering it raises
                `SessionNotFoundError` and `SessionLockedError`.
        """
        from vllm_agent_sdk.agent.session.session import Session

        return Session(
            self, id, store=store, create=create, latest=latest, deps=deps, on_unknown=on_unknown
        )

    def session_sync(
        self,
        id: str | None = None,
        *,
        store: SessionStore | None = None,
        create: bool = True,
        latest: bool = False,
        deps: Any = None,
        on_unknown: Literal["ask", "skip"] = "ask",
    ) -> BlockingSession[T]:
        """Give a conversation of several runs, blocking: `with agent.session_sync(…) as session`.

        It takes what `session` takes, and raises what that and `run_sync` do.
        """
        from vllm_agent_sdk.agent.session.blocking import BlockingSession

        session = self._blocking("session_sync", "session").session
        return BlockingSession(
            session(id, store=store, create=create, latest=latest, deps=deps, on_unknown=on_unknown)
        )

    def _blocking(self, name: str, twin: str) -> Self:
        """Give a copy for the background loop: the connections of an open agent are another's."""
        if isinstance(self.client, AsyncVLLM):
            raise UsageError(
                f"{name}() cannot use an AsyncVLLM, which belongs to an event loop of yours; give "
                f"client= the server's address, or use agent.{twin}(…)."
            )
        return self._copy()

    def _copy(self, **changes: Any) -> Self:
        """Give a copy that shares what was learnt of servers, and has no client open."""
        copy = replace(self, **changes)
        copy._own.learnt = self.learnt
        return copy

    @property
    def has_client(self) -> bool:
        """Whether a run finds a client, and need not make its own."""
        return self._own.client is not None or not is_address(self.client)

    def with_client(self, client: ChatModel) -> Self:
        """Give a copy for another client."""
        return self._copy(client=client)

    async def opened(self, stack: AsyncExitStack) -> ChatModel:
        """Give the client of a run; one that is opened for it is closed by the stack."""
        if not is_address(self.client):
            return self.client
        if self._own.client is not None:
            return self._own.client
        client = await stack.enter_async_context(AsyncVLLM(self.client))
        self.learnt.give(client)
        return client

    def priced(self) -> dict[str, Price]:
        """Give the prices by model."""
        prices = self.prices or {}
        return {"*": prices} if isinstance(prices, Price) else dict(prices)

    @property
    def offered(self) -> Mapping[str, Offered]:
        """The tools by name, those of toolsets and what reads on in long results among them."""
        return self._own.offered

    @property
    def output_type(self) -> OutputType | None:
        """What the answer is to be; `None` for text."""
        return self._own.output

    @property
    def learnt(self) -> Learnt:
        """What this agent has learnt about its servers."""
        if self._own.learnt is None:
            from vllm_agent_sdk.agent.model.mode import Learnt

            self._own.learnt = Learnt()
        return self._own.learnt
