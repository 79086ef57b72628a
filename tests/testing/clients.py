"""Clients that show every byte: a bare socket, and the in-process transport."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from vllm_agent_sdk.testing import Simulator
from vllm_agent_sdk.transport.base import Request

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CHAT = "/v1/chat/completions"
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}


def chat(text: str = "Hi", **fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"messages": [{"role": "user", "content": text}], **fields}


def recorded(name: str) -> bytes:
    """A recorded stream."""
    return (FIXTURES / "sse" / f"{name}.sse").read_bytes()


class Reply:
    """What came back: `head` and `body` as text and bytes; chunks as they were framed."""

    def __init__(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = dict(line.split(": ", 1) for line in lines)
        self.chunks: list[bytes] = []

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The stream's JSON; `[DONE]` and nothing else must end it."""
        *frames, done, rest = self.body.decode().split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        assert all(frame.startswith("data: ") for frame in frames)
        return [json.loads(frame.removeprefix("data: ")) for frame in frames]

    @property
    def deltas(self) -> list[Any]:
        return [event["choices"][0]["delta"] for event in self.events if event["choices"]]


class Socket:
    """One connection to a simulator."""

    def __init__(self, server: Simulator) -> None:
        self._address = urlsplit(server.base_url)
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        address = self._address
        self.reader, self.writer = await asyncio.open_connection(address.hostname, address.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def send(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> None:
        data = b"" if body is None else body if isinstance(body, bytes) else dumps(body)
        lines = [f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1", "Host: sim"]
        if body is not None:
            lines += [f"Content-Length: {len(data)}"]
            headers.setdefault("content_type", "application/json")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + data)

    async def head(self) -> Reply:
        head = await self.reader.readuntil(b"\r\n\r\n")
        return Reply(head.decode().removesuffix("\r\n\r\n"))

    async def chunk(self) -> bytes:
        """One chunk of a chunked body; empty at its end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def reply(self) -> Reply:
        reply = await self.head()
        await self.rest(reply)
        return reply

    async def rest(self, reply: Reply) -> None:
        """Read the body into the reply, as far as it comes."""
        if reply.headers.get("transfer-encoding") == "chunked":
            while chunk := await self.chunk():
                reply.chunks.append(chunk)
        elif size := int(reply.headers["content-length"]):
            reply.chunks.append(await self.reader.readexactly(size))


async def ask(server: Simulator, path: str, body: Any = None, **headers: str) -> Reply:
    """One request over a socket of its own."""
    async with Socket(server) as client:
        client.send(path, body, **headers)
        return await client.reply()


async def stream(server: Simulator, **fields: Any) -> Reply:
    """One streamed chat, its id made known."""
    return await ask(server, CHAT, chat(stream=True, **fields), x_request_id="X")


def request_of(body: Any, **headers: str) -> Request:
    """The same chat as `ask`, for a transport."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(
        method="POST",
        url=f"http://sim{CHAT}",
        headers={"content-type": "application/json", **named},
        body=dumps(body),
    )


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()
