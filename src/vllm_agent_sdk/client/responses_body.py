"""A Responses call's keywords to the body that is sent: what was asked, and nothing else.

Refused here, before any I/O, is only what no server setting can allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vllm_agent_sdk.client.requests import check_keywords, check_sampling, wire_tool
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.request_fields import CALL_KEYWORDS
from vllm_agent_sdk.types.responses import RESPONSE_FIELDS
from vllm_agent_sdk.types.responses_items import InputItem, response_input

__all__ = ["offered_names", "response_body", "response_tool"]

_SALT_LENGTH = 128
_NOT_IN_SALT = "@/\\\0"


def response_body(
    input: str | Iterable[InputItem], params: Mapping[str, Any], *, stream: bool
) -> dict[str, Any]:
    """Build the body of a response, without `model` where the call names none.

    Args:
        input: Text, or messages of ours, items and the wire's dicts.
        params: The call's keywords.
        stream: Ask for a stream.

    Raises:
        UsageError: An unknown keyword (the nearest known one is named), or what no server takes.
    """
    if "stream" in params:
        raise UsageError(
            "responses.create() gives a whole response and responses.stream() a stream; neither "
            "takes stream=."
        )
    if params.get("prompt") is not None:
        raise UsageError("vLLM has no prompt templates (prompt=): use instructions= and input=.")
    check_keywords(params, RESPONSE_FIELDS | CALL_KEYWORDS, "responses")
    body: dict[str, Any] = {"input": response_input(input)}
    body.update((name, value) for name, value in params.items() if name not in CALL_KEYWORDS)
    _check(body)
    if body.get("tools") is not None:
        body["tools"] = [response_tool(tool) for tool in body["tools"]]
    if stream:
        body["stream"] = True
    body.update(params.get("extra_body") or {})
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


def _check(body: Mapping[str, Any]) -> None:
    choice = body.get("tool_choice")
    if not body.get("tools") and (choice == "required" or isinstance(choice, Mapping)):
        raise UsageError("tool_choice= needs tools=.")
    if body.get("background") and body.get("store", True) is not True:
        raise UsageError("background=True needs store=True: it is how the response is fetched.")
    if body.get("previous_input_messages") and body.get("previous_response_id"):
        raise UsageError("Give either previous_input_messages= or previous_response_id=.")
    check_sampling(body, stream=False)
    _check_constraint(body)
    salt = body.get("cache_salt")
    if salt is not None and not (
        isinstance(salt, str)
        and 0 < len(salt) <= _SALT_LENGTH
        and not any(each in salt for each in _NOT_IN_SALT)
    ):
        raise UsageError(
            f"cache_salt= takes 1 to {_SALT_LENGTH} characters without '@', '/', '\\' and NUL."
        )


def _check_constraint(body: Mapping[str, Any]) -> None:
    structured = body.get("structured_outputs")
    text = body.get("text")
    shape = text.get("format") if isinstance(text, Mapping) else None
    if shape is not None and structured is not None:
        raise UsageError("Two constraints: give either text={'format': …} or structured_outputs=.")
    constrained = structured is not None or (
        isinstance(shape, Mapping) and shape.get("type") != "text"
    )
    if constrained and body.get("include_reasoning") is False:
        raise UsageError(
            "include_reasoning=False with a constraint: the grammar would apply from the first "
            "token on, reasoning included. Leave it out and ignore the reasoning."
        )
