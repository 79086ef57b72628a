"""What durable appends cost, beside a bare loop. `python -m benchmarks.appends [--quick]`.

256 sessions of one process append at once, an event of 400 bytes each time; every append has
returned only when it was synced. The bare loop writes the same rows with `executemany`, in groups
as large as ours were, synced as ours are. Time is wall time there: the disk's is part of it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Goal, report, write
from vllm_agent_sdk._core.run.run import evolve
from vllm_agent_sdk._core.run.snapshot import encode
from vllm_agent_sdk._core.run.state import State
from vllm_agent_sdk.agent.session.replay import Snapshots
from vllm_agent_sdk.sessions import SessionLog, Snapshot, SQLiteStore
from vllm_agent_sdk.sessions.sqlite._engine import use
from vllm_agent_sdk.types.event_lines import write_line
from vllm_agent_sdk.types.events import (
    MessageAdded,
    ModelEnded,
    ModelStarted,
    RunEnded,
    RunStarted,
    StoredEvent,
    ToolEnded,
    ToolStarted,
    TurnStarted,
    stamp,
)
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vllm_agent_sdk.types.results import RunResult
from vllm_agent_sdk.types.tools import ToolSpec

SESSIONS = 256
GOALS = (
    # A third of the events a second is three times the time for each.
    Goal("PERF-6", "ours", 3, "bare loop, same groups"),
)


def event(seq: int) -> ToolEnded:
    """Make an event that is 400 bytes long."""
    made = ToolEnded(name="get_weather", message=ToolMessage("call_0123456789", "x" * 226))
    stamp(made, "0123456789abcdef", "main", 1_790_000_000.123456, seq)
    return made


async def ours(path: Path, sessions: int, each: int, statements: list[str] | None = None) -> float:
    """Give the seconds per event of our store; the statements too, which takes longer."""
    events = [event(seq) for seq in range(1, each + 1)]

    async def write(log: SessionLog) -> None:
        for one in events:
            await log.append(one)

    async with SQLiteStore(path) as store:
        logs = [await store.open(f"s{number}") for number in range(sessions)]
        engine = use(store._place)
        if statements is not None:
            await engine.submit(lambda c: c.set_trace_callback(statements.append))
        begun = time.perf_counter()
        await asyncio.gather(*(write(log) for log in logs))
        taken = time.perf_counter() - begun
        await engine.submit(lambda c: c.set_trace_callback(None))
        engine.release()
        for log in logs:
            await log.aclose()
    return taken / (sessions * each)


def bare(path: Path, group: int, groups: int) -> float:
    """Give the seconds per event of `executemany` and a commit for each group."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(
        "CREATE TABLE events (session INTEGER, seq INTEGER, line BLOB, PRIMARY KEY (session, seq))"
        " WITHOUT ROWID"
    )
    line = write_line(event(1))
    begun = time.perf_counter()
    for seq in range(groups):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO events VALUES (?, ?, ?)", [(number, seq, line) for number in range(group)]
        )
        connection.execute("COMMIT")
    taken = time.perf_counter() - begun
    connection.close()
    return taken / (group * groups)


def appends(rounds: int, each: int) -> list[dict[str, Any]]:
    """Measure in turn, in new files."""
    taken: dict[str, list[float]] = {
        "ours": [],
        "bare loop, same groups": [],
        "ours, one session": [],
        "bare loop, one by one": [],
    }
    with tempfile.TemporaryDirectory() as name:
        statements: list[str] = []
        asyncio.run(ours(Path(name) / "sessions.db", SESSIONS, each, statements))
    groups = statements.count("COMMIT")
    size = round(SESSIONS * each / groups)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            found = [
                asyncio.run(ours(folder / "many.db", SESSIONS, each)),
                bare(folder / "bare.db", size, groups),
                asyncio.run(ours(folder / "one.db", 1, each * 4)),
                bare(folder / "bare1.db", 1, each * 4),
            ]
        for values, value in zip(taken.values(), found, strict=True):
            values.append(value * 1e6)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    title = f"durable appends, {SESSIONS} sessions at once; groups of {size}"
    results = [report(title, "µs wall per event", medians, GOALS)]
    for name, value in medians.items():
        print(f"  {name:28} {1e6 / value:10,.0f} events/s")
    return results


def session_log(events: int) -> list[StoredEvent]:
    """Make the log of a long session: runs of two model calls and one tool call."""
    log: list[StoredEvent] = []
    while len(log) < events:
        call = ToolCall.from_text(f"c{len(log)}", "get", '{"city": "Paris"}')
        answer = AssistantMessage([TextBlock("It is 18 degrees. " * 8)])
        run: list[StoredEvent] = [
            RunStarted(tools=[ToolSpec(name="get")], model="m", instructions="Be helpful. " * 8),
            MessageAdded(message=UserMessage("What is the weather in Paris? " * 4)),
            TurnStarted(1),
            ModelStarted(1, request={"model": "m", "temperature": 0}),
            ModelEnded(1, message=AssistantMessage([call])),
            ToolStarted(call=call),
            ToolEnded(name="get", message=ToolMessage(call.id, "18 degrees, sunny " * 8)),
            TurnStarted(2),
            ModelStarted(2, request={"model": "m", "temperature": 0}),
            ModelEnded(2, message=answer),
            RunEnded(result=RunResult(text=answer.text)),
        ]
        for each in run:
            stamp(each, "0123456789abcdef", "main", 1_790_000_000.1, len(log) + 1)
            log.append(each)
    return log


async def replay(path: Path, rounds: int) -> list[dict[str, Any]]:
    """Measure what it takes to open a session of 10,000 events: all of them, or the last ones."""
    log = session_log(10_000)
    last = len(log) - 1001  # the end of a run: another snapshot would be due with the next one
    async with SQLiteStore(path) as store:
        opened = await store.open("s")
        await opened.append(*log)
        whole = await _opening(opened, rounds)
        state = State()
        for each in log[:last]:
            state = evolve(state, each)
        await opened.keep_snapshot(Snapshot(last, encode(state, last)))
        rest = await _opening(opened, rounds)
        await opened.aclose()
    goal = Goal("PERF-6", "ours", 300)
    whole_title = f"replay of {len(log):,} events from SQLite"
    rest_title = f"the same from a snapshot, and the last {len(log) - last:,} events"
    return [
        report(whole_title, "ms CPU", {"ours": whole}, (goal,)),
        report(rest_title, "ms CPU", {"ours": rest}),
    ]


async def _opening(log: SessionLog, rounds: int) -> float:
    taken = []
    for _ in range(rounds + 1):
        begun = time.process_time()
        await Snapshots("s", log).replay()
        taken.append((time.process_time() - begun) * 1000)
    return statistics.median(taken[1:])


def main() -> None:
    """Measure and print."""
    quick = "--quick" in sys.argv
    rounds = 3 if quick else 7
    results = appends(rounds, each=20 if quick else 60)
    with tempfile.TemporaryDirectory() as name:
        results += asyncio.run(replay(Path(name) / "sessions.db", rounds))
    write("appends", results)


if __name__ == "__main__":
    main()
