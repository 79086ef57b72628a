"""The events of a streamed response, as the wire has them, under OpenAI's class names.

vLLM's order is `response.created`, `response.in_progress`, then for each item: added, its parts and
deltas, done; then `response.completed`. There is no `[DONE]`. A type that is not known here becomes
a `ResponseUnknownEvent`; the stream goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, get_args

import msgspec

from vllm_agent_sdk.errors import ProtocolError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.responses import Finished, Response
from vllm_agent_sdk.types.responses_items import ResponseItem, ResponsePart

__all__ = [
    "ResponseCodeInterpreterCallCodeDeltaEvent",
    "ResponseCodeInterpreterCallCodeDoneEvent",
    "ResponseCodeInterpreterCallCompletedEvent",
    "ResponseCodeInterpreterCallInProgressEvent",
    "ResponseCodeInterpreterCallInterpretingEvent",
    "ResponseCompletedEvent",
    "ResponseContentPartAddedEvent",
    "ResponseContentPartDoneEvent",
    "ResponseCreatedEvent",
    "ResponseCustomToolCallInputDeltaEvent",
    "ResponseCustomToolCallInputDoneEvent",
    "ResponseErrorEvent",
    "ResponseEvent",
    "ResponseFailedEvent",
    "ResponseFunctionCallArgumentsDeltaEvent",
    "ResponseFunctionCallArgumentsDoneEvent",
    "ResponseInProgressEvent",
    "ResponseIncompleteEvent",
    "ResponseMcpCallArgumentsDeltaEvent",
    "ResponseMcpCallArgumentsDoneEvent",
    "ResponseMcpCallCompletedEvent",
    "ResponseMcpCallFailedEvent",
    "ResponseMcpCallInProgressEvent",
    "ResponseOutputItemAddedEvent",
    "ResponseOutputItemDoneEvent",
    "ResponseOutputTextAnnotationAddedEvent",
    "ResponseQueuedEvent",
    "ResponseReasoningSummaryPartAddedEvent",
    "ResponseReasoningSummaryPartDoneEvent",
    "ResponseReasoningSummaryTextDeltaEvent",
    "ResponseReasoningSummaryTextDoneEvent",
    "ResponseReasoningTextDeltaEvent",
    "ResponseReasoningTextDoneEvent",
    "ResponseRefusalDeltaEvent",
    "ResponseRefusalDoneEvent",
    "ResponseStreamEvent",
    "ResponseTextDeltaEvent",
    "ResponseTextDoneEvent",
    "ResponseUnknownEvent",
    "ResponseWebSearchCallCompletedEvent",
    "ResponseWebSearchCallInProgressEvent",
    "ResponseWebSearchCallSearchingEvent",
    "decode_event",
]


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """What all events carry; `sequence_number` counts from 0, -1 where the server sent none."""

    sequence_number: int = -1

    @property
    def type(self) -> str:
        """The event's name on the wire."""
        return str(self.__struct_config__.tag)


class _OfItem(_Event, frozen=True):
    """Base of events that belong to an item; `output_index` is its place in `Response.output`."""

    item_id: str = ""
    output_index: int = 0


class _OfPart(_OfItem, frozen=True):
    """Base of events that belong to a part; `content_index` is its place in the item's content."""

    content_index: int = 0


# ── the response as a whole ───────────────────────────────────────────────────────────────────────


class ResponseCreatedEvent(_Event, frozen=True, tag="response.created"):
    """The server has taken the request."""

    response: Response = msgspec.field(default_factory=Response)


class ResponseQueuedEvent(_Event, frozen=True, tag="response.queued"):
    """The response waits for its turn."""

    response: Response = msgspec.field(default_factory=Response)


class ResponseInProgressEvent(_Event, frozen=True, tag="response.in_progress"):
    """The model works on it."""

    response: Response = msgspec.field(default_factory=Response)


class ResponseCompletedEvent(_Event, frozen=True, tag="response.completed"):
    """The end. In vLLM also that of an incomplete response: `response.status` says which."""

    response: Response = msgspec.field(default_factory=Response)


class ResponseIncompleteEvent(_Event, frozen=True, tag="response.incomplete"):
    """The end of a response that was cut; `response.incomplete_details` says why."""

    response: Response = msgspec.field(default_factory=Response)


class ResponseFailedEvent(_Event, frozen=True, tag="response.failed"):
    """The end of a response that failed."""

    response: Response = msgspec.field(default_factory=Response)


# ── items and the parts of their content ──────────────────────────────────────────────────────────


class ResponseOutputItemAddedEvent(_Event, frozen=True, tag="response.output_item.added"):
    """An item begins."""

    output_index: int = 0
    item: ResponseItem = msgspec.field(default_factory=ResponseItem)


class ResponseOutputItemDoneEvent(_Event, frozen=True, tag="response.output_item.done"):
    """An item is whole."""

    output_index: int = 0
    item: ResponseItem = msgspec.field(default_factory=ResponseItem)


