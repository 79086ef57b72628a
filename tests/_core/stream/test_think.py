"""Think tags in the text, split anywhere."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.stream.chat import ChatAccumulator
from vllm_agent_sdk._core.stream.think import ThinkSplitter
from vllm_agent_sdk.types.chat import ChatCompletionChunk, ChunkChoice, ChunkDelta
from vllm_agent_sdk.types.events import ChoiceFinished, ReasoningDelta, TextDelta

pytestmark = pytest.mark.feature("S-04")


def split(*pieces: str, opened: bool = False) -> tuple[str, str]:
    splitter = ThinkSplitter(opened=opened)
    parts = [part for piece in pieces for part in splitter.push(piece)] + splitter.close()
    assert all(bool(reasoning) != bool(text) for reasoning, text in parts)
    # Reasoning never comes after text.
    kinds = [bool(text) for _, text in parts]
    assert kinds == sorted(kinds)
    return "".join(reasoning for reasoning, _ in parts), "".join(text for _, text in parts)


@pytest.mark.parametrize(
    ("said", "opened", "expected"),
    [
        ("<think>hm</think>yes", False, ("hm", "yes")),
        ("\n <think>\nhm\n</think>\n\nyes", False, ("\nhm\n", "\n\nyes")),
        ("hm</think>yes", True, ("hm", "yes")),
        ("<think>hm</think>yes", True, ("hm", "yes")),
        ("hm</think>yes", False, ("", "hm</think>yes")),
        ("<think>hm", False, ("hm", "")),
        ("<think>hm</thi", False, ("hm</thi", "")),
        ("hm", True, ("hm", "")),
        ("<think></think>yes", False, ("", "yes")),
        ("<think>a</think>b<think>c</think>", False, ("a", "b<think>c</think>")),
        ("<think>a<think>b</think>c", False, ("a<think>b", "c")),
        ("<think>a</</think>b", False, ("a</", "b")),
        ("yes, <think>no</think>", False, ("", "yes, <think>no</think>")),
        ("<thin", False, ("", "<thin")),
        ("<thin", True, ("<thin", "")),
        ("<thing>", False, ("", "<thing>")),
        (" \n", False, ("", " \n")),
        ("", False, ("", "")),
        ("", True, ("", "")),
    ],
)
def test_reasoning_and_text_are_told_apart_however_they_are_cut(
    said: str, opened: bool, expected: tuple[str, str]
) -> None:
    assert split(said, opened=opened) == expected
    assert split(*said, opened=opened) == expected
    for at in range(len(said)):
        assert split(said[:at], said[at:], opened=opened) == expected


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<", "</", "think>", " ", "a", "<thi"]), max_size=9
    ),
    st.lists(st.integers(0, 60), max_size=8),
    st.booleans(),
)
def test_any_split_gives_the_same(words: list[str], cuts: list[int], opened: bool) -> None:
    said = "".join(words)
    places = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
    pieces = [said[a:b] for a, b in itertools.pairwise(places)]
    assert split(*pieces, opened=opened) == split(said, opened=opened)


def chunk(text: str | None, finish: str | None = None) -> ChatCompletionChunk:
    return ChatCompletionChunk(
        choices=[ChunkChoice(delta=ChunkDelta(content=text), finish_reason=finish)]
    )


def test_a_stream_gives_tagged_reasoning_as_reasoning_when_asked_to() -> None:
    said = [chunk(text) for text in ("<th", "ink>h", "m</", "think", ">ye", "s <")]
    folded = ChatAccumulator(think_tags=True)
    events = [event for part in said for event in folded.push(part)]
    events += folded.push(chunk(None, "stop"))
    assert events == [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        TextDelta("ye"),
        TextDelta("s <"),
        ChoiceFinished("stop"),
    ]
    reply = folded.finish()
    assert (reply.reasoning, reply.text) == ("hm", "yes <")


def test_what_is_held_back_comes_before_the_end_and_is_off_by_default() -> None:
    folded = ChatAccumulator(think_tags=True)
    assert folded.push(chunk("<th")) == []
    assert folded.push(chunk(None, "stop")) == [TextDelta("<th"), ChoiceFinished("stop")]
    assert folded.finish().text == "<th"
    assert ChatAccumulator().push(chunk("<think>")) == [TextDelta("<think>")]
