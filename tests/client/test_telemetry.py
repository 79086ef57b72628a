"""What a client tells its recorder."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vllm_agent_sdk import (
    AsyncVLLM,
    Breaker,
    HTTPOptions,
    RetryPolicy,
    StreamFailedError,
    VLLMError,
)
from vllm_agent_sdk.telemetry import recorder as facts
from vllm_agent_sdk.testing import Reply

from .support import HI, served

FAST = RetryPolicy(base_s=0.001, cap_s=0.002)


class Facts:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def record(self, fact: facts.ServerFact) -> None:
        self.all.append(fact)

    def count(self, tag: str) -> int:
        return sum(type(each).__struct_config__.tag == tag for each in self.all)

    def kinds(self) -> list[str]:
        return [type(each).__name__ for each in self.all]


async def ask(vllm: AsyncVLLM) -> None:
    await vllm.chat.completions.create(messages=HI)


@pytest.mark.feature("C-05")
async def test_attempts_and_their_reasons_are_told() -> None:
    told = Facts()
    replies = (Reply.error(503, headers={"retry-after": "0.01"}), Reply.text("ok"))
    async with served(*replies, client={"telemetry": told, "retry": FAST}) as (server, vllm):
        reply = await vllm.chat.completions.create(messages=HI)
        begun, again, done = told.all
        url = server.base_url
    assert begun == facts.RequestStarted(
        request_id=reply.request_id,
        method="POST",
        url=f"{url}/chat/completions",
        stream=False,
    )
    assert again == facts.RequestRetried(
        request_id=reply.request_id,
        server=url,
        attempt=1,
        reason="ServerOverloadedError",
        status=503,
        delay_s=0.01,
        elsewhere=False,
    )
    assert (done.attempts, done.error, done.server) == (2, None, url)
    assert done.duration_s >= 0.01


@pytest.mark.feature("C-05")
async def test_a_failure_and_a_cancelled_call_are_told() -> None:
    told = Facts()
    replies = (Reply.error(400), Reply.text("slow", first_delay=60))
    async with served(*replies, client={"telemetry": told}) as (server, vllm):
        with pytest.raises(VLLMError):
            await ask(vllm)
        call = asyncio.create_task(ask(vllm))
        await server.wait_for(lambda: len(server.chats) == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    ends = [each for each in told.all if isinstance(each, facts.RequestFinished)]
    assert [(end.error, end.status) for end in ends] == [
        ("BadRequestError", 400),
        ("CancelledError", None),
    ]


@pytest.mark.feature("C-05")
async def test_a_streams_end_is_told_once_with_its_times() -> None:
    told = Facts()
    replies = (Reply.text("a b c"), Reply.text("a b", error_after=2), Reply.text("a b c"))
    async with served(*replies, client={"telemetry": told}) as (_, vllm):
        stream = vllm.chat.completions.stream(messages=HI)
        reply = await stream.final()
        with pytest.raises(StreamFailedError):
            await vllm.chat.completions.stream(messages=HI).final()
        async with vllm.chat.completions.stream(messages=HI) as stream:
            await anext(stream)
    ends = [each for each in told.all if isinstance(each, facts.StreamFinished)]
    assert [(end.outcome, end.error) for end in ends] == [
        ("complete", None),
        ("failed", "StreamFailedError"),
        ("closed", None),
    ]
    assert reply.usage is not None
    assert ends[0].tokens == reply.usage.total_tokens
    assert ends[0].first_event_s is not None
    assert 0 < ends[0].first_event_s <= ends[0].duration_s


@pytest.mark.feature("C-06")
async def test_breaker_and_limits_are_told() -> None:
    told = Facts()
    http = HTTPOptions(breaker=Breaker(failures=1, reset_s=0.001), requests_per_s=5)
    replies = (Reply.error(503), Reply.text("ok"))
    async with served(*replies, client={"telemetry": told, "http": http}) as (_, vllm):
        with pytest.raises(VLLMError):
            await ask(vllm)
        await ask(vllm)
    assert told.count("breaker_opened") == told.count("breaker_closed") == 1
    waited = next(each for each in told.all if isinstance(each, facts.LimiterWaited))
    assert (waited.limit, 0 < waited.waited_s <= 0.2) == ("rate", True)


@pytest.mark.feature("C-06")
async def test_waiting_for_a_slot_is_told() -> None:
    told = Facts()
    client = {"telemetry": told, "http": HTTPOptions(max_concurrency=1)}
    async with served(Reply.text("a", first_delay=0.02), client=client) as (_, vllm):
        await asyncio.gather(ask(vllm), ask(vllm))
    waits = [each for each in told.all if isinstance(each, facts.LimiterWaited)]
    assert [each.limit for each in waits] == ["concurrency"]
    assert waits[0].waited_s >= 0.01


@pytest.mark.feature("C-11")
async def test_no_fact_holds_the_key() -> None:
    told = Facts()
    key = "sk-hunter2-0123456789"
    replies = (Reply.error(503, message=f"bad key {key}"), Reply.text("ok"))
    client = {"telemetry": told, "retry": FAST, "api_key": key}
    async with served(*replies, client=client) as (_, vllm):
        await ask(vllm)
    assert key not in repr(told.all)


@pytest.mark.feature("C-05")
async def test_a_recorder_that_fails_is_logged_once_and_fails_no_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def record(self, _fact: facts.ServerFact) -> None:
            raise RuntimeError("no room")

    async with served(client={"telemetry": Broken()}) as (_, vllm):
        await ask(vllm)
        assert (await vllm.chat.completions.stream(messages=HI).text()) == "OK"
    assert [record.name for record in caplog.records] == ["vllm_agent_sdk.telemetry"]
