"""Replies without their content: what is left when values are taken away.

Two replies of one shape have the same status, kind and framing; the same keys in the same order,
with values of the same types, null where the other is null; a stream has the same kinds of events
in the same order, however often each comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from vllm_agent_sdk.testing import Reply

__all__ = ["is_stream", "mirrored", "shape_of", "shape_of_value"]

#: Objects whose keys are data: a table of tokens, a model's arguments.
_OPEN = frozenset({"top_logprobs_map", "properties"})


def shape_of_value(value: Any, name: str = "") -> Any:
    """Give the shape of JSON."""
    if isinstance(value, dict):
        if name in _OPEN:
            return "object"
        return [(key, shape_of_value(each, key)) for key, each in value.items()]
    if isinstance(value, list):
        shapes: list[Any] = []
        for each in value:
            shape = shape_of_value(each, f"{name}_map" if isinstance(each, dict) else "")
            if shape not in shapes:
                shapes.append(shape)
        return shapes
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if value is None:
        return "null"
    # What these say is part of the shape.
    return (
        value if name in {"object", "type", "role", "finish_reason", "status", "param"} else "text"
    )


def is_stream(body: bytes) -> bool:
    """Tell a stream from a whole reply."""
    return body.startswith((b"data: ", b"event: "))


def shape_of(status: int, body: bytes) -> Any:
    """Give the shape of a reply."""
    if not is_stream(body):
        value = json.loads(body) if body else None
        error = value.get("error") if isinstance(value, dict) else None
        if isinstance(error, dict):
            # Numbers and names in the words differ; the words are the same.
            error["message"] = re.sub(r"\d+|'input': .*", "#", error["message"].partition("\n")[0])
            return [status, error]
        return [status, shape_of_value(value)]
    events: list[Any] = [status]
    for frame in body.decode().split("\n\n"):
        name, _, data = frame.rpartition("data: ")
        shape = data if data in {"[DONE]", ""} else shape_of_value(json.loads(data))
        if (name, shape) != events[-1]:
            events.append((name, shape))
    return events


def mirrored(body: bytes, status: int) -> Reply:
    """Give the script that makes a simulator answer as this reply does."""
    if status != 200 or not body:
        return Reply.text("it is refused before this is used")
    values = [json.loads(body)] if not is_stream(body) else _events(body)
    text, calls, ends = _said(values)
    options: dict[str, Any] = {}
    if "length" in ends:
        options["finish_reason"] = "length"
    usage = _usage(values)
    if usage:
        options["usage"] = usage
    stop = next(iter(re.findall(rb'"stop_reason":"([^"]*)"', body)), None)
    if stop is not None:
        options["stop_reason"] = stop.decode()
    if calls:
        return Reply.calls(*calls, text=text, **options)
    return Reply.text(text, **options)


def _events(body: bytes) -> list[Any]:
    frames = [frame.rpartition("data: ")[2] for frame in body.decode().split("\n\n")]
    return [json.loads(frame) for frame in frames if frame.startswith("{")]


def _usage(values: list[Any]) -> dict[str, int]:
    for value in reversed(values):
        details = (value.get("usage") or {}).get("prompt_tokens_details") or {}
        if details.get("cached_tokens") is not None:
            names = ("cached_tokens", "created_cache_tokens")
            return {name: details[name] for name in names if details.get(name) is not None}
    return {}


def _said(values: list[Any]) -> tuple[str, list[tuple[str, list[str]]], set[str]]:
    """What the first choice says: its text and calls; and how it ended."""
    text: list[str] = []
    calls: list[tuple[str, list[str]]] = []
    ends: set[str] = set()
    for value in values:
        for choice in value.get("choices", ()):
            if choice["index"]:
                continue
            message: Mapping[str, Any] = choice.get("delta") or choice.get("message") or choice
            text.append(message.get("content") or message.get("text") or "")
            ends.add(str(choice.get("finish_reason")))
            for call in message.get("tool_calls") or ():
                if call["function"].get("name"):
                    calls.append((call["function"]["name"], []))
                if call["function"].get("arguments"):
                    calls[-1][1].append(call["function"]["arguments"])
        response = value.get("response") or (value if value.get("object") == "response" else {})
        if response.get("incomplete_details"):
            ends.add("length")
        if response.get("status") in {"completed", "incomplete"}:
            for item in response.get("output", ()):
                text += [part["text"] for part in item.get("content") or ()]
                if item["type"] == "function_call":
                    calls.append((item["name"], [item["arguments"]]))
    return "".join(text), calls, ends
