"""The text of a guided turn: any split, any cut, and what is said outside the tags."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.stream.guided import GuidedParser
from vllm_agent_sdk.types.events import (
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallReady,
)
from vllm_agent_sdk.types.messages import ReasoningBlock, TextBlock, ToolCall

pytestmark = pytest.mark.feature("O-06")

CALL = '[[call get_weather]]{"city": "Paris"}[[/call]]'
FINAL = "[[final]]18 °C in [[Paris]] if [[ -f x ]].[[/final]]"
THINK = "<think>Is it [[call x]]? a < b</think>"
TRICKY = '[[call f]]{"a": "}[[/call]][[final]]\\"\\\\", "b": [{"c": "]"}]}[[/call]]'
#: As the grammar admits them; none holds a thought.
TURNS = [CALL, FINAL, TRICKY, f"{CALL}\n{TRICKY}", "[[call f]]{}[[/call]]", "[[final]][[/final]]"]


#: Typed answers, and what they are.
TYPED = {
    '[[final]]{"a": "[[/final]]"}[[/final]]': {"a": "[[/final]]"},
    '[[final]]"}[[/final]]\\""[[/final]]': '}[[/final]]"',
    "[[final]] [1, {}] [[/final]]": [1, {}],
    "[[final]]-1.5e3[[/final]]": -1500.0,
    "[[final]]null\n[[/final]]": None,
}


def parse(*pieces: str, typed: bool = False) -> tuple[GuidedParser, list[StreamEvent]]:
    parser = GuidedParser("call_1_", typed=typed)
    events = [event for piece in pieces for event in parser.push(piece)]
    return parser, [*events, *parser.finish()]


def facts(parser: GuidedParser, events: list[StreamEvent]) -> dict[str, Any]:
    """What came of a text, however it was split."""
    calls: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            of_call = calls.setdefault(event.index, ["", "", ""])
            of_call[0] += event.id or ""
            of_call[1] += event.name or ""
            of_call[2] += event.arguments
    return {
        "text": "".join(event.text for event in events if isinstance(event, TextDelta)),
        "thought": "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        "calls": calls,
        "ready": [event.call for event in events if isinstance(event, ToolCallReady)],
        "blocks": parser.blocks(),
        "verbatim": parser.verbatim,
        "ignored": parser.ignored,
        "final": parser.final,
    }


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(ends)]


# ── what a turn comes to ─────────────────────────────────────────────────────────────────────────


def test_a_call_is_read_with_its_arguments() -> None:
    parser, events = parse(CALL)
    call = ToolCall("call_1_1", "get_weather", {"city": "Paris"}, '{"city": "Paris"}')
    assert parser.blocks() == [call]
    assert events == [
        ToolCallDelta(0, "call_1_1", "get_weather"),
        ToolCallDelta(0, arguments='{"city": "Paris"}'),
        ToolCallReady(call),
    ]
    assert not parser.final
    assert not parser.ignored


def test_an_answer_is_read_without_its_tags() -> None:
    parser, events = parse(FINAL)
    assert events == [TextDelta("18 °C in [[Paris]] if [[ -f x ]].")]
    assert parser.blocks() == [TextBlock("18 °C in [[Paris]] if [[ -f x ]].")]
    assert parser.final
    assert not parser.ignored


@pytest.mark.parametrize("turn", TYPED)
def test_the_end_of_the_json_ends_a_typed_answer_not_a_tag_in_a_string(turn: str) -> None:
    parser, _ = parse(turn, typed=True)
    (block,) = parser.blocks()
    assert isinstance(block, TextBlock)
    assert json.loads(block.text) == TYPED[turn]
    assert parser.whole


def test_a_typed_answer_that_is_no_json_is_marked() -> None:
    parser, _ = parse("[[final]]It is nice.[[/final]]", typed=True)
    assert parser.ignored


@given(st.sampled_from([*TYPED]), st.lists(st.integers(0, 60)))
def test_any_split_of_a_typed_answer_reads_the_same(turn: str, cuts: list[int]) -> None:
    assert facts(*parse(*pieces_of(turn, cuts), typed=True)) == facts(*parse(turn, typed=True))


@pytest.mark.parametrize("turn", [CALL, FINAL, TRICKY, f"{CALL}\n{TRICKY}"])
def test_what_is_sent_back_to_the_letter_is_never_a_part_of_a_turn(turn: str) -> None:
    assert parse(turn)[0].whole
    for end in range(len(turn)):
        parser, _ = parse(turn[:end])
        assert parser.whole == (parser.verbatim in {CALL, FINAL, TRICKY})
    assert not parse("Sure! ", CALL)[0].whole


def test_the_end_of_the_json_ends_a_call_not_a_marker_in_a_string() -> None:
    (call,) = parse(TRICKY)[0].blocks()
    assert isinstance(call, ToolCall)
    assert call.arguments == {"a": '}[[/call]][[final]]"\\', "b": [{"c": "]"}]}
    assert call.error is None


def test_several_calls_are_numbered() -> None:
    blocks = parse(f"{CALL}\n{TRICKY}")[0].blocks()
    assert [(b.id, b.name) for b in blocks if isinstance(b, ToolCall)] == [
        ("call_1_1", "get_weather"),
        ("call_1_2", "f"),
    ]


def test_a_thought_comes_before_and_is_not_sent_back() -> None:
    parser, _ = parse(THINK + CALL)
    thought, call = parser.blocks()
    assert thought == ReasoningBlock("Is it [[call x]]? a < b")
    assert isinstance(call, ToolCall)
    assert parser.verbatim == CALL


def test_text_outside_the_tags_is_kept_and_marked() -> None:
    parser, events = parse("Sure! ", CALL)
    assert parser.ignored
    assert facts(parser, events)["text"] == f"Sure! {CALL}"
    assert parser.blocks() == [TextBlock(f"Sure! {CALL}")]


@pytest.mark.parametrize("after", ["and more", "[[/call]]", "[[x"])
def test_text_after_a_call_or_an_answer_is_marked_too(after: str) -> None:
    assert parse(CALL + after)[0].ignored
    assert parse(FINAL + after)[0].ignored
    assert not parse(CALL + "\n")[0].ignored


def test_arguments_that_do_not_parse_are_data() -> None:
    (call,) = parse('[[call f]]{"a": }[[/call]]')[0].blocks()
    assert isinstance(call, ToolCall)
    assert (call.arguments, call.arguments_json) == (None, '{"a": }')
    assert call.error


# ── any split ────────────────────────────────────────────────────────────────────────────────────

TEXT = st.one_of(
    st.sampled_from([*TURNS, THINK + CALL, THINK + FINAL, f" \n{CALL}\n", f"x{CALL}"]),
    st.lists(
        st.sampled_from(
            ["[[call ", "f", "]]", '{"a": ', '"', "\\", "}", "{", "[[/call]]", "[[final]]", "[[/",
             "[[/final]]", "<think>", "</think>", " ", "\n", "text", "[", "]", "<"]
        ),
        max_size=20,
    ).map("".join),
)  # fmt: skip


@given(text=TEXT, cuts=st.lists(st.integers(0, 100)))
def test_any_split_gives_the_same(text: str, cuts: list[int]) -> None:
    assert facts(*parse(*pieces_of(text, cuts))) == facts(*parse(text))


@given(text=TEXT)
def test_one_character_at_a_time_gives_the_same(text: str) -> None:
    assert facts(*parse(*text)) == facts(*parse(text))


@given(
    name=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    arguments=st.dictionaries(
        st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))
    ),
)
def test_any_arguments_come_back(name: str, arguments: dict[str, str]) -> None:
    text = f"[[call {name}]]{json.dumps(arguments)}[[/call]]"
    parser, _ = parse(*text)
    (call,) = parser.blocks()
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments) == (name, arguments)
    assert parser.verbatim == text


@given(answer=st.text().filter(lambda text: "[[/" not in text))
def test_any_answer_comes_back(answer: str) -> None:
    text = f"[[final]]{answer}[[/final]]"
    parser, events = parse(*text)
    assert facts(parser, events)["text"] == answer
    assert parser.verbatim == text


@pytest.mark.parametrize("text", TURNS)
def test_what_was_generated_is_sent_back_to_the_letter(text: str) -> None:
    assert parse(*text)[0].verbatim == text
    assert parse(*(THINK + text))[0].verbatim == text


# ── any cut ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", [*TURNS, THINK + CALL, THINK + FINAL])
def test_cut_anywhere_no_marker_leaks_and_nothing_is_taken_for_ignored(text: str) -> None:
    whole, _ = parse(text)
    answer = "".join(block.text for block in whole.blocks() if isinstance(block, TextBlock))
    calls = [block for block in whole.blocks() if isinstance(block, ToolCall)]
    for at in range(len(text)):
        parser, events = parse(text[:at])
        seen = facts(parser, events)
        assert not parser.ignored
        # The first characters of an end tag can't be told from text that ends in them.
        assert answer.startswith(seen["text"].removesuffix("[").removesuffix("["))
        assert text.replace(THINK, "").startswith(parser.verbatim)
        for cut, of_whole in zip(seen["ready"], calls, strict=False):
            assert cut.name == of_whole.name
            assert of_whole.arguments_json.startswith(cut.arguments_json)
        assert seen["ready"] == [b for b in parser.blocks() if isinstance(b, ToolCall)]


@pytest.mark.parametrize("at", range(1, len('{"city": "Paris"}')))
def test_a_call_that_is_cut_has_no_arguments_and_says_why(at: int) -> None:
    start = CALL.index("{")
    (call,) = parse(CALL[: start + at])[0].blocks()
    assert isinstance(call, ToolCall)
    assert call.arguments is None
    assert call.error


def test_a_call_that_is_cut_before_its_arguments_does_not_run_without_them() -> None:
    (call,) = parse("[[call delete_all]]")[0].blocks()
    assert isinstance(call, ToolCall)
    assert call.arguments is None
    assert call.error


@pytest.mark.parametrize("cut", ["", "[[call ", "[[call get_wea", "[[call get_weather]"])
def test_a_call_that_is_cut_in_its_name_is_no_call(cut: str) -> None:
    assert parse(cut)[0].blocks() == []
