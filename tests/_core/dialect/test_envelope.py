"""Envelope turns: the format, and any split and any cut of their text."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.dialect.envelope import (
    EnvelopeParser,
    envelope_call,
    envelope_final,
    envelope_format,
)
from vllm_agent_sdk._core.schema.schema import Validator
from vllm_agent_sdk.types.events import StreamEvent, TextDelta, ToolCallDelta, ToolCallReady
from vllm_agent_sdk.types.messages import TextBlock, ToolCall
from vllm_agent_sdk.types.tools import ToolSpec

pytestmark = pytest.mark.feature("O-06")

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
POINT = {
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/Place"}},
    "required": ["at"],
    "$defs": {
        "Place": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    },
}
TOOLS = [ToolSpec(name="get_weather", parameters=CITY), ToolSpec(name="go", parameters=POINT)]
CALL = '{"tool": "get_weather", "arguments": {"city": "}\\"{"}}'
FINAL = '{"final": "18 \\u00b0C \\ud83d\\ude00 in \\"Paris\\".\\nBye"}'
TURNS = [
    CALL,
    FINAL,
    ' { "tool" :\n"f" , "arguments": {} }\n',
    '{"final":""}',
    '{"final": "\\ud83d lone \\ude00"}',
    '{"final": "\\ud83d"}',
    '{"arguments": {"a": [1]}, "tool": "f"}',
]
TYPED = ['{"final": {"a": "}"}}', '{"final": -1.5e3}', '{"final": "x\\"}" }', '{"final": [1, {}]}']


def parse(*pieces: str, typed: bool = False) -> tuple[EnvelopeParser, list[StreamEvent]]:
    parser = EnvelopeParser("call_1_", typed=typed)
    events = [event for piece in pieces for event in parser.push(piece)]
    return parser, [*events, *parser.finish()]


def facts(parser: EnvelopeParser, events: list[StreamEvent]) -> dict[str, Any]:
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    return {
        "text": "".join(event.text for event in events if isinstance(event, TextDelta)),
        "names": [(event.id, event.name) for event in deltas if event.name is not None],
        "arguments": "".join(event.arguments for event in deltas),
        "ready": [event.call for event in events if isinstance(event, ToolCallReady)],
        "blocks": parser.blocks(),
        "verbatim": parser.verbatim,
        "ignored": parser.ignored,
        "final": parser.final,
        "whole": parser.whole,
    }


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(ends)]


# ── the format ───────────────────────────────────────────────────────────────────────────────────


def accepts(form: dict[str, Any], turn: str) -> bool:
    return not Validator(form["json_schema"]["schema"], "here").errors(json.loads(turn))


def test_a_turn_is_one_call_of_a_known_tool_or_the_answer() -> None:
    form = envelope_format(TOOLS)
    assert form["type"] == "json_schema"
    assert accepts(form, CALL)
    assert accepts(form, FINAL)
    assert accepts(form, '{"tool": "go", "arguments": {"at": {"x": 1}}}')
    assert not accepts(form, '{"tool": "go", "arguments": {"at": {"x": "1"}}}')
    assert not accepts(form, '{"tool": "stop", "arguments": {}}')
    assert not accepts(form, '{"tool": "get_weather", "arguments": {}}')
    assert not accepts(form, '{"final": 1}')
    assert not accepts(form, '{"final": "x", "tool": "go"}')


def test_a_typed_answer_is_of_its_schema_alone() -> None:
    form = envelope_format(TOOLS, output=POINT)
    assert accepts(form, '{"final": {"at": {"x": 1}}}')
    assert not accepts(form, '{"final": {"at": {"x": "1"}}}')
    assert not accepts(form, FINAL)


def test_a_required_call_leaves_no_answer_and_no_tools_leave_only_the_answer() -> None:
    assert not accepts(envelope_format(TOOLS, require_call=True), FINAL)
    assert accepts(envelope_format([]), FINAL)
    assert not accepts(envelope_format([]), CALL)


def test_a_tool_without_a_schema_still_takes_an_object() -> None:
    form = envelope_format([ToolSpec(name="f")])
    assert accepts(form, '{"tool": "f", "arguments": {"any": 1}}')
    assert not accepts(form, '{"tool": "f", "arguments": 1}')


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_what_is_written_is_read_back(answer: str, arguments: dict[str, str]) -> None:
    clean = answer.encode("utf-8", "replace").decode()
    assert parse(envelope_final(clean, typed=False))[0].blocks() == (
        [TextBlock(clean)] if clean else []
    )
    (call,) = parse(envelope_call("f", json.dumps(arguments)))[0].blocks()
    assert isinstance(call, ToolCall)
    assert call.arguments == arguments


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def test_a_call_is_read_with_its_arguments() -> None:
    parser, events = parse(CALL)
    call = ToolCall("call_1_1", "get_weather", {"city": '}"{'}, '{"city": "}\\"{"}')
    assert parser.blocks() == [call]
    assert events[0] == ToolCallDelta(index=0, id="call_1_1", name="get_weather")
    assert events[-1] == ToolCallReady(call=call)
    assert parser.whole
    assert parser.verbatim == CALL


def test_an_answer_is_read_as_the_text_it_stands_for() -> None:
    parser, events = parse(FINAL)
    assert parser.blocks() == [TextBlock('18 °C 😀 in "Paris".\nBye')]
    assert events == [TextDelta(text='18 °C 😀 in "Paris".\nBye')]
    assert parser.final
    assert not parser.ignored


@pytest.mark.parametrize("turn", TYPED)
def test_a_typed_answer_is_its_json(turn: str) -> None:
    parser, _ = parse(turn, typed=True)
    (block,) = parser.blocks()
    assert isinstance(block, TextBlock)
    assert json.loads(block.text) == json.loads(turn)["final"]
    assert parser.whole


def test_keys_in_another_order_count_too() -> None:
    (call,) = parse('{"arguments": {"a": [1]}, "tool": "f"}')[0].blocks()
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments) == ("f", {"a": [1]})


@pytest.mark.parametrize(
    "text",
    ["Sure!", '{"answer": 1}', f"{FINAL} and", f"{CALL}{CALL}", '{"final": 1}',
     '{"tool": "f", "x": 1}', '{"arguments": 1}x',
     '{"tool": "f", "arguments": {}, "final": "x"}', '{"final" "x"}'],
)  # fmt: skip
def test_what_is_outside_the_form_is_marked(text: str) -> None:
    parser, _ = parse(text)
    assert parser.ignored
    assert not parser.whole


@given(st.sampled_from(TURNS), st.lists(st.integers(0, 80)))
def test_any_split_reads_the_same(turn: str, cuts: list[int]) -> None:
    assert facts(*parse(*pieces_of(turn, cuts))) == facts(*parse(turn))
    assert not parse(turn)[0].ignored


@given(st.sampled_from(TYPED), st.lists(st.integers(0, 40)))
def test_any_split_of_a_typed_answer_reads_the_same(turn: str, cuts: list[int]) -> None:
    assert facts(*parse(*pieces_of(turn, cuts), typed=True)) == facts(*parse(turn, typed=True))


@pytest.mark.parametrize("turn", [CALL, FINAL, '{"arguments": {"a": [1]}, "tool": "f"}'])
def test_a_cut_turn_is_never_taken_for_more_than_what_came(turn: str) -> None:
    text = parse(turn)[0].blocks()
    for end in range(len(turn) - 1):
        parser, _ = parse(turn[:end])
        assert not parser.whole
        for block in parser.blocks():
            if isinstance(block, TextBlock):
                assert isinstance(text[0], TextBlock), (end, block)
                assert text[0].text.startswith(block.text)
            else:
                assert isinstance(block, ToolCall)
                assert block.arguments_json == "" or not parser.ignored


def test_a_call_cut_before_its_arguments_is_no_valid_call() -> None:
    (call,) = parse('{"tool": "f", "arguments": {"a')[0].blocks()
    assert isinstance(call, ToolCall)
    assert call.error


@given(st.text(), st.lists(st.integers(0, 30)))
def test_any_text_ends_in_blocks(text: str, cuts: list[int]) -> None:
    assert facts(*parse(*pieces_of(text, cuts)))["verbatim"] == text
