"""Every keyword of a request reaches the wire, and vLLM has no field that has no keyword."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM
from vllm_agent_sdk.errors import VLLMError
from vllm_agent_sdk.testing.fields import table
from vllm_agent_sdk.types.chat import ChatParams
from vllm_agent_sdk.types.completions import CompletionParams
from vllm_agent_sdk.types.request_fields import (
    CALL_KEYWORDS,
    CommonFields,
    GenerationFields,
    StreamOptions,
)
from vllm_agent_sdk.types.responses import ResponseParams
from vllm_agent_sdk.types.tokens import DetokenizeParams, TokenizeParams

from .support import HI, WEATHER, served

#: A field added to a `TypedDict` needs a sample here: these are what is sent, with what a field
#: cannot go without.
COMMON: dict[str, Any] = {
    "model": "sim-model", "temperature": 0.5, "top_p": 0.9, "presence_penalty": -1.5,
    "frequency_penalty": 1, "logit_bias": {"7": -100.0}, "stop": ["a", "b"], "seed": -3,
    "user": "u", "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1, "stop_token_ids": [1, 2],
    "include_stop_str_in_output": True, "ignore_eos": True, "skip_special_tokens": False,
    "watermarking": True, "structured_outputs": {"json": {"type": "object"}}, "priority": -1,
    "session_id": "s", "cache_salt": "salt", "kv_transfer_params": {"a": 1},
    "ec_transfer_params": {"b": 2}, "vllm_xargs": {"c": [1, "x"]}, "mm_payload": "none",
    "return_mm_kwargs": False,
}  # fmt: skip
GENERATION: dict[str, Any] = COMMON | {
    "n": 2, "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    "response_format": {"type": "text"}, "min_tokens": 1, "bad_words": ["bad"],
    "allowed_token_ids": [1, 2], "use_beam_search": True, "length_penalty": 0.5,
    "spaces_between_special_tokens": False, "truncate_prompt_tokens": -1,
    "truncation_side": "left", "prompt_logprobs": 1, "logprob_token_ids": [3],
    "thinking_token_budget": 8, "return_tokens_as_token_ids": True, "return_token_ids": True,
    "return_token_offsets": True, "routed_experts_prompt_start": 1,
    "repetition_detection": {"max_pattern_size": 4, "min_pattern_size": 1, "min_count": 2},
    "stream_interval": 2,
}  # fmt: skip
CHAT: dict[str, Any] = GENERATION | {
    "max_completion_tokens": 5, "max_tokens": 6, "logprobs": True, "top_logprobs": 2,
    "tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False,
    "reasoning_effort": "low", "include_reasoning": False, "echo": True,
    "add_generation_prompt": False, "continue_final_message": True, "add_special_tokens": True,
    "documents": [{"title": "t", "text": "x"}], "chat_template": "{{ messages }}",
    "chat_template_kwargs": {"enable_thinking": False}, "media_io_kwargs": {"image": {"a": 1}},
    "mm_processor_kwargs": {"b": 2}, "return_prompt_text": True,
}  # fmt: skip
COMPLETIONS: dict[str, Any] = GENERATION | {
    "max_tokens": 6, "logprobs": 2, "echo": True, "suffix": "end", "prompt_embeds": ["AAAA"],
    "add_special_tokens": False,
}  # fmt: skip
RESPONSES: dict[str, Any] = COMMON | {
    "background": True, "include": ["message.output_text.logprobs"], "instructions": "Be brief.",
    "max_output_tokens": 5, "max_tool_calls": 2, "metadata": {"a": "b"},
    "parallel_tool_calls": False, "previous_response_id": "resp_1", "reasoning": {"effort": "low"},
    "service_tier": "auto", "store": True, "text": {"format": {"type": "json_object"}},
    "tool_choice": "required", "tools": [{"type": "function", **WEATHER["function"]}],  # type: ignore[dict-item]
    "top_logprobs": 2, "truncation": "auto", "prompt_cache_key": "k", "include_reasoning": False,
    "chat_template_kwargs": {"a": 1}, "media_io_kwargs": {"image": {"a": 1}},
    "mm_processor_kwargs": {"b": 2}, "enable_response_messages": True,
    "previous_input_messages": [{"role": "user"}],
}  # fmt: skip
TOKENIZE: dict[str, Any] = {
    "model": "sim-model", "return_token_strs": True, "add_special_tokens": False,
    "tools": [WEATHER], "add_generation_prompt": False, "continue_final_message": True,
    "chat_template": "{{ messages }}", "chat_template_kwargs": {"a": 1},
    "media_io_kwargs": {"image": {"a": 1}}, "mm_processor_kwargs": {"b": 2},
}  # fmt: skip
NEEDED: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "logprob_token_ids": {"logprobs": 1},
    "tool_choice": {"tools": CHAT["tools"]},
}
STREAMED = {"stream_options", "stream_interval"}

ENDPOINTS: dict[str, tuple[type, dict[str, Any], str]] = {
    "/v1/chat/completions": (ChatParams, CHAT, "ChatCompletionRequest"),
    "/v1/completions": (CompletionParams, COMPLETIONS, "CompletionRequest"),
    "/v1/responses": (ResponseParams, RESPONSES, "ResponsesRequest"),
    "/tokenize": (TokenizeParams, TOKENIZE, "TokenizeChatRequest"),
    "/detokenize": (DetokenizeParams, {"model": "sim-model"}, "DetokenizeRequest"),
}
#: Given in another way: by the method, by a header, or refused because vLLM refuses it.
OTHERWISE = {"messages", "prompt", "input", "tokens", "stream", "request_id"}


def keys(typed: type) -> frozenset[str]:
    found: frozenset[str] = typed.__optional_keys__  # type: ignore[attr-defined]
    return found


async def call(vllm: AsyncVLLM, path: str, field: str, params: dict[str, Any]) -> None:
    """Make a call with these keywords, as a stream where the field is for streams."""
    if path == "/v1/chat/completions":
        if field in STREAMED:
            await vllm.chat.completions.stream(messages=HI, **params).aclose()
            async with await vllm.chat.completions.create(messages=HI, stream=True, **params):
                return
        await vllm.chat.completions.create(messages=HI, **params)
    elif path == "/v1/completions":
        prompt = None if field == "prompt_embeds" else "a"
        if field in STREAMED:
            async with await vllm.completions.create(prompt=prompt, stream=True, **params):
                return
        await vllm.completions.create(prompt=prompt, **params)
    elif path == "/v1/responses":
        await vllm.responses.create(input="Hi", **params)
    elif path == "/tokenize":
        await vllm.tokenize(messages=HI, **params)
    else:
        await vllm.detokenize([1, 2], **params)


FIELDS = [(p, name) for p, (typed, _, _) in ENDPOINTS.items() for name in sorted(keys(typed))]


@pytest.mark.feature("E-01", "E-05")
@pytest.mark.parametrize(
    ("path", "field"), [each for each in FIELDS if each[1] not in CALL_KEYWORDS]
)
async def test_every_field_is_in_the_bytes_sent(path: str, field: str) -> None:
    _, samples, _ = ENDPOINTS[path]
    assert field in samples, f"{field}= has no sample: add one to test_fields.py"
    needed = dict(NEEDED.get(field, {}))
    if "logprobs" in needed:
        needed["logprobs"] = samples.get("logprobs")
    if path == "/v1/responses":
        needed = {"tools": RESPONSES["tools"]} if field == "tool_choice" else {}
    params = {**needed, field: samples[field]}
    async with served() as (server, vllm):
        try:
            await call(vllm, path, field, params)
        except VLLMError:
            # The simulator may not have what the field asks for; what counts is what was sent.
            assert server.requests, "nothing was sent"
        sent = next(request for request in server.requests if request.path == path)
    assert sent.json[field] == samples[field]
    own = {"messages", "prompt", "input", "tokens", "model", "stream", "request_id"}
    assert set(sent.json) - own == set(params) - {"model"}


@pytest.mark.feature("E-01", "E-05")
@pytest.mark.parametrize("path", ENDPOINTS)
async def test_all_fields_of_the_server_are_keywords_and_no_other(path: str) -> None:
    typed, _, name = ENDPOINTS[path]
    fields = set(table().types[name]["fields"])
    assert len(fields) > 1
    assert keys(typed) - CALL_KEYWORDS == fields - OTHERWISE


@pytest.mark.feature("E-01")
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    ("params", "header", "value"),
    [
        ({"request_id": "r-1"}, "x-request-id", "r-1"),
        ({"extra_headers": {"x-mine": "1"}}, "x-mine", "1"),
        ({"data_parallel_rank": 3}, "x-data-parallel-rank", "3"),
        ({"data_parallel_rank": 0}, "x-data-parallel-rank", "0"),
        ({"load_metrics": True}, "endpoint-load-metrics-format", "JSON"),
        ({"load_metrics": False}, "endpoint-load-metrics-format", None),
        ({"data_parallel_rank": None}, "x-data-parallel-rank", None),
    ],
)
async def test_the_calls_own_keywords_are_headers_and_not_in_the_body(
    path: str, params: dict[str, Any], header: str, value: str | None
) -> None:
    async with served() as (server, vllm):
        await call(vllm, path, "", params)
        (request,) = server.requests
    assert request.headers.get(header) == value
    assert not set(params) & set(request.json)


@pytest.mark.feature("E-01")
async def test_extra_body_is_in_the_body() -> None:
    async with served(check_fields=False) as (server, vllm):
        for path in ENDPOINTS.keys() - {"/tokenize", "/detokenize"}:
            await call(vllm, path, "", {"extra_body": {"later": [1]}, "timeout": 5})
    assert [request.json["later"] for request in server.requests] == [[1]] * 3
    assert all("timeout" not in request.json for request in server.requests)


@pytest.mark.feature("E-01")
async def test_a_rank_is_sent_with_a_stream_too() -> None:
    async with served() as (server, vllm):
        await vllm.chat.completions.stream(messages=HI, data_parallel_rank=1).final()
        await vllm.completions.stream(prompt="a", data_parallel_rank=1).final()
    ranks = [request.headers["x-data-parallel-rank"] for request in server.requests]
    assert ranks == ["1", "1"]


def test_every_keyword_has_a_sample_and_every_sample_a_keyword() -> None:
    for typed, samples, _ in ENDPOINTS.values():
        assert set(samples) == keys(typed) - CALL_KEYWORDS
    assert keys(StreamOptions) == set(CHAT["stream_options"])
    assert keys(CommonFields) == set(COMMON)
    assert keys(GenerationFields) == set(GENERATION)


def test_what_no_keyword_is_for_is_given_otherwise() -> None:
    for typed, _, _ in ENDPOINTS.values():
        assert not keys(typed) & OTHERWISE - {"request_id"}
    known: Mapping[str, Any] = table().types
    for name in OTHERWISE:
        assert any(name in known[type_]["fields"] for *_, type_ in ENDPOINTS.values())
