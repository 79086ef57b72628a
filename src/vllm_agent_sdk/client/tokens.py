"""Counting tokens as the server does: `vllm.tokenize`, `vllm.detokenize`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vllm_agent_sdk._core.transcript import wire_messages
from vllm_agent_sdk.client.calls import Calls
from vllm_agent_sdk.client.requests import wire_tool
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.chat import WireMessage
from vllm_agent_sdk.types.options import Timeout
from vllm_agent_sdk.types.server import DetokenizeReply, TokenizeReply, decode_text, decode_tokens

__all__ = ["Tokens"]


class Tokens:
    """Counting tokens as the server does."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def tokenize(
        self,
        prompt: str | None = None,
        *,
        messages: Iterable[WireMessage] | None = None,
        tools: Iterable[Any] | None = None,
        model: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        return_token_strs: bool = False,
        timeout: Timeout | float | None = None,
    ) -> TokenizeReply:
        """Tokenise a text, or a conversation with its tools as the chat template renders them.

        Raises:
            UsageError: Neither or both of `prompt` and `messages` are given.
            UnsupportedByServerError: A proxy does not pass `/tokenize` on.
        """
        if (prompt is None) == (messages is None):
            raise UsageError("tokenize() takes either a prompt or messages=.")
        body: dict[str, Any] = {"model": await self._calls.resolve_model(model)}
        if messages is None:
            if tools is not None or chat_template_kwargs is not None:
                raise UsageError("tools= and chat_template_kwargs= go with messages=.")
            body["prompt"] = prompt
        else:
            body["messages"] = wire_messages(messages)
            if tools is not None:
                body["tools"] = [wire_tool(tool) for tool in tools]
            if chat_template_kwargs is not None:
                body["chat_template_kwargs"] = chat_template_kwargs
        if return_token_strs:
            body["return_token_strs"] = True
        reply = await self._calls.post("/tokenize", body, timeout=timeout)
        return decode_tokens(reply)

    async def detokenize(
        self,
        tokens: Iterable[int],
        *,
        model: str | None = None,
        timeout: Timeout | float | None = None,
    ) -> DetokenizeReply:
        """Give the text of token ids."""
        body = {"model": await self._calls.resolve_model(model), "tokens": list(tokens)}
        return decode_text(await self._calls.post("/detokenize", body, timeout=timeout))
