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

import datetime as dt
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

__all__ = ["engine_died", "first_failure", "server_error", "stream_failure"]

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
# "At most 2 image(s) may be provided in one prompt."; "x is not a multimodal model" (vLLM 0.32).
_MEDIA_LIMIT = re.compile(r"At most (\d+) (\w+)\(s\) may be provided")
_PART = re.compile(rb'"type": ?"(?:input_)?(image|audio|video)(?:_url)?"')
_NO_ROOM = "max_tokens must be at least 1, got 0"
_ZERO = re.compile(rb'"max_(?:completion_|output_)?tokens":\s*0\b')
_NO_MEDIA = "is not a multimodal model"
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
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    url: str = "",
    has_key: bool = False,
    now: float | None = None,
    sent: bytes | None = None,
) -> VLLMError:
    """Make the typed error of a reply whose status is not 2xx.

    Args:
        status: The HTTP status.
        headers: The reply's headers, by their names in lower case.
        body: The reply's body.
        url: Where the request went; it is named in the messages that need it.
        has_key: True if a key was sent.
        now: Seconds since 1970, for a `Retry-After` that is a date; without it such a date is
            counted from the reply's own `Date`, or left out.
        sent: The request's body, to tell which of its parts was refused.
    """
    if 300 <= status < 400:
        return _redirected(url, headers)
    said = _Said(body)
    facts: dict[str, Any] = {
        "status": status,
        "code": said.code,
        "type": said.type,
        "param": said.param,
        "body": body.decode("utf-8", "replace"),
        "retry_after": _retry_after(headers, now),
    }
    message = said.message or f"HTTP {status} without a message"
    if status == 400:
        return _bad_request(message, said, facts, sent or b"")
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


def _redirected(url: str, headers: Mapping[str, str]) -> ProtocolError:
    target = headers.get("location", "nowhere")
    return ProtocolError(
        f"The server redirected {url} to {target}; redirects are not followed. "
        "Give the final address as base_url."
    )


def _bad_request(message: str, said: _Said, facts: dict[str, Any], sent: bytes) -> ServerError:
    # A prompt of exactly the context leaves no room: the server then blames a field it made up.
    full = _NO_ROOM in message and bool(sent) and not _ZERO.search(sent)
    if full or "maximum context length" in message or said.param in {"input_tokens", "input_text"}:
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
    limited = _MEDIA_LIMIT.search(message)
    if limited or _NO_MEDIA in message:
        return _refused_media(message, limited, sent, facts)
    return BadRequestError(message, **facts)


def _refused_media(
    message: str, limited: re.Match[str] | None, sent: bytes, facts: dict[str, Any]
) -> UnsupportedByServerError:
    """Say which kind of part was refused, and how many of it are taken."""
    if limited is None:
        parts = _PART.search(sent)
        kind = parts[1].decode() if parts else "multimodal"
        return UnsupportedByServerError(
            f"The model takes text alone, no {kind} input: {message}.",
            feature=f"{kind}_input",
            limit=0,
            **facts,
        )
    limit, kind = int(limited[1]), limited[2]
    how = f"--limit-mm-per-prompt '{{\"{kind}\": N}}'"
    more = (
        f"Start the server with {how} for more."
        if limit
        else f"The model takes no {kind}, or the server was started so ({how})."
    )
    return UnsupportedByServerError(
        f"{message.removesuffix('.')}. {more}",
        feature=f"{kind}_input",
        flags=("--limit-mm-per-prompt",),
        limit=limit,
        **facts,
    )


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


def _retry_after(headers: Mapping[str, str], now: float | None) -> float | None:
    """Read `Retry-After`: seconds, or a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until = _date(value)
        since = now if now is not None else _date(headers.get("date", ""))
        if until is None or since is None:
            return None
        seconds = until - since
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _date(value: str) -> float | None:
    """Read a date of HTTP as seconds since 1970."""
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(value)
        # HTTP's dates are in UTC, and one without a zone means that too.
        return (when if when.tzinfo else when.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def engine_died(error: VLLMError) -> bool:
    """Tell whether an error says that the server's engine is dead."""
    return isinstance(error, EngineDeadError) or (
        isinstance(error, StreamFailedError) and _ENGINE_DEAD in error.body
    )


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


def first_failure(data: bytes) -> StreamFailedError | None:
    """Make the typed error of a stream's first event, if that is an error frame."""
    if b'"error"' not in data:
        return None
    frame = _codec.decode_or_none(data)
    error = frame.get("error") if isinstance(frame, dict) and len(frame) == 1 else None
    return stream_failure(error) if error else None
