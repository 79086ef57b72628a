"""One request and its answer, on whatever way they travel: a socket, or inside the process."""

from __future__ import annotations

import asyncio
import http
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from vllm_agent_sdk.types import _codec

__all__ = ["Answer", "Pacing", "SimulatorRequest", "Sink", "deliver", "json_answer"]


_COMMENT = b": keep-alive\n\n"


@dataclass(frozen=True)
class SimulatorRequest:
    """A request as the simulator received it.

    Attributes:
        method: `"GET"`, `"POST"`, …
        path: The path without the query.
        query: What follows the `?`; empty when nothing does.
        headers: The headers; names in lower case.
        body: The bytes of the body; empty when there is none.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The body's JSON in builtins; `None` when the body is no JSON."""
        return _codec.decode_or_none(self.body)


@dataclass(frozen=True)
class Pacing:
    """How the bytes of an answer are sent.

    Attributes:
        delay: Seconds before each piece of a stream, or before a whole reply.
        first_delay: Seconds before the first piece instead; `None` for `delay`.
        split: Size in bytes of the pieces the body is sent in; `None` for one piece an event.
        cut_after: Bytes of the body after which the connection ends; `-1` before the head.
        reset: Whether a cut resets the connection (RST) instead of closing it.
        stall_after: Pieces of the body after which nothing more is sent; `None` for no stall.
        keep_alive: Seconds of idleness after which a stream gets a comment; `None` for none.
    """

    delay: float = 0.0
    first_delay: float | None = None
    split: int | None = None
    cut_after: int | None = None
    reset: bool = False
    stall_after: int | None = None
    keep_alive: float | None = None


@dataclass(frozen=True)
class Answer:
    """An answer in full, before any of it is sent.

    Attributes:
        status: The HTTP status.
        headers: Names in lower case, and values; without those that frame the body.
        pieces: The body, in the pieces it is sent in.
        streamed: Whether the head is sent at once and the body without a length, as it comes.
        pacing: How it is sent.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: tuple[bytes, ...]
    streamed: bool = False
    pacing: Pacing = Pacing()

    def with_headers(self, *headers: tuple[str, str]) -> Answer:
        """Give the same answer with more headers."""
        return replace(self, headers=(*self.headers, *headers))

    @property
    def head(self) -> tuple[tuple[str, str], ...]:
        """All headers, in the order a server writes them."""
        size = sum(len(piece) for piece in self.pieces)
        framing = (
            ("transfer-encoding", "chunked") if self.streamed else ("content-length", str(size))
        )
        return (("server", "uvicorn"), *self.headers, framing)

    @property
    def reason(self) -> str:
        """The phrase that goes with the status."""
        try:
            return http.HTTPStatus(self.status).phrase
        except ValueError:
            return "Unknown"


def json_answer(status: int, value: object, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """Answer with JSON."""
    body = _codec.encode(value)
    return Answer(status, (("content-type", "application/json"), *headers), (body,))


class Sink(Protocol):
    """Where an answer goes: a connection, or a reader in the same process."""

    def start(self, answer: Answer) -> None:
        """Send the head."""

    async def write(self, data: bytes) -> None:
        """Send bytes of the body, and wait while the reader is too far behind."""

    def end(self) -> None:
        """End the body regularly."""

    def cut(self, reset: bool) -> None:
        """End the connection in the middle of the answer."""


async def deliver(answer: Answer, sink: Sink, finished: Callable[[], None]) -> None:
    """Send an answer.

    `finished` is called just before the last bytes go out, so that a client that has read a reply
    to its end finds the server done with it.
    """
    pacing = answer.pacing
    first = pacing.delay if pacing.first_delay is None else pacing.first_delay
    if not answer.streamed and first:
        await asyncio.sleep(first)
    if pacing.cut_after == -1:
        finished()
        sink.cut(pacing.reset)
        return
    if answer.streamed:
        # A server sends the head of a stream when it takes the request, not with the first token.
        sink.start(answer)
    pieces = list(_pieces(answer))
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        if number == pacing.stall_after:
            await _pause(math.inf, answer, sink)
        if answer.streamed:
            await _pause(first if number == 0 else pacing.delay, answer, sink)
        if last:
            finished()
        if number == 0 and not answer.streamed:
            sink.start(answer)
        await sink.write(piece)
    finished()
    if not pieces and not answer.streamed:
        sink.start(answer)
    if _is_cut(answer):
        sink.cut(pacing.reset)
    else:
        sink.end()


async def _pause(seconds: float, answer: Answer, sink: Sink) -> None:
    """Let time pass; an idle stream gets its comments."""
    every = answer.pacing.keep_alive
    while answer.streamed and every is not None and seconds > every:
        await asyncio.sleep(every)
        await sink.write(_COMMENT)
        seconds -= every
    if seconds == math.inf:
        await asyncio.Event().wait()  # until the client leaves
    await asyncio.sleep(seconds)


def _is_cut(answer: Answer) -> bool:
    cut_after = answer.pacing.cut_after
    return cut_after is not None and cut_after <= sum(len(piece) for piece in answer.pieces)


def _pieces(answer: Answer) -> Iterator[bytes]:
    cut_after, split = answer.pacing.cut_after, answer.pacing.split
    pieces: Iterable[bytes] = answer.pieces
    if split is not None:
        body = b"".join(pieces)
        pieces = (body[at : at + split] for at in range(0, len(body), split))
    left = cut_after
    for piece in pieces:
        if left is not None:
            piece = piece[:left]
            left -= len(piece)
        if piece:
            yield piece
