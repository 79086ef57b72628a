"""What a server said went wrong, as one typed error with the facts as attributes.

vLLM has six shapes of error bodies, proxies add HTML and nothing at all (vLLM 0.32, source and
running server):

- `{"error": {"message", "type", "param", "code"}}`: nearly everything
- `{"error": "Unauthorized"}`: 401, and 503 while elastic experts are resized
- `{"detail": "Not Found"}`: a route that is not there
- `{"type": "error", "error": {…}}`: the Anthropic routes
- `{"object": "error", "message", "type", "param", "code"}`: vLLM up to 0.10.0
- plain text, or empty

Decisions follow the status, never the spelling of `type` (503 has two).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from vllm_agent_sdk.errors import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ContextLengthError,
    EngineDeadError,
    InternalServerError,
    ModelNotFoundError,
    NotFoundError,
    NotImplementedByModelError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServerError,
    ServerOverloadedError,
    StreamFailedError,
    UnprocessableEntityError,
    UnsupportedByServerError,
    VLLMError,
)
from vllm_agent_sdk.types import _codec

__all__ = ["server_error", "stream_failure"]

_BY_STATUS: dict[int, type[ServerError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
    500: InternalServerError,
    502: ServerOverloadedError,
    503: ServerOverloadedError,
    504: ServerOverloadedError,
}
_TOOL_FLAGS = ("--enable-auto-tool-choice", "--tool-call-parser")
# Not the characters of a prompt, nor the tokens asked for beside it (older versions).
_PROMPT_TOKENS = re.compile(
    r"(?:contains|has)(?: at least)? (\d+) input tokens|(\d+) in the (?:messages|prompt)"
)
_ENGINE_DEAD = "EngineCore encountered an issue"


class _Said:
    """What could be read from the body."""

    __slots__ = ("code", "message", "param", "type", "unknown_route")

    def __init__(self, body: bytes) -> None:
        self.message = ""
        self.type: str | None = None
        self.param: str | None = None
        self.code: int | str | None = None
        self.unknown_route = False
        value = _codec.decode_or_none(body)
        if isinstance(value, dict):
            self._read(value)
        else:
            text = body.decode("utf-8", "replace").strip()
            self.unknown_route = True
            self.message = "an HTML page" if text[:1] == "<" else text[:500]

    def _read(self, value: dict[str, Any]) -> None:
        error = value.get("error", value)
        if isinstance(error, str):
            self.message = error
        elif isinstance(error, dict):
            message = error.get("message", error.get("detail"))
            self.message = message if isinstance(message, str) else ""
            self.unknown_route = "error" not in value and "detail" in value
            self.type = _text(error.get("type"))
            self.param = _text(error.get("param"))
            code = error.get("code")
            self.code = code if isinstance(code, (int, str)) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def server_error(
    status: int, headers: Mapping[str, str], body: bytes, *, url: str = "", has_key: bool = False
) -> VLLMError:
    """Make the typed error of a reply whose status is not 2xx.

    Args:
        status: The HTTP status.
        headers: The reply's headers, by their names in lower case.
        body: The reply's body.
        url: Where the request went; it is named in the messages that need it.
        has_key: True if a key was sent.
    """
    if 300 <= status < 400:
        target = headers.get("location", "nowhere")
        return ProtocolError(
            f"The server redirected {url} to {target}; redirects are not followed. "
            "Give the final address as base_url."
        )
    said = _Said(body)
    facts: dict[str, Any] = {
        "status": status,
        "code": said.code,
        "type": said.type,
        "param": said.param,
        "body": body.decode("utf-8", "replace"),
        "retry_after": _seconds(headers.get("retry-after")),
    }
    message = said.message or f"HTTP {status} without a message"
    if status == 400:
        return _bad_request(message, said, facts)
    if status == 401:
        message = (
            f"The server refused the key that was sent (401 from {url}). Check api_key=, or "
            "VLLM_API_KEY."
            if has_key
            else f"The server wants a key (401 from {url}). Give api_key=, or set VLLM_API_KEY."
        )
    elif status == 404:
        return _not_found(message, said, url, facts)
    elif status == 405 and said.unknown_route:
        return UnsupportedByServerError(
            f"The server does not take this request at {url} (405): is it a vLLM server?",
            feature=url,
            **facts,
        )
    elif status == 501:
        return NotImplementedByModelError(message, **facts)
    elif status == 500 and _ENGINE_DEAD in message:
        return EngineDeadError(
            "The server's engine has died (its log says why); start the server again.", **facts
        )
    elif said.unknown_route and said.message:
        message = f"The server answered {status} with {said.message} at {url}."
    return _BY_STATUS.get(status, ServerError)(message, **facts)


def _bad_request(message: str, said: _Said, facts: dict[str, Any]) -> ServerError:
    if "maximum context length" in message or said.param in {"input_tokens", "input_text"}:
        limit = re.search(r"context length (?:is|of) (\d+)", message)
        got = _PROMPT_TOKENS.search(message)
        return ContextLengthError(
            message,
            max=int(limit[1]) if limit else None,
            got=int(got[1] or got[2]) if got else None,
            **facts,
        )
    if "--tool-call-parser" in message or "--enable-auto-tool-choice" in message:
        flags = tuple(flag for flag in _TOOL_FLAGS if flag in message)
        return UnsupportedByServerError(
            f"{message}. Start the server with {' and '.join(flags)} (see its documentation for "
            "the parser of your model), or use turn_mode='guided', which needs no flags.",
            feature="tool_choice",
            flags=flags,
            **facts,
        )
    return BadRequestError(message, **facts)


def _not_found(message: str, said: _Said, url: str, facts: dict[str, Any]) -> ServerError:
    if said.unknown_route:
        return UnsupportedByServerError(
            f"There is no route {url} (404). Either base_url is not that of a vLLM server, or this "
            "server was started for another task, or a proxy does not pass the route on.",
            feature=url,
            **facts,
        )
    if said.param == "model" or re.search(r"model .* does not exist", message):
        return ModelNotFoundError(message, **facts)
    return NotFoundError(message, **facts)


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def stream_failure(error: object) -> StreamFailedError:
    """Make the typed error of an error frame inside a stream."""
    facts = error if isinstance(error, dict) else {"message": error}
    message = facts.get("message")
    code = facts.get("code")
    status = int(str(code)) if re.fullmatch(r"[0-9]{1,3}", str(code)) else None
    text = message if isinstance(message, str) and message else "an error without a message"
    if _ENGINE_DEAD in text:
        text = "its engine has died (its log says why); start the server again"
    return StreamFailedError(
        f"The server failed inside the stream: {text}",
        status=status,
        type=_text(facts.get("type")),
        body=_codec.encode(error).decode(),
        retryable=status == 503,
    )
