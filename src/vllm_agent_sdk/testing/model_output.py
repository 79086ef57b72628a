"""What the model says, delta by delta: the text and calls of a script as vLLM's parsers give them.

Streams and whole replies are both made of these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm_agent_sdk.testing.reply import Arguments, Chat, Reply, words

__all__ = ["CallText", "ChatFacts", "Step", "calls_of", "dumps", "finish_reason", "steps_of"]


@dataclass(frozen=True)
class ChatFacts:
    """What of a request decides how its reply looks.

    Attributes:
        id: The reply's id, such as `"chatcmpl-…"`.
        model: The served model's name.
        version: The server's version, for the fingerprint.
        prompt_tokens: The size of the prompt.
        first_call: How many calls this server has made before.
        stream: Whether the reply is streamed.
        include_usage: Whether a stream ends with a usage chunk.
        continuous_usage: Whether each of its chunks has the usage so far.
        n: The number of choices.
        tool_choice: `"auto"`, `"required"`, `"named"` or `"none"`.
        parse_calls: Whether the server's parser makes calls of what the model writes.
        has_parser: Whether the server has one, asked for or not.
        parallel_calls: Whether more than the first call is let through.
        include_reasoning: Whether reasoning is let through.
    """

    id: str
    model: str
    version: str
    prompt_tokens: int
    first_call: int = 0
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    n: int = 1
    tool_choice: str = "auto"
    parse_calls: bool = True
    has_parser: bool = True
    parallel_calls: bool = True
    include_reasoning: bool = True

    @property
    def fingerprint(self) -> str:
        """The server's name for itself."""
        return f"vllm-{self.version}-deadbeef"


@dataclass(frozen=True)
class CallText:
    """A call with its id and the pieces its arguments are streamed in."""

    id: str
    name: str
    pieces: tuple[str, ...]
    at_once: bool

    @property
    def arguments(self) -> str:
        """The arguments' text."""
        return "".join(self.pieces)

    @property
    def is_json(self) -> bool:
        """Whether a parser can read them."""
        try:
            json.loads(self.arguments)
        except ValueError:
            return False
        return True

    @property
    def as_text(self) -> str:
        """The call as the model wrote it."""
        return (
            f'<tool_call>\n{{"name": {dumps(self.name)}, "arguments": {self.arguments}}}\n'
            "</tool_call>"
        )


@dataclass(frozen=True)
class Step:
    """One chunk's delta, and how many tokens it stands for."""

    delta: dict[str, Any]
    tokens: int = 1
    reasoning_tokens: int = 0


def dumps(value: object) -> str:
    """Write JSON as models and parsers do, with spaces."""
    return json.dumps(value, ensure_ascii=False)


def _call_id(number: int) -> str:
    digest = hashlib.sha256(f"call {number}".encode()).hexdigest()
    return f"chatcmpl-tool-{digest[:16]}"


def calls_of(chat: Chat, facts: ChatFacts, choice: int) -> list[CallText]:
    """Give the calls of one choice."""
    calls: list[CallText] = []
    for index, (name, arguments, id_) in enumerate(chat.calls):
        number = facts.first_call + choice * len(chat.calls) + index
        pieces, given = _argument_pieces(arguments)
        # As recorded: a later call, one without arguments and one under a grammar come at once.
        at_once = not given and (
            index > 0 or pieces == ("{}",) or facts.tool_choice in ("required", "named")
        )
        calls.append(CallText(id_ or _call_id(number), name, pieces, at_once))
    return calls


def _argument_pieces(arguments: Arguments) -> tuple[tuple[str, ...], bool]:
    """The pieces of arguments, and whether the script set them."""
    if isinstance(arguments, str):
        return words(arguments), False
    if isinstance(arguments, Mapping):
        return words(dumps(arguments)), False
    return tuple(arguments), True


def steps_of(chat: Chat, facts: ChatFacts, choice: int) -> list[Step]:
    """Give what one choice is streamed in, between its role and its end."""
    calls = calls_of(chat, facts, choice)
    steps: list[Step] = []
    if facts.include_reasoning:
        steps += [Step({"reasoning": piece}, reasoning_tokens=1) for piece in chat.reasoning]
    text = list(chat.text)
    if not facts.parse_calls:
        text += [word for call in calls for word in words(call.as_text)]
        calls = []
    steps += [Step({"content": piece}) for piece in text]
    for index, call in enumerate(calls):
        name = {
            "id": call.id,
            "type": "function",
            "index": index,
            "function": {"name": call.name},
        }
        pieces = [{"index": index, "function": {"arguments": piece}} for piece in call.pieces]
        if call.at_once:
            whole = {"index": index, "function": {"arguments": call.arguments}}
            steps.append(_tool_step([name, whole], facts, 1 + len(pieces)))
        else:
            steps += [_tool_step([entry], facts) for entry in (name, *pieces)]
    if chat.reasoning and not facts.include_reasoning:
        # A server that leaves reasoning out says so in every delta.
        steps = [Step(_without_reasoning(step.delta), step.tokens) for step in steps]
    return steps


def _tool_step(entries: list[dict[str, Any]], facts: ChatFacts, tokens: int = 1) -> Step:
    if not facts.parallel_calls and entries[0]["index"] > 0:
        return Step({"content": None}, tokens)
    return Step({"content": None, "tool_calls": entries}, tokens)


def _without_reasoning(delta: dict[str, Any]) -> dict[str, Any]:
    told = {"content": delta["content"], "reasoning": None}
    return {**told, **delta} if "tool_calls" in delta else told


def finish_reason(chat: Chat, reply: Reply, facts: ChatFacts, has_calls: bool) -> str:
    """Say why the reply ended."""
    scripted = reply.options.get("finish_reason")
    if scripted is not None:
        return scripted
    if facts.tool_choice == "named" or not has_calls:
        return "stop"
    return "tool_calls"
