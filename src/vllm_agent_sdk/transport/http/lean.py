"""What takes the place of aiohttp's own: connectors, the way of a request, the reader of a body.

Its own do more than is asked for here, at each request and at each packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http_writer import StreamWriter

from vllm_agent_sdk.transport.base import Request

__all__ = [
    "Attempt", "Body", "TCPConnector", "UnixConnector", "acknowledge_later", "current",
    "exchanged",
]  # fmt: skip

#: All limits are ours.
_NO_LIMIT = aiohttp.ClientTimeout(total=None)
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


# ── the request ──────────────────────────────────────────────────────────────────────────────────


async def exchanged(
    connector: aiohttp.BaseConnector,
    way: aiohttp.ClientRequest,
    method: str,
    headers: Mapping[str, str],
    body: bytes | None,
) -> tuple[int, Mapping[str, str], aiohttp.StreamReader, Connection]:
    """Send a request and wait for the reply's head.

    aiohttp's own way makes for each request an object of it, of its body and of its reply, a task
    that writes the body (on Python 3.11 one that begins a round of the loop later), and three
    copies of the headers: a third of what a request costs.

    Args:
        connector: Gives the connection.
        way: A request to this address without a body; it is read and never sent.
        method: `GET` or `POST`.
        headers: What is said besides `way`'s headers, or in their place.
        body: It is written at once, and what the socket does not take is buffered; `None`: none.

    Returns:
        The status, the reply's headers, its body, and the connection, which goes back to the pool
        by itself once all of the body has come (or is closed: `_let_go`).
    """
    connection = await connector.connect(way, traces=[], timeout=_NO_LIMIT)
    try:
        protocol = connection.protocol
        assert protocol is not None
        protocol.set_response_params(read_until_eof=True)
        sent = way.headers.copy()
        sent.update(headers)
        if body is not None or method != "GET":
            sent["Content-Length"] = str(len(body or b""))
        writer = StreamWriter(protocol, way.loop)
        await writer.write_headers(f"{method} {way.url.raw_path_qs} HTTP/1.1", sent)
        await writer.write(body or b"", drain=False)  # a server may answer before it has read
        writer.set_eof()
        while True:
            head, reply = await protocol.read()
            if not 100 <= head.code < 200 or head.code == 101:
                break
    except BaseException:
        connection.close()
        raise
    reply.on_eof(functools.partial(_let_go, connection))
    return head.code, head.headers, reply, connection


def _let_go(connection: Connection) -> None:
    """Give a connection back to the pool, unless the server left some of the request unread."""
    transport = connection.transport
    if transport is not None and transport.get_write_buffer_size():
        connection.close()
    else:
        connection.release()


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


def acknowledge_later(held: aiohttp.ClientResponse | Connection) -> None:
    """Let Linux acknowledge a stream's packets two at a time, as it does where both sides talk.

    Each acknowledgement is a packet: where every token comes in one of its own, they were an eighth
    of what a token costs. A server that waits for one (Nagle's algorithm) waits once, for 40 ms:
    then Linux goes back to acknowledging at once.
    """
    connection = held.connection if isinstance(held, aiohttp.ClientResponse) else held
    transport = None if connection is None else connection.transport
    connected = None if transport is None else transport.get_extra_info("socket")
    if _QUICKACK is not None and connected is not None and connected.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # it is lost already: whoever reads is told
            connected.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 0)
