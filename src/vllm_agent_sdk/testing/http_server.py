"""The simulator's socket: HTTP/1.1 with keep-alive, as much of it as clients of a model server use.

Small on purpose: request bodies have a length, replies have a length or are chunked, and a request
sent before the last reply has ended waits for its turn.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import unquote

from vllm_agent_sdk.testing.exchange import Answer, SimulatorRequest, Sink

__all__ = ["HTTPServer", "Handler"]

_MAX_HEAD = 65_536


class Handler(Protocol):
    """What answers requests."""

    async def serve(self, request: SimulatorRequest, sink: Sink) -> None:
        """Answer one request. Cancelled when the client is gone."""

    def client_gone(self, request: SimulatorRequest) -> None:
        """Hear that the client left before the answer's end; `serve` is cancelled next."""


class _BadRequestError(Exception):
    """The bytes are no HTTP request."""


class HTTPServer:
    """Listens on a free port of the loopback device."""

    def __init__(self, handler: Handler, *, keepalive_s: float) -> None:
        self._handler = handler
        self._keepalive_s = keepalive_s
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._empty = asyncio.Event()

    async def start(self) -> int:
        """Listen, and give the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def _connect(self) -> _Connection:
        return _Connection(self._handler, self._keepalive_s, self._joined, self._left)

    def _joined(self, connection: _Connection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def _left(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def stop(self) -> None:
        """Close the port and all connections, and wait for what was being answered."""
        if self._server is None:
            return
        self._server.close()
        tasks = [
            task for connection in self._connections if (task := connection.shut()) is not None
        ]
        if self._connections:
            self._empty.clear()
            await self._empty.wait()
        if tasks:
            await asyncio.wait(tasks)
        await self._server.wait_closed()
        self._server = None


class _Connection(asyncio.Protocol):
    """One client's connection; also the sink of the answers on it."""

    def __init__(
        self,
        handler: Handler,
        keepalive_s: float,
        joined: Callable[[_Connection], None],
        left: Callable[[_Connection], None],
    ) -> None:
        self._handler = handler
        self._keepalive_s = keepalive_s
        self._joined = joined
        self._left = left
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._request: SimulatorRequest | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._chunked = False
        self._keep_alive = True
        self._shut = False

    # ── what the loop tells ──────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._joined(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_idling()
        self._writable.set()
        if self._task is not None and not self._shut and self._request is not None:
            self._handler.client_gone(self._request)
        if self._task is not None:
            self._task.cancel()
        self._left(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def shut(self) -> asyncio.Task[None] | None:
        """Close at once; give the task that was answering, if any."""
        self._shut = True
        self._transport.abort()
        return self._task

    # ── requests ─────────────────────────────────────────────────────────────────────────────────

    def _next(self) -> None:
        """Answer the next request, if it is all there and none is being answered."""
        if self._task is not None or self._transport.is_closing():
            return
        try:
            request = self._take_request()
        except _BadRequestError:
            answer = Answer(
                400,
                (("content-type", "text/plain; charset=utf-8"),),
                (b"Invalid HTTP request received.",),
            )
            self._keep_alive = False
            self.start(answer)
            self._transport.write(answer.pieces[0])
            self._transport.close()
            return
        if request is None:
            return
        self._stop_idling()
        self._request = request
        self._task = asyncio.get_running_loop().create_task(self._answer(request))

    def _take_request(self) -> SimulatorRequest | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise _BadRequestError
            return None
        first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        parts = first.split(" ")
        headers = _read_headers(lines)
        length = headers.get("content-length", "0")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1.") or not length.isdigit():
            raise _BadRequestError
        if "transfer-encoding" in headers:
            raise _BadRequestError
        start = end + 4
        if len(self._buffer) < start + int(length):
            return None
        body = bytes(self._buffer[start : start + int(length)])
        del self._buffer[: start + int(length)]
        connection = headers.get("connection", "").lower()
        self._keep_alive = "close" not in connection and parts[2] != "HTTP/1.0"
        path, _, query = parts[1].partition("?")
        return SimulatorRequest(parts[0], unquote(path), query, headers, body)

    async def _answer(self, request: SimulatorRequest) -> None:
        try:
            await self._handler.serve(request, self)
        finally:
            self._task = self._request = None
        if self._transport.is_closing():
            return
        if not self._keep_alive:
            self._transport.close()
            return
        self._idle = asyncio.get_running_loop().call_later(self._keepalive_s, self._transport.close)
        self._next()

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    # ── answers ──────────────────────────────────────────────────────────────────────────────────

    def start(self, answer: Answer) -> None:
        """Send the head."""
        self._chunked = answer.streamed
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
        lines += [f"{name}: {value}" for name, value in answer.head]
        if not self._keep_alive:
            lines.append("connection: close")
        self._transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def write(self, data: bytes) -> None:
        """Send bytes of the body, and wait while the client does not read."""
        if self._chunked:
            data = f"{len(data):x}\r\n".encode() + data + b"\r\n"
        self._transport.write(data)
        await self._writable.wait()

    def end(self) -> None:
        """End the body."""
        if self._chunked:
            self._transport.write(b"0\r\n\r\n")

    def cut(self, reset: bool) -> None:
        """Close the connection in the middle of the answer."""
        if reset:
            # Lingering for no time makes the kernel send RST where it would send FIN.
            layout = "hh" if os.name == "nt" else "ii"
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(layout, 1, 0))
        self._shut = True
        self._transport.close()


def _read_headers(lines: list[str]) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise _BadRequestError
        headers[name.strip().lower()] = value.strip()
    return headers
