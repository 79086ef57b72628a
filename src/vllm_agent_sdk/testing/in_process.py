"""The simulator without a socket: a transport that hands requests over inside the process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from vllm_agent_sdk.errors import ConnectError, TransportError, VLLMError
from vllm_agent_sdk.testing.exchange import Answer, SimulatorRequest
from vllm_agent_sdk.testing.http_server import Handler
from vllm_agent_sdk.transport.base import ByteStream, Request

__all__ = ["InProcessTransport"]

# Pieces a reader may be behind before the server waits for it, as a socket's buffers would.
_BACKLOG = 64


class InProcessTransport:
    """A `Transport` to one simulator: the same bytes as over its socket, piece by piece.

    Requests are answered on the caller's event loop.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._open: set[_Stream] = set()
        self._closed = False

    async def send(self, request: Request) -> ByteStream:
        """Hand the request over, and wait for the reply's head."""
        if self._closed:
            raise ConnectError("The transport is closed.")
        url = urlsplit(request.url)
        body = request.body or b""
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers.setdefault("host", url.netloc)
        if request.body is not None:
            headers.setdefault("content-length", str(len(body)))
        received = SimulatorRequest(request.method, unquote(url.path), url.query, headers, body)
        if request.connected is not None:
            request.connected()
        stream = _Stream(self._handler, received, self._open)
        try:
            await stream.head()
        except BaseException:
            await stream.aclose()
            raise
        return stream

    async def aclose(self) -> None:
        """End what is open."""
        self._closed = True
        for stream in list(self._open):
            await stream.aclose()


class _Stream:
    """Both ends of one exchange: the server's sink, and the client's `ByteStream`."""

    def __init__(self, handler: Handler, request: SimulatorRequest, open_: set[_Stream]) -> None:
        self._handler = handler
        self._request = request
        self._open = open_
        self._answer: Answer | None = None
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._error: VLLMError | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._task = asyncio.get_running_loop().create_task(self._serve())
        open_.add(self)

    async def _serve(self) -> None:
        try:
            await self._handler.serve(self._request, self)
        finally:
            self._ended = True
            self._readable.set()
            self._open.discard(self)

    # ── the client's end ─────────────────────────────────────────────────────────────────────────

    async def head(self) -> None:
        """Wait for the head."""
        while self._answer is None:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise TransportError("The simulator ended without an answer.")
            self._readable.clear()
            await self._readable.wait()

    @property
    def status(self) -> int:
        """The HTTP status."""
        assert self._answer is not None
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The reply's headers, their names in lower case."""
        assert self._answer is not None
        return {name.lower(): value for name, value in self._answer.head}

    async def receive(self) -> bytes:
        """Give the next piece of the body, `b""` at its end."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._readable.clear()
            await self._readable.wait()
        self._writable.set()
        return self._pieces.popleft()

    def abort(self, error: VLLMError) -> None:
        """Leave now: `receive` raises `error` from here on."""
        self._error = error
        self._pieces.clear()
        self._leave()
        self._readable.set()

    async def aclose(self) -> None:
        """Leave; what was not read is lost."""
        if self._error is None and not self._ended:
            self._error = TransportError("The reply was closed before its end.")
        self._leave()
        if not self._task.done():
            await asyncio.wait({self._task})

    def _leave(self) -> None:
        if not self._task.done() and not self._task.cancelling():
            self._handler.client_gone(self._request)
            self._task.cancel()

    # ── the server's end ─────────────────────────────────────────────────────────────────────────

    def start(self, answer: Answer) -> None:
        """Give the head."""
        self._answer = answer
        self._readable.set()

    async def write(self, data: bytes) -> None:
        """Give bytes of the body, and wait while the reader is too far behind."""
        self._pieces.append(data)
        self._readable.set()
        if len(self._pieces) >= _BACKLOG:
            self._writable.clear()
            await self._writable.wait()

    def end(self) -> None:
        """End the body."""
        self._ended = True
        self._readable.set()

    def cut(self, reset: bool) -> None:
        """Lose the connection, after what was written."""
        how = "was reset" if reset else "ended"
        self._error = TransportError(f"The connection {how} before the reply did.")
        self._readable.set()
