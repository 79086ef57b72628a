"""Responses on the wire: input items, whole responses, events."""

from __future__ import annotations

from typing import Any, get_args

import openai.types.responses as theirs
import pytest
from openai.types.responses.response_stream_event import ResponseStreamEvent as TheirEvent

from vllm_agent_sdk.errors import ProtocolError, UsageError
from vllm_agent_sdk.types import _codec, responses_events
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    AudioBlock,
    FileBlock,
    ImageBlock,
    ReasoningBlock,
    SystemMessage,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vllm_agent_sdk.types.responses import Response, decode_response
from vllm_agent_sdk.types.responses_events import (
    ResponseErrorEvent,
    ResponseTextDeltaEvent,
    ResponseUnknownEvent,
    decode_event,
)
from vllm_agent_sdk.types.responses_items import ResponseItem, response_input

pytestmark = pytest.mark.feature("E-03")

CALL = ToolCall.from_text("c1", "get_weather", '{"city": "Paris"}')


def message(role: str, content: object) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


# ── input ────────────────────────────────────────────────────────────────────────────────────────


def test_text_is_passed_on_as_it_is() -> None:
    assert response_input("Hi") == "Hi"


def test_a_conversation_becomes_items_of_responses_own_kinds() -> None:
    wire = {"type": "item_reference", "id": "x"}
    thought = AssistantMessage([ReasoningBlock("hm"), TextBlock("I will check."), CALL])
    assert response_input(
        [SystemMessage("Be brief."), UserMessage("Paris?"), thought, CALL.result("18 °C"), wire]
    ) == [
        message("system", "Be brief."),
        message("user", "Paris?"),
        {
            "type": "reasoning",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}],
        },
        message("assistant", "I will check."),
        {
            "type": "function_call",
            "call_id": "c1",
            "name": "get_weather",
            "arguments": '{"city": "Paris"}',
        },
        {"type": "function_call_output", "call_id": "c1", "output": "18 °C"},
        wire,
    ]


def test_reasoning_can_be_left_out() -> None:
    thought = AssistantMessage([ReasoningBlock("hm"), TextBlock("Yes.")])
    assert response_input([thought], reasoning=False) == [message("assistant", "Yes.")]
    only = AssistantMessage([ReasoningBlock("hm")])
    assert response_input([only], reasoning=False) == [message("assistant", "")]


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (ToolCall.from_text("c", "f", ""), "{}"),
        (ToolCall.from_text("c", "f", '{"x": }'), "{}"),
        (ToolCall.from_text("c", "f", '{"x":1}'), '{"x":1}'),
    ],
)
def test_arguments_that_are_no_object_are_sent_as_one(call: ToolCall, arguments: str) -> None:
    (item,) = response_input([AssistantMessage([call])])
    assert item["arguments"] == arguments  # type: ignore[index]


def test_an_empty_assistants_message_is_kept() -> None:
    assert response_input([AssistantMessage()]) == [message("assistant", "")]


def test_blocks_become_parts_and_text_alone_stays_text() -> None:
    image = ImageBlock.from_url("https://host/a.png")
    data = FileBlock("data:text/plain;base64,YQ==", name="a.txt")
    link = FileBlock("https://host/b.pdf")
    (user,) = response_input([UserMessage([TextBlock("see"), image, data, link])])
    assert user["content"] == [  # type: ignore[index]
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": "https://host/a.png", "detail": "auto"},
        {"type": "input_file", "file_data": "data:text/plain;base64,YQ==", "filename": "a.txt"},
        {"type": "input_file", "file_url": "https://host/b.pdf"},
    ]
    assert response_input([UserMessage([TextBlock("Hi")])]) == [message("user", "Hi")]
    (result,) = response_input([ToolMessage("c1", [TextBlock("a"), image])])
    assert [part["type"] for part in result["output"]] == [  # type: ignore[index]
        "input_text",
        "input_image",
    ]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"role": "user", "content": "Hi"}, "a list of items, not dict"),
        (b"Hi", "a list of items, not bytes"),
        (5, "a list of items, not int"),
        (["Hi"], "not str"),
        ([UserMessage([AudioBlock("https://host/a.wav")])], "not AudioBlock; chat completions"),
        ([AssistantMessage([ImageBlock("https://host/a.png")])], "cannot hold a ImageBlock"),
    ],
)
def test_what_responses_does_not_take_is_refused(given: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        response_input(given)


def test_an_output_goes_back_in_as_the_wire_wants_it() -> None:
    output = [
        {"type": "reasoning", "id": "rs_1", "content": [{"type": "reasoning_text", "text": "hm"}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "", "annotations": []},
                {"type": "refusal", "refusal": "no"},
            ],
        },
        {"type": "message", "id": "msg_2", "role": "assistant", "content": []},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": ""},
    ]
    nulls = dict.fromkeys(("phase", "namespace", "async", "caller"))
    said = decode_response(_codec.encode({"output": [item | nulls for item in output]}))
    expected = [dict(item) for item in output]
    expected[0]["summary"] = []
    expected[2]["content"] = ""
    assert response_input(said.output) == expected


# ── whole responses ──────────────────────────────────────────────────────────────────────────────


