"""Chat completions on the wire: the request's fields, whole replies, streamed chunks.

Field names and meanings are vLLM 0.32's (`ChatCompletionRequest` and its replies). Replies are read
tolerantly: `null` equals absent, unknown keys are kept (`extra`), enums are open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, TypedDict

import msgspec
from typing_extensions import TypeVar

from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ContentBlock,
    Message,
    ReasoningBlock,
    TextBlock,
    ToolCall,
)
from vllm_agent_sdk.types.options import Timeout
from vllm_agent_sdk.types.reply import WireReply

__all__ = [
    "ChatChoice",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatDefaults",
    "ChatMessage",
    "ChatParams",
    "ChatToolCall",
    "ChunkChoice",
    "CompletionUsage",
    "FunctionCall",
    "StreamOptions",
]

T = TypeVar("T", default=None)


class StreamOptions(TypedDict, total=False):
    """What a stream reports beside its text."""

    include_usage: bool
    continuous_usage_stats: bool


class ChatDefaults(TypedDict, total=False):
    """The request's fields that may be set once for all calls of a client.

    Unset fields are not sent: the server's own defaults count (vLLM takes sampling defaults from
    the model's `generation_config.json`).
    """

    # OpenAI's fields
    max_completion_tokens: int | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    n: int | None
    stop: str | list[str] | None
    stream_options: StreamOptions | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[str, float] | None
    logprobs: bool | None
    top_logprobs: int | None
    seed: int | None
    response_format: Mapping[str, Any] | None
    tools: Sequence[Any] | None
    tool_choice: Literal["none", "auto", "required"] | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    user: str | None
    # vLLM's own
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    min_tokens: int | None
    ignore_eos: bool | None
    stop_token_ids: list[int] | None
    include_stop_str_in_output: bool | None
    bad_words: list[str] | None
    allowed_token_ids: list[int] | None
    use_beam_search: bool | None
    length_penalty: float | None
    skip_special_tokens: bool | None
    spaces_between_special_tokens: bool | None
    truncate_prompt_tokens: int | None
    truncation_side: Literal["left", "right"] | None
    prompt_logprobs: int | None
    logprob_token_ids: list[int] | None
    thinking_token_budget: int | None
    include_reasoning: bool | None
    structured_outputs: Mapping[str, Any] | None
    echo: bool | None
    add_generation_prompt: bool | None
    continue_final_message: bool | None
    add_special_tokens: bool | None
    documents: list[dict[str, Any]] | None
    chat_template: str | None
    chat_template_kwargs: Mapping[str, Any] | None
    media_io_kwargs: Mapping[str, Any] | None
    mm_processor_kwargs: Mapping[str, Any] | None
    priority: int | None
    session_id: str | None
    return_tokens_as_token_ids: bool | None
    return_token_ids: bool | None
    return_prompt_text: bool | None
    cache_salt: str | None
    kv_transfer_params: Mapping[str, Any] | None
    ec_transfer_params: Mapping[str, Any] | None
    vllm_xargs: Mapping[str, Any] | None
    repetition_detection: Mapping[str, int] | None
    stream_interval: int | None
    watermarking: bool | None
    routed_experts_prompt_start: int | None


class ChatParams(ChatDefaults, total=False):
    """The keywords of `chat.completions.create` and `.stream`."""

    model: str | None
    request_id: str
    extra_body: Mapping[str, Any] | None
    extra_headers: Mapping[str, str | None] | None
    timeout: Timeout | float | None


#: Keywords that shape the call and are not fields of the body.
CALL_KEYWORDS = frozenset({"request_id", "extra_body", "extra_headers", "timeout"})
#: Fields of the body.
CHAT_FIELDS = (
    frozenset(ChatParams.__annotations__) | frozenset(ChatDefaults.__annotations__)
) - CALL_KEYWORDS

#: A message in a request: one of our classes, or a dict in the wire's shape.
WireMessage = Message | Mapping[str, Any]


class PromptTokensDetails(msgspec.Struct, omit_defaults=True):
    """Details of the prompt's tokens (vLLM: with `--enable-prompt-tokens-details`)."""

    cached_tokens: int | None = None
    created_cache_tokens: int | None = None
    multimodal_tokens: int | None = None


class CompletionTokensDetails(msgspec.Struct, omit_defaults=True):
    """Details of the reply's tokens (vLLM: with a reasoning parser)."""

    reasoning_tokens: int | None = None


class CompletionUsage(msgspec.Struct, omit_defaults=True):
    """Tokens of one request, as the server counts them."""

    prompt_tokens: int = 0
    completion_tokens: int | None = None
    total_tokens: int = 0
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None


