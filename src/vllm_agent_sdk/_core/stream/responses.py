"""The events of a Responses stream to the response, as far as it has come and in the end.

1. Complete means: `response.completed` (vLLM sends it for an incomplete response too) or
   `response.incomplete` has come. An end without either is a cut: vLLM drops the connection when
   it fails in the middle.
2. The last event's response counts as it is; what came before it serves the partial one.
3. Indices are the server's: they may skip, and a replay may begin in the middle of an item.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from vllm_agent_sdk._core.server.failures import stream_failure
from vllm_agent_sdk._core.stream.stall import StallGuard
from vllm_agent_sdk.errors import StreamTruncatedError
from vllm_agent_sdk.types import responses_events as wire
from vllm_agent_sdk.types.responses import Response
from vllm_agent_sdk.types.responses_items import ResponseItem, ResponsePart

__all__ = ["ResponseAccumulator"]

#: What kind of item an event belongs to, for items whose beginning was not seen.
_KINDS: dict[type, str] = {
    wire.ResponseReasoningTextDeltaEvent: "reasoning",
    wire.ResponseReasoningTextDoneEvent: "reasoning",
    wire.ResponseReasoningSummaryTextDeltaEvent: "reasoning",
    wire.ResponseReasoningSummaryTextDoneEvent: "reasoning",
    wire.ResponseFunctionCallArgumentsDeltaEvent: "function_call",
    wire.ResponseFunctionCallArgumentsDoneEvent: "function_call",
    wire.ResponseMcpCallArgumentsDeltaEvent: "mcp_call",
    wire.ResponseMcpCallArgumentsDoneEvent: "mcp_call",
    wire.ResponseCustomToolCallInputDeltaEvent: "custom_tool_call",
    wire.ResponseCustomToolCallInputDoneEvent: "custom_tool_call",
    wire.ResponseCodeInterpreterCallCodeDeltaEvent: "code_interpreter_call",
    wire.ResponseCodeInterpreterCallCodeDoneEvent: "code_interpreter_call",
}
_End = wire.ResponseCompletedEvent | wire.ResponseIncompleteEvent | wire.ResponseFailedEvent


class _Part:
    """A part of an item's content as it comes in."""

    __slots__ = ("annotations", "logprobs", "refusal", "text", "type")

    def __init__(self, type: str) -> None:
        self.type = type
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.annotations: list[Any] = []
        self.logprobs: list[Any] = []

    def take(self, part: ResponsePart) -> None:
        """Take the part as the server has it."""
        self.type = part.type
        self.text = [part.text]
        self.refusal = [part.refusal or ""]
        self.annotations = list(part.annotations or ())
        self.logprobs = list(part.logprobs or ())

    def whole(self) -> ResponsePart:
        return ResponsePart(
            type=self.type,
            text="".join(self.text),
            refusal="".join(self.refusal) or None,
            annotations=list(self.annotations) or None,
            logprobs=list(self.logprobs) or None,
        )


class _Item:
    """An item as it comes in."""

    __slots__ = ("arguments", "base", "code", "done", "input", "parts", "summary")

    def __init__(self, base: ResponseItem) -> None:
        self.base = base
        self.done: ResponseItem | None = None
        self.parts: dict[int, _Part] = {}
        self.summary: dict[int, _Part] = {}
        self.arguments: list[str] = []
        self.input: list[str] = []
        self.code: list[str] = []

    def part(self, index: int, type: str) -> _Part:
        """Give the part at a place; a new one if its beginning was not seen."""
        part = self.parts.get(index)
        if part is None:
            part = self.parts[index] = _Part(type)
        return part

    def summary_part(self, index: int) -> _Part:
        """Give the part of the summary at a place."""
        part = self.summary.get(index)
        if part is None:
            part = self.summary[index] = _Part("summary_text")
        return part

    def whole(self) -> ResponseItem:
        """Give the item as far as it has come."""
        if self.done is not None:
            return self.done
        item = copy.copy(self.base)
        if self.parts:
            item.content = [self.parts[at].whole() for at in sorted(self.parts)]
        if self.summary:
            item.summary = [self.summary[at].whole() for at in sorted(self.summary)]
        item.arguments = "".join(self.arguments) or item.arguments
        item.input = "".join(self.input) or item.input
        item.code = "".join(self.code) or item.code
        return item


