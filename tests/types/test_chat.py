"""Whole replies: the short way to what one wants, and what is returned when there is nothing."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from vllm_agent_sdk.errors import StreamTruncatedError
from vllm_agent_sdk.types.chat import (
    ChatCompletion,
    CompletionUsage,
    content_text,
    decode_completion,
)
from vllm_agent_sdk.types.logprobs import (
    ChatLogprobs,
    LikelyToken,
    PromptLogprob,
    TokenLogprob,
)
from vllm_agent_sdk.types.messages import AssistantMessage, ReasoningBlock, TextBlock
from vllm_agent_sdk.types.results import ErrorInfo, Usage


def reply(offered: frozenset[str] | None = None, **message: Any) -> ChatCompletion:
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    raw = json.dumps({"id": "c", "choices": [choice]}).encode()
    said = decode_completion(raw)
    said.attach(raw, "r", offered)
    return said


def call(name: str = "f", arguments: str | None = "{}", id: str | None = "c1") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.feature("E-01")
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{}]},
        {"choices": [{"message": {}}]},
        {"choices": [{"message": {"content": None, "tool_calls": None}}]},
        {"choices": [{"message": {"content": [], "tool_calls": []}}]},
    ],
)
def test_a_reply_with_nothing_in_it_is_returned(body: dict[str, Any]) -> None:
    said = decode_completion(json.dumps(body).encode())
    assert (said.text, said.reasoning, said.tool_calls, said.usage) == ("", None, [], None)
    assert said.assistant_message() == AssistantMessage([])
    assert (said.raw, said.extra, said.request_id) == (b"", {}, None)


@pytest.mark.feature("S-04")
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_read_under_both_names(name: str) -> None:
    said = reply(content="18", **{name: "Hm"})
    assert (said.reasoning, said.text) == ("Hm", "18")
    assert said.assistant_message().content == [ReasoningBlock("Hm"), TextBlock("18")]


def test_content_in_parts_is_joined() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url"},
        "odd",
        {"text": 7},
        {"text": "b"},
    ]
    assert reply(content=parts).text == content_text(parts) == "ab"


def test_calls_are_parsed_and_judged_by_what_was_offered() -> None:
    said = reply(
        frozenset({"f"}),
        tool_calls=[call(arguments='{"a": 1}'), call("g", "{", None), call("f", None), {"id": "x"}],
    )
    assert [c.arguments for c in said.tool_calls] == [{"a": 1}, None, {}]
    assert [c.id for c in said.tool_calls] == ["c1", "call_1", "c1"]
    assert [c.unexpected for c in said.tool_calls] == [False, True, False]
    assert said.choices[0].message.tool_calls is not None
    assert said.choices[0].message.tool_calls[0].function is not None
    assert said.choices[0].message.tool_calls[0].function.arguments == '{"a": 1}'
    assert said.assistant_message().tool_calls == said.tool_calls


def test_a_partial_reply_travels_with_its_error() -> None:
    error = pickle.loads(pickle.dumps(StreamTruncatedError("cut", partial=reply(content="half"))))
    assert error.partial.text == "half"


def test_usage_counts_what_the_server_said_and_nothing_else() -> None:
    wire = json.dumps(
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 8},
            "completion_tokens_details": {"reasoning_tokens": 2},
        }
    )
    said = decode_completion(f'{{"usage": {wire}}}'.encode())
    assert Usage.of(said.usage) == Usage(10, 5, 8, 2, 1)
    assert Usage.of(CompletionUsage()) == Usage(requests=1) == Usage.of(None)
    assert Usage.of(said.usage) + Usage.of(None) == Usage(10, 5, 8, 2, 2)
    assert Usage.of(said.usage).total_tokens == 15


def test_an_error_as_data_becomes_the_same_error_again() -> None:
    error = StreamTruncatedError("cut", request_id="r", partial=object())
    info = ErrorInfo.of(error)
    again = info.to_exception()
    assert type(again) is StreamTruncatedError
    assert (again.message, again.request_id, again.partial) == ("cut", "r", None)
    foreign = ErrorInfo.of(KeyError("x")).to_exception()
    assert foreign.message == "KeyError: 'x'"


@pytest.mark.feature("E-01")
def test_log_probabilities_prompts_and_timings_are_typed() -> None:
    likely = {"token": "a", "logprob": -0.5, "bytes": [97]}
    raw = json.dumps(
        {
            "choices": [
                {
                    "logprobs": {"content": [{**likely, "top_logprobs": [likely]}]},
                    "token_ids": [5],
                    "routed_experts": "AAAA",
                }
            ],
            "prompt_logprobs": [None, {"7": {"logprob": -1.5, "rank": 2, "decoded_token": "x"}}],
            "prompt_token_ids": [1, 7],
            "prompt_text": "ax",
            "kv_transfer_params": {"a": 1},
            "metrics": {"queue_time_ms": 1.5, "speculative_decoding": {"num_spec_steps": 3}},
        }
    ).encode()
    said = decode_completion(raw)
    said.attach(raw, None)
    assert said.extra == {}
    (choice,) = said.choices
    assert choice.logprobs == ChatLogprobs(
        [TokenLogprob("a", -0.5, [97], [LikelyToken("a", -0.5, [97])])]
    )
    assert (choice.token_ids, said.prompt_token_ids, said.prompt_text) == ([5], [1, 7], "ax")
    assert said.prompt_logprobs == [None, {"7": PromptLogprob(-1.5, 2, "x")}]
    assert said.metrics is not None
    assert said.metrics.queue_time_ms == 1.5
    assert said.metrics.speculative_decoding is not None
    assert said.metrics.speculative_decoding.num_spec_steps == 3
    assert said.server_load is None
