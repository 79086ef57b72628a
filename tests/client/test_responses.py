"""Responses on the simulator: what is sent, whole ones, streams, what the server keeps."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM, UserMessage, tool
from vllm_agent_sdk.client.responses import ResponseStream
from vllm_agent_sdk.errors import (
    BadRequestError,
    NotFoundError,
    ProtocolError,
    ServerOverloadedError,
    StreamFailedError,
    StreamTruncatedError,
    UnsupportedByServerError,
    UsageError,
)
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.transport.base import ByteStream, Request
from vllm_agent_sdk.types.responses import Finished
from vllm_agent_sdk.types.responses_events import (
    ResponseCompletedEvent,
    ResponseCreatedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseReasoningTextDeltaEvent,
    ResponseTextDeltaEvent,
)

from .support import WAYS, WEATHER, FixedStream, FixedTransport, served

pytestmark = pytest.mark.feature("E-03")

FIXTURES = Path(__file__).parents[1] / "fixtures" / "responses"
VARIABLE = "VLLM_ENABLE_RESPONSES_API_STORE=1"
FLAT = {"type": "function", **WEATHER["function"]}  # type: ignore[dict-item]


def recorded(name: str) -> bytes:
    return (FIXTURES / f"{name}.sse").read_bytes()


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
async def test_the_body_holds_what_was_asked_and_the_requests_id(way: str) -> None:
    async with served(way=way, check_fields=False) as (server, vllm):
        said = await vllm.responses.create(input="Hi", top_k=5, user=None, extra_body={"new": 1})
        stream = vllm.responses.stream(input=[UserMessage("Hi")], request_id="mine")
        assert (await stream.final()).id == "mine"
    first, second = server.requests
    sent = dict(first.json)
    id_ = sent.pop("request_id")
    assert sent == {"input": "Hi", "top_k": 5, "user": None, "new": 1, "model": "sim-model"}
    assert id_.startswith("resp_")
    assert id_ == said.id == said.request_id == first.headers["x-request-id"]
    assert second.path == "/v1/responses"
    assert second.json == {
        "input": [{"type": "message", "role": "user", "content": "Hi"}],
        "stream": True,
        "model": "sim-model",
        "request_id": "mine",
    }
    assert second.headers["x-request-id"] == "mine"
    assert stream.request_id == "mine"


async def test_without_a_request_id_none_is_sent_in_the_body_either() -> None:
    async with served(client={"headers": {"X-Request-Id": None}}) as (server, vllm):
        said = await vllm.responses.create(input="Hi")
    assert "request_id" not in server.requests[0].json
    assert "x-request-id" not in server.requests[0].headers
    assert said.request_id is None


async def test_the_servers_only_model_is_taken_where_none_is_named() -> None:
    async with served(client={"model": None}) as (server, vllm):
        said = await vllm.responses.create(input="Hi")
    assert said.model == "sim-model"
    assert server.requests[-1].json["model"] == "sim-model"


async def test_tools_are_sent_in_responses_own_shape() -> None:
    @tool
    def add(a: int) -> str:
        """Add."""
        return str(a)

    custom = {"type": "custom", "name": "free"}
    async with served() as (server, vllm):
        await vllm.responses.create(input="Hi", tools=[add, WEATHER, custom])
    mine, flattened, other = server.requests[0].json["tools"]
    assert (mine["type"], mine["name"], mine["description"]) == ("function", "add", "Add.")
    assert set(mine["parameters"]["properties"]) == {"a"}
    assert flattened == FLAT
    assert other == custom


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"max_tokens": 5}, r"responses has no field 'max_tokens'.* Did you mean"),
        ({"temprature": 1}, r"Did you mean temperature="),
        ({"stream": True}, r"responses\.stream\(\) a stream"),
        ({"prompt": {"id": "p"}}, "no prompt templates"),
        ({"temperature": 2.5}, "from 0 to 2"),
        ({"presence_penalty": 3}, "from -2 to 2"),
        ({"frequency_penalty": -3}, "from -2 to 2"),
        ({"top_p": 0}, "above 0"),
        ({"cache_salt": ""}, "cache_salt="),
        ({"cache_salt": "a/b"}, "cache_salt="),
        ({"cache_salt": "a" * 129}, "cache_salt="),
        ({"tool_choice": "required"}, "needs tools="),
        ({"tool_choice": {"type": "function", "name": "f"}, "tools": []}, "needs tools="),
        ({"background": True, "store": False}, "background=True needs store=True"),
        ({"previous_input_messages": [{}], "previous_response_id": "r"}, "Give either"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "exactly one"),
        (
            {"structured_outputs": {"regex": "a"}, "text": {"format": {"type": "json_object"}}},
            "Two constraints",
        ),
        ({"structured_outputs": {"regex": "a"}, "include_reasoning": False}, "first token"),
        (
            {"text": {"format": {"type": "json_object"}}, "include_reasoning": False},
            "first token",
        ),
        ({"vllm_xargs": {"x": float("nan")}}, "NaN"),
    ],
)
async def test_what_no_server_takes_is_refused_before_anything_is_sent(
    params: dict[str, Any], text: str
) -> None:
    async with served() as (server, vllm):
        with pytest.raises(UsageError, match=text):
            await vllm.responses.create(input="Hi", **params)
        with pytest.raises(UsageError, match=text):
            await vllm.responses.stream(input="Hi", **params).final()
    assert server.requests == []


@pytest.mark.parametrize(
    "params",
    [
        {"tools": []},
        {"tool_choice": "none"},
        {"tool_choice": "auto"},
        {"text": {"format": {"type": "text"}}, "include_reasoning": False},
        {"text": {"verbosity": "low"}, "structured_outputs": {"regex": "[A-Z]+"}},
        {"cache_salt": "a" * 128},
        {"store": None},
    ],
)
async def test_what_a_server_may_take_is_sent(params: dict[str, Any]) -> None:
    async with served() as (server, vllm):
        await vllm.responses.create(input="Hi", **params)
    assert params.items() <= server.requests[0].json.items()


# ── whole responses ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
async def test_a_whole_response_has_the_short_ways_and_its_bytes(way: str) -> None:
    reply = Reply.calls(("get_weather", {"city": "Rome"}), ("rm", {}), text="So.", reasoning="Hm")
    async with served(reply, way=way) as (_, vllm):
        said = await vllm.responses.create(input="Hi", tools=[WEATHER])
    assert (said.text, said.reasoning, said.status) == ("So.", "Hm", "completed")
    calls = [(call.name, call.arguments, call.unexpected) for call in said.tool_calls]
    assert calls == [("get_weather", {"city": "Rome"}, False), ("rm", {}, True)]
    assert json.loads(said.raw)["id"] == said.id
    assert said.extra == {}


async def test_a_cut_output_says_why() -> None:
    async with served(Reply.text("a b", finish_reason="length")) as (_, vllm):
        said = await vllm.responses.create(input="Hi", max_output_tokens=2)
    assert said.status == "incomplete"
    assert said.incomplete_details is not None
    assert said.incomplete_details.reason == "max_output_tokens"


async def test_a_reply_that_is_no_json_has_its_requests_id() -> None:
    raw = Reply.raw(b"<html>", content_type="application/json")
    async with served(raw) as (_, vllm):
        with pytest.raises(ProtocolError) as caught:
            await vllm.responses.create(input="Hi", request_id="mine")
    assert caught.value.request_id == "mine"


# ── streams ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("S-02")
@pytest.mark.parametrize("way", WAYS)
async def test_the_events_come_in_order_and_finished_is_last(way: str) -> None:
    pieces = ['{"city": ', '"Rome"}']
    reply = Reply.calls(("get_weather", pieces), text=["S", "o."], reasoning=["H", "m"])
    async with served(reply, way=way) as (_, vllm):
        async with vllm.responses.stream(input="Hi", tools=[FLAT]) as stream:
            events = [event async for event in stream]
            assert [event async for event in stream] == []
        whole = await vllm.responses.create(input="Hi", tools=[FLAT])
    assert isinstance(events[0], ResponseCreatedEvent)
    assert isinstance(events[-2], ResponseCompletedEvent)
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.response is stream.response
    assert [e.sequence_number for e in events[:-1]] == list(range(len(events) - 1))  # type: ignore[union-attr]

    def deltas(kind: type) -> list[str]:
        return [event.delta for event in events if isinstance(event, kind)]  # type: ignore[union-attr]

    assert deltas(ResponseReasoningTextDeltaEvent) == ["H", "m"]
    assert deltas(ResponseTextDeltaEvent) == ["S", "o."]
    assert deltas(ResponseFunctionCallArgumentsDeltaEvent) == pieces
    said = stream.response
    assert (said.text, said.reasoning) == (whole.text, whole.reasoning) == ("So.", "Hm")
    assert [c.arguments for c in said.tool_calls] == [c.arguments for c in whole.tool_calls]
    assert [c.unexpected for c in said.tool_calls] == [False]
    assert said.usage == whole.usage
    assert last.timing.first_token_s is not None
    assert 0 < last.timing.first_token_s <= last.timing.total_s
    assert last.timing.chunks == len(events) - 1


@pytest.mark.feature("S-09")
async def test_the_short_ways_drain_the_stream() -> None:
    reply = Reply.calls(("f", {}), text=["Hel", "lo"])
    async with served(reply) as (server, vllm):
        stream = vllm.responses.stream(input="Hi")
        assert server.requests == []
        with pytest.raises(UsageError, match="has not ended"):
            _ = stream.response
        assert stream.partial.text == ""
        assert [text async for text in stream.text_deltas()] == ["Hel", "lo"]
        assert stream.response.text == "Hello"
        assert await vllm.responses.stream(input="Hi").text() == "Hello"
        assert (await vllm.responses.stream(input="Hi").final()).tool_calls[0].name == "f"


@pytest.mark.feature("S-09")
async def test_partial_is_what_has_come_so_far() -> None:
    async with served(Reply.text(chunks=["a", "b", "c"])) as (_, vllm):
        async with vllm.responses.stream(input="Hi") as stream:
            async for event in stream:
                if isinstance(event, ResponseTextDeltaEvent) and event.delta == "b":
                    break
            assert stream.partial.text.startswith("ab")
            assert stream.partial.request_id == stream.request_id


@pytest.mark.feature("S-06")
@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("name", ["plain", "text_and_two_calls", "incomplete", "empty"])
async def test_a_cut_anywhere_is_an_error_with_what_had_come_or_the_whole(
    name: str, lost: bool
) -> None:
    stream = recorded(name)
    whole = stream.rstrip(b"\n")
    texts = []
    for cut in (*range(0, len(whole), 61), len(whole) - 1, len(whole), len(stream)):
        transport = FixedTransport(stream[:cut], lost=lost)
        async with AsyncVLLM(transport=transport, model="m") as vllm:
            reply = vllm.responses.stream(input="Hi", request_id="mine")
            if cut >= len(whole):
                texts.append((await reply.final()).text)
                continue
            with pytest.raises(StreamTruncatedError) as caught:
                await reply.final()
            assert caught.value.request_id == "mine"
            texts.append(caught.value.partial.text)
            with pytest.raises(StreamTruncatedError):
                await anext(reply)
            assert transport.streams[0].closed
    assert texts == sorted(texts, key=len)
    assert all(texts[-1].startswith(text) for text in texts)


async def test_nothing_is_waited_for_after_the_event_that_completes_it() -> None:
    class Held(FixedStream):
        """A proxy that leaves the connection open."""

        async def receive(self) -> bytes:
            return await super().receive() or await asyncio.Future()

    class Proxy(FixedTransport):
        async def send(self, request: Request) -> ByteStream:
            self.streams.append(Held([recorded("plain") + b"event: late\ndata: {}\n\nda"]))
            return self.streams[-1]

    transport = Proxy()
    async with asyncio.timeout(10), AsyncVLLM(transport=transport, model="m") as vllm:
        events = [event async for event in vllm.responses.stream(input="Hi")]
    assert isinstance(events[-2], ResponseCompletedEvent)
    assert isinstance(events[-1], Finished)
    assert transport.streams[0].closed


@pytest.mark.feature("S-06")
async def test_a_failure_of_the_server_in_the_middle_loses_nothing_that_had_come() -> None:
    # vLLM drops the connection: no error frame, no terminal event.
    async with served(Reply.text(chunks=["a", "b", "c"], error_after=6), way="socket") as (_, vllm):
        with pytest.raises(StreamTruncatedError) as caught:
            await vllm.responses.stream(input="Hi").final()
    assert caught.value.partial.text == "ab"


@pytest.mark.feature("S-06")
async def test_an_error_event_is_a_typed_error() -> None:
    frame = b'event: error\ndata: {"type":"error","message":"boom","code":503}\n\n'
    stream = recorded("plain")
    cut = stream.index(b"event: response.output_text.done")
    async with served(Reply.raw(stream[:cut] + frame)) as (_, vllm):
        with pytest.raises(StreamFailedError, match="boom") as caught:
            await vllm.responses.stream(input="Hi").final()
    assert caught.value.status == 503
    assert caught.value.partial.text == "one one one one one one one one one"


async def test_an_error_status_is_raised_when_the_stream_is_opened() -> None:
    once = {"retry": None}
    async with served(Reply.error(422), client=once) as (_, vllm):
        with pytest.raises(Exception, match="media URL"):
            async with vllm.responses.stream(input="Hi"):
                pass


@pytest.mark.feature("S-06")
async def test_a_dropped_stream_closes_its_socket_and_warns_once() -> None:
    reply = Reply.text(chunks=["a"] * 50, delay=0.02)
    async with served(reply, way="socket") as (server, vllm):
        stream = vllm.responses.stream(input="Hi")
        await anext(stream)
        with pytest.warns(ResourceWarning, match="dropped"):  # noqa: PT031
            del stream
            gc.collect()
        await server.wait_for(lambda: server.disconnects == 1)
    assert server.disconnects == 1


async def test_a_cancelled_reader_frees_the_server() -> None:
    async with served(Reply.text("a b", delay=30), way="socket") as (server, vllm):
        task = asyncio.ensure_future(vllm.responses.stream(input="Hi").final())
        await server.wait_for(lambda: server.running == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.wait_for(lambda: server.disconnects == 1)
    assert server.disconnects == 1


# ── what the server keeps ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
async def test_without_a_store_the_error_names_what_turns_it_on(way: str) -> None:
    async with served(way=way) as (server, vllm):
        responses = vllm.responses
        for work in (
            responses.retrieve("resp_1"),
            responses.retrieve("resp_1", stream=True),
            responses.cancel("resp_1"),
            responses.create(input="Hi", previous_response_id="resp_1"),
            responses.create(input="Hi", background=True),
            responses.stream(input="Hi", background=True).final(),
            responses.stream(input="Hi", previous_response_id="resp_1").final(),
        ):
            with pytest.raises(UnsupportedByServerError, match=VARIABLE) as caught:
                await work
            assert caught.value.flags == (VARIABLE,)
            assert caught.value.status in (400, 404)
            assert caught.value.request_id
        # An ordinary one is answered all the same.
        assert (await responses.create(input="Hi", store=True)).text == "OK"
    assert server.running == 0


async def test_with_a_store_an_unknown_id_is_not_found() -> None:
    async with served(store=True) as (_, vllm):
        for work in (
            vllm.responses.retrieve("resp_1"),
            vllm.responses.cancel("resp_1"),
            vllm.responses.create(input="Hi", previous_response_id="resp_1"),
        ):
            with pytest.raises(NotFoundError, match="'resp_1' not found"):
                await work


@pytest.mark.parametrize("way", WAYS)
async def test_a_kept_response_is_retrieved_and_continued(way: str) -> None:
    async with served(Reply.text("one"), Reply.text("two"), way=way, store=True) as (_, vllm):
        first = await vllm.responses.create(input="Hi", request_id="a b?c#d%20")
        again = await vllm.responses.retrieve(first.id)
        assert again == first
        assert again.raw == first.raw
        second = await vllm.responses.create(input="More", previous_response_id=first.id)
        assert second.previous_response_id == first.id
        assert second.usage is not None
        assert first.usage is not None
        assert second.usage.input_tokens > first.usage.input_tokens
        with pytest.raises(BadRequestError, match="Cannot cancel a synchronous response"):
            await vllm.responses.cancel(second.id)
        unkept = await vllm.responses.create(input="Hi", store=False)
        with pytest.raises(NotFoundError):
            await vllm.responses.retrieve(unkept.id)


async def test_one_in_the_background_is_queued_then_done_or_cancelled() -> None:
    async with served(Reply.text("a", delay=60), Reply.text("b"), store=True) as (_, vllm):
        queued = await vllm.responses.create(input="Hi", background=True)
        assert (queued.status, queued.output) == ("queued", [])
        assert (await vllm.responses.retrieve(queued.id)).status == "queued"
        assert (await vllm.responses.cancel(queued.id)).status == "cancelled"
        assert (await vllm.responses.retrieve(queued.id)).status == "cancelled"
        done = await vllm.responses.create(input="Hi", background=True)
        assert (await vllm.responses.retrieve(done.id)).text == "b"


@pytest.mark.parametrize("way", WAYS)
async def test_a_background_stream_is_replayed_from_where_one_wants(way: str) -> None:
    async with served(Reply.text(chunks=["a", "b", "c"]), way=way, store=True) as (server, vllm):
        stream = vllm.responses.stream(input="Hi", background=True, tools=[FLAT])
        events = [event async for event in stream]
        replay = await vllm.responses.retrieve(stream.response.id, stream=True)
        assert [event async for event in replay][:-1] == events[:-1]
        later = await vllm.responses.retrieve(stream.response.id, stream=True, starting_after=5)
        assert isinstance(later, ResponseStream)
        rest = [event async for event in later]
        assert rest[:-1] == events[6:-1]
        assert later.response == stream.response
    assert server.requests[-1].query == "stream=true&starting_after=5"


@pytest.mark.feature("S-06")
async def test_a_replay_that_breaks_off_has_what_it_had() -> None:
    async with served(Reply.text("a"), way="socket", store=True) as (_, vllm):
        first = await vllm.responses.create(input="Hi")
        replay = await vllm.responses.retrieve(first.id, stream=True)
        with pytest.raises(StreamTruncatedError):
            await replay.final()


async def test_ids_and_keywords_that_make_no_sense_are_refused() -> None:
    async with served() as (server, vllm):
        with pytest.raises(UsageError, match="id is empty"):
            await vllm.responses.retrieve("")
        with pytest.raises(UsageError, match="id is empty"):
            await vllm.responses.cancel("")
        with pytest.raises(UsageError, match="goes with stream=True"):
            await vllm.responses.retrieve("r", starting_after=1)  # type: ignore[call-overload]
    assert server.requests == []


@pytest.mark.feature("C-05")
async def test_what_is_to_be_kept_is_not_sent_twice() -> None:
    async with served(Reply.error(503), Reply.text("b"), store=True) as (server, vllm):
        with pytest.raises(ServerOverloadedError):
            await vllm.responses.create(input="Hi", background=True)
        assert len(server.requests) == 1
        assert (await vllm.responses.create(input="Hi")).text == "b"
