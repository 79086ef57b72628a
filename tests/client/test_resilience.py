"""What a user sees of retries, the breaker and the limits."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from vllm_agent_sdk import (
    AsyncVLLM,
    BadRequestError,
    Breaker,
    CircuitOpenError,
    HTTPOptions,
    InternalServerError,
    RetryPolicy,
    ServerOverloadedError,
    StreamFailedError,
    TotalTimeoutError,
    TransportError,
    UsageError,
)
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.testing.reply import ReplyUsage

HI: Any = [{"role": "user", "content": "Hi"}]
FAST = RetryPolicy(base_s=0.001, cap_s=0.002)
ONCE = RetryPolicy(max_attempts=1)


def client(server: Simulator, **options: Any) -> AsyncVLLM:
    options.setdefault("retry", FAST)
    return AsyncVLLM(server.base_url, model="sim-model", **options)


@pytest.mark.feature("C-05")
async def test_an_overloaded_server_is_asked_again_and_the_reply_comes() -> None:
    replies = (Reply.error(503), Reply.error(502), Reply.text("ok"))
    async with Simulator(*replies) as server, client(server) as vllm:
        assert (await vllm.chat.completions.create(messages=HI)).text == "ok"
        assert len(server.chats) == 3
        assert len({chat.body for chat in server.chats}) == 1


@pytest.mark.feature("C-05")
async def test_a_stream_is_opened_again_before_its_first_event() -> None:
    async with Simulator(Reply.error(503), Reply.text("ok")) as server, client(server) as vllm:
        async with vllm.chat.completions.stream(messages=HI) as stream:
            assert await stream.text() == "ok"
        assert len(server.chats) == 2


@pytest.mark.feature("C-05")
async def test_a_stream_is_never_repeated_after_its_first_event() -> None:
    cut = Reply.text("one two three", error_after=2)
    async with Simulator(cut, Reply.text("other")) as server, client(server) as vllm:
        stream = vllm.chat.completions.stream(messages=HI)
        with pytest.raises(StreamFailedError) as caught:
            await stream.final()
        assert caught.value.partial.text == "one"
        assert len(server.chats) == 1


@pytest.mark.feature("C-05")
async def test_an_error_frame_before_the_first_event_is_retried_as_its_status() -> None:
    busy = Reply.text("x", error_after=0, error={"message": "busy", "code": 503})
    async with Simulator(busy, Reply.text("ok")) as server, client(server) as vllm:
        async with vllm.chat.completions.stream(messages=HI) as stream:
            assert await stream.text() == "ok"
        chunks = await vllm.chat.completions.create(messages=HI, stream=True)
        assert [chunk async for chunk in chunks]
        assert len(server.chats) == 3


@pytest.mark.feature("C-05")
async def test_an_error_frame_that_stays_ends_the_stream_with_its_attempts() -> None:
    busy = Reply.text("x", error_after=0, error={"message": "busy", "code": 503})
    async with Simulator(busy) as server, client(server) as vllm:
        stream = vllm.chat.completions.stream(messages=HI)
        with pytest.raises(StreamFailedError, match="busy") as caught:
            await stream.final()
        assert (caught.value.attempts, caught.value.status, caught.value.partial.text) == (
            3,
            503,
            "",
        )
        assert caught.value.request_id == stream.request_id
        assert len(server.chats) == 3


@pytest.mark.feature("C-05")
async def test_closing_a_stream_while_it_is_tried_again_ends_it() -> None:
    busy = Reply.text("x", error_after=0, error={"message": "busy", "code": 503})
    policy = RetryPolicy(base_s=60, cap_s=60)
    async with Simulator(busy) as server, client(server, retry=policy) as vllm:
        stream = vllm.chat.completions.stream(messages=HI)
        reading = asyncio.create_task(stream.final())
        await server.wait_for(lambda: len(server.chats) == 1 and not server.running)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert len(server.chats) == 1


@pytest.mark.feature("C-05")
async def test_retry_after_may_be_a_date() -> None:
    gone_by = Reply.error(503, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})
    policy = RetryPolicy(base_s=0.001, cap_s=0.002)
    async with Simulator(gone_by, Reply.text("ok")) as server, client(server, retry=policy) as vllm:
        assert (await vllm.chat.completions.create(messages=HI)).text == "ok"
        async with Simulator(gone_by) as other, client(other, retry=ONCE) as once:
            with pytest.raises(ServerOverloadedError) as caught:
                await once.chat.completions.create(messages=HI)
            assert caught.value.retry_after == 0.0


@pytest.mark.feature("C-06")
async def test_a_stale_connection_opens_no_breaker_and_costs_no_budget() -> None:
    http = HTTPOptions(breaker=Breaker(failures=1))
    policy = RetryPolicy(max_attempts=2, base_s=60, cap_s=60)
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        body = b'{"object": "list", "data": []}'
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        writer.write(head + body)
        await reader.readuntil(b"\r\n\r\n")  # the next request finds a closed connection
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, AsyncVLLM(url, retry=policy, http=http) as vllm:
        for _ in range(30):  # more than the budget's floor
            await asyncio.wait_for(vllm.models.list(), 10)
    assert asked == 30


@pytest.mark.feature("C-05")
async def test_the_last_failure_says_how_often_it_was_tried() -> None:
    async with Simulator(Reply.error(503)) as server, client(server) as vllm:
        with pytest.raises(ServerOverloadedError) as caught:
            await vllm.chat.completions.create(messages=HI)
        assert caught.value.attempts == 3
        assert len(server.chats) == 3


@pytest.mark.feature("C-05")
async def test_a_500_is_tried_twice_and_a_400_once() -> None:
    async with Simulator(Reply.error(500)) as server, client(server) as vllm:
        with pytest.raises(InternalServerError) as caught:
            await vllm.chat.completions.create(messages=HI)
        assert caught.value.attempts == len(server.chats) == 2
    async with Simulator(Reply.error(400)) as server, client(server) as vllm:
        with pytest.raises(BadRequestError) as refused:
            await vllm.chat.completions.create(messages=HI)
        assert refused.value.attempts == len(server.chats) == 1


@pytest.mark.feature("C-05")
async def test_a_connection_lost_before_the_reply_is_tried_again_and_one_lost_in_it_not() -> None:
    before = Reply.text("x", cut_after=-1)
    async with Simulator(before, Reply.text("ok")) as server, client(server) as vllm:
        assert (await vllm.chat.completions.create(messages=HI)).text == "ok"
    inside = Reply.text("x", cut_after=20)
    async with Simulator(inside, Reply.text("ok")) as server, client(server) as vllm:
        with pytest.raises(TransportError):
            await vllm.chat.completions.create(messages=HI)
        assert len(server.chats) == 1


@pytest.mark.feature("C-05")
async def test_retry_after_is_waited_for() -> None:
    late = Reply.error(503, headers={"retry-after": "0.2"})
    async with Simulator(late, Reply.text("ok")) as server, client(server) as vllm:
        begun = asyncio.get_running_loop().time()
        await vllm.chat.completions.create(messages=HI)
        assert asyncio.get_running_loop().time() - begun >= 0.2


@pytest.mark.feature("C-05", "C-04")
async def test_the_total_time_covers_the_waits_between_attempts() -> None:
    late = Reply.error(503, headers={"retry-after": "50"})
    async with Simulator(late) as server, client(server) as vllm:
        with pytest.raises(TotalTimeoutError):
            await vllm.chat.completions.create(messages=HI, timeout=0.1)


@pytest.mark.feature("C-05")
async def test_concurrent_calls_share_one_budget_of_retries() -> None:
    async with Simulator(Reply.error(503)) as server:
        http = HTTPOptions(breaker=None)
        async with client(server, http=http) as vllm:
            calls = [vllm.chat.completions.create(messages=HI) for _ in range(40)]
            ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, ServerOverloadedError) for each in ended)
        assert len(server.chats) == 40 + 10


@pytest.mark.feature("C-06")
async def test_a_server_that_keeps_failing_is_left_alone_and_then_probed() -> None:
    http = HTTPOptions(breaker=Breaker(failures=3, reset_s=0.1))
    replies = (*[Reply.error(503)] * 3, Reply.text("ok"))
    async with Simulator(*replies) as server, client(server, http=http) as vllm:
        with pytest.raises(ServerOverloadedError):
            await vllm.chat.completions.create(messages=HI)
        with pytest.raises(CircuitOpenError, match="The last time: ") as caught:
            await vllm.chat.completions.create(messages=HI)
        assert 0 < caught.value.retry_after <= 0.1
        assert isinstance(caught.value.__cause__, ServerOverloadedError)
        assert len(server.chats) == 3
        await asyncio.sleep(caught.value.retry_after)
        assert (await vllm.chat.completions.create(messages=HI)).text == "ok"


@pytest.mark.feature("C-06")
async def test_asking_for_health_is_not_refused_by_the_breaker_nor_repeated() -> None:
    http = HTTPOptions(breaker=Breaker(failures=1, reset_s=60))
    async with Simulator(Reply.error(503)) as server, client(server, http=http) as vllm:
        with pytest.raises(ServerOverloadedError):
            await vllm.chat.completions.create(messages=HI)
        assert await vllm.server.health() is True
        server.healthy = False
        assert await vllm.server.health() is False
        assert sum(request.path == "/health" for request in server.requests) == 2


@pytest.mark.feature("C-06", "C-13")
async def test_no_more_calls_are_under_way_than_allowed_streams_included() -> None:
    http = HTTPOptions(max_concurrency=2)
    slow = Reply.text("a b c", delay=0.01)
    async with Simulator(slow) as server, client(server, http=http) as vllm:
        most = 0

        async def one(number: int) -> None:
            nonlocal most
            if number % 2:
                await vllm.chat.completions.create(messages=HI)
            else:
                async with vllm.chat.completions.stream(messages=HI) as stream:
                    async for _ in stream:
                        most = max(most, server.running)

        await asyncio.gather(*(one(number) for number in range(8)))
        assert most == 2
        assert len(server.chats) == 8


@pytest.mark.feature("C-06")
async def test_a_stream_that_is_closed_early_gives_its_slot_back() -> None:
    http = HTTPOptions(max_concurrency=1)
    async with Simulator(Reply.text("a b", delay=10), Reply.text("ok")) as server:
        async with client(server, http=http) as vllm:
            async with vllm.chat.completions.stream(messages=HI) as stream:
                del stream
            reply = await asyncio.wait_for(vllm.chat.completions.create(messages=HI), 5)
            assert reply.text == "ok"


@pytest.mark.feature("C-06", "C-04")
async def test_waiting_for_a_slot_counts_for_the_total_time() -> None:
    http = HTTPOptions(max_concurrency=1)
    async with Simulator(Reply.text("a", first_delay=10)) as server:
        async with client(server, http=http) as vllm:
            async with vllm.chat.completions.stream(messages=HI):
                with pytest.raises(TotalTimeoutError):
                    await vllm.chat.completions.create(messages=HI, timeout=0.05)
            assert len(server.chats) == 1


@pytest.mark.feature("C-06", "C-13")
async def test_requests_go_out_no_faster_than_the_rate() -> None:
    http = HTTPOptions(requests_per_s=50)
    async with Simulator() as server, client(server, http=http) as vllm:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.gather(*(vllm.chat.completions.create(messages=HI) for _ in range(6)))
        assert loop.time() - begun >= 5 / 50


@pytest.mark.feature("C-06", "C-13")
async def test_tokens_a_minute_hold_a_call_back_and_what_was_not_used_is_given_back() -> None:
    http = HTTPOptions(tokens_per_min=600)
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    async with Simulator(Reply.text("ok", usage=usage)) as server:
        async with client(server, http=http) as vllm:
            for _ in range(3):  # each books 590 and gives nearly all of it back
                await asyncio.wait_for(vllm.chat.completions.create(messages=HI, max_tokens=590), 5)
            with pytest.raises(TotalTimeoutError):
                await asyncio.gather(
                    *(
                        vllm.chat.completions.create(messages=HI, max_tokens=900, timeout=0.1)
                        for _ in range(3)
                    )
                )


@pytest.mark.feature("C-06")
@pytest.mark.parametrize("kind", ["chat", "chunks", "completion", "completions", "responses"])
async def test_streams_and_all_endpoints_give_back_the_tokens_they_did_not_use(kind: str) -> None:
    # A minute's worth is 60 tokens: the second call would wait for the first one's 1000.
    http = HTTPOptions(tokens_per_min=60)
    reply = Reply.text("a", usage=ReplyUsage(prompt_tokens=1, completion_tokens=1))
    async with Simulator(reply) as server, client(server, http=http) as vllm:

        async def ask() -> None:
            if kind == "chat":
                await vllm.chat.completions.stream(messages=HI, max_tokens=1000).final()
            elif kind == "chunks":
                chunks = await vllm.chat.completions.create(
                    messages=HI,
                    max_tokens=1000,
                    stream=True,
                    stream_options={"include_usage": True},
                )
                assert [chunk async for chunk in chunks]
            elif kind == "completion":
                await vllm.completions.stream(prompt="x", max_tokens=1000).final()
            elif kind == "completions":
                await vllm.completions.create(prompt="x", max_tokens=1000)
            else:
                await vllm.responses.create(input="x", max_output_tokens=1000)

        async with asyncio.timeout(10):
            await ask()
            await ask()
            await ask()
        assert len(server.requests) == 3


@pytest.mark.feature("C-13")
async def test_a_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    async with Simulator() as server:
        async with client(server, http=HTTPOptions(max_request_bytes=200)) as vllm:
            long: Any = [{"role": "user", "content": "x" * 300}]
            with pytest.raises(UsageError, match=r"max_request_bytes=200"):
                await vllm.chat.completions.create(messages=long)
            await vllm.chat.completions.create(messages=HI)
        assert len(server.chats) == 1
        assert json.loads(server.chats[0].body)["messages"] == HI
