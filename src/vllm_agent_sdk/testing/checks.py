"""What vLLM refuses before it generates anything, with its own texts.

What only the table of fields knows (names, types, what is missing) is in `fields`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vllm_agent_sdk.testing.error_bodies import overflow
from vllm_agent_sdk.testing.exchange import Answer, SimulatorRequest
from vllm_agent_sdk.testing.jsontypes import is_list, is_object
from vllm_agent_sdk.testing.wire import error_answer, error_body

__all__ = [
    "RefusedError",
    "check_chat",
    "check_length",
    "check_model",
    "check_parser",
    "check_sampling",
    "read_body",
    "tool_choice",
]


class RefusedError(Exception):
    """A request is refused; `answer` says how."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "BadRequestError",
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.answer: Answer = error_answer(status, error_body(status, message, type, param))


def read_body(request: SimulatorRequest) -> dict[str, Any]:
    """Read the JSON object a request holds."""
    media_type = request.headers.get("content-type", "").lower().partition(";")[0]
    if media_type != "application/json":
        raise _invalid("Unsupported Media Type: Only 'application/json' is allowed")
    try:
        body = json.loads(request.body)
    except json.JSONDecodeError as cause:
        error = {
            "type": "json_invalid",
            "loc": f"body.{cause.pos}",
            "msg": "JSON decode error",
            "input": "<dict of 0 items>",
            "ctx": {"error": cause.msg},
        }
        raise _invalid(str(error), f"body.{cause.pos}") from None
    except UnicodeDecodeError:
        raise RefusedError("There was an error parsing the body", type="Bad Request") from None
    if not is_object(body):
        raise _field_error("model_attributes_type", "body", _NOT_AN_OBJECT, body)
    return body


_NOT_AN_OBJECT = "Input should be a valid dictionary or object to extract fields from"


def _invalid(error: str, param: str | None = None) -> RefusedError:
    return RefusedError(f"1 validation error:\n  {error}", type="Bad Request", param=param)


def _field_error(type_: str, path: str, message: str, value: object) -> RefusedError:
    shown: object = value
    if is_list(value) or is_object(value):
        shown = f"<{type(value).__name__} of {len(value)} items>"
    return _invalid(str({"type": type_, "loc": path, "msg": message, "input": shown}), path)


def _refused(message: str, parameter: str) -> RefusedError:
    return RefusedError(f"{message} (parameter={parameter})", param=parameter)


def check_model(body: Mapping[str, Any], served: str) -> None:
    """Refuse a model that is not served; none at all is the served one."""
    model = body.get("model")
    if model and model != served:
        raise RefusedError(
            f"The model `{model}` does not exist. Valid aliases: {served}.",
            status=404,
            type="NotFoundError",
            param="model",
        )


