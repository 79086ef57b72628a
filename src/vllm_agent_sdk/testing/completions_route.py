"""The route of legacy completions: scripted text in the very bytes of vLLM 0.32."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.testing import checks, wire
from vllm_agent_sdk.testing.exchange import Answer, SimulatorRequest
from vllm_agent_sdk.testing.fields import FieldCheck
from vllm_agent_sdk.testing.jsontypes import is_list
from vllm_agent_sdk.testing.reply import Chat, Reply, ReplyUsage
from vllm_agent_sdk.testing.settings import Settings
from vllm_agent_sdk.testing.tokens import Prompts
from vllm_agent_sdk.types import _codec

__all__ = ["CompletionsRoute"]

#: Gives a request's number and the reply whose turn it is.
Next: TypeAlias = Callable[[SimulatorRequest], Awaitable[tuple[int, Reply]]]


@dataclass(frozen=True)
class _Facts:
    """What of a request decides how its reply looks."""

    id: str
    model: str
    version: str
    prompts: tuple[tuple[str, list[int]], ...]
    n: int
    echo: bool
    only_echo: bool
    include_usage: bool
    continuous_usage: bool

    @property
    def fingerprint(self) -> str:
        return f"vllm-{self.version}-deadbeef"

    @property
    def prompt_tokens(self) -> int:
        return sum(len(ids) for _, ids in self.prompts)


class CompletionsRoute:
    """Answers completions with the texts of a script; each choice of each prompt gets the same.

    Args:
        settings: How the server was started.
        prompts: How it counts.
        fields: What requests are held against.
        next_reply: What gives the replies, in order.
        failed: Called with what a reply that makes no sense here raises; gives the answer.
    """

    def __init__(
        self,
        settings: Settings,
        prompts: Prompts,
        fields: FieldCheck,
        next_reply: Next,
        failed: Callable[[Exception], Answer],
    ) -> None:
        self._settings = settings
        self._prompts = prompts
        self._fields = fields
        self._next = next_reply
        self._failed = failed

    def answer(self, request: SimulatorRequest) -> Awaitable[Answer]:
        """Give the answer to a request.

        Raises:
            RefusedError: The request is one that vLLM refuses.
        """
        body = checks.read_body(request)
        if body.get("stream_options") and not body.get("stream"):
            raise _refused(
                "Stream options can only be defined when `stream=True`.", "stream_options"
            )
        self._fields.check(request.method, request.path, body)
        prompts = self._read_prompts(body)
        if body.get("suffix"):
            raise checks.RefusedError(
                "suffix is only supported for models with FIM completion rendering", param="suffix"
            )
        checks.check_model(body, self._settings.model)
        max_tokens = body.get("max_tokens")
        only_echo = max_tokens == 0 and bool(body.get("echo"))
        if isinstance(max_tokens, int) and max_tokens < 1 and not only_echo:
            raise checks.RefusedError(
                f"max_tokens must be at least 1, got {max_tokens}. "
                f"(parameter=max_tokens, value={max_tokens})",
                param="max_tokens",
            )
        checks.check_sampling({**body, "max_tokens": None})
        for _, ids in prompts:
            checks.check_length(len(ids), self._settings.max_model_len)
        return self._reply(request, body, prompts, only_echo)

    def _read_prompts(self, body: Mapping[str, Any]) -> tuple[tuple[str, list[int]], ...]:
        prompt: Any = body.get("prompt")
        if prompt is None or prompt == "":
            raise _refused(
                "Either prompt or prompt_embeds must be provided and non-empty.", "prompt"
            )
        if prompt == []:
            raise checks.RefusedError("You must pass at least one prompt")
        single = isinstance(prompt, str) or (is_list(prompt) and isinstance(prompt[0], int))
        vocabulary = self._prompts.vocabulary
        return tuple(
            (one, vocabulary.encode(one))
            if isinstance(one, str)
            else (vocabulary.decode(one), list(one))
            for one in ([prompt] if single else prompt)
        )

    async def _reply(
        self,
        request: SimulatorRequest,
        body: Mapping[str, Any],
        prompts: tuple[tuple[str, list[int]], ...],
        only_echo: bool,
    ) -> Answer:
        options: dict[str, Any] = body.get("stream_options") or {}
        include_usage = bool(options.get("include_usage"))
        try:
            number, reply = await self._next(request)
            if isinstance(reply.body, Chat) and (reply.body.calls or reply.body.reasoning):
                raise UsageError("A completion has text only: use Reply.text.")
            random_id = hashlib.sha256(f"request {number}".encode()).hexdigest()[:16]
            facts = _Facts(
                id=f"cmpl-{request.headers.get('x-request-id') or random_id}",
                model=self._settings.model,
                version=self._settings.version,
                prompts=prompts,
                n=body.get("n") or 1,
                echo=bool(body.get("echo")),
                only_echo=only_echo,
                include_usage=include_usage,
                continuous_usage=include_usage and bool(options.get("continuous_usage_stats")),
            )
            if not isinstance(reply.body, Chat):
                return wire.fixed_answer(reply, reply.body)
            if body.get("stream"):
                return wire.stream_answer(_chunks(reply.body.text, reply, facts), reply)
            return wire.whole_answer(_whole(reply.body.text, reply, facts), reply)
        except Exception as error:  # noqa: BLE001 - raised again at the end of the block
            return self._failed(error)


def _refused(message: str, parameter: str) -> checks.RefusedError:
    return checks.RefusedError(f"{message} (parameter={parameter})", param=parameter)


def _reason(reply: Reply, facts: _Facts) -> str:
    return "length" if facts.only_echo else reply.options.get("finish_reason", "stop")


def _chunks(text: tuple[str, ...], reply: Reply, facts: _Facts) -> Iterator[bytes]:
    """The chunks, choice by choice and step by step, as interleaved as the engine's own."""
    reason = _reason(reply, facts)
    # An end by length comes on the last piece, one by a stop token on a piece of its own.
    steps = ("",) if facts.only_echo else text if text and reason == "length" else (*text, "")
    choices = [
        (at * facts.n + i, prompt)
        for at, prompt in enumerate(facts.prompts)
        for i in range(facts.n)
    ]
    tokens = 0
    for number, piece in enumerate(steps):
        last = number == len(steps) - 1
        for index, (prompt, ids) in choices:
            tokens += 1
            echoed = facts.echo and number == 0
            choice: dict[str, Any] = {"index": index, "text": prompt + piece if echoed else piece}
            choice["logprobs"] = None
            choice["finish_reason"] = reason if last else None
            choice["stop_reason"] = reply.options.get("stop_reason") if last else None
            choice["prompt_token_ids"] = ids if echoed else None
            choice["token_ids"] = None
            tail: dict[str, Any] = {}
            if facts.continuous_usage:
                tail["usage"] = _usage(reply, facts, tokens)
            if last and not facts.include_usage:
                tail["system_fingerprint"] = facts.fingerprint
            yield _chunk(facts, [choice], tail)
    if facts.include_usage:
        tail = {"usage": _usage(reply, facts, tokens), "system_fingerprint": facts.fingerprint}
        yield _chunk(facts, [], tail)


