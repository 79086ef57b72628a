"""Requests sent and replies read over aiohttp, whose exceptions end here.

Timeouts are ours (one timer a stream), redirects are not followed, no cookies are kept, and idle
connections go before the server closes them.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from vllm_agent_sdk.errors import ConnectError, ConnectTimeoutError, TransportError, VLLMError
from vllm_agent_sdk.transport.base import Request
from vllm_agent_sdk.transport.http.lean import (
    Attempt,
    Body,
    TCPConnector,
    UnixConnector,
    acknowledge_later,
    current,
    exchanged,
)
from vllm_agent_sdk.transport.tls import tls_context
from vllm_agent_sdk.types.options import HTTPOptions

__all__ = ["AiohttpTransport", "tls_context"]

_LOST = "The connection was lost before the reply was complete"
#: Bytes of a body from which on it is written in parts, which lets the loop go on between them.
_LARGE = 1 << 20
#: Headers that aiohttp is not to add: the pipeline says who is asking and what is sent.
_SKIPPED = ("User-Agent", "Content-Type")
_NAMELESS = "A server that demands a certificate ends TLS so; HTTPOptions(client_cert=…) gives it."


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a request goes: its address, the proxy, and what the proxy is told.

    Attributes:
        plain: A request straight to it, as `exchanged` wants it; `None` where there is a proxy, or
            a name and a password in the address.
    """

    url: URL
    proxy: URL | None = None
    authorization: str | None = None
    plain: aiohttp.ClientRequest | None = None


class _Stream:
    """A reply being read (`ByteStream`)."""

    __slots__ = ("_body", "_error", "_held", "_open", "_url", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: aiohttp.StreamReader,
        held: aiohttp.ClientResponse | Connection,
        url: str,
        streams: set[_Stream],
    ) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self._held = held
        self._url = url
        if body is not aiohttp.EMPTY_PAYLOAD:  # which all replies without a body share
            body.__class__ = Body
            if headers.get("content-type", "").startswith("text/event-stream"):
                acknowledge_later(held)
        self._error: VLLMError | None = None
        self._open = streams
        streams.add(self)

    async def receive(self) -> bytes:
        """Give the next bytes."""
        if self._error is not None:
            raise self._error
        body = self._body
        if type(body) is not Body:
            return b""
        buffer = body._buffer
        if not buffer and not body._eof:
            try:
                if body._exception is not None:
                    raise body._exception
                if body._waiter is not None and not body._waiter.done():  # done: it was cancelled
                    raise RuntimeError("two tasks read it at the same time")
                if body._protocol.transport is None:
                    raise RuntimeError("it is closed")
                body._waiter = waiter = body._loop.create_future()
                await waiter
            except VLLMError:
                raise
            except (aiohttp.ClientError, OSError, RuntimeError) as cause:
                # A RuntimeError: the session was closed meanwhile.
                raise TransportError(f"{_LOST} ({self._url}): {cause}.") from cause
        # What came before the connection was lost is given first.
        data = buffer[0] if len(buffer) == 1 else b"".join(buffer)
        buffer.clear()
        paused = body._size > body._high_water
        body._size = 0
        if paused:
            body._protocol.resume_reading()
        return data

    def abort(self, error: VLLMError) -> None:
        """Close the socket now."""
        if self._error is None:
            self._error = error
            self._body.set_exception(error)
        self._open.discard(self)
        self._held.close()

    async def aclose(self) -> None:
        """Release the connection, or close it if the body was not read to its end."""
        self._open.discard(self)
        if self._body.at_eof():
            self._held.release()
        else:
            self._held.close()


