"""A context of 4096 tokens that fills up, and the prefix cache, on a real server."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    AssistantMessage,
    AsyncVLLM,
    Compacted,
    Context,
    Sampling,
    TextBlock,
    TurnStarted,
    UserMessage,
    tool,
)
from vllm_agent_sdk.testing import assert_prefix_stable
from vllm_agent_sdk.types.profile import Known, ServerProfile

from .servers import LiveServer

pytestmark = [pytest.mark.live, pytest.mark.server("A")]

#: Replies, summaries among them, are a few words: what is tried is not what the model says.
SHORT = Sampling(
    temperature=0, extra_body={"structured_outputs": {"regex": "[A-Z][a-z]{2,8} [a-z]{2,8}\\."}}
)
BLOCK = 128


def story(words: int) -> str:
    """About as many tokens as words."""
    return " ".join(
        ("the cat sat on the mat and the dog ran to the old house " * words).split()[:words]
    )


@pytest.mark.feature("A-10", "A-13")
async def test_a_context_is_counted_and_summarised_before_it_overflows(server: LiveServer) -> None:
    agent = Agent(client=server.base_url, sampling=SHORT, context=Context(keep_last=2))
    async with agent, agent.session() as session:
        for words in (1300, 1300):
            await session.run(story(words))
        async with session.stream(story(300)) as run:
            (counted,) = [event async for event in run if isinstance(event, TurnStarted)]
        near = run.result
        async with session.stream(story(500)) as run:
            events = [event async for event in run]
        report = await session.explain_cache()
    # Between 70 and 80 % of the window the server counts: to the token what it then reads.
    assert (counted.window, counted.exact) == (4096, True)
    assert counted.context_tokens == near.usage_by_turn[0].input_tokens
    assert 0.7 * 4096 < counted.context_tokens < 0.8 * 4096
    (compacted,) = [event for event in events if isinstance(event, Compacted)]
    assert compacted.error is None
    # The summary was asked for on what the server had cached.
    assert compacted.usage.cached_tokens >= compacted.usage.input_tokens - 3 * BLOCK
    assert run.result.stop_reason == "end_turn"
    assert run.result.messages[0].text.startswith("Summary of the conversation so far:")
    assert run.result.usage_by_turn[-1].input_tokens < 0.8 * 4096
    assert [turn.prefix.cause for turn in report.turns if turn.prefix][-1] == "compacted"


@pytest.mark.feature("A-10")
async def test_an_overflow_that_the_server_refuses_is_summarised_and_asked_again(
    server: LiveServer,
) -> None:
    said: list[Any] = [UserMessage(story(1450)), AssistantMessage([TextBlock("Nice cat.")])] * 3
    async with AsyncVLLM(server.base_url) as vllm:
        agent = Agent(client=vllm, model=server.model, sampling=SHORT)
        # A window that somebody told wrongly.
        wrong = ServerProfile(context_length=Known(100_000))
        agent.learnt.profiles[vllm.base_url, vllm.model] = wrong
        async with agent.stream("What sat on the mat?", history=said) as run:
            events = [event async for event in run]
    compacted = [event for event in events if isinstance(event, Compacted)]
    assert [event.error for event in compacted] == [None]
    assert run.result.stop_reason == "end_turn"
    assert run.result.messages[-2].text == "What sat on the mat?"


@tool
async def get_weather(city: str) -> dict[str, object]:
    """Get the current weather of a city."""
    return {"city": city, "temperature_c": 21}


@pytest.mark.feature("A-13", "A-23", "Q-05")
async def test_what_fills_the_context_is_counted_and_what_was_cached_is_explained(
    server: LiveServer,
) -> None:
    greedy = Sampling(temperature=0, max_tokens=64)
    agent = Agent(
        client=server.base_url,
        tools=[get_weather],
        instructions=f"Use the tools to answer. Once {story(150)}.",
        sampling=greedy,
    )
    async with agent, agent.session() as session:
        result = await session.run("What is the weather in Paris?")
        await session.run("What is the weather in Rome?")
        usage = await session.context_usage()
        report = await session.explain_cache()
        assert_prefix_stable(session)
    assert result.turn_mode == "guided"
    assert (report.block_size, report.prefix_caching) == (BLOCK, True)
    first, *later = report.turns
    assert len(later) >= 2
    assert first.cached_tokens is not None
    for turn in later:
        assert turn.expected_tokens
        assert turn.cached_tokens is not None
        assert turn.cached_tokens >= turn.expected_tokens // BLOCK * BLOCK >= BLOCK
    assert report.missed == ()
    assert usage.exact
    assert usage.system + usage.tools + sum(usage.messages.values()) == usage.total
    assert usage.system > 150
    assert min(usage.tools, *usage.messages.values()) > 0
    assert usage.free == 4096 - usage.total
    assert usage.total > report.turns[-1].input_tokens
