"""What every `Transport` must do: the suite that ours pass, for yours.

```python
import pytest
from vllm_agent_sdk.testing import transport_contract

CHECKS = transport_contract.CHECKS + transport_contract.CONNECTIONS

@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_my_transport(check):
    await check(lambda server: MyTransport())
```

A check starts a server of its own on the loopback device, is given a transport that can reach it,
and closes both. `CHECKS` hold for every transport; `CONNECTIONS` for those that open sockets. One
that stays within the process hands its requests to `server.handler` instead. A check that finds
something raises `AssertionError`, saying what.
"""

from __future__ import annotations

import asyncio
import gzip

from vllm_agent_sdk.testing import transport_failures as failures
from vllm_agent_sdk.testing.contract_server import (
    Check,
    Make,
    Server,
    answer,
    asking,
    chunked,
    nothing,
    opened,
    replying,
    same,
    serving,
    soon,
    whole,
)
from vllm_agent_sdk.testing.exchange import Answer, SimulatorRequest, Sink, deliver

__all__ = ["CHECKS", "CONNECTIONS", "Check", "Make", "Server"]

_PART = 65_536
_PARTS = 1024


# ── requests ─────────────────────────────────────────────────────────────────────────────────────


async def a_request_arrives_as_it_was_given(make: Make) -> None:
    """Method, address, headers and the bytes of the body; nothing is added to a body."""
    body = bytes(range(256)) * 3
    headers = {
        "authorization": "Bearer key",
        "content-type": "application/x-own; a=b",
        "user-agent": "me/1",
        "x-request-id": "r-1",
        "x-empty": "",
    }
    async with serving(make, replying(b"ok")) as (server, transport):
        path = "/v1/a%20b/%C3%A9%2F?x=%2B%20y&empty="
        for method, data in (("POST", body), ("GET", None), ("POST", b"")):
            request = asking(server.at(path), method=method, body=data, headers=headers)
            await whole(transport, request)
            got = server.requests[-1]
            assert got.method == method, f"A {method} arrived as {got.method}."
            assert (got.path, got.query) == ("/v1/a b/é/", "x=%2B%20y&empty="), (
                f"{path!r} arrived as {got.path!r} with the query {got.query!r}."
            )
            assert got.body == (data or b""), f"{data!r:.80} arrived as {got.body!r:.80}."
            for name, value in headers.items():
                assert got.headers.get(name) == value, (
                    f"The header {name}: {value!r} arrived as {got.headers.get(name)!r}."
                )
        assert len(server.requests) == 3, f"3 requests arrived as {len(server.requests)}."


async def a_connection_is_told_of_once(make: Make) -> None:
    """`connected` is called when the request is about to be written: clocks start there."""
    told: list[int] = []
    async with serving(make, replying(b"ok")) as (server, transport):
        for _ in range(2):
            told.clear()
            before = len(server.requests)
            request = asking(server.at(), connected=lambda: told.append(len(server.requests)))
            await whole(transport, request)
            assert told == [before], (
                f"`connected` was called {len(told)} times, not once before the request is written."
            )


async def big_bodies_go_both_ways(make: Make) -> None:
    """Two megabytes, of which no byte is lost, doubled or changed."""
    body = b"".join(number.to_bytes(4, "big") for number in range(600_000))

    async def echo(request: SimulatorRequest, sink: Sink) -> None:
        await answer(sink, request.body)

    async with serving(make, echo) as (server, transport):
        _, back = await whole(transport, asking(server.at(), method="POST", body=body))
        same(server.requests[0].body, body, "The body of the request")
        same(back, body, "The body of the reply")


async def requests_go_side_by_side(make: Make) -> None:
    """None waits for another's reply, and each gets its own."""
    arrived: list[str] = []
    go = asyncio.Event()

    async def respond(request: SimulatorRequest, sink: Sink) -> None:
        arrived.append(request.query)
        if len(arrived) == 20:
            go.set()
        await go.wait()
        await answer(sink, request.query.encode(), request.query.encode())

    async with serving(make, respond) as (server, transport):
        asked = (whole(transport, asking(server.at(f"/?{number}"))) for number in range(20))
        replies = await asyncio.gather(*asked)
        wrong = [at for at, (_, body) in enumerate(replies) if body != str(at).encode() * 2]
        assert not wrong, f"Requests {wrong} got the replies of others."


