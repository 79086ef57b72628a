"""Calls in texts: recorded samples, and properties over any text and any split."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vllm_agent_sdk import UsageError
from vllm_agent_sdk._core.text_calls.text_calls import FAMILIES, TextCall, TextCalls, find_calls
from vllm_agent_sdk.types.messages import ToolCall

SAMPLES = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "text_calls" / "samples.json").read_text("utf-8")
)
TOOLS: dict[str, Any] = {
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    },
    "get_time": {"type": "object", "properties": {}},
}
#: Pieces of which all formats are made, so that random texts come near to calls.
PIECES = [
    *("<tool_call>", "</tool_call>", "<function=get_weather>", "</function>", "<|python_tag|>"),
    *("<parameter=city>", "</parameter>", '{"name": "get_weather", "arguments": ', "{}", "}", "{"),
    *('{"name": "get_time", "parameters": {}}', '"', "\\", "[", "]", "(", ")", "[get_time()]", ";"),
    *("get_weather(city=", "'a'", "]", ",", "\n", " ", "é", "text", "<", "</", "\ud800", "1e999"),
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=14).map("".join)
families = st.sampled_from(FAMILIES)


def split_at(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[one:other] for one, other in itertools.pairwise(places)]


def streamed(pieces: list[str], calls: TextCalls) -> tuple[str, list[TextCall]]:
    parser = calls.parser()
    settled = [each for piece in pieces for each in parser.push(piece)] + parser.close()
    said = "".join(each for each in settled if isinstance(each, str))
    return said, [each for each in settled if isinstance(each, TextCall)]


@pytest.mark.feature("O-14")
@pytest.mark.parametrize("sample", SAMPLES, ids=[f"{s['family']}: {s['what']}" for s in SAMPLES])
def test_recorded_texts_give_their_calls_whole_and_letter_by_letter(sample: Any) -> None:
    calls = TextCalls(sample["family"], TOOLS)
    for said, found in (
        find_calls(sample["text"], calls),
        streamed(list(sample["text"]), calls),
    ):
        made = [ToolCall.from_text("id", call.name, call.arguments) for call in found]
        assert said == sample["said"]
        assert [[call.name, call.arguments] for call in made] == sample["calls"]
        assert all(call.error for call in made if call.arguments is None)


@pytest.mark.feature("O-14")
@given(texts, families, st.lists(st.integers(0, 200), max_size=6))
@example('<tool_call>{"name": "f", "arguments": {}}<', "hermes", [41])
@example('<tool_call>{"name": "f", "arguments": {}} x', "hermes", [40])
@example('{"name": "get_time", "parameters": {}}; text', "llama_json", [38, 39])
@example("<tool_call><function=get_time></function></tool_cal", "qwen_xml", [40])
@example("  [get_time()] [", "pythonic", [1, 2, 14])
def test_any_split_of_any_text_gives_the_same(text: str, family: str, cuts: list[int]) -> None:
    calls = TextCalls(family, TOOLS)
    assert streamed(split_at(text, cuts), calls) == find_calls(text, calls)


@pytest.mark.feature("O-14")
@given(texts, families)
def test_any_text_ends_in_calls_with_parsed_arguments_or_an_error(text: str, family: str) -> None:
    said, found = find_calls(text, TextCalls(family, TOOLS))
    for call in found:
        made = ToolCall.from_text("id", call.name, call.arguments)
        assert made.name
        assert (made.arguments is None) == (made.error is not None)
    if not found:
        assert said == text


@pytest.mark.feature("O-14")
@given(st.text(), families)
def test_text_without_a_tag_or_bracket_passes_at_once(text: str, family: str) -> None:
    text = "".join(each for each in text if each not in "<[{")
    assert "".join(map(str, TextCalls(family, TOOLS).parser().push(text))) == text


@pytest.mark.feature("O-14")
@pytest.mark.parametrize(
    "sample",
    [s for s in SAMPLES if s["calls"] and all(call[1] is not None for call in s["calls"])],
    ids=lambda s: s["what"],
)
def test_a_cut_call_is_none_or_malformed(sample: Any) -> None:
    calls = TextCalls(sample["family"], TOOLS)
    whole = find_calls(sample["text"], calls)[1]
    for end in range(len(sample["text"])):
        for call, meant in zip(find_calls(sample["text"][:end], calls)[1], whole, strict=False):
            assert call == meant or ToolCall.from_text("id", call.name, call.arguments).error


@pytest.mark.feature("O-14")
def test_only_what_may_begin_a_call_is_held_back() -> None:
    parser = TextCalls("hermes", TOOLS).parser()
    assert parser.push("a < b <tool") == ["a < b "]
    assert parser.push("box>") == ["<toolbox>"]
    llama = TextCalls("llama_json", TOOLS).parser()
    assert llama.push('{"answer": 1') == ['{"answer": 1']
    python = TextCalls("pythonic", TOOLS).parser()
    assert python.push("[1, ") == ["[1, "]


@pytest.mark.feature("O-14")
def test_long_arguments_take_time_in_proportion_to_their_length() -> None:
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": "' + "x}" * 50_000 + '"}}'
    parser = TextCalls("hermes", TOOLS).parser()
    assert [part for at in range(0, len(text), 4) for part in parser.push(text[at : at + 4])] == []
    [call] = parser.close()
    assert isinstance(call, TextCall)


@pytest.mark.feature("O-14")
def test_a_family_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="hermes, qwen_xml, llama_json, pythonic"):
        TextCalls("xml", {})
