"""A store that fails in the middle of a run: what was shown is kept, and the run can go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from vllm_agent_sdk import Agent, Allow, Permissions, RunContext, StoreError, tool
from vllm_agent_sdk.sessions import MemoryStore, Snapshot
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.types.events import StoredEvent

pytestmark = pytest.mark.feature("D-03")


class Log:
    """A log that fails once, at its n-th append."""

    def __init__(self, log: Any, fails_at: int) -> None:
        self.log, self.left = log, fails_at
        self.entries: list[list[str]] = []

    async def append(self, *events: StoredEvent) -> None:
        self.entries.append([type(event).__name__ for event in events])
        self.left -= 1
        if self.left == 0:
            raise StoreError("The disk is full.")
        await self.log.append(*events)

    async def read(self, after: int = 0) -> Sequence[StoredEvent]:
        events: Sequence[StoredEvent] = await self.log.read(after)
        return events

    async def snapshot(self) -> Snapshot | None:
        kept: Snapshot | None = await self.log.snapshot()
        return kept

    async def keep_snapshot(self, snapshot: Snapshot) -> None:
        await self.log.keep_snapshot(snapshot)

    async def aclose(self) -> None:
        await self.log.aclose()


class Failing(MemoryStore):
    """A store in memory whose log fails once."""

    def __init__(self, fails_at: int) -> None:
        super().__init__()
        self.fails_at = fails_at

    async def open(self, session_id: str, *, create: bool = True) -> Any:
        self.log = Log(await super().open(session_id, create=create), self.fails_at)
        return self.log


REPLIES = (
    Reply.calls(("count", {"number": 1}), ("count", {"number": 2})),
    Reply.calls(("count", {"number": 3})),
    Reply.text("done"),
)


def answer(request: Any) -> Reply:
    results = sum(message["role"] == "tool" for message in request.json["messages"])
    return REPLIES[{0: 0, 2: 1, 3: 2}[results]]


class Counter:
    """An agent whose tool must not run twice."""

    def __init__(self, client: Any) -> None:
        self.calls: list[str] = []

        @tool
        async def count(number: int, ctx: RunContext[Any]) -> str:
            """Count."""
            self.calls.append(ctx.call.id)
            return str(number)

        self.agent = Agent(
            client=client,
            tools=[count],
            turn_mode="native",
            permissions=Permissions(mode="bypassPermissions"),
        )


async def taken_up(session: Any) -> str:
    """Go on to the end; what is asked is allowed."""
    run = await session.resume() or await session.send("Count.")
    while (result := await run).stop_reason == "suspended":
        for pending in session.pending:
            run = await session.resolve(pending.call.id, Allow())
    assert result.stop_reason == "end_turn"
    return str(result.text)


async def watched(run: Any, shown: list[int]) -> None:
    """Watch to the end; note what is shown that is kept."""
    async for event in run:
        if event.seq is not None:
            shown.append(event.seq)  # noqa: PERF401 - what came before an error counts
    await run


@pytest.mark.parametrize("fails_at", range(1, 9))
async def test_wherever_it_fails_nothing_that_was_shown_is_lost_and_nothing_runs_twice(
    client: Any, fails_at: int
) -> None:
    async with Simulator(answer) as server:
        counter = Counter(client(server))
        store = Failing(fails_at)
        shown: list[int] = []
        async with counter.agent.session("s", store=store) as session:
            run = await session.send("Count.")
            with pytest.raises(StoreError, match="The disk is full"):
                await watched(run, shown)
            assert shown == [event.seq for event in await store.read("s")]
            assert await taken_up(session) == "done"
    asked_again = len(counter.calls) - len(set(counter.calls))
    decisions = [e for e in await store.read("s") if type(e).__name__ == "PermissionDecided"]
    assert asked_again <= len(decisions)
    assert len(set(counter.calls)) == 3


async def test_what_begins_at_once_after_an_effect_has_ended_is_one_entry_with_it(
    client: Any,
) -> None:
    async with Simulator(answer) as server:
        store = Failing(0)
        async with Counter(client(server)).agent.session("s", store=store) as session:
            assert (await session.run("Count.")).text == "done"
    begun = ["TurnStarted", "ModelStarted"]
    assert store.log.entries == [
        ["RunStarted", "MessageAdded", *begun],
        ["ModelEnded", "ToolStarted"],
        ["ToolStarted"],
        ["ToolEnded"],
        ["ToolEnded", *begun],
        ["ModelEnded", "ToolStarted"],
        ["ToolEnded", *begun],
        ["ModelEnded", "RunEnded"],
    ]
