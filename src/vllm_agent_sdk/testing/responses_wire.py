"""Responses in the very bytes of vLLM 0.32: whole ones, and the events of streams.

The shapes are those of the recorded responses in `tests/fixtures/responses`. Like chat replies they
are the same for the same script and request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vllm_agent_sdk.testing.jsontypes import is_object
from vllm_agent_sdk.testing.model_output import (
    CallText,
    ChatFacts,
    calls_of,
    dumps,
    finish_reason,
    steps_of,
)
from vllm_agent_sdk.testing.reply import Chat, Reply
from vllm_agent_sdk.testing.wire import CREATED
from vllm_agent_sdk.types import _codec

__all__ = ["ResponseFacts", "frames_of", "response_object", "whole_output"]


@dataclass(frozen=True)
class ResponseFacts:
    """What of a request decides how its response looks.

    Attributes:
        chat: What it has in common with a chat request; `chat.id` is the response's id.
        body: The request's body.
        max_model_len: The model's context in tokens.
    """

    chat: ChatFacts
    body: dict[str, Any]
    max_model_len: int

    def item_id(self, prefix: str, at: int) -> str:
        """Give the id of the item at a place of the output."""
        digest = hashlib.sha256(f"{self.chat.id} {self.chat.first_call} {at}".encode()).hexdigest()
        return f"{prefix}_{digest[:16]}"


def response_object(
    facts: ResponseFacts,
    status: str,
    output: list[dict[str, Any]],
    usage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Make the response object, keys in the server's order."""
    body = facts.body
    left = facts.max_model_len - facts.chat.prompt_tokens
    asked = body.get("max_output_tokens")
    tools = body.get("tools") or []
    logprobs = "message.output_text.logprobs" in (body.get("include") or ())
    return {
        "id": facts.chat.id,
        "created_at": CREATED,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata"),
        "model": facts.chat.model,
        "object": "response",
        "output": output,
        "parallel_tool_calls": facts.chat.parallel_calls,
        "temperature": _number(body, "temperature", 1.0),
        "tool_choice": body.get("tool_choice", "auto") if tools else "none",
        "tools": [_tool(tool) for tool in tools],
        "top_p": _number(body, "top_p", 1.0),
        "background": bool(body.get("background")),
        "max_output_tokens": left if asked is None else min(asked, left),
        "max_tool_calls": body.get("max_tool_calls"),
        "previous_response_id": body.get("previous_response_id"),
        "prompt": None,
        "reasoning": body.get("reasoning"),
        "service_tier": body.get("service_tier") or "auto",
        "status": status,
        "text": body.get("text"),
        "top_logprobs": body.get("top_logprobs", 0) if logprobs else None,
        "truncation": body.get("truncation") or "disabled",
        "usage": usage,
        "user": body.get("user"),
        "presence_penalty": _number(body, "presence_penalty", 0.0),
        "frequency_penalty": _number(body, "frequency_penalty", 0.0),
        **dict.fromkeys(("kv_transfer_params", "ec_transfer_params")),
        **dict.fromkeys(("input_messages", "output_messages")),
    }


def _number(body: dict[str, Any], name: str, default: float) -> float:
    value = body.get(name)
    return default if value is None else float(value)


def _tool(tool: object) -> object:
    """Write a function tool as the server reads it: with all its fields."""
    if not is_object(tool) or tool.get("type") != "function":
        return tool
    return {
        **{key: tool.get(key) for key in ("name", "parameters", "strict")},
        "type": "function",
        **dict.fromkeys(("allowed_callers", "async", "defer_loading")),
        "description": tool.get("description"),
        "output_schema": None,
    }


# ── items ────────────────────────────────────────────────────────────────────────────────────────


def _reasoning(id_: str, text: str | None, status: str | None = None) -> dict[str, Any]:
    parts = None if text is None else [_part("reasoning_text", text)]
    head = {"id": id_, "summary": [], "type": "reasoning", "content": parts}
    return {**head, "encrypted_content": None, "status": status}


def _message(id_: str, text: str | None, status: str = "completed") -> dict[str, Any]:
    content = [] if text is None else [_part("output_text", text)]
    head: dict[str, Any] = {"id": id_, "content": content, "role": "assistant"}
    return {**head, "status": status, "type": "message", "phase": None}


def _part(type_: str, text: str, logprobs: list[Any] | None = None) -> dict[str, Any]:
    if type_ == "reasoning_text":
        return {"text": text, "type": type_}
    return {"annotations": [], "text": text, "type": type_, "logprobs": logprobs}


def _call(id_: str, call: CallText, arguments: str, status: str = "completed") -> dict[str, Any]:
    return {
        "arguments": arguments,
        "call_id": call.id,
        "name": call.name,
        "type": "function_call",
        "id": id_,
        **dict.fromkeys(("async", "caller", "namespace")),
        "status": status,
    }


# ── whole ────────────────────────────────────────────────────────────────────────────────────────


def whole_output(chat: Chat, reply: Reply, facts: ResponseFacts) -> dict[str, Any]:
    """Give a whole response."""
    calls = calls_of(chat, facts.chat, 0)
    text = "".join(chat.text)
    # As in chat: with a call that cannot be parsed, what the model wrote comes back as text.
    if not (facts.chat.parse_calls and all(call.is_json for call in calls)):
        text += "".join(call.as_text for call in calls)
        calls = []
    if not facts.chat.parallel_calls:
        calls = calls[:1]
    output: list[dict[str, Any]] = []
    reasoning = "".join(chat.reasoning) if facts.chat.include_reasoning else ""
    if reasoning:
        output.append(_reasoning(facts.item_id("rs", 0), reasoning))
    if text:
        output.append(_message(facts.item_id("msg", len(output)), text))
    for call in calls:
        # Read and written anew by the parser; a stream has the model's own spacing.
        arguments = dumps(json.loads(call.arguments))
        output.append(_call(facts.item_id("fc", len(output)), call, arguments))
    return _ended(chat, reply, facts, output)


