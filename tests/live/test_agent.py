"""Agents on real servers, with a model of 135 million parameters."""

from __future__ import annotations

import asyncio

import pytest

from vllm_agent_sdk import (
    Agent,
    AsyncVLLM,
    Limits,
    ModelStarted,
    RunStarted,
    Sampling,
    TextDelta,
    ToolEnded,
    query,
    tool,
)

from .servers import LiveServer

pytestmark = pytest.mark.live

GREEDY = Sampling(temperature=0, max_tokens=96)


@tool
async def get_weather(city: str) -> dict[str, object]:
    """Get the current weather of a city."""
    return {"city": city, "temperature_c": 21}


@pytest.mark.server("A")
@pytest.mark.feature("A-01", "A-02", "O-06")
async def test_an_agent_calls_a_tool_and_answers_with_its_result(server: LiveServer) -> None:
    agent = Agent(client=server.base_url, tools=[get_weather], sampling=GREEDY)
    async with agent, agent.stream("What is the weather in Paris?") as run:
        events = [event async for event in run]
    result = run.result
    assert result.stop_reason == "end_turn"
    assert result.tool_calls == {"get_weather": 1}
    assert "21" in result.text
    started = next(event for event in events if isinstance(event, RunStarted))
    assert started.turn_mode == "guided", started.turn_mode_reason
    (ended,) = (event for event in events if isinstance(event, ToolEnded))
    assert ended.message.text == '{"city":"Paris","temperature_c":21}'
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == result.text
    assert result.usage.requests == 2
    assert result.usage.input_tokens > 100


@pytest.mark.server("B")
@pytest.mark.feature("O-06")
async def test_guided_turns_need_no_flags_and_work_with_a_strict_template(
    server: LiveServer,
) -> None:
    async with AsyncVLLM(server.base_url, api_key=server.api_key) as vllm:
        agent = Agent(
            client=vllm, tools=[get_weather], instructions="Use the tools.", sampling=GREEDY
        )
        result = await agent.run("What is the weather in Paris?")
    assert result.turn_mode == "guided"
    assert result.tool_calls.get("get_weather"), result
    assert result.stop_reason in {"end_turn", "repeated_call"}


@pytest.mark.server("A")
@pytest.mark.feature("A-12")
async def test_a_forced_call_is_made_in_the_first_turn_only(server: LiveServer) -> None:
    agent = Agent(
        client=server.base_url,
        tools=[get_weather],
        sampling=GREEDY,
        tool_choice="required",
        turn_mode="guided",
    )
    async with agent.stream("Paris") as run:
        requests = [event.request async for event in run if isinstance(event, ModelStarted)]
    assert run.result.tool_calls["get_weather"] >= 1
    forms = [request["response_format"]["format"]["type"] for request in requests]
    assert forms[0] == "tags_with_separator"
    assert set(forms[1:]) == {"or"}


@pytest.mark.server("A")
@pytest.mark.feature("A-13")
async def test_a_later_turn_finds_the_prefix_of_the_earlier_one_cached(server: LiveServer) -> None:
    agent = Agent(client=server.base_url, tools=[get_weather], sampling=GREEDY)
    result = await agent.run("What is the weather in Oslo, and what should I wear?")
    assert result.usage_by_turn[1].cached_tokens >= 128


@pytest.mark.server("A")
@pytest.mark.feature("A-08")
async def test_an_interrupt_keeps_what_was_said(server: LiveServer) -> None:
    endless = Sampling(max_tokens=2000, extra_body={"ignore_eos": True})
    async with Agent(client=server.base_url, sampling=endless).stream("Tell a story.") as run:
        async for event in run:
            if isinstance(event, TextDelta):
                break
        await asyncio.wait_for(run.interrupt(), 10)
    assert run.result.stop_reason == "interrupted"
    assert run.result.text


@pytest.mark.server("A")
@pytest.mark.feature("A-01")
async def test_query_and_the_blocking_run_work_on_a_real_server(server: LiveServer) -> None:
    short = Sampling(temperature=0, max_tokens=8)
    said = [m async for m in query("Say hello.", client=server.base_url, sampling=short)]
    assert len(said) == 3
    blocking = await asyncio.to_thread(
        Agent(client=server.base_url, sampling=short).run_sync, "Say hello."
    )
    assert blocking.text == said[-1].text


@pytest.mark.server("A")
@pytest.mark.feature("A-04")
async def test_a_call_that_no_grammar_could_make_valid_is_not_executed(server: LiveServer) -> None:
    paid: list[int] = []
    # Grammars know no multiples: the amount that was asked for is a wrong argument.
    cents = {"type": "integer", "minimum": 1, "multipleOf": 1000003}
    schema = {"type": "object", "properties": {"cents": cents}, "required": ["cents"]}

    @tool(schema=schema)
    def pay(cents: int) -> str:
        """Pay an amount."""
        paid.append(cents)
        return "paid"

    agent = Agent(
        client=server.base_url,
        tools=[pay],
        tool_choice="required",
        turn_mode="guided",
        limits=Limits(repairs=0),
        sampling=GREEDY,
    )
    result = await agent.run("Pay 250 cents.")
    assert (result.stop_reason, paid, result.tool_calls) == ("invalid_tool_call", [], {})
    assert "is not a multiple of 1000003" in result.messages[-1].text
