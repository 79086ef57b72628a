"""What each turn sends: the history in the run's dialect, and what its turn mode adds.

What was said before keeps its bytes from turn to turn, so that the server's prefix cache holds and
nothing is encoded twice.
"""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk._core.dialect import WORKED_TURN, TextHistory, guided_format, system_text
from vllm_agent_sdk._core.run_state import State
from vllm_agent_sdk._core.transcript import wire_message
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.messages import Message
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["TurnWriter"]


class TurnWriter:
    """Writes the requests of one run; its bytes only grow until the dialect changes."""

    def __init__(self) -> None:
        self._dialect = ""
        self._written: list[_codec.Raw] = []
        self._count = 0
        self._text = TextHistory()

    def params(self, state: State) -> dict[str, Any]:
        """Give the keywords of the current turn's model call."""
        started = state.started
        sampling = dict(started.sampling)
        params: dict[str, Any] = {"messages": self._messages(state), **sampling}
        if started.model is not None:
            params["model"] = started.model
        if not started.tools:
            return params
        if state.turn_mode == "guided":
            parallel = params.pop("parallel_tool_calls", None)
            params["response_format"] = guided_format(
                started.tools,
                require_call=state.tool_choice == "required",
                max_calls=started.limits.max_parallel_tools if parallel else 1,
            )
        else:
            params["tools"] = [_native_tool(tool) for tool in started.tools]
            if state.tool_choice is not None:
                params["tool_choice"] = state.tool_choice
        return params

    def _messages(self, state: State) -> list[_codec.Raw]:
        """Give the whole history, encoding only what is new."""
        if state.dialect != self._dialect:
            self._dialect = state.dialect
            self._text = TextHistory()
            self._written = [_raw(message) for message in self._head(state)]
            self._count = 0
        fresh = state.history.since(self._count)
        self._written.extend(_raw(message) for message in self._wire(fresh))
        self._count += len(fresh)
        return list(self._written)

    def _head(self, state: State) -> list[Any]:
        started = state.started
        text = self._dialect == "text"
        system = system_text(started.instructions, started.tools) if text else started.instructions
        head: list[Any] = [{"role": "system", "content": system}] if system else []
        examples = list(started.examples)
        if text and not examples and started.tools:
            examples = list(WORKED_TURN)
        return head + self._wire(examples)

    def _wire(self, messages: list[Message]) -> list[Any]:
        if self._dialect == "text":
            return self._text.wire(messages)
        return [wire_message(message) for message in messages]


def _raw(message: Any) -> _codec.Raw:
    return _codec.Raw(_codec.encode_checked(message))


def _native_tool(tool: ToolSpec) -> dict[str, Any]:
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}
