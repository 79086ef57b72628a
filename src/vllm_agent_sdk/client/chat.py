"""`vllm.chat.completions`: whole replies and streams."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, overload

from typing_extensions import TypeForm

from vllm_agent_sdk._core.dialect.transcript import wire_messages
from vllm_agent_sdk._core.schema.constraints import (
    check_constraints,
    constrains_calls,
    constrains_text,
    reply_check,
)
from vllm_agent_sdk._core.stream.chat import ChatAccumulator
from vllm_agent_sdk._core.stream.reply_text import read_text
from vllm_agent_sdk.client.calls import Calls
from vllm_agent_sdk.client.reading import Known, TextReading
from vllm_agent_sdk.client.requests import (
    LOAD_REPORT,
    PLAIN,
    chat_body,
    offered_tools,
    with_headers,
)
from vllm_agent_sdk.client.streams import ChatChunkStream, ChatStream, Opening
from vllm_agent_sdk.errors import OutputError, UnsupportedByServerError, UsageError
from vllm_agent_sdk.types.chat import (
    ChatCompletion,
    ChatParams,
    WireMessage,
    decode_completion,
)

if TYPE_CHECKING:
    from vllm_agent_sdk._core.schema.output import OutputType
    from vllm_agent_sdk.client.server import Server

__all__ = ["Chat", "ChatCompletions", "ChatRequest"]

T = TypeVar("T")
_FORMS = ("response_format", "structured_outputs")
Check = Callable[[ChatCompletion[Any]], None]
_PATH = "/chat/completions"


@dataclass(slots=True)
class ChatRequest:
    """A request that is checked, and not sent yet.

    Attributes:
        body: What is sent; what only the server decides is added to a copy when it is.
        params: The call's keywords.
        messages: As they were given.
        check: What checks the reply, or raises.
        offered: The tools that a reply may call.
    """

    body: dict[str, Any]
    params: ChatParams
    messages: Iterable[WireMessage]
    check: Check | None
    offered: frozenset[str]

    def of(self, messages: list[WireMessage]) -> ChatRequest:
        """Give the same request for other messages; all else has been checked."""
        body = {**self.body, "messages": wire_messages(messages)}
        return ChatRequest(body, self.params, messages, self.check, self.offered)


class ChatCompletions:
    """Chat completions (`/v1/chat/completions`)."""

    def __init__(self, calls: Calls, server: Callable[[], Server], known: Known) -> None:
        self._calls = calls
        self._reading = TextReading(calls, server, known)

    @overload
    async def create(
        self,
        *,
        messages: Iterable[WireMessage],
        stream: Literal[False] = False,
        response_type: None = None,
        **params: Unpack[ChatParams],
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self,
        *,
        messages: Iterable[WireMessage],
        stream: Literal[False] = False,
        response_type: TypeForm[T],
        **params: Unpack[ChatParams],
    ) -> ChatCompletion[T]: ...

    @overload
    async def create(
        self,
        *,
        messages: Iterable[WireMessage],
        stream: Literal[False] = False,
        response_type: Mapping[str, Any],
        **params: Unpack[ChatParams],
    ) -> ChatCompletion[Any]: ...

    @overload
    async def create(
        self,
        *,
        messages: Iterable[WireMessage],
        stream: Literal[True],
        response_type: None = None,
        **params: Unpack[ChatParams],
    ) -> ChatChunkStream: ...

    async def create(
        self,
        *,
        messages: Iterable[WireMessage],
        stream: bool = False,
        response_type: Any = None,
        **params: Unpack[ChatParams],
    ) -> ChatCompletion[Any] | ChatChunkStream:
        """Get a whole reply; with `stream=True` an async iterator of the wire's chunks.

        The body holds what was asked and nothing else; a keyword given as `None` is sent as null.
        `Timeout.connect` and `.total` apply; `.first_token` and `.idle` don't, because a whole
        reply has no byte to wait for.

        Args:
            messages: Our message classes and wire dicts, mixed as you like.
            stream: Give the wire's chunks, as in the OpenAI SDK.
            response_type: What the reply is to be, `parsed`: a Pydantic model, dataclass,
                `TypedDict`, `msgspec.Struct`, `Literal`, `Enum`, union or builtin, or a JSON
                Schema as a dict. It is sent as `response_format`, and the reply is checked here.
            params: The request's fields (`ChatParams`), and `extra_body`, `extra_headers`,
                `timeout`, `request_id`.

        Raises:
            UsageError: A keyword cannot work; nothing was sent.
            UnsupportedByServerError: `thinking=` asks for what the model or server has not; nothing
                was sent.
            TransportError: The request or the reply was lost on the way.
            ServerError: The server answered with an error.
            OutputValidationError: The reply was cut, or is not of the type; `partial` has it.
            ConstraintIgnoredError: The server did not apply the constraint; `partial` as above.
        """
        if stream:
            if response_type is not None:
                raise UsageError("response_type= gives no chunks: use stream(response_type=…).")
            request = self.request(messages, params, stream=True)
            return await ChatChunkStream(*self._opening(request)).opened()
        request = self.request(messages, params, typed=response_type is not None)
        if response_type is not None:
            _constrain(request, await _output_of(response_type))
        return await self.whole(request)

    @overload
    def stream(
        self,
        *,
        messages: Iterable[WireMessage],
        response_type: None = None,
        **params: Unpack[ChatParams],
    ) -> ChatStream: ...

    @overload
    def stream(
        self,
        *,
        messages: Iterable[WireMessage],
        response_type: TypeForm[T],
        **params: Unpack[ChatParams],
    ) -> ChatStream[T]: ...

    @overload
    def stream(
        self,
        *,
        messages: Iterable[WireMessage],
        response_type: Mapping[str, Any],
        **params: Unpack[ChatParams],
    ) -> ChatStream[Any]: ...

    def stream(
        self,
        *,
        messages: Iterable[WireMessage],
        response_type: Any = None,
        **params: Unpack[ChatParams],
    ) -> ChatStream[Any]:
        """Get a reply as typed events; the usage is asked for unless `stream_options` says not to.

        Nothing is sent before the stream is entered or iterated. Takes what `create` takes. With
        `response_type` the reply is checked at its end, before `Finished`, and `parsed` then; a
        type that cannot be one (`SchemaError`) is told as the stream is entered.

        Raises:
            UsageError: A keyword cannot work; nothing was sent.
        """
        request = self.request(
            messages, params, stream=True, usage=True, typed=response_type is not None
        )
        return self.streamed(request, response_type)

    # ── in steps, for whoever wants to see a request before it is sent ───────────────────────────

    def request(
        self,
        messages: Iterable[WireMessage],
        params: ChatParams,
        *,
        stream: bool = False,
        usage: bool = False,
        typed: bool = False,
    ) -> ChatRequest:
        """Make and check a request; nothing is sent.

        Args:
            messages: As `create` takes them.
            params: The keywords of the call.
            stream: Ask for a stream.
            usage: Ask for its usage, unless `stream_options` says not to.
            typed: The reply is to be of a type, which is told later.

        Raises:
            UsageError: A keyword cannot work.
        """
        messages = _kept(messages)
        defaults: Mapping[str, Any] = self._calls.defaults
        if typed:
            params, defaults = _without_forms(params, defaults)
        body = chat_body(messages, params, defaults, stream=stream)
        if usage and "stream_options" not in body:
            body["stream_options"] = {"include_usage": True}
        if PLAIN.issuperset(body):
            return ChatRequest(body, params, messages, None, frozenset())
        check = None if typed else reply_check(body)
        return ChatRequest(body, params, messages, check, offered_tools(body))

    def as_sent(self, request: ChatRequest) -> dict[str, Any]:
        """Give the body that goes out, without its messages; the server is asked nothing for it.

        What depends on the server (`thinking=`, what an older vLLM calls things) is in it as far as
        its profile is known.
        """
        body = {name: value for name, value in request.body.items() if name != "messages"}
        try:
            self._reading.think(body, request.params)
            return dict(self._calls.suited(_PATH, body))
        except UnsupportedByServerError:
            return body  # the call itself says so, and sends nothing

    async def whole(self, request: ChatRequest) -> ChatCompletion[Any]:
        """Send a request and get its whole reply. Raises what `create` does."""
        body, params = dict(request.body), request.params
        reading = await self._reading.prepare(body, params, request.messages)
        call = await self._calls.chat_call(body, with_headers(params, stream=False))
        whole, reply = await self._calls.read(call, decode_completion)
        self._calls.used(call, reply.usage.total_tokens if reply.usage else None)
        reply.attach(whole.body, call.request_id, request.offered)
        read_text(reply, think_tags=reading.think_tags, text_calls=reading.text_calls)
        if params.get("load_metrics"):
            reply.attach_load(whole.headers.get(LOAD_REPORT))
        if request.check is not None:
            try:
                request.check(reply)
            except OutputError as error:
                error.with_facts(request_id=call.request_id, partial=reply)
                raise
        return reply

    def streamed(self, request: ChatRequest, response_type: Any = None) -> ChatStream[Any]:
        """Give the stream of a request that asks for one; see `stream`."""
        return ChatStream(*self._opening(request, response_type))

    def _opening(
        self, request: ChatRequest, response_type: Any = None
    ) -> tuple[Opening, ChatAccumulator]:
        calls, body, params = self._calls, dict(request.body), request.params
        headed = with_headers(params, stream=True)
        request_id = calls.request_id(params)

        async def open_stream() -> Any:
            if response_type is not None:
                _constrain(request, await _output_of(response_type))
                body.update(request.body)
            reading = await self._reading.prepare(body, params, request.messages)
            folded.read_text(think_tags=reading.think_tags, text_calls=reading.text_calls)
            call = await calls.chat_call(body, {**headed, "request_id": request_id})
            return await calls.open(call)

        def check(reply: ChatCompletion[Any]) -> None:
            if request.check is not None:  # that of a type is made when the stream is opened
                request.check(reply)

        choices, offered = body.get("n") or 1, request.offered
        opening = Opening(
            open_stream,
            choices=choices,
            offered=offered,
            max_event_bytes=calls.config.http.max_response_bytes,
            request_id=request_id,
        )
        folded = ChatAccumulator(
            choices,
            offered,
            check,
            response_type is not None or constrains_text(body),
            constrained_calls=constrains_calls(body),
        )
        return opening, folded


def _without_forms(
    params: ChatParams, defaults: Mapping[str, Any]
) -> tuple[ChatParams, Mapping[str, Any]]:
    """Leave the place of a constraint to a type; refuse a call that gives both."""
    for given in (params, params.get("extra_body") or {}):
        for name in _FORMS:
            if given.get(name) is not None:
                raise UsageError(
                    f"response_type= and {name}= are two constraints; give one of them."
                )
    asked = {name: value for name, value in params.items() if name not in _FORMS}
    left = {name: value for name, value in defaults.items() if name not in _FORMS}
    return cast("ChatParams", asked), left


async def _output_of(response_type: Any) -> OutputType:
    """Make the constraint of a type; what that and its check need is loaded off the loop."""
    if "vllm_agent_sdk._core.schema.output" in sys.modules:
        from vllm_agent_sdk._core.schema.check import is_loaded
        from vllm_agent_sdk._core.schema.output import OutputType

        if is_loaded():
            return OutputType.of(response_type)
    return await asyncio.to_thread(_loaded_output_of, response_type)


def _loaded_output_of(response_type: Any) -> OutputType:
    from vllm_agent_sdk._core.schema.check import load
    from vllm_agent_sdk._core.schema.output import OutputType

    load()
    return OutputType.of(response_type)


def _constrain(request: ChatRequest, output: OutputType) -> None:
    """Ask for a reply of a type, and check it."""
    body = request.body
    body["response_format"] = output.response_format()
    check_constraints(body)

    def check(reply: ChatCompletion[Any]) -> None:
        reply.set_parsed(output.value_of(reply, body))

    request.check = check


def _kept(messages: Iterable[WireMessage]) -> Iterable[WireMessage]:
    """Keep what can be read once: it is read again where the model decides how it is sent."""
    return list(messages) if isinstance(messages, Iterator) else messages


class Chat:
    """The `chat` resource."""

    def __init__(self, calls: Calls, server: Callable[[], Server], known: Known) -> None:
        self.completions = ChatCompletions(calls, server, known)
