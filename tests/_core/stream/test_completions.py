"""Recorded completions of vLLM: what they come to, cut and split anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from vllm_agent_sdk._core.stream.completions import CompletionAccumulator, CompletionDelta
from vllm_agent_sdk._core.stream.sse import SSEDecoder
from vllm_agent_sdk.errors import StreamFailedError, StreamTruncatedError
from vllm_agent_sdk.types.completions import Completion, decode_chunk, decode_completion
from vllm_agent_sdk.types.events import ChoiceFinished, TextDelta, UsageUpdated

FIXTURES = Path(__file__).parents[2] / "fixtures" / "completions"
RECORDED = sorted(path.stem for path in (FIXTURES / "sse").glob("*.sse"))
FAILED = {"error_value_midstream": ("", 400), "error_generation_midstream": (" or three", 500)}

# name: text and finish reason of each choice, completion tokens (None: no usage)
EXPECTED: dict[str, tuple[list[tuple[str, str]], int | None]] = {
    "continuous_usage": ([(" or three-", "length")], 3),
    "echo": ([("One, two, or three-", "length")], 3),
    "echo_logprobs": ([("One, two, or three", "length")], 2),
    "echo_only": ([("One, two,", "length")], 1),
    "logprobs": ([(" or three-", "length")], 3),
    "plain": ([(" or three-digit numbers", "length")], None),
    "prompt_list": ([(" or three-", "length"), (" and blue are", "length")], 6),
    "prompt_list_two_choices": (
        [(text, "length") for text in (" four,", " or four", " blues,", " and red")],
        8,
    ),
    "stop": ([("three four", "stop")], 4),
    "stop_string": ([("three ", "stop")], 3),
    "two_choices": ([(" four, nine", "length"), (" or four sets", "length")], 6),
    "usage": ([(" or three-digit numbers", "length")], 5),
}  # fmt: skip


def recorded(name: str) -> bytes:
    return (FIXTURES / "sse" / f"{name}.sse").read_bytes()


def fold(name: str, *pieces: bytes) -> tuple[list[CompletionDelta], CompletionAccumulator]:
    decoder, folded = SSEDecoder(), CompletionAccumulator(len(EXPECTED[name][0]))
    events: list[CompletionDelta] = []
    for piece in pieces or (recorded(name),):
        for event in decoder.feed(piece):
            if event != b"[DONE]":
                events += folded.push(decode_chunk(event))
    return events, folded


def test_every_recorded_stream_has_an_expectation() -> None:
    assert sorted([*EXPECTED, *FAILED]) == RECORDED


@pytest.mark.feature("E-02")
@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_stream_comes_to_its_reply(name: str) -> None:
    choices, tokens = EXPECTED[name]
    events, folded = fold(name)
    reply = folded.finish()
    assert [(choice.text, choice.finish_reason) for choice in reply.choices] == choices
    assert (reply.text, reply.finish_reason) == choices[0]
    assert (reply.usage.completion_tokens if reply.usage else None) == tokens
    assert (reply.id, reply.model, reply.created) == ("cmpl-X", "m", 1795232869)
    assert reply.system_fingerprint == "vllm-0.32.0-deadbeef"
    for index, (text, finish_reason) in enumerate(choices):
        deltas = [e for e in events if isinstance(e, TextDelta) and e.choice == index]
        assert "".join(delta.text for delta in deltas) == text
        (end,) = [e for e in events if isinstance(e, ChoiceFinished) and e.choice == index]
        assert end.finish_reason == finish_reason
        assert events.index(end) > events.index(deltas[-1])
    assert any(isinstance(event, UsageUpdated) for event in events) == (tokens is not None)


@pytest.mark.feature("E-02", "S-01")
@pytest.mark.parametrize("name", EXPECTED)
def test_split_in_two_anywhere_the_events_and_the_reply_are_the_same(name: str) -> None:
    stream = recorded(name)
    events, folded = fold(name)
    for at in range(1, len(stream)):
        again, other = fold(name, stream[:at], stream[at:])
        assert again == events
        assert other.finish() == folded.finish()


@pytest.mark.feature("E-02", "S-06")
@pytest.mark.parametrize("name", EXPECTED)
def test_cut_anywhere_it_is_an_error_or_the_whole_reply(name: str) -> None:
    stream = recorded(name)
    whole = fold(name)[1].finish()
    ends = stream.rindex(b'"finish_reason":"')
    for at in range(len(stream)):
        _, folded = fold(name, stream[:at])
        if not folded.complete:
            assert at <= stream.index(b"\n\n", ends) + 1
            with pytest.raises(StreamTruncatedError, match="without a finish reason") as caught:
                folded.finish()
            assert isinstance(caught.value.partial, Completion)
            for choice, full in zip(caught.value.partial.choices, whole.choices, strict=False):
                assert full.text.startswith(choice.text)
        else:
            reply = folded.finish()
            assert [c.text for c in reply.choices] == [c.text for c in whole.choices]


@pytest.mark.feature("E-02", "S-06")
@pytest.mark.parametrize("name", FAILED)
def test_an_error_frame_is_a_typed_error_and_what_came_before_is_kept(name: str) -> None:
    text, status = FAILED[name]
    folded = CompletionAccumulator()
    with pytest.raises(StreamFailedError) as caught:  # noqa: PT012
        for event in SSEDecoder().feed(recorded(name)):
            folded.push(decode_chunk(event))
    assert caught.value.status == status
    assert folded.snapshot().text == text


def normal(reply: Completion) -> Any:
    """The reply without what only one of both forms has.

    A stream with `echo` tells the prompt's token ids unasked; a whole reply with `echo` and
    `logprobs` tells the prompt's log probabilities a second time, as `prompt_logprobs`.
    """
    value = msgspec.to_builtins(reply)
    value.pop("usage", None)
    value.pop("object", None)  # written or not, it is the same
    for choice in value["choices"]:
        choice.pop("prompt_token_ids", None)
        choice.pop("prompt_logprobs", None)
    return value


@pytest.mark.feature("E-02", "S-02")
@pytest.mark.parametrize("name", EXPECTED)
def test_the_accumulated_reply_equals_the_whole_one(name: str) -> None:
    streamed = fold(name)[1].finish()
    full = decode_completion((FIXTURES / "full" / f"{name}.json").read_bytes())
    assert normal(streamed) == normal(full)
    if streamed.usage is not None and full.usage is not None:
        assert streamed.usage.total_tokens == full.usage.total_tokens


@pytest.mark.feature("S-03")
def test_equal_pieces_are_kept_and_a_choice_finishes_once() -> None:
    folded = CompletionAccumulator()
    piece = b'{"choices":[{"index":0,"text":"2","finish_reason":null}]}'
    end = b'{"choices":[{"index":0,"text":"","finish_reason":"stop"}]}'
    events = [e for data in (piece, piece, end, end) for e in folded.push(decode_chunk(data))]
    assert [type(e) for e in events] == [TextDelta, TextDelta, ChoiceFinished]
    assert folded.finish().text == "22"


def test_how_much_is_open_is_told() -> None:
    folded = CompletionAccumulator(4)
    folded.push(decode_chunk(b'{"choices":[{"index":2,"text":"a","finish_reason":"stop"}]}'))
    with pytest.raises(StreamTruncatedError, match="3 of 4 choices are without a finish reason"):
        folded.finish()
