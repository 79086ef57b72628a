"""Log probabilities and timings in replies, as vLLM 0.32 reports them."""

from __future__ import annotations

import msgspec

__all__ = [
    "ChatLogprobs",
    "LikelyToken",
    "PromptLogprob",
    "PromptLogprobs",
    "RequestMetrics",
    "SpeculativeDecodingMetrics",
    "TokenLogprob",
]


class LikelyToken(msgspec.Struct, omit_defaults=True):
    """A token that could have been written, and its log probability (-9999 for none at all)."""

    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None


class TokenLogprob(msgspec.Struct, omit_defaults=True):
    """A token that was written, and the likeliest ones at its place."""

    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None
    top_logprobs: list[LikelyToken] | None = None


class ChatLogprobs(msgspec.Struct, omit_defaults=True):
    """Log probabilities of a chat choice, one entry for each token."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class PromptLogprob(msgspec.Struct, omit_defaults=True):
    """How likely a token of the prompt was.

    Attributes:
        logprob: Its log probability.
        rank: Its place among all tokens, 1 for the likeliest.
        decoded_token: Its text.
    """

    logprob: float = 0.0
    rank: int | None = None
    decoded_token: str | None = None


#: For each token of the prompt those at its place, by token id (as text); `None` for the first.
PromptLogprobs = list[dict[str, PromptLogprob] | None]


class SpeculativeDecodingMetrics(msgspec.Struct, omit_defaults=True):
    """How many of the drafted tokens were taken."""

    mean_acceptance_length: float | None = None
    draft_acceptance_rate: float | None = None
    acceptance_histogram: list[int] | None = None
    num_spec_steps: int | None = None
    num_accepted_draft_tokens: int | None = None
    num_draft_tokens: int | None = None
    num_spec_tokens: int | None = None
    per_step_accepted: list[int] | None = None
    per_step_drafted: list[int] | None = None


class RequestMetrics(msgspec.Struct, omit_defaults=True):
    """What the server measured of one request (`--enable-per-request-metrics`, one choice)."""

    time_to_first_token_ms: float | None = None
    generation_time_ms: float | None = None
    queue_time_ms: float | None = None
    mean_itl_ms: float | None = None
    tokens_per_second: float | None = None
    speculative_decoding: SpeculativeDecodingMetrics | None = None
