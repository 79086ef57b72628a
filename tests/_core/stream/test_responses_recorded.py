"""Recorded Responses streams: what they come to, wherever they are split or cut."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.stream.responses import ResponseAccumulator
from vllm_agent_sdk._core.stream.sse import SSEDecoder
from vllm_agent_sdk.errors import ProtocolError, StreamTruncatedError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.responses import Response, decode_response
from vllm_agent_sdk.types.responses_events import (
    ResponseCompletedEvent,
    ResponseEvent,
    ResponseUnknownEvent,
    decode_event,
)

pytestmark = pytest.mark.feature("E-03")

FIXTURES = Path(__file__).parents[2] / "fixtures" / "responses"
RECORDED = sorted(path.stem for path in FIXTURES.glob("*.sse"))
WHOLE = sorted(path.stem for path in FIXTURES.glob("*.json"))
PARIS, ROME = ("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})

# name: text, reasoning, calls, status, output tokens
Expectation = tuple[str, str | None, list[tuple[str, dict[str, str]]], str, int]
EXPECTED: dict[str, Expectation] = {
    "plain": ("one one one one one one one one one", None, [], "completed", 27),
    "call_required": ("", None, [PARIS], "completed", 56),
    "text_and_two_calls": ("I will check.", None, [PARIS, ROME], "completed", 108),
    "incomplete": ("I'm sorry for any", None, [], "incomplete", 5),
    "empty": ("", None, [], "completed", 1),
    "reasoning_only": (
        "",
        (
            "user\nI'm a marketing specialist. I'm looking for a new product to sell. "
            "Can you help me find something?"
        ),
        [],
        "completed",
        27,
    ),
    "logprobs": ("Some programs", None, [], "incomplete", 2),
}


@functools.cache
def recorded(name: str) -> bytes:
    return (FIXTURES / f"{name}.sse").read_bytes()


@functools.cache
def decode(stream: bytes) -> tuple[ResponseEvent, ...]:
    return tuple(decode_event(event) for event in SSEDecoder().feed(stream))


def fold(events: Iterable[ResponseEvent]) -> ResponseAccumulator:
    folded = ResponseAccumulator()
    for event in events:
        folded.push(event)
    return folded


def output(response: Response) -> list[Any]:
    """The output in builtins, an empty list equal to none."""

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: kept(item) for key, item in value.items() if item not in (None, [])}
        return [kept(item) for item in value] if isinstance(value, list) else value

    made: list[Any] = kept(_codec.to_builtins(response.output))
    return made


def test_every_recorded_stream_has_an_expectation() -> None:
    assert sorted(EXPECTED) == RECORDED


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_stream_comes_to_its_response(name: str) -> None:
    text, reasoning, calls, status, tokens = EXPECTED[name]
    events = decode(recorded(name))
    said = fold(events).finish()
    assert (said.text, said.reasoning, said.status) == (text, reasoning, status)
    assert [(call.name, call.arguments) for call in said.tool_calls] == calls
    assert said.usage is not None
    assert said.usage.output_tokens == tokens
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert not any(isinstance(event, ResponseUnknownEvent) for event in events)
    assert isinstance(events[-1], ResponseCompletedEvent)


@pytest.mark.parametrize("name", RECORDED)
def test_what_the_events_add_up_to_is_the_last_ones_output(name: str) -> None:
    *events, last = decode(recorded(name))
    assert isinstance(last, ResponseCompletedEvent)
    assert output(fold(events).snapshot()) == output(last.response)
    # … also of the deltas alone, but for what only the last word on an item says.
    pieces = [each for each in events if each.type.endswith((".added", ".delta"))]
    partial = fold(pieces).snapshot()
    assert (partial.text, partial.reasoning) == (last.response.text, last.response.reasoning)
    assert partial.tool_calls == last.response.tool_calls


def end_of(name: str, cut: int) -> StreamTruncatedError | Response:
    """What a stream that ends after so many bytes comes to."""
    decoder, folded = SSEDecoder(), ResponseAccumulator()
    for event in decoder.feed(recorded(name)[:cut]):
        folded.push(decode_event(event))
    tail = decoder.close()
    try:
        if tail is not None:
            folded.push(decode_event(tail))
        return folded.finish()
    except ProtocolError:
        assert not folded.complete
        return StreamTruncatedError("inside an event", partial=folded.snapshot())
    except StreamTruncatedError as error:
        return error


@pytest.mark.feature("S-06")
@pytest.mark.parametrize("name", RECORDED)
def test_cut_anywhere_it_is_an_error_with_what_had_come_or_the_whole_response(name: str) -> None:
    stream = recorded(name)
    whole = fold(decode(stream)).finish()
    complete = stream.rstrip(b"\n")
    longest = ""
    # The first two events hold no output and are long: every 7th place of them is enough.
    begin = stream.index(b"event: response.output_item") if whole.output else 0
    for cut in (*range(0, begin, 7), *range(begin, len(stream) + 1)):
        end = end_of(name, cut)
        if cut >= len(complete):
            assert end == whole
            continue
        assert isinstance(end, StreamTruncatedError)
        text = end.partial.text
        assert whole.text.startswith(text)
        assert len(text) >= len(longest)
        longest = text


@pytest.mark.feature("S-01")
@pytest.mark.parametrize("name", RECORDED)
@given(data=st.data())
def test_split_anywhere_the_events_are_the_same(name: str, data: st.DataObject) -> None:
    stream = recorded(name)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    bounds = list(zip([0, *cuts], [*cuts, len(stream)], strict=True))
    decoder = SSEDecoder()
    events = [e for start, end in bounds for e in decoder.feed(stream[start:end])]
    assert tuple(decode_event(event) for event in events) == decode(stream)
    assert decoder.close() is None


@pytest.mark.feature("S-02")
@pytest.mark.parametrize("name", WHOLE)
def test_the_accumulated_response_equals_the_whole_one(name: str) -> None:
    streamed = fold(decode(recorded(name))).finish()
    whole = decode_response((FIXTURES / f"{name}.json").read_bytes())

    def normal(said: Response) -> dict[str, Any]:
        made: dict[str, Any] = _codec.to_builtins(said)
        made["output"] = [
            # A whole response leaves out the status of reasoning.
            item | dict.fromkeys(("id", "call_id", "status")) | {"arguments": call_arguments(item)}
            for item in output(said)
        ]
        return made | {"created_at": 0}

    def call_arguments(item: dict[str, Any]) -> Any:
        return _codec.decode(item["arguments"].encode()) if "arguments" in item else None

    assert normal(streamed) == normal(whole)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_response_keeps_every_field(name: str) -> None:
    raw = (FIXTURES / f"{name}.json").read_bytes()
    said = decode_response(raw)
    said.attach(raw, "r-1", None)
    assert said.extra == {}
    assert (said.raw, said.request_id) == (raw, "r-1")

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            inner = {key: kept(item) for key, item in value.items()}
            return {k: v for k, v in inner.items() if v not in (None, 0, [], "", {}, "response")}
        return [kept(item) for item in value] if isinstance(value, list) else value

    sent = kept(_codec.decode(raw))
    for item in sent.get("output", ()):
        for part in item.get("content", ()):
            part.pop("type")  # the default
    made = kept(_codec.to_builtins(said))
    for item in made.get("output", ()):
        for part in item.get("content", ()):
            part.pop("type", None)
    assert made == sent
