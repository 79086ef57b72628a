"""Tools that go on in the background: answered at once, told of later, stopped, lost."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    ImageBlock,
    MessageAdded,
    ToolEnded,
    ToolMessage,
    UnsupportedControlError,
    UserMessage,
    tool,
)
from vllm_agent_sdk.sessions import MemoryStore
from vllm_agent_sdk.testing import Reply, Simulator

pytestmark = pytest.mark.feature("A-11")


class Work:
    """A background tool that ends when it is told to."""

    def __init__(self, result: Any = "built", **options: Any) -> None:
        self.begun, self.go_on, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.result = result
        self.tool = tool(name="build", **(options or {"background": True}))(self.run)

    async def run(self) -> Any:
        """Build."""
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


async def idle(session: Any) -> None:
    """Wait until no background task is under way."""
    if tasks := list(session._background._tasks.values()):
        await asyncio.wait(tasks)


def handle(result: Any) -> ToolMessage:
    """How the call was answered."""
    (answer,) = [m for m in result.messages if isinstance(m, ToolMessage)]
    return answer


def told(result: Any) -> list[Any]:
    """What the user's side said, notifications among it."""
    return [m.content for m in result.messages if isinstance(m, UserMessage)]


BUILD = Reply.calls(("build", {}))
OK = Reply.text("ok")


async def test_the_handle_names_the_task_and_there_is_one_result_of_the_call(client: Any) -> None:
    work = Work()
    async with Simulator(BUILD, OK, OK) as server:
        async with Agent(client=client(server), tools=[work.tool]).session() as session:
            first = await session.run("go")
            await work.begun.wait()
            work.go_on.set()
            await idle(session)
            second = await session.run("and?")
    task = f"task_{handle(first).call_id}"
    assert handle(first).text == (
        f"build goes on in the background as {task}; a message will tell its result."
    )
    assert told(second)[1] == f"[The background task {task} of build has ended.]\nbuilt"
    assert handle(second) == handle(first)


async def test_one_that_ends_during_a_run_is_told_before_the_next_model_call(client: Any) -> None:
    work = Work()

    @tool
    async def wait() -> str:
        """Let it end."""
        work.go_on.set()
        await idle(session)
        return "waited"

    async with Simulator(BUILD, Reply.calls(("wait", {})), OK) as server:
        async with Agent(client=client(server), tools=[work.tool, wait]).session() as session:
            result = await session.run("go")
    assert [type(m).__name__ for m in result.messages][-3:] == [
        "ToolMessage",
        "UserMessage",
        "AssistantMessage",
    ]
    assert result.messages[-2].text.endswith("has ended.]\nbuilt")


async def test_a_run_without_a_session_waits_for_it_and_lets_the_model_answer(client: Any) -> None:
    work = Work()
    async with Simulator(BUILD, Reply.text("wait"), Reply.text("done")) as server:
        async with Agent(client=client(server), tools=[work.tool]).stream("go") as run:
            async for event in run:
                if isinstance(event, ToolEnded):
                    work.go_on.set()
    assert run.result.text == "done"
    assert str(told(run.result)[1]).endswith("has ended.]\nbuilt")


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (ValueError("no room"), "It failed: ValueError: no room"),
        (None, "(no output)"),
        ({"a": 1}, '{"a":1}'),
    ],
)
async def test_what_came_of_it_is_told(client: Any, result: Any, said: str) -> None:
    work = Work(result)
    work.go_on.set()
    async with Simulator(BUILD, OK, OK) as server:
        async with Agent(client=client(server), tools=[work.tool]).session() as session:
            await session.run("go")
            await idle(session)
            second = await session.run("and?")
    assert str(told(second)[1]).endswith(f"has ended.]\n{said}")


async def test_a_picture_of_the_background_reaches_the_model(client: Any) -> None:
    picture = ImageBlock.from_bytes(b"x", "image/png")
    work = Work(["see", picture])
    work.go_on.set()
    async with Simulator(BUILD, OK, OK) as server:
        async with Agent(client=client(server), tools=[work.tool]).session() as session:
            await session.run("go")
            await idle(session)
            await session.run("and?")
    sent = [m["content"] for m in server.chats[-1].json["messages"] if m["role"] == "user"]
    assert [part["type"] for part in sent[1]] == ["text", "text", "image_url"]


