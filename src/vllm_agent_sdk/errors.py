"""Every exception this library raises, in one tree.

```text
VLLMError
├─ UsageError                    SchemaError · ClientClosedError · UnsupportedControlError
├─ TransportError                ConnectError · ConnectTimeoutError · FirstTokenTimeoutError
│                                IdleTimeoutError · TotalTimeoutError · CircuitOpenError
├─ StreamError                   StreamTruncatedError · StreamFailedError · ProtocolError
│                                OutputStalledError
├─ ServerError
│  ├─ BadRequestError            ContextLengthError
│  ├─ UnsupportedByServerError   NotImplementedByModelError
│  ├─ AuthenticationError · PermissionDeniedError · NotFoundError (ModelNotFoundError)
│  ├─ ConflictError · UnprocessableEntityError
│  └─ RateLimitError · InternalServerError · ServerOverloadedError · EngineDeadError
├─ OutputError                   OutputValidationError · ConstraintIgnoredError
│                                ToolArgumentsError · ToolCallMissingError
├─ RunError                      BudgetExceededError
├─ ToolError · ToolDeniedError · HookError (UnsupportedHookOutputError)
├─ MCPError · LocalServerError
└─ SessionError                  SessionNotFoundError · SessionLockedError
                                 CheckpointNotFoundError · StoreError
```

Facts are attributes, given as keywords; every error pickles with all of them. Exceptions of other
libraries are causes (`__cause__`), never what a caller sees. Imports the standard library only.
"""

from __future__ import annotations

from typing import Any, Self

__all__ = [
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceededError",
    "CheckpointNotFoundError",
    "CircuitOpenError",
    "ClientClosedError",
    "ConflictError",
    "ConnectError",
    "ConnectTimeoutError",
    "ConstraintIgnoredError",
    "ContextLengthError",
    "EngineDeadError",
    "FirstTokenTimeoutError",
    "HookError",
    "IdleTimeoutError",
    "InternalServerError",
    "LocalServerError",
    "MCPError",
    "ModelNotFoundError",
    "NotFoundError",
    "NotImplementedByModelError",
    "OutputError",
    "OutputStalledError",
    "OutputValidationError",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "RunError",
    "SchemaError",
    "ServerError",
    "ServerOverloadedError",
    "SessionError",
    "SessionLockedError",
    "SessionNotFoundError",
    "StoreError",
    "StreamError",
    "StreamFailedError",
    "StreamTruncatedError",
    "ToolArgumentsError",
    "ToolCallMissingError",
    "ToolDeniedError",
    "ToolError",
    "TotalTimeoutError",
    "TransportError",
    "UnprocessableEntityError",
    "UnsupportedByServerError",
    "UnsupportedControlError",
    "UnsupportedHookOutputError",
    "UsageError",
    "VLLMError",
]


def _rebuild(cls: type[VLLMError], message: str, facts: dict[str, Any]) -> VLLMError:
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(facts)
    return error


class VLLMError(Exception):
    """What all errors of this library have in common.

    Attributes:
        message: One sentence that says what happened and what to do.
        retryable: True if the same call may succeed later without a change.
        attempts: How many times the request was sent.
        request_id: The `X-Request-Id` sent with the request, if there was one.
        partial: What had come before the error (an accumulated reply), if anything had.
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        retryable: bool | None = None,
        attempts: int = 1,
        request_id: str | None = None,
        partial: Any = None,
    ) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable
        self.attempts = attempts
        self.request_id = request_id
        self.partial = partial

    @property
    def message(self) -> str:
        """The sentence given at construction."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args[0], dict(self.__dict__))

    def with_facts(self, **facts: Any) -> Self:
        """Set attributes (such as `partial` or `request_id`) and return the same error."""
        self.__dict__.update(facts)
        return self


# ── the caller's mistakes ────────────────────────────────────────────────────────────────────────


class UsageError(VLLMError):
    """The call cannot work as written; nothing was sent."""


class SchemaError(UsageError):
    """A type or JSON Schema cannot be used; the message names keyword and path."""


class ClientClosedError(UsageError):
    """The client was closed before this call."""