# ── replies ──────────────────────────────────────────────────────────────────────────────────────


async def any_status_is_a_reply(make: Make) -> None:
    """An error's head and body are read as any other's: what they mean is decided above."""
    said = b'{"error": {"message": "no"}}'

    async def respond(request: SimulatorRequest, sink: Sink) -> None:
        headers = (("Retry-After", "7"), ("content-type", "application/json"))
        await deliver(Answer(int(request.query), headers, (said,)), sink, nothing)

    async with serving(make, respond) as (server, transport):
        for status in (200, 400, 401, 404, 422, 429, 500, 501, 503):
            stream, body = await whole(transport, asking(server.at(f"/?{status}")))
            assert stream.status == status, f"Status {status} was given as {stream.status}."
            assert body == said, f"The body of a {status} was given as {body!r}."
            after = stream.headers.get("retry-after")
            assert after == "7", f"headers['retry-after'] is {after!r}, and 'Retry-After: 7' came."
        assert len(server.requests) == 9, "A request that gets an error is not sent again."


async def a_redirect_is_not_followed(make: Make) -> None:
    """It is a reply, with its `location`: the key must not go to another place."""

    async def respond(request: SimulatorRequest, sink: Sink) -> None:
        status = int(request.query or 200)
        await deliver(Answer(status, (("location", "/elsewhere"),), (b"",)), sink, nothing)

    async with serving(make, respond) as (server, transport):
        for status in (301, 302, 303, 307, 308):
            request = asking(server.at(f"/?{status}"), method="POST", body=b"x")
            stream, _ = await whole(transport, request)
            assert len({request.path for request in server.requests}) == 1, (
                f"A {status} was followed."
            )
            assert stream.status == status, f"Status {status} was given as {stream.status}."
            assert stream.headers.get("location") == "/elsewhere", "Its location is not given."


async def no_cookie_is_kept(make: Make) -> None:
    """What one reply says is not sent with the next request."""

    async def respond(_request: SimulatorRequest, sink: Sink) -> None:
        await deliver(Answer(200, (("set-cookie", "a=b; path=/"),), (b"ok",)), sink, nothing)

    async with serving(make, respond) as (server, transport):
        for _ in range(2):
            await whole(transport, asking(server.at()))
        assert "cookie" not in server.requests[1].headers, "A reply's cookie was sent back."


async def a_body_comes_whole_and_in_order(make: Make) -> None:
    """With a length or in chunks, of one piece, of many or of none; then `b""`, again and again."""
    many = [b"%d," % number * (number % 50) for number in range(400)]
    bodies = [many, [b"x"], [], [b"\xef\xbb\xbfdata: \xff\r\n\r\n", b"\r", b"\n", b"\0"]]

    async def respond(request: SimulatorRequest, sink: Sink) -> None:
        pieces = tuple(piece for piece in bodies[int(request.query)] if piece)
        streamed = request.path == "/chunked"
        await deliver(Answer(200, (), pieces, streamed=streamed), sink, nothing)

    async with serving(make, respond) as (server, transport):
        for path in ("/chunked", "/length"):
            for number, pieces in enumerate(bodies):
                request = asking(server.at(f"{path}?{number}"))
                stream, body = await whole(transport, request, close=False)
                same(body, b"".join(pieces), "The body")
                more = await soon(stream.receive(), "receive at the body's end")
                assert more == b"", f"After the body's end receive gave {more!r}, not b''."
                await stream.aclose()


