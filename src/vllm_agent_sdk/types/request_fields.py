"""The request's fields that several endpoints share, and the keywords that shape a call.

Each field's comment says whose it is (`OpenAI`: of OpenAI's API; `vLLM`: vLLM's own, as of 0.32),
what it does, its range, and what vLLM takes where it is unset. Unset fields are not sent: the
server's own defaults count, for sampling those of the model's `generation_config.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from vllm_agent_sdk.types.options import Timeout

__all__ = [
    "CALL_KEYWORDS",
    "CallKeywords",
    "ChatKeywords",
    "CommonFields",
    "GenerationFields",
    "GenerationKeywords",
    "StreamOptions",
]


class StreamOptions(TypedDict, total=False):
    """What a stream reports beside its text."""

    #: OpenAI: a last chunk with the usage. Unset: False.
    include_usage: bool | None
    #: vLLM: the usage so far in every chunk; goes with `include_usage`. Unset: False.
    continuous_usage_stats: bool | None


class CallKeywords(TypedDict, total=False):
    """Keywords that shape a call and are not fields of its body."""

    #: The `X-Request-Id`, from which the server makes the reply's id. Unset: a random one.
    request_id: str | None
    #: Whatever else goes into the body; it wins over the fields.
    extra_body: Mapping[str, Any] | None
    #: Headers of this call; `None` removes one of the client's.
    extra_headers: Mapping[str, str | None] | None
    #: The clocks of this call, or seconds in all. Unset: the client's.
    timeout: Timeout | float | None


class GenerationKeywords(CallKeywords, total=False):
    """The same for chat completions and completions, where vLLM reads two headers more."""

    #: vLLM: the data-parallel engine that is to answer, 0 or more, as `X-data-parallel-rank`.
    #: Unset: the server chooses.
    data_parallel_rank: int | None
    #: vLLM: ask how loaded the server is (`endpoint-load-metrics-format`): `reply.server_load`.
    #: For whole replies only: streams do not report it.
    load_metrics: bool | None


class ChatKeywords(GenerationKeywords, total=False):
    """The same for chat completions, with what is decided here."""

    #: True or False; an effort (`none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`); or the
    #: most tokens to think, 0 or more. The fields that the server's model knows are sent; one that
    #: cannot is `UnsupportedByServerError`, before the request. Unset: the model's own way.
    thinking: bool | str | int | None
    #: Read calls that a server without a tool parser left in the text, in the format that the
    #: server's profile names (`call_format`), or the one named here: `hermes`, `qwen_xml`,
    #: `llama_json`, `pythonic`. Unset: False.
    parse_text_calls: bool | str | None
    #: The order of roles, for templates that insist on one: `off`; `merge` joins neighbours of one
    #: role; `strict` also puts what the system says first, and a user before an assistant. Unset:
    #: `off`.
    roles: Literal["off", "merge", "strict"] | None


class CommonFields(TypedDict, total=False):
    """Fields that chat completions, completions and responses share."""

    #: OpenAI: the served model's name. Unset: the client's, else the server's only one.
    model: str | None
    #: OpenAI: 0 to 2; 0 takes the likeliest token each time.
    temperature: float | None
    #: OpenAI: above 0, up to 1: only the likeliest tokens that make up this probability.
    top_p: float | None
    #: OpenAI: -2 to 2; above 0 disfavours tokens that have been written. Unset: 0.
    presence_penalty: float | None
    #: OpenAI: -2 to 2; above 0 disfavours tokens the more, the more often they were written.
    #: Unset: 0.
    frequency_penalty: float | None
    #: OpenAI: token ids to what is added to their logits; -100 to 100, beyond it is cut back.
    logit_bias: Mapping[str, float] | Mapping[int, float] | None
    #: OpenAI: a text, or several, that ends the reply; 4 at most (`VLLM_MAX_STOP_STRINGS`).
    stop: str | Sequence[str] | None
    #: OpenAI: 64 bits, signed; the same seed gives the same reply, as far as the server can.
    seed: int | None
    #: OpenAI: taken by vLLM and without an effect.
    user: str | None
    #: vLLM: only so many of the likeliest tokens; 0 or -1 for all.
    top_k: int | None
    #: vLLM: 0 to 1: only tokens at least so likely, relative to the likeliest. 0 is off.
    min_p: float | None
    #: vLLM: above 0; above 1 disfavours tokens of prompt and reply. 1 is off.
    repetition_penalty: float | None
    #: vLLM: token ids that end the reply.
    stop_token_ids: Sequence[int] | None
    #: vLLM: True keeps the stop text at the end of the reply. Unset: False.
    include_stop_str_in_output: bool | None
    #: vLLM: True goes on after the end-of-sequence token, up to the token limit. Unset: False.
    ignore_eos: bool | None
    #: vLLM: True leaves special tokens out of the text. Unset: True.
    skip_special_tokens: bool | None
    #: vLLM: switch the server's watermark on or off, where it was started with one.
    watermarking: bool | None
    #: vLLM: a constraint on the reply, exactly one of `json`, `regex`, `choice`, `grammar`,
    #: `json_object` and `structural_tag`.
    structured_outputs: Mapping[str, Any] | None
    #: vLLM: lower is earlier; other than 0 needs `--scheduling-policy priority`. Unset: 0.
    priority: int | None
    #: vLLM: the same for all requests of a conversation; a hint for routers and KV connectors.
    session_id: str | None
    #: vLLM: 1 to 128 characters without `@`, `/`, backslash and NUL that keep this prompt's prefix
    #: cache apart from other salts'.
    cache_salt: str | None
    #: vLLM: parameters of the KV transfer, in disaggregated serving.
    kv_transfer_params: Mapping[str, Any] | None
    #: vLLM: the same, of the encoder cache's transfer.
    ec_transfer_params: Mapping[str, Any] | None
    #: vLLM: texts, numbers or lists of them for extensions of the server.
    vllm_xargs: Mapping[str, Any] | None
    #: vLLM: what `/render` routes answer for media; of no effect on generation. Unset: `tensors`.
    mm_payload: Literal["tensors", "none"] | None
    #: vLLM: the older form of `mm_payload`: False is `none`.
    return_mm_kwargs: bool | None


class GenerationFields(CommonFields, total=False):
    """Fields that chat completions and completions share."""

    #: OpenAI: choices for each prompt, 1 or more (16384 at most, `VLLM_MAX_N_SEQUENCES`); 1 at
    #: temperature 0. Unset: 1.
    n: int | None
    #: OpenAI: what a stream reports beside its text; with a stream only.
    stream_options: StreamOptions | None
    #: OpenAI: `{"type": "text" | "json_object" | "json_schema" | "structural_tag", …}`.
    response_format: Mapping[str, Any] | None
    #: vLLM: tokens before the reply may end, 0 or more. Unset: 0.
    min_tokens: int | None
    #: vLLM: words that are not written; 128 at most (`VLLM_MAX_NUM_BAD_WORDS`).
    bad_words: Sequence[str] | None
    #: vLLM: the only tokens that may be written.
    allowed_token_ids: Sequence[int] | None
    #: vLLM: True searches for the `n` likeliest replies instead of sampling. Unset: False.
    use_beam_search: bool | None
    #: vLLM: of a beam search; above 1 favours longer replies. Unset: 1.
    length_penalty: float | None
    #: vLLM: True puts spaces between special tokens. Unset: True.
    spaces_between_special_tokens: bool | None
    #: vLLM: keep so many tokens of the prompt, -1 for as many as the context takes.
    truncate_prompt_tokens: int | None
    #: vLLM: which side is cut off: `left` keeps the last tokens, `right` the first.
    truncation_side: Literal["left", "right"] | None
    #: vLLM: log probabilities of the prompt's tokens with so many likeliest ones beside each, -1
    #: for the whole vocabulary; 20 at most (`--max-logprobs`). Without a stream only.
    prompt_logprobs: int | None
    #: vLLM: up to 128 token ids whose log probabilities are reported at each place; needs
    #: `logprobs`.
    logprob_token_ids: Sequence[int] | None
    #: vLLM: tokens to think, 0 or more, -1 without a limit; needs a reasoning parser on the server.
    thinking_token_budget: int | None
    #: vLLM: True writes tokens in log probabilities as `token_id:N`.
    return_tokens_as_token_ids: bool | None
    #: vLLM: True reports the token ids of prompt and reply.
    return_token_ids: bool | None
    #: vLLM: character offsets of the tokens on `/render` routes; of no effect on generation.
    return_token_offsets: bool | None
    #: vLLM: prompt tokens to leave out of `routed_experts`, 0 or more. Unset: 0.
    routed_experts_prompt_start: int | None
    #: vLLM: `{"max_pattern_size", "min_pattern_size", "min_count"}`: a reply that repeats itself so
    #: ends, with finish reason `repetition`.
    repetition_detection: Mapping[str, int] | None
    #: vLLM: tokens in each chunk of a stream, 1 or more; not below the server's own.
    stream_interval: int | None


#: Keywords that shape the call and are not fields of the body.
CALL_KEYWORDS = frozenset(ChatKeywords.__optional_keys__)
