"""Every way in which a run ends: one result, all its fields, and a conversation to go on with."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest

from vllm_agent_sdk import (
    Agent,
    AssistantMessage,
    BudgetExceededError,
    ContextLengthError,
    Deny,
    HookEvent,
    Hooks,
    Limits,
    Matcher,
    OutputValidationError,
    Permissions,
    Price,
    RunEnded,
    RunError,
    RunResult,
    RunSuspended,
    Stop,
    StreamTruncatedError,
    TextDelta,
    ToolArgumentsError,
    ToolDeniedError,
    ToolMessage,
    Usage,
    UserMessage,
    VLLMError,
    tool,
)
from vllm_agent_sdk.testing import Reply, ReplyUsage, Simulator
from vllm_agent_sdk.types.results import StopReason

PAGE = Path(__file__).parents[2] / "docs" / "runs.md"
LOOK = ("look", {"at": "a"})
USED: ReplyUsage = {"prompt_tokens": 10, "completion_tokens": 5}


@tool
async def look(at: str) -> str:
    """Look at something."""
    return f"{at} is green"


@tool(destructive=True)
async def wipe(at: str) -> str:
    """Wipe something."""
    raise AssertionError(f"{at} was wiped")


@dataclass
class Answer:
    """What is asked for where the output is typed."""

    celsius: int


def never(_call: Any, _ctx: Any) -> Deny:
    return Deny("No.", interrupt=True)


def stop(_event: HookEvent) -> Stop:
    return Stop("Enough.")


async def at_the_first_word(run: Any) -> None:
    async for event in run:
        if isinstance(event, TextDelta):
            await run.interrupt()
            return


@dataclass
class Exit:
    """How a stop reason comes about.

    Attributes:
        replies: What the server says.
        agent: What the agent is made with.
        raises: What `raise_for_error()` raises.
        act: What is done while the run goes on.
        text: The result's text.
        finish_reason: The server's, of the last model call.
        turns: Turns in which the model was asked.
        answered: Model calls that were answered; unset: one in each turn.
    """

    replies: tuple[Reply, ...]
    agent: dict[str, Any] = field(default_factory=dict)
    raises: type[Exception] | None = None
    act: Callable[[Any], Awaitable[None]] | None = None
    text: str = ""
    finish_reason: str | None = "tool_calls"
    turns: int = 1
    answered: int | None = None


def ended_by(finish_reason: str) -> Exit:
    reply = Reply.text("half", finish_reason=finish_reason, usage=USED)
    return Exit((reply,), raises=RunError, text="half", finish_reason=finish_reason)


def looks(*at: str, **options: Any) -> Reply:
    return Reply.calls(*(("look", {"at": each}) for each in at), usage=USED, **options)


TOOLS = {"tools": [look, wipe]}
WIPES = (looks("a"), Reply.calls(LOOK, ("wipe", {"at": "b"}), usage=USED), Reply.text("no"))

EXITS: dict[StopReason, Exit] = {
    "end_turn": Exit(
        (looks("a"), Reply.text("Green.", usage=USED)),
        TOOLS,
        text="Green.",
        finish_reason="stop",
        turns=2,
    ),
    "length": ended_by("length"),
    "refusal": ended_by("content_filter"),
    "aborted": ended_by("abort"),
    "repetition": ended_by("repetition"),
    "empty_reply": Exit(
        (looks("a"), Reply.text("", usage=USED)),
        TOOLS,
        RunError,
        finish_reason="stop",
        turns=2,
        answered=3,
    ),
    "suspended": Exit(WIPES, {**TOOLS, "permissions": Permissions(unanswered="suspend")}, turns=2),
    "max_turns": Exit(
        (looks("a", text="first"), looks("b", text="second"), looks("c")),
        {**TOOLS, "limits": Limits(max_turns=2)},
        BudgetExceededError,
        text="second",
        turns=2,
    ),
    "max_tool_calls": Exit(
        (looks("a"), looks("b", "c", "d")),
        {**TOOLS, "limits": Limits(max_tool_calls=2)},
        BudgetExceededError,
        turns=2,
    ),
    "max_total_tokens": Exit(
        (looks("a"), looks("b"), looks("c")),
        {**TOOLS, "limits": Limits(max_total_tokens=30)},
        BudgetExceededError,
        turns=2,
    ),
    "max_seconds": Exit(
        (looks("a"), Reply.text("one two three", stall_after=3)),
        {**TOOLS, "limits": Limits(max_seconds=0.3)},
        BudgetExceededError,
        text="one two",
        turns=1,
    ),
    "max_cost": Exit(
        (looks("a"), looks("b"), looks("c")),
        {**TOOLS, "limits": Limits(max_cost=1.0), "prices": Price(output=100_000)},
        BudgetExceededError,
        turns=2,
    ),
    "repeated_call": Exit((looks("a"), looks("a"), looks("a", "b")), TOOLS, RunError, turns=3),
    "invalid_tool_call": Exit(
        (looks("a"), Reply.calls(("look", '{"at": '), ("fly", {}), usage=USED)),
        {**TOOLS, "limits": Limits(repairs=1)},
        ToolArgumentsError,
        turns=3,
    ),
    "output_invalid": Exit(
        (Reply.text('{"celsius": "warm"}', usage=USED),),
        {"output": Answer, "limits": Limits(repairs=1)},
        OutputValidationError,
        text='{"celsius": "warm"}',
        finish_reason="stop",
        turns=2,
    ),
    "context_overflow": Exit(
        (looks("a"), Reply.context_overflow()),
        TOOLS,
        ContextLengthError,
        finish_reason=None,
        turns=2,
        answered=1,
    ),
    "denied": Exit(
        WIPES,
        {**TOOLS, "permissions": Permissions(can_use_tool=never)},
        ToolDeniedError,
        turns=2,
    ),
    "interrupted": Exit(
        (looks("a"), Reply.text("one two three", stall_after=3)),
        TOOLS,
        act=at_the_first_word,
        text="one two",
    ),
    "hook_stopped": Exit(
        WIPES, {**TOOLS, "hooks": Hooks(pre_tool_use=(Matcher("wipe", stop),))}, turns=2
    ),
    "error": Exit(
        (looks("a"), Reply.text("one two three four five", cut_after=900)),
        TOOLS,
        StreamTruncatedError,
        text="one two",
        finish_reason=None,
        turns=2,
        answered=1,
    ),
}


def assert_answered(result: RunResult[Any]) -> None:
    """Every call has one answer, in the order of the calls, right after them."""
    messages = list(result.messages)
    waiting = [pending.call.id for pending in result.pending]
    while messages:
        message = messages.pop(0)
        assert not isinstance(message, ToolMessage), "an answer to nobody's call"
        if isinstance(message, AssistantMessage) and message.tool_calls:
            calls = [call.id for call in message.tool_calls]
            if waiting and calls[-1] in waiting:
                assert not messages
                return
            answers = [messages.pop(0) for _ in calls]
            assert [getattr(answer, "call_id", None) for answer in answers] == calls


@pytest.mark.feature("A-05")
@pytest.mark.feature("A-06")
@pytest.mark.parametrize("reason", get_args(StopReason))
async def test_every_exit_gives_one_result_with_all_its_fields(
    client: Any, reason: StopReason
) -> None:
    way = EXITS[reason]
    async with Simulator(*way.replies) as server:
        agent = Agent(client=client(server), **way.agent)
        async with agent.stream("Go") as run:
            if way.act is not None:
                await way.act(run)
            events = [event async for event in run]
    result = run.result

    last = events[-1]
    assert isinstance(last, RunSuspended if reason == "suspended" else RunEnded)
    assert sum(isinstance(event, (RunEnded, RunSuspended)) for event in events) == 1
    if isinstance(last, RunEnded):
        assert last.result == result
    assert result.stop_reason == reason
    assert result.text == way.text
    assert result.finish_reason == way.finish_reason
    assert result.turns == way.turns
    assert result.usage == sum(result.usage_by_turn, Usage()) == result.usage_by_model["sim-model"]
    answered = way.turns if way.answered is None else way.answered
    assert (result.usage.input_tokens, result.usage.output_tokens) == (10 * answered, 5 * answered)
    assert result.model == "sim-model"
    assert result.turn_mode == ("native" if "tools" in way.agent else "plain")
    assert result.run_id == events[0].run_id
    assert 0 < result.model_time_s <= result.duration_s
    assert result.ttft_s is not None
    assert (result.cost is None) == ("prices" not in way.agent)
    assert bool(result.pending) == (reason == "suspended")
    assert result.messages[0] == UserMessage("Go")
    assert_answered(result)


@pytest.mark.feature("A-06")
@pytest.mark.parametrize("reason", get_args(StopReason))
async def test_what_is_raised_for_an_exit_is_its_cause_or_names_the_limit(
    client: Any, reason: StopReason
) -> None:
    way = EXITS[reason]
    async with Simulator(*way.replies) as server:
        async with Agent(client=client(server), **way.agent).stream("Go") as run:
            if way.act is not None:
                await way.act(run)
            result = await run
    assert result.is_error == (way.raises is not None)
    if way.raises is None:
        result.raise_for_error()
    else:
        with pytest.raises(way.raises) as caught:
            result.raise_for_error()
        assert type(caught.value) is way.raises
        if isinstance(caught.value, RunError):
            assert (caught.value.stop_reason, caught.value.result) == (reason, result)
    if reason == "end_turn":
        assert result.output == way.text
    else:
        with pytest.raises(way.raises or RunError):
            _ = result.output


@pytest.mark.feature("A-06")
@pytest.mark.parametrize("reason", get_args(StopReason))
async def test_a_conversation_goes_on_after_every_exit(client: Any, reason: StopReason) -> None:
    way = EXITS[reason]
    async with Simulator(*way.replies) as server:
        async with Agent(client=client(server), **way.agent).stream("Go") as run:
            if way.act is not None:
                await way.act(run)
            result = await run
    async with Simulator(Reply.text("Fine.")) as server:
        agent = Agent(client=client(server), tools=[look, wipe])
        following = await agent.run("And now?", history=result.messages)
    assert following.output == "Fine."
    assert following.messages[: len(result.messages)] == result.messages
    sent = server.chats[0].json["messages"]
    assert sent[-1] == {"role": "user", "content": "And now?"}
    for at, message in enumerate(sent):
        ids = [call["id"] for call in message.get("tool_calls", ())]
        answers = [each.get("tool_call_id") for each in sent[at + 1 : at + 1 + len(ids)]]
        assert answers == ids


#: Where a whole reply comes to the same end another way.
WHOLE: dict[StopReason, tuple[Reply, ...]] = {
    "max_seconds": (looks("a"), Reply.text("late", first_delay=60)),
    "invalid_tool_call": (Reply.calls(("fly", {})),),
    "error": (looks("a"), Reply.error(422)),
}


@pytest.mark.feature("A-06")
@pytest.mark.parametrize("reason", [each for each in EXITS if each != "interrupted"])
async def test_whole_replies_end_a_run_for_the_same_reasons(
    client: Any, reason: StopReason
) -> None:
    replies = WHOLE.get(reason, EXITS[reason].replies)
    async with Simulator(*replies) as server:
        agent = Agent(client=client(server), streaming=False, **EXITS[reason].agent)
        result = await agent.run("Go")
    assert result.stop_reason == reason
    assert_answered(result)


#: Reasons of a server that Responses has no words for; and what needs an end in the middle.
UNSAID = {"refusal", "aborted", "repetition", "interrupted"}


@pytest.mark.feature("A-06")
@pytest.mark.feature("A-15")
@pytest.mark.parametrize("reason", [each for each in EXITS if each not in UNSAID])
async def test_runs_over_responses_end_for_the_same_reasons(
    client: Any, reason: StopReason
) -> None:
    way = EXITS[reason]
    async with Simulator(*WHOLE.get(reason, way.replies)) as server:
        agent = Agent(client=client(server), api="responses", **way.agent)
        result = await agent.run("Go")
    assert result.stop_reason == reason
    assert result.usage == sum(result.usage_by_turn, Usage())
    assert_answered(result)
    if way.raises is not None:
        with pytest.raises(RunError if issubclass(way.raises, RunError) else VLLMError):
            result.raise_for_error()


def rows() -> dict[str, list[str]]:
    """The table of exits in the page, by stop reason."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("| stop_reason |"))
    found: dict[str, list[str]] = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        found[first.strip("`")] = rest
    return found


@pytest.mark.feature("A-05")
def test_the_page_has_every_stop_reason_and_each_has_a_test() -> None:
    assert list(rows()) == list(get_args(StopReason)) == list(EXITS)


@pytest.mark.feature("A-06")
@pytest.mark.parametrize("reason", get_args(StopReason))
def test_the_page_says_what_an_exit_raises(reason: StopReason) -> None:
    _when, _kept, is_error, raises = rows()[reason]
    way = EXITS[reason]
    assert is_error == ("no" if way.raises is None else "yes")
    if way.raises is None:
        assert raises == "\N{EN DASH}"
    elif reason == "error":
        base = way.raises.__mro__[1].__name__
        assert base in re.findall(r"`(\w+)`", raises)
    else:
        assert raises == f"`{way.raises.__name__}`"
