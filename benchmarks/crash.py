"""Sessions whose process is killed (`kill -9`) again and again, and taken up each time.

`python -m benchmarks.crash [--kills 200] [--store sqlite | --store postgresql://…] [--every 1000]`

A child process runs four sessions at once against a simulator. Their tool is not idempotent: it
writes a line to a file, then waits a moment. The child tells in another file which events it was
shown; then it is killed at a random moment, and another child takes everything up. What must hold:

1. every event that was shown is in the log;
2. every run ends, and every call has one result;
3. no call reached the tool twice without a yes to the question that its recovery asked;
4. a session's snapshot, and the events after it, lead to what the whole log leads to.

With `--every 20` sessions keep a snapshot after so many events, not after a thousand (the library's
own constants are set to that in the child), so that most openings begin with one.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SESSIONS = 4
CALLS = 3
#: Seconds that a child has to go on before it counts as hanging.
PATIENCE = 60.0


# ── the child ────────────────────────────────────────────────────────────────────────────────────


def line(path: Path, text: str) -> None:
    """Add a line to a file, in one write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)


def store_of(spec: str, folder: Path) -> Any:
    """Give the store that is meant."""
    from vllm_agent_sdk import sessions

    if spec == "sqlite":
        from vllm_agent_sdk.sessions.sqlite import SQLiteStore

        return SQLiteStore(folder / "sessions.db")
    return sessions.PostgresStore(spec)


def child(spec: str, folder: Path, base_url: str, seed: int, every: int, last: bool) -> None:
    """Take up what was left, then run on; the last child only ends what is there."""
    from vllm_agent_sdk.agent.session import replay

    if every != replay.EVENTS:
        replay.EVENTS, replay.BYTES = every, sys.maxsize
    asyncio.run(_child(spec, folder, base_url, seed, last))


async def _child(spec: str, folder: Path, base_url: str, seed: int, last: bool) -> None:
    from vllm_agent_sdk import Agent, Permissions, RunContext, tool

    pick = random.Random(seed)

    @tool
    async def count(number: int, ctx: RunContext[Any]) -> str:
        """Count something that must be counted once."""
        line(folder / "counted", ctx.call.id)
        await asyncio.sleep(pick.random() * 0.01)
        return f"counted {number}"

    agent = Agent(
        client=base_url,
        model="m",
        tools=[count],
        turn_mode="native",
        permissions=Permissions(mode="bypassPermissions"),
    )
    async with store_of(spec, folder) as store, agent:
        work = [_session(agent, store, folder, f"s{at}", pick, last) for at in range(SESSIONS)]
        await asyncio.gather(*work)


async def _session(
    agent: Any, store: Any, folder: Path, name: str, pick: random.Random, last: bool
) -> None:
    from vllm_agent_sdk import Allow, Deny

    async def watch() -> None:
        async for event in feed:
            if event.seq is not None:
                line(folder / "shown", f"{name} {event.seq} {type(event).__name__}")

    async with agent.session(name, store=store) as session:
        if (snapshots := session._snapshots) is not None and snapshots.seq:
            line(folder / "opened", f"{name} {snapshots.seq}")
        feed = session.events(until="close")
        watching = asyncio.create_task(watch())
        while True:
            run = await session.resume()
            if run is None:
                if last:
                    break
                run = await session.send("Count.")
            result = await run
            while result.stop_reason == "suspended":
                for pending in session.pending:
                    yes = pick.random() < 0.5
                    if yes:
                        line(folder / "allowed", pending.call.id)
                    answer = Allow() if yes else Deny("It must not be counted twice.")
                    run = await session.resolve(pending.call.id, answer)
                result = await run
            if result.stop_reason != "end_turn":
                raise SystemExit(f"{name}: {result.stop_reason}: {result.error_info}")
    await watching


# ── the parent ───────────────────────────────────────────────────────────────────────────────────


def lines(path: Path) -> list[str]:
    """Give the whole lines of a file."""
    return path.read_text().splitlines() if path.exists() else []


@contextlib.contextmanager
def simulator() -> Iterator[str]:
    """Serve a model that calls the tool a few times, then answers."""
    from vllm_agent_sdk.testing import Reply, Simulator, SimulatorRequest

    def answer(request: SimulatorRequest) -> Reply:
        messages = request.json["messages"]
        since = max(at for at, each in enumerate(messages) if each["role"] == "user")
        results = sum(each["role"] == "tool" for each in messages[since:])
        if results >= CALLS:
            return Reply.text("All is counted.")
        if results == 0:  # two at once, then one by one
            return Reply.calls(("count", {"number": 1}), ("count", {"number": 2}))
        return Reply.calls(("count", {"number": results + 1}))

    with Simulator(answer, model="m") as server:
        yield server.base_url


