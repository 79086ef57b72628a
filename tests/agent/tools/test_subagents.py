"""Agents as tools of agents: what the calling model reads, what is counted, who is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    Allow,
    Block,
    Deny,
    HookEvent,
    Hooks,
    Limits,
    Matcher,
    MessageAdded,
    ModelEnded,
    Permissions,
    Price,
    Rewrite,
    RunContext,
    RunEnded,
    RunStarted,
    SubagentEnded,
    SubagentStarted,
    TextDelta,
    ToolEnded,
    ToolMessage,
    UsageError,
    UserMessage,
    query,
    tool,
)
from vllm_agent_sdk.testing import Reply, Simulator

ASKED = ("researcher", {"prompt": "Find it."})
pytestmark = pytest.mark.feature("A-11")


@tool
async def look(where: str) -> str:
    """Look somewhere."""
    return f"seen in {where}"


def answered(result: Any, at: int = 0) -> ToolMessage:
    """What the calling model reads of its calls."""
    return [m for m in result.messages if isinstance(m, ToolMessage)][at]


async def events_of(run: Any) -> list[Any]:
    return [event async for event in run]


async def idle(session: Any) -> None:
    """Wait until no background task is under way."""
    if tasks := list(session._background._tasks.values()):
        await asyncio.wait(tasks)


async def test_an_agent_is_called_as_a_tool_and_answers_with_its_text(client: Any) -> None:
    replies = (
        Reply.calls(ASKED),
        Reply.calls(("look", {"where": "Rome"})),
        Reply.text("It is in Rome."),
        Reply.text("Rome, then."),
    )
    async with Simulator(*replies) as server:
        researcher = Agent(
            name="researcher", description="Finds things.", instructions="Dig.", tools=[look]
        )
        agent = Agent(client=client(server), tools=[researcher.as_tool()])
        result = await agent.run("Where is it?")
    assert result.text == "Rome, then."
    assert answered(result).text == "It is in Rome."
    assert result.tool_calls == {"researcher": 1}
    asked, own = server.chats[0].json, server.chats[1].json
    assert asked["tools"][0]["function"]["description"] == "Finds things."
    assert list(asked["tools"][0]["function"]["parameters"]["properties"]) == ["prompt"]
    assert own["messages"] == [
        {"role": "system", "content": "Dig."},
        {"role": "user", "content": "Find it."},
    ]
    assert [each["function"]["name"] for each in own["tools"]] == ["look"]


async def test_name_and_description_can_be_given_and_a_name_is_needed() -> None:
    spec = Agent(name="a b").as_tool("helper", "Helps.").spec
    assert (spec.name, spec.description, spec.kind) == ("helper", "Helps.", "agent")
    for agent in (Agent(), Agent(name="a b")):
        with pytest.raises(UsageError, match="needs a name"):
            agent.as_tool()
    with pytest.raises(UsageError, match="slash"):
        Agent(name="a/b")


async def test_usage_and_cost_roll_up_by_model(client: Any) -> None:
    used: Any = {"prompt_tokens": 10, "completion_tokens": 5}
    replies = (Reply.calls(ASKED, usage=used), Reply.text("done", usage=used))
    async with (
        Simulator(*replies, model="big") as server,
        Simulator(Reply.text("found", usage=used), model="small") as other,
    ):
        researcher = Agent(name="researcher", client=client(other), limits=Limits(max_turns=1))
        agent = Agent(
            client=client(server),
            tools=[researcher.as_tool()],
            prices={"big": Price(input=1e6, output=0), "small": Price(input=0, output=1e6)},
        )
        async with agent.stream("go") as run:
            events = await events_of(run)
    result = run.result
    assert result.text == "done"
    assert {name: each.total_tokens for name, each in result.usage_by_model.items()} == {
        "big": 30,
        "small": 15,
    }
    assert (result.usage.requests, result.usage.total_tokens) == (3, 45)
    assert len(result.usage_by_turn) == 2
    assert result.cost == pytest.approx(20 + 5)
    ended = next(event for event in events if isinstance(event, SubagentEnded))
    assert (ended.stop_reason, ended.usage.total_tokens, ended.cost) == ("end_turn", 15, 5)


async def test_its_events_are_seen_under_an_id_of_their_own(client: Any) -> None:
    replies = (Reply.calls(ASKED), Reply.text("found"), Reply.text("done"))
    async with Simulator(*replies) as server:
        researcher = Agent(name="researcher").as_tool()
        async with Agent(name="boss", client=client(server), tools=[researcher]).stream("?") as run:
            events = await events_of(run)
    started = next(event for event in events if isinstance(event, SubagentStarted))
    call_id = started.call_id
    assert started.agent == f"boss/researcher:{call_id}"
    assert (started.agent_id, started.seq is None) == ("boss", False)
    own = [event for event in events if event.agent_id == started.agent]
    assert [type(e).__name__ for e in own] == [
        "MessageAdded",
        "TurnStarted",
        "ModelStarted",
        "TextDelta",
        "UsageUpdated",
        "ModelEnded",
    ]
    assert all(event.of_subagent and event.seq is None for event in own)
    assert {event.run_id for event in events} == {run.result.run_id}
    # The one beginning and end in sight are those of the run itself.
    ends = [event for event in events if isinstance(event, (RunStarted, RunEnded))]
    assert [event.agent_id for event in ends] == ["boss", "boss"]
    kept = [event.seq for event in events if event.seq is not None]
    assert kept == list(range(1, len(kept) + 1))


async def test_its_text_is_no_text_of_the_run(client: Any) -> None:
    replies = (Reply.calls(ASKED), Reply.text("found"), Reply.text("done"))
    researcher = Agent(name="researcher").as_tool()
    async with Simulator(*replies, *replies) as server:
        use = client(server)
        async with Agent(client=use, tools=[researcher]).stream("?") as run:
            assert [text async for text in run.text_deltas()] == ["done"]
        said = [m async for m in query("?", client=use, tools=[researcher], include_partial=True)]
    texts = [each.text for each in said if isinstance(each, TextDelta)]
    assert texts == ["done"]
    assert [each.text for each in said if isinstance(each, UserMessage)] == ["?"]


async def test_its_failure_is_an_error_that_the_caller_reads(client: Any) -> None:
    replies = (
        Reply.calls(ASKED),
        Reply.calls(("look", {"where": "Rome"})),
        Reply.text("then not"),
    )
    async with Simulator(*replies) as server:
        researcher = Agent(name="researcher", tools=[look], limits=Limits(max_turns=1))
        result = await Agent(client=client(server), tools=[researcher.as_tool()]).run("?")
    assert result.stop_reason == "end_turn"
    assert answered(result).is_error
    assert answered(result).text == "researcher ended without an answer (max_turns)."


async def test_its_servers_failure_is_an_error_that_the_caller_reads(client: Any) -> None:
    replies = (Reply.calls(ASKED), Reply.error(401, message="no key"), Reply.text("then not"))
    async with Simulator(*replies) as server:
        researcher = Agent(name="researcher")
        result = await Agent(client=client(server), tools=[researcher.as_tool()]).run("?")
    assert result.stop_reason == "end_turn"
    assert "ended without an answer (error).\nAuthenticationError: " in answered(result).text


async def test_a_definition_that_cannot_run_is_an_error_too(client: Any) -> None:
    replies = (Reply.calls(ASKED), Reply.text("then not"))
    async with Simulator(*replies) as server:
        other = client(server)
        await other.aclose()
        researcher = Agent(name="researcher", client=other)
        agent = Agent(client=client(server), tools=[researcher.as_tool()])
        async with agent.stream("?") as run:
            events = await events_of(run)
    assert "researcher could not run: ClientClosedError: " in answered(run.result).text
    assert [e.stop_reason for e in events if isinstance(e, SubagentEnded)] == ["error"]


async def test_a_typed_answer_is_read_as_its_json(client: Any) -> None:
    replies = (Reply.calls(ASKED), Reply.text('{"city": "Rome"}'), Reply.text("ok"))
    async with Simulator(*replies) as server:
        researcher = Agent[None, dict[str, str]](name="researcher", output=dict[str, str])
        result = await Agent(client=client(server), tools=[researcher.as_tool()]).run("?")
    assert answered(result).text == '{"city": "Rome"}'


async def test_it_uses_its_own_server_where_it_names_one(client: Any) -> None:
    async with Simulator(Reply.calls(ASKED), Reply.text("done")) as server:
        async with Simulator(Reply.text("from elsewhere")) as other:
            researcher = Agent(name="researcher", client=client(other))
            agent = Agent(client=client(server), tools=[researcher.as_tool()])
            result = await agent.run("?")
            assert len(other.chats) == 1
    assert answered(result).text == "from elsewhere"


async def test_an_interrupt_of_the_run_reaches_it_and_what_it_used_is_counted(client: Any) -> None:
    begun = asyncio.Event()
    stopped = asyncio.Event()

    @tool
    async def wait() -> None:
        """Wait."""
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    used: Any = {"prompt_tokens": 10, "completion_tokens": 5}
    inner = Agent(name="inner", tools=[wait])
    outer = Agent(name="outer", tools=[inner.as_tool()])
    replies = (
        Reply.calls(("outer", {"prompt": "a"}), usage=used),
        Reply.calls(("inner", {"prompt": "b"}), usage=used),
        Reply.calls(("wait", {}), usage=used),
    )
    async with Simulator(*replies) as server:
        agent = Agent(client=client(server), tools=[outer.as_tool()])
        async with agent.stream("?") as run:
            run.begin()
            await begun.wait()
            await run.interrupt()
            events = await events_of(run)
    result = run.result
    assert stopped.is_set()
    assert result.stop_reason == "interrupted"
    assert result.usage.total_tokens == 45
    ends = [event for event in events if isinstance(event, SubagentEnded)]
    assert [event.stop_reason for event in ends] == ["interrupted", "interrupted"]
    assert "outcome is unknown" in answered(result).text


async def test_subagents_of_one_turn_run_side_by_side(client: Any) -> None:
    meeting = asyncio.Barrier(2)

    @tool
    async def meet() -> str:
        """Meet the other one."""
        await meeting.wait()
        return "met"

    def reply(request: Any) -> Reply:
        first = request.json["messages"][0]["content"]
        if first == "?":
            if len(request.json["messages"]) > 1:
                return Reply.text("done")
            return Reply.calls(("one", {"prompt": "x"}), ("two", {"prompt": "y"}))
        return Reply.text(first) if len(request.json["messages"]) > 1 else Reply.calls(("meet", {}))

    async with Simulator(reply) as server:
        tools = [Agent(name=name, tools=[meet]).as_tool() for name in ("one", "two")]
        result = await asyncio.wait_for(Agent(client=client(server), tools=tools).run("?"), 10)
    assert [answered(result, at).text for at in (0, 1)] == ["x", "y"]


# ── who is asked ─────────────────────────────────────────────────────────────────────────────────


@tool(destructive=True)
async def wipe() -> str:
    """Wipe."""
    return "wiped"


@pytest.mark.parametrize(("answer", "read"), [(Allow(), "wiped"), (Deny("No."), "No.")])
async def test_who_answers_the_caller_answers_the_subagent(
    client: Any, answer: Any, read: str
) -> None:
    asked: list[tuple[str, str]] = []

    def can_use_tool(call: Any, ctx: RunContext[Any]) -> Any:
        asked.append((call.name, ctx.agent_id))
        return answer

    replies = (Reply.calls(ASKED), Reply.calls(("wipe", {})), Reply.text("ok"), Reply.text("ok"))
    async with Simulator(*replies) as server:
        researcher = Agent(name="researcher", tools=[wipe])
        agent = Agent(
            client=client(server),
            tools=[researcher.as_tool()],
            permissions=Permissions(can_use_tool=can_use_tool),
        )
        await agent.run("?")
    assert server.chats[2].json["messages"][-1]["content"] == read
    ((name, agent_id),) = asked
    assert (name, agent_id.partition(":")[0]) == ("wipe", "main/researcher")


async def test_an_answerer_of_its_own_comes_first(client: Any) -> None:
    replies = (Reply.calls(ASKED), Reply.calls(("wipe", {})), Reply.text("ok"), Reply.text("ok"))
    async with Simulator(*replies) as server:
        own = Permissions(can_use_tool=lambda _call, _ctx: Deny("Mine."))
        researcher = Agent(name="researcher", tools=[wipe], permissions=own)
        others = Permissions(can_use_tool=lambda _call, _ctx: Allow())
        agent = Agent(client=client(server), tools=[researcher.as_tool()], permissions=others)
        await agent.run("?")
    assert server.chats[2].json["messages"][-1]["content"] == "Mine."


@pytest.mark.parametrize(
    ("rules", "read"),
    [
        (Permissions(deny=("look(where=Rome)",)), "A rule denies look"),
        (Permissions(ask=("look",)), "A rule asks about look. Nobody answers"),
        (Permissions(directories=("/srv",)), "would touch Rome, outside the permitted folders"),
    ],
)
async def test_what_restricts_its_caller_restricts_it_too(
    client: Any, rules: Permissions, read: str
) -> None:
    looks = tool(name="look", reads_files=("where",))(look._fn)
    replies = (
        Reply.calls(ASKED),
        Reply.calls(("look", {"where": "Rome"})),
        Reply.text("ok"),
        Reply.text("ok"),
    )
    async with Simulator(*replies) as server:
        own = Permissions(allow=("researcher",))
        researcher = Agent(name="researcher", tools=[looks], permissions=own)
        agent = Agent(client=client(server), tools=[researcher.as_tool()], permissions=rules)
        await agent.run("?")
    assert read in server.chats[2].json["messages"][-1]["content"]


async def test_an_approval_that_nobody_answers_is_a_no_as_it_cannot_be_taken_up(
    client: Any,
) -> None:
    replies = (Reply.calls(ASKED), Reply.calls(("wipe", {})), Reply.text("ok"), Reply.text("ok"))
    async with Simulator(*replies) as server:
        own = Permissions(unanswered="suspend")
        researcher = Agent(name="researcher", tools=[wipe], permissions=own)
        result = await Agent(client=client(server), tools=[researcher.as_tool()]).run("?")
    assert result.stop_reason == "end_turn"
    assert "was not permitted" in server.chats[2].json["messages"][-1]["content"]


async def test_one_that_waits_for_what_comes_later_is_an_error(client: Any) -> None:
    @tool(deferred=True)
    async def later() -> str:
        """Later."""
        return ""

    replies = (Reply.calls(ASKED), Reply.calls(("later", {})), Reply.text("then not"))
    async with Simulator(*replies) as server:
        researcher = Agent(name="researcher", tools=[later])
        result = await Agent(client=client(server), tools=[researcher.as_tool()]).run("?")
    assert result.stop_reason == "end_turn"
    assert "It waits for later (tool_result), which cannot be given here." in answered(result).text


async def test_the_callers_user_can_be_asked(client: Any) -> None:
    questions = {"questions": [{"id": "q", "text": "Which?", "options": ["a", "b"]}]}
    replies = (
        Reply.calls(ASKED),
        Reply.calls(("ask_user_question", questions)),
        Reply.text("ok"),
        Reply.text("ok"),
    )
    async with Simulator(*replies) as server:
        agent = Agent(
            client=client(server),
            tools=[Agent(name="researcher").as_tool()],
            ask_user=lambda asked, _ctx: {asked[0].id: ["b"]},
        )
        await agent.run("?")
    assert '"b"' in server.chats[2].json["messages"][-1]["content"]


async def test_hooks_at_its_begin_and_end_run(client: Any) -> None:
    ran: list[str] = []

    def note(event: Any) -> None:
        ran.append(f"{event.event} {event.tool}")

    every = (Matcher("*", note),)
    replies = (Reply.calls(ASKED), Reply.text("found"), Reply.text("done"))
    async with Simulator(*replies) as server:
        agent = Agent(
            client=client(server),
            tools=[Agent(name="researcher").as_tool()],
            hooks=Hooks(subagent_start=every, subagent_stop=every),
        )
        await agent.run("?")
    assert ran == ["subagent_start researcher", "subagent_stop researcher"]


async def test_the_callers_hooks_of_tools_guard_its_calls_after_its_own(client: Any) -> None:
    ran: list[str] = []

    def own(event: HookEvent) -> Rewrite:
        ran.append(f"own {event.tool}")
        return Rewrite({"where": "Paris"})

    def guard(event: HookEvent) -> Block | None:
        ran.append(f"guard {event.tool} {event.input} {event.agent_id}".partition(":c")[0])
        return Block("Not Paris.") if event.tool == "look" else None

    replies = (
        Reply.calls(ASKED),
        Reply.calls(("look", {"where": "Rome"})),
        Reply.text("ok"),
        Reply.text("ok"),
    )
    async with Simulator(*replies) as server:
        researcher = Agent(
            name="researcher", tools=[look], hooks=Hooks(pre_tool_use=(Matcher("*", own),))
        )
        agent = Agent(
            client=client(server),
            tools=[researcher.as_tool()],
            hooks=Hooks(pre_tool_use=(Matcher("*", guard),)),
        )
        await agent.run("?")
    assert ran == [
        "guard researcher {'prompt': 'Find it.'} main",
        "own look",
        "guard look {'where': 'Paris'} main/researcher",
    ]
    assert server.chats[2].json["messages"][-1]["content"] == "Not Paris."


async def test_deps_are_the_callers(client: Any) -> None:
    @tool
    async def whose(ctx: RunContext[str]) -> str:
        """Say whose."""
        return ctx.deps

    replies = (Reply.calls(ASKED), Reply.calls(("whose", {})), Reply.text("ok"), Reply.text("ok"))
    async with Simulator(*replies) as server:
        researcher = Agent[str, str](name="researcher", tools=[whose])
        agent = Agent[str, str](client=client(server), tools=[researcher.as_tool()])
        await agent.run("?", deps="ours")
    assert server.chats[2].json["messages"][-1]["content"] == "ours"


# ── in the background ────────────────────────────────────────────────────────────────────────────


async def test_one_in_the_background_is_answered_at_once_and_tells_later(client: Any) -> None:
    done = asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait."""
        await done.wait()
        return "ready"

    def reply(request: Any) -> Reply:
        said = request.json["messages"]
        if said[0]["content"] == "Find it.":
            return Reply.text("found") if len(said) > 1 else Reply.calls(("wait", {}))
        return Reply.calls(ASKED) if len(said) == 1 else Reply.text("ok")

    async with Simulator(reply) as server:
        researcher = Agent(name="researcher", tools=[wait]).as_tool(background=True)
        async with Agent(client=client(server), tools=[researcher]).session() as session:
            first = await session.run("go")
            feed = session.events(until="close")
            done.set()
            async for event in feed:
                if (
                    isinstance(event, ModelEnded)
                    and event.of_subagent
                    and event.finish_reason == "stop"
                ):
                    break
            await idle(session)
            second = await session.run("and?")
            feed = session.events(after=0, until="close")
        log = [event async for event in feed]
    assert "goes on in the background as task_" in answered(first).text
    told = [m.text for m in second.messages if isinstance(m, UserMessage)]
    assert told[1].endswith("of researcher has ended.]\nfound")
    assert any(isinstance(event, SubagentEnded) for event in log)
    assert not any(event.of_subagent for event in log)


