"""The seam to the network: what a transport is asked for, and what it gives.

A transport moves bytes and knows nothing of what they mean: no retries, no redirects, no cookies,
no decoding but of the content coding that it asked for itself, no status that is an error. Its only
failures are `ConnectError`, `ConnectTimeoutError` and `TransportError`.
`vllm_agent_sdk.testing.transport_contract` checks one of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol

from vllm_agent_sdk.errors import UsageError, VLLMError
from vllm_agent_sdk.types._codec import Record

__all__ = ["ByteStream", "Request", "Transport"]


class Request(Record, frozen=True):
    """One HTTP request.

    Attributes:
        method: `GET` or `POST`.
        url: The whole URL.
        headers: Header names (lower case) and values.
        body: The bytes to send; `None` for none.
        connect_timeout: Seconds for the connection, TLS included; `None` for no limit.
        connected: Called when a connection is there and the request is about to be written.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    connect_timeout: float | None = None
    connected: Callable[[], None] | None = None

    def __repr__(self) -> str:
        # Headers hold the key: they are never shown.
        return f"Request({self.method} {self.url}, {len(self.body or b'')} bytes)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("method", self.method), ("url", self.url)]

    def __reduce__(self) -> NoReturn:
        raise UsageError("A request cannot be pickled: it may hold a key.")


class ByteStream(Protocol):
    """A reply whose head has come and whose body is being read."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The reply's headers; look them up in lower case."""
        ...

    async def receive(self) -> bytes:
        """Give the next bytes of the body as they come, `b""` at its regular end.

        Raises:
            TransportError: The connection ended before the body did; what had come until then was
                given before.
            VLLMError: What `abort` was given.
        """
        ...

    def abort(self, error: VLLMError) -> None:
        """Close the socket now; a `receive` that waits, and each later one, raises `error`."""

    async def aclose(self) -> None:
        """Let go of the connection: back to the pool if the body was read to its end, else closed.

        Idempotent.
        """


class Transport(Protocol):
    """Something that can carry requests to servers."""

    async def send(self, request: Request) -> ByteStream:
        """Send a request and wait for the reply's head. Any status is a reply.

        Cancelling closes the socket, so that the server stops working on it.

        Raises:
            ConnectError: No connection could be made, or the transport is closed: the server has
                nothing of the request.
            ConnectTimeoutError: Not within `request.connect_timeout`.
            TransportError: The connection was lost before the head had come; `reused` says that it
                was one of an earlier request.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections; a `receive` that waits raises `TransportError`. Idempotent."""
