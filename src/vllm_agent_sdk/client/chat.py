"""`vllm.chat.completions`: whole replies and streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, overload

from typing_extensions import TypeForm

from vllm_agent_sdk._core.chat_stream import ChatAccumulator
from vllm_agent_sdk._core.constraints import constrains_calls, constrains_text, reply_check
from vllm_agent_sdk._core.reply_text import read_text
from vllm_agent_sdk.client.calls import Calls
from vllm_agent_sdk.client.reading import Known, TextReading
from vllm_agent_sdk.client.requests import LOAD_REPORT, chat_body, offered_tools, with_headers
from vllm_agent_sdk.client.streams import ChatChunkStream, ChatStream, Opening
from vllm_agent_sdk.errors import OutputError, UsageError
from vllm_agent_sdk.types.chat import (
    ChatCompletion,
    ChatParams,
    WireMessage,
    decode_completion,
)

if TYPE_CHECKING:
    from vllm_agent_sdk.client.server import Server

__all__ = ["Chat", "ChatCompletions"]

T = TypeVar("T")
_FORMS = ("response_format", "structured_outputs")
Check = Callable[[ChatCompletion[Any]], None]


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
            return await ChatChunkStream(*self._opening(messages, params)).opened()
        messages = _kept(messages)
        body, check = self._request(messages, params, response_type, stream=False)
        offered = offered_tools(body)
        reading = await self._reading.prepare(body, params, messages)
        call = await self._calls.chat_call(body, with_headers(params, stream=False))
        whole, reply = await self._calls.read(call, decode_completion)
        self._calls.used(call, reply.usage.total_tokens if reply.usage else None)
        reply.attach(whole.body, call.request_id, offered)
        read_text(reply, think_tags=reading.think_tags, text_calls=reading.text_calls)
        if params.get("load_metrics"):
            reply.attach_load(whole.headers.get(LOAD_REPORT))
        if check is not None:
            try:
                check(reply)
            except OutputError as error:
                error.with_facts(request_id=call.request_id, partial=reply)
                raise
        return reply

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
        `response_type` the reply is checked at its end, before `Finished`, and `parsed` then.

        Raises:
            UsageError: A keyword cannot work; nothing was sent.
        """
        usage = {"include_usage": True}
        return ChatStream(*self._opening(messages, params, usage, response_type))

    def _request(
        self,
        messages: Iterable[WireMessage],
        params: ChatParams,
        response_type: Any,
        *,
        stream: bool,
    ) -> tuple[dict[str, Any], Check | None]:
        """Give the body of a call, and what checks the reply to it."""
        defaults: Mapping[str, Any] = self._calls.defaults
        if response_type is None:
            body = chat_body(messages, params, defaults, stream=stream)
            return body, reply_check(body)
        from vllm_agent_sdk._core.output import OutputType

        for given in (params, params.get("extra_body") or {}):
            for name in _FORMS:
                if given.get(name) is not None:
                    raise UsageError(
                        f"response_type= and {name}= are two constraints; give one of them."
                    )
        output = OutputType.of(response_type)
        asked = {name: value for name, value in params.items() if name not in _FORMS}
        asked["response_format"] = output.response_format()
        left = {name: value for name, value in defaults.items() if name not in _FORMS}
        body = chat_body(messages, cast("ChatParams", asked), left, stream=stream)

        def check(reply: ChatCompletion[Any]) -> None:
            reply.set_parsed(output.value_of(reply, body))

        return body, check

    def _opening(
        self,
        messages: Iterable[WireMessage],
        params: ChatParams,
        options: dict[str, Any] | None = None,
        response_type: Any = None,
    ) -> tuple[Opening, ChatAccumulator]:
        calls = self._calls
        messages = _kept(messages)
        body, check = self._request(messages, params, response_type, stream=True)
        if options is not None and "stream_options" not in body:
            body["stream_options"] = options
        headed = with_headers(params, stream=True)
        request_id = calls.request_id(params)

        async def open_stream() -> Any:
            reading = await self._reading.prepare(body, params, messages)
            folded.read_text(think_tags=reading.think_tags, text_calls=reading.text_calls)
            call = await calls.chat_call(body, {**headed, "request_id": request_id})
            return await calls.open(call)

        choices, offered = body.get("n") or 1, offered_tools(body)
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
            constrains_text(body),
            constrained_calls=constrains_calls(body),
        )
        return opening, folded


def _kept(messages: Iterable[WireMessage]) -> Iterable[WireMessage]:
    """Keep what can be read once: it is read again where the model decides how it is sent."""
    return list(messages) if isinstance(messages, Iterator) else messages


class Chat:
    """The `chat` resource."""

    def __init__(self, calls: Calls, server: Callable[[], Server], known: Known) -> None:
        self.completions = ChatCompletions(calls, server, known)
