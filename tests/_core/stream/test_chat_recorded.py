"""Recorded streams of vLLM: what they come to, and that they equal the whole replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from vllm_agent_sdk._core.stream.chat import ChatAccumulator
from vllm_agent_sdk._core.stream.sse import SSEDecoder
from vllm_agent_sdk.errors import StreamFailedError
from vllm_agent_sdk.types.chat import ChatCompletion, decode_chunk, decode_completion
from vllm_agent_sdk.types.events import (
    ChoiceFinished,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallReady,
    UsageUpdated,
)

FIXTURES = Path(__file__).parents[2] / "fixtures"
RECORDED = sorted(path.stem for path in (FIXTURES / "sse").glob("*.sse"))
FAILED = {
    "error_engine_dead_midstream": ("engine has died", 500, "InternalServerError"),
    "error_generation_midstream": ("Internal server error", 500, "InternalServerError"),
    "error_value_midstream": ("boom", 400, "BadRequestError"),
}
WEATHER = "get_weather"
PARIS, ROME = (WEATHER, '{"city": "Paris"}'), (WEATHER, '{"city": "Rome"}')

# name: text, reasoning, calls, finish reason, completion tokens (None: no usage)
EXPECTED: dict[str, tuple[str, str | None, list[tuple[str, str]], str, int | None]] = {
    "hermes_auto_two_calls": ("I will check.", None, [PARIS, ROME], "tool_calls", 131),
    "hermes_malformed": ("", None, [(WEATHER, '{"city": }}')], "tool_calls", None),
    "hermes_named": ("", None, [PARIS], "stop", None),
    "hermes_no_args": ("", None, [(WEATHER, "{}")], "tool_calls", None),
    "hermes_parallel_false": ("I will check.", None, [PARIS], "tool_calls", None),
    "hermes_required": ("", None, [PARIS], "tool_calls", None),
    "hermes_truncated": ("", None, [(WEATHER, '{"city": "Pa')], "length", None),
    "internlm_named": ("", None, [PARIS], "stop", None),
    "internlm_required": ("", None, [PARIS, (WEATHER, '{"city":"R"}')], "tool_calls", None),
    "phi4mini_empty_deltas": ("", None, [], "stop", None),
    "plain_continuous_usage": ("Hello", None, [], "stop", 5),
    "plain_length": ("Hello", None, [], "length", None),
    "plain_usage": ("Hello", None, [], "stop", 5),
    "qwen3_coder_reasoning": (
        "\n\nOK ", "I should think", [(WEATHER, '{"city": "Paris", "n": 5}')], "tool_calls", 124,
    ),
    "qwen3_coder_reasoning_excluded": (
        "\n\nOK ", None, [(WEATHER, '{"city": "Paris", "n": 5}')], "tool_calls", None,
    ),
    "qwen3_truncated_in_thinking": ("", "I should think", [], "length", None),
}  # fmt: skip


def recorded(name: str) -> bytes:
    return (FIXTURES / "sse" / f"{name}.sse").read_bytes()


def fold(*pieces: bytes) -> tuple[list[StreamEvent], ChatAccumulator]:
    decoder, folded = SSEDecoder(), ChatAccumulator()
    events: list[StreamEvent] = []
    for piece in pieces:
        for event in decoder.feed(piece):
            if event != b"[DONE]":
                events += folded.push(decode_chunk(event))
    return events, folded


def reply(name: str) -> ChatCompletion:
    return fold(recorded(name))[1].finish()


def test_every_recorded_stream_has_an_expectation() -> None:
    assert sorted([*EXPECTED, *FAILED]) == RECORDED


@pytest.mark.feature("S-02", "S-05", "S-07")
@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_stream_comes_to_its_reply(name: str) -> None:
    text, reasoning, calls, finish_reason, tokens = EXPECTED[name]
    said = reply(name)
    assert (said.text, said.reasoning, said.finish_reason) == (text, reasoning, finish_reason)
    assert [(call.name, call.arguments_json) for call in said.tool_calls] == calls
    assert (said.usage.completion_tokens if said.usage else None) == tokens
    assert (said.id, said.model, said.created) == ("chatcmpl-X", "m", 1795232869)
    assert said.system_fingerprint == "vllm-0.32.0-deadbeef"
    assert all(call.id.startswith("chatcmpl-tool-") for call in said.tool_calls)


@pytest.mark.feature("S-02", "S-03", "S-05")
@pytest.mark.parametrize("name", EXPECTED)
def test_the_events_of_a_recorded_stream_make_up_its_reply_in_order(name: str) -> None:
    text, reasoning, calls, finish_reason, _ = EXPECTED[name]
    events, _ = fold(recorded(name))
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == text
    assert "".join(e.text for e in events if isinstance(e, ReasoningDelta)) == (reasoning or "")
    for index, (tool, arguments) in enumerate(calls):
        deltas = [e for e in events if isinstance(e, ToolCallDelta) and e.index == index]
        assert deltas[0].id
        assert deltas[0].name == tool
        assert "".join(delta.arguments for delta in deltas) == arguments
    ready = [e.call for e in events if isinstance(e, ToolCallReady)]
    assert [(call.name, call.arguments_json) for call in ready] == calls
    (finished,) = [e for e in events if isinstance(e, ChoiceFinished)]
    assert finished.finish_reason == finish_reason
    after = events[events.index(finished) + 1 :]
    assert all(isinstance(event, UsageUpdated) for event in after)
    before = [e for e in events[: events.index(finished)] if not isinstance(e, UsageUpdated)]
    assert all(isinstance(event, ToolCallReady) for event in before[len(before) - len(ready) :])


@pytest.mark.feature("S-06")
@pytest.mark.parametrize("name", FAILED)
def test_a_recorded_failure_is_a_typed_error_and_what_came_before_is_kept(name: str) -> None:
    text, status, kind = FAILED[name]
    folded = ChatAccumulator()
    with pytest.raises(StreamFailedError, match=text) as caught:  # noqa: PT012
        for event in SSEDecoder().feed(recorded(name)):
            folded.push(decode_chunk(event))
    assert (caught.value.status, caught.value.type) == (status, kind)
    assert caught.value.retryable is False
    assert kind in caught.value.body
    assert folded.snapshot().text == "Hel"


@pytest.mark.feature("S-01", "S-02")
@pytest.mark.parametrize("name", EXPECTED)
def test_cut_in_two_anywhere_the_events_and_the_reply_are_the_same(name: str) -> None:
    stream = recorded(name)
    events, folded = fold(stream)
    for at in range(1, len(stream)):
        again, other = fold(stream[:at], stream[at:])
        assert again == events
        assert other.finish() == folded.finish()


# ── equal to the whole reply, but for what is known to differ ────────────────────────────────────


def whole(name: str) -> ChatCompletion:
    return decode_completion((FIXTURES / "full" / f"{name}.json").read_bytes())


def normal(said: ChatCompletion) -> dict[str, Any]:
    """The reply without ids and counts (of another run), spacing of arguments, null or empty."""
    return {
        "text": said.text.strip() if said.tool_calls else said.text,
        "reasoning": said.reasoning or "",
        "calls": [(call.name, call.arguments) for call in said.tool_calls],
        "finish": [(c.index, c.finish_reason, c.stop_reason) for c in said.choices],
        "model": said.model,
        "fingerprint": said.system_fingerprint,
        "role": said.choices[0].message.role,
    }


@pytest.mark.feature("S-02")
@pytest.mark.parametrize("name", ["hermes_auto_two_calls", "hermes_named", "qwen3_coder_reasoning"])
def test_the_accumulated_reply_equals_the_whole_one(name: str) -> None:
    assert normal(reply(name)) == normal(whole(name))


@pytest.mark.feature("S-02")
def test_cut_while_thinking_both_have_reasoning_and_no_text() -> None:
    # The whole reply was recorded with one token more.
    streamed, full = reply("qwen3_truncated_in_thinking"), whole("qwen3_truncated_in_thinking")
    assert (streamed.reasoning, full.reasoning) == ("I should think", "I should think for")
    assert streamed.text == full.text == ""
    assert streamed.finish_reason == full.finish_reason == "length"


@pytest.mark.feature("S-05")
def test_a_malformed_call_is_a_call_in_the_stream_and_text_in_the_whole_reply() -> None:
    streamed, full = reply("hermes_malformed"), whole("hermes_malformed")
    assert streamed.tool_calls[0].error
    assert not streamed.text
    assert full.text.startswith("<tool_call>")
    assert not full.tool_calls
    assert (streamed.finish_reason, full.finish_reason) == ("tool_calls", "stop")


@pytest.mark.feature("S-05")
def test_arguments_that_only_the_whole_reply_breaks_are_data() -> None:
    # A legacy parser loses the last brace of a named call in the whole reply.
    streamed, full = reply("internlm_named"), whole("internlm_named")
    assert streamed.tool_calls[0].arguments == {"city": "Paris"}
    assert full.tool_calls[0].arguments is None
    assert full.tool_calls[0].arguments_json == '{"city": "Paris"'


@pytest.mark.feature("S-03")
def test_think_tags_that_no_parser_took_out_are_text() -> None:
    full = whole("no_reasoning_parser")
    assert full.text == "<think>hmm</think>answer"
    assert full.choices[0].stop_reason == "X"


@pytest.mark.parametrize("name", sorted(path.stem for path in (FIXTURES / "full").glob("*.json")))
def test_a_whole_reply_keeps_every_field(name: str) -> None:
    raw = (FIXTURES / "full" / f"{name}.json").read_bytes()
    said = decode_completion(raw)
    said.attach(raw, "r-1", None)
    assert said.extra == {}
    assert (said.raw, said.request_id) == (raw, "r-1")

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            inner = {key: kept(item) for key, item in value.items()}
            return {key: item for key, item in inner.items() if item not in (None, 0, [])}
        return [kept(item) for item in value] if isinstance(value, list) else value

    sent = kept(msgspec.json.decode(raw))
    assert kept(msgspec.to_builtins(said)) == sent
