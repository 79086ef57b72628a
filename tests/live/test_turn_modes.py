"""Turn modes on real servers, with a model of 135 million parameters."""

from __future__ import annotations

import json
from typing import Any, TypedDict

import pytest

from vllm_agent_sdk import (
    Agent,
    AsyncVLLM,
    Limits,
    ModelStarted,
    Sampling,
    TextDelta,
    ToolEnded,
    UserMessage,
    tool,
)

from .servers import LiveServer

pytestmark = pytest.mark.live

GREEDY = Sampling(temperature=0, max_tokens=96)


class Report(TypedDict):
    subject: str
    value: float


@tool
async def get_weather(city: str) -> dict[str, object]:
    """Get the weather of a city"""
    return {"city": city, "temperature_c": 18}


@tool
async def get_price(product: str) -> dict[str, object]:
    """Get the price of a product"""
    return {"product": product, "price_eur": 39}


@pytest.mark.server("A")
@pytest.mark.feature("O-06", "A-07")
@pytest.mark.parametrize("mode", ["auto", "envelope"])
async def test_tools_and_a_typed_answer_work_together(server: LiveServer, mode: Any) -> None:
    agent = Agent(
        client=server.base_url,
        tools=[get_weather, get_price],
        output=Report,
        turn_mode=mode,
        sampling=GREEDY,
    )
    async with agent:
        async with agent.stream("What is the weather in Paris?") as run:
            events = [event async for event in run]
        price = await agent.run("What does a lamp cost?")
    weather = run.result
    assert weather.turn_mode == ("guided" if mode == "auto" else mode)
    assert (weather.tool_calls, price.tool_calls) == ({"get_weather": 1}, {"get_price": 1})
    assert (weather.output["value"], price.output["value"]) == (18, 39)
    deltas = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert json.loads(deltas) == weather.output


@pytest.mark.server("A")
@pytest.mark.feature("A-07")
async def test_a_required_turn_ends_in_an_answer_of_the_type(server: LiveServer) -> None:
    agent = Agent(
        client=server.base_url,
        tools=[get_weather, get_price],
        output=Report,
        turn_mode="required",
        sampling=GREEDY,
        limits=Limits(max_turns=4, last_turn_without_tools=True),
    )
    async with agent.stream("What is the weather in Paris?") as run:
        events = [event async for event in run]
    assert run.result.stop_reason == "end_turn"
    assert set(run.result.output) == {"subject", "value"}
    assert all(event.executed for event in events if isinstance(event, ToolEnded))


@pytest.mark.server("A")
@pytest.mark.feature("A-18")
async def test_whole_replies_come_to_the_same(server: LiveServer) -> None:
    agent = Agent(client=server.base_url, tools=[get_weather], sampling=GREEDY)
    streamed = await agent.run("What is the weather in Paris?")
    async with agent.with_(streaming=False).stream("What is the weather in Paris?") as run:
        events = [event async for event in run]
    assert run.result.text == streamed.text
    assert run.result.tool_calls == streamed.tool_calls
    assert not any(isinstance(event, TextDelta) for event in events)
    assert sum(isinstance(event, ModelStarted) for event in events) == streamed.turns


@pytest.mark.server("B")
@pytest.mark.feature("O-07")
async def test_a_strict_template_gets_the_order_of_roles_that_it_wants(server: LiveServer) -> None:
    async with AsyncVLLM(server.base_url, api_key=server.api_key) as vllm:
        agent = Agent(client=vllm, instructions="Be brief.", sampling=GREEDY)
        result = await agent.run("Say hello.", history=[UserMessage("Good morning.")])
    assert result.stop_reason in {"end_turn", "length"}, result.error
    assert result.text
