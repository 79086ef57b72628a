"""The fields of `tokenize` and `detokenize`, as of vLLM 0.32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from vllm_agent_sdk.types.options import Timeout

__all__ = ["CONVERSATION_FIELDS", "DetokenizeParams", "TokenizeParams"]


class DetokenizeParams(TypedDict, total=False):
    """The keywords of `detokenize` beside the tokens."""

    #: vLLM: the served model's name. Unset: the client's, else the server's only one.
    model: str | None
    #: The clocks of this call, or seconds in all. Unset: the client's.
    timeout: Timeout | float | None


class TokenizeParams(DetokenizeParams, total=False):
    """The keywords of `tokenize` beside the prompt or the messages."""

    #: vLLM: True reports the text of each token too. Unset: False.
    return_token_strs: bool | None
    #: vLLM: True adds the tokenizer's special tokens. Unset: True for a text, False for messages.
    add_special_tokens: bool | None
    #: vLLM: with messages: what the model may call, as in the call that is counted.
    tools: Sequence[Any] | None
    #: vLLM: with messages: True ends the prompt with what begins a reply. Unset: True.
    add_generation_prompt: bool | None
    #: vLLM: with messages: True goes on with the last one; give `add_generation_prompt=False` with
    #: it. Unset: False.
    continue_final_message: bool | None
    #: vLLM: with messages: a Jinja template; needs `--trust-request-chat-template`.
    chat_template: str | None
    #: vLLM: with messages: variables for the chat template.
    chat_template_kwargs: Mapping[str, Any] | None
    #: vLLM: with messages: how media are read, by modality.
    media_io_kwargs: Mapping[str, Any] | None
    #: vLLM: with messages: arguments for the model's processor.
    mm_processor_kwargs: Mapping[str, Any] | None


#: Fields that go with messages only.
CONVERSATION_FIELDS = TokenizeParams.__optional_keys__ - {
    "model",
    "timeout",
    "return_token_strs",
    "add_special_tokens",
}
