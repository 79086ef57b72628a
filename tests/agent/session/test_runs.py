"""What becomes of prompts and answers that come as a run begins, or just as it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_agent_sdk import (
    Agent,
    Allow,
    AsyncVLLM,
    ClientClosedError,
    Deny,
    Interrupted,
    MessageAdded,
    Permissions,
    RunEnded,
    RunStarted,
    RunSuspended,
    Session,
    SettingsChanged,
    ToolEnded,
    UnsupportedControlError,
    UsageError,
    UserMessage,
    tool,
)
from vllm_agent_sdk.sessions import MemoryStore, SessionStore, SQLiteStore
from vllm_agent_sdk.testing import Reply, Simulator

from .waiting import Gate, order


@tool(destructive=True)
async def wipe(path: str) -> str:
    """Delete a file."""
    return f"{path} is gone"


def prompts_of(server: Simulator) -> list[str]:
    """What was said last, in each request."""
    return [chat.json["messages"][-1]["content"] for chat in server.chats]


WORK = Reply.calls(("work", {}))


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SessionStore:
    """Each kind of store that needs no server; a file takes its time."""
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "sessions.db")


@pytest.mark.feature("A-20")
async def test_prompts_sent_at_once_are_answered_one_after_the_other(
    client: Any, store: SessionStore
) -> None:
    replies = (Reply.text("1"), Reply.text("2"), Reply.text("3"))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server)).session(store=store) as session:
            runs = [await session.send(prompt) for prompt in ("a", "b", "c")]
            results = await asyncio.gather(*reversed(runs))
    assert [result.text for result in results] == ["3", "2", "1"]
    assert prompts_of(server) == ["a", "b", "c"]


@pytest.mark.feature("A-20")
async def test_tasks_that_run_at_the_same_time_each_get_their_own_answer(
    client: Any, store: SessionStore
) -> None:
    def echo(request: Any) -> Reply:
        return Reply.text(f"You said {request.json['messages'][-1]['content']}.")

    async with Simulator(echo) as server:
        async with Agent(client=client(server)).session(store=store) as session:
            results = await asyncio.gather(*(session.run(str(number)) for number in range(5)))
    assert [result.text for result in results] == [f"You said {n}." for n in range(5)]


@pytest.mark.feature("A-20")
async def test_a_queued_run_can_be_read_before_its_turn(client: Any, store: SessionStore) -> None:
    gate = Gate()
    async with Simulator(WORK, Reply.text("first"), Reply.text("second")) as server:
        async with Agent(client=client(server), tools=[gate.tool]).session(store=store) as session:
            first = await session.send("a")
            await gate.begun.wait()
            second = await session.send("b")

            async def read() -> list[Any]:
                return [event async for event in second]

            reading = asyncio.create_task(read())
            gate.go_on.set()
            events = await reading
            assert first.result.text == "first"
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)
    assert second.result.text == "second"


@pytest.mark.feature("A-20")
async def test_what_is_said_before_the_first_request_is_queued_too(client: Any) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        """Keeps the first event only when the test says so."""

        async def open(self, session_id: str, *, create: bool = True) -> Any:
            log = await super().open(session_id, create=create)
            keep = log.append

            async def append(*events: Any) -> None:
                asked.set()
                await answer.wait()
                await keep(*events)

            log.append = append  # type: ignore[method-assign]
            return log

    async with Simulator(Reply.text("1"), Reply.text("2")) as server:
        async with Agent(client=client(server)).session(store=Slow()) as session:
            first = await session.send("a")
            sending = asyncio.create_task(session.send("b"))
            await asked.wait()
            answer.set()
            second = await sending
            assert (await second).text == "2"
            assert first.result.text == "1"


@pytest.mark.feature("A-20")
async def test_what_is_said_to_a_run_that_cannot_begin_is_told_so_too(
    client: Any, store: SessionStore
) -> None:
    async with Simulator(Reply.text("ok")) as server:
        vllm = client(server)
        async with Agent(client=vllm).session(store=store) as session:
            await vllm.aclose()
            runs = [await session.send("a"), await session.send("b")]
            for run in runs:
                with pytest.raises(ClientClosedError):
                    await run
            assert session.messages == []
    assert server.chats == []


@pytest.mark.feature("A-20")
async def test_steering_that_comes_too_late_begins_a_run_of_its_own(
    client: Any, store: SessionStore
) -> None:
    async with Simulator(Reply.text("1"), Reply.text("2")) as server:
        async with Agent(client=client(server)).session(store=store) as session:
            late = [
                await session.send("b", when="steer")
                async for event in await session.send("a")
                if isinstance(event, RunEnded)
            ]
            assert [(await run).text for run in late] == ["2"]


@pytest.mark.feature("A-20")
async def test_a_steering_message_that_was_not_heard_before_an_interrupt_is_not_lost(
    client: Any, store: SessionStore
) -> None:
    gate = Gate()
    async with Simulator(WORK, Reply.text("b it is"), Reply.text("c it is")) as server:
        async with Agent(client=client(server), tools=[gate.tool]).session(store=store) as session:
            feed = session.events(until="close")
            run = await session.send("a")
            await gate.begun.wait()
            after = await session.send("c")
            assert await session.send("b", when="steer") is run
            await session.interrupt()
            assert (await run).stop_reason == "interrupted"
            assert (await after).text == "c it is"
        ended = [event.result.text async for event in feed if isinstance(event, RunEnded)]
    assert ended == ["", "b it is", "c it is"]


@pytest.mark.feature("A-20")
async def test_each_way_to_send_has_its_event(client: Any, store: SessionStore) -> None:
    gate = Gate()
    async with Simulator(WORK, Reply.text("x")) as server:
        async with Agent(client=client(server), tools=[gate.tool]).session(store=store) as session:
            feed = session.events(until="close")
            run = await session.send("a")
            await gate.begun.wait()
            queued = await session.send("b")
            await session.send("c", when="steer")
            last = await session.send("d", when="interrupt")
            await asyncio.gather(run, queued, last)
            kept = [e async for e in session.events(after=0) if isinstance(e, Interrupted)]
        said = [
            (event.message.text, event.when, event.queued)
            async for event in feed
            if isinstance(event, MessageAdded)
        ]
    assert len(kept) == 1
    assert said[:4] == [
        ("a", "prompt", False),
        ("b", "after", False),
        ("c", "steer", False),
        ("d", "interrupt", False),
    ]
    # What waited is said again as the prompt of a run of its own.
    assert said[4:] == [(text, "prompt", True) for text in ("c", "b", "d")]


@pytest.mark.feature("A-20", "A-06")
async def test_queued_prompts_outlive_the_session_object(client: Any, store: SessionStore) -> None:
    gate = Gate()
    replies = (WORK, Reply.text("interrupted b"), Reply.text("c"))
    async with Simulator(*replies) as server:
        agent = Agent(client=client(server), tools=[gate.tool])
        async with agent.session("s", store=store) as session:
            await session.send("a")
            await gate.begun.wait()
            closed = await session.send("b")
        with pytest.raises(UsageError, match="closed"):
            await closed
        async with agent.session("s", store=store) as session:
            run = await session.resume()
            assert run is not None
            assert (await run).stop_reason == "suspended"
            feed = session.events()
            await session.interrupt()
            assert [type(e).__name__ async for e in feed][-1] == "RunEnded"
            assert (await session.run("c")).text == "c"
    assert prompts_of(server)[-2:] == ["b", "c"]


_SAID = st.sampled_from(["after", "steer", "interrupt", "stop", "wait"])


@pytest.mark.feature("A-20")
@settings(max_examples=40)
@given(st.lists(st.tuples(_SAID, st.integers(0, 30)), max_size=8))
def test_whatever_is_said_when_is_heard_once_and_every_run_ends(
    said: list[tuple[Any, int]],
) -> None:
    """At any step of a run: each prompt comes up once, and whoever awaits its run gets a result."""

    def reply(request: Any) -> Reply:
        last = request.json["messages"][-1]
        if last["role"] == "tool":
            return Reply.text("Done.")
        return Reply.calls(("work", {"number": len(request.json["messages"])}))

    @tool
    async def work(number: int) -> str:
        """Work."""
        await asyncio.sleep(0)
        return "worked"

    async def play() -> None:
        async with (
            Simulator(reply) as server,
            AsyncVLLM("http://sim", transport=server.transport) as vllm,
            Agent(client=vllm, model="sim-model", tools=[work]).session() as session,
        ):
            runs = []
            for number, (what, steps) in enumerate(said):
                if what == "stop":
                    await session.interrupt()
                elif what != "wait":
                    runs.append(await session.send(f"{number}", when=what))
                for _ in range(steps):
                    await asyncio.sleep(0)
            result = await session.run("the last")
            assert result.stop_reason == "end_turn"
            for run in runs:
                assert (await run).stop_reason in {"end_turn", "interrupted"}
            heard = [m.text for m in session.messages if isinstance(m, UserMessage)]
        prompts = [f"{n}" for n, (what, _) in enumerate(said) if what not in {"stop", "wait"}]
        assert sorted(heard) == sorted([*prompts, "the last"])

    asyncio.run(asyncio.wait_for(play(), 20))


# ── as a run ends ────────────────────────────────────────────────────────────────────────────────


async def _retried(session: Session[Any], _event: Any) -> Any:
    return await session.retry()


async def _sent(session: Session[Any], _event: Any) -> Any:
    return await session.send("again")


async def _streamed(session: Session[Any], _event: Any) -> Any:
    return session.stream("again")


@pytest.mark.feature("A-16", "A-20")
@pytest.mark.parametrize("control", [_retried, _sent, _streamed])
async def test_who_sees_the_end_can_go_on_at_once(
    client: Any, store: SessionStore, control: Callable[..., Any]
) -> None:
    replies = (Reply.error(400, message="bad luck"), Reply.text("now"))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server)).session(store=store) as session:
            feed = session.events()
            await session.send("a")
            async for event in feed:
                if isinstance(event, RunEnded):
                    assert event.result.stop_reason == "error"
                    assert session.messages[0].text == "a"
                    assert (await (await control(session, event))).text == "now"


@pytest.mark.feature("A-16", "A-14")
@pytest.mark.parametrize("answers", ["result", "approval", "interrupt", "resume"])
async def test_who_sees_the_suspension_can_answer_at_once(
    client: Any, store: SessionStore, answers: str
) -> None:
    replies = (Reply.calls(("order", {"item": "tea"})), Reply.text("Tea is coming."))
    agent = Agent(tools=[order])
    if answers == "approval":
        replies = (Reply.calls(("wipe", {"path": "x"})), Reply.text("Tea is coming."))
        agent = Agent(tools=[wipe], permissions=Permissions(unanswered="suspend"))
    async with Simulator(*replies) as server:
        async with agent.with_(client=client(server)).session(store=store) as session:
            await session.send("tea, please")
            async for event in session.events(after=0):
                if not isinstance(event, RunSuspended):
                    continue
                (waiting,) = event.waiting
                if answers == "result":
                    run = await session.send_tool_result(waiting.call.id, "ordered")
                elif answers == "approval":
                    run = await session.resolve(waiting.call.id, Allow())
                elif answers == "resume":
                    resumed = await session.resume()
                    assert resumed is not None
                    run = await session.send_tool_result(waiting.call.id, "ordered")
                else:
                    await session.interrupt()
                    ends = [e async for e in session.events(after=event.seq)]
                    assert isinstance(ends[-1], RunEnded)
                    assert ends[-1].result.stop_reason == "interrupted"
                    return
                assert (await run).text == "Tea is coming."


@pytest.mark.feature("A-14")
async def test_two_calls_that_wait_are_answered_one_right_after_the_other(
    client: Any, store: SessionStore
) -> None:
    calls = Reply.calls(("wipe", {"path": "a"}), ("wipe", {"path": "b"}))
    agent = Agent(tools=[wipe], permissions=Permissions(unanswered="suspend"))
    async with Simulator(calls, Reply.text("Done.")) as server:
        async with agent.with_(client=client(server)).session(store=store) as session:
            first, second = (await session.run("wipe both")).pending
            run = await session.resolve(first.call.id, Allow())
            again = await session.resolve(second.call.id, Deny("not that one"))
            result = await again
            assert result.text == "Done."
            assert again is run
            with pytest.raises(UnsupportedControlError, match="waiting: nothing"):
                await session.resolve(first.call.id, Allow())
    tools = [m["content"] for m in server.chats[-1].json["messages"] if m["role"] == "tool"]
    assert tools[0] == "a is gone"
    assert "not that one" in tools[1]


async def test_a_stream_is_refused_while_another_run_is_active(
    client: Any, store: SessionStore
) -> None:
    gate = Gate()
    async with Simulator(WORK, Reply.text("1"), Reply.text("2")) as server:
        async with Agent(client=client(server), tools=[gate.tool]).session(store=store) as session:
            run = await session.send("a")
            await gate.begun.wait()
            with pytest.raises(UsageError, match="active run"):
                await session.stream("b")
            gate.go_on.set()
            assert (await run).text == "1"
            assert (await session.stream("c")).text == "2"


# ── closed handles ───────────────────────────────────────────────────────────────────────────────


async def test_a_run_that_is_closed_before_its_first_step_leaves_the_session_usable(
    client: Any, store: SessionStore
) -> None:
    async with Simulator(Reply.text("ok")) as server:
        async with Agent(client=client(server)).session(store=store) as session:
            run = await session.send("a")
            await run.aclose()
            assert [event async for event in run] == []
            with pytest.raises(UsageError, match="was closed before its end"):
                await run
            assert (await session.run("b")).text == "ok"


async def test_a_queued_run_that_nobody_reads_any_more_still_runs(
    client: Any, store: SessionStore
) -> None:
    gate = Gate()
    replies = (WORK, Reply.text("1"), Reply.text("2"), Reply.text("3"))
    async with Simulator(*replies) as server:
        async with Agent(client=client(server), tools=[gate.tool]).session(store=store) as session:
            await session.send("a")
            await gate.begun.wait()
            dropped = await session.send("b")
            await dropped.aclose()
            last = await session.send("c")
            gate.go_on.set()
            assert (await last).text == "3"
    assert prompts_of(server)[-2:] == ["b", "c"]


async def test_settings_changed_before_the_first_request_count_for_it(
    client: Any, store: SessionStore
) -> None:
    async with Simulator(Reply.text("ok"), model="sim") as server:
        async with Agent(client=client(server), model="sim").session(store=store) as session:
            await session.run("a")
            run = await session.send("b")
            session.set_model("other")
            events = [event async for event in run]
    changes = [event.new for event in events if isinstance(event, SettingsChanged)]
    assert [chat.json["model"] for chat in server.chats] == ["sim", "other"]
    assert len(changes) <= 1


async def test_a_tool_can_speak_to_the_session_it_runs_in(client: Any, store: SessionStore) -> None:
    sessions: list[Session[Any]] = []

    @tool
    async def work() -> str:
        """Work."""
        await sessions[0].send("Be brief.", when="steer")
        return "worked"

    async with Simulator(WORK, Reply.text("Done.")) as server:
        async with Agent(client=client(server), tools=[work]).session(store=store) as session:
            sessions.append(session)
            run = await session.send("a")
            events = [event async for event in run]
    assert [e.message.text for e in events if isinstance(e, ToolEnded)] == ["worked"]
    assert prompts_of(server)[-1] == "Be brief."
