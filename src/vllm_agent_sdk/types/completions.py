"""Legacy completions on the wire: text in, text out, without a chat template.

Field names and meanings are vLLM 0.32's (`CompletionRequest` and its replies). Replies are read
tolerantly: `null` equals absent, unknown keys are kept (`extra`), enums are open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

import msgspec

from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.chat import CALL_KEYWORDS, CompletionUsage, StreamOptions
from vllm_agent_sdk.types.options import Timeout
from vllm_agent_sdk.types.reply import WireReply

__all__ = [
    "Completion",
    "CompletionChoice",
    "CompletionChunk",
    "CompletionChunkChoice",
    "CompletionLogprobs",
    "CompletionParams",
    "CompletionPrompt",
]

#: A text, several texts, token ids, or several lists of token ids.
CompletionPrompt: TypeAlias = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


class CompletionParams(TypedDict, total=False):
    """The keywords of `completions.create` and `.stream` beside the prompt.

    Unset fields are not sent: the server's own defaults count (vLLM takes sampling defaults from
    the model's `generation_config.json`).

    Attributes:
        model: The served model's name; unset: the client's, else the server's only one.
        echo: Put the prompt before the reply's text.
        frequency_penalty: -2 to 2.
        logit_bias: Token ids (as text) to what is added to their logits, -100 to 100.
        logprobs: How many of the likeliest tokens are reported at each place; the server's limit
            is `--max-logprobs` (20).
        max_tokens: Tokens of the reply; 16 where unset, 0 only together with `echo`.
        n: Choices for each prompt; 1 at temperature 0.
        presence_penalty: -2 to 2.
        seed: A 64-bit number.
        stop: Up to 4 texts that end the reply.
        stream_options: What a stream reports beside its text.
        suffix: What comes after the reply; for fill-in-the-middle models only.
        temperature: 0 to 2.
        top_p: Above 0, up to 1.
        user: Taken and ignored.
        use_beam_search: Search for the `n` likeliest replies; not with a stream.
        top_k: 1 or more; -1 or 0 for all.
        min_p: 0 to 1.
        repetition_penalty: Above 0; 1 is none.
        watermarking: Switch the server's watermark on or off.
        length_penalty: Of a beam search.
        stop_token_ids: Tokens that end the reply.
        include_stop_str_in_output: Keep the stop text.
        ignore_eos: Go on to `max_tokens`.
        min_tokens: Tokens before the reply may end.
        skip_special_tokens: Leave special tokens out of the text (the default).
        spaces_between_special_tokens: Put spaces between them (the default).
        truncate_prompt_tokens: Keep so many tokens of the prompt; -1 for the model's context.
        truncation_side: What is cut off: `"left"` keeps the last tokens, `"right"` the first.
        allowed_token_ids: The only tokens that may be said.
        prompt_logprobs: The same as `logprobs` for the prompt's tokens, -1 for all of the
            vocabulary; not with a stream.
        logprob_token_ids: Tokens whose log probabilities are reported at each place.
        bad_words: Words that are not said.
        prompt_embeds: Tensors instead of a prompt, base64 (`--enable-prompt-embeds`).
        add_special_tokens: Begin the prompt with the model's own tokens (the default).
        response_format: Text, JSON, a JSON Schema or a structural tag.
        structured_outputs: One of `json`, `regex`, `choice`, `grammar`, `json_object`,
            `structural_tag`.
        priority: Lower is earlier (`--scheduling-policy priority`); 0 where unset.
        session_id: Tells routers which requests belong together.
        return_tokens_as_token_ids: Write tokens in log probabilities as `token_id:N`.
        return_token_ids: Report the token ids of prompt and reply.
        routed_experts_prompt_start: Prompt tokens to leave out of the routed experts.
        cache_salt: 1 to 128 characters that keep the prefix cache apart.
        kv_transfer_params: For disaggregated serving.
        ec_transfer_params: The same, for encoder caches.
        vllm_xargs: For extensions of the server.
        repetition_detection: When to end a reply that repeats itself.
        thinking_token_budget: Tokens to think; -1 for no limit.
        stream_interval: Tokens in each chunk of a stream, 1 or more.
        request_id: Sent as `X-Request-Id`.
        extra_body: Whatever else goes into the body.
        extra_headers: Headers of this call; `None` removes one of the client's.
        timeout: The clocks of this call, or seconds in all.
    """

    # OpenAI's fields
    model: str | None
    echo: bool | None
    frequency_penalty: float | None
    logit_bias: Mapping[str, float] | None
    logprobs: int | None
    max_tokens: int | None
    n: int | None
    presence_penalty: float | None
    seed: int | None
    stop: str | list[str] | None
    stream_options: StreamOptions | None
    suffix: str | None
    temperature: float | None
    top_p: float | None
    user: str | None
    # vLLM's own
    use_beam_search: bool | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    watermarking: bool | None
    length_penalty: float | None
    stop_token_ids: list[int] | None
    include_stop_str_in_output: bool | None
    ignore_eos: bool | None
    min_tokens: int | None
    skip_special_tokens: bool | None
    spaces_between_special_tokens: bool | None
    truncate_prompt_tokens: int | None
    truncation_side: Literal["left", "right"] | None
    allowed_token_ids: list[int] | None
    prompt_logprobs: int | None
    logprob_token_ids: list[int] | None
    bad_words: list[str] | None
    prompt_embeds: str | list[str] | None
    add_special_tokens: bool | None
    response_format: Mapping[str, Any] | None
    structured_outputs: Mapping[str, Any] | None
    priority: int | None
    session_id: str | None
    return_tokens_as_token_ids: bool | None
    return_token_ids: bool | None
    routed_experts_prompt_start: int | None
    cache_salt: str | None
    kv_transfer_params: Mapping[str, Any] | None
    ec_transfer_params: Mapping[str, Any] | None
    vllm_xargs: Mapping[str, Any] | None
    repetition_detection: Mapping[str, int] | None
    thinking_token_budget: int | None
    stream_interval: int | None
    # the call's
    request_id: str
    extra_body: Mapping[str, Any] | None
    extra_headers: Mapping[str, str | None] | None
    timeout: Timeout | float | None


#: Fields of the body.
COMPLETION_FIELDS = frozenset(CompletionParams.__annotations__) - CALL_KEYWORDS


class CompletionLogprobs(msgspec.Struct, omit_defaults=True):
    """Log probabilities, one entry a token; with `echo` the prompt's come first."""

    text_offset: list[int] | None = None
    token_logprobs: list[float | None] | None = None
    tokens: list[str] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class CompletionChoice(msgspec.Struct, omit_defaults=True):
    """One choice of a whole reply; its index is `prompt * n + choice`."""

    index: int = 0
    text: str = ""
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    prompt_logprobs: list[dict[str, Any] | None] | None = None
    prompt_token_ids: list[int] | None = None
    routed_experts: Any = None


