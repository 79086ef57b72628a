"""A chat request as one for Responses: messages as items, tools and formats in its own shapes.

vLLM joins neighbouring items of the assistant to one message of the chat template again, and reads
the first part of each only. So reasoning, text and calls are one item each, in this order, and a
text is a text and never a list of parts: the prompt comes out as chat completions would have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types import _codec

__all__ = ["ItemWriter", "items_of", "request_of"]

#: Fields of a chat request that a request for a response has under another name.
_RENAMED = {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
#: Chat's reasons for a part of a text to be one.
_TEXTS = frozenset({"text", "input_text", "output_text"})


class ItemWriter:
    """Writes a conversation that grows; what was written before keeps its bytes."""

    def __init__(self) -> None:
        self._written: list[tuple[object, list[_codec.Raw]]] = []

    def wire(self, messages: Iterable[Any]) -> tuple[str | None, list[_codec.Raw]]:
        """Give the instructions, if the first message is the system's, and the items.

        Args:
            messages: Chat's wire messages, encoded or as dicts; those of the last call come first.

        Raises:
            UsageError: One holds what Responses does not take.
        """
        given = list(messages)
        kept = 0
        for old, new in zip(self._written, given, strict=False):
            if old[0] is not new:
                break
            kept += 1
        del self._written[kept:]
        for message in given[kept:]:
            items = [_raw(item) for item in items_of(_decoded(message))]
            self._written.append((message, items))
        instructions = None
        if given:
            instructions = _instructions(_decoded(given[0]))
        skipped = 0 if instructions is None else 1
        return instructions, [item for _, items in self._written[skipped:] for item in items]


def items_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give the items that say what a chat message says.

    Args:
        message: A message in chat's wire shape.

    Raises:
        UsageError: It holds what Responses does not take.
    """
    role, content = message.get("role"), message.get("content")
    if role == "tool":
        call_id = message.get("tool_call_id")
        output = _content(content, "input")
        return [{"type": "function_call_output", "call_id": call_id, "output": output}]
    if role != "assistant":
        return [{"type": "message", "role": role, "content": _content(content, "input")}]
    items: list[dict[str, Any]] = []
    if thought := message.get("reasoning"):
        part = {"type": "reasoning_text", "text": thought}
        items.append({"type": "reasoning", "summary": [], "content": [part]})
    calls = message.get("tool_calls") or ()
    if content or not (items or calls):
        text = _text(content)
        items.append({"type": "message", "role": "assistant", "content": text})
    items.extend(_call(call) for call in calls)
    return items


def request_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Give the keywords of `responses.create` for those of `chat.completions.create`.

    `messages`, `thinking` and what shapes the reading of a reply are not among them; what both
    endpoints call by one name keeps it.

    Raises:
        UsageError: There is no such thing in Responses.
    """
    request: dict[str, Any] = {}
    for name, value in params.items():
        match name:
            case "tools":
                request["tools"] = [_tool(tool) for tool in value]
            case "tool_choice" if isinstance(value, Mapping):
                named = value.get("function")
                name_ = named.get("name") if isinstance(named, Mapping) else value.get("name")
                request["tool_choice"] = {"type": "function", "name": name_}
            case "response_format":
                request.update(_format(value))
            case "reasoning_effort":
                request["reasoning"] = {"effort": value}
            case "thinking_token_budget":
                raise UsageError(
                    f"Responses cannot bound thinking to {value} tokens. Give thinking=True or an "
                    "effort, or use chat completions."
                )
            case _:
                request[_RENAMED.get(name, name)] = value
    return request


def _decoded(message: Any) -> Mapping[str, Any]:
    if isinstance(message, _codec.Raw):
        decoded: dict[str, Any] = _codec.decode(bytes(message))
        return decoded
    if not isinstance(message, Mapping):
        raise UsageError(f"A message in the wire's shape is a dict, not {type(message).__name__}.")
    return message


def _raw(item: dict[str, Any]) -> _codec.Raw:
    return _codec.Raw(_codec.encode_checked(item))


def _instructions(message: Mapping[str, Any]) -> str | None:
    """Give the text of the system's message; one in parts stays an item."""
    content = message.get("content")
    return content if message.get("role") == "system" and isinstance(content, str) else None


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    return {
        "type": "function_call",
        "call_id": call.get("id"),
        "name": function.get("name"),
        "arguments": function.get("arguments") or "{}",
    }


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts = list(content)
    for part in parts:
        if part.get("type") not in _TEXTS:
            raise UsageError(
                f"Responses takes only text in an assistant's message, not {part.get('type')!r}."
            )
    return "".join(part["text"] for part in parts)


def _content(content: Any, side: str) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    return [_part(part, side) for part in content]


def _part(part: Mapping[str, Any], side: str) -> dict[str, Any]:
    kind = part.get("type")
    if kind in _TEXTS:
        return {"type": f"{side}_text", "text": part["text"]}
    if kind == "image_url":
        image = part["image_url"]
        url = image["url"] if isinstance(image, Mapping) else image
        return {"type": "input_image", "image_url": url, "detail": "auto"}
    if kind == "file":
        file = part["file"]
        url, name = file.get("file_data") or "", file.get("filename")
        where = "file_data" if url.startswith("data:") else "file_url"
        return {"type": "input_file", where: url} | ({"filename": name} if name else {})
    raise UsageError(
        f"Responses takes text, images and files, not {kind!r}; chat completions take more."
    )


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    if tool.get("type") == "function" and isinstance(function, Mapping):
        return {"type": "function", **function}
    return tool


def _format(given: Mapping[str, Any]) -> dict[str, Any]:
    """Give the constraint of a reply: a format of its text, or a structural tag beside it."""
    kind = given.get("type")
    if kind == "structural_tag":
        # Formats of a text have no such kind; vLLM's own field has.
        return {"structured_outputs": {"structural_tag": _codec.encode_checked(given).decode()}}
    if kind == "json_schema":
        return {"text": {"format": {"type": kind, **given["json_schema"]}}}
    if kind in {"text", "json_object"}:
        return {"text": {"format": {"type": kind}}}
    raise UsageError(f"Responses has no text of the format {kind!r}.")
