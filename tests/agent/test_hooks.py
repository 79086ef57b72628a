"""Hooks in runs: what each event tells, what each output does, and what becomes of failures."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from vllm_agent_sdk import (
    AddContext,
    Agent,
    Allow,
    Ask,
    Block,
    Context,
    Continue,
    HookEvent,
    HookRan,
    Hooks,
    Limits,
    Matcher,
    Permissions,
    Rewrite,
    RewriteOutput,
    RunResult,
    Stop,
    UserMessage,
    tool,
)
from vllm_agent_sdk.testing import Reply, Simulator, SimulatorRequest
from vllm_agent_sdk.types.hooks import HOOK_OUTPUTS

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@tool
async def look(at: str) -> str:
    """Look at something."""
    ran.append(f"look {at}")
    return f"{at} is green"


@tool
async def fail(at: str) -> str:
    """Fail."""
    ran.append(f"fail {at}")
    raise ValueError(f"{at} is gone")


@tool(destructive=True)
async def wipe(at: str) -> str:
    """Wipe something."""
    ran.append(f"wipe {at}")
    return f"{at} is wiped"


@tool(deferred=True)
async def elsewhere(at: str) -> str:
    """Be executed elsewhere."""
    raise AssertionError(at)


TOOLS = (look, fail, wipe, elsewhere)
CALLS = (
    ("look", {"at": "a"}),
    ("fail", {"at": "b"}),
    ("wipe", {"at": "c"}),
    ("helper", {"prompt": "help"}),
)


def permit(_call: Any, _ctx: Any) -> Allow:
    return Allow()


def model() -> Callable[[SimulatorRequest], Reply]:
    """A model that makes every event come about: "hi", "go" and "last" are its prompts."""
    overflowed: list[bool] = []

    def answer(request: SimulatorRequest) -> Reply:
        last = request.json["messages"][-1]
        said = str(last["content"])
        if last["role"] == "tool" and not overflowed:
            overflowed.append(True)
            return Reply.context_overflow()
        if last["role"] == "tool":
            return Reply.text("ok")
        if said.startswith("Summarise"):
            return Reply.text("They greeted.")
        if said.startswith("help"):
            return Reply.text("helped")
        if said.startswith("go"):
            return Reply.calls(*CALLS)
        if said.startswith("last"):
            return Reply.calls(("elsewhere", {"at": "d"}))
        return Reply.text("ok")

    return answer


async def session_of(client: Any, hooks: Hooks) -> tuple[list[str], Any]:
    """Run "hi", "go" and "last" in a session; give how they ended, and the stored events."""
    async with Simulator(model()) as server:
        agent = Agent(
            client=client(server),
            tools=[*TOOLS, Agent(description="Helps.").as_tool("helper")],
            permissions=Permissions(can_use_tool=permit),
            context=Context(keep_last=1),
            hooks=hooks,
        )
        async with agent.session("s1") as session:
            feed = session.events(after=0, until="close")
            ended = [(await session.run(prompt)).stop_reason for prompt in ("hi", "go", "last")]
        return ended, [event async for event in feed]


# ── the twelve events ────────────────────────────────────────────────────────────────────────────

#: What is told at each: (tool, input, output, error, prompt).
TOLD: dict[str, list[tuple[Any, ...]]] = {
    "session_start": [(None, None, None, None, None)],
    "session_end": [(None, None, None, None, None)],
    "user_prompt_submit": [(None, None, None, None, text) for text in ("hi", "go", "last")],
    "pre_tool_use": [
        ("look", {"at": "a"}, None, None, None),
        ("fail", {"at": "b"}, None, None, None),
        ("wipe", {"at": "c"}, None, None, None),
        ("helper", {"prompt": "help"}, None, None, None),
        ("elsewhere", {"at": "d"}, None, None, None),
    ],
    "permission_request": [("wipe", {"at": "c"}, None, None, None)],
    "post_tool_use": [
        ("look", {"at": "a"}, "a is green", None, None),
        ("wipe", {"at": "c"}, "c is wiped", None, None),
        ("helper", {"prompt": "help"}, "helped", None, None),
    ],
    "post_tool_use_failure": [("fail", {"at": "b"}, None, "ValueError: b is gone", None)],
    "subagent_start": [("helper", {"prompt": "help"}, None, None, None)],
    "subagent_stop": [("helper", {"prompt": "help"}, "helped", None, None)],
    "stop": [(None, None, None, None, "ok"), (None, None, None, None, "ok")],
    "pre_compact": [(None, None, None, None, None)],
    "notification": [(None, None, None, "The run waits for an answer.", None)],
}


@pytest.mark.feature("H-01")
def test_the_events_told_here_are_all_there_are() -> None:
    assert set(TOLD) == set(HOOK_OUTPUTS)


@pytest.mark.feature("H-01")
async def test_each_event_runs_its_hooks_and_tells_what_it_is_about(client: Any) -> None:
    seen: dict[str, list[HookEvent]] = {event: [] for event in TOLD}

    async def note(event: HookEvent) -> None:
        seen[event.event].append(event)

    hooks = Hooks(**{event: (Matcher("*", note),) for event in TOLD})  # type: ignore[arg-type]
    ended, events = await session_of(client, hooks)
    assert ended == ["end_turn", "end_turn", "suspended"]
    for name, expected in TOLD.items():
        told = [(e.tool, e.input, e.output, e.error, e.prompt) for e in seen[name]]
        assert sorted(told, key=repr) == sorted(expected, key=repr), name
        assert all(e.session_id == "s1" for e in seen[name])
        agents = {None} if name.startswith("session_") else {"main"}
        assert {e.agent_id for e in seen[name]} == agents, name
        assert all((e.call_id is None) == (e.tool is None) for e in seen[name])
    stored = [event for event in events if isinstance(event, HookRan)]
    assert {event.event for event in stored} == set(TOLD)
    assert all(event.hook == "note" and not event.outputs for event in stored)


@pytest.mark.feature("H-01")
@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("look", {"look"}),
        ("l*|fail", {"look", "fail"}),
        ("*", {"look", "fail", "wipe"}),
        (re.compile("w.*|f..l"), {"wipe", "fail"}),
        (re.compile("LOOK"), set[str]()),
        ("helper", set[str]()),
    ],
)
async def test_a_matcher_runs_for_the_tools_its_pattern_names(
    client: Any, pattern: Any, matched: set[str]
) -> None:
    seen: list[str] = []

    def note(event: HookEvent) -> None:
        seen.append(str(event.tool))

    replies = (Reply.calls(*CALLS[:3]), Reply.text("ok"))
    result = await played(client, replies, {"pre_tool_use": [(pattern, note)]})
    assert result.stop_reason == "end_turn"
    assert set(seen) == matched
    assert len(seen) == len(matched)


# ── what each output does ────────────────────────────────────────────────────────────────────────


async def played(
    client: Any,
    replies: tuple[Reply, ...],
    hooks: dict[str, list[tuple[Any, Any]]],
    *,
    sent: list[Any] | None = None,
    options: dict[str, Any] | None = None,
    **agent: Any,
) -> RunResult[Any]:
    """Run "go" with hooks: (pattern, function) by event; `sent` gets the messages of each turn."""
    made = {
        event: tuple(Matcher(pattern, fn, **(options or {})) for pattern, fn in pairs)
        for event, pairs in hooks.items()
    }
    agent.setdefault("tools", list(TOOLS))
    async with Simulator(*replies) as server:
        made_of = Agent(client=client(server), hooks=Hooks(**made), **agent)  # type: ignore[arg-type]
        result = await made_of.run("go")
    if sent is not None:
        sent.extend(chat.json["messages"] for chat in server.chats)
    return result


def gives(*answers: Any) -> Any:
    """A hook that gives each answer once, and nothing after that."""
    left = iter(answers)

    async def hook(_event: HookEvent) -> Any:
        return next(left, None)

    return hook


LOOKS = (Reply.calls(("look", {"at": "a"})), Reply.text("ok"))
FAILS = (Reply.calls(("fail", {"at": "a"})), Reply.text("ok"))
WIPES = (Reply.calls(("wipe", {"at": "a"})), Reply.text("ok"))
OK = (Reply.text("ok"),)

#: Event, output, replies: which tools ran, what the model reads of the call, and how it ends.
CALL_EFFECTS: list[tuple[str, Any, tuple[Reply, ...], list[str], str, str]] = [
    ("pre_tool_use", Block("Not now."), LOOKS, [], "Not now.", "end_turn"),
    ("pre_tool_use", Rewrite({"at": "z"}), LOOKS, ["look z"], "z is green", "end_turn"),
    ("pre_tool_use", Ask("Sure?"), LOOKS, [], "look was not permitted: Sure?", "end_turn"),
    ("pre_tool_use", Allow(), WIPES, ["wipe a"], "a is wiped", "end_turn"),
    ("pre_tool_use", Allow({"at": "z"}), WIPES, ["wipe z"], "z is wiped", "end_turn"),
    ("pre_tool_use", Stop("Enough."), LOOKS, [], "Not executed", "hook_stopped"),
    ("permission_request", Allow(), WIPES, ["wipe a"], "a is wiped", "end_turn"),
    ("permission_request", Allow({"at": "z"}), WIPES, ["wipe z"], "z is wiped", "end_turn"),
    ("permission_request", Block("Never."), WIPES, [], "Never.", "end_turn"),
    ("permission_request", Rewrite({"at": "z"}), WIPES, [], "not permitted", "end_turn"),
    ("permission_request", Stop("Enough."), WIPES, [], "Not executed", "hook_stopped"),
    ("post_tool_use", RewriteOutput("blue"), LOOKS, ["look a"], "blue", "end_turn"),
    ("post_tool_use", RewriteOutput({"is": 1}), LOOKS, ["look a"], '{"is":1}', "end_turn"),
    ("post_tool_use", Block("Secret."), LOOKS, ["look a"], "Secret.", "end_turn"),
    ("post_tool_use", Stop("Enough."), LOOKS, ["look a"], "a is green", "hook_stopped"),
    ("post_tool_use_failure", RewriteOutput("Try b."), FAILS, ["fail a"], "Try b.", "end_turn"),
    ("post_tool_use_failure", Block("Stop it."), FAILS, ["fail a"], "Stop it.", "end_turn"),
    ("post_tool_use_failure", Stop("Enough."), FAILS, ["fail a"], "ValueError", "hook_stopped"),
]


@pytest.mark.feature("H-02")
@pytest.mark.parametrize(
    ("event", "output", "replies", "tools", "read", "ends"),
    CALL_EFFECTS,
    ids=[f"{row[0]}-{row[1]!r:.30}" for row in CALL_EFFECTS],
)
async def test_an_output_about_a_call_has_its_effect(
    client: Any,
    event: str,
    output: Any,
    replies: tuple[Reply, ...],
    tools: list[str],
    read: str,
    ends: str,
) -> None:
    result = await played(client, replies, {event: [("*", gives(output))]})
    assert result.stop_reason == ends
    assert ran == tools
    assert read in result.messages[2].text
    if ends == "hook_stopped":
        assert result.error is not None
        assert "Enough." in str(result.error)
        result.raise_for_error()  # it is no error: somebody wanted it


@pytest.mark.feature("H-02")
@pytest.mark.parametrize(
    ("event", "replies"),
    [("pre_tool_use", LOOKS), ("post_tool_use", LOOKS), ("post_tool_use_failure", FAILS)],
)
async def test_context_is_read_after_the_results_of_the_turn(
    client: Any, event: str, replies: tuple[Reply, ...]
) -> None:
    sent: list[Any] = []
    result = await played(client, replies, {event: [("*", gives(AddContext("Mind.")))]}, sent=sent)
    assert sent[1][-1] == {"role": "user", "content": "Mind."}
    assert result.messages[3] == UserMessage("Mind.")


@pytest.mark.feature("H-02")
async def test_hooks_run_in_their_order_and_see_what_those_before_changed(client: Any) -> None:
    seen: list[Any] = []

    def note(event: HookEvent) -> Rewrite:
        seen.append(event.input)
        return Rewrite({"at": f"{(event.input or {})['at']}!"})

    await played(client, LOOKS, {"pre_tool_use": [("look", note), ("l*", note), ("*", note)]})
    assert seen == [{"at": "a"}, {"at": "a!"}, {"at": "a!!"}]
    assert ran == ["look a!!!"]


@pytest.mark.feature("H-02")
async def test_a_hooks_yes_does_not_get_past_a_rule_that_denies(client: Any) -> None:
    rules = Permissions(deny=("wipe(at=z)",))
    for output in (Allow({"at": "z"}), Rewrite({"at": "z"})):
        hooks = {"pre_tool_use": [("*", gives(output))]}
        result = await played(client, WIPES, hooks, permissions=rules)
        assert "not permitted" in result.messages[2].text
    assert ran == []


@pytest.mark.feature("H-02")
@pytest.mark.parametrize(
    ("output", "said", "ends"),
    [
        (Block("Not that."), None, "hook_stopped"),
        (Rewrite({"prompt": "Go home."}), "Go home.", "end_turn"),
        (AddContext("It is noon."), "go\n\nIt is noon.", "end_turn"),
        (Stop("Enough."), None, "hook_stopped"),
    ],
)
async def test_an_output_about_a_prompt_has_its_effect(
    client: Any, output: Any, said: str | None, ends: str
) -> None:
    sent: list[Any] = []
    result = await played(client, OK, {"user_prompt_submit": [("*", gives(output))]}, sent=sent)
    assert result.stop_reason == ends
    assert [turn[-1]["content"] for turn in sent] == ([] if said is None else [said])
    if isinstance(output, Block):
        assert result.messages == []  # the model never hears of it


@pytest.mark.feature("H-02")
@pytest.mark.parametrize("output", [Continue("Go on."), Block("Go on.")])
async def test_an_end_that_is_not_accepted_goes_on(client: Any, output: Any) -> None:
    sent: list[Any] = []
    replies = (Reply.text("one"), Reply.text("two"))
    result = await played(client, replies, {"stop": [("*", gives(output))]}, sent=sent)
    assert sent[1][-1] == {"role": "user", "content": "Go on."}
    assert (result.stop_reason, result.output, result.turns) == ("end_turn", "two", 2)


@pytest.mark.feature("H-02")
async def test_a_stop_at_the_end_ends_the_run_as_stopped(client: Any) -> None:
    result = await played(client, OK, {"stop": [("*", gives(Stop("Enough.")))]})
    assert (result.stop_reason, result.text) == ("hook_stopped", "ok")


@pytest.mark.feature("H-02")
async def test_context_at_the_end_is_read_by_the_next_run(client: Any) -> None:
    hooks = Hooks(stop=(Matcher("*", gives(AddContext("It was good."))),))
    async with Simulator(Reply.text("ok")) as server:
        async with Agent(client=client(server), hooks=hooks).session() as session:
            await session.run("hi")
            await session.run("again")
    said = [message["content"] for message in server.chats[1].json["messages"]]
    assert said == ["hi", "ok", "It was good.", "again"]


@pytest.mark.feature("H-02")
@pytest.mark.parametrize(
    ("event", "output", "read"),
    [
        ("subagent_start", Block("No help."), "No help."),
        ("subagent_start", Rewrite({"prompt": "help me"}), "helped"),
        ("subagent_start", Ask("Sure?"), "not permitted: Sure?"),
        ("subagent_stop", RewriteOutput("It helped."), "It helped."),
        ("subagent_stop", Block("Secret."), "Secret."),
    ],
)
async def test_an_output_about_a_subagent_has_its_effect(
    client: Any, event: str, output: Any, read: str
) -> None:
    async with Simulator(model()) as server:
        hooks = Hooks(**{event: (Matcher("helper", gives(output)),)})  # type: ignore[arg-type]
        helper = Agent(description="Helps.").as_tool("helper")
        agent = Agent(client=client(server), tools=[*TOOLS, helper], hooks=hooks)
        events = [event async for event in agent.stream("go")]
    answer = next(e.message for e in events if getattr(e, "name", "") == "helper" and _ended(e))
    asked = [chat.json["messages"][-1]["content"] for chat in server.chats]
    result = events[-1].result
    assert read in next(m.text for m in result.messages if _answers(m, answer.call_id))
    assert ("help me" in asked) == isinstance(output, Rewrite)


def _ended(event: Any) -> bool:
    return type(event).__name__ == "ToolEnded"


def _answers(message: Any, call_id: str) -> bool:
    return getattr(message, "call_id", None) == call_id


@pytest.mark.feature("H-02")
@pytest.mark.parametrize(
    ("output", "ends"),
    [
        (AddContext("Keep the names."), "end_turn"),
        (Block("Keep all."), "context_overflow"),
        (Stop("Enough."), "hook_stopped"),
    ],
)
async def test_an_output_about_a_summary_has_its_effect(
    client: Any, output: Any, ends: str
) -> None:
    replies = (Reply.context_overflow(), Reply.text("They greeted."), Reply.text("ok"))
    async with Simulator(*replies) as server:
        hooks = Hooks(pre_compact=(Matcher("*", gives(output)),))
        agent = Agent(client=client(server), context=Context(keep_last=1), hooks=hooks)
        before = [UserMessage("hi"), UserMessage("hello"), UserMessage("hi again")]
        result = await agent.run("go", history=before)
    assert result.stop_reason == ends
    asked = [str(chat.json["messages"][-1]["content"]) for chat in server.chats]
    assert any("Keep the names." in text for text in asked) == isinstance(output, AddContext)


@pytest.mark.feature("H-02")
async def test_what_a_hook_answered_stands_in_its_event(client: Any) -> None:
    hooks = Hooks(pre_tool_use=(Matcher("look", gives(Rewrite({"at": "z"}))),))
    async with Simulator(*LOOKS) as server:
        agent = Agent(client=client(server), tools=[look], hooks=hooks)
        events = [event async for event in agent.stream("go")]
    (hooked,) = [event for event in events if isinstance(event, HookRan)]
    assert (hooked.hook, hooked.event, hooked.error) == ("hook", "pre_tool_use", None)
    assert hooked.outputs == (Rewrite({"at": "z"}),)


# ── failures ─────────────────────────────────────────────────────────────────────────────────────


def raises(_event: HookEvent) -> None:
    raise ValueError("broken")


async def hangs(_event: HookEvent) -> None:
    await asyncio.Event().wait()


def says_nonsense(_event: HookEvent) -> Any:
    return {"nonsense": True}


#: How "hi", "go" and "last" end where the hooks of an event fail, under `on_failure="block"`.
BLOCKED = {
    "user_prompt_submit": ["hook_stopped", "hook_stopped", "hook_stopped"],
    "stop": ["hook_stopped", "hook_stopped", "suspended"],
    "pre_compact": ["end_turn", "context_overflow", "suspended"],
    "pre_tool_use": ["end_turn", "end_turn", "end_turn"],
}


@pytest.mark.feature("H-01")
@pytest.mark.parametrize("fn", [raises, hangs, says_nonsense])
@pytest.mark.parametrize("on_failure", ["block", "continue"])
@pytest.mark.parametrize("event", list(TOLD))
async def test_no_failure_of_a_hook_ends_a_run_without_a_result(
    client: Any, event: str, on_failure: Any, fn: Any
) -> None:
    matcher = Matcher("*", fn, timeout=0.01 if fn is hangs else 5, on_failure=on_failure)
    ended, events = await session_of(client, Hooks(**{event: (matcher,)}))  # type: ignore[arg-type]
    well = ["end_turn", "end_turn", "suspended"]
    assert ended == (BLOCKED.get(event, well) if on_failure == "block" else well)
    failed = [each for each in events if isinstance(each, HookRan)]
    assert failed or event == "session_end"
    expected = "UnsupportedHookOutputError" if fn is says_nonsense else "HookError"
    for each in failed:
        assert each.error is not None
        assert each.error.type == expected
        assert (each.event, each.hook) == (event, fn.__name__)


@pytest.mark.feature("H-01")
async def test_a_failure_that_blocks_names_the_hook_to_the_model(client: Any) -> None:
    result = await played(client, LOOKS, {"pre_tool_use": [("look", raises)]})
    text = result.messages[2].text
    assert "Hook raises at pre_tool_use failed: ValueError: broken" in text
    assert ran == []


@pytest.mark.feature("H-02")
async def test_an_unknown_output_is_told_with_its_key_and_what_would_work(client: Any) -> None:
    result = await played(client, LOOKS, {"pre_tool_use": [("look", says_nonsense)]})
    text = result.messages[2].text
    assert "nonsense" in text
    assert "says_nonsense" in text


@pytest.mark.feature("H-01")
async def test_a_sync_hook_that_never_returns_holds_nothing_up(client: Any) -> None:
    gate = threading.Event()

    def stuck(_event: HookEvent) -> None:
        gate.wait(30)

    try:
        hooks = {"pre_tool_use": [("look", stuck)]}
        result = await played(client, LOOKS, hooks, options={"timeout": 0.05})
        assert "did not answer within 0.05 s" in result.messages[2].text
    finally:
        gate.set()
    assert ran == []


@pytest.mark.feature("H-01")
@pytest.mark.parametrize("event", ["user_prompt_submit", "pre_tool_use", "post_tool_use", "stop"])
@pytest.mark.parametrize("how", ["interrupt", "max_seconds"])
async def test_a_hook_without_a_time_limit_does_not_keep_a_run_from_its_end(
    client: Any, event: str, how: str
) -> None:
    begun = asyncio.Event()

    async def never(_event: HookEvent) -> None:
        begun.set()
        await asyncio.Event().wait()

    hooks = Hooks(**{event: (Matcher("*", never, timeout=None),)})  # type: ignore[arg-type]
    limits = Limits(max_seconds=0.3) if how == "max_seconds" else Limits()
    async with Simulator(*LOOKS) as server:
        agent = Agent(client=client(server), tools=[look], hooks=hooks, limits=limits)
        async with agent.stream("go") as run:
            await begun.wait()
            if how == "interrupt":
                await run.interrupt()
            result = await run
    assert result.stop_reason == {"interrupt": "interrupted"}.get(how, how)
    calls = [each.id for m in result.messages for each in getattr(m, "tool_calls", ())]
    assert [m.call_id for m in result.messages if hasattr(m, "call_id")] == calls
