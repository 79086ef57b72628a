"""`query()`: the messages as they are said, and last the result."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import (
    AssistantMessage,
    RunResult,
    TextDelta,
    ToolMessage,
    UsageError,
    UserMessage,
    query,
    tool,
)
from vllm_agent_sdk.testing import Reply, Simulator


@tool
async def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"18 °C in {city}"


@tool(deferred=True)
async def order(item: str) -> str:
    """Order something; people do it."""
    raise AssertionError("a deferred tool is not run here")


async def asked(prompt: Any, **fields: Any) -> list[Any]:
    return [message async for message in query(prompt, **fields)]


PARIS = Reply.calls(("get_weather", {"city": "Paris"}))


@pytest.mark.feature("A-01")
async def test_messages_come_in_the_order_in_which_they_were_said(client: Any) -> None:
    async with Simulator(PARIS, Reply.text("It is 18 °C.")) as server:
        said = await asked("Weather?", client=client(server), tools=[get_weather])
    kinds = [UserMessage, AssistantMessage, ToolMessage, AssistantMessage, RunResult]
    assert [type(message) for message in said] == kinds
    assert said[-1].messages == said[:-1]


@pytest.mark.feature("A-01")
async def test_a_suspended_run_has_its_result_last_too(client: Any) -> None:
    replies = (Reply.calls(("order", {"item": "tea"})),)
    async with Simulator(*replies) as server:
        said = await asked("Tea!", client=client(server), tools=[order])
    assert [type(m) for m in said] == [UserMessage, AssistantMessage, RunResult]
    assert said[-1].stop_reason == "suspended"
    assert [pending.kind for pending in said[-1].pending] == ["tool_result"]


@pytest.mark.feature("A-01")
async def test_an_error_of_the_server_is_in_the_result(client: Any) -> None:
    async with Simulator(Reply.error(400, message="bad luck")) as server:
        said = await asked("Hi", client=client(server))
    assert [type(m) for m in said] == [UserMessage, RunResult]
    assert said[-1].stop_reason == "error"


@pytest.mark.feature("A-01")
async def test_prompts_one_after_the_other_have_a_result_each(client: Any) -> None:
    async def prompts() -> Any:
        yield "a"
        yield "b"

    async with Simulator(Reply.text("1"), Reply.text("2")) as server:
        said = await asked(prompts(), client=client(server))
    assert [m.text for m in said] == ["a", "1", "1", "b", "2", "2"]
    assert [isinstance(m, RunResult) for m in said] == [False, False, True] * 2


@pytest.mark.feature("A-01")
async def test_partial_messages_come_before_their_whole(client: Any) -> None:
    async with Simulator(Reply.text("one two")) as server:
        said = await asked("Hi", client=client(server), include_partial=True)
    deltas = [m.text for m in said if isinstance(m, TextDelta)]
    assert "".join(deltas) == "one two"
    assert isinstance(said[len(deltas) + 1], AssistantMessage)


@pytest.mark.feature("A-01", "C-09")
async def test_closing_a_query_frees_the_server(client: Any) -> None:
    async with Simulator(Reply.text("late", first_delay=60)) as server:
        asking = query("Hi", client=client(server))
        assert isinstance(await anext(asking), UserMessage)
        await server.wait_for(lambda: server.running == 1)
        await asking.aclose()
        await server.wait_for(lambda: server.running == 0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"modle": "x"}, "'modle'"), ({"turn_mode": "magic"}, "give one of")],
)
def test_a_wrong_field_is_refused_at_once(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        query("Hi", **fields)
