"""The servers that a transport is checked against, and how the checks ask them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

from vllm_agent_sdk.errors import VLLMError
from vllm_agent_sdk.testing.exchange import Answer, SimulatorRequest, Sink, deliver
from vllm_agent_sdk.testing.http_server import Handler, HTTPServer
from vllm_agent_sdk.transport.base import ByteStream, Request, Transport

__all__ = [
    "SOON_S",
    "Check",
    "Make",
    "Respond",
    "Server",
    "answer",
    "asking",
    "chunked",
    "exactly",
    "left_at",
    "nothing",
    "opened",
    "raw_server",
    "refused",
    "replying",
    "same",
    "serving",
    "soon",
    "stalling",
    "whole",
]

T = TypeVar("T")
#: Answers a request of a check.
Respond: TypeAlias = Callable[[SimulatorRequest, Sink], Awaitable[None]]

#: Seconds within which anything that a check waits for has to happen.
SOON_S = 5.0
_KEEPALIVE_S = 60.0


class Server:
    """The server of one check.

    Attributes:
        base_url: Its address, `http://127.0.0.1:PORT`.
        requests: What it was asked, in order.
        left: The requests whose client went away before the reply's end.
    """

    def __init__(self, respond: Respond) -> None:
        self.base_url = ""
        self.requests: list[SimulatorRequest] = []
        self.left: list[SimulatorRequest] = []
        self._respond = respond
        self._news = asyncio.Event()
        self._http = HTTPServer(self, keepalive_s=_KEEPALIVE_S)

    def at(self, path: str = "/") -> str:
        """Give an address of this server."""
        return self.base_url + path

    @property
    def handler(self) -> Handler:
        """What answers the requests, for a transport that has no socket."""
        return self

    async def __aenter__(self) -> Self:
        self.base_url = f"http://127.0.0.1:{await self._http.start()}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.stop()

    async def serve(self, request: SimulatorRequest, sink: Sink) -> None:
        """Answer one request (`Handler`)."""
        self.requests.append(request)
        self.changed()
        await self._respond(request, sink)

    def client_gone(self, request: SimulatorRequest) -> None:
        """Hear that a client left (`Handler`)."""
        self.left.append(request)
        self.changed()

    def changed(self) -> None:
        """Have those who wait look again."""
        self._news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is so."""
        while not true():
            self._news.clear()
            await self._news.wait()


@contextlib.asynccontextmanager
async def raw_server(*replies: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Listen for requests; give the address, and the heads of the requests that came.

    Each connection gets the replies in order, one a request, and is closed after the last one.
    """
    heads: list[bytes] = []
    open_: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_[task] = writer
        try:
            for reply in replies:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(reply)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            del open_[task]
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", heads
    finally:
        server.close()
        left = list(open_)
        for writer in open_.values():
            writer.transport.abort()
        if left:
            await asyncio.wait(left)


# ── how a check asks ─────────────────────────────────────────────────────────────────────────────

#: Gives a transport that can reach the server of a check.
Make: TypeAlias = Callable[[Server], Transport]
Check: TypeAlias = Callable[[Make], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(make: Make, respond: Respond) -> AsyncIterator[tuple[Server, Transport]]:
    """Start a server, and make a transport to it."""
    async with Server(respond) as server:
        transport = make(server)
        try:
            yield server, transport
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(
                f"Nothing was wrong, and it raised {type(error).__name__}: {error}"
            ) from error
        finally:
            await soon(transport.aclose(), "aclose of a transport")


def asking(
    url: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    connect_timeout: float = SOON_S,
    connected: Callable[[], None] | None = None,
) -> Request:
    """Make a request."""
    return Request(
        method=method,
        url=url,
        headers=headers or {},
        body=body,
        connect_timeout=connect_timeout,
        connected=connected,
    )


async def soon(work: Awaitable[T], what: str) -> T:
    """Wait for what has to happen soon."""
    try:
        async with asyncio.timeout(SOON_S):
            return await work
    except TimeoutError as error:
        if isinstance(error, VLLMError):
            raise
        raise AssertionError(f"{what}: it has not happened after {SOON_S} s.") from None


async def refused(kind: type[VLLMError], work: Awaitable[object], what: str) -> VLLMError:
    """Expect an error of this kind, and give it."""
    try:
        got = await soon(work, what)
    except kind as error:
        return error
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(
            f"{what} must raise {kind.__name__}, and raised {type(error).__name__}: {error}"
        ) from error
    raise AssertionError(f"{what} must raise {kind.__name__}, and gave {got!r:.100}.")


async def opened(transport: Transport, server: Server) -> ByteStream:
    """Ask, and give the reply when its head has come."""
    return await soon(transport.send(asking(server.at())), "The head of a reply")


async def whole(
    transport: Transport, request: Request, *, close: bool = True
) -> tuple[ByteStream, bytes]:
    """Send a request and read its reply to the end."""
    stream = await soon(transport.send(request), f"The reply to a {request.method}")
    parts: list[bytes] = []
    try:
        while data := await soon(stream.receive(), "The rest of a body"):
            parts.append(data)
    finally:
        if close:
            await soon(stream.aclose(), "aclose of a stream")
    return stream, b"".join(parts)


async def exactly(stream: ByteStream, wanted: bytes) -> None:
    """Read as many bytes as this has, and expect them."""
    got = b""
    while len(got) < len(wanted) and (data := await soon(stream.receive(), f"{wanted!r}")):
        got += data
    same(got, wanted, "What was sent so far")


async def left_at(server: Server, count: int, what: str) -> None:
    """Expect that the server sees its client leave, for the `count`th time."""
    gone = server.until(lambda: len(server.left) == count)
    await soon(gone, f"{what} ends at the server")


def same(got: bytes, wanted: bytes, what: str) -> None:
    """Expect the bytes that were sent."""
    if got != wanted:
        differ = (at for at, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b)
        at = next(differ, min(len(got), len(wanted)))
        raise AssertionError(
            f"{what} is {len(got)} bytes, and {len(wanted)} were sent; from byte {at} on it is "
            f"{got[at : at + 20]!r} instead of {wanted[at : at + 20]!r}."
        )


def chunked() -> Answer:
    """Give a head whose body comes in chunks."""
    return Answer(200, (("content-type", "text/event-stream"),), (), streamed=True)


async def answer(sink: Sink, *pieces: bytes) -> None:
    """Answer with a body that has a length."""
    await deliver(Answer(200, (), pieces), sink, nothing)


def replying(*pieces: bytes) -> Respond:
    """Always answer with the same body."""

    async def respond(_request: SimulatorRequest, sink: Sink) -> None:
        await answer(sink, *pieces)

    return respond


def stalling(*pieces: bytes) -> Respond:
    """Begin, if there is something to begin with, and never go on; but answer what asks for it."""

    async def respond(request: SimulatorRequest, sink: Sink) -> None:
        if request.query == "answer":
            await answer(sink, b"answer")
            return
        if pieces:
            sink.start(chunked())
        for piece in pieces:
            await sink.write(piece)
        await asyncio.Event().wait()

    return respond


def nothing() -> None:
    """Do nothing when an answer has been sent."""
