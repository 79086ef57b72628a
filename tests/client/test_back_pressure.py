"""A reader that is slow stops the reading of its socket: the server waits, memory stays flat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from vllm_agent_sdk import AsyncVLLM, TextDelta

CHUNKS = 3_000
TEXT = "x" * 8_000
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"
)


def frame(number: int, finish: str = "null") -> bytes:
    data = (
        b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
        b'[{"index":0,"delta":{"content":"%d %s"},"finish_reason":%s}]}\n\n'
        % (number, TEXT.encode(), finish.encode())
    )
    return b"%x\r\n%s\r\n" % (len(data), data)


class Sender:
    """Sends more than any buffer holds, and tells when nobody takes it any more."""

    def __init__(self) -> None:
        self.sent = 0
        self.blocked = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        for number in range(CHUNKS):
            writer.write(frame(number, '"stop"' if number == CHUNKS - 1 else "null"))
            drained = asyncio.ensure_future(writer.drain())
            if not (await asyncio.wait({drained}, timeout=0.5))[0]:
                self.blocked.set()
            await drained
            self.sent += 1
        done = b"data: [DONE]\n\n"
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(done), done))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def sending() -> AsyncIterator[tuple[Sender, str]]:
    sender = Sender()
    server = await asyncio.start_server(sender, "127.0.0.1", 0)
    async with server:
        yield sender, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@pytest.mark.feature("S-08")
@pytest.mark.parametrize("raw", [False, True])
async def test_a_stream_that_nobody_reads_stops_its_server_and_loses_nothing(raw: bool) -> None:
    async with sending() as (sender, base_url), AsyncVLLM(base_url, model="m") as vllm:
        said = {"messages": [{"role": "user", "content": "go"}], "stream_options": None}
        if raw:
            stream = await vllm.chat.completions.create(stream=True, **said)  # type: ignore[call-overload]
        else:
            stream = vllm.chat.completions.stream(**said)  # type: ignore[arg-type]
        async with stream:
            await anext(stream)
            await asyncio.wait_for(sender.blocked.wait(), 30)
            assert sender.sent < CHUNKS // 2, "the server was never held up"
            rest = [event async for event in stream]
    assert sender.sent == CHUNKS
    if not raw:
        texts = [event.text for event in rest if isinstance(event, TextDelta)]
        assert [int(text.split()[0]) for text in texts] == list(range(1, CHUNKS))