def kill_often(spec: str, folder: Path, kills: int, seed: int, every: int = 1000) -> dict[str, Any]:
    """Kill that often, end what is left, check everything, and give the figures."""
    context = multiprocessing.get_context("forkserver")
    loop = [f"vllm_agent_sdk.agent.run.{name}" for name in ("driver", "opening")]
    context.set_forkserver_preload(loop)
    pick = random.Random(seed)
    begun = time.monotonic()
    with simulator() as base_url:
        for number in range(kills):
            process = context.Process(
                target=child, args=(spec, folder, base_url, seed * 10_000 + number, every, False)
            )
            process.start()
            _kill_when_it_has_gone_on(process, folder / "shown", pick)
        process = context.Process(target=child, args=(spec, folder, base_url, seed, every, True))
        process.start()
        process.join(PATIENCE)
        if process.exitcode != 0:
            process.kill()
            raise SystemExit(f"The last child did not end what was left: {process.exitcode}")
    figures = asyncio.run(check(spec, folder))
    return {"kills": kills, "seed": seed, "seconds": round(time.monotonic() - begun, 1), **figures}


def _kill_when_it_has_gone_on(process: Any, shown: Path, pick: random.Random) -> None:
    """Kill a child when it has been shown some events more, and a moment has gone by."""
    wanted = (shown.stat().st_size if shown.exists() else 0) + pick.randint(1, 4000)
    late = time.monotonic() + PATIENCE
    while (shown.stat().st_size if shown.exists() else 0) < wanted:
        if process.exitcode is not None:
            raise SystemExit(f"A child ended by itself: {process.exitcode}")
        if time.monotonic() > late:
            raise SystemExit("A child hangs.")
        time.sleep(0.001)
    time.sleep(pick.random() * 0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()


async def check(spec: str, folder: Path) -> dict[str, Any]:
    """Check what must hold; give what was counted.

    Raises:
        AssertionError: It does not.
    """
    from vllm_agent_sdk import PermissionDecided, RunEnded, RunResumed, RunStarted, ToolEnded
    from vllm_agent_sdk._core.run.run import evolve
    from vllm_agent_sdk._core.run.state import Phase, State

    shown: dict[str, dict[int, str]] = collections.defaultdict(dict)
    for each in lines(folder / "shown"):
        name, seq, kind = each.split()
        shown[name][int(seq)] = kind
    counted = collections.Counter(lines(folder / "counted"))
    allowed = collections.Counter(lines(folder / "allowed"))
    figures: collections.Counter[str] = collections.Counter()
    async with store_of(spec, folder) as store:
        for name in sorted(shown):
            log = await store.read(name)
            kept = {event.seq: type(event).__name__ for event in log}
            assert list(kept) == list(range(1, len(log) + 1)), f"{name}: gaps in the log"
            lost = {seq: kind for seq, kind in shown[name].items() if kept.get(seq) != kind}
            assert not lost, f"{name}: shown, and not in the log: {lost}"
            state = State()
            for event in log:
                state = evolve(state, event)
            assert state.phase is Phase.DONE, f"{name}: a run did not end"
            runs = sum(isinstance(event, RunStarted) for event in log)
            assert runs == sum(isinstance(event, RunEnded) for event in log)
            check_pairs(name, state.history)
            await check_snapshot(store, name, state)
            ended = [event for event in log if isinstance(event, ToolEnded) and event.executed]
            missing = [event for event in ended if not counted[event.message.call_id]]
            assert not missing, f"{name}: told to have run, and did not: {missing}"
            figures.update(
                events=len(log),
                shown=len(shown[name]),
                runs=runs,
                resumed=sum(isinstance(event, RunResumed) for event in log),
                decisions=sum(isinstance(event, PermissionDecided) for event in log),
                calls=len(ended),
            )
    twice = {call: times for call, times in counted.items() if times > 1 + allowed[call]}
    assert not twice, f"counted more often than allowed: {twice}"
    figures["openings_from_a_snapshot"] = len(lines(folder / "opened"))
    figures["counted_twice_with_a_yes"] = sum(times > 1 for times in counted.values())
    return dict(figures)


async def check_snapshot(store: Any, name: str, state: Any) -> None:
    """A session that is opened from its snapshot stands where its whole log leads to."""
    from vllm_agent_sdk.agent.session.replay import Snapshots

    log = await store.open(name, create=False)
    try:
        opened = Snapshots(name, log)
        assert (await opened.replay())[0] == state, f"{name}: its snapshot leads elsewhere"
        kept = await log.snapshot()
        assert opened.seq == (0 if kept is None else kept.seq), f"{name}: its snapshot is not used"
    finally:
        await log.aclose()


def check_pairs(name: str, history: Any) -> None:
    """Every call has one result, before anything else is said."""
    from vllm_agent_sdk import ToolMessage

    open_calls: list[str] = []
    for message in history:
        if isinstance(message, ToolMessage):
            assert open_calls, f"{name}: a result without a call"
            assert message.call_id == open_calls.pop(0), f"{name}: results in another order"
        else:
            assert not open_calls, f"{name}: calls without a result: {open_calls}"
            open_calls = [call.id for call in getattr(message, "tool_calls", ())]
    assert not open_calls


def main() -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--store", default="sqlite", help="sqlite, or a PostgreSQL address")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=1000, help="events from snapshot to snapshot")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        figures = kill_often(
            options.store, Path(folder), options.kills, options.seed, options.every
        )
    print(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in figures.items()))
    sys.exit(0)


if __name__ == "__main__":
    main()
