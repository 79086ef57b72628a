"""Sessions on a real server: steered, interrupted, and cheaper from run to run."""

from __future__ import annotations

import asyncio
import time

import pytest

from vllm_agent_sdk import (
    Agent,
    AssistantMessage,
    AsyncVLLM,
    Limits,
    RunEnded,
    RunStarted,
    Sampling,
    TextDelta,
    tool,
)

from .servers import LiveServer

pytestmark = pytest.mark.live

GREEDY = Sampling(temperature=0, max_tokens=12)
ENDLESS = Sampling(max_tokens=3000, extra_body={"ignore_eos": True})


async def running(vllm: AsyncVLLM) -> float:
    return (await vllm.server.metrics()).running or 0.0


@pytest.mark.server("A")
@pytest.mark.feature("A-08")
async def test_an_interrupt_frees_the_server_at_once(server: LiveServer) -> None:
    async with AsyncVLLM(server.base_url) as vllm:
        async with Agent(client=vllm, sampling=ENDLESS).session() as session:
            run = await session.send("Tell a long story.")
            async for event in run:
                if isinstance(event, TextDelta):
                    break
            assert await running(vllm) >= 1.0
            begun = time.monotonic()
            await session.interrupt()
            assert time.monotonic() - begun < 2.0
            assert (await run).stop_reason == "interrupted"
            while await running(vllm):
                assert time.monotonic() - begun < 4.0, "the server goes on"
                await asyncio.sleep(0.05)
            # The session is usable at once, and the cut answer is in it.
            session_messages = len(session.messages)
            async for event in await session.send("Stop."):
                if isinstance(event, TextDelta):
                    break
            await session.interrupt()
            assert len(session.messages) > session_messages


@pytest.mark.server("A")
@pytest.mark.feature("A-13", "A-01")
async def test_each_run_of_a_session_finds_the_earlier_ones_cached(server: LiveServer) -> None:
    # The server caches whole blocks, of up to 128 tokens: each prompt fills more than one.
    prompts = [f"{word} " * 150 for word in ("sea", "salt", "fish")]
    async with Agent(client=server.base_url, sampling=GREEDY).session() as session:
        results = [await session.run(prompt) for prompt in prompts]
    cached = [result.usage.cached_tokens for result in results]
    assert 0 < cached[1] < cached[2], cached


@pytest.mark.server("A")
@pytest.mark.feature("A-20")
async def test_steering_reaches_the_model_after_the_running_tool(server: LiveServer) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    @tool
    async def get_weather(city: str) -> dict[str, object]:
        """Get the current weather of a city."""
        begun.set()
        await go_on.wait()
        return {"city": city, "temperature_c": 21}

    sampling = Sampling(temperature=0, max_tokens=48)
    limits = Limits(max_turns=2)
    agent = Agent(client=server.base_url, tools=[get_weather], sampling=sampling, limits=limits)
    async with agent.session() as session:
        run = await session.send("What is the weather in Paris?")
        await begun.wait()
        assert await session.send("Be brief.", when="steer") is run
        after = await session.send("And in Rome?")
        go_on.set()
        result = await run
        async for event in after:
            if isinstance(event, RunStarted):
                break
        await session.interrupt()
        said = [type(message).__name__ for message in result.messages]
        assert said[:4] == ["UserMessage", "AssistantMessage", "ToolMessage", "UserMessage"]
        assert result.messages[3].text == "Be brief."
        assert isinstance(result.messages[4], AssistantMessage)
        assert result.turns >= 2
        assert session.messages[len(result.messages)].text == "And in Rome?"


@pytest.mark.server("A")
@pytest.mark.feature("A-01", "A-16")
def test_a_blocking_session_is_watched_and_broken_out_of(server: LiveServer) -> None:
    with Agent(client=server.base_url, sampling=GREEDY).session_sync() as session:
        run = session.send("Say hello.")
        for event in session.events(after=0):
            if isinstance(event, RunStarted):
                break
        result = run.wait()
        assert result.text
        events = list(session.events(after=0))
        assert isinstance(events[-1], RunEnded)
        assert events[-1].result.text == result.text
        again = session.stream("Say it again.")
        assert "".join(again.text_deltas()) == again.result.text