class ResponseAccumulator:
    """Folds the events of one stream.

    Args:
        check: Checks the whole response at the end; raises what is wrong with it.
        constrained: The text is constrained: endless white space ends it.
        constrained_calls: The same of calls' arguments.

    Attributes:
        chunks: How many events have come.
    """

    def __init__(
        self,
        check: Callable[[Response], None] | None = None,
        constrained: bool = False,
        constrained_calls: bool = False,
    ) -> None:
        self._check = check
        self._constrained = constrained
        self._constrained_calls = constrained_calls
        self._stalls: dict[int, StallGuard] = {}
        self._head = Response()
        self._final: Response | None = None
        self._items: dict[int, _Item] = {}
        self.chunks = 0

    @property
    def complete(self) -> bool:
        """True when the response has come to its end."""
        return self._final is not None

    def push(self, event: wire.ResponseEvent) -> None:
        """Take an event.

        Raises:
            StreamFailedError: It says that the response failed.
            OutputStalledError: A constrained response writes nothing but white space.
        """
        self.chunks += 1
        match event:
            case wire.ResponseTextDeltaEvent():
                part = self._item(event).part(event.content_index, "output_text")
                part.text.append(event.delta)
                part.logprobs.extend(event.logprobs or ())
                if self._constrained:
                    self._stall(event.output_index).push(event.delta)
            case wire.ResponseReasoningTextDeltaEvent(content_index=at, delta=delta):
                self._item(event).part(at, "reasoning_text").text.append(delta)
            case wire.ResponseFunctionCallArgumentsDeltaEvent():
                self._item(event).arguments.append(event.delta)
                if self._constrained_calls:
                    self._stall(event.output_index).push(event.delta)
            case (
                wire.ResponseCreatedEvent()
                | wire.ResponseQueuedEvent()
                | wire.ResponseInProgressEvent()
            ):
                self._head = event.response
            case (
                wire.ResponseCompletedEvent()
                | wire.ResponseIncompleteEvent()
                | wire.ResponseFailedEvent()
            ):
                self._end(event)
            case wire.ResponseErrorEvent():
                raise stream_failure(event.error or _as_error(event))
            case wire.ResponseOutputItemAddedEvent(output_index=at, item=item):
                self._items[at] = _Item(item)
            case wire.ResponseOutputItemDoneEvent(output_index=at, item=item):
                self._items.setdefault(at, _Item(item)).done = item
            case wire.ResponseUnknownEvent():
                pass
            case _:
                self._push_content(event)

    def _end(self, event: _End) -> None:
        response = event.response
        if isinstance(event, wire.ResponseFailedEvent) or response.status == "failed":
            raise stream_failure(response.error or {"message": "the response has failed"})
        if not response.output and self._items:
            response = copy.copy(response)
            response.output = self._output()
        self._final = response

    def _push_content(self, event: wire.ResponseEvent) -> None:
        """Take the events beside those that come most often."""
        match event:
            case wire.ResponseContentPartAddedEvent() | wire.ResponseContentPartDoneEvent():
                self._item(event).part(event.content_index, event.part.type).take(event.part)
            case wire.ResponseTextDoneEvent(content_index=at, text=text):
                self._item(event).part(at, "output_text").text = [text]
            case wire.ResponseReasoningTextDoneEvent(content_index=at, text=text):
                self._item(event).part(at, "reasoning_text").text = [text]
            case wire.ResponseRefusalDeltaEvent(content_index=at, delta=delta):
                self._item(event).part(at, "refusal").refusal.append(delta)
            case wire.ResponseRefusalDoneEvent(content_index=at, refusal=refusal):
                self._item(event).part(at, "refusal").refusal = [refusal]
            case wire.ResponseOutputTextAnnotationAddedEvent(content_index=at):
                part = self._item(event).part(at, "output_text")
                part.annotations.append(event.annotation)
            case wire.ResponseReasoningSummaryTextDeltaEvent(summary_index=at, delta=delta):
                self._item(event).summary_part(at).text.append(delta)
            case wire.ResponseReasoningSummaryTextDoneEvent(summary_index=at, text=text):
                self._item(event).summary_part(at).text = [text]
            case _:
                self._push_call(event)

    def _push_call(self, event: wire.ResponseEvent) -> None:
        """Take what calls are made of."""
        match event:
            case wire.ResponseFunctionCallArgumentsDoneEvent(arguments=arguments):
                self._item(event).arguments = [arguments]
            case wire.ResponseMcpCallArgumentsDeltaEvent(delta=delta):
                self._item(event).arguments.append(delta)
            case wire.ResponseMcpCallArgumentsDoneEvent(arguments=arguments):
                self._item(event).arguments = [arguments]
            case wire.ResponseCustomToolCallInputDeltaEvent(delta=delta):
                self._item(event).input.append(delta)
            case wire.ResponseCustomToolCallInputDoneEvent(input=input):
                self._item(event).input = [input]
            case wire.ResponseCodeInterpreterCallCodeDeltaEvent(delta=delta):
                self._item(event).code.append(delta)
            case wire.ResponseCodeInterpreterCallCodeDoneEvent(code=code):
                self._item(event).code = [code]
            case _:
                pass  # it tells how far a tool of the server is

    def _item(self, event: Any) -> _Item:
        """Give the item an event belongs to; a new one if its beginning was not seen."""
        item = self._items.get(event.output_index)
        if item is None:
            kind = _KINDS.get(type(event), "message")
            role = "assistant" if kind == "message" else None
            base = ResponseItem(kind, event.item_id or None, "in_progress", role)
            item = self._items[event.output_index] = _Item(base)
        return item

    def _output(self) -> list[ResponseItem]:
        return [self._items[at].whole() for at in sorted(self._items)]

    def snapshot(self) -> Response:
        """Give the response as far as it has come."""
        response = copy.copy(self._head if self._final is None else self._final)
        if self._final is None:
            response.output = self._output()
        return response

    def finish(self) -> Response:
        """Give the whole response at the end of the stream.

        Raises:
            StreamTruncatedError: It is not complete; `partial` holds what had come.
            OutputError: It is not what was asked for.
        """
        if self._final is None:
            raise StreamTruncatedError(
                f"The stream ended after {self.chunks} events, without response.completed.",
                partial=self.snapshot(),
            )
        response = self.snapshot()
        if self._check is not None:
            self._check(response)
        return response

    def _stall(self, index: int) -> StallGuard:
        return self._stalls.setdefault(index, StallGuard())


def _as_error(event: wire.ResponseErrorEvent) -> dict[str, Any]:
    error = {"message": event.message, "code": event.code, "param": event.param}
    return {key: value for key, value in error.items() if value is not None}
