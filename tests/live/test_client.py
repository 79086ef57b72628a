"""The client on real servers."""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from vllm_agent_sdk import (
    AsyncVLLM,
    AuthenticationError,
    BadRequestError,
    ChoiceFinished,
    Finished,
    ModelNotFoundError,
    TextDelta,
    ToolCallReady,
    UnsupportedByServerError,
    UsageUpdated,
)

from .servers import LiveServer

pytestmark = pytest.mark.live

HI = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]
COUNT = {"structured_outputs": {"regex": r"(one|two|three)( (one|two|three)){4,8}"}}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


@pytest.fixture
async def vllm(server: LiveServer) -> AsyncIterator[AsyncVLLM]:
    async with AsyncVLLM(server.base_url, api_key=server.api_key) as client:
        yield client


async def running(vllm: AsyncVLLM) -> float:
    """The server's gauge of running and waiting requests."""
    text = (await vllm._calls.get("/metrics", root=True)).decode()
    found = re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.MULTILINE)
    assert found
    return sum(map(float, found))


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


async def is_busy(vllm: AsyncVLLM) -> bool:
    return await running(vllm) > 0


async def is_idle(vllm: AsyncVLLM) -> bool:
    return await running(vllm) == 0


@pytest.mark.server("A")
@pytest.mark.feature("S-02", "S-07")
async def test_a_stream_ends_in_one_finished_and_equals_the_whole_reply(vllm: AsyncVLLM) -> None:
    params = {"temperature": 0, "max_tokens": 40, **COUNT}
    whole = await vllm.chat.completions.create(messages=HI, **params)  # type: ignore[arg-type]
    async with vllm.chat.completions.stream(messages=HI, **params) as stream:  # type: ignore[arg-type]
        events = [event async for event in stream]
    assert [type(event) for event in events[-3:]] == [ChoiceFinished, UsageUpdated, Finished]
    assert sum(isinstance(event, Finished) for event in events) == 1
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == stream.completion.text == whole.text
    assert stream.completion.finish_reason == whole.finish_reason
    assert stream.completion.usage is not None
    assert whole.usage is not None
    assert stream.completion.usage.prompt_tokens == whole.usage.prompt_tokens
    timing = events[-1].timing
    assert 0 < timing.first_token_s < timing.total_s
    assert timing.tokens_per_s > 0


@pytest.mark.server("A")
@pytest.mark.feature("S-02")
async def test_a_streamed_call_equals_the_whole_one(vllm: AsyncVLLM) -> None:
    params = {"tools": [TOOL], "tool_choice": "required", "temperature": 0, "max_tokens": 96}
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]
    whole = await vllm.chat.completions.create(messages=ask, **params)  # type: ignore[arg-type]
    async with vllm.chat.completions.stream(messages=ask, **params) as stream:  # type: ignore[arg-type]
        ready = [event.call async for event in stream if isinstance(event, ToolCallReady)]
    assert whole.tool_calls[0].name == "get_weather"
    assert set(whole.tool_calls[0].arguments or {}) == {"city"}
    assert [call.arguments for call in ready] == [call.arguments for call in whole.tool_calls]
    assert [call.name for call in stream.completion.tool_calls] == ["get_weather"]


@pytest.mark.server("A")
@pytest.mark.feature("S-07")
async def test_usage_is_asked_for_unless_told_otherwise(vllm: AsyncVLLM) -> None:
    ask = {"messages": HI, "max_tokens": 2}
    assert (await vllm.chat.completions.stream(**ask).final()).usage is not None  # type: ignore[arg-type]
    off = vllm.chat.completions.stream(**ask, stream_options={"include_usage": False})  # type: ignore[arg-type]
    assert (await off.final()).usage is None


@pytest.mark.server("A")
async def test_two_choices_come_interleaved_and_each_ends(vllm: AsyncVLLM) -> None:
    stream = vllm.chat.completions.stream(messages=HI, n=2, temperature=1.0, max_tokens=5, seed=1)
    async with stream:
        ends = [event.choice async for event in stream if isinstance(event, ChoiceFinished)]
    assert sorted(ends) == [0, 1]
    assert len(stream.completion.choices) == 2