class FunctionCall(msgspec.Struct, omit_defaults=True):
    """Name and arguments of a call; the arguments are JSON text."""

    name: str | None = None
    arguments: str | None = None


class ChatToolCall(msgspec.Struct, omit_defaults=True):
    """A call on the wire; in a stream, a piece of one."""

    id: str | None = None
    function: FunctionCall | None = None
    type: str | None = None
    index: int | None = None


class ChatMessage(msgspec.Struct, omit_defaults=True):
    """The message of a whole reply."""

    role: str | None = None
    content: str | list[Any] | None = None
    refusal: str | None = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None
    tool_calls: list[ChatToolCall] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class ChatChoice(msgspec.Struct, omit_defaults=True):
    """One of the `n` choices of a whole reply."""

    index: int = 0
    message: ChatMessage = msgspec.field(default_factory=ChatMessage)
    logprobs: Any = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    routed_experts: Any = None


class ChatCompletion(WireReply, Generic[T], dict=True, omit_defaults=True):
    """A whole reply: OpenAI's shape, vLLM's extras, and the short way to what one mostly wants.

    Attributes:
        choices: One per `n`, in order of their index.
        usage: The tokens used, or `None` where the server did not say (a cut or aborted stream).
    """

    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    choices: list[ChatChoice] = msgspec.field(default_factory=list[ChatChoice])
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: CompletionUsage | None = None
    prompt_logprobs: Any = None
    prompt_token_ids: list[int] | None = None
    prompt_text: str | None = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None
    metrics: Any = None

    def set_parsed(self, value: Any) -> None:
        """Keep the value that the reply was read as."""
        vars(self)["_parsed"] = value

    @property
    def parsed(self) -> T | None:
        """The first choice as a value of `response_type=`; `None` on a refusal or tool calls."""
        return self.__dict__.get("_parsed")

    @property
    def _message(self) -> ChatMessage:
        return self.choices[0].message if self.choices else ChatMessage()

    @property
    def text(self) -> str:
        """The first choice's text; `""` if it has none."""
        return content_text(self._message.content)

    @property
    def reasoning(self) -> str | None:
        """What the model thought, under whichever name the server sent it, or `None`."""
        return self._message.reasoning or self._message.reasoning_content

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended: `stop`, `length`, `tool_calls`, `abort`, `repetition`, …."""
        return self.choices[0].finish_reason if self.choices else None

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The first choice's calls, arguments parsed; empty if there are none.

        Replies are judged by the calls present, never by `finish_reason`.
        """
        offered = self.__dict__.get("_offered")
        return [
            ToolCall.from_text(
                call.id or f"call_{position}",
                call.function.name or "",
                call.function.arguments or "",
                unexpected=offered is not None and call.function.name not in offered,
            )
            for position, call in enumerate(self._message.tool_calls or ())
            if call.function is not None
        ]

    def assistant_message(self) -> AssistantMessage:
        """The message to append to the conversation before the calls' results."""
        blocks: list[ContentBlock] = []
        if self.reasoning:
            blocks.append(ReasoningBlock(self.reasoning))
        if self.text:
            blocks.append(TextBlock(self.text))
        return AssistantMessage([*blocks, *self.tool_calls])


class ChunkDelta(msgspec.Struct, omit_defaults=True, gc=False):
    """What a chunk adds."""

    content: str | None = None
    role: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ChatToolCall] | None = None


class ChunkChoice(msgspec.Struct, omit_defaults=True, gc=False):
    """One choice's part of a chunk; vLLM sends one choice a chunk."""

    index: int = 0
    delta: ChunkDelta | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: Any = None
    token_ids: list[int] | None = None


class ChatCompletionChunk(msgspec.Struct, omit_defaults=True, dict=True):
    """One chunk of a stream, in the wire's shape.

    `error` is set in the frame that a server sends when a stream fails.
    """

    choices: list[ChunkChoice] | None = None
    usage: CompletionUsage | None = None
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    error: Any = None
    prompt_token_ids: list[int] | None = None
    prompt_text: str | None = None
    metrics: Any = None

    @property
    def raw(self) -> bytes:
        """The chunk's JSON as the server sent it."""
        raw: bytes = self.__dict__.get("_raw", b"")
        return raw

    def with_raw(self, raw: bytes) -> ChatCompletionChunk:
        """Keep the bytes."""
        vars(self)["_raw"] = raw
        return self


decode_completion = _codec.decoder(ChatCompletion)
decode_chunk = _codec.decoder(ChatCompletionChunk)


def content_text(content: str | list[Any] | None) -> str:
    """Join the text of a wire message's content (text, or a list of parts)."""
    if isinstance(content, str):
        return content
    return "".join(
        part["text"]
        for part in content or ()
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    )
