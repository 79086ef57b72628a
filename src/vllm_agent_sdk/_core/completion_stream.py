"""Chunks of a completions stream to chat's events and, in the end, the whole reply.

1. Text is never de-duplicated, trimmed or re-ordered: deltas `2`, `2` give `22`.
2. Complete means: no error frame, and a finish reason for each choice of each prompt.
   `[DONE]` proves nothing (vLLM sends it after an error too).
"""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk._core.failures import stream_failure
from vllm_agent_sdk.errors import StreamTruncatedError
from vllm_agent_sdk.types.chat import CompletionUsage
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
        "finish_reason", "logprobs", "prompt_token_ids", "stop_reason", "text", "token_ids",
    )  # fmt: skip

    def __init__(self) -> None:
        self.text: list[str] = []
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.logprobs: list[CompletionLogprobs] = []
        self.token_ids: list[int] | None = None
        self.prompt_token_ids: list[int] | None = None


class CompletionAccumulator:
    """Folds the chunks of one stream.

    Args:
        choices: How many choices were asked for (`n` for each prompt).
    """

    def __init__(self, choices: int = 1) -> None:
        self._expected = choices
        self._choices: dict[int, _Choice] = {}
        self._head = CompletionChunk()
        self._fingerprint: str | None = None
        self._metrics: Any = None
        self.usage: CompletionUsage | None = None
        self.chunks = 0

    @property
    def complete(self) -> bool:
        """True when every choice that was asked for has its finish reason."""
        finished = sum(choice.finish_reason is not None for choice in self._choices.values())
        return finished >= self._expected

    def push(self, chunk: CompletionChunk) -> list[CompletionDelta]:
        """Take a chunk; give the events it makes.

        Raises:
            StreamFailedError: The chunk is the server's error frame.
        """
        if chunk.error is not None:
            raise stream_failure(chunk.error)
        if self.chunks == 0:
            self._head = chunk
        self.chunks += 1
        events: list[CompletionDelta] = []
        for part in chunk.choices or ():
            self._push_choice(part, events)
        if chunk.usage is not None:
            self.usage = chunk.usage
            events.append(UsageUpdated(chunk.usage))
        if chunk.system_fingerprint is not None:
            self._fingerprint = chunk.system_fingerprint
        if chunk.metrics is not None:
            self._metrics = chunk.metrics
        return events

    def _push_choice(self, part: CompletionChunkChoice, events: list[CompletionDelta]) -> None:
        index = part.index
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
        if part.text:
            choice.text.append(part.text)
            events.append(TextDelta(part.text, index))
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
        head = self._head
        return Completion(
            id=head.id or "",
            created=head.created or 0,
            model=head.model or "",
            choices=[self._whole(index) for index in sorted(self._choices)],
            system_fingerprint=self._fingerprint,
            usage=self.usage,
            metrics=self._metrics,
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
        """Give the whole reply at the end of the stream.

        Raises:
            StreamTruncatedError: It is not complete; `partial` holds what had come.
        """
        reply = self.snapshot()
        if not self.complete:
            raise StreamTruncatedError(
                "The stream ended before the reply was complete: "
                f"{self._open()} without a finish reason after {self.chunks} chunks.",
                partial=reply,
            )
        return reply

    def _open(self) -> str:
        if self._expected == 1:
            return "the reply is"
        finished = sum(choice.finish_reason is not None for choice in self._choices.values())
        return f"{self._expected - finished} of {self._expected} choices are"


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
