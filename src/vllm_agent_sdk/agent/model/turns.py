"""What each turn sends: the history in the run's dialect, and what its turn mode adds.

What was said before keeps its bytes from turn to turn and from run to run, so that the server's
prefix cache holds and nothing is encoded twice. All is written anew where the dialect changes,
where the history does (it was summarised), and where the server refused the order of its roles or
the ids of its calls. `TurnWriter.prefix` says so of each request, and names the cause.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_agent_sdk._core.dialect.answer import answer_tool
from vllm_agent_sdk._core.dialect.dialect import (
    Form,
    TextHistory,
    guided_format,
    worked_turns,
)
from vllm_agent_sdk._core.dialect.envelope import envelope_format
from vllm_agent_sdk._core.dialect.prefix import Parts, prefix_of, template_options
from vllm_agent_sdk._core.dialect.roles import Roles, merged, ordered, refuses_roles
from vllm_agent_sdk._core.dialect.tool_lines import system_text
from vllm_agent_sdk._core.dialect.transcript import NativeHistory
from vllm_agent_sdk._core.run.log import Log
from vllm_agent_sdk._core.run.state import ANSWER_TOOL, State
from vllm_agent_sdk._core.schema.grammar import strict_tool
from vllm_agent_sdk.agent.model.turn_fields import (
    named,
    native_system,
    native_tool,
    switch_off,
    typed,
)
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.context import Prefix
from vllm_agent_sdk.types.messages import AssistantMessage, Message, UserMessage
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["Traits", "TurnWriter", "Written"]

# The templates of Mistral's models.
_NINE_IDS = re.compile(r"[Tt]ool call IDs? .*length 9")
_TEXT_FORMS: dict[str, Form] = {"guided": "guided", "envelope": "envelope"}


@dataclass(slots=True)
class Traits:
    """What of a server decides how requests are written and replies are read.

    Attributes:
        roles: The order of roles that its chat template wants; learnt from its refusal.
        nine_ids: Ids of calls must be nine letters and digits.
        think_tags: The model thinks in `<think>` tags and no parser splits that off.
        thinking_switch: The template's variable that switches thinking; `None` or `""` for none.
        sends_reasoning: The model is to get its reasoning of earlier turns back.
        text_calls: The format of calls that are left in the text without a parser, or `None`.
        streams_calls: Calls come in streams too; for False, replies are asked for whole.
        window: Tokens the model can read and write in one call, where its card was asked for that.
    """

    roles: Roles = "off"
    nine_ids: bool = False
    think_tags: bool = False
    thinking_switch: str | None = None
    sends_reasoning: bool = False
    text_calls: str | None = None
    streams_calls: bool = True
    window: int | None = None


class Written(list[_codec.Raw]):
    """The messages of a request as bytes.

    Attributes:
        joined: All of them with commas between: for whoever sends them and looks at none.
    """

    joined: _codec.Raw = _codec.Raw()


class TurnWriter:
    """Writes the requests of a conversation; its bytes only grow until all is written anew.

    Args:
        traits: What is known of the server; what a refusal tells is added to it.
    """

    def __init__(self, traits: Traits | None = None) -> None:
        self.traits = Traits() if traits is None else traits
        self._key: tuple[Any, ...] = ()
        self._head: list[_codec.Raw] = []
        self._head_for: tuple[Any, ...] = ()
        self._offers: dict[bool, list[dict[str, Any]]] = {}
        self._offers_for: tuple[object, object] = (None, None)
        self._encoded: tuple[object, bytes] = (None, b"")
        self._formed_for: tuple[object, object] = (None, None)
        self._forms: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._written: list[_codec.Raw] = []
        self._newest: dict[str, Any] | None = None
        self._read: Log[Message] = Log()
        self._joined = bytearray()
        self._given = 0
        self._edition = 0
        self._sent: Parts | None = None
        self._dialect: TextHistory | NativeHistory = NativeHistory()
        self._ids: set[str] = set()
        self._ids_of: Log[Message] = Log()

    def call_ids(self, history: Log[Message]) -> set[str]:
        """Give the ids of the calls of a conversation; each message is looked at once."""
        if not history.begins_with(self._ids_of):
            self._ids, self._ids_of = set(), Log()
        for message in history.since(len(self._ids_of)):
            if isinstance(message, AssistantMessage):
                self._ids.update(call.id for call in message.tool_calls)
        self._ids_of = history
        return self._ids

    def params(self, state: State) -> dict[str, Any]:
        """Give the keywords of the current turn's model call.

        Raises:
            SchemaError: No grammar can be made of a schema.
        """
        params: dict[str, Any] = {"messages": self._messages(state), **state.started.sampling}
        if state.model is not None:
            params["model"] = state.model
        if state.thinking_off and self.traits.thinking_switch:
            switch_off(params, self.traits.thinking_switch)
        match state.turn_mode:
            case "guided":
                several = params.pop("parallel_tool_calls", None)
                most = state.started.limits.max_parallel_tools if several else 1
                self._constrain(state, params, most)
            case "envelope":
                params.pop("parallel_tool_calls", None)
                self._constrain(state, params, 1)
            case "required":
                self._require(state, params)
                self._read_calls(params)
            case _ if state.tools:
                self._offer(state, params)
                self._read_calls(params)
            case _:
                params.pop("parallel_tool_calls", None)
                if state.started.output is not None:
                    params["response_format"] = typed(state.started.output)
        return params

    def amended(self, state: State, message: str) -> dict[str, Any] | None:
        """Give the call once more, as a server's refusal wants it; `None` if that is no help.

        Args:
            state: The run.
            message: What the server said.
        """
        traits = self.traits
        if refuses_roles(message) and traits.roles != "strict":
            traits.roles = "strict"
        elif _NINE_IDS.search(message) and not traits.nine_ids:
            traits.nine_ids = True
        else:
            return None
        params = self.params(state)
        if self._sent is not None:
            # What was refused was never read: the next request follows this one.
            self._sent = self._parts(state, params)
        return params

    def prefix(self, state: State, params: dict[str, Any]) -> Prefix:
        """Say how the request begins, next to the one that was asked about before.

        Args:
            state: The run.
            params: What `params(state)` gave.
        """
        before, self._sent = self._sent, self._parts(state, params)
        return prefix_of(before, self._sent)

    def parts(self, state: State) -> tuple[dict[str, Any], int]:
        """Give what `params` gives, and how many of its messages stand before the conversation."""
        return self.params(state), len(self._head)

    def _parts(self, state: State, params: dict[str, Any]) -> Parts:
        return Parts(
            model=state.model,
            options=template_options(params),
            form=self._key[0],
            specs=state.tools,
            tools=self._tools_bytes(params.get("tools")),
            messages=params["messages"],
            head=len(self._head),
            size=len(self._joined) - max(0, len(self._written) - 1),
            edition=self._edition,
            summaries=state.summaries,
        )

    def _tools_bytes(self, tools: list[Any] | None) -> bytes:
        """Give the tools as they are sent; the same list is encoded once."""
        if not tools:
            return b""
        if tools is not self._encoded[0]:
            self._encoded = (tools, _codec.encode([strict_tool(tool) for tool in tools]))
        return self._encoded[1]

    # ── the turn's form ──────────────────────────────────────────────────────────────────────────

    def _constrain(self, state: State, params: dict[str, Any], max_calls: int) -> None:
        if state.tools is not self._formed_for[0] or state.started is not self._formed_for[1]:
            self._formed_for, self._forms = (state.tools, state.started), {}
        choice = state.tool_choice
        name = named(choice) if isinstance(choice, dict) else choice
        key = (state.turn_mode, state.tools_offered, name, max_calls, self.traits.think_tags)
        if key not in self._forms:
            self._forms[key] = self._form(state, max_calls)
        params["response_format"] = self._forms[key]

    def _form(self, state: State, max_calls: int) -> dict[str, Any]:
        """Give the format of a turn, which says what may be called and how it is answered."""
        tools: Sequence[ToolSpec] = state.tools if state.tools_offered else ()
        choice = state.tool_choice
        if choice == "none":
            tools = ()
        elif isinstance(choice, dict):
            tools = [tool for tool in tools if tool.name == named(choice)]
        require = choice == "required" or isinstance(choice, dict)
        output = state.started.output
        if state.turn_mode == "envelope":
            return envelope_format(tools, output=output, require_call=require)
        return guided_format(
            tools,
            output=output,
            require_call=require,
            max_calls=max_calls,
            think=self.traits.think_tags,
        )

    def _offer(self, state: State, params: dict[str, Any]) -> None:
        """Offer the tools to a server that calls them itself."""
        params["tools"] = self._native_tools(state)
        if not state.tools_offered:
            params["tool_choice"] = "none"
        elif state.tool_choice is not None:
            params["tool_choice"] = state.tool_choice
        output = state.started.output
        if output is not None and (not state.tools_offered or _to_repair(state)):
            # Tools and a format together would keep many servers from calling at all.
            params["tool_choice"] = "none"
            params["response_format"] = typed(output)

    def _require(self, state: State, params: dict[str, Any]) -> None:
        """Let every turn be a call, the answer's tool among them."""
        choice = state.tool_choice
        params.setdefault("parallel_tool_calls", False)
        params["tools"] = self._native_tools(state, answered=True)
        params["tool_choice"] = "required"
        if not state.tools_offered or choice == "none":
            params["tool_choice"] = {"type": "function", "function": {"name": ANSWER_TOOL}}
        elif isinstance(choice, dict):
            params["tool_choice"] = choice
        elif choice == "required" and state.tools:
            # Answering is no call of a tool: the answer's is offered from the next turn on.
            params["tools"] = self._native_tools(state)

    def _native_tools(self, state: State, *, answered: bool = False) -> list[dict[str, Any]]:
        """Give the tools in the wire's shape: the same list for the same tools."""
        known = state.tools is self._offers_for[0] and state.started is self._offers_for[1]
        if not known:
            self._offers_for, self._offers = (state.tools, state.started), {}
        if answered not in self._offers:
            answer = [answer_tool(state.started.output)] if answered else []
            self._offers[answered] = [native_tool(tool) for tool in (*state.tools, *answer)]
        return self._offers[answered]

    def _read_calls(self, params: dict[str, Any]) -> None:
        if self.traits.text_calls is not None and params.get("tool_choice") != "none":
            params["parse_text_calls"] = self.traits.text_calls

    # ── the messages ─────────────────────────────────────────────────────────────────────────────

    def _messages(self, state: State) -> Written:
        """Give the whole history, encoding only what is new."""
        form = _TEXT_FORMS.get(state.turn_mode) if state.dialect == "text" else None
        traits, output = self.traits, state.started.output
        key = (form, traits.roles, traits.nine_ids, traits.sends_reasoning, output)
        if key != self._key or not state.history.begins_with(self._read):
            self._key = key
            self._dialect = (
                NativeHistory(nine_ids=traits.nine_ids, reasoning=traits.sends_reasoning)
                if form is None
                else TextHistory(form, output)
            )
            self._begin(state)
        elif self._head_for != (state.started, state.tools, state.turn_mode):
            # What stands before the conversation may have changed: all else keeps its bytes.
            old = self._head
            self._write_head(state)
            if self._head != old:
                self._written[: len(old)] = self._head
                self._joined = bytearray(b",".join(map(bytes, self._written)))
                self._edition += 1
        fresh = state.history.since(len(self._read))
        if fresh:
            for message in self._dialect.wire(fresh):
                self._add(message)
            self._read = state.history
        self._given = len(self._written)
        written = Written(self._written)
        written.joined = _codec.Raw(bytes(self._joined))
        return written

    def _begin(self, state: State) -> None:
        self._write_head(state)
        self._written = list(self._head)
        self._joined = bytearray(b",".join(map(bytes, self._written)))
        self._edition += 1
        self._newest, self._read = None, Log()

    def _write_head(self, state: State) -> None:
        """Write what stands before the conversation: the system text, and worked turns."""
        started = state.started
        self._head_for = (started, state.tools, state.turn_mode)
        text = isinstance(self._dialect, TextHistory)
        system = system_text(started.instructions, state.tools) if text else native_system(state)
        head: list[Any] = [{"role": "system", "content": system}] if system else []
        examples = list(started.examples)
        if text and not examples and state.tools:
            examples = list(worked_turns(state.tools))
        head += self._dialect.wire(examples)
        self._head = [_raw(message) for message in ordered(head, self.traits.roles)]

    def _add(self, message: dict[str, Any]) -> None:
        joined = None
        if self.traits.roles != "off" and self._newest is not None:
            joined = merged(self._newest, message)
        elif self.traits.roles == "strict" and message["role"] == "assistant" and not self._read:
            self._append({"role": "user", "content": ""})
        if joined is not None:
            last = len(bytes(self._written.pop()))
            del self._joined[-last - bool(self._written) :]
            if len(self._written) < self._given:
                self._edition += 1
        self._append(message if joined is None else joined)
        self._newest = message if joined is None else joined

    def _append(self, message: dict[str, Any]) -> None:
        # What a model said is text, whatever it is: there is no number that JSON does not have.
        said = message["role"] == "assistant"
        written = _codec.encode(message) if said else _codec.encode_checked(message)
        if self._written:
            self._joined += b","
        self._joined += written
        self._written.append(_codec.Raw(written))


def _raw(message: Any) -> _codec.Raw:
    return _codec.Raw(_codec.encode_checked(message))


def _to_repair(state: State) -> bool:
    """True if the model has answered, and is to answer again."""
    newest = state.history.since(len(state.history) - 1)
    return state.invalid_in_row > 0 and bool(newest) and isinstance(newest[0], UserMessage)