async def test_one_that_takes_longer_than_it_said_goes_on_in_the_background(client: Any) -> None:
    work = Work(detach_after=0.01)
    async with Simulator(BUILD, OK, OK) as server:
        async with Agent(client=client(server), tools=[work.tool]).session() as session:
            first = await session.run("go")
            work.go_on.set()
            await idle(session)
            second = await session.run("and?")
    assert "goes on in the background" in handle(first).text
    assert str(told(second)[1]).endswith("built")


async def test_one_that_is_quicker_is_answered_with_its_result(client: Any) -> None:
    work = Work(detach_after=30)
    work.go_on.set()
    async with Simulator(BUILD, OK) as server:
        result = await Agent(client=client(server), tools=[work.tool]).run("go")
    assert handle(result).text == "built"


async def test_stop_task_cancels_it_and_the_model_is_told(client: Any) -> None:
    work = Work()
    async with Simulator(BUILD, OK, OK) as server:
        async with Agent(client=client(server), tools=[work.tool]).session() as session:
            first = await session.run("go")
            await work.begun.wait()
            task = f"task_{handle(first).call_id}"
            with pytest.raises(UnsupportedControlError, match=f"there are: {task}"):
                await session.stop_task("task_9")
            await session.stop_task(task)
            await idle(session)
            with pytest.raises(UnsupportedControlError, match="there are: none"):
                await session.stop_task(task)
            second = await session.run("and?")
    assert work.cancelled.is_set()
    assert str(told(second)[1]).endswith("It was stopped; what it had done until then is unknown.")


async def test_one_in_a_thread_that_is_stopped_is_not_said_to_have_ended(client: Any) -> None:
    begun, release = threading.Event(), threading.Event()

    @tool(background=True)
    def build() -> None:
        """Build."""
        begun.set()
        release.wait(20)

    async with Simulator(BUILD, OK, OK) as server:
        async with Agent(client=client(server), tools=[build]).session() as session:
            first = await session.run("go")
            await asyncio.to_thread(begun.wait, 5)
            await session.stop_task(f"task_{handle(first).call_id}")
            await idle(session)
            second = await session.run("and?")
    release.set()
    assert str(told(second)[1]).endswith("It was to stop: outcome unknown (still running).")


async def test_an_interrupt_of_the_run_leaves_it_alone(client: Any) -> None:
    work = Work()

    def reply(request: Any) -> Reply:
        said = request.json["messages"]
        if len(said) == 1:
            return BUILD
        return OK if said[-1]["content"] == "and?" else Reply.text("a", delay=30)

    async with Simulator(reply) as server:
        async with Agent(client=client(server), tools=[work.tool]).session() as session:
            run = session.stream("go")
            async for event in run:
                if isinstance(event, ToolEnded):
                    break
            await run.interrupt()
            work.go_on.set()
            await idle(session)
            second = await session.run("and?")
    assert not work.cancelled.is_set()
    assert str(told(second)[1]).endswith("built")


async def test_one_that_the_closing_of_the_session_ends_is_told_when_it_is_opened_again(
    client: Any,
) -> None:
    work, store = Work(), MemoryStore()
    async with Simulator(BUILD, OK, OK) as server:
        agent = Agent(client=client(server), tools=[work.tool])
        async with agent.session("s", store=store) as session:
            await session.run("go")
            await work.begun.wait()
        assert work.cancelled.is_set()
        async with agent.session("s", store=store) as session:
            second = await session.run("and?")
    assert "It was stopped; what it had done" in str(told(second)[1])
    assert len(told(second)) == 3


async def test_one_that_was_lost_with_the_program_is_told_of_once(client: Any) -> None:
    work, store = Work(), MemoryStore()
    async with Simulator(BUILD, OK, OK, OK) as server:
        agent = Agent(client=client(server), tools=[work.tool])
        async with agent.session("s") as session:
            await session.run("go")
            feed = session.events(after=0)
            kept: list[Any] = [event async for event in feed]  # as if the program ended here
            work.go_on.set()
        log = await store.open("s", create=True)
        await log.append(*kept)
        await log.aclose()
        async with agent.session("s", store=store) as session:
            second = await session.run("and?")
        async with agent.session("s", store=store) as session:
            third = await session.run("and now?")
            feed = session.events(after=0, until="close")
        notes = [e async for e in feed if isinstance(e, MessageAdded) and e.task is not None]
    lost = "It was lost when the program ended: its outcome is unknown."
    assert str(told(second)[1]).endswith(lost)
    assert str(told(third)).count(lost) == 1
    assert [note.when for note in notes] == ["notification"]
