"""What takes the place of aiohttp's own: connectors, requests and the reader of a body.

Its own do more than is asked for here, at each request and at each packet. What they are put in
place of stays the way where a release of aiohttp is another than these know.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.http_writer import StreamWriter
from multidict import CIMultiDict

from vllm_agent_sdk.transport.base import Request

__all__ = [
    "Attempt", "Body", "SmallRequest", "TCPConnector", "UnixConnector", "acknowledge_later",
    "current", "skipped",
]  # fmt: skip

#: Headers that aiohttp is not to add: who is asking and what is sent is said by the pipeline.
skipped = ("User-Agent", "Content-Type")
_SKIPPED: CIMultiDict[None] = CIMultiDict((name, None) for name in skipped)
#: Bytes of a body up to which it is written at once: with its head it fits what asyncio buffers
#: (64 KiB), so that writing never waits for a server that reads nothing and answers.
_SMALL = 60_000
#: Linux alone has it.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class Attempt:
    """What the connector has to know of a request, and what it tells of it.

    Attributes:
        connected: Called when the request's connection is there.
        timeout: Seconds that making one may take.
        fresh: A connection was made; it is not one of the pool.
    """

    __slots__ = ("connected", "fresh", "timeout")

    def __init__(self, request: Request) -> None:
        self.connected = request.connected
        self.timeout = request.connect_timeout
        self.fresh = False


#: The request that this task sends.
current: ContextVar[Attempt] = ContextVar("attempt")


# ── the connection ────────────────────────────────────────────────────────────────────────────────


class _Connector(aiohttp.BaseConnector):
    """Tells when a connection was had, and limits the time of making one (not of waiting for one).

    The first-token clock starts when it was had.
    """

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        connection = await super().connect(req, traces, timeout)
        if (tell := current.get().connected) is not None:
            tell()
        return connection

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        # Name look-up, TLS and the proxy's answer are in it.
        attempt = current.get()
        attempt.fresh = True
        async with asyncio.timeout(attempt.timeout):
            return await super()._create_connection(req, traces, timeout)


class TCPConnector(_Connector, aiohttp.TCPConnector):
    """Makes connections to hosts."""


class UnixConnector(_Connector, aiohttp.UnixConnector):
    """Makes connections to a socket in the file system."""


# ── the request ───────────────────────────────────────────────────────────────────────────────────


def _told() -> frozenset[str] | None:
    """Give what a response is told by name, `None` if that is more than is known here."""
    known = {
        "continue100", "loop", "request_info", "session", "stream_writer", "timer", "traces",
        "writer",
    }  # fmt: skip
    parameters = inspect.signature(aiohttp.ClientResponse).parameters.values()
    named = [each for each in parameters if each.kind is each.KEYWORD_ONLY]
    if any(each.default is each.empty and each.name not in known for each in named):
        return None
    return frozenset(each.name for each in named) & known


_TOLD = _told()


class SmallRequest(aiohttp.ClientRequest):
    """A request whose body, where it is small, is written with its head, and by nobody else.

    aiohttp's own has a task that writes the body (on Python 3.11 one that begins a round of the
    loop later), makes a payload of it, and copies the headers twice to leave two out: a fifth of
    what a request costs.
    """

    _small: bytes | None = None

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Add what is not said already, but for `skipped`."""
        self._skip_auto_headers = _SKIPPED
        for name, value in self.DEFAULT_HEADERS.items():
            if name not in self.headers:
                self.headers[name] = value

    def update_body_from_data(self, body: Any, _stacklevel: int = 3) -> None:
        """Keep a small body as it is."""
        if type(body) is not bytes or len(body) > _SMALL or self.proxy or _TOLD is None:
            super().update_body_from_data(body)
            return
        self._small = body
        if "Content-Length" not in self.headers:
            self.headers["Content-Length"] = str(len(body))

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Write head and body; give the response that is to be read."""
        body, protocol = self._small, conn.protocol
        if body is None or _TOLD is None:
            return await super().send(conn)
        writer = StreamWriter(protocol, self.loop)
        await writer.write_headers(f"{self.method} {self.url.raw_path_qs} HTTP/1.1", self.headers)
        await writer.write_eof(body)
        protocol.start_timeout()
        known: dict[str, Any] = {
            "continue100": None,
            "loop": self.loop,
            "request_info": self.request_info,
            "session": self._session,
            "stream_writer": writer,
            "timer": self._timer,
            "traces": self._traces,
            "writer": None,
        }
        told = {name: known[name] for name in _TOLD}
        response = self.response_class(self.method, self.original_url, **told)
        self.response = response  # type: ignore[assignment]  # aiohttp's says None
        return response


# ── the reply ─────────────────────────────────────────────────────────────────────────────────────


class Body(aiohttp.StreamReader):
    """aiohttp's reader of a body, with less between the socket and who waits.

    Its own notes where each HTTP chunk ends, and has the parser go on after each read, paused or
    not: where each token is a packet, that is a third of what a token costs. Here bytes are only
    kept, and only a connection that was paused goes on. It takes the place of aiohttp's by its
    class, for the parser holds on to the object; so it adds no fields.
    """

    __slots__ = ()

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        """Keep what came, and wake who waits."""
        self._buffer.append(data)
        self._size += len(data)
        self.total_bytes += len(data)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        if self._size > self._high_water:
            self._protocol.pause_reading()
        return False

    def begin_http_chunk_receiving(self) -> None:
        """Note nothing."""

    def end_http_chunk_receiving(self) -> None:
        """Note nothing."""


def acknowledge_later(response: aiohttp.ClientResponse) -> None:
    """Let Linux acknowledge a stream's packets two at a time, as it does where both sides talk.

    Each acknowledgement is a packet: where every token comes in one of its own, they were an eighth
    of what a token costs. A server that waits for one (Nagle's algorithm) waits once, for 40 ms:
    then Linux goes back to acknowledging at once.
    """
    transport = None if response.connection is None else response.connection.transport
    connected = None if transport is None else transport.get_extra_info("socket")
    if _QUICKACK is not None and connected is not None and connected.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # it is lost already: whoever reads is told
            connected.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 0)
