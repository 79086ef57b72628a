"""A Responses call's keywords to the body that is sent: what was asked, and nothing else.

Refused here, before any I/O, is only what no server setting can allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from vllm_agent_sdk._core.schema.constraints import (
    check_kinds,
    check_salt,
    constrains_text,
    ignored,
    matcher_of,
)
from vllm_agent_sdk._core.server.limits import check_ranges
from vllm_agent_sdk.client.fields import check_fields
from vllm_agent_sdk.client.requests import merge_extra_body, wire_tool, wire_tools
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.request_fields import CALL_KEYWORDS
from vllm_agent_sdk.types.responses import Response, ResponseParams
from vllm_agent_sdk.types.responses_items import InputItem, response_input

__all__ = [
    "offered_names",
    "response_body",
    "response_check",
    "response_constrains",
    "response_tool",
]


def response_body(
    input: str | Iterable[InputItem], params: Mapping[str, Any], *, stream: bool
) -> dict[str, Any]:
    """Build the body of a response, without `model` where the call names none.

    Args:
        input: Text, or messages of ours, items and the wire's dicts.
        params: The call's keywords.
        stream: Ask for a stream.

    Raises:
        UsageError: An unknown keyword (the nearest known one is named), a value of a wrong type,
            or what no server takes.
    """
    for name in ("data_parallel_rank", "load_metrics"):
        if name in params:
            raise UsageError(
                f"{name}= is for chat.completions and completions: vLLM's responses do not read "
                "its header."
            )
    if "stream" in params:
        raise UsageError(
            "responses.create() gives a whole response and responses.stream() a stream; neither "
            "takes stream=."
        )
    if "prompt" in params:
        raise UsageError("vLLM has no prompt templates (prompt=): use instructions= and input=.")
    check_fields(params, ResponseParams, "responses")
    body: dict[str, Any] = {"input": response_input(input)}
    body.update((name, value) for name, value in params.items() if name not in CALL_KEYWORDS)
    if stream:
        body["stream"] = True
    merge_extra_body(body, params)
    if body.get("tools") is not None:
        body["tools"] = [response_tool(tool) for tool in wire_tools(body["tools"])]
    _check(body)
    return body


def response_tool(tool: object, *, strict: bool = False) -> Mapping[str, Any]:
    """Give a tool in Responses' own, flat shape; one in chat's shape is flattened.

    Args:
        tool: A `@tool` function, or a dict.
        strict: Ask for constrained arguments where the tool has it too.
    """
    wire = wire_tool(tool, strict=strict)
    function = wire.get("function")
    if wire.get("type") == "function" and isinstance(function, Mapping):
        return {"type": "function", **function}
    return wire


def offered_names(body: Mapping[str, Any]) -> frozenset[str]:
    """Give the names of the functions that a response to this body may call."""
    if body.get("tool_choice") == "none":
        return frozenset()
    return frozenset(_names(body.get("tools") or ()))


def _names(tools: Iterable[Any]) -> Iterator[str]:
    for tool in tools:
        if not isinstance(tool, Mapping):
            continue
        name = tool.get("name")
        if tool.get("type") == "namespace":
            yield from (f"{name}__{inner}" for inner in _names(tool.get("tools") or ()))
        elif isinstance(name, str):
            yield name


def response_constrains(body: Mapping[str, Any]) -> bool:
    """True if white space without end may be all that a constraint lets the model write."""
    return _shape(body) is not None or constrains_text(body)


def response_check(body: Mapping[str, Any]) -> Callable[[Response], None] | None:
    """Give what checks the response to a body with a `choice` or `regex`; `None` for any other.

    A response does not say whether a stop text ended it: where one was asked for, nothing
    is checked.
    """
    found = matcher_of(body)
    if found is None or body.get("stop") or body.get("stop_token_ids"):
        return None
    kind, matches = found

    def check(response: Response) -> None:
        kinds = {item.type for item in response.output}
        if response.status == "completed" and kinds <= {"message", "reasoning"}:
            text = response.text
            if (text or not response.reasoning) and not matches(text):
                raise ignored(kind, text)

    return check


def _check(body: Mapping[str, Any]) -> None:
    choice = body.get("tool_choice")
    if not body.get("tools") and (choice == "required" or isinstance(choice, Mapping)):
        raise UsageError("tool_choice= needs tools=.")
    if isinstance(choice, Mapping) and choice.get("type") in {"function", "custom"}:
        _check_named(choice, body)
    if body.get("prompt") is not None:
        raise UsageError("vLLM has no prompt templates (prompt=): use instructions= and input=.")
    if body.get("background") and body.get("store", True) is not True:
        raise UsageError("background=True needs store=True: it is how the response is fetched.")
    if body.get("previous_input_messages") and body.get("previous_response_id"):
        raise UsageError("Give either previous_input_messages= or previous_response_id=.")
    check_ranges(body)
    check_salt(body)
    _check_constraint(body)


def _check_named(choice: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    name, offered = choice.get("name"), offered_names(body)
    if not name:
        raise UsageError('tool_choice= names a tool as {"type": "function", "name": "…"}.')
    # A tool inside a namespace may be named without it.
    if name not in offered and not any(each.endswith(f"__{name}") for each in offered):
        raise UsageError(
            f"tool_choice= names {name!r}, which is not among tools= "
            f"({', '.join(sorted(offered))})."
        )


def _shape(body: Mapping[str, Any]) -> object:
    """The format of the text, if it is one that constrains."""
    text = body.get("text")
    shape = text.get("format") if isinstance(text, Mapping) else None
    return None if isinstance(shape, Mapping) and shape.get("type") == "text" else shape


def _check_constraint(body: Mapping[str, Any]) -> None:
    structured, shape = body.get("structured_outputs"), _shape(body)
    if isinstance(structured, Mapping):
        check_kinds(structured)
    text = body.get("text") if structured is not None else None
    if isinstance(text, Mapping) and text.get("format") is not None:
        raise UsageError("Two constraints: give either text={'format': …} or structured_outputs=.")
    if (structured is not None or shape is not None) and body.get("include_reasoning") is False:
        raise UsageError(
            "include_reasoning=False with a constraint: the grammar would apply from the first "
            "token on, reasoning included. Leave it out and ignore the reasoning."
        )
