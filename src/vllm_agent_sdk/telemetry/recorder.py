"""What happens to a client's calls, as facts, and who takes them.

A fact holds no key, no header and no body. Times are seconds. `request_id` is the `X-Request-Id`
that was sent; `server` is the server's base URL.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from vllm_agent_sdk.types._codec import Record

__all__ = [
    "BreakerClosed",
    "BreakerOpened",
    "LimiterWaited",
    "Outcome",
    "Recorder",
    "RequestFinished",
    "RequestRetried",
    "RequestStarted",
    "ServerEjected",
    "ServerFact",
    "ServerReturned",
    "StreamFinished",
]

#: How a stream ended.
Outcome: TypeAlias = Literal["complete", "failed", "closed"]


class RequestStarted(Record, frozen=True, tag="request_started"):
    """A call began; its attempts follow.

    Attributes:
        method: `"GET"` or `"POST"`.
        url: On the first server.
        stream: A stream was asked for.
    """

    request_id: str | None
    method: str
    url: str
    stream: bool


class RequestRetried(Record, frozen=True, tag="request_retried"):
    """An attempt failed and another follows.

    Attributes:
        server: Where it failed.
        attempt: Which one failed; the first is 1.
        reason: The error's class, such as `"ServerOverloadedError"`.
        status: The HTTP status, if there was one.
        delay_s: What is waited before the next one.
        elsewhere: The next one goes to another server.
    """

    request_id: str | None
    server: str
    attempt: int
    reason: str
    status: int | None
    delay_s: float
    elsewhere: bool


class RequestFinished(Record, frozen=True, tag="request_finished"):
    """A call has its whole reply, the beginning of its stream, or its error.

    Attributes:
        server: Who was asked last; `None` if the call never went out.
        attempts: How often it was sent, or was to be sent.
        error: The error's class, or `None`. `"CancelledError"` for a call that was cancelled.
        status: The HTTP status of that error, if there was one.
        duration_s: Waits and retries included.
    """

    request_id: str | None
    server: str | None
    attempts: int
    error: str | None
    status: int | None
    duration_s: float


class StreamFinished(Record, frozen=True, tag="stream_finished"):
    """A stream that was opened is over.

    Attributes:
        server: The one whose reply it was.
        attempts: How often the call was sent, until the stream's first event.
        outcome: `"complete"`; `"failed"`, with the error's class; `"closed"` by its reader before
            its end.
        first_event_s: From the beginning of the call to the stream's first event.
        duration_s: From the beginning of the call to the stream's end.
        tokens: Of prompt and reply together, where the server told them.
    """

    request_id: str | None
    server: str
    attempts: int
    outcome: Outcome
    error: str | None
    first_event_s: float | None
    duration_s: float
    tokens: int | None


class LimiterWaited(Record, frozen=True, tag="limiter_waited"):
    """An attempt waited for the client's own limits.

    Attributes:
        limit: `"rate"` (requests or tokens) or `"concurrency"`.
    """

    request_id: str | None
    limit: Literal["rate", "concurrency"]
    waited_s: float


class BreakerOpened(Record, frozen=True, tag="breaker_opened"):
    """A server failed so often that it is left alone.

    Attributes:
        reason: The last error's class.
        reset_s: Until it is tried again.
    """

    server: str
    reason: str
    reset_s: float


class BreakerClosed(Record, frozen=True, tag="breaker_closed"):
    """A server that was left alone has answered."""

    server: str


class ServerEjected(Record, frozen=True, tag="server_ejected"):
    """A server gets no calls until its `/health` says yes.

    Attributes:
        reason: The class of the error that it ended with.
    """

    server: str
    reason: str


class ServerReturned(Record, frozen=True, tag="server_returned"):
    """A server that was ejected gets calls again."""

    server: str


ServerFact: TypeAlias = (
    RequestStarted
    | RequestRetried
    | RequestFinished
    | StreamFinished
    | LimiterWaited
    | BreakerOpened
    | BreakerClosed
    | ServerEjected
    | ServerReturned
)


class Recorder(Protocol):
    """Takes facts as they happen.

    It is called inside the client's event loop and must not wait. What it raises is logged once and
    fails no call.
    """

    def record(self, fact: ServerFact, /) -> None:
        """Take one fact."""
        ...
