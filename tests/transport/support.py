"""What stands between client and server in tests: TLS, a Unix socket, a forward proxy."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import trustme

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def both(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, first: bytes = b""
) -> None:
    """Hand everything on to a port of this machine, and back."""
    there, back = await asyncio.open_connection("127.0.0.1", port)
    back.write(first)
    await asyncio.gather(pipe(reader, back), pipe(there, writer))


@contextlib.asynccontextmanager
async def listening(
    handler: Handler, *, tls: ssl.SSLContext | None = None, path: Path | None = None
) -> AsyncIterator[int]:
    """Serve connections with a handler; its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await handler(reader, writer)
        finally:
            writer.close()
            tasks.discard(task)

    if path is None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    else:
        server = await asyncio.start_unix_server(handle, path)
    try:
        yield 0 if path else server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks, timeout=5)


@contextlib.asynccontextmanager
async def front(
    url: str, *, tls: ssl.SSLContext | None = None, path: Path | None = None
) -> AsyncIterator[int]:
    """A port, or a socket at a path, in front of the server at `url`."""
    port = urlsplit(url).port
    assert port is not None
    async with listening(lambda r, w: both(r, w, port), tls=tls, path=path) as own:
        yield own


class ForwardProxy:
    """A proxy that leads every address to one port, and remembers the heads of what it was asked.

    Attributes:
        heads: The request heads, as text.
        refuse: A status line to answer with instead.
    """

    def __init__(self, port: int) -> None:
        self.heads: list[str] = []
        self.refuse: str | None = None
        self._port = port

    @property
    def lines(self) -> list[str]:
        """The first lines of the heads."""
        return [head.partition("\r\n")[0] for head in self.heads]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, target, _ = head.partition("\r\n")[0].split(" ")
        if self.refuse is not None:
            writer.write(f"HTTP/1.1 {self.refuse}\r\ncontent-length: 0\r\n\r\n".encode())
            await writer.drain()
        elif method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await both(reader, writer, self._port)
        else:
            # Absolute form in, origin form out.
            await both(
                reader, writer, self._port, head.replace(target, urlsplit(target).path, 1).encode()
            )


@contextlib.asynccontextmanager
async def forward_proxy(port: int) -> AsyncIterator[tuple[ForwardProxy, str]]:
    """A proxy to a port, and its address without scheme."""
    proxy = ForwardProxy(port)
    async with listening(proxy.serve) as own:
        yield proxy, f"127.0.0.1:{own}"


class Authority:
    """A certificate authority of the test's own, with its files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def server(self, *names: str, clients: bool = False) -> ssl.SSLContext:
        """A server's context for these names; `clients` demands certificates of this authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(*names).configure_cert(context)
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            self._ca.configure_trust(context)
        return context

    def client(self) -> tuple[Path, tuple[Path, Path]]:
        """A client's certificate: in one file, and as certificate and key."""
        issued = self._ca.issue_cert("worker@example.org")
        one, cert, key = (self._folder / name for name in ("both.pem", "cert.pem", "key.pem"))
        issued.private_key_and_cert_chain_pem.write_to_path(one)
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        return one, (cert, key)