class UnsupportedControlError(UsageError):
    """A control of a run or session cannot work here.

    Attributes:
        control: The control's name, such as `"rewind"`.
        reason: Why it cannot work.
    """

    def __init__(self, message: str, *, control: str = "", reason: str = "", **common: Any) -> None:
        super().__init__(message, **common)
        self.control = control
        self.reason = reason


# ── the way to the server ────────────────────────────────────────────────────────────────────────


class TransportError(VLLMError):
    """The request or its reply was lost on the way.

    Attributes:
        reused: It was lost on a kept connection, before the reply had begun: the server had most
            likely closed that connection meanwhile.
    """

    retryable = True
    reused: bool = False


class ConnectError(TransportError):
    """No connection to the server could be made."""


class ConnectTimeoutError(TransportError, TimeoutError):
    """No connection within `Timeout.connect` seconds."""


class FirstTokenTimeoutError(TransportError, TimeoutError):
    """A stream sent no data within `Timeout.first_token` seconds of the request's last byte."""

    retryable = False


class IdleTimeoutError(TransportError, TimeoutError):
    """A stream that had begun sent no byte for `Timeout.idle` seconds."""

    retryable = False


class TotalTimeoutError(TransportError, TimeoutError):
    """The call did not end within `Timeout.total` seconds."""

    retryable = False


class CircuitOpenError(TransportError):
    """The server failed so often in a row that it is not asked for now.

    Attributes:
        retry_after: Seconds until it is asked again.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0, **common: Any) -> None:
        super().__init__(message, **common)
        self.retry_after = retry_after


# ── the stream ───────────────────────────────────────────────────────────────────────────────────


class StreamError(VLLMError):
    """A reply began and did not end well; `partial` holds what had come."""


class StreamTruncatedError(StreamError):
    """The stream ended before the reply was complete."""

    retryable = True


class StreamFailedError(StreamError):
    """The server reported an error inside the stream.

    Attributes:
        status: The `code` of the error object, as a number, if it had one.
        type: Its `type`.
        body: The error object as sent (text).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        body: str = "",
        **common: Any,
    ) -> None:
        super().__init__(message, **common)
        self.status = status
        self.type = type
        self.body = body


class ProtocolError(StreamError):
    """The server sent bytes that are not what its protocol says."""


class OutputStalledError(StreamError):
    """A constrained reply emitted nothing but white space and was cut."""


# ── the server's answers ─────────────────────────────────────────────────────────────────────────


class ServerError(VLLMError):
    """The server answered with an error status.

    Attributes:
        status: The HTTP status, or `None` when it was known before the request.
        code: `error.code` of the body as sent (vLLM: the status again, as a number).
        type: `error.type` of the body.
        param: `error.param` of the body.
        body: The body as text.
        retry_after: Seconds from a `Retry-After` header (vLLM 0.32 sends none), if there was one.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: int | str | None = None,
        type: str | None = None,
        param: str | None = None,
        body: str = "",
        retry_after: float | None = None,
        **common: Any,
    ) -> None:
        super().__init__(message, **common)
        self.status = status
        self.code = code
        self.type = type
        self.param = param
        self.body = body
        self.retry_after = retry_after


class BadRequestError(ServerError):
    """400: the server refused the request as it is."""


class ContextLengthError(BadRequestError):
    """The prompt does not fit the model's context.

    Attributes:
        max: The context length in tokens, if the server named it.
        got: The prompt's tokens, if the server named them.
    """

    def __init__(
        self, message: str, *, max: int | None = None, got: int | None = None, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.max = max
        self.got = got


class UnsupportedByServerError(ServerError):
    """The server, as it was started, cannot do this.

    Attributes:
        feature: What was asked for.
        flags: The server's flags that would turn it on.
        limit: How many of these the server takes in one request; 0 for none, `None` if it did not
            say.
    """

    def __init__(
        self,
        message: str,
        *,
        feature: str = "",
        flags: tuple[str, ...] = (),
        limit: int | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.feature = feature
        self.flags = flags
        self.limit = limit


class NotImplementedByModelError(UnsupportedByServerError):
    """501: the server has the route, but its model cannot do this."""


class AuthenticationError(ServerError):
    """401: no key, or a wrong one."""


class PermissionDeniedError(ServerError):
    """403: the server refuses this to everyone, or to this key."""


class NotFoundError(ServerError):
    """404: no such route or object."""


class ModelNotFoundError(NotFoundError):
    """The server does not serve a model of this name.

    Attributes:
        known: The names it serves, as far as they are known.
    """

    def __init__(self, message: str, *, known: tuple[str, ...] = (), **facts: Any) -> None:
        super().__init__(message, **facts)
        self.known = known


class ConflictError(ServerError):
    """409: the server is busy with a request that excludes this one."""


class UnprocessableEntityError(ServerError):
    """422: vLLM could not fetch a media URL."""


class RateLimitError(ServerError):
    """429: sent by proxies; vLLM itself answers 503."""

    retryable = True


class InternalServerError(ServerError):
    """500: the request failed inside the server."""


class ServerOverloadedError(ServerError):
    """503 (also 502 and 504 of a proxy): the server cannot take the request now."""

    retryable = True


class EngineDeadError(InternalServerError):
    """The server's engine has died; it answers nothing until it is started again."""


