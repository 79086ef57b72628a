"""Chunks of a completions stream to chat's events and, in the end, the whole reply."""

from __future__ import annotations

from collections.abc import Callable

from vllm_agent_sdk._core.stream.chunk_fold import ChunkFold
from vllm_agent_sdk._core.stream.stall import StallGuard
from vllm_agent_sdk.types.completions import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionChunkChoice,
    CompletionLogprobs,
)
from vllm_agent_sdk.types.events import ChoiceFinished, TextDelta, UsageUpdated

__all__ = ["CompletionAccumulator", "CompletionDelta"]

#: What a chunk of a completions stream can become.
CompletionDelta = TextDelta | ChoiceFinished | UsageUpdated


class _Choice:
    """A choice as it comes in."""

    __slots__ = (
        "finish_reason", "logprobs", "prompt_token_ids", "stall", "stop_reason", "text",
        "token_ids",
    )  # fmt: skip

    def __init__(self) -> None:
        self.text: list[str] = []
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.logprobs: list[CompletionLogprobs] = []
        self.token_ids: list[int] | None = None
        self.prompt_token_ids: list[int] | None = None
        self.stall: StallGuard | None = None


class CompletionAccumulator(ChunkFold[CompletionChunk, _Choice, Completion]):
    """Folds the chunks of one stream.

    Args:
        choices: How many choices were asked for (`n` for each prompt).
        check: Checks the whole reply at the end; raises what is wrong with it.
        constrained: The text is constrained: endless white space ends it.
    """

    def __init__(
        self,
        choices: int = 1,
        check: Callable[[Completion], None] | None = None,
        constrained: bool = False,
    ) -> None:
        super().__init__(choices, CompletionChunk())
        self._check = check
        self._constrained = constrained

    def _push_choice(self, part: CompletionChunkChoice, events: list[CompletionDelta]) -> None:
        index = part.index
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
            if self._constrained:
                choice.stall = StallGuard()
        if part.text:
            choice.text.append(part.text)
            events.append(TextDelta(part.text, index))
            if choice.stall is not None:
                choice.stall.push(part.text)
        if part.token_ids:
            choice.token_ids = (choice.token_ids or []) + part.token_ids
        if part.prompt_token_ids is not None and choice.prompt_token_ids is None:
            choice.prompt_token_ids = part.prompt_token_ids
        if part.logprobs is not None:
            choice.logprobs.append(part.logprobs)
        if part.finish_reason is not None and choice.finish_reason is None:
            choice.finish_reason = part.finish_reason
            choice.stop_reason = part.stop_reason
            events.append(ChoiceFinished(part.finish_reason, part.stop_reason, index))

    def snapshot(self) -> Completion:
        """Give the reply as far as it has come."""
        return Completion(
            **self._shared(),
            choices=[self._whole(index) for index in sorted(self._choices)],
        )

    def _whole(self, index: int) -> CompletionChoice:
        choice = self._choices[index]
        return CompletionChoice(
            index=index,
            text="".join(choice.text),
            logprobs=_joined(choice.logprobs),
            finish_reason=choice.finish_reason,
            stop_reason=choice.stop_reason,
            token_ids=choice.token_ids,
            prompt_token_ids=choice.prompt_token_ids,
        )

    def finish(self) -> Completion:
        """Give the whole reply at the end of the stream, checked."""
        reply = super().finish()
        if self._check is not None:
            self._check(reply)
        return reply


def _joined(parts: list[CompletionLogprobs]) -> CompletionLogprobs | None:
    """Join the log probabilities of a choice's chunks; the offsets go on from chunk to chunk."""
    if not parts:
        return None
    return CompletionLogprobs(
        [offset for part in parts for offset in part.text_offset or ()],
        [value for part in parts for value in part.token_logprobs or ()],
        [token for part in parts for token in part.tokens or ()],
        [top for part in parts for top in part.top_logprobs or ()],
    )
