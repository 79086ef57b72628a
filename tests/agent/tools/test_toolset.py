"""Sets of tools: their names, and what the model has of them from turn to turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    Limits,
    Notice,
    RunContext,
    RunStarted,
    SchemaError,
    SettingsChanged,
    ToolMessage,
    ToolOutput,
    Toolset,
    ToolSpec,
    UsageError,
    tool,
)
from vllm_agent_sdk.agent.tools.toolset import given_tools
from vllm_agent_sdk.sessions import MemoryStore
from vllm_agent_sdk.testing import Reply, Simulator

pytestmark = pytest.mark.feature("A-21")


@tool
async def look(where: str = "here") -> str:
    """Look somewhere."""
    return f"seen {where}"


@tool
async def write(text: str = "") -> str:
    """Write something."""
    return "written"


class Own:
    """A tool of another's making."""

    spec = ToolSpec(name="own", parameters={"type": "object"})

    async def invoke(self, arguments: dict[str, Any], ctx: RunContext[Any]) -> ToolOutput:
        return ToolOutput(f"called as {ctx.call.name}")


def offered(chat: Any) -> list[str]:
    """The tools of a request."""
    return [each["function"]["name"] for each in chat.json.get("tools", ())]


def answers(result: Any) -> list[str]:
    """What the model read of its calls."""
    return [m.text for m in result.messages if isinstance(m, ToolMessage)]


# ── names ────────────────────────────────────────────────────────────────────────────────────────


