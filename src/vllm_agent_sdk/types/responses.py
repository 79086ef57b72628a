"""Responses on the wire: the request's fields and whole responses.

Field names and meanings are vLLM 0.32's (`ResponsesRequest`, `ResponsesResponse`). Responses are
read tolerantly: `null` equals absent, unknown keys are kept (`extra`), enums are open. The events
of a stream are in `responses_events`, what goes in and comes out in `responses_items`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ContentBlock,
    ReasoningBlock,
    TextBlock,
    ToolCall,
)
from vllm_agent_sdk.types.reply import WireReply
from vllm_agent_sdk.types.request_fields import CallKeywords, CommonFields
from vllm_agent_sdk.types.responses_items import ResponseItem
from vllm_agent_sdk.types.timing import Timing

__all__ = [
    "Finished",
    "Response",
    "ResponseInputTokensDetails",
    "ResponseOutputTokensDetails",
    "ResponseParams",
    "ResponseUsage",
    "decode_response",
]


class ResponseFields(CommonFields, total=False):
    """The fields of a response beside `input=`."""

    #: OpenAI: True goes on after the connection is gone; needs the server's store. Unset: False.
    background: bool | None
    #: OpenAI: more to report, such as `"message.output_text.logprobs"`.
    include: Sequence[str] | None
    #: OpenAI: the system's message, put before the input; not carried over to later responses.
    instructions: str | None
    #: OpenAI: tokens of the output, reasoning included, 1 or more; cut back to what the context
    #: leaves. Unset: all that is left.
    max_output_tokens: int | None
    #: OpenAI: counts only in the loop of tools that the server runs (gpt-oss).
    max_tool_calls: int | None
    #: OpenAI: given back as it is, up to 16 pairs.
    metadata: Mapping[str, str] | None
    #: OpenAI: False lets only the first call through. Unset: True.
    parallel_tool_calls: bool | None
    #: OpenAI: continue a stored response; needs the server's store.
    previous_response_id: str | None
    #: OpenAI: `{"effort": "none" … "xhigh"}`; anything but `none` switches thinking on.
    reasoning: Mapping[str, Any] | None
    #: OpenAI: taken and given back, without an effect.
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None
    #: OpenAI: keep the response; without the server's store it is silently not kept. Unset: True.
    store: bool | None
    #: OpenAI: `{"format": {"type": "json_schema", …}}`, a constraint on the output.
    text: Mapping[str, Any] | None
    #: OpenAI: `auto`, `none`, `required` or `{"type": "function", "name": …}`. Unset: `auto`.
    tool_choice: Literal["none", "auto", "required"] | Mapping[str, Any] | None
    #: OpenAI: `@tool` functions and dicts (`{"type": "function", "name": …}`, `custom`, `mcp`, …).
    tools: Sequence[Any] | None
    #: OpenAI: 0 to 20, with `include=["message.output_text.logprobs"]`. Unset: 0.
    top_logprobs: int | None
    #: OpenAI: `auto` cuts the prompt's first tokens off, blindly, to fit the context. Unset:
    #: `disabled`.
    truncation: Literal["auto", "disabled"] | None
    #: OpenAI: taken by vLLM and without an effect.
    prompt_cache_key: str | None
    #: vLLM: False leaves reasoning out of the output; it is generated all the same. Unset: True.
    include_reasoning: bool | None
    #: vLLM: variables for the chat template.
    chat_template_kwargs: Mapping[str, Any] | None
    #: vLLM: how media are read, by modality; needs `--trust-request-mm-kwargs`.
    media_io_kwargs: Mapping[str, Any] | None
    #: vLLM: arguments for the model's processor; needs `--trust-request-mm-kwargs`.
    mm_processor_kwargs: Mapping[str, Any] | None
    #: vLLM: True adds the prompt's and the output's tokens (`input_messages`, `output_messages`).
    enable_response_messages: bool | None
    #: vLLM: earlier messages in Harmony's form; not together with `previous_response_id`.
    previous_input_messages: Sequence[Mapping[str, Any]] | None


class ResponseParams(ResponseFields, CallKeywords, total=False):
    """The keywords of `responses.create` and `.stream` beside `input=`.

    `request_id` becomes the response's id.
    """


class ResponseInputTokensDetails(msgspec.Struct, omit_defaults=True):
    """Details of the prompt's tokens."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0
    input_tokens_per_turn: list[int] = []
    cached_tokens_per_turn: list[int] = []