class AiohttpTransport:
    """Carries requests over pooled HTTP/1.1 connections (`Transport`).

    Make it inside a running loop; it belongs to that loop.

    Args:
        options: How HTTP is spoken.
        tls: What `tls_context` gave for them, where it was called off the loop.
        proxy_for: Gives the proxy of an address (default: `options.proxy` for all).
    """

    def __init__(
        self,
        options: HTTPOptions,
        tls: ssl.SSLContext | bool | None = None,
        proxy_for: Callable[[str], str | None] | None = None,
    ) -> None:
        self._connector = _connector(options, tls_context(options) if tls is None else tls)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
            auto_decompress=True,
            skip_auto_headers=_SKIPPED,
        )
        # aiohttp sends a GET again by itself when a pooled connection turns out to be closed. That
        # is switched off: RetryPolicy repeats it, counts it, and can be told not to.
        self._session._retry_connection = False
        self._proxy_for = proxy_for or (lambda _url: options.proxy)
        self._socket = options.unix_socket
        self._has_cert = options.client_cert is not None
        self._ways: dict[str, _Way] = {}
        self._streams: set[_Stream] = set()

    async def send(self, request: Request) -> _Stream:
        """Send a request and wait for the reply's head."""
        if self._session.closed:
            raise ConnectError("The transport is closed.")
        way = self._way(request.url)
        headers, proxy_headers = request.headers, None
        if way.authorization is not None:
            told = {"Proxy-Authorization": way.authorization}
            if way.url.scheme == "https":
                proxy_headers = told  # with CONNECT; the server must not see it
            else:
                headers = {**headers, **told}
        body = request.body
        attempt = Attempt(request)
        current.set(attempt)
        try:
            if way.plain is not None and len(body or b"") <= _LARGE:
                found = await exchanged(self._connector, way.plain, request.method, headers, body)
                return _Stream(*found, request.url, self._streams)
            response = await self._session.request(
                request.method,
                way.url,
                data=body if body is None or len(body) <= _LARGE else io.BytesIO(body),
                headers=headers,
                proxy=way.proxy,
                proxy_headers=proxy_headers,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, HttpProcessingError, OSError) as cause:
            failure = _mapped(cause, request, self._place(way))
            if type(failure) is TransportError and attempt.fresh and self._nameless(way):
                failure = TransportError(f"{failure.message} {_NAMELESS}")
            if type(failure) is TransportError and not attempt.fresh:
                failure.reused = True
            if not isinstance(cause, aiohttp.ClientResponseError):
                raise failure from cause
        else:
            reply = response.status, response.headers, response.content, response
            return _Stream(*reply, request.url, self._streams)
        raise failure  # its cause would show the request's headers, the key among them

    async def aclose(self) -> None:
        """Close all connections."""
        for stream in list(self._streams):
            # aiohttp closes their sockets, and leaves those who wait for them waiting.
            stream.abort(TransportError("The transport was closed."))
        await self._session.close()

    def _way(self, url: str) -> _Way:
        known = self._ways.get(url)
        if known is None:
            # A client has few addresses; a bound keeps a mistake from becoming a leak.
            if len(self._ways) > 256:
                self._ways.clear()
            known = _way(URL(url, encoded=True), self._proxy_for(url))
            if known.proxy is None and known.url.raw_user is None:
                known = replace(known, plain=self._plain(known.url))
            self._ways[url] = known
        return known

    def _plain(self, url: URL) -> aiohttp.ClientRequest:
        loop = asyncio.get_running_loop()
        return aiohttp.ClientRequest(
            "GET", url, session=self._session, skip_auto_headers=_SKIPPED, loop=loop
        )

    def _nameless(self, way: _Way) -> bool:
        """Whether TLS is spoken without a certificate of the client's."""
        return way.url.scheme == "https" and not self._has_cert

    def _place(self, way: _Way) -> str:
        """Say where a connection was to be made."""
        origin = str(way.url.origin())
        if self._socket is not None:
            return f"{origin} on the Unix socket {os.fspath(self._socket)!r}"
        return origin if way.proxy is None else f"{origin} by the proxy {way.proxy.origin()}"


def _connector(options: HTTPOptions, tls: ssl.SSLContext | bool) -> aiohttp.BaseConnector:
    connections = options.max_connections or 0
    per_server = options.max_connections_per_server or 0
    if options.unix_socket is not None:
        return UnixConnector(
            os.fspath(options.unix_socket),
            limit=connections,
            limit_per_host=per_server,
            keepalive_timeout=options.keepalive_s,
        )
    return TCPConnector(
        ssl=tls,
        limit=connections,
        limit_per_host=per_server,
        keepalive_timeout=options.keepalive_s,
    )


def _way(url: URL, proxy: str | None) -> _Way:
    if proxy is None:
        return _Way(url)
    # User and password go by header: aiohttp's errors show a proxy's whole address.
    address = URL(proxy)
    if address.raw_user is None and address.raw_password is None:
        return _Way(url, address.origin())
    pair = f"{unquote(address.raw_user or '')}:{unquote(address.raw_password or '')}"
    told = "Basic " + base64.b64encode(pair.encode()).decode()
    return _Way(url, address.origin(), told)


def _mapped(cause: Exception, request: Request, place: str) -> VLLMError:
    """Say what went wrong before the reply's head came; `place` is where it was to go."""
    if isinstance(cause, (aiohttp.ConnectionTimeoutError, TimeoutError)):
        return ConnectTimeoutError(
            f"No connection to {place} within {request.connect_timeout} s. Is the server running, "
            "and is the address right? Timeout(connect=…) sets the limit."
        )
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        return ConnectError(
            f"The certificate of {place} cannot be trusted: {cause.certificate_error}. "
            "HTTPOptions(ca=…) names the authority that signed it.",
            retryable=False,
        )
    if isinstance(cause, aiohttp.ClientConnectorSSLError):
        return ConnectError(f"No TLS with {place}: {cause.os_error}.", retryable=False)
    if isinstance(cause, aiohttp.ClientHttpProxyError):
        return ConnectError(
            f"No connection to {place}: the proxy answered {cause.status} {cause.message}.",
            retryable=cause.status in {502, 503, 504},
        )
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        name, source = (URL(request.url).host, "base_url")
        if " by the proxy " in place:
            name, source = (cause.host, "HTTPOptions(proxy=…)")
        return ConnectError(f"The host name {name!r} is not known. Check {source}.")
    if isinstance(cause, aiohttp.ClientConnectorError):
        # asyncio's own text repeats the address; the system's says what happened.
        number = cause.os_error.errno
        why = os.strerror(number) if number is not None and number > 0 else str(cause.os_error)
        return ConnectError(
            f"No connection to {place}: {why}. Is the server running, and is base_url right? "
            "`vllm-agent serve` starts one."
        )
    if isinstance(cause, (aiohttp.ClientResponseError, HttpProcessingError)):
        return TransportError(f"What {request.url} sent is not HTTP: {cause.message.strip()}.")
    return TransportError(f"{_LOST} ({request.url}): {str(cause) or type(cause).__name__}.")
