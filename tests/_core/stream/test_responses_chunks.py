"""Responses as chat completions, whole and event by event."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.stream.chat import ChatAccumulator
from vllm_agent_sdk._core.stream.responses_chunks import ChunkWriter, completion_of
from vllm_agent_sdk.types import responses_events as wire
from vllm_agent_sdk.types.chat import ChatCompletion
from vllm_agent_sdk.types.events import (
    ChoiceFinished,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallReady,
    UsageUpdated,
)
from vllm_agent_sdk.types.responses import (
    IncompleteDetails,
    Response,
    ResponseInputTokensDetails,
    ResponseOutputTokensDetails,
    ResponseUsage,
)
from vllm_agent_sdk.types.responses_items import ResponseItem, ResponsePart

from .test_responses_recorded import RECORDED, decode, recorded

pytestmark = pytest.mark.feature("A-15")


def folded(events: list[wire.ResponseEvent]) -> tuple[ChatCompletion[Any], list[StreamEvent]]:
    writer, accumulator = ChunkWriter(), ChatAccumulator()
    seen: list[StreamEvent] = []
    for event in events:
        chunk = writer.push(event)
        if chunk is not None:
            seen += accumulator.push(chunk)
    return accumulator.finish(), seen


def facts(reply: ChatCompletion[Any]) -> dict[str, Any]:
    return {
        "id": reply.id,
        "text": reply.text,
        "reasoning": reply.reasoning,
        "calls": reply.tool_calls,
        "finish_reason": reply.finish_reason,
        "usage": reply.usage,
    }


@pytest.mark.parametrize("name", RECORDED)
def test_the_chunks_of_a_recorded_stream_come_to_its_response(name: str) -> None:
    events = decode(recorded(name))
    [end] = [event for event in events if isinstance(event, wire.ResponseCompletedEvent)]
    reply, seen = folded(events)
    assert facts(reply) == facts(completion_of(end.response))
    assert "".join(each.text for each in seen if isinstance(each, TextDelta)) == reply.text
    assert [each.call for each in seen if isinstance(each, ToolCallReady)] == reply.tool_calls
    assert sum(isinstance(each, (ChoiceFinished, UsageUpdated)) for each in seen) == 2


def test_a_call_begins_with_its_name_and_goes_on_with_its_arguments() -> None:
    _, seen = folded(decode(recorded("text_and_two_calls")))
    deltas = [each for each in seen if isinstance(each, ToolCallDelta)]
    begun = [each for each in deltas if each.name]
    assert [(each.index, each.name) for each in begun] == [(0, "get_weather"), (1, "get_weather")]
    assert all(each.id for each in begun)
    assert not any(each.id for each in deltas if not each.name)


# ── what servers may leave out ───────────────────────────────────────────────────────────────────

PIECES = st.lists(st.text(max_size=4), max_size=4)


@given(PIECES, PIECES, PIECES, PIECES)
def test_what_comes_in_deltas_or_only_at_the_end_is_said_once(
    thought: list[str], refused: list[str], said: list[str], written: list[str]
) -> None:
    item = ResponseItem("function_call", "fc_1", call_id="c1", name="f")
    whole = ResponseItem(
        "function_call", "fc_1", call_id="c1", name="f", arguments="".join(written)
    )
    events: list[wire.ResponseEvent] = [
        *(wire.ResponseReasoningTextDeltaEvent(delta=each) for each in thought[:-1]),
        wire.ResponseReasoningTextDoneEvent(text="".join(thought)),
        *(wire.ResponseTextDeltaEvent(output_index=1, delta=each) for each in said[:-1]),
        wire.ResponseTextDoneEvent(output_index=1, text="".join(said)),
        *(wire.ResponseRefusalDeltaEvent(output_index=2, delta=each) for each in refused[:-1]),
        wire.ResponseRefusalDoneEvent(output_index=2, refusal="".join(refused)),
        wire.ResponseOutputItemAddedEvent(output_index=3, item=item),
        *(
            wire.ResponseFunctionCallArgumentsDeltaEvent(output_index=3, delta=each)
            for each in written[:-1]
        ),
        wire.ResponseOutputItemDoneEvent(output_index=3, item=whole),
        wire.ResponseCompletedEvent(response=Response(status="completed", output=[whole])),
    ]
    reply, seen = folded(events)
    assert reply.text == "".join(said)
    assert (reply.reasoning or "") == "".join(thought)
    assert (reply.choices[0].message.refusal or "") == "".join(refused)
    assert [call.arguments_json for call in reply.tool_calls] == ["".join(written)]
    assert "".join(each.text for each in seen if isinstance(each, ReasoningDelta)) == "".join(
        thought
    )
    assert "".join(each.text for each in seen if isinstance(each, RefusalDelta)) == "".join(refused)


def test_a_call_that_comes_only_with_its_end_is_a_call() -> None:
    whole = ResponseItem("function_call", "fc_1", call_id="c1", name="f", arguments="{}")
    reply, _ = folded(
        [
            wire.ResponseOutputItemDoneEvent(output_index=0, item=whole),
            wire.ResponseCompletedEvent(response=Response(output=[whole])),
        ]
    )
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [("c1", "f", {})]


# ── what a response says in other words ──────────────────────────────────────────────────────────

CALL = ResponseItem("function_call", "fc_1", call_id="c1", name="f", arguments="{}")
TEXT = ResponseItem("message", "msg_1", content=[ResponsePart(text="Hi")])


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (Response(status="completed", output=[TEXT]), "stop"),
        (Response(status="completed", output=[TEXT, CALL]), "tool_calls"),
        (Response(status="incomplete", output=[CALL]), "length"),
        (
            Response(
                status="incomplete", incomplete_details=IncompleteDetails("max_output_tokens")
            ),
            "length",
        ),
        (
            Response(status="incomplete", incomplete_details=IncompleteDetails("content_filter")),
            "content_filter",
        ),
        (Response(status="cancelled"), "abort"),
        (Response(), "stop"),
    ],
)
def test_the_finish_reason_follows_from_status_and_calls(response: Response, reason: str) -> None:
    assert completion_of(response).finish_reason == reason
    ended, _ = folded([wire.ResponseCompletedEvent(response=response)])
    assert ended.finish_reason == reason


def test_one_that_was_cut_has_no_finish_reason() -> None:
    assert completion_of(Response(output=[TEXT]), whole=False).finish_reason is None


def test_a_stop_text_that_may_have_ended_it_is_told_only_where_it_ended_by_itself() -> None:
    assert completion_of(Response(output=[TEXT]), "").choices[0].stop_reason == ""
    assert completion_of(Response(output=[CALL]), "").choices[0].stop_reason is None


def test_tokens_are_counted_under_chats_names() -> None:
    usage = ResponseUsage(
        input_tokens=7,
        output_tokens=5,
        total_tokens=12,
        input_tokens_details=ResponseInputTokensDetails(cached_tokens=4),
        output_tokens_details=ResponseOutputTokensDetails(reasoning_tokens=2),
    )
    came = completion_of(Response(usage=usage)).usage
    assert came is not None
    assert (came.prompt_tokens, came.completion_tokens, came.total_tokens) == (7, 5, 12)
    assert came.prompt_tokens_details is not None
    assert came.prompt_tokens_details.cached_tokens == 4
    assert came.completion_tokens_details is not None
    assert came.completion_tokens_details.reasoning_tokens == 2
    assert completion_of(Response()).usage is None


def test_refusals_and_reasoning_are_told_as_such() -> None:
    refused = ResponsePart("refusal", refusal="No.")
    thought = ResponsePart("reasoning_text", "Hm.")
    reply = completion_of(
        Response(
            output=[
                ResponseItem("reasoning", content=[thought]),
                ResponseItem("message", content=[refused]),
            ]
        )
    )
    assert reply.choices[0].message.refusal == "No."
    assert (reply.reasoning, reply.text) == ("Hm.", "")
