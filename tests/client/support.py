"""What the tests of the client share: a simulator and a client, on a socket and without one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from vllm_agent_sdk import AsyncVLLM, RetryPolicy
from vllm_agent_sdk.errors import TransportError, VLLMError
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.transport.base import ByteStream, Request

FIXTURES = Path(__file__).parents[1] / "fixtures"
HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}
WAYS = ("socket", "in process")
#: What is tested here is one attempt; retries have tests of their own.
ONCE = RetryPolicy(max_attempts=1)


@contextlib.asynccontextmanager
async def served(
    *replies: Any, way: str = "in process", client: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Simulator, AsyncVLLM]]:
    """A simulator with these replies, and a client of it."""
    async with Simulator(*replies, **options) as server:
        settings: dict[str, Any] = {"model": "sim-model", "retry": ONCE, **(client or {})}
        if way == "in process":
            settings["transport"] = server.transport
        async with AsyncVLLM(server.base_url, **settings) as vllm:
            yield server, vllm


def recorded(name: str) -> bytes:
    return (FIXTURES / "sse" / f"{name}.sse").read_bytes()


def recorded_reply(name: str, **options: Any) -> Reply:
    return Reply.raw(recorded(name), **options)


class FixedStream:
    """A reply of these pieces, and then its regular end, or the loss of its connection."""

    status = 200

    def __init__(self, pieces: Sequence[bytes], error: VLLMError | None = None) -> None:
        self.headers = {"content-type": "text/event-stream; charset=utf-8"}
        self._pieces = list(pieces)
        self._error = error
        self.closed = 0

    async def receive(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        if self._error is not None:
            raise self._error
        return b""

    def abort(self, error: VLLMError) -> None:
        self._error = error

    async def aclose(self) -> None:
        self.closed += 1


class FixedTransport:
    """A transport that gives one body to every request; `lost` instead of a regular end."""

    def __init__(self, *pieces: bytes, lost: bool = False) -> None:
        self.pieces = pieces
        self.lost = lost
        self.requests: list[Request] = []
        self.streams: list[FixedStream] = []

    async def send(self, request: Request) -> ByteStream:
        self.requests.append(request)
        error = TransportError("The connection was lost.") if self.lost else None
        stream = FixedStream([piece for piece in self.pieces if piece], error)
        self.streams.append(stream)
        return stream

    async def aclose(self) -> None:
        return None

    @property
    def sent(self) -> Any:
        """The body of the last request."""
        return json.loads(self.requests[-1].body or b"null")