def check_chat(body: Mapping[str, Any]) -> None:
    """Refuse what the chat request's own rules forbid."""
    if body.get("stream_options") and not body.get("stream"):
        raise _refused("Stream options can only be defined when `stream=True`.", "stream_options")
    top_logprobs = body.get("top_logprobs")
    if top_logprobs and not body.get("logprobs"):
        raise _refused("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    if body.get("cache_salt") == "":
        raise _refused(
            "Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt"
        )
    outputs = body.get("structured_outputs")
    if is_object(outputs) and sum(outputs.get(name) is not None for name in _CONSTRAINTS) > 1:
        raise RefusedError(
            "You can only use one kind of constraints for structured outputs "
            "('json', 'regex' or 'choice')."
        )
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools == []:
        raise _refused(
            "`tools` must not be an empty array. "
            "Either provide at least one tool or omit the field entirely.",
            "tools",
        )
    if choice in (None, "none"):
        return
    if tools is None:
        raise _refused("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if is_object(choice):
        name = _named(choice)
        if name not in [tool["function"]["name"] for tool in tools]:
            raise _refused(
                "The tool specified in `tool_choice` does not match any of the specified `tools`",
                "tool_choice",
            )
    elif choice not in ("auto", "required"):
        raise _refused(
            f"Invalid value for `tool_choice`: {choice}! "
            'Only named tools, "none", "auto" or "required" are supported.',
            "tool_choice",
        )


def _named(choice: Mapping[str, Any]) -> str:
    function = choice.get("function")
    usage = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'
    if not is_object(function):
        raise _refused(
            f"Invalid value for `function`: `{function}` in `tool_choice`! {usage}",
            "tool_choice.function",
        )
    if "name" not in function:
        raise _refused(
            f"Expected field `name` in `function` in `tool_choice`! {usage}",
            "tool_choice.function.name",
        )
    return str(function["name"])


def tool_choice(body: Mapping[str, Any]) -> Any:
    """Give the request's choice, or what stands for it: `"auto"` with tools, else `None`."""
    return body.get("tool_choice", "auto" if body.get("tools") else None)


def check_parser(body: Mapping[str, Any], tool_parser: str | None) -> None:
    """Refuse tools on a server that was started without a parser for calls."""
    choice = tool_choice(body)
    if tool_parser is not None or choice in (None, "none"):
        return
    if choice == "auto":
        raise RefusedError(
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        )
    described = f'function "{_named(choice)}"' if is_object(choice) else f'"{choice}"'
    raise RefusedError(f"tool_choice={described} requires --tool-call-parser to be set")


_CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_MOST_LOGPROBS = 20


def check_sampling(body: Mapping[str, Any]) -> None:
    """Refuse what no model can be asked for, in the order in which the server finds it."""
    _check_ranges(body)
    for name in ("presence_penalty", "frequency_penalty"):
        value = _number(body, name)
        if value is not None and not -2 <= value <= 2:
            raise RefusedError(f"{name} must be in [-2, 2], got {float(value)}.")
    n = _number(body, "n")
    if n is not None and n < 1:
        raise RefusedError(f"n must be at least 1, got {n}.")
    asked = _number(body, "top_logprobs") or 0
    if asked > _MOST_LOGPROBS:
        raise RefusedError(
            f"Requested sample logprobs of {asked}, which is greater than max allowed: "
            f"{_MOST_LOGPROBS} (parameter=logprobs, value={asked})",
            param="logprobs",
        )
    if n is not None and n > 1 and body.get("temperature") == 0:
        raise RefusedError(f"n must be 1 when using greedy sampling, got {n}.")


def _check_ranges(body: Mapping[str, Any]) -> None:
    temperature, top_p = _number(body, "temperature"), _number(body, "top_p")
    if temperature is not None and not 0 <= temperature <= 2:
        raise _out_of_range("temperature", "in [0, 2]", float(temperature))
    if top_p is not None and not 0 < top_p <= 1:
        raise _out_of_range("top_p", "in (0, 1]", float(top_p))
    for name in ("max_completion_tokens", "max_tokens"):
        limit = _number(body, name)
        if limit is not None:
            if limit < 1:
                raise _out_of_range("max_tokens", "at least 1", limit)
            break


def _number(body: Mapping[str, Any], name: str) -> Any:
    """Give a field that is a number; `None` for one that is left out, or was sent as text."""
    value = body.get(name)
    return value if isinstance(value, (int, float)) else None


def _out_of_range(name: str, range_: str, value: float) -> RefusedError:
    return RefusedError(
        f"{name} must be {range_}, got {value}. (parameter={name}, value={value})", param=name
    )


def check_length(tokens: int, max_model_len: int) -> None:
    """Refuse a prompt that leaves no room for a token."""
    if tokens < max_model_len:
        return
    if tokens == max_model_len:
        raise RefusedError(
            "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",
            param="max_tokens",
        )
    # The server stops counting at the first token too many.
    counted = max_model_len + 1
    raise RefusedError(overflow(max_model_len, counted), param="input_tokens")
