"""One model call: its stream to deltas for whoever watches, and to the message it comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from vllm_agent_sdk._core.guided_stream import GuidedParser
from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.errors import ConstraintIgnoredError, VLLMError
from vllm_agent_sdk.types.chat import ChatCompletion
from vllm_agent_sdk.types.events import (
    ChoiceFinished,
    Finished,
    ModelEnded,
    StreamEvent,
    TextDelta,
)
from vllm_agent_sdk.types.messages import AssistantMessage, ReasoningBlock, ToolCall
from vllm_agent_sdk.types.results import ErrorInfo, Usage

__all__ = ["ModelCall"]


class ModelCall:
    """A model call under way.

    Args:
        client: The server.
        params: The keywords of the call.
        turn: The turn it is for.
        guided: True if the reply is in the delimiters of guided turns.
        taken: Ids of calls that the conversation has seen.
        publish: Gets each delta.
    """

    def __init__(
        self,
        client: AsyncVLLM,
        params: Mapping[str, Any],
        *,
        turn: int,
        guided: bool,
        taken: set[str],
        publish: Callable[[StreamEvent], None],
    ) -> None:
        self._client = client
        self._params = params
        self._turn = turn
        self._publish = publish
        self._taken = taken
        self._parser = GuidedParser(f"call_{turn}_") if guided else None
        self._stream = client.chat.completions.stream(**params)
        self.error: VLLMError | None = None

    async def run(self) -> ModelEnded:
        """Read the stream to its end; errors are in the event, never raised."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        reply: ChatCompletion[Any] | None = None
        ttft: float | None = None
        try:
            async with self._stream:
                async for event in self._stream:
                    if isinstance(event, Finished):
                        reply, ttft = event.completion, event.timing.first_token_s
                    elif not isinstance(event, ChoiceFinished):
                        self._pass_on(event)
        except VLLMError as error:
            self.error = error
        self._finish_parsing()
        said = reply if reply is not None else self._stream.partial
        message = self._message(said)
        if reply is not None and self._ignored():
            self.error = ConstraintIgnoredError(
                "The server did not apply the constraint of the turn: the reply is outside the "
                f"given form: {said.text[:200]!r}. Is its structured output switched off?",
                partial=message,
            )
        refused = said.choices[0].message.refusal if said.choices else None
        return ModelEnded(
            turn=self._turn,
            message=message,
            error=None if self.error is None else ErrorInfo.of(self.error),
            finish_reason="refusal" if refused else said.finish_reason,
            usage=Usage.of(said.usage),
            duration_s=loop.time() - begun,
            ttft_s=ttft,
            request_id=said.request_id,
        )

    def partial(self) -> AssistantMessage:
        """Give what has been said so far, for a call that is interrupted."""
        self._finish_parsing()
        return self._message(self._stream.partial)

    def _pass_on(self, event: StreamEvent) -> None:
        if self._parser is not None and isinstance(event, TextDelta):
            for parsed in self._parser.push(event.text):
                self._publish(parsed)
        else:
            self._publish(event)

    def _finish_parsing(self) -> None:
        if self._parser is not None:
            for parsed in self._parser.finish():
                self._publish(parsed)

    def _ignored(self) -> bool:
        return self._parser is not None and self._parser.ignored

    def _message(self, said: ChatCompletion[Any]) -> AssistantMessage:
        return with_unique_ids(self._as_message(said), self._taken, self._turn)

    def _as_message(self, said: ChatCompletion[Any]) -> AssistantMessage:
        if self._parser is None:
            return said.assistant_message()
        blocks = self._parser.blocks()
        if said.reasoning and not any(isinstance(block, ReasoningBlock) for block in blocks):
            blocks.insert(0, ReasoningBlock(said.reasoning))
        return AssistantMessage(blocks, verbatim=self._parser.verbatim or None)


def with_unique_ids(message: AssistantMessage, taken: set[str], turn: int) -> AssistantMessage:
    """Rename calls whose id the conversation has seen (servers count from 0 again)."""
    seen = set(taken)
    blocks = list(message.content)
    for at, block in enumerate(blocks):
        if isinstance(block, ToolCall):
            call_id, number = block.id, 1
            while call_id in seen:
                number += 1
                call_id = f"{block.id}_{turn}_{number}"
            seen.add(call_id)
            blocks[at] = block.with_id(call_id)
    return AssistantMessage(blocks, verbatim=message.verbatim)
