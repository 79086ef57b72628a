"""Streams of a completion: typed events, or the wire's chunks.

A stream ends in exactly one `Finished`, or raises with the partial reply attached. It is a class,
not a generator: nothing is held across a `yield`, and dropping it closes its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from vllm_agent_sdk._core.stream.chat import ChatAccumulator
from vllm_agent_sdk._core.stream.partial_json import partial_json
from vllm_agent_sdk._core.stream.sse import SSEDecoder
from vllm_agent_sdk.client.text_deltas import TextDeltas
from vllm_agent_sdk.errors import (
    ProtocolError,
    StreamTruncatedError,
    TransportError,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.transport.pipeline import OpenStream
from vllm_agent_sdk.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    CompletionUsage,
    T,
    decode_chunk,
)
from vllm_agent_sdk.types.events import (
    ChoiceFinished,
    Delta,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from vllm_agent_sdk.types.timing import Timing

__all__ = ["ChatChunkStream", "ChatStream", "EventStream", "Opening", "TextDeltas", "WireStream"]

Item = TypeVar("Item")
Reply = TypeVar("Reply", bound="_Reply")
Reply_co = TypeVar("Reply_co", bound="_Reply", covariant=True)
Event = TypeVar("Event")
Completed = TypeVar("Completed", bound="_Completion")
_DONE = b"[DONE]"
_CONTENT = (TextDelta, ReasoningDelta, ToolCallDelta)
#: Seconds that the end of a finished body is waited for, so that its connection can be used again.
_LINGER_S = 0.05


class Opening:
    """What is needed to open a stream and to read it."""

    __slots__ = ("choices", "max_event_bytes", "offered", "open", "request_id")

    def __init__(
        self,
        open: Callable[[], Awaitable[OpenStream]],
        *,
        choices: int,
        offered: frozenset[str] | None,
        max_event_bytes: int | None,
        request_id: str | None,
    ) -> None:
        self.open = open
        self.choices = choices
        self.offered = offered
        self.max_event_bytes = max_event_bytes
        self.request_id = request_id


class _Reply(Protocol):
    """What all streams need of an accumulated reply."""

    def attach(
        self, raw: bytes, request_id: str | None, offered: frozenset[str] | None, /
    ) -> None: ...


class _Completion(_Reply, Protocol):
    """What streams of events need beside that."""

    usage: CompletionUsage | None

    @property
    def text(self) -> str: ...


class _Accumulator(Protocol[Reply_co]):
    """What streams need of the object that folds their chunks."""

    chunks: int

    @property
    def complete(self) -> bool: ...

    def snapshot(self) -> Reply_co: ...

    def finish(self) -> Reply_co: ...


class WireStream(Generic[Item, Reply]):
    """What all kinds of stream share: opening, reading, ending once.

    Args:
        opening: How the stream is opened.
        accumulator: What folds its chunks.
        items_of: Gives the items that an event's data makes, and feeds the accumulator.
    """

    #: The event that completes a reply is its last; there is no `[DONE]` to wait for.
    _ends_complete = False

    def __init__(
        self,
        opening: Opening,
        accumulator: _Accumulator[Reply],
        items_of: Callable[[bytes], Sequence[Item]],
    ) -> None:
        self._opening = opening
        self._decoder = SSEDecoder(opening.max_event_bytes)
        self._accumulator = accumulator
        self._items_of = items_of
        self._ready: deque[Item] = deque()
        self._stream: OpenStream | None = None
        self._failure: BaseException | None = None
        self._completion: Reply | None = None
        self._closed = False
        self._reading = False

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` that is sent with the request."""
        return self._opening.request_id

    @property
    def partial(self) -> Reply:
        """The reply as far as it has come, at any time."""
        return self._completion or self._with_id(self._accumulator.snapshot())

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        ready = self._ready
        while not ready:
            if self._failure is not None:
                await self._release()
                raise self._failure
            if self._completion is not None or self._closed:
                await self._release()
                raise StopAsyncIteration
            if self._reading:
                raise UsageError("Two tasks read one stream at the same time; let one read it.")
            self._reading = True
            try:
                stream = self._stream or await self._opened()
                try:
                    self._take(stream, await stream.receive())
                except VLLMError as error:
                    self._fail(error)
                    await self._release()
                except BaseException:
                    # Cancelled, or worse: the socket is closed, so that the server stops.
                    self._closed = True
                    await asyncio.shield(self._release())
                    raise
            finally:
                self._reading = False
        return ready.popleft()

    async def opened(self) -> Self:
        """Send the request now, and wait for the head of its reply."""
        await self._opened()
        return self

    async def aclose(self) -> None:
        """Close the stream; an unfinished one closes its socket, so that the server stops."""
        self._closed = True
        await self._release()

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is None:
            return
        # The socket is closed from here: nobody else can any more.
        stream.abort(UsageError("The stream was dropped."))
        if self._completion is None and self._failure is None:
            warnings.warn(
                "A stream was dropped before its end; use `async with`, or call aclose().",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    async def _opened(self) -> OpenStream:
        if self._stream is None:
            if self._closed:
                raise UsageError("The stream is closed.")
            try:
                self._stream = await self._opening.open()
            except VLLMError as error:
                self._failure = error
                raise
        return self._stream

    def _take(self, stream: OpenStream, data: bytes) -> None:
        """Take what was read; what comes of it is in `_ready`, `_completion` or `_failure`."""
        stream.waiting_since = None
        if not data:
            self._end()
            return
        events = self._decoder.feed(data)
        if events and not stream.has_data:
            stream.data_came()
        for event in events:
            if event == _DONE:
                self._end(said=True)
                return
            self._push(event)
            if self._ends_complete and self._accumulator.complete:
                self._end(said=True)
                return

    def _fail(self, error: VLLMError) -> None:
        """End by an error, unless all that was asked for has come."""
        if isinstance(error, TransportError) and not isinstance(error, TimeoutError):
            self._end(lost=error)
        else:
            self._failure = error.with_facts(request_id=self.request_id, partial=self.partial)

    def _end(self, lost: TransportError | None = None, *, said: bool = False) -> None:
        """Take the end of the stream, be it regular or that of a connection that was lost.

        Where the server has said that it is the end, what follows does not count.
        """
        try:
            cut = not (said or self._take_tail())
            if not self._accumulator.complete and (cut or lost is not None):
                where = (
                    "inside an event" if lost is None else f"before the reply was complete: {lost}"
                )
                raise StreamTruncatedError(
                    f"The stream was cut {where.removesuffix('.')}."
                ) from lost
            self._completion = self._with_id(self._accumulator.finish())
        except VLLMError as error:
            self._failure = error.with_facts(request_id=self.request_id, partial=self.partial)
        else:
            self._finished(self._completion)

    def _take_tail(self) -> bool:
        """Use what the end left unterminated, if it is a whole event; False if it is a part of one.

        The standard drops such an event; here it counts if it is complete JSON.
        """
        tail = self._decoder.close()
        if tail is None or tail == _DONE:
            return True
        try:
            self._push(tail)
        except ProtocolError:
            return False
        return True

    def _with_id(self, reply: Reply) -> Reply:
        reply.attach(b"", self.request_id, self._opening.offered)
        return reply

    async def _release(self) -> None:
        """Let go of the connection."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        stream.ended(self._failure, self._completion)
        try:
            if self._completion is not None:
                with contextlib.suppress(VLLMError, TimeoutError):
                    async with asyncio.timeout(_LINGER_S):
                        while await stream.receive():
                            continue
        finally:
            await stream.aclose()  # before its end: the connection is not used again

    def _push(self, data: bytes) -> None:
        self._ready.extend(self._items_of(data))

    def _finished(self, completion: Reply) -> None:
        """Do what is to be done once, when the whole reply is there."""


class EventStream(WireStream[Event | Finished[Completed], Completed]):
    """The events of one completion, in order, `Finished` last.

    Use it as `async with … as stream: async for event in stream`. Nothing is sent before it is
    entered or iterated.
    """

    _first_token: float | None = None

    @property
    def completion(self) -> Completed:
        """The accumulated reply, after `Finished`. Before that: `partial`."""
        if self._completion is None:
            raise UsageError("The stream has not ended yet; `partial` is what has come so far.")
        return self._completion

    def text_deltas(self) -> TextDeltas:
        """Give the first choice's text, piece by piece, as an async iterator."""
        return TextDeltas(self)

    async def text(self) -> str:
        """Drain the stream and give the first choice's text."""
        return (await self.final()).text

    async def final(self) -> Completed:
        """Drain the stream and give the reply. Raises as the stream would."""
        try:
            async for _ in self:
                pass
        finally:
            await self.aclose()
        return self.completion

    def _push(self, data: bytes) -> None:
        events = self._items_of(data)
        if self._first_token is None and any(isinstance(event, _CONTENT) for event in events):
            self._first_token = asyncio.get_running_loop().time()
        self._ready.extend(events)

    def _finished(self, completion: Completed) -> None:
        stream = self._stream
        now = asyncio.get_running_loop().time()
        begun = stream.begun if stream is not None else now
        first = self._first_token
        tokens = completion.usage.completion_tokens if completion.usage else None
        per_s = None
        if first is not None and tokens is not None and tokens > 1 and now > first:
            per_s = (tokens - 1) / (now - first)
        timing = Timing(
            None if first is None else first - begun, now - begun, per_s, self._accumulator.chunks
        )
        self._ready.append(Finished(completion, timing))


class ChatStream(EventStream[Delta | ChoiceFinished, ChatCompletion[T]], Generic[T]):
    """The events of one chat completion, in order, `Finished` last.

    Use it as `async with … as stream: async for event in stream`. Nothing is sent before it is
    entered or iterated.
    """

    def __init__(self, opening: Opening, folded: ChatAccumulator) -> None:
        push = folded.push
        super().__init__(opening, folded, lambda data: push(decode_chunk(data)))

    @property
    def partial_parsed(self) -> Any:
        """The JSON of a typed reply as far as it has come, at any time, as plain Python data.

        It is not validated and not of the type: keys may be missing, texts and lists unfinished.
        `None` before the first value. `completion.parsed` is the value, validated.
        """
        return partial_json(self.partial.text)[1]


class ChatChunkStream(WireStream[ChatCompletionChunk, ChatCompletion[Any]]):
    """The wire's chunks of one chat completion (`create(stream=True)`), each with `.raw`."""

    def __init__(self, opening: Opening, folded: ChatAccumulator) -> None:
        def items_of(data: bytes) -> list[ChatCompletionChunk]:
            chunk = decode_chunk(data).with_raw(data)
            folded.push(chunk)
            return [chunk]

        super().__init__(opening, folded, items_of)
