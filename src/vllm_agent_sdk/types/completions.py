"""Legacy completions on the wire: text in, text out, without a chat template.

Field names and meanings are vLLM 0.32's (`CompletionRequest` and its replies). Replies are read
tolerantly: `null` equals absent, unknown keys are kept (`extra`), enums are open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.chat import CompletionUsage
from vllm_agent_sdk.types.logprobs import PromptLogprobs, RequestMetrics
from vllm_agent_sdk.types.reply import GeneratedReply
from vllm_agent_sdk.types.request_fields import GenerationFields, GenerationKeywords

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


class CompletionFields(GenerationFields, total=False):
    """The fields of a completion beside the prompt."""

    #: OpenAI: tokens of the reply; 0 together with `echo`, to score a prompt. Unset: 16.
    max_tokens: int | None
    #: OpenAI: the log probability of each token, with so many of the likeliest ones beside it; 20
    #: at most (`--max-logprobs`), -1 for all.
    logprobs: int | None
    #: OpenAI: True puts the prompt before the reply's text. Unset: False.
    echo: bool | None
    #: OpenAI: what comes after the reply; for fill-in-the-middle models only.
    suffix: str | None
    #: vLLM: tensors instead of a prompt, base64; needs `--enable-prompt-embeds`.
    prompt_embeds: str | Sequence[str] | None
    #: vLLM: True begins the prompt with the tokenizer's special tokens. Unset: True.
    add_special_tokens: bool | None


class CompletionParams(CompletionFields, GenerationKeywords, total=False):
    """The keywords of `completions.create` and `.stream` beside `prompt=`."""


class CompletionLogprobs(msgspec.Struct, omit_defaults=True):
    """Log probabilities, one entry a token; with `echo` the prompt's come first."""

    text_offset: list[int] | None = None
    token_logprobs: list[float | None] | None = None
    tokens: list[str] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class CompletionChoice(msgspec.Struct, omit_defaults=True):
    """One choice of a whole reply; its index is `prompt * n + choice`.

    Attributes:
        stop_reason: The stop text or stop token that ended it, else `None`.
        token_ids: The reply's tokens, with `return_token_ids=True`.
        prompt_logprobs: With `prompt_logprobs=`, one entry for each token of its prompt.
        prompt_token_ids: Its prompt's tokens, with `return_token_ids=True`.
        routed_experts: Base64 of a numpy array, from servers that report it.
    """

    index: int = 0
    text: str = ""
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None
    prompt_token_ids: list[int] | None = None
    routed_experts: Any = None


class Completion(GeneratedReply, dict=True, omit_defaults=True):
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
    kv_transfer_params: dict[str, Any] | None = None
    ec_transfer_params: dict[str, Any] | None = None
    metrics: RequestMetrics | None = None

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
    metrics: RequestMetrics | None = None

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