@pytest.mark.server("A")
async def test_models_tokens_health_and_version_are_told(
    vllm: AsyncVLLM, server: LiveServer
) -> None:
    cards = await vllm.models.list()
    assert server.model in [card.id for card in cards.data]
    assert (await vllm.models.retrieve(server.model)).max_model_len == 4096
    with pytest.raises(ModelNotFoundError, match=r"does not serve 'nope'; it serves"):
        await vllm.models.retrieve("nope")
    tokens = await vllm.tokenize("Hello world")
    assert (await vllm.detokenize(tokens.tokens)).prompt == "Hello world"
    assert tokens.count == len(tokens.tokens)
    conversation = await vllm.tokenize(messages=HI)
    assert conversation.max_model_len == 4096
    assert await vllm.server.health() is True
    assert re.match(r"\d+\.\d+", await vllm.server.version())
    await vllm.server.wait_until_ready(timeout=5)


@pytest.mark.server("A")
@pytest.mark.feature("C-02")
async def test_the_request_id_reaches_the_server(vllm: AsyncVLLM) -> None:
    reply = await vllm.chat.completions.create(messages=HI, max_tokens=1, request_id="mine-1")
    assert reply.request_id == "mine-1"
    assert reply.id == "chatcmpl-mine-1"


@pytest.mark.server("A")
async def test_an_unknown_model_is_named_by_the_server(vllm: AsyncVLLM) -> None:
    with pytest.raises(ModelNotFoundError, match="nope") as caught:
        await vllm.chat.completions.create(messages=HI, model="nope")
    assert caught.value.status == 404
    assert caught.value.request_id


@pytest.mark.server("A")
@pytest.mark.feature("C-09")
async def test_cancelling_breaking_closing_and_dropping_free_the_server(vllm: AsyncVLLM) -> None:
    long = {"messages": HI, "max_tokens": 2000, "ignore_eos": True}

    task = asyncio.ensure_future(vllm.chat.completions.create(**long))  # type: ignore[arg-type]
    assert await until(lambda: is_busy(vllm))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until(lambda: is_idle(vllm)), "cancelling a whole reply"

    async with vllm.chat.completions.stream(**long) as stream:  # type: ignore[arg-type]
        async for event in stream:
            if isinstance(event, TextDelta):
                break
        assert await is_busy(vllm)
    assert await until(lambda: is_idle(vllm)), "breaking out of a block"

    dropped = vllm.chat.completions.stream(**long)  # type: ignore[arg-type]
    async for event in dropped:
        if isinstance(event, TextDelta):
            break
    with pytest.warns(ResourceWarning, match="dropped"):  # noqa: PT031
        del dropped
        gc.collect()
    assert await until(lambda: is_idle(vllm)), "dropping a stream"


@pytest.mark.server("B")
async def test_a_key_is_wanted_and_a_wrong_one_refused(server: LiveServer) -> None:
    async with AsyncVLLM(server.base_url) as client:
        with pytest.raises(AuthenticationError, match="wants a key"):
            await client.models.list()
    async with AsyncVLLM(server.base_url, api_key="wrong") as client:
        with pytest.raises(AuthenticationError, match="refused the key") as caught:
            await client.models.list()
    assert "wrong" not in str(caught.value)


@pytest.mark.server("B")
async def test_missing_tool_flags_are_named(vllm: AsyncVLLM) -> None:
    with pytest.raises(UnsupportedByServerError) as caught:
        await vllm.chat.completions.create(messages=HI, tools=[TOOL])
    assert caught.value.flags == ("--enable-auto-tool-choice", "--tool-call-parser")


@pytest.mark.server("B")
async def test_a_templates_own_refusal_is_a_bad_request(vllm: AsyncVLLM) -> None:
    with pytest.raises(BadRequestError, match="must have the role system"):
        await vllm.chat.completions.create(messages=HI[1:])
