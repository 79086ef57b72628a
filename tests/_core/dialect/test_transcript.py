"""Messages in the wire's shape."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk._core.dialect.transcript import (
    NativeHistory,
    answered,
    nine_characters,
    wire_message,
    wire_messages,
)
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types._codec import Raw
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
    VideoBlock,
)

CALL = ToolCall("c1", "f", {"a": 1}, '{"a":  1}')


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (SystemMessage("Be brief."), {"role": "system", "content": "Be brief."}),
        (UserMessage("Hi"), {"role": "user", "content": "Hi"}),
        (UserMessage([TextBlock("Hi")]), {"role": "user", "content": "Hi"}),
        (
            UserMessage([TextBlock("a"), TextBlock("b")]),
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
        ),
        (AssistantMessage([TextBlock("Hi")]), {"role": "assistant", "content": "Hi"}),
        (AssistantMessage([]), {"role": "assistant", "content": ""}),
        (
            ToolMessage("c1", "18 °C", is_error=True),
            {"role": "tool", "tool_call_id": "c1", "content": "18 °C"},
        ),
        (
            AssistantMessage([ReasoningBlock("Hm"), CALL]),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a":  1}'},
                    }
                ],
            },
        ),
    ],
)
def test_a_message_in_the_wires_shape(message: Any, wire: dict[str, Any]) -> None:
    assert wire_message(message) == wire


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (
            ImageBlock("http://x/a.png"),
            {"type": "image_url", "image_url": {"url": "http://x/a.png"}},
        ),
        (
            AudioBlock("data:audio/wav;base64,"),
            {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,"}},
        ),
        (
            VideoBlock("http://x/a.mp4"),
            {"type": "video_url", "video_url": {"url": "http://x/a.mp4"}},
        ),
        (
            FileBlock("data:x", "a.pdf"),
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:x"}},
        ),
    ],
)
def test_media_are_parts(block: Any, part: dict[str, Any]) -> None:
    assert wire_message(UserMessage([block]))["content"] == [part]


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (ToolCall.from_text("c", "f", '{"a": '), "{}"),
        (ToolCall.from_text("c", "f", "[1]"), "{}"),
        (ToolCall.from_text("c", "f", ""), "{}"),
        (ToolCall.from_text("c", "f", '{"ü": 1}'), '{"ü": 1}'),
    ],
)
def test_arguments_that_no_template_can_read_go_as_an_empty_object(
    call: ToolCall, arguments: str
) -> None:
    (wire,) = wire_message(AssistantMessage([call]))["tool_calls"]
    assert wire["function"]["arguments"] == arguments


def test_dicts_and_our_classes_may_be_mixed_and_dicts_go_as_they_are() -> None:
    mine = {"role": "user", "content": "Hi", "name": "x", "odd": None}
    raw = Raw(b'{"role": "user"}')
    wire = wire_messages(each for each in (mine, SystemMessage("s"), raw))
    assert wire[0] is mine
    assert wire[1:] == [{"role": "system", "content": "s"}, raw]


@pytest.mark.parametrize("messages", ["Hi", b"Hi", {"role": "user"}, None, 7, UserMessage("Hi")])
def test_what_is_no_list_of_messages_is_refused_and_the_form_is_shown(messages: Any) -> None:
    with pytest.raises(UsageError, match=r"takes a list of messages"):
        wire_messages(messages)


@pytest.mark.parametrize("message", ["Hi", None, TextBlock("Hi"), CALL])
def test_what_is_no_message_is_refused(message: Any) -> None:
    with pytest.raises(UsageError, match="A message is a SystemMessage"):
        wire_messages([message])


def test_the_user_cannot_say_calls_or_reasoning() -> None:
    for block in (CALL, ReasoningBlock("Hm")):
        with pytest.raises(UsageError, match=f"cannot hold a {type(block).__name__}"):
            wire_message(UserMessage([TextBlock("a"), block]))


# ── hygiene ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("O-08")
@pytest.mark.parametrize("none", [None, []])
def test_no_empty_list_of_calls_is_sent(none: object) -> None:
    said = {"role": "assistant", "content": "Hi", "tool_calls": none}
    assert wire_message(said) == {"role": "assistant", "content": "Hi"}
    assert said["tool_calls"] is none
    assert "tool_calls" not in wire_message(AssistantMessage([TextBlock("Hi")]))


@pytest.mark.feature("O-08")
def test_arguments_that_are_no_json_object_are_sent_as_an_empty_one() -> None:
    broken = ToolCall.from_text("c", "f", '{"a": ')
    (call,) = wire_message(AssistantMessage([broken]))["tool_calls"]
    assert call["function"]["arguments"] == "{}"


@pytest.mark.feature("O-08")
def test_calls_without_a_result_are_answered_where_the_next_message_begins() -> None:
    two = AssistantMessage([CALL, CALL.with_id("c2")])
    said = [two, ToolMessage("c1", "1"), UserMessage("Well?"), AssistantMessage([CALL])]
    roles = [message["role"] for message in NativeHistory().wire(said)]
    assert roles == ["assistant", "tool", "tool", "user", "assistant", "tool"]
    assert answered(answered(said)) == answered(said)
    whole = [two, ToolMessage("c2", "2"), ToolMessage("c1", "1")]
    assert answered(whole) == whole


@pytest.mark.feature("O-08")
def test_ids_become_nine_letters_and_digits_the_same_each_time() -> None:
    assert nine_characters("aB3dE6gH9") == "aB3dE6gH9"
    made = nine_characters("chatcmpl-tool-1")
    assert len(made) == 9
    assert made.isalnum()
    assert made == nine_characters("chatcmpl-tool-1") != nine_characters("chatcmpl-tool-2")
    said = [AssistantMessage([CALL]), ToolMessage("c1", "1")]
    asked, result = NativeHistory(nine_ids=True).wire(said)
    assert result["tool_call_id"] == asked["tool_calls"][0]["id"] == nine_characters("c1")
