"""A server that only emits: the exact bytes of vLLM 0.32's replies, made before it starts.

It runs in a process of its own on the last core, so that the client is what is measured.
`POST /burst/N/v1/…` sends N chunks at once, `/paced/N/v1/…` one a packet at 33 a second,
`/whole/1/v1/…` a whole reply, `/agent/1/v1/…` a tool call and then an answer, streamed if asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

CHUNKS_PER_S = 33
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
FRAME = (
    '{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1795232869,'
    '"model":"m","choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s%s}]}'
)


def frame(delta: str, finish: str = "null", more: str = ',"token_ids":null') -> bytes:
    """Give one event of a stream."""
    return b"data: " + (FRAME % (delta, finish, more)).encode() + b"\n\n"


def chunked(data: bytes) -> bytes:
    """Give data as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


FIRST = chunked(frame('{"role":"assistant","content":""}', more=""))
TEXT = chunked(frame('{"content":" hello"}'))
USAGE = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1795232869,"model":"m","choices":[],"usage":{"prompt_tokens":3,"total_tokens":8,'
    b'"completion_tokens":5},"system_fingerprint":"vllm-0.32.0-deadbeef"}\n\n'
)
LAST = (
    chunked(frame("{}", '"stop"', ',"stop_reason":null,"token_ids":null'))
    + chunked(USAGE)
    + chunked(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
WHOLE = json.dumps(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1795232869, "model": "m",
        "choices": [{
            "index": 0,
            "message": {
                "role": "assistant", "content": "Hello there, how can I help you?",
                "refusal": None, "annotations": None, "audio": None, "function_call": None,
                "reasoning": None,
            },
            "logprobs": None, "finish_reason": "stop", "stop_reason": None, "token_ids": None,
            "routed_experts": None,
        }],
        "service_tier": None, "system_fingerprint": "vllm-0.32.0-deadbeef",
        "usage": {
            "prompt_tokens": 3, "total_tokens": 12, "completion_tokens": 9,
            "prompt_tokens_details": None, "completion_tokens_details": None,
        },
        "prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None,
        "kv_transfer_params": None, "ec_transfer_params": None, "metrics": None,
    }, separators=(",", ":"),
).encode()  # fmt: skip
MODELS = b'{"object":"list","data":[{"id":"m","object":"model","owned_by":"vllm","root":"m"}]}'


def answer(body: bytes) -> bytes:
    """Give a whole reply."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


CALL = {
    "id": "chatcmpl-tool-0123456789abcdef", "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
}  # fmt: skip
_whole = json.loads(WHOLE)
_whole["choices"][0]["message"] |= {"content": None, "tool_calls": [CALL]}
_whole["choices"][0]["finish_reason"] = "tool_calls"
WHOLE_CALL = json.dumps(_whole, separators=(",", ":")).encode()
STREAMED_CALL = (
    chunked(frame(json.dumps({"tool_calls": [{"index": 0, **CALL}]})))
    + chunked(frame("{}", '"tool_calls"', ',"stop_reason":null,"token_ids":null'))
    + chunked(USAGE)
    + chunked(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
#: By whether the tool has run, and whether a stream is asked for.
AGENT = {
    (False, False): answer(WHOLE_CALL),
    (True, False): answer(WHOLE),
    (False, True): HEAD + FIRST + STREAMED_CALL,
    (True, True): HEAD + FIRST + TEXT * 9 + LAST,
}


class Emitter(asyncio.Protocol):
    """Answers each request by its path, as soon as its body is whole."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        """Take bytes; answer the requests that are whole."""
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, rest = self.data.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n")[1:]:
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            if len(rest) < length:
                return
            self.data = rest[length:]
            self.reply(head.split(b" ", 2)[1].decode(), rest[:length])

    def reply(self, path: str, body: bytes) -> None:
        """Answer one request."""
        if path.endswith("/models"):
            self.transport.write(answer(MODELS))
            return
        _, kind, count, *_ = path.split("/")
        if kind == "whole":
            self.transport.write(answer(WHOLE))
        elif kind == "agent":
            streamed = b'"stream":true' in body.replace(b" ", b"")
            self.transport.write(AGENT[b'"tool_call_id"' in body, streamed])
        elif kind == "burst":
            self.transport.write(HEAD + FIRST + TEXT * int(count) + LAST)
        else:
            self.transport.write(HEAD + FIRST)
            self.engine.add(self.transport, int(count))


class Engine:
    """Gives every running request its token in one step, as an engine does: 33 steps a second.

    The chunks of all streams are written one after the other, whenever the requests came, and with
    as little between them as there can be: a slow emitter would make a quick client wait for each,
    and the waiting would be measured.
    """

    def __init__(self) -> None:
        self.left: dict[asyncio.Transport, int] = {}
        self.stepping = False

    def add(self, transport: asyncio.Transport, count: int) -> None:
        """Take a request of so many tokens."""
        self.left[transport] = count
        if not self.stepping:
            self.stepping = True
            loop = asyncio.get_running_loop()
            self.wait(math.ceil(loop.time() * CHUNKS_PER_S) / CHUNKS_PER_S)

    def wait(self, at: float) -> None:
        """Step at a time."""
        asyncio.get_running_loop().call_at(at, self.step, at)

    def step(self, at: float) -> None:
        """Send each request a chunk, or its end."""
        ended = []
        for transport, left in self.left.items():
            if left == 0 or transport.is_closing():
                ended.append(transport)
            else:
                transport.write(TEXT)
                self.left[transport] = left - 1
        for transport in ended:
            del self.left[transport]
            transport.write(LAST)
        self.stepping = bool(self.left)
        if self.stepping:
            self.wait(at + 1 / CHUNKS_PER_S)


async def serve() -> None:
    """Serve until the end of standard input; print the port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(partial(Emitter, Engine()), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def pin(core: int) -> None:
    """Keep this process on one core, where the system lets it."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {cores[core % len(cores)]})


@contextlib.contextmanager
def emitter() -> Iterator[str]:
    """Run the emitter; give the root of its addresses."""
    command = [sys.executable, "-m", "benchmarks.emitter"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


if __name__ == "__main__":
    pin(-1)
    asyncio.run(serve())
