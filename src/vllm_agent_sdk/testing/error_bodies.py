"""What servers, and what stands before them, say when something goes wrong: every form of it.

vLLM 0.32 has six forms of JSON, plain text and nothing at all; proxies add pages.
"""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types import _codec

__all__ = ["DEAD_ENGINE", "Shape", "error_object", "overflow", "shaped"]

Shape: TypeAlias = Literal["vllm", "string", "detail", "anthropic", "flat", "text", "empty", "html"]

DEAD_ENGINE = "EngineCore encountered an issue. See stack trace (above) for the root cause."
# Types and texts as vLLM's own handlers give them.
_ERRORS: dict[int, tuple[str, str]] = {
    400: ("BadRequestError", "Bad request"),
    404: ("NotFoundError", "Not found"),
    422: ("UnprocessableEntityError", "Failed to fetch the media URL"),
    500: ("InternalServerError", "Internal server error"),
    501: ("NotImplementedError", "The model does not support Chat Completions API"),
    503: (
        "Service Unavailable",
        (
            "The engine is currently busy and cannot accept new requests. "
            "Please try again later or on a different instance."
        ),
    ),
}
_JSON = "application/json"


def error_object(
    status: int, message: str | None = None, type: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """Make vLLM's error object of a status; its own message and type where none are given."""
    default_type, default_message = _ERRORS.get(status, (_phrase(status), _phrase(status)))
    return {
        "message": default_message if message is None else message,
        "type": default_type if type is None else type,
        "param": param,
        "code": status,
    }


def overflow(max_tokens: int, got: int) -> str:
    """Say in vLLM's words that a prompt is longer than the model's context."""
    return (
        f"This model's maximum context length is {max_tokens} tokens. However, your prompt "
        f"contains at least {got} input tokens, which exceeds this limit even without any "
        "output tokens. Please reduce the length of the input prompt. "
        f"(parameter=input_tokens, value={got})"
    )


def shaped(shape: Shape, error: Mapping[str, Any]) -> tuple[str, bytes]:
    """Write an error object in one of the forms; give the content type and the body.

    - `vllm`: `{"error": {…}}`, nearly everything;
    - `string`: `{"error": "…"}`, a wrong key, and 503 while experts are moved;
    - `detail`: `{"detail": "…"}`, a route that is not there;
    - `anthropic`: `{"type": "error", "error": {…}}`, the routes of that name;
    - `flat`: `{"object": "error", …}`, vLLM up to 0.10.0;
    - `text`, `empty`: the last resort, and `/health`;
    - `html`: a proxy's page.
    """
    message = error["message"]
    match shape:
        case "vllm":
            return _JSON, _codec.encode({"error": dict(error)})
        case "string":
            return _JSON, _codec.encode({"error": message})
        case "detail":
            return _JSON, _codec.encode({"detail": message})
        case "anthropic":
            inner = {"type": error["type"], "message": message}
            return _JSON, _codec.encode({"type": "error", "error": inner})
        case "flat":
            return _JSON, _codec.encode({"object": "error", **error})
        case "text":
            return "text/plain; charset=utf-8", message.encode()
        case "empty":
            return "text/plain; charset=utf-8", b""
        case "html":
            title = f"{error['code']} {_phrase(error['code'])}"
            page = (
                f"<html>\r\n<head><title>{title}</title></head>\r\n<body>{title}</body></html>\r\n"
            )
            return "text/html", page.encode()
        case _:
            raise UsageError(f"Reply.error has no shape {shape!r}.")


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"