def _chunk(facts: _Facts, choices: list[dict[str, Any]], tail: Mapping[str, Any]) -> bytes:
    chunk = {
        "id": facts.id,
        "object": "text_completion",
        "created": wire.CREATED,
        "model": facts.model,
        "choices": choices,
        **tail,
    }
    return b"data: " + _codec.encode(chunk) + b"\n\n"


def _usage(reply: Reply, facts: _Facts, tokens: int, whole: bool = False) -> dict[str, Any]:
    scripted: ReplyUsage = reply.options.get("usage", {})
    prompt = scripted.get("prompt_tokens", facts.prompt_tokens)
    completion = scripted.get("completion_tokens", tokens)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
    }
    details: dict[str, Any] | None = None
    if "cached_tokens" in scripted:
        details = {"cached_tokens": scripted["cached_tokens"]}
        if whole:
            details.update(created_cache_tokens=None, multimodal_tokens=None)
    if whole or details:
        usage["prompt_tokens_details"] = details
    if whole:
        usage["completion_tokens_details"] = None
    return usage


def _whole(text: tuple[str, ...], reply: Reply, facts: _Facts) -> dict[str, Any]:
    said = "" if facts.only_echo else "".join(text)
    reason = _reason(reply, facts)
    steps = 1 if facts.only_echo else len(text) + (not (text and reason == "length"))
    nothing = ("token_ids", "prompt_logprobs", "prompt_token_ids", "routed_experts")
    choices = [
        {
            "index": at * facts.n + i,
            "text": prompt + said if facts.echo else said,
            "logprobs": None,
            "finish_reason": reason,
            "stop_reason": reply.options.get("stop_reason"),
            **dict.fromkeys(nothing),
        }
        for at, (prompt, _) in enumerate(facts.prompts)
        for i in range(facts.n)
    ]
    return {
        "id": facts.id,
        "object": "text_completion",
        "created": wire.CREATED,
        "model": facts.model,
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": facts.fingerprint,
        "usage": _usage(reply, facts, steps * len(choices), whole=True),
        **dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics")),
    }
