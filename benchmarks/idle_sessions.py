"""Memory of sessions that are open and idle, after one run each, over SQLite.

`python -m benchmarks.idle_sessions [--quick]`: 10,000 of them; quick: 300.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.agent_run import PROMPT
from benchmarks.emitter import emitter, pin
from benchmarks.measure import Goal, report, write

GOALS = (Goal("PERF-9", "ours", 50.0),)
AT_ONCE = 32
WARM = 100


def resident() -> float:
    """Give the resident memory of this process, in kilobytes."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmRSS:")[1].split()[0])


async def sessions(root: str, folder: Path, count: int) -> float:
    """Open sessions, run each once, and give the kilobytes that each takes while all are open."""
    from vllm_agent_sdk import Agent, AsyncVLLM, tool
    from vllm_agent_sdk.sessions import SQLiteStore

    @tool
    async def get_weather(city: str) -> str:
        """Get the current weather of a city."""
        return f"18 °C in {city}"

    async with (
        AsyncVLLM(f"{root}/v1", model="m") as vllm,
        SQLiteStore(folder / "sessions.db") as store,
        AsyncExitStack() as stack,
    ):
        agent = Agent(tools=[get_weather], client=vllm, turn_mode="native", streaming=False)
        room = asyncio.Semaphore(AT_ONCE)

        async def one() -> Any:
            async with room:
                session = await stack.enter_async_context(agent.session(store=store))
                result = await session.run(PROMPT)
                assert result.turns == 2, result

        await asyncio.gather(*(one() for _ in range(WARM)))
        before = await asyncio.to_thread(resident)
        await asyncio.gather(*(one() for _ in range(count)))
        after = await asyncio.to_thread(resident)
        print(f"{count + WARM} sessions are open; the process has {after / 1000:.0f} MB")
        return (after - before) / count


def main() -> None:
    """Measure and print."""
    quick = "--quick" in sys.argv
    count = 300 if quick else 10_000
    pin(0)
    with emitter() as root, tempfile.TemporaryDirectory(prefix="idle-") as folder:
        each = asyncio.run(sessions(f"{root}/agent/1", Path(folder), count))
    name = f"idle sessions, {count + WARM} open at once, one run behind each"
    result = report(name, "KB a session", {"ours": each}, GOALS)
    if not quick:
        write("idle_sessions", [result])


if __name__ == "__main__":
    main()
