"""The suite for transports: ours pass it, and each way to break one is found."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from typing import Any
from urllib.parse import urljoin

import msgspec
import pytest

from vllm_agent_sdk.errors import ConnectError, TransportError, VLLMError
from vllm_agent_sdk.testing import contract_server
from vllm_agent_sdk.testing import transport_contract as contract
from vllm_agent_sdk.testing import transport_failures as failures
from vllm_agent_sdk.testing.in_process import InProcessTransport
from vllm_agent_sdk.testing.transport_contract import CHECKS, CONNECTIONS, Check, Make, Server
from vllm_agent_sdk.transport.base import ByteStream, Request, Transport
from vllm_agent_sdk.transport.http import AiohttpTransport
from vllm_agent_sdk.types.options import HTTPOptions

pytestmark = pytest.mark.feature("Q-03")


async def check_that(check: Check, make: Make) -> None:
    """A check raises what it finds."""
    await check(make)


def over_http(_server: Server) -> Transport:
    return AiohttpTransport(HTTPOptions())


def in_process(server: Server) -> Transport:
    return InProcessTransport(server.handler)


@pytest.mark.parametrize("check", CHECKS + CONNECTIONS, ids=lambda check: check.__name__)
async def test_the_transport_of_the_client_keeps_the_contract(check: Check) -> None:
    await check_that(check, over_http)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_transport_within_the_process_keeps_the_contract(check: Check) -> None:
    await check_that(check, in_process)


# ── transports that are broken ───────────────────────────────────────────────────────────────────


class Stream:
    """A reply that is given as it is."""

    def __init__(self, inner: ByteStream) -> None:
        self.inner = inner
        self.status = inner.status
        self.headers: Any = inner.headers

    async def receive(self) -> bytes:
        return await self.inner.receive()

    def abort(self, error: VLLMError) -> None:
        self.inner.abort(error)

    async def aclose(self) -> None:
        await self.inner.aclose()


class Through:
    """A transport that hands everything on; the others break one thing of it."""

    stream: type[Stream] = Stream

    def __init__(self) -> None:
        self.inner = AiohttpTransport(HTTPOptions())

    async def send(self, request: Request) -> ByteStream:
        return self.stream(await self.inner.send(request))

    async def aclose(self) -> None:
        await self.inner.aclose()


def changed(request: Request, **fields: Any) -> Request:
    return msgspec.structs.replace(request, **fields)


class NamesItself(Through):
    async def send(self, request: Request) -> ByteStream:
        return await super().send(
            changed(request, headers={**request.headers, "user-agent": "own/1"})
        )


class WritesAddressesAnew(Through):
    async def send(self, request: Request) -> ByteStream:
        return await super().send(changed(request, url=request.url.replace("%2F", "/%2F")))


class EndsBodiesWithALine(Through):
    async def send(self, request: Request) -> ByteStream:
        return await super().send(changed(request, body=request.body and request.body + b"\n"))


class TellsOfNoConnection(Through):
    async def send(self, request: Request) -> ByteStream:
        return await super().send(changed(request, connected=None))


class TellsOfItTooLate(Through):
    async def send(self, request: Request) -> ByteStream:
        stream = await super().send(changed(request, connected=None))
        if request.connected is not None:
            request.connected()
        return stream


class LosesTheEndOfLongBodies(Through):
    async def send(self, request: Request) -> ByteStream:
        body = request.body
        return await super().send(changed(request, body=body and body[:1_000_000]))


class OneAtATime(Through):
    def __init__(self) -> None:
        super().__init__()
        self._lock = asyncio.Lock()

    async def send(self, request: Request) -> ByteStream:
        async with self._lock:
            return await super().send(request)


class RaisesForAStatus(Through):
    async def send(self, request: Request) -> ByteStream:
        stream = await super().send(request)
        if stream.status >= 400:
            await stream.aclose()
            raise TransportError(f"HTTP {stream.status}")
        return stream


class RepeatsWhatIsBusy(Through):
    async def send(self, request: Request) -> ByteStream:
        stream = await super().send(request)
        if stream.status == 503:
            await stream.aclose()
            stream = await super().send(request)
        return stream


class KnowsHeadersAsTheyCame(Through):
    class stream(Stream):  # noqa: N801
        def __init__(self, inner: ByteStream) -> None:
            super().__init__(inner)
            self.headers = dict(inner.headers)


class Follows(Through):
    async def send(self, request: Request) -> ByteStream:
        stream = await super().send(request)
        if stream.status in (307, 308):
            await stream.aclose()
            place = urljoin(request.url, stream.headers["location"])
            stream = await super().send(changed(request, url=place))
        return stream


class KeepsCookies(Through):
    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[str, str] = {}

    async def send(self, request: Request) -> ByteStream:
        stream = await super().send(changed(request, headers={**request.headers, **self._kept}))
        if "set-cookie" in stream.headers:
            self._kept["cookie"] = stream.headers["set-cookie"]
        return stream


class MendsLineEnds(Through):
    class stream(Stream):  # noqa: N801
        async def receive(self) -> bytes:
            return (await self.inner.receive()).replace(b"\r\n", b"\n")


class RaisesAfterTheEnd(Through):
    class stream(Stream):  # noqa: N801
        ended = False

        async def receive(self) -> bytes:
            if self.ended:
                raise TransportError("There is no more.")
            data = await self.inner.receive()
            self.ended = not data
            return data


class Collected(Stream):
    """A body that is read to its end before any of it is given."""

    data: bytes | None = None

    async def receive(self) -> bytes:
        if self.data is None:
            self.data = b""
            while data := await self.inner.receive():
                self.data += data
            return self.data
        return b""


class WaitsForTheWhole(Through):
    stream = Collected


class ReadsAhead(Through):
    class stream(Stream):  # noqa: N801
        def __init__(self, inner: ByteStream) -> None:
            super().__init__(inner)
            self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
            self._task = asyncio.ensure_future(self._read())

        async def _read(self) -> None:
            with contextlib.suppress(TransportError):
                while data := await self.inner.receive():
                    self._pieces.put_nowait(data)
            self._pieces.put_nowait(b"")

        async def receive(self) -> bytes:
            return await self._pieces.get()

        async def aclose(self) -> None:
            self._task.cancel()
            await super().aclose()


class OpensArchives(Through):
    class stream(Collected):  # noqa: N801
        async def receive(self) -> bytes:
            data = await super().receive()
            return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


class AsksForGzipAndKeepsIt(Through):
    class stream(Stream):  # noqa: N801
        async def receive(self) -> bytes:
            data = await super().receive()
            return gzip.compress(data) if "content-encoding" in self.headers and data else data


class SaysItWasNeverSent(Through):
    async def send(self, request: Request) -> ByteStream:
        try:
            return await super().send(request)
        except TransportError as error:
            raise ConnectError("no") from error


class SendsAgain(Through):
    async def send(self, request: Request) -> ByteStream:
        try:
            return await super().send(request)
        except TransportError:
            return await super().send(request)


class TakesACutForTheEnd(Through):
    class stream(Stream):  # noqa: N801
        async def receive(self) -> bytes:
            try:
                return await self.inner.receive()
            except TransportError:
                return b""


class SaysACutOnce(Through):
    class stream(Stream):  # noqa: N801
        cut = False

        async def receive(self) -> bytes:
            if self.cut:
                return b""
            self.cut = True
            data = await self.inner.receive()
            self.cut = False
            return data


class RaisesWhatItGets(Through):
    class stream(Stream):  # noqa: N801
        async def receive(self) -> bytes:
            try:
                return await self.inner.receive()
            except TransportError as error:
                raise ConnectionResetError from error


class ForgetsWhatCame(Through):
    class stream(Stream):  # noqa: N801
        async def receive(self) -> bytes:
            content = self.inner._body  # type: ignore[attr-defined]
            if content.exception() is not None:
                raise TransportError("lost") from content.exception()
            return await self.inner.receive()


class GoesOnWhenCancelled(Through):
    async def send(self, request: Request) -> ByteStream:
        return await asyncio.shield(asyncio.ensure_future(super().send(request)))


class LeavesStreamsOpen(Through):
    class stream(Stream):  # noqa: N801
        async def aclose(self) -> None:
            return None


class AbortsInItsOwnWords(Through):
    class stream(Stream):  # noqa: N801
        def abort(self, error: VLLMError) -> None:
            self.inner.abort(TransportError("aborted"))


class LeavesTheRestToTheNext(Through):
    left = b""

    class stream(Stream):  # noqa: N801
        async def receive(self) -> bytes:
            kept, LeavesTheRestToTheNext.left = LeavesTheRestToTheNext.left, b""
            return kept or await self.inner.receive()

        async def aclose(self) -> None:
            LeavesTheRestToTheNext.left = await self.inner.receive()
            await super().aclose()


class OpensAgain(Through):
    async def send(self, request: Request) -> ByteStream:
        if self.inner._session.closed:
            self.inner = AiohttpTransport(HTTPOptions())
        return await super().send(request)


class LeavesItsReaders(Through):
    async def aclose(self) -> None:
        await self.inner._session.close()


class RaisesTheSystemsError(Through):
    async def send(self, request: Request) -> ByteStream:
        try:
            return await super().send(request)
        except ConnectError as error:
            raise OSError("refused") from error


class HasNoLimitForConnecting(Through):
    async def send(self, request: Request) -> ByteStream:
        return await super().send(changed(request, connect_timeout=None))


class SaysNothingOfReuse(Through):
    async def send(self, request: Request) -> ByteStream:
        try:
            return await super().send(request)
        except TransportError as error:
            error.reused = False
            raise


class SendsLostOnesAgain(Through):
    async def send(self, request: Request) -> ByteStream:
        try:
            return await super().send(request)
        except TransportError as error:
            if not error.reused:
                raise
            return await super().send(request)


BROKEN: dict[type[Through], tuple[Check, str]] = {
    NamesItself: (contract.a_request_arrives_as_it_was_given, "user-agent"),
    WritesAddressesAnew: (contract.a_request_arrives_as_it_was_given, "with the query"),
    EndsBodiesWithALine: (contract.a_request_arrives_as_it_was_given, "arrived as"),
    TellsOfNoConnection: (contract.a_connection_is_told_of_once, "0 times"),
    TellsOfItTooLate: (contract.a_connection_is_told_of_once, "before the request"),
    LosesTheEndOfLongBodies: (contract.big_bodies_go_both_ways, "body of the request"),
    OneAtATime: (contract.requests_go_side_by_side, "not happened"),
    RaisesForAStatus: (contract.any_status_is_a_reply, "raised TransportError: HTTP 400"),
    RepeatsWhatIsBusy: (contract.any_status_is_a_reply, "not sent again"),
    KnowsHeadersAsTheyCame: (contract.any_status_is_a_reply, "retry-after"),
    Follows: (contract.a_redirect_is_not_followed, "followed"),
    KeepsCookies: (contract.no_cookie_is_kept, "cookie"),
    MendsLineEnds: (contract.a_body_comes_whole_and_in_order, "from byte"),
    RaisesAfterTheEnd: (contract.a_body_comes_whole_and_in_order, "There is no more"),
    WaitsForTheWhole: (contract.the_body_comes_as_it_is_sent, "not happened"),
    ReadsAhead: (contract.a_reader_that_stops_stops_the_server, "nobody reads"),
    OpensArchives: (contract.nothing_is_decoded_but_what_was_asked_for, "without a content"),
    AsksForGzipAndKeepsIt: (contract.nothing_is_decoded_but_what_was_asked_for, "may have"),
    SaysItWasNeverSent: (failures.a_reply_that_never_begins_is_an_error, "no ConnectError"),
    SendsAgain: (failures.a_reply_that_never_begins_is_an_error, "sent again"),
    TakesACutForTheEnd: (failures.a_cut_body_is_an_error, "gave b''"),
    SaysACutOnce: (failures.a_cut_body_is_an_error, "gave b''"),
    RaisesWhatItGets: (failures.a_cut_body_is_an_error, "raised ConnectionResetError"),
    ForgetsWhatCame: (failures.what_came_before_a_cut_is_given, "lost"),
    GoesOnWhenCancelled: (failures.a_cancelled_request_ends_at_the_server, "not happened"),
    LeavesStreamsOpen: (failures.a_closed_stream_ends_at_the_server, "not happened"),
    AbortsInItsOwnWords: (failures.an_aborted_stream_raises_what_it_was_given, "not what abort"),
    LeavesTheRestToTheNext: (
        failures.what_was_not_read_is_no_part_of_the_next_reply,
        "The next reply",
    ),
    OpensAgain: (failures.a_closed_transport_is_closed, "send on a closed transport must raise"),
    LeavesItsReaders: (failures.a_closed_transport_is_closed, "not happened"),
    RaisesTheSystemsError: (failures.no_connection_is_a_connect_error, "raised OSError"),
    HasNoLimitForConnecting: (failures.connecting_has_its_limit, "not happened"),
    SaysNothingOfReuse: (failures.a_kept_connection_that_is_lost_is_said_to_be_one, "reused"),
    SendsLostOnesAgain: (
        failures.a_kept_connection_that_is_lost_is_said_to_be_one,
        "GET that was lost was sent again",
    ),
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
async def test_what_is_broken_is_found(
    broken: type[Through], monkeypatch: pytest.MonkeyPatch
) -> None:
    check, said = BROKEN[broken]
    if said == "not happened":
        monkeypatch.setattr(contract_server, "SOON_S", 0.2)
    made: list[Through] = []

    def make(_server: Server) -> Transport:
        made.append(broken())
        return made[-1]

    with pytest.raises(AssertionError, match=said):
        await check_that(check, make)
    for transport in made:
        await transport.inner.aclose()  # what it left open itself


@pytest.mark.parametrize("broken", [TakesACutForTheEnd, SaysItWasNeverSent, SendsAgain])
async def test_a_reply_that_is_no_whole_one_is_found_out(broken: type[Through]) -> None:
    with pytest.raises(AssertionError):
        await check_that(failures.what_is_no_whole_reply_is_an_error, lambda _server: broken())


@pytest.mark.parametrize("check", CHECKS + CONNECTIONS, ids=lambda check: check.__name__)
async def test_what_breaks_the_broken_ones_is_their_fault_alone(check: Check) -> None:
    await check_that(check, lambda _server: Through())


def test_every_check_finds_something() -> None:
    found = {check for check, _ in BROKEN.values()} | {failures.what_is_no_whole_reply_is_an_error}
    assert found == {*CHECKS, *CONNECTIONS}
