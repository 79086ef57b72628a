"""`vllm.responses`: whole responses, streams of the wire's events, and what the server keeps."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, Self, TypeVar, Unpack, overload
from urllib.parse import quote

from vllm_agent_sdk._core.schema.constraints import constrains_calls
from vllm_agent_sdk._core.stream.responses import ResponseAccumulator
from vllm_agent_sdk.client.calls import Calls
from vllm_agent_sdk.client.responses_body import (
    offered_names,
    response_body,
    response_check,
    response_constrains,
)
from vllm_agent_sdk.client.streams import Opening, WireStream
from vllm_agent_sdk.errors import (
    BadRequestError,
    NotFoundError,
    OutputError,
    ServerError,
    UnsupportedByServerError,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.transport.pipeline import Call, OpenStream
from vllm_agent_sdk.types.options import Timeout
from vllm_agent_sdk.types.responses import Finished, Response, ResponseParams, decode_response
from vllm_agent_sdk.types.responses_events import (
    ResponseCodeInterpreterCallCodeDeltaEvent,
    ResponseCustomToolCallInputDeltaEvent,
    ResponseEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseMcpCallArgumentsDeltaEvent,
    ResponseOutputItemAddedEvent,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseReasoningTextDeltaEvent,
    ResponseRefusalDeltaEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
    decode_event,
)
from vllm_agent_sdk.types.responses_items import InputItem
from vllm_agent_sdk.types.timing import Timing

__all__ = ["ResponseStream", "ResponseTextDeltas", "Responses"]

T = TypeVar("T")

#: What turns the server's store on; it is no flag but a variable of its environment.
STORE_VARIABLE = "VLLM_ENABLE_RESPONSES_API_STORE=1"
_CONTENT = (
    ResponseTextDeltaEvent,
    ResponseReasoningTextDeltaEvent,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseRefusalDeltaEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseCustomToolCallInputDeltaEvent,
    ResponseMcpCallArgumentsDeltaEvent,
    ResponseCodeInterpreterCallCodeDeltaEvent,
    ResponseOutputItemAddedEvent,
)


class ResponseStream(WireStream[ResponseStreamEvent, Response]):
    """The wire's events of one response, in order, `Finished` last.

    Use it as `async with … as stream: async for event in stream`. Nothing is sent before it is
    entered or iterated.
    """

    _ends_complete = True

    def __init__(self, opening: Opening, folded: ResponseAccumulator | None = None) -> None:
        folded = folded or ResponseAccumulator()

        def read(data: bytes) -> list[ResponseEvent]:
            event = decode_event(data)
            folded.push(event)
            return [event]

        super().__init__(opening, folded, read)
        self._first_token: float | None = None

    @property
    def response(self) -> Response:
        """The whole response, after `Finished`. Before that: `partial`."""
        if self._completion is None:
            raise UsageError("The stream has not ended yet; `partial` is what has come so far.")
        return self._completion

    def text_deltas(self) -> ResponseTextDeltas:
        """Give the text, piece by piece, as an async iterator."""
        return ResponseTextDeltas(self)

    async def text(self) -> str:
        """Drain the stream and give the text."""
        return (await self.final()).text

    async def final(self) -> Response:
        """Drain the stream and give the response. Raises as the stream would."""
        try:
            async for _ in self:
                pass
        finally:
            await self.aclose()
        return self.response

    def _push(self, data: bytes) -> None:
        super()._push(data)
        if self._first_token is None and isinstance(self._ready[-1], _CONTENT):
            self._first_token = asyncio.get_running_loop().time()

    def _finished(self, completion: Response) -> None:
        now = asyncio.get_running_loop().time()
        begun = self._stream.begun if self._stream is not None else now
        first = self._first_token
        tokens = completion.usage.output_tokens if completion.usage else 0
        per_s = None
        if first is not None and tokens > 1 and now > first:
            per_s = (tokens - 1) / (now - first)
        first_s = None if first is None else first - begun
        timing = Timing(first_s, now - begun, per_s, self._accumulator.chunks)
        self._ready.append(Finished(completion, timing))


class ResponseTextDeltas:
    """The text of a stream, piece by piece (`async for`)."""

    def __init__(self, events: ResponseStream) -> None:
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            event = await anext(self._events)
            if isinstance(event, ResponseTextDeltaEvent) and event.delta:
                return event.delta


class Responses:
    """Responses (`/v1/responses`).

    What the server keeps (`store`, `previous_response_id`, `background`, `retrieve`, `cancel`) it
    keeps only when it was started with `VLLM_ENABLE_RESPONSES_API_STORE=1`: in the memory of one
    process, until that ends. Sending the whole conversation as `input` works everywhere.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(
        self, *, input: str | Iterable[InputItem], **params: Unpack[ResponseParams]
    ) -> Response:
        """Get a whole response; with `background=True` its beginning, to be fetched later.

        The body holds what was asked and the request's id, which becomes the response's. A keyword
        given as `None` is sent as null. `Timeout.connect` and `.total` apply.

        Args:
            input: Text; or our message classes, items of a response's `output` and wire dicts,
                mixed as you like.
            params: The request's fields (`ResponseParams`), and `extra_body`, `extra_headers`,
                `timeout`, `request_id`.

        Raises:
            UsageError: A keyword cannot work; nothing was sent.
            UnsupportedByServerError: The server keeps no responses, and was asked for one.
            TransportError: The request or the response was lost on the way.
            ServerError: The server answered with an error.
            ConstraintIgnoredError: The text is none of the `choice`, or does not match the `regex`;
                `partial` has it.
        """
        body = response_body(input, params, stream=False)
        offered = offered_names(body)
        request_id = self._request_id(params)

        async def fetch() -> Response:
            call = await self._call(body, params, request_id)
            return await self._whole(call, offered, response_check(body))

        return await self._explained(fetch(), body)

    def stream(
        self, *, input: str | Iterable[InputItem], **params: Unpack[ResponseParams]
    ) -> ResponseStream:
        """Get a response as the wire's events, `Finished` last. Takes what `create` takes.

        Nothing is sent before the stream is entered or iterated. With `background=True` the server
        goes on when the stream is closed, and `retrieve(id, stream=True)` takes it up again.

        Raises:
            UsageError: A keyword cannot work; nothing was sent.
        """
        body = response_body(input, params, stream=True)
        request_id = self._request_id(params)

        async def open_stream() -> OpenStream:
            return await self._calls.open(await self._call(body, params, request_id))

        folded = ResponseAccumulator(
            response_check(body), response_constrains(body), constrains_calls(body)
        )
        return self._stream(
            lambda: self._explained(open_stream(), body), offered_names(body), request_id, folded
        )

    @overload
    async def retrieve(
        self,
        id: str,
        *,
        stream: Literal[False] = False,
        starting_after: None = None,
        timeout: Timeout | float | None = None,
    ) -> Response: ...

    @overload
    async def retrieve(
        self,
        id: str,
        *,
        stream: Literal[True],
        starting_after: int | None = None,
        timeout: Timeout | float | None = None,
    ) -> ResponseStream: ...

    async def retrieve(
        self,
        id: str,
        *,
        stream: bool = False,
        starting_after: int | None = None,
        timeout: Timeout | float | None = None,
    ) -> Response | ResponseStream:
        """Get a response that the server keeps.

        Args:
            id: The response's id.
            stream: Get the events of one that was made with `background=True` and as a stream,
                those still to come included.
            starting_after: The `sequence_number` of the last event that is not wanted again.
            timeout: The clocks, or seconds in all. A stream of a job that failed on the server
                gives nothing any more: `Timeout.idle` ends it.

        Raises:
            NotFoundError: The server keeps no response of this id.
            UnsupportedByServerError: It keeps none at all.
        """
        path = _path(id)
        if starting_after is not None and not stream:
            raise UsageError("starting_after= goes with stream=True.")
        params = {"timeout": timeout}
        if not stream:
            call = self._calls.call(path, None, params)
            return await self._explained(self._whole(call, None), {})
        path += "?stream=true"
        if starting_after is not None:
            path += f"&starting_after={int(starting_after)}"
        call = self._calls.call(path, None, params)
        replay = self._stream(
            lambda: self._explained(self._calls.open(call), {}), None, call.request_id
        )
        return await replay.opened()

    async def cancel(self, id: str, *, timeout: Timeout | float | None = None) -> Response:
        """End a response that is being made in the background.

        Raises:
            BadRequestError: It is not being made any more, or never was in the background.
            NotFoundError: The server keeps no response of this id.
            UnsupportedByServerError: It keeps none at all.
        """
        call = self._calls.call(_path(id) + "/cancel", {}, {"timeout": timeout}, stores=True)
        return await self._explained(self._whole(call, None), {})

    # ── what these are made of ───────────────────────────────────────────────────────────────────

    def _request_id(self, params: Mapping[str, Any]) -> str | None:
        # Servers before 0.12 find only ids that begin like OpenAI's.
        return self._calls.request_id(params, prefix="resp_")

    async def _call(
        self, body: dict[str, Any], params: Mapping[str, Any], request_id: str | None
    ) -> Call:
        if body.get("model") is None:
            body["model"] = await self._calls.resolve_model(None)
        if request_id is not None:
            body.setdefault("request_id", request_id)
        # With a plain call that the server keeps by default, a second attempt has the same id: it
        # takes the first one's place.
        stores = bool(body.get("background")) or body.get("store") is True
        named = {**params, "request_id": request_id}
        return self._calls.call("/responses", body, named, stores=stores)

    async def _whole(
        self,
        call: Call,
        offered: frozenset[str] | None,
        check: Callable[[Response], None] | None = None,
    ) -> Response:
        whole, response = await self._calls.read(call, decode_response)
        self._calls.used(call, response.usage.total_tokens if response.usage else None)
        response.attach(whole.body, call.request_id, offered)
        if check is not None:
            try:
                check(response)
            except OutputError as error:
                error.with_facts(request_id=call.request_id, partial=response)
                raise
        return response

    def _stream(
        self,
        open: Callable[[], Awaitable[OpenStream]],
        offered: frozenset[str] | None,
        request_id: str | None,
        folded: ResponseAccumulator | None = None,
    ) -> ResponseStream:
        opening = Opening(
            open,
            choices=1,
            offered=offered,
            max_event_bytes=self._calls.config.http.max_response_bytes,
            request_id=request_id,
        )
        return ResponseStream(opening, folded)

    async def _explained(self, work: Awaitable[T], body: Mapping[str, Any]) -> T:
        """Do it, and say so where it fails because the server keeps nothing."""
        try:
            return await work
        except (BadRequestError, NotFoundError) as error:
            if not await self._keeps_nothing(error, body):
                raise
            raise _no_store(error) from error

    async def _keeps_nothing(self, error: ServerError, body: Mapping[str, Any]) -> bool:
        """Tell whether an error comes of a server without a store.

        For an unknown id the answer of both kinds of server is the same. A background response
        that continues an id which cannot exist is refused by both too, for different reasons, and
        nothing is generated.
        """
        if STORE_VARIABLE in str(error):
            return True
        if error.param != "response_id" or error.status != 404:
            return False
        probe = {
            "model": body.get("model") or await self._calls.resolve_model(None),
            "input": "",
            "background": True,
            "previous_response_id": f"resp_{secrets.token_hex(16)}",
        }
        try:
            await self._calls.fetch(self._calls.call("/responses", probe, {}))
        except VLLMError as said:
            return STORE_VARIABLE in str(said)
        return False


def _path(id: str) -> str:
    if not id:
        raise UsageError("The response's id is empty.")
    return f"/responses/{quote(id, safe='')}"


def _no_store(error: ServerError) -> UnsupportedByServerError:
    unsupported = UnsupportedByServerError(
        "The server keeps no responses, which previous_response_id=, background=, retrieve() and "
        f"cancel() need. Start it with {STORE_VARIABLE} in its environment, or send the whole "
        "conversation as input=.",
        feature="responses store",
        flags=(STORE_VARIABLE,),
        status=error.status,
        code=error.code,
        type=error.type,
        param=error.param,
        body=error.body,
    )
    return unsupported.with_facts(request_id=error.request_id)
