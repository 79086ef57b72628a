"""The context window: how full it is, and older messages made into a summary."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from vllm_agent_sdk._core.log import Log
from vllm_agent_sdk._core.run_state import State
from vllm_agent_sdk.agent.turns import TurnWriter
from vllm_agent_sdk.agent.world import World
from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.errors import VLLMError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.events import Compacted
from vllm_agent_sdk.types.messages import Message, UserMessage
from vllm_agent_sdk.types.results import ErrorInfo, Usage

__all__ = ["COUNT_FROM", "ContextMeter", "summarise"]

#: The server counts exactly once the estimate has passed this part of the window.
COUNT_FROM = 0.7
#: Bytes of text for a token, at least: an estimate that is rather too high.
_BYTES_PER_TOKEN = 3
#: What is left for an answer at least when a turn is clamped to the window.
_LEAST = 1

INSTRUCTION = (
    "Summarise the conversation so far for yourself: the task, what was found out (tool results "
    "with their numbers and names), what was decided, and what is still to be done. Write only the "
    "summary."
)


class ContextMeter:
    """Knows how many tokens the next request has: estimated, and exactly where it gets close."""

    def __init__(self, client: AsyncVLLM) -> None:
        self._client = client
        self._counted: dict[bytes, int | None] = {}

    def estimate(self, state: State) -> int:
        """Give the tokens of the next request: those of the last call, and what came since."""
        fresh = state.history.since(state.measured)
        size = sum(len(_codec.encode(message)) for message in fresh)
        if not state.last_tokens:
            size += len((state.started.instructions or "").encode())
            size += len(_codec.encode(list(state.tools)))
        return state.last_tokens + size // _BYTES_PER_TOKEN

    def is_close(self, state: State) -> bool:
        """True if the next request may fill so much of the window that it is to be counted."""
        window = state.started.window
        return window is not None and self.estimate(state) > COUNT_FROM * window

    async def count(self, writer: TurnWriter, state: State) -> int | None:
        """Count the next request's tokens; estimated where the server cannot."""
        params = writer.params(state)
        asked: dict[str, Any] = {"messages": params["messages"], "model": state.model}
        if params.get("tools"):
            asked["tools"] = params["tools"]
        digest = hashlib.sha256(_codec.encode(asked)).digest()
        if digest not in self._counted:
            try:
                self._counted[digest] = (await self._client.tokenize(**asked)).count
            except VLLMError:
                self._counted[digest] = None
        counted = self._counted[digest]
        return self.estimate(state) if counted is None else counted

    def clamped(self, state: State, params: dict[str, Any]) -> dict[str, Any]:
        """Bound `max_tokens` by what is left of the window, where that is known exactly."""
        window, tokens = state.started.window, state.context_tokens
        asked = params.get("max_tokens")
        if window is None or tokens is None:
            return params
        left = max(_LEAST, window - tokens)
        if asked is not None and asked <= left:
            return params
        return {**params, "max_tokens": left}


async def summarise(world: World, state: State, count: int) -> Compacted:
    """Ask for a summary of the first messages, on the prefix that the server has cached.

    A summary that fails, is cut or says nothing leaves the messages as they are.
    """
    instruction = state.started.context.instruction or INSTRUCTION
    if state.instruction:
        instruction = f"{instruction}\n{state.instruction}"
    try:
        reply = await world.client.chat.completions.create(**_request(state, count, instruction))
    except VLLMError as error:
        return Compacted(error=ErrorInfo.of(error))
    usage = Usage.of(reply.usage)
    text = reply.text.strip()
    if reply.finish_reason != "stop" or not text:
        why = "was cut" if text else "is empty"
        said = f"The summary {why} (finish_reason {reply.finish_reason!r})."
        return Compacted(usage=usage, error=ErrorInfo("OutputError", said))
    summary = f"Summary of the conversation so far:\n{text}"
    return Compacted(messages=count, summary=summary, usage=usage)


def _request(state: State, count: int, instruction: str) -> dict[str, Any]:
    """Give the request of a summary: the next turn's, as far as the summary goes."""
    said = Log[Message]([*state.history.since(0)[:count], UserMessage(instruction)])
    params = TurnWriter().params(replace(state, history=said))
    params.pop("response_format", None)
    if "tools" in params:
        params["tool_choice"] = "none"
    return params