async def the_body_comes_as_it_is_sent(make: Make) -> None:
    """The head before the body, each piece before the next: nothing is held back."""
    pieces = [b"one", b"two", b"three"]
    may = [asyncio.Event() for _ in pieces]

    async def respond(_request: SimulatorRequest, sink: Sink) -> None:
        sink.start(chunked())
        for piece, event in zip(pieces, may, strict=True):
            await event.wait()
            await sink.write(piece)
        sink.end()

    async with serving(make, respond) as (server, transport):
        stream = await opened(transport, server)
        for piece, event in zip(pieces, may, strict=True):
            event.set()
            got = b""
            while len(got) < len(piece):
                got += await soon(stream.receive(), f"The piece {piece!r}, sent before the next,")
            assert got == piece, f"{piece!r} came as {got!r}."
        assert await soon(stream.receive(), "The body's end") == b""
        await stream.aclose()


async def a_reader_that_stops_stops_the_server(make: Make) -> None:
    """What nobody reads is not fetched: memory stays bounded, and the server waits."""
    written = 0

    async def respond(_request: SimulatorRequest, sink: Sink) -> None:
        nonlocal written
        sink.start(chunked())
        for written in range(1, _PARTS + 1):  # noqa: B007  it is looked at from outside
            await sink.write(bytes(_PART))
        sink.end()

    async with serving(make, respond) as (server, transport):
        stream = await opened(transport, server)
        still, before = 0, 0
        while still < 200 and written < _PARTS:
            await asyncio.sleep(0)
            still = still + 1 if written == before else 0
            before = written
        assert written < _PARTS, (
            f"{written * _PART >> 20} MiB of a reply were fetched that nobody reads."
        )
        size = 0
        while data := await soon(stream.receive(), "The rest of a reply"):
            size += len(data)
        assert size == _PART * _PARTS, f"{size} bytes came instead of {_PART * _PARTS}."
        await stream.aclose()


async def nothing_is_decoded_but_what_was_asked_for(make: Make) -> None:
    """Who asks for gzip undoes it, once; a body that is an archive stays one."""
    text = b"data: {}\n\n" * 1000
    archive = gzip.compress(gzip.compress(text))

    async def respond(request: SimulatorRequest, sink: Sink) -> None:
        if request.query == "archive":
            kind = (("content-type", "application/gzip"),)
            await deliver(Answer(200, kind, (archive,)), sink, nothing)
        elif "gzip" in request.headers.get("accept-encoding", ""):
            coded = Answer(200, (("content-encoding", "gzip"),), (gzip.compress(archive),))
            await deliver(coded, sink, nothing)
        else:
            await answer(sink, archive)

    async with serving(make, respond) as (server, transport):
        for query in ("archive", "text"):
            _, body = await whole(transport, asking(server.at(f"/?{query}")))
            coded = "without" if query == "archive" else "that may have"
            same(body, archive, f"A body {coded} a content-encoding")


#: The checks of every transport.
CHECKS: tuple[Check, ...] = (
    a_request_arrives_as_it_was_given,
    a_connection_is_told_of_once,
    big_bodies_go_both_ways,
    requests_go_side_by_side,
    any_status_is_a_reply,
    a_redirect_is_not_followed,
    no_cookie_is_kept,
    a_body_comes_whole_and_in_order,
    the_body_comes_as_it_is_sent,
    a_reader_that_stops_stops_the_server,
    nothing_is_decoded_but_what_was_asked_for,
    failures.a_reply_that_never_begins_is_an_error,
    failures.a_cut_body_is_an_error,
    failures.what_came_before_a_cut_is_given,
    failures.a_cancelled_request_ends_at_the_server,
    failures.a_closed_stream_ends_at_the_server,
    failures.an_aborted_stream_raises_what_it_was_given,
    failures.what_was_not_read_is_no_part_of_the_next_reply,
    failures.a_closed_transport_is_closed,
)
#: The checks of a transport that opens sockets.
CONNECTIONS: tuple[Check, ...] = (
    failures.no_connection_is_a_connect_error,
    failures.connecting_has_its_limit,
    failures.what_is_no_whole_reply_is_an_error,
    failures.a_kept_connection_that_is_lost_is_said_to_be_one,
)
