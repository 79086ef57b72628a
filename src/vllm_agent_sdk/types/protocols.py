"""The seams that others may fill: tools, and the model behind an agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from typing_extensions import TypeVar

from vllm_agent_sdk.types.tools import RunContext, ToolOutput, ToolSpec

if TYPE_CHECKING:
    from vllm_agent_sdk.types.chat import ChatCompletion
    from vllm_agent_sdk.types.events import StreamEvent

__all__ = ["ChatCompletionsPort", "ChatEvents", "ChatModel", "ChatPort", "Tool"]

Deps = TypeVar("Deps", default=None)


@runtime_checkable
class Tool(Protocol[Deps]):
    """Something the model can call."""

    @property
    def spec(self) -> ToolSpec:
        """What the model and the runtime know of it."""
        ...

    async def invoke(self, arguments: dict[str, Any], ctx: RunContext[Deps]) -> ToolOutput:
        """Validate the arguments and run.

        Args:
            arguments: The parsed object, as the model wrote it.
            ctx: Where the call comes from.

        Returns:
            What the model is told. Invalid arguments are an output too (`executed=False`,
            `is_error=True`), and so is an exception of the tool's own code.
        """
        ...


class ChatEvents(Protocol):
    """A reply as events, of which `Finished` is the last and comes exactly once.

    It is an async context manager; leaving it early ends the request. A reply that is cut or
    fails raises a `VLLMError`, and never ends without `Finished`.
    """

    @property
    def partial(self) -> ChatCompletion[Any]:
        """The reply as far as it has come, at any time."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> StreamEvent: ...


class ChatCompletionsPort(Protocol):
    """Asks for replies. What goes wrong is a `VLLMError`; a cut reply is never a whole one.

    The keywords are those of `AsyncVLLM.chat.completions`: the fields of a chat request under the
    wire's names, `extra_body` (fields to add), `parse_text_calls` (read calls that the server left
    in the text; to be ignored where there are none) and `thinking`.
    """

    @property
    def create(self) -> Callable[..., Awaitable[ChatCompletion[Any]]]:
        """Gives a whole reply, awaited; `messages=` are dicts in chat's wire shape."""
        ...

    @property
    def stream(self) -> Callable[..., ChatEvents]:
        """Gives a reply as events; takes what `create` takes.

        Nothing is sent before it is entered. An agent with `streaming=False` does not call it.
        """
        ...


class ChatPort(Protocol):
    """The `chat` of a `ChatModel`."""

    @property
    def completions(self) -> ChatCompletionsPort:
        """What asks for replies."""
        ...


class ChatModel(Protocol):
    """The model behind an agent: `AsyncVLLM`, or whatever stands in for it.

    A stand-in may have a `profile` (`ServerProfile`): what it says of tools and templates decides
    the turn mode. Without one nothing is known of the model, and calls are its own ("native").
    """

    @property
    def chat(self) -> ChatPort:
        """Where replies come from: `chat.completions.create` and `.stream`."""
        ...

    async def resolve_model(self, model: str | None = None) -> str:
        """Give the name of the model that is asked: `model`, or the one there is.

        Raises:
            UsageError: It must be named.
        """
        ...