# ── what the model wrote ─────────────────────────────────────────────────────────────────────────


class OutputError(VLLMError):
    """The model's output is not what was asked for; `partial` holds the reply."""


class OutputValidationError(OutputError):
    """The reply does not match its type or schema.

    Attributes:
        finish_reason: The reply's finish reason (`"length"`: it was cut).
        unenforced: Keywords of the schema that the server's grammars do not enforce.
    """

    def __init__(
        self,
        message: str,
        *,
        finish_reason: str | None = None,
        unenforced: tuple[str, ...] = (),
        **common: Any,
    ) -> None:
        super().__init__(message, **common)
        self.finish_reason = finish_reason
        self.unenforced = unenforced


class ConstraintIgnoredError(OutputError):
    """The server took a constraint and did not apply it."""


class ToolArgumentsError(OutputError):
    """A call's arguments don't parse or don't match the tool's schema.

    Attributes:
        tool: The tool's name.
        arguments_json: The arguments as the model wrote them.
    """

    def __init__(
        self, message: str, *, tool: str = "", arguments_json: str = "", **common: Any
    ) -> None:
        super().__init__(message, **common)
        self.tool = tool
        self.arguments_json = arguments_json


class ToolCallMissingError(OutputError):
    """A tool call was required and the reply has none."""


# ── runs, tools, sessions ────────────────────────────────────────────────────────────────────────


class RunError(VLLMError):
    """A run ended without success.

    Attributes:
        stop_reason: Why it ended.
        result: The `RunResult`, with everything that had come.
    """

    def __init__(
        self, message: str, *, stop_reason: str = "error", result: Any = None, **common: Any
    ) -> None:
        super().__init__(message, **common)
        self.stop_reason = stop_reason
        self.result = result


class BudgetExceededError(RunError):
    """A run ended at one of its limits (`max_turns`, `max_seconds`, …)."""


class ToolError(VLLMError):
    """A tool failed. Raise it inside a tool to tell the model exactly this message."""


class ToolDeniedError(VLLMError):
    """A call was not permitted."""


class HookError(VLLMError):
    """A hook failed."""


class UnsupportedHookOutputError(HookError):
    """A hook returned something that has no meaning."""


class MCPError(VLLMError):
    """An MCP server failed or could not be reached."""


class LocalServerError(VLLMError):
    """A vLLM server of one's own could not be provided, started or kept.

    Attributes:
        log_path: The server's log file, if it had begun to write one.
    """

    def __init__(self, message: str, *, log_path: str | None = None, **common: Any) -> None:
        super().__init__(message, **common)
        self.log_path = log_path


class SessionError(VLLMError):
    """A session or its store failed."""


class SessionNotFoundError(SessionError):
    """No session of this id."""


class SessionLockedError(SessionError):
    """Another owner has the session open.

    Attributes:
        holder: Who has it, as text.
    """

    def __init__(self, message: str, *, holder: str = "", **common: Any) -> None:
        super().__init__(message, **common)
        self.holder = holder


class CheckpointNotFoundError(SessionError):
    """No checkpoint of this id."""


class StoreError(SessionError):
    """The store failed; what it had acknowledged is kept."""
