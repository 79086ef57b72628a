"""Agents over Responses on real servers: the same runs as over chat completions, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from vllm_agent_sdk import (
    Agent,
    AssistantMessage,
    AsyncVLLM,
    Limits,
    Message,
    ModelEnded,
    NotFoundError,
    ReasoningBlock,
    RunResult,
    Sampling,
    TextBlock,
    TextDelta,
    ToolCall,
    ToolMessage,
    UserMessage,
    tool,
)

from .servers import KEY, LiveServer

pytestmark = [pytest.mark.live, pytest.mark.feature("A-15")]

GREEDY = Sampling(temperature=0, max_tokens=64)


@tool
async def get_weather(city: str) -> dict[str, object]:
    """Get the current weather of a city."""
    return {"city": city, "temperature_c": 21}


class Ran:
    """A run over one of the two, and what was seen of it."""

    def __init__(self, result: RunResult[Any], events: list[Any]) -> None:
        self.result = result
        self.request_ids = [
            each.request_id or "" for each in events if isinstance(each, ModelEnded)
        ]
        self.shown = "".join(each.text for each in events if isinstance(each, TextDelta))
        kinds = [type(each).__name__ for each in events]
        # How many tokens a piece of a stream has is the server's choice.
        self.kinds = [kind for at, kind in enumerate(kinds) if kinds[at - 1 : at] != [kind]]


async def ran(client: AsyncVLLM, api: Any, history: Sequence[Message] = (), **fields: Any) -> Ran:
    agent = Agent[Any, Any](
        client=client,
        api=api,
        instructions="You are brief.",
        **{"sampling": GREEDY, "limits": Limits(max_turns=3), **fields},
    )
    async with agent.stream("What is the weather in Paris?", history=history) as run:
        events = [event async for event in run]
    return Ran(run.result, events)


def told(messages: list[Message]) -> list[Any]:
    """The messages without the ids of calls, which are the server's."""
    built: list[Any] = msgspec.to_builtins(messages)
    for message in built:
        if "call_id" in message:
            message["call_id"] = "…"
        for block in message["content"] if isinstance(message["content"], list) else ():
            if "id" in block:
                block["id"] = "…"
    return built


def assert_same(one: Ran, other: Ran) -> None:
    assert told(other.result.messages) == told(one.result.messages)
    assert other.result.stop_reason == one.result.stop_reason
    assert other.result.turn_mode == one.result.turn_mode
    assert other.shown == one.shown
    assert other.kinds == one.kinds
    # The server renders the same prompt out of items as out of messages, and writes as much.
    counts = [
        [(each.input_tokens, each.output_tokens) for each in run.result.usage_by_turn]
        for run in (one, other)
    ]
    assert counts[0] == counts[1]


@pytest.mark.server("A")
@pytest.mark.parametrize(("mode", "streaming"), [("guided", True), ("envelope", False)])
async def test_a_run_with_a_call_is_the_same_over_both(
    server: LiveServer, mode: str, streaming: bool
) -> None:
    async with AsyncVLLM(server.base_url) as client:
        fields: dict[str, Any] = {
            "tools": [get_weather],
            "turn_mode": mode,
            "streaming": streaming,
        }
        chat = await ran(client, "chat", **fields)
        responses = await ran(client, "responses", **fields)
    assert_same(chat, responses)
    assert responses.result.stop_reason == "end_turn"
    assert responses.result.tool_calls == {"get_weather": 1}
    assert any(isinstance(each, ToolMessage) for each in responses.result.messages)


@pytest.mark.server("A")
async def test_calls_and_results_are_the_same_prompt_as_items(server: LiveServer) -> None:
    call = ToolCall.from_text("call_1", "get_weather", '{"city": "Paris"}')
    thought = [ReasoningBlock("It is a question."), TextBlock("I will look.")]
    history: list[Message] = [
        UserMessage("What is the weather in Paris?"),
        AssistantMessage([*thought, call]),
        ToolMessage("call_1", '{"city":"Paris","temperature_c":21}'),
        AssistantMessage([TextBlock("It is 21 °C.")]),
    ]
    fields: dict[str, Any] = {
        "tools": [get_weather],
        "turn_mode": "native",
        "sampling": Sampling(temperature=0, max_tokens=8),
        "history": history,
    }
    async with AsyncVLLM(server.base_url) as client:
        chat = await ran(client, "chat", **fields)
        responses = await ran(client, "responses", **fields)
    assert_same(chat, responses)
    assert responses.result.usage.input_tokens > 60


@pytest.mark.server("A")
async def test_nothing_is_kept_on_a_server_that_keeps_responses(server: LiveServer) -> None:
    async with AsyncVLLM(server.base_url) as client:
        run = await ran(client, "responses", sampling=Sampling(temperature=0, max_tokens=4))
        [request_id] = run.request_ids
        assert request_id.startswith("resp_")
        with pytest.raises(NotFoundError):
            await client.responses.retrieve(request_id)


@pytest.mark.server("B")
async def test_a_strict_template_and_a_thinking_model_are_the_same_over_both(
    server: LiveServer,
) -> None:
    sampling = Sampling(temperature=0, max_tokens=24)
    async with AsyncVLLM(server.base_url, api_key=KEY) as client:
        chat = await ran(client, "chat", sampling=sampling)
        responses = await ran(client, "responses", sampling=sampling)
    assert_same(chat, responses)
