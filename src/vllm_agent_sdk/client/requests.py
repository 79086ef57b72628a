"""A call's keywords to the body that is sent: what was asked, and nothing else.

Refused here, before any I/O, is only what no server setting can allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vllm_agent_sdk._core.dialect.transcript import wire_messages
from vllm_agent_sdk._core.schema.constraints import check_constraints
from vllm_agent_sdk._core.schema.grammar import strict_tool
from vllm_agent_sdk._core.server.limits import check_generation, check_ranges
from vllm_agent_sdk.client.fields import check_fields
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.chat import ChatParams
from vllm_agent_sdk.types.protocols import Tool
from vllm_agent_sdk.types.request_fields import CALL_KEYWORDS

__all__ = [
    "LOAD_REPORT",
    "PLAIN",
    "chat_body",
    "merge_extra_body",
    "offered_tools",
    "wire_tool",
    "wire_tools",
    "with_headers",
]

#: The header that asks for a server's load, and the one that reports it.
LOAD_FORMAT = "endpoint-load-metrics-format"
LOAD_REPORT = "endpoint-load-metrics"


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
        UsageError: An unknown keyword (the nearest known one is named), a value of a wrong type,
            or what no server takes.
        SchemaError: No grammar can be made of the parameters of a tool that is `strict`.
    """
    check_fields(params, ChatParams, "chat.completions")
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
    if stream:
        body["stream"] = True
    merge_extra_body(body, params)
    if body.get("tools") is not None:
        body["tools"] = [strict_tool(tool) for tool in wire_tools(body["tools"])]
    _check_chat(body, stream=stream)
    return body


def merge_extra_body(body: dict[str, Any], params: Mapping[str, Any]) -> None:
    """Put the call's `extra_body` into its body. What is in there is checked like the rest."""
    extra = params.get("extra_body")
    if extra:
        if "stream" in extra:
            raise UsageError(
                "extra_body= cannot set stream: the method decides it. Use stream() or create()."
            )
        body.update(extra)


def with_headers(params: Mapping[str, Any], *, stream: bool) -> Mapping[str, Any]:
    """Give a call's keywords with the headers that `data_parallel_rank` and `load_metrics` mean.

    Raises:
        UsageError: They cannot work, or the header is in `extra_headers` too.
    """
    rank = params.get("data_parallel_rank")
    load = params.get("load_metrics")
    if rank is None and not load:
        return params
    added: dict[str, str] = {}
    if rank is not None:
        if rank < 0:
            raise UsageError(f"data_parallel_rank={rank}: give 0 or more.")
        added["x-data-parallel-rank"] = str(rank)
    if load:
        if stream:
            raise UsageError(
                "load_metrics=True works without a stream only: vLLM reports its load in the head "
                "of whole replies. Use create(), or vllm.server.load()."
            )
        added[LOAD_FORMAT] = "JSON"
    extra = params.get("extra_headers") or {}
    for name in extra:
        if name.lower() in added:
            raise UsageError(f"extra_headers= sets {name!r} beside the keyword for it; give one.")
    return {**params, "extra_headers": {**extra, **added}}


#: Fields with which nothing can be wrong, and which constrain nothing.
PLAIN = frozenset({"messages", "model", "stream"})


def _check_chat(body: Mapping[str, Any], *, stream: bool) -> None:
    if PLAIN.issuperset(body):
        return
    tools = body.get("tools")
    if tools is not None and not tools:
        raise UsageError("tools= is empty: vLLM refuses that. Leave it out instead.")
    choice = body.get("tool_choice")
    if choice is not None and choice != "none":
        if not tools:
            raise UsageError("tool_choice= needs tools=.")
        if isinstance(choice, Mapping):
            _check_named(choice, body)
    if body.get("continue_final_message") and body.get("add_generation_prompt"):
        raise UsageError(
            "continue_final_message=True goes on with the last message, add_generation_prompt=True "
            "begins a new one; give one of them."
        )
    check_ranges(body)
    check_generation(body, stream=stream)
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise UsageError("top_logprobs= needs logprobs=True.")
    check_constraints(body)


def _check_named(choice: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        raise UsageError(
            'tool_choice= names a tool as {"type": "function", "function": {"name": "…"}}.'
        )
    offered = offered_tools(body)
    if name not in offered:
        raise UsageError(
            f"tool_choice= names {name!r}, which is not among tools= "
            f"({', '.join(sorted(offered))})."
        )


def wire_tools(tools: object) -> list[Mapping[str, Any]]:
    """Give tools in the wire's shape."""
    if isinstance(tools, (str, Mapping)) or not isinstance(tools, Iterable):
        raise UsageError(f"tools= takes a list, not {type(tools).__name__}.")
    return [wire_tool(tool) for tool in tools]


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
    if choice == "none" or not body.get("tools"):
        return frozenset()
    functions = (tool.get("function") for tool in body.get("tools") or ())
    return frozenset(
        function["name"]
        for function in functions
        if isinstance(function, Mapping) and isinstance(function.get("name"), str)
    )
