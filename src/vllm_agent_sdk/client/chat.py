"""`vllm.chat.completions`: whole replies and streams."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from vllm_agent_sdk.client.requests import chat_body, offered_tools
from vllm_agent_sdk.client.streams import ChatChunkStream, ChatStream, Opening
from vllm_agent_sdk.errors import ProtocolError
from vllm_agent_sdk.types.chat import (
    ChatCompletion,
    ChatParams,
    WireMessage,
    decode_completion,
)

if TYPE_CHECKING:
    from vllm_agent_sdk.client.vllm import AsyncVLLM

__all__ = ["Chat", "ChatCompletions"]


class ChatCompletions:
    """Chat completions (`/v1/chat/completions`)."""

    def __init__(self, client: AsyncVLLM) -> None:
        self._client = client

    @overload
    async def create(
        self,
        *,
        messages: Iterable[WireMessage],
        stream: Literal[False] = False,
        **params: Unpack[ChatParams],
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self,
        *,
        messages: Iterable[WireMessage],
        stream: Literal[True],
        **params: Unpack[ChatParams],
    ) -> ChatChunkStream: ...

    async def create(
        self,
        *,
        messages: Iterable[WireMessage],
        stream: bool = False,
        **params: Unpack[ChatParams],
    ) -> ChatCompletion | ChatChunkStream:
        """Get a whole reply; with `stream=True` an async iterator of the wire's chunks.

        The body holds what was asked and nothing else; a keyword given as `None` is sent as null.
        `Timeout.connect` and `.total` apply; `.first_token` and `.idle` don't, because a whole
        reply has no byte to wait for.

        Args:
            messages: Our message classes and wire dicts, mixed as you like.
            stream: Give the wire's chunks, as in the OpenAI SDK.
            params: The request's fields (`ChatParams`), and `extra_body`, `extra_headers`,
                `timeout`, `request_id`.

        Raises:
            UsageError: A keyword cannot work; nothing was sent.
            TransportError: The request or the reply was lost on the way.
            ServerError: The server answered with an error.
        """
        if stream:
            return await ChatChunkStream(self._opening(messages, params)).opened()
        body = chat_body(messages, params, self._client.defaults, stream=False)
        offered = offered_tools(body)
        call = await self._client.chat_call(body, params)
        whole = await self._client.fetch(call)
        try:
            reply = decode_completion(whole.body)
        except ProtocolError as error:
            raise error.with_facts(request_id=call.request_id) from error.__cause__
        self._client.used(call, reply.usage.total_tokens if reply.usage else None)
        reply.attach(whole.body, call.request_id, offered)
        return reply

    def stream(
        self, *, messages: Iterable[WireMessage], **params: Unpack[ChatParams]
    ) -> ChatStream:
        """Get a reply as typed events; the usage is asked for unless `stream_options` says not to.

        Nothing is sent before the stream is entered or iterated. Takes what `create` takes.

        Raises:
            UsageError: A keyword cannot work; nothing was sent.
        """
        return ChatStream(self._opening(messages, params, {"include_usage": True}))

    def _opening(
        self,
        messages: Iterable[WireMessage],
        params: ChatParams,
        options: dict[str, Any] | None = None,
    ) -> Opening:
        client = self._client
        body = chat_body(messages, params, client.defaults, stream=True)
        if options is not None and "stream_options" not in body:
            body["stream_options"] = options
        request_id = client.request_id(params)

        async def open_stream() -> Any:
            call = await client.chat_call(body, {**params, "request_id": request_id})
            return await client.open(call)

        beams = body.get("use_beam_search")
        return Opening(
            open_stream,
            choices=1 if beams else (body.get("n") or 1),
            offered=offered_tools(body),
            max_event_bytes=client.http_options.max_response_bytes,
            request_id=request_id,
        )


class Chat:
    """The `chat` resource."""

    def __init__(self, client: AsyncVLLM) -> None:
        self.completions = ChatCompletions(client)
