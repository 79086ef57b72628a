"""Permissions in runs: who is asked, what an answer does, what is remembered, which folders."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    Allow,
    Defer,
    Deny,
    Interrupted,
    Limits,
    PermissionAsked,
    PermissionDecided,
    Permissions,
    RunContext,
    SettingsChanged,
    ToolCall,
    ToolMessage,
    UnsupportedControlError,
    UsageError,
    tool,
)
from vllm_agent_sdk.sessions import MemoryStore
from vllm_agent_sdk.testing import Reply, Simulator

ran: list[tuple[str, str]] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@tool(read_only=True, reads_files=("path",))
async def read(path: str) -> str:
    """Read a file."""
    ran.append(("read", path))
    return f"what {path} holds"


@tool(destructive=True)
async def wipe(path: str) -> str:
    """Wipe a file."""
    ran.append(("wipe", path))
    return f"{path} wiped"


def wipes(*paths: str) -> Reply:
    return Reply.calls(*(("wipe", {"path": path}) for path in paths))


OK = Reply.text("ok")


async def run(client: Any, *replies: Reply, **agent: Any) -> tuple[Any, list[Any]]:
    """Give the result of a run, and its events."""
    async with Simulator(*replies) as server:
        made = Agent(client=client(server), tools=[read, wipe], **agent)
        events = [event async for event in made.stream("Go")]
    return getattr(events[-1], "result", None), events


# ── can_use_tool ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("H-04")
@pytest.mark.parametrize("is_async", [True, False])
async def test_who_is_asked_gets_the_call_and_where_it_comes_from(
    client: Any, is_async: bool
) -> None:
    asked: list[tuple[ToolCall, RunContext[Any]]] = []

    async def waits(call: ToolCall, ctx: RunContext[Any]) -> Allow:
        asked.append((call, ctx))
        return Allow()

    def blocks(call: ToolCall, ctx: RunContext[Any]) -> Allow:
        asked.append((call, ctx))
        return Allow()

    permissions = Permissions(can_use_tool=waits if is_async else blocks)
    async with Simulator(wipes("a"), OK) as server:
        agent = Agent(client=client(server), tools=[wipe], permissions=permissions, deps_type=str)
        result = await agent.run("Go", deps="deps")
    ((call, ctx),) = asked
    assert (call.name, call.arguments) == ("wipe", {"path": "a"})
    assert (ctx.deps, ctx.turn, ctx.run_id, ctx.agent_id) == ("deps", 1, result.run_id, "main")
    assert ran == [("wipe", "a")]
    assert result.permission_denials == []


@pytest.mark.feature("H-04")
async def test_a_yes_may_change_the_arguments_and_the_model_reads_what_it_wrote(
    client: Any,
) -> None:
    permissions = Permissions(can_use_tool=lambda _call, _ctx: Allow({"path": "b"}))
    result, _ = await run(client, wipes("a"), OK, permissions=permissions)
    assert ran == [("wipe", "b")]
    assert result.messages[1].tool_calls[0].arguments == {"path": "a"}
    assert result.messages[2].text == "b wiped"


@pytest.mark.feature("H-04")
async def test_changed_arguments_do_not_get_past_a_rule_that_denies(client: Any) -> None:
    permissions = Permissions(
        deny=("wipe(path=/etc/*)",), can_use_tool=lambda _call, _ctx: Allow({"path": "/etc/x"})
    )
    result, _ = await run(client, wipes("a"), OK, permissions=permissions)
    assert ran == []
    assert len(result.permission_denials) == 1


@pytest.mark.feature("H-04")
async def test_a_no_is_read_by_the_model_and_listed(client: Any) -> None:
    permissions = Permissions(can_use_tool=lambda _call, _ctx: Deny("Keep it."))
    result, events = await run(client, wipes("a"), OK, permissions=permissions)
    answer = result.messages[2]
    assert (answer.text, answer.is_error, result.stop_reason) == ("Keep it.", True, "end_turn")
    assert [call.name for call in result.permission_denials] == ["wipe"]
    asked = [event for event in events if isinstance(event, (PermissionAsked, PermissionDecided))]
    assert [type(event) for event in asked] == [PermissionAsked, PermissionDecided]
    assert (asked[1].decision, asked[1].reason) == ("deny", "Keep it.")


@pytest.mark.feature("H-04")
async def test_a_no_that_interrupts_ends_the_run_with_every_call_answered(client: Any) -> None:
    permissions = Permissions(can_use_tool=lambda _call, _ctx: Deny("Stop.", interrupt=True))
    calls = Reply.calls(("wipe", {"path": "a"}), ("read", {"path": "b"}))
    result, _ = await run(client, calls, permissions=permissions)
    assert result.stop_reason == "denied"
    answers = [message for message in result.messages if isinstance(message, ToolMessage)]
    assert len(answers) == 2
    assert ("wipe", "a") not in ran


@pytest.mark.feature("H-04")
@pytest.mark.parametrize(
    ("remember", "asked"),
    [
        (None, ["a", "a", "b"]),
        ("wipe", ["a"]),
        ("wipe(path=a*)", ["a", "b"]),
        (("wipe(path=a)", "wipe(path=b)"), ["a"]),
    ],
)
async def test_a_grant_is_as_wide_as_its_rule_and_no_wider(
    client: Any, remember: Any, asked: list[str]
) -> None:
    seen: list[str] = []

    def answer(call: ToolCall, _ctx: Any) -> Allow:
        seen.append((call.arguments or {})["path"])
        return Allow(remember=remember)

    replies = (wipes("a"), wipes("a"), wipes("b"), OK)
    await run(client, *replies, permissions=Permissions(can_use_tool=answer))
    assert seen == asked
    assert len(ran) == 3


@pytest.mark.feature("H-04")
async def test_an_answer_for_one_call_is_no_answer_for_another_beside_it(client: Any) -> None:
    answers = iter([Allow(), Deny("Not that.")])

    async def answer(_call: Any, _ctx: Any) -> Any:
        return next(answers)

    permissions = Permissions(can_use_tool=answer)
    result, _ = await run(client, wipes("a", "a"), OK, permissions=permissions)
    assert ran == [("wipe", "a")]
    assert len(result.permission_denials) == 1


@pytest.mark.feature("H-04")
async def test_an_approval_is_answered_after_the_session_was_opened_again(client: Any) -> None:
    store = MemoryStore()
    async with Simulator(wipes("a", "b"), OK) as server:
        permissions = Permissions(can_use_tool=lambda _call, _ctx: Defer())
        agent = Agent(client=client(server), tools=[wipe], permissions=permissions)
        async with agent.session("s", store=store) as session:
            assert (await session.run("Go")).stop_reason == "suspended"
        async with agent.session("s", store=store) as session:
            first, second = session.pending
            await session.resolve(second.call.id, Allow({"path": "c"}))
            run = await session.resolve(first.call.id, Deny("Keep it."))
            result = await run
    assert result.output == "ok"
    assert ran == [("wipe", "c")]
    assert [message.text for message in result.messages[2:4]] == ["Keep it.", "c wiped"]


# ── answers that are none ────────────────────────────────────────────────────────────────────────


async def broken(_call: Any, _ctx: Any) -> Any:
    raise ValueError("broken \ud800")


def cancels(_call: Any, _ctx: Any) -> Any:
    raise asyncio.CancelledError


@pytest.mark.feature("H-04")
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "not NoneType"),
        (True, "not bool"),
        ("yes", "not str"),
        ({"behavior": "allow"}, "not dict"),
        (Allow(input=["a"]), "takes all arguments as a dict, not list"),  # type: ignore[arg-type]
        (Allow(input={"path": object()}), "cannot be written as JSON"),
        (Allow(input={"path": "\ud800"}), "UsageError"),
        (Allow(remember="no rule!"), "no rule!"),
        (Allow(remember=(3,)), "UsageError"),  # type: ignore[arg-type]
        (Deny(3), "Deny(message=…) takes text, not int"),  # type: ignore[arg-type]
        (Deny("\ud800"), "UsageError"),
        (broken, "ValueError: broken"),
        (cancels, "RuntimeError"),
        (StopIteration(), "not StopIteration"),
    ],
)
async def test_whatever_is_no_answer_is_a_no_that_says_why_and_the_run_goes_on(
    client: Any, answer: Any, told: str
) -> None:
    given = answer if callable(answer) else lambda _call, _ctx: answer
    result, _ = await run(client, wipes("a"), OK, permissions=Permissions(can_use_tool=given))
    assert (result.stop_reason, ran) == ("end_turn", [])
    text = result.messages[2].text
    assert text.startswith("wipe was not permitted: can_use_tool failed (")
    assert told in text
    text.encode()  # it can be stored and sent


@pytest.mark.feature("H-04")
@pytest.mark.parametrize("how", ["interrupt", "max_seconds"])
async def test_who_never_answers_does_not_keep_a_run_from_its_end(client: Any, how: str) -> None:
    asked = asyncio.Event()

    async def never(_call: Any, _ctx: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    limits = Limits(max_seconds=0.2) if how == "max_seconds" else Limits()
    async with Simulator(wipes("a")) as server:
        permissions = Permissions(can_use_tool=never)
        agent = Agent(client=client(server), tools=[wipe], permissions=permissions, limits=limits)
        async with agent.stream("Go") as run:
            await asked.wait()
            if how == "interrupt":
                await run.interrupt()
            result = await run
    assert result.stop_reason == {"interrupt": "interrupted"}.get(how, how)
    assert "Not executed" in result.messages[2].text
    assert ran == []


@pytest.mark.feature("H-04")
@pytest.mark.parametrize("fn", [lambda call: Allow(), 3, lambda a, b, c: Allow(), "allow"])
def test_a_callback_of_another_shape_is_refused_before_anything_runs(fn: Any) -> None:
    with pytest.raises(UsageError, match=r"can_use_tool=…\) takes a function of \(call, ctx\)"):
        Permissions(can_use_tool=fn)


@pytest.mark.feature("H-03")
@pytest.mark.parametrize("field", ["permissions", "hooks", "limits", "sampling", "context"])
def test_a_group_of_options_of_another_type_is_refused(field: str) -> None:
    with pytest.raises(UsageError, match=f"{field}= takes {field.title()}"):
        Agent(**{field: {"mode": "plan"}})  # type: ignore[arg-type]


# ── nobody answers, and controls ─────────────────────────────────────────────────────────────────


@pytest.mark.feature("H-03")
@pytest.mark.parametrize(
    ("permissions", "told"),
    [
        ({}, "Permissions(allow=('wipe',)) permits it."),
        ({"ask": ("wipe",)}, "It runs if no rule in Permissions(ask=…) names it."),
    ],
)
async def test_without_an_answerer_the_message_names_the_rule_to_change(
    client: Any, permissions: dict[str, Any], told: str
) -> None:
    result, _ = await run(client, wipes("a"), OK, permissions=Permissions(**permissions))
    assert result.messages[2].text.endswith(f"in this run. {told}")
    # What it says is so.
    allowed = Permissions(allow=("wipe",))
    await run(client, wipes("a"), OK, permissions=allowed)
    assert ran == [("wipe", "a")]


@pytest.mark.feature("H-06")
async def test_without_an_answerer_a_path_outside_names_the_folders(
    client: Any, tmp_path: Path
) -> None:
    permissions = Permissions(directories=(tmp_path,), allow=("read",))
    result, _ = await run(client, reads("/etc/x"), OK, permissions=permissions)
    assert result.messages[2].text.endswith(
        "Permissions(directories=…) is where folders are added."
    )


@pytest.mark.feature("H-03")
@pytest.mark.parametrize(
    ("mode", "ran_after"), [("bypassPermissions", 1), ("plan", 0), ("dontAsk", 0)]
)
async def test_a_mode_that_is_set_counts_from_the_next_call_on(
    client: Any, mode: Any, ran_after: int
) -> None:
    async with Simulator(wipes("a"), OK, wipes("b"), OK) as server:
        async with Agent(client=client(server), tools=[wipe]).session() as session:
            await session.run("Go")
            assert ran == []
            session.set_permission_mode(mode)
            await session.run("Again")
    assert len(ran) == ran_after


# ── folders ──────────────────────────────────────────────────────────────────────────────────────


def reads(*paths: Path | str) -> Reply:
    return Reply.calls(*(("read", {"path": str(path)}) for path in paths))


@pytest.mark.feature("H-06")
async def test_a_path_outside_the_folders_asks_and_links_are_followed(
    client: Any, tmp_path: Path
) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    (outside / "back").symlink_to(inside)
    asked: list[str] = []

    def answer(call: ToolCall, _ctx: Any) -> Deny:
        asked.append((call.arguments or {})["path"])
        return Deny("Outside.")

    permissions = Permissions(directories=(inside,), can_use_tool=answer)
    paths = [
        inside / "a",
        inside / "new" / "deep" / "file",
        inside / "link" / "new",
        inside / ".." / "out" / "a",
        outside / "a",
        inside / "link",
    ]
    await run(client, reads(*paths), OK, permissions=permissions)
    assert asked == [str(path) for path in paths[2:]]
    assert {path for _, path in ran} == {str(path) for path in paths[:2]}


@pytest.mark.feature("H-06")
async def test_folders_are_added_and_removed_while_a_session_is_open(
    client: Any, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    replies = (reads(two / "a"), OK, reads(two / "b"), OK, reads(one / "c", two / "d"), OK)
    async with Simulator(*replies) as server:
        permissions = Permissions(directories=(one,))
        agent = Agent(client=client(server), tools=[read], permissions=permissions)
        async with agent.session() as session:
            feed = session.events(until="close")
            await session.run("Go")
            session.add_directory(two)
            await session.run("Go")
            session.remove_directory(one)
            await session.run("Go")
            with pytest.raises(UnsupportedControlError, match="no folder would be left"):
                session.remove_directory(two)
            with pytest.raises(UnsupportedControlError, match="is none of"):
                session.remove_directory(one)
        changes = [event async for event in feed if isinstance(event, SettingsChanged)]
    assert [os.path.basename(path) for _, path in ran] == ["b", "d"]
    assert [(change.what, change.new) for change in changes] == [
        ("directories", [str(one), str(two)]),
        ("directories", [str(two)]),
    ]


@pytest.mark.feature("H-06")
async def test_arguments_that_somebody_changed_are_held_against_the_folders_too(
    client: Any, tmp_path: Path
) -> None:
    from vllm_agent_sdk import Hooks, Matcher, Rewrite

    def away(_event: Any) -> Rewrite:
        return Rewrite({"path": "/etc/passwd"})

    permissions = Permissions(directories=(tmp_path,))
    hooks = Hooks(pre_tool_use=(Matcher("read", away),))
    result, _ = await run(client, reads(tmp_path / "a"), OK, permissions=permissions, hooks=hooks)
    assert ran == []
    assert "outside" in result.messages[2].text


@pytest.mark.feature("A-08")
async def test_an_interrupt_while_somebody_is_asked_is_an_event(client: Any) -> None:
    asked = asyncio.Event()

    async def never(_call: Any, _ctx: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    async with Simulator(wipes("a")) as server:
        permissions = Permissions(can_use_tool=never)
        agent = Agent(client=client(server), tools=[wipe], permissions=permissions)
        async with agent.stream("Go") as run:
            await asked.wait()
            await run.interrupt()
            events = [event async for event in run]
    assert sum(isinstance(event, Interrupted) for event in events) == 1