class Completion(WireReply, dict=True, omit_defaults=True):
    """A whole reply: OpenAI's shape, vLLM's extras, and the short way to what one mostly wants.

    Attributes:
        choices: `n` for each prompt, in order of their index.
        usage: The tokens used, or `None` where the server did not say (a cut or aborted stream).
    """

    id: str = ""
    object: str = "text_completion"
    created: int = 0
    model: str = ""
    choices: list[CompletionChoice] = msgspec.field(default_factory=list[CompletionChoice])
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: CompletionUsage | None = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None
    metrics: Any = None

    @property
    def text(self) -> str:
        """The first choice's text; `""` if it has none."""
        return self.choices[0].text if self.choices else ""

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended: `stop`, `length`, `abort`, `repetition`, …."""
        return self.choices[0].finish_reason if self.choices else None


class CompletionChunkChoice(msgspec.Struct, omit_defaults=True, gc=False):
    """One choice's part of a chunk; vLLM sends one choice a chunk."""

    index: int = 0
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: CompletionLogprobs | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class CompletionChunk(msgspec.Struct, omit_defaults=True, dict=True):
    """One chunk of a stream, in the wire's shape.

    `error` is set in the frame that a server sends when a stream fails.
    """

    choices: list[CompletionChunkChoice] | None = None
    usage: CompletionUsage | None = None
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    error: Any = None
    metrics: Any = None

    @property
    def raw(self) -> bytes:
        """The chunk's JSON as the server sent it."""
        raw: bytes = self.__dict__.get("_raw", b"")
        return raw

    def with_raw(self, raw: bytes) -> CompletionChunk:
        """Keep the bytes."""
        vars(self)["_raw"] = raw
        return self


decode_completion = _codec.decoder(Completion)
decode_chunk = _codec.decoder(CompletionChunk)


def prompt_count(prompt: object) -> int:
    """Count the prompts in a request; a list of token ids is one."""
    if prompt is None:
        return 0
    if isinstance(prompt, str) or not isinstance(prompt, Sequence):
        return 1
    return 1 if not prompt or isinstance(prompt[0], int) else len(prompt)
