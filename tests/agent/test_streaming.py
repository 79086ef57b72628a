"""`Agent(streaming=False)`: the same run, asked for in whole replies."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    AsyncVLLM,
    ModelStarted,
    Notice,
    ReasoningDelta,
    RefusalDelta,
    RunEnded,
    TextDelta,
    ToolCallDelta,
    tool,
)
from vllm_agent_sdk.testing import Reply, Simulator

DELTAS = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta)
PARIS = ("get_weather", {"city": "Paris"})
ROME = ("get_weather", {"city": "Rome"})


@tool
async def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"18 °C in {city}"


#: What a model may do, and how turns are made for it.
SCENARIOS: dict[str, tuple[tuple[Reply, ...], dict[str, Any]]] = {
    "text": ((Reply.text("It is 18 °C."),), {}),
    "one call": ((Reply.calls(PARIS), Reply.text("It is 18 °C.")), {}),
    "two calls": ((Reply.calls(PARIS, ROME), Reply.text("Both 18 °C.")), {}),
    "text and a call": ((Reply.calls(PARIS, text="Let me see."), Reply.text("18 °C.")), {}),
    "reasoning": ((Reply.reasoning("Hm.", "It is 18 °C."),), {}),
    "length": ((Reply.text("It is", finish_reason="length"),), {}),
    "an error": ((Reply.error(400, message="bad luck"),), {}),
    "an unknown tool": ((Reply.calls(("get_time", {})), Reply.text("Sorry.")), {}),
    "guided": (
        (
            Reply.text('[[call get_weather]]{"city": "Paris"}[[/call]]'),
            Reply.text("[[final]]It is 18 °C.[[/final]]"),
        ),
        {"turn_mode": "guided"},
    ),
    "envelope": (
        (Reply.text('{"call": {"name": "get_weather", "arguments": {"city": "Paris"}}}'),),
        {"turn_mode": "envelope"},
    ),
    "required": (
        (Reply.calls(PARIS), Reply.calls(("final_answer", {"answer": "18 °C"}))),
        {"turn_mode": "required"},
    ),
    "typed": ((Reply.text('{"degrees": 18}'),), {"output": dict[str, int], "tools": ()}),
}


async def played(
    replies: tuple[Reply, ...], options: dict[str, Any], streaming: bool
) -> tuple[Simulator, list[Any]]:
    async with Simulator(*replies) as server:
        async with AsyncVLLM("http://sim", transport=server.transport) as vllm:
            agent = Agent(client=vllm, streaming=streaming, **{"tools": [get_weather], **options})
            async with agent.stream("Weather?") as run:
                events = [event async for event in run]
    return server, events


def outline(events: list[Any]) -> list[tuple[str, Any]]:
    """What happened, without the pieces of text and without the clock."""
    said: list[tuple[str, Any]] = []
    for event in events:
        if isinstance(event, DELTAS):
            continue
        message = getattr(event, "message", None)
        call = getattr(event, "call", None)
        usage = getattr(event, "usage", None)
        what = [getattr(message, "text", None), getattr(call, "arguments", None)]
        if isinstance(event, RunEnded):
            result = event.result
            what = [result.text, result.stop_reason, result.tool_calls, result.finish_reason]
            usage = result.usage
        said.append((type(event).__name__, (*what, None if usage is None else str(usage))))
    return said


@pytest.mark.feature("A-18")
@pytest.mark.parametrize("scenario", list(SCENARIOS))
async def test_whole_replies_give_the_same_events_but_for_deltas(scenario: str) -> None:
    replies, options = SCENARIOS[scenario]
    streamed_at, streamed = await played(replies, options, True)
    whole_at, whole = await played(replies, options, False)
    assert outline(whole) == outline(streamed)
    assert not any(isinstance(event, DELTAS) for event in whole)
    assert all(chat.json["stream"] for chat in streamed_at.chats)
    assert not any(chat.json.get("stream") for chat in whole_at.chats)
    for one, other in zip(streamed_at.chats, whole_at.chats, strict=True):
        assert one.json["messages"] == other.json["messages"]


@pytest.mark.feature("A-18")
async def test_a_model_whose_calls_do_not_stream_is_asked_for_whole_replies_and_once_told() -> None:
    replies = (Reply.calls(PARIS), Reply.calls(ROME), Reply.text("Both 18 °C."))
    async with Simulator(*replies, model="microsoft/Phi-4-mini-instruct") as server:
        async with AsyncVLLM("http://sim", transport=server.transport) as vllm:
            agent = Agent(client=vllm, tools=[get_weather])
            events = [event async for event in agent.stream("Weather?")]
            plain = [event async for event in agent.with_(tools=()).stream("Hello")]
    notices = [event for event in events if isinstance(event, Notice)]
    assert [notice.code for notice in notices] == ["streaming"]
    assert "asked for whole" in notices[0].text
    assert sum(isinstance(event, ModelStarted) for event in events) == 3
    assert [bool(chat.json.get("stream")) for chat in server.chats] == [False] * 3 + [True]
    # Without tools there are no calls that could be missed.
    assert any(isinstance(event, TextDelta) for event in plain)
    assert not any(isinstance(event, Notice) for event in plain)


@pytest.mark.feature("A-18")
async def test_an_interrupt_of_a_whole_reply_closes_its_socket() -> None:
    async with Simulator(Reply.text("late", first_delay=60)) as server:
        async with AsyncVLLM("http://sim", transport=server.transport) as vllm:
            async with Agent(client=vllm, streaming=False).stream("go") as run:
                async for event in run:
                    if isinstance(event, ModelStarted):
                        break
                await server.wait_for(lambda: server.running == 1)
                await run.interrupt()
            await server.wait_for(lambda: server.running == 0)
    assert run.result.stop_reason == "interrupted"
