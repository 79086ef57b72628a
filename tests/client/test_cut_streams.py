"""Every recorded stream, cut at every byte: an error with the partial reply, or the whole reply."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM, Breaker, Finished, HTTPOptions
from vllm_agent_sdk.errors import (
    ProtocolError,
    StreamFailedError,
    StreamTruncatedError,
    TransportError,
    VLLMError,
)
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.types.chat import ChatCompletion

from .support import FIXTURES, HI, WAYS, FixedTransport, recorded, recorded_reply, served

pytestmark = pytest.mark.feature("S-06")

NAMES = sorted(path.stem for path in (FIXTURES / "sse").glob("*.sse"))
CUT = "The connection was lost."


def client_of(transport: FixedTransport) -> AsyncVLLM:
    return AsyncVLLM("http://fixed", model="m", transport=transport)


def patient(transport: FixedTransport) -> AsyncVLLM:
    """A client that asks again, however often a server has failed."""
    http = HTTPOptions(breaker=Breaker(failures=10**9))
    return AsyncVLLM("http://fixed", model="m", transport=transport, http=http)


async def outcome(vllm: AsyncVLLM, **params: Any) -> ChatCompletion | VLLMError:
    stream = vllm.chat.completions.stream(messages=HI, **params)
    try:
        return await stream.final()
    except VLLMError as error:
        return error


def content(said: ChatCompletion) -> tuple[Any, ...]:
    return said.text, said.reasoning, said.tool_calls, said.finish_reason


def finished_at(stream: bytes) -> int | None:
    """After how many bytes the last character of the chunk with the finish reason has come."""
    end = 0
    for frame in stream.split(b"\n\n"):
        end += len(frame)
        choices = json.loads(frame[6:]).get("choices") if frame[6:7] == b"{" else None
        if choices and choices[0]["finish_reason"]:
            return end
        end += 2
    return None


def places(stream: bytes, lost: bool) -> list[int]:
    """Every byte; for a connection that is lost, every one around an event's end, a fifth else.

    What had come is read in the same way however it ends: the end alone is another one.
    """
    if not lost:
        return list(range(len(stream)))
    return [at for at in range(len(stream)) if at % 5 == 0 or b"\n" in stream[at - 4 : at + 4]]


@pytest.mark.parametrize("lost", [False, True], ids=["closed", "lost"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_cut_at_any_byte_is_an_error_or_the_whole_reply(name: str, lost: bool) -> None:
    stream = recorded(name)
    transport = FixedTransport(stream)
    async with client_of(transport) as vllm:
        whole = await outcome(vllm)
    complete = finished_at(stream)
    assert isinstance(whole, StreamFailedError if complete is None else ChatCompletion)
    text = whole.partial.text if isinstance(whole, VLLMError) else whole.text
    vllm = patient(transport)
    for at in places(stream, lost):
        transport.pieces, transport.lost = (stream[:at],), lost
        said = await outcome(vllm)
        if isinstance(said, StreamFailedError):  # a dead engine is not asked again
            await vllm.aclose()
            vllm = patient(transport)
        if isinstance(said, ChatCompletion):
            assert complete is not None
            assert at >= complete
            assert content(said) == content(whole)  # type: ignore[arg-type]
            if said.usage is not None:  # continuous usage lacks the details of the last chunk
                assert said.usage.total_tokens == whole.usage.total_tokens  # type: ignore[union-attr]
        else:
            assert isinstance(said, (StreamTruncatedError, StreamFailedError))
            assert complete is None or at < complete
            assert text.startswith(said.partial.text)
            assert said.request_id
    await vllm.aclose()


@pytest.mark.parametrize("lost", [False, True], ids=["closed", "lost"])
async def test_a_last_event_without_its_blank_line_counts_if_it_is_whole(lost: bool) -> None:
    stream = recorded("plain_length")
    end = finished_at(stream)
    assert end is not None
    async with client_of(FixedTransport(stream[:end], lost=lost)) as vllm:
        said = await outcome(vllm)
        assert isinstance(said, ChatCompletion)
        assert (said.text, said.finish_reason, said.usage) == ("Hello", "length", None)
    async with client_of(FixedTransport(stream[: end - 1], lost=lost)) as vllm:
        said = await outcome(vllm)
        assert isinstance(said, StreamTruncatedError)
        assert said.partial.text == "Hel"


@pytest.mark.parametrize("lost", [False, True], ids=["closed", "lost"])
async def test_an_error_frame_without_its_blank_line_is_the_error(lost: bool) -> None:
    stream = recorded("error_value_midstream")
    for before in (b"", recorded("plain_length").removesuffix(b"data: [DONE]\n\n")):
        frame = before + stream[stream.index(b'data: {"error"') :].partition(b"\n")[0]
        async with client_of(FixedTransport(frame, lost=lost)) as vllm:
            said = await outcome(vllm)
        assert isinstance(said, StreamFailedError)
        assert said.partial is not None
        assert said.request_id


async def test_the_loss_of_the_connection_is_the_cause_of_the_truncation() -> None:
    stream = recorded("plain_usage")
    async with client_of(FixedTransport(stream[:400], lost=True)) as vllm:
        said = await outcome(vllm)
    assert isinstance(said, StreamTruncatedError)
    assert said.message == f"The stream was cut before the reply was complete: {CUT}"
    assert type(said.__cause__) is TransportError
    assert said.retryable


async def test_done_alone_proves_nothing() -> None:
    async with client_of(FixedTransport(b"data: [DONE]\n\n")) as vllm:
        said = await outcome(vllm)
    assert isinstance(said, StreamTruncatedError)
    assert said.partial.text == ""


async def test_with_several_choices_each_must_have_finished() -> None:
    stream = recorded("plain_length")
    async with client_of(FixedTransport(stream)) as vllm:
        assert isinstance(await outcome(vllm, n=1), ChatCompletion)
        said = await outcome(vllm, n=2)
        assert isinstance(said, StreamTruncatedError)
        assert "1 of 2 choices" in said.message
        assert isinstance(await outcome(vllm, n=2, use_beam_search=True), StreamTruncatedError)


@pytest.mark.parametrize(
    "data", [b"data: {\n\n", b"data: \xff\n\n", b"data: []\n\n", b"data: " + b"[" * 9000 + b"\n\n"]
)
async def test_an_event_that_is_no_chunk_is_a_protocol_error_with_the_partial(data: bytes) -> None:
    stream = recorded("plain_length")
    first_two = b"\n\n".join(stream.split(b"\n\n")[:2]) + b"\n\n"
    async with client_of(FixedTransport(first_two + data)) as vllm:
        said = await outcome(vllm)
    assert isinstance(said, ProtocolError)
    assert said.partial.text == "Hel"


async def test_after_its_error_a_stream_raises_it_again_and_its_socket_is_closed() -> None:
    transport = FixedTransport(recorded("error_value_midstream"))
    async with client_of(transport) as vllm:
        stream = vllm.chat.completions.stream(messages=HI)
        seen: list[object] = []
        with pytest.raises(StreamFailedError) as first:
            seen += [event async for event in stream]
        with pytest.raises(StreamFailedError) as second:
            await anext(stream)
    assert second.value is first.value
    assert stream.partial.text == "Hel"
    assert transport.streams[0].closed


# ── the same on the simulator ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_cut_connection_on_every_way(way: str, reset: bool) -> None:
    stream = recorded("plain_usage")
    for at in (-1, 0, 300, finished_at(stream), len(stream) - 3):
        assert at is not None
        reply = recorded_reply("plain_usage", cut_after=at, reset=reset)
        async with served(reply, way=way) as (_, vllm):
            said = await outcome(vllm)
        if at == len(stream) - 3 and not reset:
            assert isinstance(said, ChatCompletion)
        if at < 1:
            assert isinstance(said, TransportError if at < 0 else StreamTruncatedError)
        if isinstance(said, ChatCompletion):
            assert said.text == "Hello"


@pytest.mark.parametrize("way", WAYS)
async def test_what_came_before_a_cut_is_told_however_slowly_it_is_read(way: str) -> None:
    stream = recorded("plain_usage")
    complete = finished_at(stream)
    assert complete is not None
    for at in (complete - 1, complete + 2):
        async with served(recorded_reply("plain_usage", cut_after=at), way=way) as (server, vllm):
            async with vllm.chat.completions.stream(messages=HI) as events:
                await anext(events)
                await server.wait_for(lambda: server.running == 0)
                for _ in range(100):
                    await asyncio.sleep(0)
                if at > complete:
                    assert (await events.final()).text == "Hello"
                else:
                    with pytest.raises(StreamTruncatedError) as caught:
                        await events.final()
                    assert caught.value.partial.text == "Hello"


@pytest.mark.parametrize("way", WAYS)
async def test_an_error_inside_a_stream_and_the_done_after_it(way: str) -> None:
    reply = Reply.text("a b c", error_after=3, error={"message": "busy", "code": 503})
    async with served(reply, way=way) as (server, vllm):
        said = await outcome(vllm)
        assert isinstance(said, StreamFailedError)
        assert (said.status, said.retryable, said.partial.text) == (503, True, "a b")
        assert said.request_id == server.chats[0].headers["x-request-id"]


@pytest.mark.parametrize("way", WAYS)
async def test_wire_chunks_of_a_cut_stream_raise_too(way: str) -> None:
    async with served(recorded_reply("plain_usage", cut_after=600), way=way) as (_, vllm):
        chunks = await vllm.chat.completions.create(messages=HI, stream=True)
        seen: list[Any] = []
        with pytest.raises(StreamTruncatedError) as caught:
            seen += [chunk async for chunk in chunks]
        assert caught.value.partial.text == "Hel"


@pytest.mark.parametrize("size", [1, 7])
async def test_a_stream_in_small_pieces_is_the_same_stream(size: int) -> None:
    name = "qwen3_coder_reasoning"
    async with served(recorded_reply(name), recorded_reply(name, split=size)) as (_, vllm):
        runs = []
        for _ in range(2):
            async with vllm.chat.completions.stream(messages=HI) as stream:
                runs.append([event async for event in stream if not isinstance(event, Finished)])
    assert runs[0] == runs[1]