def test_text_reasoning_and_calls_are_read_from_the_items() -> None:
    said = Response(
        output=[
            ResponseItem("reasoning", content=[responses_events.ResponsePart(text="hm")]),
            ResponseItem("message", content=[responses_events.ResponsePart(text="I ")]),
            ResponseItem("message", content=[responses_events.ResponsePart(text="check.")]),
            ResponseItem("function_call", call_id="c1", name="f", arguments='{"x":1}'),
            ResponseItem("function_call", id="fc_2", name="g", namespace="n"),
            ResponseItem("custom_tool_call", call_id="c3", name="h", input="free text"),
        ]
    )
    said.attach(b"", None, frozenset({"f"}))
    assert (said.text, said.output_text, said.reasoning) == ("I check.", "I check.", "hm")
    calls = [(call.id, call.name, call.arguments, call.unexpected) for call in said.tool_calls]
    assert calls == [("c1", "f", {"x": 1}, False), ("fc_2", "n__g", {}, True)]
    blocks = said.assistant_message().content
    assert blocks[:2] == [ReasoningBlock("hm"), TextBlock("I check.")]
    assert blocks[2:] == said.tool_calls


def test_the_requests_own_text_and_reasoning_have_names_of_their_own() -> None:
    body = b'{"text":{"format":{"type":"text"}},"reasoning":{"effort":"low"},"new":{"a":1}}'
    said = decode_response(body)
    said.attach(body, "r-1", None)
    assert said.text_config == {"format": {"type": "text"}}
    assert said.reasoning_config == {"effort": "low"}
    assert (said.text, said.reasoning) == ("", None)
    assert (said.extra, said.request_id) == ({"new": {"a": 1}}, "r-1")


def test_null_equals_absent_and_what_is_new_is_no_error() -> None:
    said = decode_response(
        b'{"id":null,"output":null,"usage":{"input_tokens":null},"status":"brand_new"}'
    )
    assert (said.id, said.output, said.status, said.text) == ("", [], "brand_new", "")
    item = decode_response(b'{"output":[{"type":"brand_new","size":3}]}').output[0]
    assert item.type == "brand_new"


# ── events ───────────────────────────────────────────────────────────────────────────────────────


def test_events_have_openais_names_types_and_fields() -> None:
    known = {str(each.__struct_config__.tag): each for each in get_args(responses_events._Known)}
    checked = 0
    for their in get_args(get_args(TheirEvent)[0]):
        (type_,) = get_args(their.model_fields["type"].annotation)
        if type_ not in known:
            continue
        ours = known[type_]
        assert ours.__name__ == their.__name__
        assert set(their.model_fields) - {"type"} <= set(ours.__struct_fields__)
        checked += 1
    assert checked == len(known)
    assert hasattr(theirs, "ResponseTextDeltaEvent")


def test_all_events_that_vllm_sends_are_known() -> None:
    # `StreamingResponsesResponse` of vLLM 0.32, and what its processors make beside it.
    names = {
        "created", "in_progress", "completed", "output_item.added", "output_item.done",
        "content_part.added", "content_part.done", "output_text.delta", "output_text.done",
        "reasoning_text.delta", "reasoning_text.done",
        "function_call_arguments.delta", "function_call_arguments.done",
        "custom_tool_call_input.delta", "custom_tool_call_input.done",
        "code_interpreter_call.in_progress", "code_interpreter_call_code.delta",
        "code_interpreter_call_code.done", "code_interpreter_call.interpreting",
        "code_interpreter_call.completed",
        "web_search_call.in_progress", "web_search_call.searching", "web_search_call.completed",
        "mcp_call_arguments.delta", "mcp_call_arguments.done", "mcp_call.in_progress",
        "mcp_call.completed",
    }  # fmt: skip
    for name in names:
        event = decode_event(_codec.encode({"type": f"response.{name}", "sequence_number": 3}))
        assert not isinstance(event, ResponseUnknownEvent)
        assert (event.type, event.sequence_number) == (f"response.{name}", 3)


def test_a_type_that_is_not_known_is_an_event_too() -> None:
    event = decode_event(b'{"type":"response.brand_new","sequence_number":7,"a":[null]}')
    assert isinstance(event, ResponseUnknownEvent)
    assert (event.type, event.sequence_number, event.data["a"]) == (
        "response.brand_new",
        7,
        [None],
    )
    odd = decode_event(b'{"type":{"a":1}}')
    assert isinstance(odd, ResponseUnknownEvent)
    untyped = decode_event(b'{"a":1}')
    assert isinstance(untyped, ResponseUnknownEvent)
    assert (untyped.type, untyped.sequence_number) == ("", -1)


def test_an_error_frame_of_any_form_is_an_error_event() -> None:
    error = {"message": "boom", "code": 500}
    for frame in ({"type": "error", "error": error}, {"error": error}):
        event = decode_event(_codec.encode(frame))
        assert isinstance(event, ResponseErrorEvent)
        assert event.error == error


def test_null_equals_absent_in_events() -> None:
    event = decode_event(
        b'{"type":"response.output_text.delta","delta":null,"item_id":null,"output_index":null}'
    )
    assert event == ResponseTextDeltaEvent()


@pytest.mark.feature("S-06")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[DONE]",
        b"[1]",
        b'"text"',
        b'{"type":"response.output_text.delta","delta":5.5e999}',
        b'{"type":"response.output_text.delta","delta":["a"]}',
        b'{"type":"response.completed","response":[]}',
        b'{"type":"response.output_text.delta","delta":"\xff"}',
        b'{"a":' * 5000,
    ],
)
def test_bytes_that_are_no_event_are_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_event(data)
