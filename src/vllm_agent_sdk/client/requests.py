"""A call's keywords to the body that is sent: what was asked, and nothing else.

Refused here, before any I/O, is only what no server setting can allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vllm_agent_sdk._core.constraints import check_constraints
from vllm_agent_sdk._core.transcript import wire_messages
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.chat import CHAT_FIELDS
from vllm_agent_sdk.types.protocols import Tool
from vllm_agent_sdk.types.request_fields import CALL_KEYWORDS

__all__ = ["chat_body", "check_keywords", "check_sampling", "offered_tools", "wire_tool"]


def chat_body(
    messages: Iterable[Any],
    params: Mapping[str, Any],
    defaults: Mapping[str, Any],
    *,
    stream: bool,
) -> dict[str, Any]:
    """Build the body of a chat completion, without `model` where the call names none.

    Args:
        messages: Ours or the wire's.
        params: The call's keywords.
        defaults: What calls leave out; dicts merge one level deep, the call wins.
        stream: Ask for a stream.

    Raises:
        UsageError: An unknown keyword (the nearest known one is named), or what no server takes.
    """
    check_keywords(params, CHAT_FIELDS | CALL_KEYWORDS, "chat.completions")
    body: dict[str, Any] = {"messages": wire_messages(messages)}
    for name in (*defaults, *(key for key in params if key not in defaults)):
        if name in CALL_KEYWORDS:
            continue
        if name == "stream_options" and not stream and name not in params:
            continue  # a default for streams only
        value = params[name] if name in params else defaults[name]
        default = defaults.get(name)
        if name in params and isinstance(value, Mapping) and isinstance(default, Mapping):
            value = {**default, **value}
        body[name] = value
    if not body["messages"]:
        raise UsageError("messages= is empty; a request needs at least one message.")
    _check_chat(body, stream=stream)
    if body.get("tools") is not None:
        body["tools"] = [wire_tool(tool) for tool in body["tools"]]
    if stream:
        body["stream"] = True
    body.update(params.get("extra_body") or {})
    return body


def check_keywords(params: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    """Refuse an unknown keyword: vLLM would ignore it in silence."""
    for name in params:
        if name not in known:
            import difflib  # only mistakes need it

            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}=?" if near else ""
            raise UsageError(
                f"{where} has no field {name!r}.{hint} What vLLM knows and this version does not "
                "goes into extra_body={…}."
            )


def _check_chat(body: Mapping[str, Any], *, stream: bool) -> None:
    tools = body.get("tools")
    if tools is not None and not tools:
        raise UsageError("tools= is empty: vLLM refuses that. Leave it out instead.")
    if body.get("tool_choice") not in {None, "none"} and not tools:
        raise UsageError("tool_choice= needs tools=.")
    check_sampling(body, stream=stream)


def check_sampling(body: Mapping[str, Any], *, stream: bool) -> None:
    """Refuse what no server setting can allow, of the fields that all completions have."""
    if body.get("stream_options") is not None and not stream:
        raise UsageError("stream_options= needs a stream: use stream(), or stream=True.")
    if stream and body.get("prompt_logprobs") is not None:
        raise UsageError("prompt_logprobs= works without a stream only: use create().")
    _check_range(body, "temperature", 0, 2)
    _check_range(body, "presence_penalty", -2, 2)
    _check_range(body, "frequency_penalty", -2, 2)
    top_p = body.get("top_p")
    if top_p is not None and not 0 < top_p <= 1:
        raise UsageError(f"top_p={top_p!r}: give a number above 0, up to 1.")
    check_constraints(body)


def _check_range(body: Mapping[str, Any], name: str, low: float, high: float) -> None:
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{name}= takes a number, not {type(value).__name__}.")
    if not low <= value <= high:
        raise UsageError(f"{name}={value!r}: give a number from {low} to {high}.")


def wire_tool(tool: object, *, strict: bool = False) -> Mapping[str, Any]:
    """Give a tool in the wire's shape; `strict` is added where the tool has it too."""
    if isinstance(tool, Mapping):
        return tool
    if not isinstance(tool, Tool):
        raise UsageError(
            f"tools= takes @tool functions and dicts in the wire's shape, not "
            f"{type(tool).__name__}; decorate a function with @tool."
        )
    spec = tool.spec
    function: dict[str, Any] = {"name": spec.name, "description": spec.description}
    function["parameters"] = spec.parameters
    if strict and spec.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def offered_tools(body: Mapping[str, Any]) -> frozenset[str]:
    """Give the names of the tools that a reply to this body may call."""
    choice = body.get("tool_choice")
    if choice == "none":
        return frozenset()
    functions = (tool.get("function") for tool in body.get("tools") or ())
    return frozenset(
        function["name"]
        for function in functions
        if isinstance(function, Mapping) and isinstance(function.get("name"), str)
    )