def _ended(
    chat: Chat, reply: Reply, facts: ResponseFacts, output: list[dict[str, Any]]
) -> dict[str, Any]:
    steps = steps_of(chat, facts.chat, 0)
    scripted = reply.options.get("usage", {})
    prompt = scripted.get("prompt_tokens", facts.chat.prompt_tokens)
    written = scripted.get("completion_tokens", sum(step.tokens for step in steps))
    thought = scripted.get("reasoning_tokens", sum(step.reasoning_tokens for step in steps))
    no_turns: list[int] = []
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": scripted.get("cached_tokens", 0),
            "cache_write_tokens": 0,
            "input_tokens_per_turn": no_turns,
            "cached_tokens_per_turn": no_turns,
        },
        "output_tokens": written,
        "output_tokens_details": {
            "reasoning_tokens": thought,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": no_turns,
            "tool_output_tokens_per_turn": no_turns,
        },
        "total_tokens": prompt + written,
    }
    cut = finish_reason(chat, reply, facts.chat, bool(chat.calls)) == "length"
    return response_object(facts, "incomplete" if cut else "completed", output, usage)


# ── streamed ─────────────────────────────────────────────────────────────────────────────────────


class _Events:
    """Writes events, numbered, and keeps the items they make up."""

    def __init__(self) -> None:
        self.number = 0
        self.output: list[dict[str, Any]] = []

    def event(self, type_: str, fields: dict[str, Any]) -> bytes:
        """Write an event; its keys are sorted, but for `name`, which came later."""
        named = {**fields, "sequence_number": self.number, "type": f"response.{type_}"}
        self.number += 1
        keys = sorted(named, key=lambda key: (key == "name", key))
        data = _codec.encode({key: named[key] for key in keys})
        return f"event: response.{type_}\ndata: ".encode() + data + b"\n\n"

    def at(self, item_id: str) -> dict[str, Any]:
        """Give what an event says of its place."""
        return {"item_id": item_id, "output_index": len(self.output)}

    def text_item(self, kind: str, id_: str, pieces: Iterable[str]) -> Iterator[bytes]:
        """Write an item that is made of text, piece by piece."""
        thinks = kind == "reasoning"
        make = _reasoning if thinks else _message
        name = "reasoning_text" if thinks else "output_text"
        place, index = self.at(id_), {"output_index": len(self.output)}
        logprobs: dict[str, Any] = {} if thinks else {"logprobs": []}
        begun = make(id_, None, "in_progress")
        yield self.event("output_item.added", {"item": begun, **index})
        part = _part(name, "", [])
        where = {"content_index": 0, **place}
        yield self.event("content_part.added", {**where, "part": part})
        said: list[str] = []
        for piece in pieces:
            said.append(piece)
            yield self.event(f"{name}.delta", {**where, **logprobs, "delta": piece})
        text = "".join(said)
        yield self.event(f"{name}.done", {**where, **logprobs, "text": text})
        yield self.event("content_part.done", {**where, "part": _part(name, text)})
        item = _reasoning(id_, text, "completed") if thinks else _message(id_, text)
        yield self.event("output_item.done", {"item": item, **index})
        self.output.append(item)

    def call_item(self, id_: str, call: CallText, pieces: Iterable[str]) -> Iterator[bytes]:
        """Write a call, its arguments piece by piece."""
        place, index = self.at(id_), {"output_index": len(self.output)}
        begun = _call(id_, call, "", "in_progress")
        yield self.event("output_item.added", {"item": begun, **index})
        for piece in pieces:
            yield self.event("function_call_arguments.delta", {"delta": piece, **place})
        done = {"arguments": call.arguments, **place, "name": call.name}
        yield self.event("function_call_arguments.done", done)
        item = _call(id_, call, call.arguments)
        yield self.event("output_item.done", {"item": item, **index})
        self.output.append(item)


def frames_of(chat: Chat, reply: Reply, facts: ResponseFacts) -> tuple[list[bytes], dict[str, Any]]:
    """Give a stream's events, and the response they end in."""
    events = _Events()
    begun = response_object(facts, "in_progress", [])
    frames = [events.event(name, {"response": begun}) for name in ("created", "in_progress")]
    deltas = [step.delta for step in steps_of(chat, facts.chat, 0)]
    reasoning = [delta["reasoning"] for delta in deltas if delta.get("reasoning")]
    text = [delta["content"] for delta in deltas if delta.get("content")]
    if reasoning:
        frames += events.text_item("reasoning", facts.item_id("rs", 0), reasoning)
    if text:
        frames += events.text_item("message", facts.item_id("msg", len(events.output)), text)
    calls = calls_of(chat, facts.chat, 0) if facts.chat.parse_calls else []
    for call in calls if facts.chat.parallel_calls else calls[:1]:
        pieces = (call.arguments,) if call.at_once else call.pieces
        frames += events.call_item(facts.item_id("fc", len(events.output)), call, pieces)
    response = _ended(chat, reply, facts, events.output)
    frames.append(events.event("completed", {"response": response}))
    return frames, response