class ResponseContentPartAddedEvent(_OfPart, frozen=True, tag="response.content_part.added"):
    """A part of an item's content begins."""

    part: ResponsePart = msgspec.field(default_factory=ResponsePart)


class ResponseContentPartDoneEvent(_OfPart, frozen=True, tag="response.content_part.done"):
    """A part of an item's content is whole."""

    part: ResponsePart = msgspec.field(default_factory=ResponsePart)


# ── text, reasoning, refusals ─────────────────────────────────────────────────────────────────────


class ResponseTextDeltaEvent(_OfPart, frozen=True, tag="response.output_text.delta"):
    """A piece of the answer's text."""

    delta: str = ""
    logprobs: list[Any] | None = None


class ResponseTextDoneEvent(_OfPart, frozen=True, tag="response.output_text.done"):
    """A part's text is whole."""

    text: str = ""
    logprobs: list[Any] | None = None


class ResponseOutputTextAnnotationAddedEvent(
    _OfPart, frozen=True, tag="response.output_text.annotation.added"
):
    """An annotation of a part's text."""

    annotation: Any = None
    annotation_index: int = 0


class ResponseReasoningTextDeltaEvent(_OfPart, frozen=True, tag="response.reasoning_text.delta"):
    """A piece of what the model thinks."""

    delta: str = ""


class ResponseReasoningTextDoneEvent(_OfPart, frozen=True, tag="response.reasoning_text.done"):
    """A part of the reasoning is whole."""

    text: str = ""


class ResponseReasoningSummaryPartAddedEvent(
    _OfItem, frozen=True, tag="response.reasoning_summary_part.added"
):
    """A part of the reasoning's summary begins."""

    summary_index: int = 0
    part: ResponsePart = msgspec.field(default_factory=ResponsePart)


class ResponseReasoningSummaryPartDoneEvent(
    _OfItem, frozen=True, tag="response.reasoning_summary_part.done"
):
    """A part of the reasoning's summary is whole."""

    summary_index: int = 0
    part: ResponsePart = msgspec.field(default_factory=ResponsePart)
    status: str | None = None


class ResponseReasoningSummaryTextDeltaEvent(
    _OfItem, frozen=True, tag="response.reasoning_summary_text.delta"
):
    """A piece of the reasoning's summary."""

    summary_index: int = 0
    delta: str = ""


class ResponseReasoningSummaryTextDoneEvent(
    _OfItem, frozen=True, tag="response.reasoning_summary_text.done"
):
    """A part's text of the reasoning's summary is whole."""

    summary_index: int = 0
    text: str = ""


class ResponseRefusalDeltaEvent(_OfPart, frozen=True, tag="response.refusal.delta"):
    """A piece of a refusal."""

    delta: str = ""


class ResponseRefusalDoneEvent(_OfPart, frozen=True, tag="response.refusal.done"):
    """A refusal is whole."""

    refusal: str = ""


# ── calls of the caller's tools ───────────────────────────────────────────────────────────────────


class ResponseFunctionCallArgumentsDeltaEvent(
    _OfItem, frozen=True, tag="response.function_call_arguments.delta"
):
    """A piece of a call's arguments."""

    delta: str = ""


class ResponseFunctionCallArgumentsDoneEvent(
    _OfItem, frozen=True, tag="response.function_call_arguments.done"
):
    """A call's arguments are whole."""

    arguments: str = ""
    name: str | None = None


class ResponseCustomToolCallInputDeltaEvent(
    _OfItem, frozen=True, tag="response.custom_tool_call_input.delta"
):
    """A piece of a custom tool's input."""

    delta: str = ""


class ResponseCustomToolCallInputDoneEvent(
    _OfItem, frozen=True, tag="response.custom_tool_call_input.done"
):
    """A custom tool's input is whole."""

    input: str = ""


# ── tools that the server runs (gpt-oss) ──────────────────────────────────────────────────────────


class ResponseMcpCallArgumentsDeltaEvent(
    _OfItem, frozen=True, tag="response.mcp_call_arguments.delta"
):
    """A piece of an MCP call's arguments."""

    delta: str = ""


class ResponseMcpCallArgumentsDoneEvent(
    _OfItem, frozen=True, tag="response.mcp_call_arguments.done"
):
    """An MCP call's arguments are whole."""

    arguments: str = ""
    name: str | None = None


class ResponseMcpCallInProgressEvent(_OfItem, frozen=True, tag="response.mcp_call.in_progress"):
    """An MCP call begins."""


class ResponseMcpCallCompletedEvent(_OfItem, frozen=True, tag="response.mcp_call.completed"):
    """An MCP call has ended."""


class ResponseMcpCallFailedEvent(_OfItem, frozen=True, tag="response.mcp_call.failed"):
    """An MCP call has failed."""


class ResponseWebSearchCallInProgressEvent(
    _OfItem, frozen=True, tag="response.web_search_call.in_progress"
):
    """A search begins."""


class ResponseWebSearchCallSearchingEvent(
    _OfItem, frozen=True, tag="response.web_search_call.searching"
):
    """The server searches."""


