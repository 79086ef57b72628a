"""Chat completions on the wire: the request's fields, whole replies, streamed chunks.

Field names and meanings are vLLM 0.32's (`ChatCompletionRequest` and its replies). Replies are read
tolerantly: `null` equals absent, unknown keys are kept (`extra`), enums are open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal

import msgspec
from typing_extensions import TypeVar

from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.logprobs import ChatLogprobs, PromptLogprobs, RequestMetrics
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ContentBlock,
    Message,
    ReasoningBlock,
    TextBlock,
    ToolCall,
)
from vllm_agent_sdk.types.reply import GeneratedReply
from vllm_agent_sdk.types.request_fields import (
    ChatKeywords,
    GenerationFields,
)

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
]

T = TypeVar("T", default=None)


class ChatDefaults(GenerationFields, total=False):
    """The fields of a chat completion that may be set once for all calls of a client."""

    #: OpenAI: tokens of the reply, reasoning included, 1 or more; wins over `max_tokens`. Unset:
    #: what the context leaves.
    max_completion_tokens: int | None
    #: OpenAI: the older name of `max_completion_tokens`.
    max_tokens: int | None
    #: OpenAI: True reports the log probability of each token of the reply. Unset: False.
    logprobs: bool | None
    #: OpenAI: how many of the likeliest tokens are reported at each place, with `logprobs`; 20 at
    #: most (`--max-logprobs`), -1 for all. Unset: 0.
    top_logprobs: int | None
    #: OpenAI: what the model may call: `@tool` functions and dicts; not an empty list.
    tools: Sequence[Any] | None
    #: OpenAI: `none`, `auto`, `required`, or `{"type": "function", "function": {"name": …}}`.
    #: Unset: `auto` with tools, else `none`.
    tool_choice: Literal["none", "auto", "required"] | Mapping[str, Any] | None
    #: OpenAI: False lets only the first call through. Unset: True.
    parallel_tool_calls: bool | None
    #: OpenAI: how long to think, for templates that know it; anything but `none` switches thinking
    #: on. `max` is vLLM's own.
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    #: vLLM: False leaves reasoning out of the reply; it is generated all the same. Unset: True.
    include_reasoning: bool | None
    #: vLLM: True puts the conversation's last message before the reply, if it is the assistant's.
    #: Unset: False.
    echo: bool | None
    #: vLLM: True ends the prompt with what begins a reply. Unset: True.
    add_generation_prompt: bool | None
    #: vLLM: True goes on with the last message instead of beginning a new one; give
    #: `add_generation_prompt=False` with it. Unset: False.
    continue_final_message: bool | None
    #: vLLM: True adds the tokenizer's special tokens to what the template writes. Unset: False.
    add_special_tokens: bool | None
    #: vLLM: documents for templates that know them, dicts with `title` and `text`.
    documents: Sequence[Mapping[str, Any]] | None
    #: vLLM: a Jinja template instead of the model's; needs `--trust-request-chat-template`.
    chat_template: str | None
    #: vLLM: variables for the chat template.
    chat_template_kwargs: Mapping[str, Any] | None
    #: vLLM: how media are read, by modality; needs `--trust-request-mm-kwargs`.
    media_io_kwargs: Mapping[str, Any] | None
    #: vLLM: arguments for the model's processor; needs `--trust-request-mm-kwargs`.
    mm_processor_kwargs: Mapping[str, Any] | None
    #: vLLM: True reports the prompt as the template wrote it: `reply.prompt_text`.
    return_prompt_text: bool | None


class ChatParams(ChatDefaults, ChatKeywords, total=False):
    """The keywords of `chat.completions.create` and `.stream` beside `messages=`."""


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
    """One of the `n` choices of a whole reply.

    Attributes:
        logprobs: With `logprobs=True`.
        stop_reason: The stop text or stop token that ended it, else `None`.
        token_ids: The reply's tokens, with `return_token_ids=True`.
        routed_experts: Base64 of a numpy array, from servers that report it.
    """

    index: int = 0
    message: ChatMessage = msgspec.field(default_factory=ChatMessage)
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    routed_experts: Any = None


class ChatCompletion(GeneratedReply, Generic[T], dict=True, omit_defaults=True):
    """A whole reply: OpenAI's shape, vLLM's extras, and the short way to what one mostly wants.

    Attributes:
        choices: One per `n`, in order of their index.
        usage: The tokens used, or `None` where the server did not say (a cut or aborted stream).
        prompt_logprobs: With `prompt_logprobs=`, one entry for each token of the prompt.
        prompt_token_ids: The prompt's tokens, with `return_token_ids=True`.
        prompt_text: The prompt as the template wrote it, with `return_prompt_text=True`.
        metrics: From servers with `--enable-per-request-metrics`.
    """

    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    choices: list[ChatChoice] = msgspec.field(default_factory=list[ChatChoice])
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: CompletionUsage | None = None
    prompt_logprobs: PromptLogprobs | None = None
    prompt_token_ids: list[int] | None = None
    prompt_text: str | None = None
    kv_transfer_params: dict[str, Any] | None = None
    ec_transfer_params: dict[str, Any] | None = None
    metrics: RequestMetrics | None = None

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
    logprobs: ChatLogprobs | None = None
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
    metrics: RequestMetrics | None = None

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
