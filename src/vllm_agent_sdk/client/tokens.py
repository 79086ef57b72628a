"""Counting tokens as the server does: `vllm.tokenize`, `vllm.detokenize`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from vllm_agent_sdk._core.dialect.transcript import wire_messages
from vllm_agent_sdk.client.calls import Calls
from vllm_agent_sdk.client.fields import check_fields
from vllm_agent_sdk.client.requests import wire_tools
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.chat import WireMessage
from vllm_agent_sdk.types.server import DetokenizeReply, TokenizeReply, decode_text, decode_tokens
from vllm_agent_sdk.types.tokens import CONVERSATION_FIELDS, DetokenizeParams, TokenizeParams

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
        **params: Unpack[TokenizeParams],
    ) -> TokenizeReply:
        """Tokenise a text, or a conversation with its tools as the chat template renders them.

        With the messages, tools and template variables of a call, `count` is the call's
        `usage.prompt_tokens`.

        Args:
            prompt: A text.
            messages: Our message classes and wire dicts, mixed as you like.
            params: The request's other fields (`TokenizeParams`), and `timeout`.

        Raises:
            UsageError: Neither or both of `prompt` and `messages` are given, or a keyword cannot
                work.
            UnsupportedByServerError: A proxy does not pass `/tokenize` on.
        """
        check_fields(params, TokenizeParams, "tokenize")
        if (prompt is None) == (messages is None):
            raise UsageError("tokenize() takes either a prompt or messages=.")
        body: dict[str, Any] = {"model": None}
        if messages is not None:
            body["messages"] = wire_messages(messages)
        else:
            if astray := sorted(CONVERSATION_FIELDS & params.keys()):
                raise UsageError(f"{astray[0]}= can only go with messages=.")
            if not isinstance(prompt, str):
                raise UsageError(f"tokenize() takes a text, not {type(prompt).__name__}.")
            body["prompt"] = prompt
        body.update((name, value) for name, value in params.items() if name != "timeout")
        if body.get("tools") is not None:
            body["tools"] = wire_tools(body["tools"])
        if body.get("continue_final_message") and body.get("add_generation_prompt"):
            raise UsageError(
                "continue_final_message=True and add_generation_prompt=True exclude each other."
            )
        body["model"] = await self._calls.resolve_model(params.get("model"))
        timeout = params.get("timeout")
        return await self._calls.ask(
            "/tokenize", decode_tokens, body=body, root=True, timeout=timeout
        )

    async def detokenize(
        self,
        tokens: Iterable[int],
        **params: Unpack[DetokenizeParams],
    ) -> DetokenizeReply:
        """Give the text of token ids.

        Raises:
            UsageError: They are no whole numbers of 0 or more.
        """
        check_fields(params, DetokenizeParams, "detokenize")
        ids = list(tokens)
        for token in ids:
            if type(token) is not int or token < 0:
                raise UsageError(f"detokenize() takes token ids, 0 or more; {token!r} is none.")
        body = {"model": await self._calls.resolve_model(params.get("model")), "tokens": ids}
        timeout = params.get("timeout")
        return await self._calls.ask(
            "/detokenize", decode_text, body=body, root=True, timeout=timeout
        )