class ResponseWebSearchCallCompletedEvent(
    _OfItem, frozen=True, tag="response.web_search_call.completed"
):
    """A search has ended."""


class ResponseCodeInterpreterCallInProgressEvent(
    _OfItem, frozen=True, tag="response.code_interpreter_call.in_progress"
):
    """Code is being written."""


class ResponseCodeInterpreterCallCodeDeltaEvent(
    _OfItem, frozen=True, tag="response.code_interpreter_call_code.delta"
):
    """A piece of the code."""

    delta: str = ""


class ResponseCodeInterpreterCallCodeDoneEvent(
    _OfItem, frozen=True, tag="response.code_interpreter_call_code.done"
):
    """The code is whole."""

    code: str = ""


class ResponseCodeInterpreterCallInterpretingEvent(
    _OfItem, frozen=True, tag="response.code_interpreter_call.interpreting"
):
    """The server runs the code."""


class ResponseCodeInterpreterCallCompletedEvent(
    _OfItem, frozen=True, tag="response.code_interpreter_call.completed"
):
    """The code has run."""


# ── what goes wrong, and what is new ─────────────────────────────────────────────────────────────


class ResponseErrorEvent(_Event, frozen=True, tag="error"):
    """The server failed inside the stream.

    Attributes:
        error: The error as an object, where the server sent it as one (proxies do).
    """

    message: str = ""
    code: int | str | None = None
    param: str | None = None
    error: Any = None


class ResponseUnknownEvent(msgspec.Struct, frozen=True):
    """An event of a type that this version does not know.

    Attributes:
        type: Its name on the wire; `""` where it has none.
        data: Its JSON in builtins.
    """

    type: str
    data: dict[str, Any]

    @property
    def sequence_number(self) -> int:
        """Its number, or -1."""
        number = self.data.get("sequence_number")
        return number if isinstance(number, int) else -1


_Known: TypeAlias = (
    ResponseCreatedEvent
    | ResponseQueuedEvent
    | ResponseInProgressEvent
    | ResponseCompletedEvent
    | ResponseIncompleteEvent
    | ResponseFailedEvent
    | ResponseOutputItemAddedEvent
    | ResponseOutputItemDoneEvent
    | ResponseContentPartAddedEvent
    | ResponseContentPartDoneEvent
    | ResponseTextDeltaEvent
    | ResponseTextDoneEvent
    | ResponseOutputTextAnnotationAddedEvent
    | ResponseReasoningTextDeltaEvent
    | ResponseReasoningTextDoneEvent
    | ResponseReasoningSummaryPartAddedEvent
    | ResponseReasoningSummaryPartDoneEvent
    | ResponseReasoningSummaryTextDeltaEvent
    | ResponseReasoningSummaryTextDoneEvent
    | ResponseRefusalDeltaEvent
    | ResponseRefusalDoneEvent
    | ResponseFunctionCallArgumentsDeltaEvent
    | ResponseFunctionCallArgumentsDoneEvent
    | ResponseCustomToolCallInputDeltaEvent
    | ResponseCustomToolCallInputDoneEvent
    | ResponseMcpCallArgumentsDeltaEvent
    | ResponseMcpCallArgumentsDoneEvent
    | ResponseMcpCallInProgressEvent
    | ResponseMcpCallCompletedEvent
    | ResponseMcpCallFailedEvent
    | ResponseWebSearchCallInProgressEvent
    | ResponseWebSearchCallSearchingEvent
    | ResponseWebSearchCallCompletedEvent
    | ResponseCodeInterpreterCallInProgressEvent
    | ResponseCodeInterpreterCallCodeDeltaEvent
    | ResponseCodeInterpreterCallCodeDoneEvent
    | ResponseCodeInterpreterCallInterpretingEvent
    | ResponseCodeInterpreterCallCompletedEvent
    | ResponseErrorEvent
)
#: What the wire sends.
ResponseEvent: TypeAlias = _Known | ResponseUnknownEvent
#: What a stream yields: the wire's events, `Finished` last.
ResponseStreamEvent: TypeAlias = ResponseEvent | Finished

_decode_known: Callable[[bytes], _Known] = _codec.decoder(_Known)  # type: ignore[arg-type]
_TYPES = frozenset(str(each.__struct_config__.tag) for each in get_args(_Known))


def decode_event(data: bytes) -> ResponseEvent:
    """Read one event's data.

    Raises:
        ProtocolError: It is no JSON object, or a known event of another shape.
    """
    try:
        return _decode_known(data)
    except ProtocolError:
        value = _codec.decode(data)
        if not isinstance(value, dict):
            raise
        type_ = value.get("type")
        if isinstance(type_, str) and type_ in _TYPES:
            raise
        if value.get("error") is not None:
            # The frame in which vLLM's other streams, and proxies, report an error.
            return ResponseErrorEvent(error=value["error"])
        return ResponseUnknownEvent(str(type_ or ""), value)
