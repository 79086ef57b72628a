"""What fills the context, and what of it the server had in its prefix cache."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from vllm_agent_sdk.types._codec import Record

__all__ = ["CacheReport", "CacheTurn", "ContextUsage", "Prefix", "PrefixBreak"]

#: What made a request other than a continuation of the one before it.
PrefixBreak: TypeAlias = Literal[
    "tools changed",
    "system text changed",
    "history rewritten",
    "dialect changed",
    "compacted",
    "model changed",
    "template options changed",
]


class Prefix(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a request begins, next to the one before it.

    Bytes are those of the prompt's parts as they are sent: the tools, then the messages.

    Attributes:
        sent_bytes: Of this request.
        previous_bytes: Of the request before it; `None` if it is not known (the first one).
        kept_bytes: How many of those this one begins with: where they differ, where they do.
        cause: Why it does not begin with all of them.
    """

    sent_bytes: int
    previous_bytes: int | None = None
    kept_bytes: int | None = None
    cause: PrefixBreak | None = None


class CacheTurn(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model call could find in the server's prefix cache, and what it found.

    Attributes:
        turn: The run's turn; a turn that was asked again has several.
        prefix: How the request begins; `None` if nothing was sent.
        input_tokens: Tokens of the request; 0 where the server did not say.
        expected_tokens: Tokens of what the server has seen before: those of the last request, and
            of a broken prefix the part before the break (estimated by its bytes). `None` for a
            first request, and after one of which the server told no count. Whole blocks are
            cached: up to a block fewer can be found.
        cached_tokens: Tokens that came from the cache; `None`: the server does not say (it needs
            `--enable-prompt-tokens-details`).
    """

    turn: int
    prefix: Prefix | None = None
    input_tokens: int = 0
    expected_tokens: int | None = None
    cached_tokens: int | None = None


class CacheReport(Record, frozen=True):
    """What a session's model calls found in the prefix cache (`session.explain_cache()`).

    Attributes:
        turns: The model calls of all its runs, in order.
        block_size: Tokens that are cached together; `None` where the server's `/metrics` does not
            say (16 on most GPUs, 128 on a CPU).
        prefix_caching: Whether the server caches prefixes; `None`: unknown.
    """

    turns: tuple[CacheTurn, ...]
    block_size: int | None = None
    prefix_caching: bool | None = None

    @property
    def breaks(self) -> tuple[CacheTurn, ...]:
        """The calls whose request did not begin with the one before it."""
        return tuple(
            turn for turn in self.turns if turn.prefix is not None and turn.prefix.cause is not None
        )

    @property
    def missed(self) -> tuple[CacheTurn, ...]:
        """The calls that found fewer tokens than whole blocks of what was expected hold."""
        block = self.block_size or 1
        return tuple(
            turn
            for turn in self.turns
            if turn.cached_tokens is not None
            and turn.expected_tokens is not None
            and turn.cached_tokens < turn.expected_tokens // block * block
        )

    def explain(self) -> str:
        """Say it in words, a line for each call."""
        lines = [f"The server caches {self._said()}."]
        for number, turn in enumerate(self.turns, 1):
            expected = "nothing" if turn.expected_tokens is None else f"{turn.expected_tokens}"
            found = "unknown" if turn.cached_tokens is None else f"{turn.cached_tokens}"
            line = f"call {number}: {turn.input_tokens} tokens, expected {expected}, found {found}"
            prefix = turn.prefix
            if prefix is not None and prefix.cause is not None:
                line += f"; broken at byte {prefix.kept_bytes}: {prefix.cause}"
            lines.append(line)
        if self.turns and all(turn.cached_tokens is None for turn in self.turns):
            lines.append(
                "What was found is unknown: start the server with --enable-prompt-tokens-details."
            )
        return "\n".join(lines)

    def _said(self) -> str:
        if self.prefix_caching is False:
            return "no prefixes (--no-enable-prefix-caching)"
        if self.block_size is None:
            return "prefixes in blocks of a size that it does not tell"
        return f"prefixes in blocks of {self.block_size} tokens"


class ContextUsage(Record, frozen=True):
    """What fills the model's window (`session.context_usage()`), in tokens.

    The parts add up to `total`: each is what the request would be shorter without it.

    Attributes:
        system: The system text, and worked turns before the conversation.
        tools: What tells the model of its tools (in text turns a part of the system message).
        messages: The conversation, by the role it is sent with: `user`, `assistant`, `tool`.
        total: All of it, with what begins the reply.
        window: Tokens the model can read and write in one call; `None` for unknown.
        free: What of the window is left; `None` for unknown.
        exact: True if the server counted all of it (`/tokenize`); for False the split, or all, is
            estimated by bytes.
    """

    system: int
    tools: int
    messages: dict[str, int]
    total: int
    window: int | None
    free: int | None
    exact: bool
