"""When a snapshot of a session is kept, and what a log is folded from."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import UsageError
from vllm_agent_sdk._core.run.log import Log
from vllm_agent_sdk._core.run.state import State
from vllm_agent_sdk.agent.session import replay
from vllm_agent_sdk.agent.session.replay import Snapshots
from vllm_agent_sdk.sessions import MemoryStore, SessionLog
from vllm_agent_sdk.types.events import Notice
from vllm_agent_sdk.types.messages import ToolCall, UserMessage


async def log_of(events: int) -> SessionLog:
    log = await MemoryStore().open("s")
    await log.append(*(Notice("n", "x", seq=seq) for seq in range(1, events + 1)))
    return log


async def kept_after(snapshots: Snapshots, log: SessionLog, state: State, seq: int) -> int:
    """The event of the newest snapshot, once a run has ended at one."""
    await snapshots.aclose(state, seq)
    kept = await log.snapshot()
    return 0 if kept is None else kept.seq


@pytest.mark.feature("D-02")
async def test_a_snapshot_is_kept_every_thousand_events() -> None:
    log = await log_of(5000)
    snapshots = Snapshots("s", log)
    ends = [999, 1000, 1001, 1999, 2000, 2001, 2999, 3001, 4500]
    kept = [await kept_after(snapshots, log, State(), end) for end in ends]
    assert kept == [0, 1000, 1000, 1000, 2000, 2000, 2000, 3001, 4500]


@pytest.mark.feature("D-02")
async def test_a_state_that_is_large_is_written_less_often() -> None:
    log = await log_of(5000)
    snapshots = Snapshots("s", log)
    state = State(history=Log([UserMessage("x" * 2_500_000)]))
    kept = [await kept_after(snapshots, log, state, end) for end in (1000, 2000, 3400, 3600, 5000)]
    assert kept == [1000, 1000, 1000, 3600, 3600], "2,500 events for 2.5 MB"
    again = Snapshots("s", log)
    await again.replay()
    assert await kept_after(again, log, State(), 4700) == 3600, "known from the one that was read"


async def test_what_one_was_kept_of_is_where_the_next_opening_begins() -> None:
    log = await log_of(1500)
    state = State(history=Log([UserMessage("hi")]))
    await Snapshots("s", log).aclose(state, 1200)
    snapshots = Snapshots("s", log)
    assert await snapshots.replay() == (state, 1500)
    assert snapshots.seq == 1200
    assert await kept_after(snapshots, log, state, 1500) == 1200, "300 events are not yet many"


async def test_a_state_that_cannot_be_written_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    log = await log_of(1500)
    wrong: Any = {"a": object()}
    await Snapshots("s", log).aclose(State(denials=(ToolCall("c", "get", wrong),)), 1500)
    assert await log.snapshot() is None
    assert UsageError.__name__ in caplog.text


def test_the_limits_are_as_documented() -> None:
    assert (replay.EVENTS, replay.BYTES) == (1000, 1000)
