"""The clients that are measured: ours, a bare loop over aiohttp and msgspec, and OpenAI's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec

MESSAGES: Any = [{"role": "user", "content": "Hello"}]
BODY: dict[str, Any] = {"model": "m", "messages": MESSAGES}
STREAM = {**BODY, "stream": True, "stream_options": {"include_usage": True}}

Work = Callable[[], Awaitable[int]]


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    index: int = 0
    delta: Delta = msgspec.field(default_factory=Delta)
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    choices: list[Choice] = []


class Message(msgspec.Struct):
    content: str | None = None


class WholeChoice(msgspec.Struct):
    message: Message
    finish_reason: str | None = None


class Whole(msgspec.Struct):
    choices: list[WholeChoice]


async def all_at_once(work: Work, count: int) -> int:
    """Do the work as often as asked, side by side; give the sum."""
    return sum(await asyncio.gather(*(work() for _ in range(count))))


async def ours_streaming(root: str, streams: int) -> int:
    """Our typed events; counts chunks."""
    from vllm_agent_sdk import AsyncVLLM, Finished

    async with AsyncVLLM(f"{root}/v1", model="m") as vllm:

        async def one() -> int:
            chunks = 0
            async with vllm.chat.completions.stream(messages=MESSAGES) as stream:
                async for event in stream:
                    if type(event) is Finished:
                        chunks = event.timing.chunks
            return chunks

        return await all_at_once(one, streams)


async def bare_streaming(root: str, streams: int) -> int:
    """The least a Python program does: bytes, lines, typed JSON, text."""
    decode = msgspec.json.Decoder(Chunk).decode
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one() -> int:
            chunks, text, rest = 0, [], b""
            async with session.post(f"{root}/v1/chat/completions", json=STREAM) as reply:
                async for data in reply.content.iter_any():
                    *events, rest = (rest + data).split(b"\n\n")
                    for event in events:
                        if event == b"data: [DONE]":
                            continue
                        chunk = decode(event[6:])
                        chunks += 1
                        for choice in chunk.choices:
                            if choice.delta.content:
                                text.append(choice.delta.content)
            assert "".join(text)
            return chunks

        return await all_at_once(one, streams)


async def openai_streaming(root: str, streams: int) -> int:
    """OpenAI's client, its chunks."""
    import openai

    async with openai.AsyncOpenAI(base_url=f"{root}/v1", api_key="none") as client:

        async def one() -> int:
            chunks, text = 0, []
            stream = await client.chat.completions.create(
                model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
            async for chunk in stream:
                chunks += 1
                for choice in chunk.choices:
                    if choice.delta.content:
                        text.append(choice.delta.content)
            return chunks

        return await all_at_once(one, streams)


async def ours_whole(root: str, calls: int) -> int:
    """Our whole replies, 32 at a time."""
    from vllm_agent_sdk import AsyncVLLM

    async with AsyncVLLM(f"{root}/v1", model="m") as vllm:

        async def some() -> int:
            for _ in range(calls // 32):
                reply = await vllm.chat.completions.create(messages=MESSAGES)
                assert reply.text
            return calls // 32

        return await all_at_once(some, 32)


async def bare_whole(root: str, calls: int) -> int:
    """The least: post, read, typed JSON."""
    decode = msgspec.json.Decoder(Whole).decode
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def some() -> int:
            for _ in range(calls // 32):
                async with session.post(f"{root}/v1/chat/completions", json=BODY) as reply:
                    whole = decode(await reply.read())
                assert whole.choices[0].message.content
            return calls // 32

        return await all_at_once(some, 32)


async def openai_whole(root: str, calls: int) -> int:
    """OpenAI's whole replies."""
    import openai

    async with openai.AsyncOpenAI(base_url=f"{root}/v1", api_key="none") as client:

        async def some() -> int:
            for _ in range(calls // 32):
                reply = await client.chat.completions.create(model="m", messages=MESSAGES)
                assert reply.choices[0].message.content
            return calls // 32

        return await all_at_once(some, 32)
