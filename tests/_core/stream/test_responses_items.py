"""Chat requests as requests for responses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.dialect.transcript import NativeHistory
from vllm_agent_sdk._core.stream.responses_items import ItemWriter, items_of, request_of
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ContentBlock,
    FileBlock,
    ImageBlock,
    Message,
    ReasoningBlock,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)

pytestmark = pytest.mark.feature("A-15")


def joined(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make chat messages of items as vLLM 0.32 does (`entrypoints/openai/responses/utils.py`)."""
    messages: list[dict[str, Any]] = []
    for item in items:
        last = messages[-1] if messages and messages[-1]["role"] == "assistant" else {}
        kind = item["type"]
        if kind == "function_call_output":
            messages.append(
                {"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}
            )
        elif kind == "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            if last:
                last.setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "tool_calls": [call]})
        elif item.get("role") not in {None, "assistant"}:
            messages.append({"role": item["role"], "content": item["content"]})
        else:
            thought = kind == "reasoning"
            field = "reasoning" if thought else "content"
            said = item["content"][0]["text"] if thought else item["content"]
            if last and last.get(field) is None:
                last[field] = said
            else:
                messages.append({"role": "assistant", field: said})
    return messages


def without_nothing(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if value not in (None, "")}


TEXTS = st.text(max_size=8)
CALLS = st.lists(st.sampled_from(["a", "b"]), max_size=3)


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """Conversations as runs have them: each call is answered before anything else is said."""
    said: list[Message] = []
    for turn in range(draw(st.integers(1, 4))):
        said.append(UserMessage(draw(TEXTS.filter(bool))))
        names = draw(CALLS)
        blocks: list[ContentBlock] = []
        if thought := draw(st.one_of(st.none(), TEXTS)):
            blocks.append(ReasoningBlock(thought))
        if text := draw(TEXTS):
            blocks.append(TextBlock(text))
        calls = [
            ToolCall.from_text(f"c{turn}_{at}", name, draw(st.sampled_from(['{"x": 1}', "{", ""])))
            for at, name in enumerate(names)
        ]
        said.append(AssistantMessage([*blocks, *calls]))
        said += [ToolMessage(call.id, draw(TEXTS)) for call in calls]
    return said


@given(histories(), st.booleans())
def test_the_server_reads_the_same_conversation_out_of_items_as_out_of_messages(
    history: list[Message], reasoning: bool
) -> None:
    wire = NativeHistory(reasoning=reasoning).wire(history)
    items = [item for message in wire for item in items_of(message)]
    assert [*map(without_nothing, joined(items))] == [*map(without_nothing, wire)]


@given(histories(), st.data())
def test_what_was_said_before_keeps_its_bytes(history: list[Message], data: st.DataObject) -> None:
    raws = [_codec.Raw(_codec.encode(each)) for each in NativeHistory().wire(history)]
    writer = ItemWriter()
    before: list[bytes] = []
    for end in sorted(data.draw(st.lists(st.integers(1, len(raws)), min_size=1, max_size=4))):
        _, items = writer.wire(raws[:end])
        now = [bytes(item) for item in items]
        assert now[: len(before)] == before
        assert now == [bytes(item) for item in ItemWriter().wire(raws[:end])[1]]
        before = now


def test_a_history_that_was_written_anew_is_written_anew() -> None:
    def raw(*texts: str) -> list[_codec.Raw]:
        return [_codec.Raw(_codec.encode({"role": "user", "content": text})) for text in texts]

    old, new = raw("a", "b", "c"), raw("a", "x")
    writer = ItemWriter()
    writer.wire(old)
    _, items = writer.wire([old[0], new[1]])
    assert [json.loads(bytes(item))["content"] for item in items] == ["a", "x"]


def test_the_first_system_text_is_the_instructions() -> None:
    system = {"role": "system", "content": "Be brief."}
    user = {"role": "user", "content": "Hi"}
    instructions, items = ItemWriter().wire([system, user])
    assert instructions == "Be brief."
    assert [json.loads(bytes(item))["role"] for item in items] == ["user"]
    later = {"role": "system", "content": "It is late."}
    instructions, items = ItemWriter().wire([user, later])
    assert instructions is None
    assert [json.loads(bytes(item))["role"] for item in items] == ["user", "system"]


def test_media_are_written_in_responses_own_parts() -> None:
    blocks: list[ContentBlock] = [
        TextBlock("What is this?"),
        ImageBlock.from_url("https://x/a.png"),
        FileBlock.from_url("data:text/plain;base64,YQ=="),
    ]
    [item] = [
        each for wire in NativeHistory().wire([UserMessage(blocks)]) for each in items_of(wire)
    ]
    assert item["content"] == [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "https://x/a.png", "detail": "auto"},
        {"type": "input_file", "file_data": "data:text/plain;base64,YQ=="},
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": "x"}}]},
        {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
    ],
)
def test_what_responses_do_not_take_is_told(message: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="Responses takes"):
        items_of(message)


def test_a_message_is_a_dict() -> None:
    with pytest.raises(UsageError, match="not str"):
        ItemWriter().wire(["Hi"])


FUNCTION = {"name": "f", "parameters": {"type": "object"}, "strict": True}
SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    ("chat", "response"),
    [
        ({"max_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_output_tokens": 5}),
        ({"temperature": 0, "top_k": 3}, {"temperature": 0, "top_k": 3}),
        (
            {"tools": [{"type": "function", "function": FUNCTION}]},
            {"tools": [{"type": "function", **FUNCTION}]},
        ),
        (
            {"tools": [{"type": "custom", "name": "g"}]},
            {"tools": [{"type": "custom", "name": "g"}]},
        ),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "function", "name": "f"}},
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "o", "schema": SCHEMA},
                }
            },
            {"text": {"format": {"type": "json_schema", "name": "o", "schema": SCHEMA}}},
        ),
        (
            {"response_format": {"type": "json_object"}},
            {"text": {"format": {"type": "json_object"}}},
        ),
        (
            {"response_format": {"type": "structural_tag", "format": {"type": "any_text"}}},
            {
                "structured_outputs": {
                    "structural_tag": '{"type":"structural_tag","format":{"type":"any_text"}}'
                }
            },
        ),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
    ],
)
def test_a_chats_keywords_become_those_of_a_response(
    chat: dict[str, Any], response: dict[str, Any]
) -> None:
    assert request_of(chat) == response


def test_a_format_that_responses_do_not_have_is_told() -> None:
    with pytest.raises(UsageError, match="grammar"):
        request_of({"response_format": {"type": "grammar"}})


def test_thinking_cannot_be_bounded_by_tokens() -> None:
    with pytest.raises(UsageError, match="64 tokens"):
        request_of({"thinking_token_budget": 64})