async def test_stop_task_ends_one_in_the_background(client: Any) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> None:
        """Wait."""
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    def reply(request: Any) -> Reply:
        said = request.json["messages"]
        if said[0]["content"] == "Find it.":
            return Reply.calls(("wait", {}))
        return Reply.calls(ASKED) if len(said) == 1 else Reply.text("ok")

    async with Simulator(reply) as server:
        researcher = Agent(name="researcher", tools=[wait]).as_tool(background=True)
        async with Agent(client=client(server), tools=[researcher]).session() as session:
            first = await session.run("go")
            await begun.wait()
            call = next(m for m in first.messages if isinstance(m, ToolMessage)).call_id
            await session.stop_task(f"task_{call}")
            await asyncio.wait_for(stopped.wait(), 5)
            await idle(session)
            second = await session.run("and?")
            feed = session.events(after=0, until="close")
        log = [event async for event in feed]
    told = [m.text for m in second.messages if isinstance(m, UserMessage)]
    assert "It was stopped" in told[1]
    assert [e.stop_reason for e in log if isinstance(e, SubagentEnded)] == ["interrupted"]
    ended = [e for e in log if isinstance(e, MessageAdded) and e.when == "notification"]
    assert len(ended) == 1
    assert [e.task is not None for e in log if isinstance(e, ToolEnded)] == [True]


async def test_outside_of_a_run_it_says_that_it_needs_one() -> None:
    from vllm_agent_sdk import ToolCall

    made = Agent(name="researcher").as_tool()
    output = await made.invoke({"prompt": "x"}, RunContext(None, ToolCall("c", "researcher")))
    assert output.is_error
    assert output.content == "researcher is an agent: it runs in a run of another one only."
