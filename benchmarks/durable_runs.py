"""CPU per agent run of two model calls and one tool call, 32 at a time: no store, and SQLite.

`python -m benchmarks.durable_runs [--quick]`; each run is a session of its own, every step durable.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import clients
from benchmarks.agent_run import PROMPT
from benchmarks.emitter import emitter, pin
from benchmarks.measure import Goal, Measured, alternate, report, write

AT_ONCE = 32
GOALS = (Goal("PERF-5", "ours with SQLite", 2.0, "ours"),)


async def runs(root: str, folder: str | None, count: int) -> int:
    """Run as often as asked; with a folder, each in a session of an SQLite store in it."""
    from vllm_agent_sdk import Agent, AsyncVLLM, tool
    from vllm_agent_sdk.sessions import SQLiteStore

    @tool
    async def get_weather(city: str) -> str:
        """Get the current weather of a city."""
        return f"18 °C in {city}"

    async with AsyncVLLM(f"{root}/v1", model="m") as vllm:
        agent = Agent(tools=[get_weather], client=vllm, turn_mode="native", streaming=False)
        store = None if folder is None else SQLiteStore(Path(folder) / "sessions.db")

        async def run() -> Any:
            if store is None:
                return await agent.run(PROMPT)
            async with agent.session(store=store) as session:
                return await session.run(PROMPT)

        async def one() -> int:
            for _ in range(count // AT_ONCE):
                result = await run()
                assert result.tool_calls == {"get_weather": 1}, result
            return count // AT_ONCE

        done = await clients.all_at_once(one, AT_ONCE)
        if store is not None:
            await store.aclose()
        return done


def main() -> None:
    """Measure and print."""
    quick = "--quick" in sys.argv
    count = 320 if quick else 1600
    pin(0)
    with emitter() as root, tempfile.TemporaryDirectory(prefix="durable-") as folder:
        contenders: dict[str, Measured] = {
            "ours": partial(runs, f"{root}/agent/1", None, count),
            "ours with SQLite": partial(runs, f"{root}/agent/1", folder, count),
        }
        medians = alternate(contenders, 3 if quick else 9)
    name = "agent run, 32 at a time, without a store and with every step durable"
    write("durable_runs", [report(name, "µs CPU a run", medians, GOALS)])


if __name__ == "__main__":
    main()
