"""The prompt of a response: its items and tools as the chat messages that the template renders."""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk.testing.jsontypes import is_list, is_object

__all__ = ["chat_messages", "chat_tools"]


def chat_messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Make chat messages of a body's instructions and input, as vLLM does.

    Neighbouring items of the assistant (thought, text, calls) become one message.
    """
    messages: list[dict[str, Any]] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    given = body["input"]
    items: list[Any] = given if is_list(given) else [{"role": "user", "content": given}]
    for item in items:
        if is_object(item):
            _add(messages, item)
    return messages


def chat_tools(body: dict[str, Any]) -> list[Any] | None:
    """Give a body's tools in chat's shape; `None` without any."""
    tools = body.get("tools")
    if not is_list(tools):
        return None
    return [_tool(tool) for tool in tools] or None


def _tool(tool: object) -> object:
    if not is_object(tool) or tool.get("type") != "function":
        return tool
    function = {name: value for name, value in tool.items() if name != "type"}
    return {"type": "function", "function": function}


def _add(messages: list[dict[str, Any]], item: dict[str, Any]) -> None:
    last = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    match item.get("type", "message"):
        case "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            if last is None:
                messages.append({"role": "assistant", "tool_calls": [call]})
            else:
                last["tool_calls"] = [*last.get("tool_calls", ()), call]
        case "function_call_output":
            messages.append({"role": "tool", "content": item.get("output")})
        case "reasoning":
            if last is None:  # most templates leave the thought itself out
                messages.append({"role": "assistant"})
        case _ if item.get("role") == "assistant" and last is not None and "content" not in last:
            last["content"] = item.get("content")
        case _:
            messages.append({"role": item.get("role"), "content": item.get("content")})
