"""Sessions over the memory store: what a user says, steers, answers and reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vllm_agent_sdk import (
    AddContext,
    Agent,
    Allow,
    Defer,
    Deny,
    Hooks,
    Interrupted,
    Limits,
    Matcher,
    MessageAdded,
    Permissions,
    RunEnded,
    RunStarted,
    RunSuspended,
    Session,
    SessionLockedError,
    SessionNotFoundError,
    SettingsChanged,
    TextDelta,
    ToolMessage,
    ToolStarted,
    UnsupportedControlError,
    UsageError,
    UserMessage,
    tool,
)
from vllm_agent_sdk.sessions import MemoryStore
from vllm_agent_sdk.testing import Reply, Simulator

from .waiting import Gate, order

WIPE = ("wipe", {"path": "/tmp/x"})


@tool(destructive=True)
async def wipe(path: str) -> str:
    """Delete a file."""
    return f"{path} is gone"


def said(session: Session[Any]) -> list[tuple[str, str]]:
    return [(type(m).__name__.removesuffix("Message"), m.text) for m in session.messages]


@pytest.mark.feature("A-01")
async def test_a_session_remembers_what_was_said(client: Any) -> None:
    async with Simulator(Reply.text("Hello."), Reply.text("Ada.")) as server:
        async with Agent(client=client(server)).session() as session:
            await session.run("I am Ada.")
            result = await session.run("Who am I?")
    assert result.text == "Ada."
    assert result.session_id == session.id
    texts = [m["content"] for m in server.chats[1].json["messages"]]
    assert texts == ["I am Ada.", "Hello.", "Who am I?"]
    assert result.usage.requests == 1


@pytest.mark.feature("A-16")
async def test_every_reader_of_events_gets_all_and_breaking_out_cancels_nothing(
    client: Any,
) -> None:
    async with Simulator(Reply.text("one two"), Reply.text("three")) as server:
        async with Agent(client=client(server)).session() as session:
            watching = session.events(until="close")
            first = session.events()
            run = await session.send("go")
            async for event in first:
                if isinstance(event, TextDelta):
                    break
            assert (await run).text == "one two"
            assert (await session.run("again")).text == "three"
            replay = [event async for event in session.events(after=0)]
        events = [event async for event in watching]
    assert [type(e) for e in events].count(RunEnded) == 2
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "one twothree"
    assert isinstance(replay[-1], RunEnded)
    assert [e.seq for e in replay] == list(range(1, len(replay) + 1))
    assert replay[-1] == next(e for e in events if isinstance(e, RunEnded))


@pytest.mark.feature("A-20")
async def test_what_is_said_while_a_run_is_active_begins_the_next_one(client: Any) -> None:
    gate = Gate()
    replies = (Reply.calls(("work", {})), Reply.text("first"), Reply.text("second"))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server), tools=[gate.tool]).session() as session:
            first = await session.send("a")
            await gate.begun.wait()
            second = await session.send("b")
            assert second is not first
            gate.go_on.set()
            assert (await first).text == "first"
            assert (await second).text == "second"
            assert said(session) == [
                ("User", "a"),
                ("Assistant", ""),
                ("Tool", "worked"),
                ("Assistant", "first"),
                ("User", "b"),
                ("Assistant", "second"),
            ]


@pytest.mark.feature("A-20")
async def test_steering_reaches_the_model_after_the_running_tools(client: Any) -> None:
    gate = Gate()
    replies = (Reply.calls(("work", {})), Reply.text("Ja."))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server), tools=[gate.tool]).session() as session:
            run = await session.send("a")
            await gate.begun.wait()
            steered = await session.send("In German, please.", when="steer")
            assert steered is run
            gate.go_on.set()
            assert (await run).text == "Ja."
    roles = [m["role"] for m in server.chats[1].json["messages"]]
    assert roles == ["user", "assistant", "tool", "user"]
    assert server.chats[1].json["messages"][-1]["content"] == "In German, please."


@pytest.mark.feature("A-20")
async def test_an_interrupting_message_ends_the_run_and_begins_another(client: Any) -> None:
    gate = Gate()
    replies = (Reply.calls(("work", {})), Reply.text("Now this."))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server), tools=[gate.tool]).session() as session:
            feed = session.events(until="close")
            first = await session.send("a")
            await gate.begun.wait()
            second = await session.send("b", when="interrupt")
            assert (await first).stop_reason == "interrupted"
            assert (await second).text == "Now this."
        events = [type(event).__name__ async for event in feed]
    assert events.index("Interrupted") < events.index("RunEnded")
    assert events.count("RunStarted") == 2


@pytest.mark.feature("A-20")
async def test_an_interrupt_is_not_queued_behind_messages_and_hits_one_run(client: Any) -> None:
    gate = Gate()
    replies = (Reply.calls(("work", {})), Reply.text("b"))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server), tools=[gate.tool]).session() as session:
            first = await session.send("a")
            await gate.begun.wait()
            second = await session.send("b")
            await session.interrupt()
            assert (await first).stop_reason == "interrupted"
            assert (await second).stop_reason == "end_turn"
            await session.interrupt()  # without a run it does nothing


@pytest.mark.feature("A-22")
async def test_retry_repeats_the_failed_model_call_on_the_same_history(client: Any) -> None:
    replies = (Reply.calls(WIPE), Reply.error(400, message="bad luck"), Reply.text("Gone."))
    agent = Agent(tools=[wipe], permissions=Permissions(allow=("wipe",)))
    async with Simulator(*replies) as server:
        async with agent.with_(client=client(server)).session() as session:
            failed = await session.run("wipe it")
            assert failed.stop_reason == "error"
            result = await (await session.retry())
            assert (result.stop_reason, result.text) == ("end_turn", "Gone.")
            with pytest.raises(UnsupportedControlError, match="retry cannot work here") as caught:
                await session.retry()
    assert (caught.value.control, caught.value.reason) == ("retry", "the last run did not fail")
    assert server.chats[1].json["messages"] == server.chats[2].json["messages"]
    assert result.tool_calls == {"wipe": 1}


@pytest.mark.feature("A-14")
async def test_a_deferred_tool_suspends_the_run_until_its_result_is_sent(client: Any) -> None:
    replies = (Reply.calls(("order", {"item": "tea"})), Reply.text("Tea is coming."))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server), tools=[order]).session() as session:
            result = await session.run("Tea, please.")
            assert (result.stop_reason, result.is_error) == ("suspended", False)
            (pending,) = result.pending
            assert (pending.kind, pending.call.name) == ("tool_result", "order")
            assert session.pending == result.pending
            with pytest.raises(UnsupportedControlError, match="does not wait for it"):
                await session.resolve(pending.call.id, Allow())
            run = await session.send_tool_result(pending.call.id, {"eta": 5})
            assert (await run).text == "Tea is coming."
            assert session.pending == []
    assert server.chats[1].json["messages"][-1]["content"] == '{"eta":5}'


@pytest.mark.feature("A-14")
async def test_a_deferred_result_can_be_sent_after_the_session_was_opened_again(
    client: Any,
) -> None:
    store = MemoryStore()
    replies = (Reply.calls(("order", {"item": "tea"})), Reply.text("Tea is coming."))
    async with Simulator(*replies) as server:
        agent = Agent(client=client(server), tools=[order])
        async with agent.session("s", store=store) as session:
            assert (await session.run("Tea, please.")).stop_reason == "suspended"
        async with agent.session("s", store=store, create=False) as session:
            (pending,) = session.pending
            run = await session.send_tool_result(pending.call.id, "ordered")
            assert (await run).text == "Tea is coming."


@pytest.mark.feature("H-04")
@pytest.mark.parametrize(
    ("answer", "told", "denials"),
    [
        (Allow(), "/tmp/x is gone", 0),
        (Allow({"path": "/tmp/y"}), "/tmp/y is gone", 0),
        (Deny("Not that one."), "Not that one.", 1),
    ],
)
async def test_a_deferred_approval_is_answered_later(
    client: Any, answer: Any, told: str, denials: int
) -> None:
    async def later(_call: Any, _ctx: Any) -> Defer:
        return Defer()

    async with Simulator(Reply.calls(WIPE), Reply.text("ok")) as server:
        agent = Agent(
            client=client(server), tools=[wipe], permissions=Permissions(can_use_tool=later)
        )
        async with agent.session() as session:
            feed = session.events()
            result = await session.run("wipe it")
            assert [p.kind for p in result.pending] == ["approval"]
            assert isinstance([event async for event in feed][-1], RunSuspended)
            run = await session.resolve(result.pending[0].call.id, answer)
            result = await run
    assert result.stop_reason == "end_turn"
    assert [m.text for m in result.messages if isinstance(m, ToolMessage)] == [told]
    assert len(result.permission_denials) == denials


@pytest.mark.feature("H-04")
async def test_a_remembered_grant_counts_for_later_runs_of_the_session(client: Any) -> None:
    asked: list[str] = []

    def once(call: Any, _ctx: Any) -> Allow:
        asked.append(call.id)
        return Allow(remember="wipe(path=/tmp/*)")

    replies = (Reply.calls(WIPE), Reply.text("a"), Reply.calls(WIPE), Reply.text("b"))
    async with Simulator(*replies) as server:
        agent = Agent(
            client=client(server), tools=[wipe], permissions=Permissions(can_use_tool=once)
        )
        async with agent.session() as session:
            await session.run("one")
            result = await session.run("two")
    assert result.tool_calls == {"wipe": 1}
    assert len(asked) == 1


async def test_a_suspended_run_can_be_interrupted_and_the_session_goes_on(client: Any) -> None:
    replies = (Reply.calls(("order", {"item": "tea"})), Reply.text("Fine."))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server), tools=[order]).session() as session:
            await session.run("Tea.")
            queued = await session.send("Never mind.")
            await session.interrupt()
            assert (await queued).text == "Fine."
    roles = [m["role"] for m in server.chats[1].json["messages"]]
    assert roles == ["user", "assistant", "tool", "user"]


@pytest.mark.feature("A-09")
async def test_the_model_and_the_mode_can_be_changed_and_say_so(client: Any) -> None:
    gate = Gate()
    replies = (Reply.calls(("work", {}), WIPE), Reply.text("ok"), Reply.text("ok"))
    async with Simulator(*replies, model="sim") as server:
        agent = Agent(client=client(server), model="sim", tools=[gate.tool, wipe])
        async with agent.session() as session:
            feed = session.events(until="close")
            run = await session.send("a")
            await gate.begun.wait()
            session.set_model("other")
            gate.go_on.set()
            await run
            session.set_permission_mode("plan")
            await session.run("b")
            with pytest.raises(UsageError, match="no permission mode"):
                session.set_permission_mode("yolo")  # type: ignore[arg-type]
        changes = [e.what async for e in feed if isinstance(e, SettingsChanged)]
    assert [chat.json["model"] for chat in server.chats] == ["sim", "other", "other"]
    assert changes == ["model", "permission_mode"]


@pytest.mark.feature("A-17")
async def test_a_control_that_cannot_work_names_itself_and_the_reason(client: Any) -> None:
    async with Simulator(Reply.text("ok")) as server:
        session = Agent(client=client(server)).session()
        with pytest.raises(UsageError, match="not open"):
            await session.run("too early")
        async with session:
            for control, attempt in {
                "retry": session.retry(),
                "resolve": session.resolve("c9", Allow()),
                "send_tool_result": session.send_tool_result("c9", "x"),
                "stop_task": session.stop_task("t9"),
            }.items():
                with pytest.raises(UnsupportedControlError) as caught:
                    await attempt
                assert caught.value.control == control
                assert caught.value.reason in str(caught.value)
            await session.interrupt()
            assert await session.resume() is None
            assert server.requests == []


async def test_one_writer_at_a_time_and_unknown_ids_are_told(client: Any) -> None:
    store = MemoryStore()
    async with Simulator(Reply.text("ok")) as server:
        agent = Agent(client=client(server))
        with pytest.raises(SessionNotFoundError, match="'nobody'"):
            async with agent.session("nobody", store=store, create=False):
                raise AssertionError
        async with agent.session("s", store=store) as session:
            await session.run("hi")
            with pytest.raises(SessionLockedError):
                async with agent.session("s", store=store):
                    raise AssertionError
        async with agent.session(store=store, latest=True) as again:
            assert again.id == "s"
            assert [m.text for m in again.messages] == ["hi", "ok"]


async def test_hooks_at_the_ends_of_a_session_run_and_add_what_they_know(client: Any) -> None:
    ends: list[str] = []

    def start(event: Any) -> AddContext:
        return AddContext(f"The session is {event.session_id}.")

    def end(event: Any) -> None:
        ends.append(event.event)

    hooks = Hooks(session_start=(Matcher("*", start),), session_end=(Matcher("*", end),))
    async with Simulator(Reply.text("ok")) as server:
        async with Agent(client=client(server), hooks=hooks).session("s7") as session:
            await session.run("hi")
    sent = [m["content"] for m in server.chats[0].json["messages"]]
    assert sent == ["The session is s7.", "hi"]
    assert ends == ["session_end"]


@pytest.mark.feature("A-11")
async def test_a_background_tool_is_answered_at_once_and_tells_its_result_later(
    client: Any,
) -> None:
    done = asyncio.Event()

    @tool(background=True)
    async def build() -> str:
        """Build it."""
        await done.wait()
        return "built"

    replies = (Reply.calls(("build", {})), Reply.text("It builds."), Reply.text("Good."))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server), tools=[build]).session() as session:
            first = await session.run("build")
            assert first.text == "It builds."
            feed = session.events(until="close")
            building = [*session._background._tasks.values()]
            done.set()
            await asyncio.wait(building)
            await session.run("and?")
        kept = [e async for e in feed if isinstance(e, MessageAdded)]
    answer = next(m for m in first.messages if isinstance(m, ToolMessage))
    assert "in the background as task_" in answer.text
    told = server.chats[2].json["messages"][-2:]
    assert [m["role"] for m in told] == ["user", "user"]
    assert "of build has ended.]\nbuilt" in told[0]["content"]
    assert [event.when for event in kept] == ["notification", "prompt"]


@pytest.mark.feature("A-08")
async def test_a_dropped_session_keeps_what_was_done_and_resumes(client: Any) -> None:
    gate, store = Gate(), MemoryStore()
    replies = (Reply.calls(("work", {})), Reply.text("done"))
    async with Simulator(*replies) as server:
        agent = Agent(client=client(server), tools=[gate.tool])
        async with agent.session("s", store=store) as session:
            await session.send("a")
            await gate.begun.wait()
        gate.go_on.set()
        async with agent.session("s", store=store) as session:
            run = await session.resume()
            assert run is not None
            result = await run
            # The tool may have acted: it is not run again without a yes.
            assert [p.kind for p in result.pending] == ["decision"]
            run = await session.resolve(result.pending[0].call.id, Allow())
            assert (await run).text == "done"
        async with agent.session("s", store=store) as session:
            feed = session.events(after=0, until="close")
        log = [event async for event in feed]
    assert sum(isinstance(event, ToolStarted) for event in log) == 2
    assert [type(e).__name__ for e in log].count("RunStarted") == 1
    assert not any(isinstance(event, Interrupted) for event in log)


async def test_limits_count_for_each_run_by_itself(client: Any) -> None:
    async with Simulator(Reply.text("a"), Reply.text("b")) as server:
        agent = Agent(client=client(server), limits=Limits(max_turns=1))
        async with agent.session() as session:
            assert (await session.run("1")).stop_reason == "end_turn"
            assert (await session.run("2")).stop_reason == "end_turn"
            starts = [e async for e in session.events(after=0) if isinstance(e, RunStarted)]
    assert [start.history for start in starts] == [[]]
    assert isinstance(session.messages[0], UserMessage)
