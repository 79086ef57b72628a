"""Streams of a chat on the simulator: events, short ways, chunks, what stays usable when."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import (
    AsyncVLLM,
    ChoiceFinished,
    Finished,
    HTTPOptions,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallReady,
    UsageUpdated,
)
from vllm_agent_sdk.errors import ConnectError, ServerOverloadedError, StreamFailedError, UsageError
from vllm_agent_sdk.testing import Reply

from .support import HI, WAYS, WEATHER, served


@pytest.mark.feature("S-02")
@pytest.mark.parametrize("way", WAYS)
async def test_the_events_of_a_text_come_in_order_and_finished_is_last(way: str) -> None:
    reply = Reply.text(chunks=["Hel", "lo"], usage={"prompt_tokens": 3, "completion_tokens": 5})
    async with served(reply, way=way) as (_, vllm):
        async with vllm.chat.completions.stream(messages=HI) as stream:
            events = [event async for event in stream]
            assert stream.completion.text == "Hello"
    kinds = [type(event) for event in events]
    assert kinds == [TextDelta, TextDelta, ChoiceFinished, UsageUpdated, Finished]
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.completion is stream.completion
    assert last.completion.usage is not None
    assert last.completion.usage.completion_tokens == 5
    timing = last.timing
    assert timing.first_token_s is not None
    assert 0 < timing.first_token_s <= timing.total_s
    assert timing.chunks >= 4
    assert timing.tokens_per_s is None or timing.tokens_per_s > 0


@pytest.mark.feature("S-02", "S-05")
@pytest.mark.parametrize("way", WAYS)
async def test_calls_and_reasoning_have_their_events(way: str) -> None:
    reply = Reply.calls(
        ("get_weather", ['{"city": ', '"Rome"}']), ("rm", {}), text="So.", reasoning="Hm, hm"
    )
    async with served(reply, way=way) as (_, vllm):
        async with vllm.chat.completions.stream(messages=HI, tools=[WEATHER]) as stream:
            events = [event async for event in stream]
        whole = await vllm.chat.completions.create(messages=HI, tools=[WEATHER])
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    ready = [event.call for event in events if isinstance(event, ToolCallReady)]
    assert thought == "Hm, hm" == whole.reasoning
    assert [(call.name, call.arguments) for call in ready] == [
        ("get_weather", {"city": "Rome"}),
        ("rm", {}),
    ]
    assert [call.unexpected for call in ready] == [False, True]
    assert ready == stream.completion.tool_calls
    pieces = [e.arguments for e in events if isinstance(e, ToolCallDelta) and e.index == 0]
    assert "".join(pieces) == '{"city": "Rome"}'
    assert [(c.name, c.arguments, c.unexpected) for c in whole.tool_calls] == [
        (c.name, c.arguments, c.unexpected) for c in ready
    ]
    assert whole.text == stream.completion.text == "So."


@pytest.mark.feature("S-02")
async def test_every_choice_has_its_own_events() -> None:
    async with served(Reply.text("a b")) as (_, vllm):
        async with vllm.chat.completions.stream(messages=HI, n=3) as stream:
            events = [event async for event in stream]
    for choice in range(3):
        own = [e for e in events if getattr(e, "choice", None) == choice]
        assert "".join(e.text for e in own if isinstance(e, TextDelta)) == "a b"
        assert [type(e) for e in own].count(ChoiceFinished) == 1
        assert isinstance(own[-1], ChoiceFinished)
    assert [type(event) for event in events].count(Finished) == 1
    assert [c.message.content for c in stream.completion.choices] == ["a b"] * 3


@pytest.mark.feature("S-02")
async def test_the_matched_stop_is_reported() -> None:
    async with served(Reply.text("a", stop_reason="###")) as (_, vllm):
        async with vllm.chat.completions.stream(messages=HI) as stream:
            finished = [event async for event in stream if isinstance(event, ChoiceFinished)]
    assert finished == [ChoiceFinished("stop", "###")]


@pytest.mark.feature("S-07")
async def test_continuous_usage_is_updated_as_it_comes() -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    async with served(Reply.text("a b c")) as (_, vllm):
        async with vllm.chat.completions.stream(messages=HI, stream_options=options) as stream:
            seen = [e.usage.completion_tokens async for e in stream if isinstance(e, UsageUpdated)]
    assert seen == sorted(seen, key=lambda count: count or 0)
    assert len(seen) > 3


@pytest.mark.feature("S-07")
async def test_without_usage_there_is_none_and_no_rate() -> None:
    async with served(Reply.text("a b c")) as (_, vllm):
        options: Any = {"include_usage": False}
        async with vllm.chat.completions.stream(messages=HI, stream_options=options) as stream:
            events = [event async for event in stream]
    assert not [event for event in events if isinstance(event, UsageUpdated)]
    assert isinstance(events[-1], Finished)
    assert (events[-1].completion.usage, events[-1].timing.tokens_per_s) == (None, None)


# ── the short ways ───────────────────────────────────────────────────────────────────────────────

pieces = Reply.text(chunks=["2", "2", " ", " ", "\n"])


@pytest.mark.feature("S-09", "S-03")
@pytest.mark.parametrize("way", WAYS)
async def test_text_deltas_text_and_final_drain_the_stream(way: str) -> None:
    async with served(pieces, way=way) as (server, vllm):
        create = vllm.chat.completions.stream
        stream = create(messages=HI)
        assert [piece async for piece in stream.text_deltas()] == ["2", "2", " ", " ", "\n"]
        assert stream.completion.text == "22  \n"
        assert await create(messages=HI).text() == "22  \n"
        final = await create(messages=HI).final()
        assert (final.text, final.finish_reason) == ("22  \n", "stop")
        assert server.running == 0
        assert len(server.requests) == 3


@pytest.mark.feature("S-09")
async def test_text_deltas_are_the_first_choices() -> None:
    async with served(Reply.text("a b")) as (_, vllm):
        stream = vllm.chat.completions.stream(messages=HI, n=2)
        assert "".join([piece async for piece in stream.text_deltas()]) == "a b"


@pytest.mark.feature("S-09")
async def test_the_short_ways_work_on_a_stream_that_was_begun() -> None:
    async with served(Reply.text("a b c")) as (_, vllm):
        async with vllm.chat.completions.stream(messages=HI) as stream:
            assert await anext(stream) == TextDelta("a")
            assert [piece async for piece in stream.text_deltas()] == [" b", " c"]
            assert await stream.text() == "a b c"
            assert (await stream.final()) is stream.completion


@pytest.mark.feature("S-09")
@pytest.mark.parametrize("way", ["text_deltas", "text", "final"])
async def test_the_short_ways_raise_as_the_stream_would(way: str) -> None:
    async def drain(stream: Any) -> None:
        if way == "text_deltas":
            async for _ in stream.text_deltas():
                continue
        else:
            await getattr(stream, way)()

    replies = [Reply.text("a b c", error_after=2), Reply.error(503)]
    async with served(*replies) as (server, vllm):
        stream = vllm.chat.completions.stream(messages=HI)
        with pytest.raises(StreamFailedError) as caught:
            await drain(stream)
        assert caught.value.partial.text == stream.partial.text == "a"
        with pytest.raises(ServerOverloadedError):
            await drain(vllm.chat.completions.stream(messages=HI))
        assert server.running == 0


@pytest.mark.feature("S-09")
async def test_a_server_that_is_not_there_is_a_connect_error_on_every_way() -> None:
    async with served() as (server, _):
        url = server.base_url
    async with AsyncVLLM(url, model="m", http=HTTPOptions(breaker=None)) as vllm:
        stream = vllm.chat.completions.stream
        with pytest.raises(ConnectError, match="vllm-agent serve"):
            await stream(messages=HI).text()
        with pytest.raises(ConnectError):
            await anext(stream(messages=HI))
        with pytest.raises(ConnectError):
            await stream(messages=HI).__aenter__()
        with pytest.raises(ConnectError):
            await vllm.chat.completions.create(messages=HI, stream=True)


@pytest.mark.feature("S-09")
async def test_partial_is_what_had_come_at_any_time() -> None:
    async with served(Reply.text("a b", delay=0.01)) as (_, vllm):
        stream = vllm.chat.completions.stream(messages=HI)
        assert (stream.partial.text, stream.partial.choices) == ("", [])
        seen = [stream.partial.text async for _ in stream]
        assert seen[0] == "a"
        assert seen[-1] == stream.partial.text == "a b"
        assert stream.partial is stream.completion
        assert stream.partial.request_id == stream.request_id


async def test_the_completion_is_there_after_the_end_only() -> None:
    async with served(Reply.text("a b", delay=0.01)) as (_, vllm):
        async with vllm.chat.completions.stream(messages=HI) as stream:
            await anext(stream)
            with pytest.raises(UsageError, match="`partial` is what has come so far"):
                _ = stream.completion


async def test_nothing_is_sent_before_a_stream_is_entered_or_read() -> None:
    async with served() as (server, vllm):
        stream = vllm.chat.completions.stream(messages=HI)
        await stream.aclose()
        assert server.requests == []
        with pytest.raises(UsageError, match="closed"):
            await stream.__aenter__()


async def test_a_stream_has_ended_when_it_has_ended() -> None:
    async with served(Reply.text("a")) as (_, vllm):
        async with vllm.chat.completions.stream(messages=HI) as stream:
            assert [event async for event in stream]
            assert [event async for event in stream] == []
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        await stream.aclose()


# ── the wire's chunks ────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("S-02")
@pytest.mark.parametrize("way", WAYS)
async def test_chunks_are_the_wires_with_their_bytes(way: str) -> None:
    async with served(Reply.text("a b"), way=way) as (server, vllm):
        chunks = await vllm.chat.completions.create(
            messages=HI, stream=True, stream_options={"include_usage": True}
        )
        assert len(server.requests) == 1
        async with chunks:
            seen = [chunk async for chunk in chunks]
    contents = [c.choices[0].delta.content for c in seen if c.choices and c.choices[0].delta]
    assert "".join(text or "" for text in contents) == "a b"
    assert all(chunk.raw.startswith(b'{"id":"chatcmpl-') for chunk in seen)
    assert all(chunk.object == "chat.completion.chunk" for chunk in seen)
    assert seen[-1].choices == []
    assert seen[-1].usage is not None
    assert chunks.partial.text == "a b"


async def test_an_error_before_the_first_chunk_is_raised_by_create() -> None:
    async with served(Reply.error(400, message="bad")) as (server, vllm):
        with pytest.raises(Exception, match="bad") as caught:
            await vllm.chat.completions.create(messages=HI, stream=True)
        assert caught.value.request_id == server.chats[0].headers["x-request-id"]  # type: ignore[attr-defined]


@pytest.mark.feature("S-02")
@pytest.mark.parametrize(
    "reply",
    [
        Reply.text("Hello there"),
        Reply.text("cut", finish_reason="length"),
        Reply.reasoning("Hm", "so"),
        Reply.calls(("get_weather", {"city": "Rome"}), ("get_weather", {}), text="Both."),
        Reply.text(""),
    ],
)
async def test_the_accumulated_reply_equals_the_whole_one(reply: Reply) -> None:
    async with served(reply) as (_, vllm):
        streamed = await vllm.chat.completions.stream(messages=HI, tools=[WEATHER]).final()
        whole = await vllm.chat.completions.create(messages=HI, tools=[WEATHER])
    for said in (streamed, whole):
        assert said.raw or said is streamed
    assert streamed.text == whole.text
    assert (streamed.reasoning, streamed.finish_reason) == (whole.reasoning, whole.finish_reason)
    assert [(c.name, c.arguments) for c in streamed.tool_calls] == [
        (c.name, c.arguments) for c in whole.tool_calls
    ]
    assert streamed.usage == whole.usage
