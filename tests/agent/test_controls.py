"""Controls of a session: the model, the mode, a second try; and each one that cannot work."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import vllm_agent_sdk
from vllm_agent_sdk import (
    Agent,
    Allow,
    AuthenticationError,
    BadRequestError,
    ConnectError,
    Defer,
    IdleTimeoutError,
    InternalServerError,
    ModelEnded,
    ModelNotFoundError,
    PermissionDeniedError,
    Permissions,
    RateLimitError,
    ServerOverloadedError,
    SettingsChanged,
    StreamTruncatedError,
    UnprocessableEntityError,
    UnsupportedControlError,
    UsageError,
    VLLMError,
    tool,
)
from vllm_agent_sdk.testing import Reply, Simulator, scripted_run

from .session.waiting import Gate

PAGE = Path(__file__).parents[2] / "docs" / "runs.md"
SOURCES = Path(vllm_agent_sdk.__file__).parent
OK = Reply.text("ok")


@tool(destructive=True)
async def wipe(path: str) -> str:
    """Wipe a file."""
    return f"{path} wiped"


@tool(deferred=True)
async def elsewhere(path: str) -> str:
    """Be executed elsewhere."""
    raise AssertionError(path)


@tool(background=True)
async def slow() -> str:
    """Take long."""
    await asyncio.Event().wait()
    return "done"


def defer(_call: Any, _ctx: Any) -> Defer:
    return Defer()


TOOLS = [wipe, elsewhere, slow]
WAITS = Reply.calls(("wipe", {"path": "a"}, "approval"), ("elsewhere", {"path": "b"}, "result"))
LATE = Reply.text("late", first_delay=60)


# ── each control that cannot work ────────────────────────────────────────────────────────────────


async def at_once(_session: Any) -> None:
    return None


async def after_a_run(session: Any) -> None:
    await session.run("Go")


async def while_it_runs(session: Any) -> None:
    await session.send("Go")


async def while_it_waits(session: Any) -> None:
    assert (await session.run("Go")).stop_reason == "suspended"


#: Control, what came before, the attempt, the reply, and what the reason says.
CASES: list[tuple[str, Callable[[Any], Awaitable[None]], Callable[[Any], Any], Reply, str]] = [
    ("retry", at_once, lambda s: s.retry(), OK, "did not fail"),
    ("retry", after_a_run, lambda s: s.retry(), OK, "did not fail"),
    ("retry", while_it_runs, lambda s: s.retry(), LATE, "did not fail"),
    ("retry", while_it_waits, lambda s: s.retry(), WAITS, "did not fail"),
    ("resolve", at_once, lambda s: s.resolve("c9", Allow()), OK, "waiting: nothing"),
    ("resolve", after_a_run, lambda s: s.resolve("c9", Allow()), OK, "waiting: nothing"),
    ("resolve", while_it_waits, lambda s: s.resolve("c9", Allow()), WAITS, "approval (approval)"),
    ("resolve", while_it_waits, lambda s: s.resolve("result", Allow()), WAITS, "'result' does not"),
    ("send_tool_result", at_once, lambda s: s.send_tool_result("c9", 1), OK, "waiting: nothing"),
    (
        "send_tool_result",
        while_it_waits,
        lambda s: s.send_tool_result("approval", 1),
        WAITS,
        "result (tool_result)",
    ),
    ("stop_task", after_a_run, lambda s: s.stop_task("task_1"), OK, "there are: none"),
    ("remove_directory", at_once, lambda s: s.remove_directory("/x"), OK, "is none of"),
    ("remove_directory", at_once, lambda s: s.remove_directory("/tmp"), OK, "no folder would be"),
    ("compact", after_a_run, lambda s: s.compact(), OK, "leave nothing"),
    ("compact", while_it_runs, lambda s: s.compact(), LATE, "a run is active"),
    ("compact", while_it_waits, lambda s: s.compact(), WAITS, "a run is active or unfinished"),
    ("rewind", after_a_run, lambda s: s.rewind("c1"), OK, "no checkpoints="),
    ("rewind", while_it_runs, lambda s: s.rewind("c1", files=False), LATE, "a run is active"),
    ("fork", while_it_runs, lambda s: s.fork("c1"), LATE, "a run is active"),
]


async def attempted(attempt: Callable[[Any], Any], session: Any) -> None:
    made = attempt(session)
    if asyncio.iscoroutine(made):
        await made


@pytest.mark.feature("A-17")
@pytest.mark.parametrize(
    ("control", "before", "attempt", "reply", "reason"),
    CASES,
    ids=[f"{case[0]}-{case[1].__name__}-{at}" for at, case in enumerate(CASES)],
)
async def test_a_control_that_cannot_work_says_why_before_it_does_anything(
    client: Any, control: str, before: Any, attempt: Any, reply: Reply, reason: str
) -> None:
    permissions = Permissions(can_use_tool=defer, directories=("/tmp",))
    async with Simulator(reply, OK) as server:
        agent = Agent(client=client(server), tools=TOOLS, permissions=permissions)
        async with agent.session() as session:
            await before(session)
            asked, messages, pending = len(server.requests), session.messages, session.pending
            with pytest.raises(UnsupportedControlError) as caught:
                await attempted(attempt, session)
            assert caught.value.control == control
            assert reason in caught.value.reason
            assert str(caught.value) == f"{control} cannot work here: {caught.value.reason}."
            assert isinstance(caught.value, UsageError)
            if before is not while_it_runs:
                assert len(server.requests) == asked
                assert (session.messages, session.pending) == (messages, pending)
            await session.interrupt()


@pytest.mark.feature("A-17")
async def test_a_call_that_was_answered_is_not_answered_again(client: Any) -> None:
    permissions = Permissions(can_use_tool=defer)
    async with Simulator(WAITS, OK) as server:
        agent = Agent(client=client(server), tools=TOOLS, permissions=permissions)
        async with agent.session() as session:
            await session.run("Go")
            await session.resolve("approval", Allow())
            run = await session.send_tool_result("result", "done")
            assert (await run).output == "ok"
            for again in (
                session.resolve("approval", Allow()),
                session.send_tool_result("result", 1),
            ):
                with pytest.raises(UnsupportedControlError, match="waiting: nothing"):
                    await again


@pytest.mark.feature("A-17")
async def test_a_task_that_was_stopped_is_not_stopped_again(client: Any) -> None:
    async with Simulator(Reply.calls(("slow", {}, "c1")), OK) as server:
        async with Agent(client=client(server), tools=TOOLS).session() as session:
            await session.run("Go")
            with pytest.raises(UnsupportedControlError, match="there are: task_c1"):
                await session.stop_task("task_9")
            await session.stop_task("task_c1")
            await session.run("What became of it?")
            with pytest.raises(UnsupportedControlError, match="there are: none"):
                await session.stop_task("task_c1")


@pytest.mark.feature("A-17")
async def test_an_interrupt_without_a_run_does_nothing_and_there_is_nothing_to_resume(
    client: Any,
) -> None:
    async with Simulator(OK) as server:
        async with Agent(client=client(server)).session() as session:
            await session.interrupt()
            assert await session.resume() is None
            assert (await session.run("Go")).output == "ok"
            await session.interrupt()
            assert (await session.run("Go")).output == "ok"


@pytest.mark.feature("A-17")
async def test_what_can_never_work_is_told_as_such(client: Any) -> None:
    async with Simulator(OK) as server:
        session = Agent(client=client(server)).session()
        with pytest.raises(UsageError, match="not open"):
            await session.run("Go")
        async with session:
            with pytest.raises(UsageError, match="no permission mode"):
                session.set_permission_mode("yolo")  # type: ignore[arg-type]
            for name in ("", " ", 3):
                with pytest.raises(UsageError, match="served model"):
                    session.set_model(name)  # type: ignore[arg-type]


def refusals() -> set[str]:
    """The controls that the sources refuse."""
    found: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in {"unsupported", "_waits"} and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    return found


@pytest.mark.feature("A-17")
def test_the_page_lists_every_control_that_may_be_refused_and_each_has_a_case() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("| control |"))
    rows = [line for line in lines[start + 2 :] if line.startswith("| `")]
    listed = {line.split("`")[1] for line in rows[: len({case[0] for case in CASES})]}
    assert listed == refusals() == {case[0] for case in CASES}, (
        "Add the control to 'Controls that cannot work' in docs/runs.md, and a case here."
    )


# ── the model and the mode ───────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-09")
async def test_a_mode_set_while_a_run_is_active_counts_for_its_next_call(client: Any) -> None:
    gate = Gate()
    replies = (Reply.calls(("work", {})), Reply.calls(("wipe", {"path": "a"})), OK)
    async with Simulator(*replies) as server:
        agent = Agent(client=client(server), tools=[gate.tool, wipe])
        async with agent.session() as session:
            run = await session.send("Go")
            await gate.begun.wait()
            session.set_permission_mode("bypassPermissions")
            gate.go_on.set()
            result = await run
    assert result.tool_calls == {"work": 1, "wipe": 1}


@pytest.mark.feature("A-09")
@pytest.mark.parametrize(
    ("error", "falls"),
    [
        (ConnectError("Nobody there."), True),
        (ServerOverloadedError("Full.", status=503), True),
        (InternalServerError("Broken.", status=500), True),
        (RateLimitError("Busy.", status=429), True),
        (StreamTruncatedError("Cut."), True),
        (IdleTimeoutError("Silent."), True),
        (ModelNotFoundError("Unknown.", status=404), True),
        (BadRequestError("Wrong.", status=400), False),
        (AuthenticationError("Who?", status=401), False),
        (PermissionDeniedError("No.", status=403), False),
        (UnprocessableEntityError("Wrong.", status=422), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_fallback_model_is_asked_where_the_model_cannot_answer(
    error: VLLMError, falls: bool
) -> None:
    agent = Agent(model="a", fallback_model="b")
    run = scripted_run(agent, "Go", [error, "ok"] if falls else [error])
    changes = [event for event in run.events if isinstance(event, SettingsChanged)]
    if not falls:
        assert changes == []
        assert (run.result.stop_reason, run.result.error) == ("error", error)
        return
    assert [(each.what, each.old, each.new) for each in changes] == [("model", "a", "b")]
    assert changes[0].reason == str(error)
    assert (run.result.output, run.result.model) == ("ok", "b")
    assert set(run.result.usage_by_model) == {"a", "b"}


@pytest.mark.feature("A-09")
async def test_a_model_that_the_server_does_not_have_falls_back_and_the_run_stays_there(
    client: Any,
) -> None:
    replies = (Reply.calls(("wipe", {"path": "x"})), OK)
    async with Simulator(*replies, model="b") as server:
        agent = Agent(client=client(server), model="a", fallback_model="b", tools=[wipe])
        result = await agent.run("Go")
    assert [chat.json["model"] for chat in server.chats] == ["a", "b", "b"]
    assert (result.output, result.model) == ("ok", "b")


@pytest.mark.feature("A-09")
def test_a_run_does_not_fall_back_from_its_fallback() -> None:
    agent = Agent(model="a", fallback_model="b")
    errors = [ConnectError("Nobody there."), ConnectError("Nobody there either.")]
    result = scripted_run(agent, "Go", errors).result
    assert (result.stop_reason, result.model, result.error) == ("error", "b", errors[1])


# ── a second try ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-22")
async def test_each_retry_repeats_the_call_and_the_failed_ones_stay_in_the_log(client: Any) -> None:
    usage: Any = {"prompt_tokens": 10, "completion_tokens": 5}
    replies = (
        Reply.calls(("wipe", {"path": "x"}), usage=usage),
        Reply.error(422),
        Reply.error(422),
        Reply.text("ok", usage=usage),
    )
    async with Simulator(*replies) as server:
        permissions = Permissions(allow=("wipe",))
        agent = Agent(client=client(server), tools=[wipe], permissions=permissions)
        async with agent.session() as session:
            feed = session.events(until="close")
            assert (await session.run("Go")).stop_reason == "error"
            assert (await (await session.retry())).stop_reason == "error"
            result = await (await session.retry())
            after = await session.run("And now?")
        ends = [event async for event in feed if isinstance(event, ModelEnded)]
    sent = [chat.json["messages"] for chat in server.chats]
    assert sent[1] == sent[2] == sent[3]
    assert [end.error is not None for end in ends] == [False, True, True, False, False]
    assert (result.stop_reason, result.tool_calls) == ("end_turn", {"wipe": 1})
    assert (result.usage.input_tokens, result.usage.requests) == (20, 4)
    assert after.output == "ok"


@pytest.mark.feature("A-22")
async def test_a_retry_that_follows_a_cut_answer_drops_what_was_cut(client: Any) -> None:
    async with Simulator(Reply.text("one two three four five", cut_after=900), OK) as server:
        async with Agent(client=client(server)).session() as session:
            failed = await session.run("Go")
            assert (failed.stop_reason, bool(failed.text)) == ("error", True)
            result = await (await session.retry())
    assert [message.text for message in result.messages] == ["Go", "ok"]