def test_names_are_renamed_and_prefixed_and_sets_may_hold_sets() -> None:
    inner = Toolset([look, write, Own()], prefix="fs_", rename={"look": "read"})
    outer = Toolset([inner, look], prefix="a_", rename={"fs_own": "mine"})
    assert list(given_tools([inner])) == ["fs_read", "fs_write", "fs_own"]
    assert list(given_tools([outer, look])) == [
        "a_fs_read",
        "a_fs_write",
        "a_mine",
        "a_look",
        "look",
    ]
    assert all(name == each.tool.spec.name for name, each in given_tools([outer]).items())
    assert look.spec.name == "look"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Toolset([look, look]), "Two tools are called look"),
        (lambda: Toolset([look], rename={"see": "x"}), "names 'see'; its tools are look"),
        (lambda: Toolset([look], prefix="a b"), "'a blook' cannot be a tool's name"),
        (lambda: Toolset([look], rename={"look": ""}), "'' cannot be a tool's name"),
        (lambda: Toolset([look], visible=True), "visible= of a toolset is a function"),  # type: ignore[arg-type]
        (lambda: Agent(tools=[look, Toolset([look])]), "Two tools are called look"),
        (lambda: Toolset([print]), "is no tool. Decorate it"),  # type: ignore[list-item]
    ],
)
def test_what_cannot_be_is_refused_when_it_is_defined(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_tools_of_ours_keep_their_names() -> None:
    @tool(name="ask_user_question")
    async def ask() -> None: ...

    @tool(name="final_answer")
    async def answer() -> None: ...

    assert Agent(tools=[ask, answer]).offered
    with pytest.raises(UsageError, match="ask_user= gives the model a tool of that name"):
        Agent(tools=[ask], ask_user=lambda _questions, _ctx: {})
    with pytest.raises(UsageError, match="a typed output= may be given by a tool of that name"):
        Agent[None, int](tools=[answer], output=int)


class Wrong:
    """A tool whose specification is anything."""

    def __init__(self, spec: Any) -> None:
        self._spec = spec

    @property
    def spec(self) -> ToolSpec:
        if isinstance(self._spec, Exception):
            raise self._spec
        return self._spec  # type: ignore[no-any-return]

    async def invoke(self, arguments: dict[str, Any], ctx: RunContext[Any]) -> ToolOutput:
        return ToolOutput("")


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ({"name": "x"}, UsageError, "is dict; it has to be a ToolSpec"),
        (ValueError("broken"), UsageError, r"The spec of tools\[0\] fails: ValueError: broken"),
        (ToolSpec(name="x", parameters={"type": "string"}), SchemaError, "arguments are a JSON"),
        (ToolSpec(name="x", parameters=[]), SchemaError, "arguments are a JSON object"),  # type: ignore[arg-type]
        (ToolSpec(name="x", parameters={"a": object()}), SchemaError, "tool x is no JSON"),
        (ToolSpec(name="x", parameters={"a": float("nan")}), SchemaError, "is no JSON: .*NaN"),
    ],
)
def test_a_specification_that_no_request_could_offer_is_refused(
    spec: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Agent(tools=[Wrong(spec)])


async def test_the_model_calls_tools_of_a_set_by_their_names_there(client: Any) -> None:
    replies = (Reply.calls(("fs_read", {"where": "there"}), ("fs_own", {})), Reply.text("ok"))
    async with Simulator(*replies) as server:
        tools = Toolset([look, Own()], prefix="fs_", rename={"look": "read"})
        result = await Agent(client=client(server), tools=[write, tools]).run("?")
    assert offered(server.chats[0]) == ["write", "fs_read", "fs_own"]
    assert result.tool_calls == {"fs_read": 1, "fs_own": 1}
    assert answers(result) == ["seen there", "called as fs_own"]


# ── from turn to turn ────────────────────────────────────────────────────────────────────────────


async def run_with(client: Any, server: Simulator, *tools: Any, **agent: Any) -> Any:
    """Run, and give the result with the events."""
    async with Agent(client=client(server), tools=tools, **agent).stream("?") as run:
        events = [event async for event in run]
    return run.result, events


async def test_what_is_visible_is_asked_before_each_turn_and_a_change_is_an_event(
    client: Any,
) -> None:
    asked: list[tuple[int, str, str]] = []

    def visible(ctx: RunContext[Any]) -> bool:
        asked.append((ctx.turn, ctx.call.name, ctx.deps))
        return ctx.turn == 2

    replies = (Reply.calls(("look", {})), Reply.calls(("write", {})), Reply.text("ok"))
    async with Simulator(*replies) as server:
        toolset = Toolset([write], visible=visible)
        result, events = await run_with(client, server, look, toolset)
    assert asked == [(1, "", None), (2, "", None), (3, "", None)]
    assert [offered(chat) for chat in server.chats] == [["look"], ["look", "write"], ["look"]]
    assert result.tool_calls == {"look": 1, "write": 1}
    changes = [event for event in events if isinstance(event, SettingsChanged)]
    assert [(c.what, c.old, c.new) for c in changes] == [
        ("tools", ["look", "write"], ["look"]),
        ("tools", ["look"], ["look", "write"]),
        ("tools", ["look", "write"], ["look"]),
    ]
    assert all(change.reason == "a toolset shows or hides tools" for change in changes)
    started = next(event for event in events if isinstance(event, RunStarted))
    assert [spec.name for spec in started.tools] == ["look", "write"]


async def test_a_set_that_stays_as_it_is_makes_no_event(client: Any) -> None:
    async with Simulator(Reply.calls(("look", {})), Reply.text("ok")) as server:
        toolset = Toolset([look, write], visible=lambda _ctx: True)
        _, events = await run_with(client, server, toolset)
    assert not [event for event in events if isinstance(event, SettingsChanged)]


async def test_some_of_a_set_can_be_shown_by_the_names_they_have_in_it(client: Any) -> None:
    async def visible(ctx: RunContext[Any]) -> list[str]:
        await asyncio.sleep(0)
        return ["look"]

    async with Simulator(Reply.text("ok")) as server:
        inner = Toolset([look, write], prefix="fs_", visible=visible)
        outer = Toolset([inner, Own()], prefix="a_", visible=lambda _ctx: ["fs_look", "fs_write"])
        await run_with(client, server, outer)
    assert offered(server.chats[0]) == ["a_fs_look"]


async def test_a_hidden_tool_is_not_run_and_the_model_reads_which_there_are(client: Any) -> None:
    async with Simulator(Reply.calls(("write", {})), Reply.text("ok")) as server:
        toolset = Toolset([write], visible=lambda _ctx: False)
        result, _ = await run_with(client, server, look, toolset)
    assert answers(result) == ["There is no tool 'write'. The tools are: look."]
    assert result.tool_calls == {}


@pytest.mark.parametrize(
    ("visible", "said"),
    [
        (lambda _ctx: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda _ctx: "look", "UsageError: visible() gave 'look'"),
        (lambda _ctx: ["see"], "UsageError: visible() gave 'see'; the tools are look"),
        (lambda _ctx: None, "UsageError: visible() gave None"),
    ],
)
async def test_one_that_fails_hides_the_set_with_a_notice(
    client: Any, visible: Any, said: str
) -> None:
    async with Simulator(Reply.text("ok")) as server:
        toolset = Toolset([look], visible=visible)
        result, events = await run_with(client, server, write, toolset)
    assert result.text == "ok"
    assert offered(server.chats[0]) == ["write"]
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert notice.code == "toolset"
    assert f"the toolset with look failed, so it is hidden this turn: {said}" in notice.text


async def test_one_that_hangs_hides_the_set_when_a_tools_time_is_over(client: Any) -> None:
    async def visible(_ctx: RunContext[Any]) -> bool:
        await asyncio.Event().wait()
        return True

    async with Simulator(Reply.text("ok")) as server:
        limits = Limits(tool_timeout_s=0.01)
        toolset = Toolset([look], visible=visible)
        _, events = await run_with(client, server, write, toolset, limits=limits)
    assert offered(server.chats[0]) == ["write"]
    assert [event.code for event in events if isinstance(event, Notice)] == ["toolset"]


async def test_an_interrupt_while_it_is_asked_ends_the_run(client: Any) -> None:
    asked = asyncio.Event()

    async def visible(_ctx: RunContext[Any]) -> bool:
        asked.set()
        await asyncio.Event().wait()
        return True

    async with Simulator(Reply.text("ok")) as server:
        agent = Agent(client=client(server), tools=[Toolset([look], visible=visible)])
        async with agent.stream("?") as run:
            run.begin()
            await asked.wait()
            await run.interrupt()
    assert run.result.stop_reason == "interrupted"
    assert not server.chats


@pytest.mark.parametrize("choice", [None, "required"])
@pytest.mark.parametrize("mode", ["native", "guided", "envelope", "required"])
async def test_all_tools_may_be_hidden_in_every_mode(client: Any, mode: Any, choice: Any) -> None:
    said = {
        "native": Reply.text("ok"),
        "guided": Reply.text("[[final]]ok[[/final]]"),
        "envelope": Reply.text('{"final": "ok"}'),
        "required": Reply.calls(("final_answer", {"answer": "ok"})),
    }
    async with Simulator(said[mode]) as server:
        toolset = Toolset([look], visible=lambda _ctx: False)
        result, _ = await run_with(client, server, toolset, turn_mode=mode, tool_choice=choice)
    assert (result.stop_reason, result.turn_mode) == ("end_turn", mode)
    assert "look" not in str(server.chats[0].json)


async def test_in_guided_turns_the_change_is_in_the_system_text_and_the_grammar(
    client: Any,
) -> None:
    replies = (
        Reply.text("[[call look]]{}[[/call]]"),
        Reply.text("[[call write]]{}[[/call]]"),
        Reply.text("[[final]]ok[[/final]]"),
    )
    async with Simulator(*replies) as server:
        toolset = Toolset([write], visible=lambda ctx: ctx.turn > 1)
        result, _ = await run_with(client, server, look, toolset, turn_mode="guided")
    assert result.tool_calls == {"look": 1, "write": 1}
    first, second = (str(chat.json) for chat in server.chats[:2])
    assert "call write" not in first
    assert "[[call write]]" in second


async def test_a_change_breaks_the_prefix_and_the_account_of_the_cache_says_why(
    client: Any,
) -> None:
    async with Simulator(Reply.calls(("look", {})), Reply.text("ok")) as server:
        toolset = Toolset([write], visible=lambda ctx: ctx.turn > 1)
        async with Agent(client=client(server), tools=[look, toolset]).session() as session:
            await session.run("?")
            report = await session.explain_cache()
    (turn,) = report.breaks
    assert turn.prefix is not None
    assert (turn.turn, turn.prefix.cause) == (2, "tools changed")


async def test_plain_turns_have_no_tools_whatever_a_set_says(client: Any) -> None:
    async with Simulator(Reply.text("ok")) as server:
        toolset = Toolset([look], visible=lambda _ctx: True)
        result, events = await run_with(client, server, toolset, turn_mode="plain")
    assert result.text == "ok"
    assert not [event for event in events if isinstance(event, SettingsChanged)]


async def test_a_run_that_is_taken_up_with_other_tools_says_so_and_uses_them(client: Any) -> None:
    @tool(deferred=True)
    async def later() -> None:
        """Later."""

    store = MemoryStore()
    async with Simulator(Reply.calls(("later", {})), Reply.text("ok")) as server:
        use = client(server)
        async with Agent(client=use, tools=[later, look]).session("s", store=store) as session:
            (waits,) = (await session.run("?")).pending
        async with Agent(client=use, tools=[later, write]).session("s", store=store) as session:
            run = await session.send_tool_result(waits.call.id, "here")
            assert (await run).text == "ok"
            feed = session.events(after=0, until="close")
        log = [event async for event in feed]
    (change,) = [event for event in log if isinstance(event, SettingsChanged)]
    assert (change.what, change.old, change.new) == ("tools", ["later", "look"], ["later", "write"])
    assert change.reason == "the run goes on with other tools than it began with"
    assert [offered(chat) for chat in server.chats] == [["later", "look"], ["later", "write"]]
