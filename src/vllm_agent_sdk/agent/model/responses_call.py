"""An agent's requests over Responses: the whole conversation each time, and nothing kept there.

A request is made and checked as one to chat completions, and written in Responses' own shapes; the
reply is read as a chat's. So the client's defaults count, and a run is the same over both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from vllm_agent_sdk._core.dialect.thinking import merge_fields, thinking_fields
from vllm_agent_sdk._core.stream.chat import ChatAccumulator
from vllm_agent_sdk._core.stream.reply_text import read_text
from vllm_agent_sdk._core.stream.responses_chunks import ChunkWriter, completion_of
from vllm_agent_sdk._core.stream.responses_items import ItemWriter, request_of
from vllm_agent_sdk._core.text_calls.text_calls import TextCalls
from vllm_agent_sdk.client.reading import schemas_of
from vllm_agent_sdk.client.requests import offered_tools
from vllm_agent_sdk.client.responses import ResponseStream
from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.errors import UnsupportedByServerError, VLLMError
from vllm_agent_sdk.types.chat import ChatCompletion
from vllm_agent_sdk.types.events import Finished, StreamEvent
from vllm_agent_sdk.types.profile import ServerProfile
from vllm_agent_sdk.types.responses import Finished as ResponseFinished
from vllm_agent_sdk.types.responses import Response

__all__ = ["ResponsesEndpoint"]

#: What shapes the reading of a reply here, and is not sent.
_LOCAL = frozenset({"messages", "parse_text_calls", "thinking", "extra_body"})
_OWN = frozenset({"extra_headers", "request_id", "timeout"})


class ResponsesEndpoint:
    """Responses of a vLLM server, asked and read as chat completions.

    Args:
        client: The server.
    """

    def __init__(self, client: AsyncVLLM) -> None:
        self._client = client
        self._items = ItemWriter()

    def request(self, params: Mapping[str, Any], *, stream: bool) -> _ResponsesRequest:
        """Make a request of the keywords of `chat.completions`.

        Raises:
            UsageError: It cannot work.
        """
        return _ResponsesRequest(self._client, self._items, params)


class _ResponsesRequest:
    def __init__(self, client: AsyncVLLM, items: ItemWriter, params: Mapping[str, Any]) -> None:
        self._client = client
        given: Any = {name: value for name, value in params.items() if name not in _LOCAL}
        made = client.chat.completions.request(params["messages"], given)
        self._chat = {name: value for name, value in made.body.items() if name != "messages"}
        self._chat.update((name, given[name]) for name in _OWN & given.keys())
        self._thinking = params.get("thinking")
        self._extra = params.get("extra_body")
        self._offered = offered_tools(made.body)
        calls = params.get("parse_text_calls")
        self._text_calls = (
            TextCalls(calls, schemas_of(made.body["tools"]))
            if isinstance(calls, str) and self._offered
            else None
        )
        written: tuple[str | None, list[Any]] = items.wire(made.body["messages"])
        self._instructions, self._input = written
        self._keywords(None)  # what cannot work is told before I/O

    def shown(self) -> dict[str, Any]:
        try:
            keywords = self._keywords(self._client.server.known_profile)
        except UnsupportedByServerError:
            keywords = self._keywords(None)  # the call itself says so, and sends nothing
        extra = keywords.pop("extra_body", None) or {}
        sent = {name: value for name, value in keywords.items() if name not in _OWN}
        return {**sent, **extra, "input": len(self._input)}

    def events(self) -> _Events:
        return _Events(self)

    async def whole(self) -> ChatCompletion[Any]:
        keywords = await self._asked()
        try:
            response = await self._client.responses.create(input=self._input, **keywords)
        except VLLMError as error:
            if isinstance(error.partial, Response):
                error.with_facts(partial=completion_of(error.partial, whole=False))
            raise
        reply = completion_of(response, self.stop_reason)
        reply.attach(response.raw, response.request_id, self._offered)
        read_text(reply, think_tags=self._think_tags(), text_calls=self._text_calls)
        return reply

    async def opened(self) -> ResponseStream:
        """Send a request for a stream."""
        keywords = await self._asked()
        return await self._client.responses.stream(input=self._input, **keywords).opened()

    def accumulator(self) -> ChatAccumulator:
        """Give what folds the chunks of the reply."""
        return ChatAccumulator(
            1, self._offered, think_tags=self._think_tags(), text_calls=self._text_calls
        )

    @property
    def stop_reason(self) -> str | None:
        """`""` where a stop text or token may have ended the reply: a response does not tell."""
        asked = {**self._chat, **(self._extra or {})}
        return "" if asked.get("stop") or asked.get("stop_token_ids") else None

    @property
    def offered(self) -> frozenset[str]:
        """The names of the tools that may be called."""
        return self._offered

    async def _asked(self) -> dict[str, Any]:
        known = self._client.server.known_profile
        if self._thinking is not None:
            known = await self._client.server.profile()
        return self._keywords(known)

    def _keywords(self, known: ServerProfile | None) -> dict[str, Any]:
        chat = dict(self._chat)
        if self._thinking is not None and known is not None:
            merge_fields(chat, thinking_fields(self._thinking, known, chat.get("model")))
        keywords = request_of(chat)
        if self._instructions is not None:
            keywords["instructions"] = self._instructions
        # A server that keeps responses never forgets one, and we send all anew each time.
        keywords["store"] = False
        if self._extra:
            keywords["extra_body"] = self._extra
        return keywords

    def _think_tags(self) -> bool:
        known = self._client.server.known_profile
        return known is not None and known.think_tags.value is True


class _Events:
    """A response as a chat's events."""

    def __init__(self, request: _ResponsesRequest) -> None:
        self._request = request
        self._folded = request.accumulator()
        self._writer = ChunkWriter(request.stop_reason)
        self._ready: deque[StreamEvent] = deque()
        self._stream: ResponseStream | None = None
        self._ended = False

    @property
    def partial(self) -> ChatCompletion[Any]:
        """The reply as far as it has come."""
        reply = self._folded.snapshot()
        request_id = None if self._stream is None else self._stream.request_id
        reply.attach(b"", request_id, self._request.offered)
        return reply

    async def __aenter__(self) -> Self:
        self._stream = await self._request.opened()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        while not self._ready:
            if self._stream is None or self._ended:
                raise StopAsyncIteration
            try:
                event = await anext(self._stream)
                if isinstance(event, ResponseFinished):
                    self._ended = True
                    self._folded.finish()
                    self._ready.append(Finished(self.partial, event.timing))
                elif (chunk := self._writer.push(event)) is not None:
                    self._ready.extend(self._folded.push(chunk))
            except VLLMError as error:
                raise error.with_facts(partial=self.partial) from error.__cause__
        return self._ready.popleft()
