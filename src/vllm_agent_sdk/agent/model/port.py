"""The model behind an agent, and how one request to it is made, shown and sent.

`AsyncVLLM` is asked in steps, so that a request can be checked and shown before it goes out; other
models are asked as `ChatModel` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from vllm_agent_sdk.agent.model.client import check_client
from vllm_agent_sdk.agent.model.turns import Written
from vllm_agent_sdk.agent.run.guarded import not_ours
from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.errors import ProtocolError, VLLMError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.chat import ChatCompletion
from vllm_agent_sdk.types.events import Finished, StreamEvent
from vllm_agent_sdk.types.protocols import ChatEvents, ChatModel

if TYPE_CHECKING:
    from vllm_agent_sdk.client.chat import ChatCompletions, ChatRequest

__all__ = ["Endpoint", "Request", "endpoint_of"]


class Request(Protocol):
    """A request that is made and checked, and not sent."""

    def shown(self) -> dict[str, Any]:
        """Give what goes out, with the number of its messages in their place."""
        ...

    def events(self) -> ChatEvents:
        """Give the reply to a request for a stream; it is sent when that is entered."""
        ...

    async def whole(self) -> ChatCompletion[Any]:
        """Send a request for a whole reply, and get it."""
        ...


class Endpoint(Protocol):
    """What takes an agent's requests."""

    def request(self, params: Mapping[str, Any], *, stream: bool) -> Request:
        """Make a request of the keywords of `chat.completions`.

        Raises:
            UsageError: It cannot work.
        """
        ...


def endpoint_of(client: ChatModel, api: str) -> Endpoint:
    """Give what takes the requests of an agent with this client."""
    check_client(client, api)  # a subagent's may be its caller's
    if not isinstance(client, AsyncVLLM):
        return _AnyModel(client)
    if api == "responses":
        from vllm_agent_sdk.agent.model.responses_call import ResponsesEndpoint

        return ResponsesEndpoint(client)
    return _Chat(client)


# ── vLLM ─────────────────────────────────────────────────────────────────────────────────────────


class _Chat:
    """Chat completions of a vLLM server.

    From turn to turn the messages are others, and mostly nothing else: that is checked once.
    """

    def __init__(self, client: AsyncVLLM) -> None:
        self._completions = client.chat.completions
        self._last: tuple[dict[str, Any], bool, ChatRequest] | None = None

    def request(self, params: Mapping[str, Any], *, stream: bool) -> _ChatRequest:
        given: Any = {name: value for name, value in params.items() if name != "messages"}
        messages: Any = params["messages"]
        count = len(messages)
        if count and isinstance(messages, Written):
            messages = [messages.joined]  # written as they are, whatever their number
        last = self._last
        if last is not None and count and last[0] == given and last[1] is stream:
            made = last[2].of(messages)
        else:
            made = self._completions.request(messages, given, stream=stream, usage=stream)
            self._last = (given, stream, made.of([]))  # without what was said
        return _ChatRequest(self._completions, made, count)


class _ChatRequest:
    def __init__(self, completions: ChatCompletions, made: ChatRequest, count: int) -> None:
        self._completions = completions
        self._made = made
        self._count = count

    def shown(self) -> dict[str, Any]:
        sent = self._completions.as_sent(self._made)
        return {**sent, "messages": self._count}

    def events(self) -> ChatEvents:
        events: ChatEvents = self._completions.streamed(self._made)
        return events

    async def whole(self) -> ChatCompletion[Any]:
        reply: ChatCompletion[Any] = await self._completions.whole(self._made)
        return reply


# ── what stands in for it ────────────────────────────────────────────────────────────────────────


class _AnyModel:
    """Any other model."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    def request(self, params: Mapping[str, Any], *, stream: bool) -> _AnyRequest:
        return _AnyRequest(self._model, params)


class _AnyRequest:
    def __init__(self, model: ChatModel, params: Mapping[str, Any]) -> None:
        self._model = model
        # What is encoded once for our own client is plain for everybody else.
        messages = [
            _codec.decode(bytes(each)) if isinstance(each, _codec.Raw) else each
            for each in params["messages"]
        ]
        self._params = {**params, "messages": messages}

    def shown(self) -> dict[str, Any]:
        return {**self._params, "messages": len(self._params["messages"])}

    def events(self) -> ChatEvents:
        with _theirs(self._model):
            return _AnyEvents(self._model, self._model.chat.completions.stream(**self._params))

    async def whole(self) -> ChatCompletion[Any]:
        with _theirs(self._model):
            reply: object = await self._model.chat.completions.create(**self._params)
        if not isinstance(reply, ChatCompletion):
            raise ProtocolError(
                f"{type(self._model).__name__}: chat.completions.create() gives a ChatCompletion, "
                f"and gave a {type(reply).__name__}."
            )
        return reply


class _AnyEvents:
    """The events of a stand-in, which end as `ChatEvents` says, or raise."""

    def __init__(self, model: ChatModel, events: ChatEvents) -> None:
        self._model = model
        self._events = events
        self._finished = False

    @property
    def partial(self) -> ChatCompletion[Any]:
        return self._events.partial

    async def __aenter__(self) -> Self:
        with _theirs(self._model):
            self._events = await self._events.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _theirs(self._model):
            await self._events.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        try:
            with _theirs(self._model):
                event = await anext(self._events)
        except StopAsyncIteration:
            if self._finished:
                raise
            raise ProtocolError(
                f"{type(self._model).__name__}: the events of a reply ended without Finished."
            ) from None
        self._finished = isinstance(event, Finished)
        return event


@contextmanager
def _theirs(model: object) -> Iterator[None]:
    """Let a stand-in fail like a server, whatever it raises: a run ends by it, and says so."""
    try:
        with not_ours():
            yield
    except (VLLMError, StopAsyncIteration):
        raise
    except Exception as error:
        name = type(model).__name__
        raise ProtocolError(f"{name} raised {type(error).__name__}: {error}") from error
