"""The model asks the user: in a run, later, and when the answer is none."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    Allow,
    Defer,
    Limits,
    Permissions,
    Question,
    RunContext,
    UsageError,
    UserAnswered,
    UserAsked,
    tool,
)
from vllm_agent_sdk.sessions import MemoryStore
from vllm_agent_sdk.testing import Reply, Simulator

QUESTIONS: dict[str, Any] = {
    "questions": [
        {"id": "colours", "text": "Which colours?", "options": ["red", "blue"],
         "multi_select": True},
        {"id": "password", "text": "The password?", "secret": True},
        {"text": "How many?", "options": ["one", "two"]},
    ]
}  # fmt: skip
ASKS = Reply.calls(("ask_user_question", QUESTIONS))
OK = Reply.text("ok")
WELL = {"colours": ["red", "blue"], "password": "sesame", "How many?": "three"}
READ = {"answers": {"colours": ["red", "blue"], "password": ["sesame"], "question_3": ["three"]}}


@tool(destructive=True)
async def wipe(path: str) -> str:
    """Wipe a file."""
    return f"{path} wiped"


async def run(client: Any, ask_user: Any, *replies: Reply, **agent: Any) -> tuple[Any, list[Any]]:
    """Give the result of a run, and its events."""
    async with Simulator(*replies) as server:
        made = Agent(client=client(server), ask_user=ask_user, **agent)
        events = [event async for event in made.stream("Go")]
    return getattr(events[-1], "result", None), events


@pytest.mark.feature("H-05")
@pytest.mark.parametrize("is_async", [True, False])
async def test_the_user_is_asked_and_the_model_reads_the_answers(
    client: Any, is_async: bool
) -> None:
    asked: list[Question] = []
    contexts: list[RunContext[Any]] = []

    def answer(questions: list[Question], ctx: RunContext[Any]) -> dict[str, Any]:
        asked.extend(questions)
        contexts.append(ctx)
        return WELL

    async def answer_async(questions: list[Question], ctx: RunContext[Any]) -> dict[str, Any]:
        return answer(questions, ctx)

    result, events = await run(client, answer_async if is_async else answer, ASKS, OK)
    assert [(q.id, q.options, q.multi_select, q.secret) for q in asked] == [
        ("colours", ("red", "blue"), True, False),
        ("password", (), False, True),
        ("question_3", ("one", "two"), False, False),
    ]
    assert contexts[0].call.name == "ask_user_question"
    assert json.loads(result.messages[2].text) == READ
    kinds = [type(event) for event in events if isinstance(event, (UserAsked, UserAnswered))]
    assert kinds == [UserAsked, UserAnswered]
    assert result.tool_calls == {"ask_user_question": 1}


@pytest.mark.feature("H-05")
@pytest.mark.parametrize("mode", ["plan", "dontAsk", "default"])
async def test_a_question_needs_no_permission_in_any_mode(client: Any, mode: Any) -> None:
    permissions = Permissions(mode=mode)
    result, _ = await run(client, lambda _q, _c: WELL, ASKS, OK, permissions=permissions)
    assert json.loads(result.messages[2].text) == READ


@pytest.mark.feature("H-05")
async def test_a_single_question_takes_the_bare_text(client: Any) -> None:
    one = Reply.calls(("ask_user_question", {"questions": [{"text": "Which?"}]}))
    result, _ = await run(client, lambda _q, _c: "blue", one, OK)
    assert json.loads(result.messages[2].text) == {"answers": {"question_1": ["blue"]}}


async def broken(_questions: Any, _ctx: Any) -> Any:
    raise ValueError("broken \ud800")


@pytest.mark.feature("H-05")
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "not with a value of type NoneType"),
        ({}, "'colours' (Which colours?) is not answered"),
        ({**WELL, "password": ["a", "b"]}, "takes one answer, not 2"),
        ({**WELL, "password": ""}, "is empty"),
        ({**WELL, "password": 3}, "must be text"),
        ({**WELL, "other": "x"}, "There is no question 'other'"),
        ({**WELL, "question_3": "two"}, "answered twice"),
        ({**WELL, "password": "\ud800"}, "UsageError"),
        (Allow(), "of type Allow"),
        (broken, "ValueError: broken"),
    ],
)
async def test_of_what_is_no_answer_the_model_is_told_and_the_run_goes_on(
    client: Any, answer: Any, told: str
) -> None:
    given = answer if answer is broken else lambda _questions, _ctx: answer
    result, _ = await run(client, given, ASKS, OK)
    message = result.messages[2]
    assert (result.stop_reason, message.is_error) == ("end_turn", True)
    assert message.text.startswith("The user could not be asked: ")
    assert told in message.text
    assert "sesame" not in message.text  # what was secret stays so
    message.text.encode()


@pytest.mark.feature("H-05")
@pytest.mark.parametrize(
    "arguments", [{}, {"questions": []}, {"questions": "Which?"}, {"questions": [{"id": "x"}]}]
)
async def test_what_is_no_question_is_told_to_the_model_and_nobody_is_asked(
    client: Any, arguments: dict[str, Any]
) -> None:
    def answer(_questions: Any, _ctx: Any) -> Any:
        raise AssertionError("asked")

    result, events = await run(client, answer, Reply.calls(("ask_user_question", arguments)), OK)
    assert "Invalid arguments for ask_user_question" in result.messages[2].text
    assert not any(isinstance(event, UserAsked) for event in events)


@pytest.mark.feature("H-05")
async def test_an_answer_can_come_after_the_session_was_opened_again(client: Any) -> None:
    store = MemoryStore()
    async with Simulator(ASKS, OK) as server:
        agent = Agent(client=client(server), ask_user=lambda _questions, _ctx: Defer())
        async with agent.session("s", store=store) as session:
            result = await session.run("Go")
            assert result.stop_reason == "suspended"
        async with agent.session("s", store=store) as session:
            (pending,) = session.pending
            assert pending.kind == "question"
            with pytest.raises(UsageError, match="is not answered"):
                await session.resolve(pending.call.id, {"colours": "red"})
            assert session.pending  # a wrong answer is no answer
            result = await (await session.resolve(pending.call.id, WELL))
    assert result.output == "ok"
    assert json.loads(result.messages[2].text) == READ


@pytest.mark.feature("H-05")
@pytest.mark.parametrize("how", ["interrupt", "max_seconds"])
async def test_a_user_who_never_answers_does_not_keep_a_run_from_its_end(
    client: Any, how: str
) -> None:
    asked = asyncio.Event()

    async def never(_questions: Any, _ctx: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    limits = Limits(max_seconds=0.2) if how == "max_seconds" else Limits()
    async with Simulator(ASKS) as server:
        agent = Agent(client=client(server), ask_user=never, limits=limits)
        async with agent.stream("Go") as run:
            await asked.wait()
            if how == "interrupt":
                await run.interrupt()
            result = await run
    assert result.stop_reason == {"interrupt": "interrupted"}.get(how, how)
    assert result.messages[2].is_error


@pytest.mark.feature("H-05")
@pytest.mark.parametrize("fn", [lambda questions: "x", "blue", lambda a, b, c: "x"])
def test_a_callback_of_another_shape_is_refused_before_anything_runs(fn: Any) -> None:
    with pytest.raises(UsageError, match=r"ask_user= takes a function of \(questions, ctx\)"):
        Agent(ask_user=fn)


@pytest.mark.feature("H-04")
@pytest.mark.feature("H-05")
async def test_an_approval_and_a_question_wait_side_by_side_and_are_answered_apart(
    client: Any,
) -> None:
    question = ("ask_user_question", {"questions": [{"text": "Which?"}]})
    both = Reply.calls(question, ("wipe", {"path": "a"}))
    async with Simulator(both, OK) as server:
        agent = Agent(
            client=client(server),
            tools=[wipe],
            permissions=Permissions(can_use_tool=lambda _call, _ctx: Defer()),
            ask_user=lambda _questions, _ctx: Defer(),
        )
        async with agent.session() as session:
            await session.run("Go")
            kinds = {pending.kind: pending.call.id for pending in session.pending}
            assert set(kinds) == {"question", "approval"}
            with pytest.raises(UsageError):
                await session.resolve(kinds["question"], Allow())
            await session.resolve(kinds["question"], "blue")
            result = await (await session.resolve(kinds["approval"], Allow()))
    assert result.output == "ok"
    assert result.messages[3].text == "a wiped"
