"""HTTP over aiohttp: the only module that imports it. Above it: the pipeline; below: sockets.

Its exceptions end here. Timeouts are ours (one timer a stream), redirects are not followed, no
cookies are kept, and idle connections go before the server closes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import aiohttp
from yarl import URL

from vllm_agent_sdk.errors import ConnectError, ConnectTimeoutError, TransportError, VLLMError
from vllm_agent_sdk.transport.base import Request
from vllm_agent_sdk.types.options import HTTPOptions

__all__ = ["AiohttpTransport"]

#: What the connector calls when the request of this task has its connection.
_connected: ContextVar[Callable[[], None] | None] = ContextVar("connected", default=None)
_LOST = "The connection was lost before the reply was complete"


class _Connector(aiohttp.TCPConnector):
    """Tells when a connection was had: the first-token clock starts there."""

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        connection = await super().connect(req, traces, timeout)
        if (tell := _connected.get()) is not None:
            tell()
        return connection


class _Stream:
    """A reply being read (`ByteStream`)."""

    __slots__ = ("_error", "_response", "_url")

    def __init__(self, response: aiohttp.ClientResponse, url: str) -> None:
        self._response = response
        self._url = url
        self._error: VLLMError | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The reply's headers."""
        return self._response.headers

    async def receive(self) -> bytes:
        """Give the next bytes."""
        try:
            return await self._response.content.readany()
        except VLLMError:
            raise
        except (aiohttp.ClientError, OSError, RuntimeError) as cause:
            # A RuntimeError: the session was closed meanwhile.
            raise self._error or TransportError(f"{_LOST} ({self._url}): {cause}.") from cause

    def abort(self, error: VLLMError) -> None:
        """Close the socket now."""
        self._error = error
        self._response.content.set_exception(error)
        self._response.close()

    async def aclose(self) -> None:
        """Release the connection, or close it if the body was not read to its end."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class AiohttpTransport:
    """Carries requests over pooled HTTP/1.1 connections (`Transport`).

    Make it inside a running loop; it belongs to that loop.
    """

    def __init__(self, options: HTTPOptions) -> None:
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=0, keepalive_timeout=options.keepalive_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
            auto_decompress=True,
            skip_auto_headers=("User-Agent", "Content-Type"),
        )
        self._urls: dict[str, URL] = {}
        self._timeouts: dict[float | None, aiohttp.ClientTimeout] = {}

    async def send(self, request: Request) -> _Stream:
        """Send a request and wait for the reply's head."""
        _connected.set(request.connected)
        try:
            response = await self._session.request(
                request.method,
                self._url(request.url),
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                timeout=self._timeout(request.connect_timeout),
            )
        except (aiohttp.ClientError, OSError) as cause:
            failure = _mapped(cause, request)
            if not isinstance(cause, aiohttp.ClientResponseError):
                raise failure from cause
        else:
            return _Stream(response, request.url)
        raise failure  # its cause would show the request's headers, the key among them

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _url(self, url: str) -> URL:
        known = self._urls.get(url)
        if known is None:
            # A client has few addresses; a bound keeps a mistake from becoming a leak.
            if len(self._urls) > 256:
                self._urls.clear()
            known = self._urls[url] = URL(url, encoded=True)
        return known

    def _timeout(self, connect: float | None) -> aiohttp.ClientTimeout:
        known = self._timeouts.get(connect)
        if known is None:
            known = aiohttp.ClientTimeout(total=None, sock_read=None, connect=connect)
            self._timeouts = {connect: known}
        return known


def _mapped(cause: Exception, request: Request) -> VLLMError:
    """Say what went wrong before the reply's head came."""
    origin = str(URL(request.url).origin())
    if isinstance(cause, (aiohttp.ConnectionTimeoutError, TimeoutError)):
        return ConnectTimeoutError(
            f"No connection to {origin} within {request.connect_timeout} s. Is the server running, "
            "and is the address right? Timeout(connect=…) sets the limit."
        )
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        return ConnectError(
            f"The certificate of {origin} cannot be trusted: {cause.certificate_error}.",
            retryable=False,
        )
    if isinstance(cause, aiohttp.ClientConnectorSSLError):
        return ConnectError(f"No TLS with {origin}: {cause.os_error}.", retryable=False)
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        host = URL(request.url).host
        return ConnectError(f"The host name {host!r} is not known. Check base_url.")
    if isinstance(cause, aiohttp.ClientConnectorError):
        return ConnectError(
            f"No connection to {origin}: {cause.os_error.strerror or cause.os_error}. Is the "
            "server running, and is base_url right? `vllm-agent serve` starts one."
        )
    if isinstance(cause, aiohttp.ClientResponseError):
        return TransportError(f"What {request.url} sent is not HTTP: {cause.message.strip()}.")
    return TransportError(f"{_LOST} ({request.url}): {str(cause) or type(cause).__name__}.")
