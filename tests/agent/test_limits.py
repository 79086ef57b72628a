"""Limits, prices and what guards a run: exactly where each ends it, and what it lets through."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk import (
    Agent,
    AssistantMessage,
    Limits,
    ModelEnded,
    Price,
    RateLimitError,
    ToolMessage,
    Usage,
    UsageError,
    tool,
)
from vllm_agent_sdk.testing import Reply, ScriptAnswer, Simulator, scripted_run
from vllm_agent_sdk.types.messages import TextBlock

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@tool
async def look(at: str) -> str:
    """Look at something."""
    ran.append(at)
    return f"{at} is green"


def looks(*at: str, **usage: int) -> Reply:
    counts: Any = {"prompt_tokens": 10, "completion_tokens": 5, **usage}
    return Reply.calls(*(("look", {"at": each}) for each in at), usage=counts)


def says(text: str, **usage: int) -> Reply:
    counts: Any = {"prompt_tokens": 10, "completion_tokens": 5, **usage}
    return Reply.text(text, usage=counts)


def played(*answers: ScriptAnswer, **agent: Any) -> Any:
    agent.setdefault("tools", [look])
    return scripted_run(Agent(model="m", **agent), "Go", answers).result


# ── limits, exactly ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-05")
@pytest.mark.parametrize(
    ("limits", "stop_reason", "executed"),
    [
        (Limits(max_turns=3), "end_turn", 3),
        (Limits(max_turns=2), "max_turns", 3),
        (Limits(max_turns=1), "max_turns", 2),
        (Limits(max_tool_calls=3), "end_turn", 3),
        (Limits(max_tool_calls=2), "max_tool_calls", 2),
        (Limits(max_tool_calls=1), "max_tool_calls", 1),
        (Limits(max_total_tokens=31), "end_turn", 3),
        (Limits(max_total_tokens=30), "max_total_tokens", 3),
        (Limits(max_total_tokens=15), "max_total_tokens", 2),
    ],
)
def test_a_limit_ends_the_run_when_it_is_reached_and_not_before(
    limits: Limits, stop_reason: str, executed: int
) -> None:
    script = [looks("a", "b"), looks("c"), says("ok")]
    agent = Agent(model="m", tools=[look], limits=limits)
    turns = {"max_turns": limits.max_turns, "max_tool_calls": 2 if executed == 2 else 1}
    turns |= {"max_total_tokens": 2 if executed == 3 else 1}
    asked = turns.get(stop_reason, 3)
    result = scripted_run(agent, "Go", script[:asked]).result
    assert (result.stop_reason, len(ran), result.turns) == (stop_reason, executed, asked)


@pytest.mark.feature("A-05")
@pytest.mark.parametrize(
    "options",
    [
        {"max_turns": 0}, {"max_tool_calls": 0}, {"max_total_tokens": -1}, {"max_seconds": 0},
        {"max_cost": -1.0}, {"max_parallel_tools": 0}, {"tool_timeout_s": 0},
        {"repeated_calls": 1}, {"repairs": -1},
    ],
)  # fmt: skip
def test_a_limit_that_lets_nothing_through_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Limits(**options)


@pytest.mark.feature("A-05")
async def test_the_last_turn_is_asked_without_tools_and_with_the_same_prefix(client: Any) -> None:
    async with Simulator(looks("a"), says("It is green.")) as server:
        limits = Limits(max_turns=2, last_turn_without_tools=True)
        result = await Agent(client=client(server), tools=[look], limits=limits).run("Go")
    assert (result.stop_reason, result.output) == ("end_turn", "It is green.")
    first, last = (chat.json for chat in server.chats)
    assert last["tool_choice"] == "none"
    assert last["tools"] == first["tools"]  # what the server has cached stays of use


@pytest.mark.feature("A-05")
def test_a_call_in_the_turn_without_tools_is_not_executed_and_ends_the_run() -> None:
    limits = Limits(max_turns=2, last_turn_without_tools=True)
    result = played(looks("a"), looks("b"), limits=limits)
    assert (result.stop_reason, ran) == ("max_turns", ["a"])
    answer = result.messages[-1]
    assert isinstance(answer, ToolMessage)
    assert "answer from what is there" in answer.text


@pytest.mark.feature("A-05")
async def test_an_empty_reply_is_asked_for_once_more_and_counts_in_the_usage(client: Any) -> None:
    async with Simulator(says(""), says("Here.")) as server:
        result = await Agent(client=client(server)).run("Go")
    assert (result.output, result.turns, result.usage.requests) == ("Here.", 1, 2)
    assert result.usage.input_tokens == 20
    assert server.chats[0].json["messages"] == server.chats[1].json["messages"]


@pytest.mark.feature("A-05")
def test_reasoning_without_an_answer_is_kept_in_the_error() -> None:
    thought = AssistantMessage([])
    silent = ModelEnded(1, message=thought, usage=Usage(1, 1, requests=1), finish_reason="stop")
    result = played(Reply.reasoning("Hm.", ""), Reply.reasoning("Hm.", ""), tools=[])
    assert result.stop_reason == "empty_reply"
    assert result.error.reasoning == "Hm."
    assert played(silent, silent, tools=[]).error is None


@pytest.mark.feature("A-04")
def test_a_turn_with_one_valid_call_is_no_failed_repair() -> None:
    mixed = [Reply.calls(("look", {"at": each}), ("fly", {"at": each})) for each in "ab"]
    result = played(*mixed, says("ok"), limits=Limits(repairs=0))
    assert (result.stop_reason, result.tool_calls) == ("end_turn", {"look": 2})


@pytest.mark.feature("A-04")
@pytest.mark.parametrize("repairs", [0, 2])
def test_turns_without_a_valid_call_are_bounded_and_any_valid_one_counts_anew(repairs: int) -> None:
    wrong = [Reply.calls(("fly", {"at": str(each)})) for each in range(2 * repairs + 1)]
    again = [*wrong[:repairs], looks("a"), *wrong[repairs:]]
    result = played(*again, limits=Limits(repairs=repairs))
    assert (result.stop_reason, result.turns) == ("invalid_tool_call", 2 * repairs + 2)


@pytest.mark.feature("A-12")
@pytest.mark.parametrize(
    ("calls", "stop_reason"),
    [
        ([("a",), ("a",)], "repeated_call"),
        ([("a",), ("b",), ("a",), ("b",)], "end_turn"),
        ([("a", "a")], "repeated_call"),
        ([("a", "b"), ("b",)], "repeated_call"),
    ],
)
def test_the_same_call_in_a_row_ends_the_run_and_another_in_between_does_not(
    calls: list[tuple[str, ...]], stop_reason: str
) -> None:
    script: list[Any] = [looks(*each) for each in calls]
    if stop_reason == "end_turn":
        script.append(says("ok"))
    assert played(*script, limits=Limits(repeated_calls=2)).stop_reason == stop_reason


@pytest.mark.feature("A-12")
def test_the_same_arguments_in_another_order_are_the_same_call() -> None:
    @tool
    async def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    one = Reply.calls(("add", '{"a": 1, "b": 2}'))
    other = Reply.calls(("add", '{"b":2,"a":1}'))
    result = played(one, other, tools=[add], limits=Limits(repeated_calls=2))
    assert (result.stop_reason, result.tool_calls) == ("repeated_call", {"add": 1})


@pytest.mark.feature("A-12")
@pytest.mark.parametrize("choice", ["required", "none"])
async def test_a_tool_choice_is_for_the_first_turn_only(client: Any, choice: Any) -> None:
    first = looks("a") if choice == "required" else says("", completion_tokens=0)
    async with Simulator(first, says("ok")) as server:
        await Agent(client=client(server), tools=[look], tool_choice=choice).run("Go")
    asked = [chat.json.get("tool_choice") for chat in server.chats]
    assert asked == ([choice, None] if choice == "required" else [choice, choice])


# ── prices ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-19")
def test_a_run_costs_what_its_tokens_cost() -> None:
    price = Price(input=2.0, cached=0.5, output=10.0)
    script = (looks("a", prompt_tokens=1000, cached_tokens=400), says("ok", prompt_tokens=2000))
    result = played(*script, prices=price)
    expected = (600 * 2.0 + 400 * 0.5 + 5 * 10.0 + 2000 * 2.0 + 5 * 10.0) / 1e6
    assert result.cost == pytest.approx(expected)


@pytest.mark.feature("A-19")
def test_cached_tokens_cost_as_others_where_they_have_no_price_of_their_own() -> None:
    result = played(says("ok", prompt_tokens=1000, cached_tokens=400), prices=Price(input=2.0))
    assert result.cost == pytest.approx(1000 * 2.0 / 1e6)


@pytest.mark.feature("A-19")
def test_without_prices_a_cost_is_none_and_never_zero() -> None:
    assert played(says("ok")).cost is None
    assert played(says("ok"), prices={"other": Price(input=1.0)}).cost is None
    assert played(says("ok"), prices={"*": Price(input=1.0)}).cost > 0
    assert played(says("ok"), prices={"m": Price(input=1.0)}).cost > 0


@pytest.mark.feature("A-19")
def test_a_model_without_a_price_makes_the_whole_cost_unknown() -> None:
    prices = {"m": Price(input=1.0)}
    script = (RateLimitError("Busy."), says("ok"))
    assert played(*script, fallback_model="n", prices=prices).cost is None
    both = {**prices, "n": Price(input=3.0)}
    result = played(*script, fallback_model="n", prices=both)
    assert result.cost == pytest.approx(30 / 1e6)


@pytest.mark.feature("A-19")
def test_a_reply_without_token_counts_makes_the_cost_unknown() -> None:
    result = played(looks("a"), "ok", prices=Price(input=1.0))
    assert (result.stop_reason, result.cost) == ("end_turn", None)


@pytest.mark.feature("A-19")
async def test_model_time_costs_by_the_hour(client: Any) -> None:
    async with Simulator(says("ok")) as server:
        agent = Agent(client=client(server), prices=Price(gpu_hour=3600.0))
        result = await agent.run("Go")
    assert result.cost == pytest.approx(result.model_time_s)
    assert result.cost is not None
    assert result.cost > 0


@pytest.mark.feature("A-19")
@pytest.mark.parametrize(
    ("most", "stop_reason", "turns"),
    [(0.000_05, "max_cost", 1), (0.000_09, "max_cost", 2), (0.001, "end_turn", 3)],
)
def test_the_cost_is_held_before_each_model_call(most: float, stop_reason: str, turns: int) -> None:
    script = [looks("a"), looks("b"), says("ok")][:turns]
    result = played(*script, prices=Price(output=10.0), limits=Limits(max_cost=most))
    assert (result.stop_reason, result.turns) == (stop_reason, turns)


@pytest.mark.feature("A-19")
@pytest.mark.parametrize(
    "options", [{"input": -1.0}, {"gpu_hour": 1.0, "output": 1.0}, {"gpu_hour": -2.0}]
)
def test_what_is_no_price_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="Price"):
        Price(**options)


@pytest.mark.feature("A-19")
def test_a_limit_of_costs_without_prices_is_refused() -> None:
    with pytest.raises(UsageError, match="needs prices="):
        Agent(limits=Limits(max_cost=1.0))


COUNTS = st.integers(0, 10**9)


@pytest.mark.feature("A-19")
@given(COUNTS, COUNTS, COUNTS, st.floats(0, 1e4), st.floats(0, 1e4))
def test_a_cost_is_never_negative(
    tokens: int, cached: int, output: int, price: float, other: float
) -> None:
    assert Price(input=price, cached=other, output=price).of(tokens, cached, output, 1.0) >= 0


# ── side by side ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-02")
@pytest.mark.parametrize("most", [1, 2, 5])
async def test_no_more_tools_run_at_once_than_the_limit(client: Any, most: int) -> None:
    running: list[int] = []
    now = 0

    @tool
    async def work(at: str) -> str:
        """Work."""
        nonlocal now
        now += 1
        running.append(now)
        for _ in range(5):
            await asyncio.sleep(0)
        now -= 1
        return at

    calls = Reply.calls(*(("work", {"at": each}) for each in "abcde"))
    async with Simulator(calls, says("ok")) as server:
        limits = Limits(max_parallel_tools=most)
        result = await Agent(client=client(server), tools=[work], limits=limits).run("Go")
    assert max(running) == most
    assert [message.text for message in result.messages[2:7]] == list("abcde")


@pytest.mark.feature("A-06")
def test_the_text_of_a_run_is_its_own_and_not_what_was_said_before() -> None:
    before = [AssistantMessage([TextBlock("Old.")])]
    agent = Agent(model="m", tools=[look], limits=Limits(max_turns=1))
    result = scripted_run(agent, "Go", [looks("a")], history=before).result
    assert (result.stop_reason, result.text) == ("max_turns", "")