class ResponseOutputTokensDetails(msgspec.Struct, omit_defaults=True):
    """Details of the output's tokens."""

    reasoning_tokens: int = 0
    tool_output_tokens: int = 0
    output_tokens_per_turn: list[int] = []
    tool_output_tokens_per_turn: list[int] = []


class ResponseUsage(msgspec.Struct, omit_defaults=True):
    """Tokens of one request, as the server counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: ResponseInputTokensDetails | None = None
    output_tokens_details: ResponseOutputTokensDetails | None = None


class IncompleteDetails(msgspec.Struct, omit_defaults=True):
    """Why a response is incomplete: `max_output_tokens` in vLLM."""

    reason: str | None = None


class Response(WireReply, dict=True, omit_defaults=True):
    """A response: OpenAI's shape, vLLM's extras, and the short way to what one mostly wants.

    The request's own `text` and `reasoning` come back as `text_config` and `reasoning_config`:
    `.text` and `.reasoning` are what the model wrote and thought.

    Attributes:
        status: `completed`, `incomplete`, `in_progress`, `queued`, `cancelled` or `failed`.
        output: The items, in order.
        incomplete_details: Why it is `incomplete`.
        error: What went wrong in a `failed` one, where the server says it (vLLM does not).
    """

    id: str = ""
    object: str = "response"
    created_at: float = 0
    model: str = ""
    status: str | None = None
    output: list[ResponseItem] = msgspec.field(default_factory=list[ResponseItem])
    usage: ResponseUsage | None = None
    incomplete_details: IncompleteDetails | None = None
    error: Any = None
    instructions: Any = None
    metadata: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    tool_choice: Any = None
    tools: list[Any] | None = None
    background: bool | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    previous_response_id: str | None = None
    prompt: Any = None
    service_tier: str | None = None
    truncation: str | None = None
    user: str | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None
    input_messages: Any = None
    output_messages: Any = None
    metrics: Any = None
    text_config: Any = msgspec.field(default=None, name="text")
    reasoning_config: Any = msgspec.field(default=None, name="reasoning")

    @property
    def text(self) -> str:
        """The text of all messages; `""` if there is none."""
        return "".join(item.text for item in self.output if item.type == "message")

    @property
    def output_text(self) -> str:
        """The same as `text`, under OpenAI's name."""
        return self.text

    @property
    def reasoning(self) -> str | None:
        """What the model thought, or `None`."""
        return "".join(item.text for item in self.output if item.type == "reasoning") or None

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The function calls, arguments parsed; empty if there are none.

        Calls of custom tools (free text) and of tools that the server runs are in `output` only.
        """
        offered = self.__dict__.get("_offered")
        return [
            ToolCall.from_text(
                item.call_id or item.id or f"call_{position}",
                item.tool_name,
                item.arguments or "",
                unexpected=offered is not None and item.tool_name not in offered,
            )
            for position, item in enumerate(self.output)
            if item.type == "function_call"
        ]

    def assistant_message(self) -> AssistantMessage:
        """The message to append to the conversation before the calls' results."""
        blocks: list[ContentBlock] = []
        if self.reasoning:
            blocks.append(ReasoningBlock(self.reasoning))
        if self.text:
            blocks.append(TextBlock(self.text))
        return AssistantMessage([*blocks, *self.tool_calls])


class Finished(msgspec.Struct, frozen=True):
    """The last event of a stream, exactly one.

    Attributes:
        response: The whole response.
        timing: How long it took.
    """

    response: Response
    timing: Timing


decode_response = _codec.decoder(Response)
