"""Calls of one turn: side by side as far as allowed, alone where a tool says so, each in time."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    Limits,
    Sampling,
    ToolEnded,
    ToolMessage,
    ToolStarted,
    tool,
)
from vllm_agent_sdk.testing import Reply, Simulator

pytestmark = pytest.mark.feature("A-02")


def answers(result: Any) -> list[str]:
    """What the model read of its calls, in order."""
    return [m.text for m in result.messages if isinstance(m, ToolMessage)]


class Counted:
    """Tools that count how many of them run at once, and wait for each other."""

    def __init__(self, meet: int) -> None:
        self.running = self.most = 0
        self.order: list[int] = []
        self._full = asyncio.Event()
        self._meet = meet

    async def run(self, number: int) -> str:
        """Run until enough of them do, or none is waited for any more."""
        self.running += 1
        self.most = max(self.most, self.running)
        self.order.append(number)
        if self.running >= self._meet:
            self._full.set()
        await self._full.wait()
        for _ in range(10 - number):  # the last ones end first
            await asyncio.sleep(0)
        self.running -= 1
        return f"result {number}"


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_no_more_run_at_once_than_allowed_and_results_keep_the_order_of_the_calls(
    client: Any, most: int
) -> None:
    counted = Counted(meet=most)
    work = tool(name="work")(counted.run)
    calls = Reply.calls(*(("work", {"number": number}) for number in range(5)))
    async with Simulator(calls, Reply.text("ok")) as server:
        limits = Limits(max_parallel_tools=most)
        agent = Agent(client=client(server), tools=[work], limits=limits)
        async with agent.stream("?") as run:
            events = [event async for event in run]
    assert counted.most == most
    assert counted.order == list(range(5))
    assert answers(run.result) == [f"result {number}" for number in range(5)]
    begun = [e.call.id for e in events if isinstance(e, ToolStarted)]
    ended = [e.message.call_id for e in events if isinstance(e, ToolEnded)]
    assert sorted(begun) == sorted(ended)
    assert (begun == ended) is (most == 1)


async def test_guided_turns_have_several_calls_where_the_sampling_says_so(client: Any) -> None:
    counted = Counted(meet=2)
    work = tool(name="work")(counted.run)
    said = "\n".join(f'[[call work]]{{"number": {number}}}[[/call]]' for number in range(2))
    async with Simulator(Reply.text(said), Reply.text("[[final]]ok[[/final]]")) as server:
        agent = Agent(
            client=client(server),
            tools=[work],
            turn_mode="guided",
            sampling=Sampling(parallel_tool_calls=True),
        )
        result = await agent.run("?")
    assert counted.most == 2
    assert answers(result) == ["result 0", "result 1"]


async def test_nothing_runs_beside_a_serial_tool(client: Any) -> None:
    running: set[str] = set()
    seen: list[tuple[str, ...]] = []

    async def note(name: str) -> str:
        running.add(name)
        seen.append(tuple(sorted(running)))
        for _ in range(5):
            await asyncio.sleep(0)
        running.discard(name)
        return name

    @tool
    async def beside(name: str) -> str:
        """Run beside others."""
        return await note(name)

    @tool(serial=True)
    async def alone(name: str) -> str:
        """Run alone."""
        return await note(name)

    names = [("beside", "a"), ("beside", "b"), ("alone", "c"), ("beside", "d"), ("alone", "e")]
    calls = Reply.calls(*((each, {"name": name}) for each, name in names))
    async with Simulator(calls, Reply.text("ok")) as server:
        result = await Agent(client=client(server), tools=[beside, alone]).run("?")
    assert seen == [("a",), ("a", "b"), ("c",), ("d",), ("e",)]
    assert answers(result) == ["a", "b", "c", "d", "e"]


async def test_each_tool_has_its_own_time_and_the_others_go_on(client: Any) -> None:
    cancelled = asyncio.Event()

    @tool(timeout=0.02)
    async def slow() -> None:
        """Take long."""
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    @tool(timeout=60)
    async def patient() -> str:
        """Wait for the other one."""
        await cancelled.wait()
        return "done"

    calls = Reply.calls(("slow", {}), ("patient", {}))
    async with Simulator(calls, Reply.text("ok")) as server:
        limits = Limits(tool_timeout_s=0.01)  # what a tool says of itself counts
        agent = Agent(client=client(server), tools=[slow, patient], limits=limits)
        result = await agent.run("?")
    assert result.stop_reason == "end_turn"
    assert answers(result) == [
        "slow was cancelled after 0.02 s (its timeout); it may have acted.",
        "done",
    ]


async def test_sync_tools_run_side_by_side_in_threads_of_their_own(client: Any) -> None:
    meeting = threading.Barrier(2, timeout=10)
    threads: list[str] = []

    @tool
    def meet(name: str) -> str:
        """Meet."""
        meeting.wait()
        threads.append(threading.current_thread().name)
        return name

    calls = Reply.calls(("meet", {"name": "a"}), ("meet", {"name": "b"}))
    async with Simulator(calls, Reply.text("ok")) as server:
        result = await Agent(client=client(server), tools=[meet]).run("?")
    assert answers(result) == ["a", "b"]
    assert threads == ["tool-meet", "tool-meet"]
