"""The model behind an agent, and how one request to it is made, shown and sent.

`AsyncVLLM` is asked in steps, so that a request can be checked and shown before it goes out; other
models are asked as `ChatModel` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from typing_extensions import TypeIs

from vllm_agent_sdk.agent.model.turns import Written
from vllm_agent_sdk.agent.run.guarded import not_ours
from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.errors import ProtocolError, UsageError, VLLMError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.chat import ChatCompletion
from vllm_agent_sdk.types.events import Finished, StreamEvent
from vllm_agent_sdk.types.profile import ServerProfile
from vllm_agent_sdk.types.protocols import ChatEvents, ChatModel

__all__ = [
    "Endpoint",
    "Request",
    "address_of",
    "check_client",
    "endpoint_of",
    "is_address",
    "stated_profile",
]

_APIS = ("chat", "responses")
_NEEDED = ("chat.completions.create", "chat.completions.stream", "resolve_model")


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


def is_address(client: object) -> TypeIs[str | Sequence[str] | None]:
    """True for what a client is to be made of: an address, several, or none."""
    return client is None or isinstance(client, (str, list, tuple))


def check_client(client: object, api: str) -> None:
    """Refuse a `client=` that no agent can use.

    Raises:
        UsageError: Says what it lacks, and what to give.
    """
    if api not in _APIS:
        raise UsageError(f"api={api!r}: give 'chat' or 'responses'.")
    if isinstance(client, AsyncVLLM):
        return
    if is_address(client):
        if client is not None and not (client and all(isinstance(url, str) for url in client)):
            raise UsageError("client= as a list holds the addresses of servers, one at least.")
        return
    kind = type(client).__name__
    lacking = [name for name in _NEEDED if not callable(_at(client, name))]
    if lacking:
        raise UsageError(
            f"client= takes an AsyncVLLM, a server's address or several, or what fulfils "
            f"ChatModel; {kind} has no {lacking[0]}()."
        )
    if api == "responses":
        raise UsageError(
            f"api='responses' needs an AsyncVLLM or a server's address; {kind} has chat only."
        )
    stated_profile(client)


def endpoint_of(client: ChatModel, api: str) -> Endpoint:
    """Give what takes the requests of an agent with this client."""
    check_client(client, api)  # a subagent's may be its caller's
    if not isinstance(client, AsyncVLLM):
        return _AnyModel(client)
    if api == "responses":
        from vllm_agent_sdk.agent.model.responses_call import ResponsesEndpoint

        return ResponsesEndpoint(client)
    return _Chat(client)


def address_of(client: ChatModel) -> tuple[str, str | None]:
    """Give under what an agent keeps what it learns: a server's address and model.

    All that is learnt of a stand-in is kept together: an agent has only one.
    """
    if isinstance(client, AsyncVLLM):
        return client.base_url, client.model
    return "", None


def stated_profile(client: object) -> ServerProfile | None:
    """Give what a stand-in says of itself.

    Raises:
        UsageError: It is no profile.
    """
    profile = getattr(client, "profile", None)
    if profile is not None and not isinstance(profile, ServerProfile):
        raise UsageError(
            f"The profile of {type(client).__name__} is a {type(profile).__name__}; as client= of "
            "an agent it has a ServerProfile there, or none."
        )
    return profile


def _at(client: object, path: str) -> object:
    found: object = client
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


# ── vLLM ─────────────────────────────────────────────────────────────────────────────────────────


class _Chat:
    """Chat completions of a vLLM server."""

    def __init__(self, client: AsyncVLLM) -> None:
        self._completions = client.chat.completions

    def request(self, params: Mapping[str, Any], *, stream: bool) -> _ChatRequest:
        return _ChatRequest(self._completions, params, stream)


class _ChatRequest:
    def __init__(self, completions: Any, params: Mapping[str, Any], stream: bool) -> None:
        given = {name: value for name, value in params.items() if name != "messages"}
        messages: Any = params["messages"]
        self._count = len(messages)
        if messages and isinstance(messages, Written):
            messages = [messages.joined]  # written as they are, whatever their number
        self._completions = completions
        self._made = completions.request(messages, given, stream=stream, usage=stream)

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
