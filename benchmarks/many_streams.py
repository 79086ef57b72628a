"""1,000 streams at once in one process: CPU per chunk beside 16, and memory a stream.

`python -m benchmarks.many_streams [--quick]`; quick looks at memory only. It
raises the limit of open files.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
from functools import partial
from pathlib import Path

from benchmarks import clients
from benchmarks.emitter import emitter, pin
from benchmarks.measure import Goal, alternate, report, write

# Long replies, 3,000 chunks of each of the many: opening a thousand streams at once is counted too,
# costs the bare loop as much as 150 chunks a stream, and is not what is asked for here.
MANY, FEW, CHUNKS = 1000, 16, 3_000_000
GOALS = (Goal("PERF-8", "ours", 1.2, "ours, 16 streams"),)
MEMORY = (Goal("PERF-8", "ours", 60),)


def rss_kb() -> int:
    """Give this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


async def memory_kb(root: str) -> float:
    """Give the resident memory that each of many open streams takes, its first chunk read."""
    from vllm_agent_sdk import AsyncVLLM

    async with AsyncVLLM(f"{root}/paced/1000/v1", model="m") as vllm:

        async def opened() -> object:
            stream = vllm.chat.completions.stream(messages=clients.MESSAGES)
            await anext(stream)
            return stream

        first = await opened()
        gc.collect()
        before = rss_kb()
        streams = await asyncio.gather(*(opened() for _ in range(MANY)))
        gc.collect()
        each = (rss_kb() - before) / MANY
        for stream in (first, *streams):
            await stream.aclose()  # type: ignore[attr-defined]
        return each


def main() -> None:
    """Measure and print."""
    quick = "--quick" in sys.argv
    pin(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = 2 * MANY + 256
    if soft < need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, max(need, hard)))
    results = []
    with emitter() as root:
        if sys.platform == "linux":
            memory = {"ours": asyncio.run(memory_kb(root))}
            results.append(
                report("1,000 streams at once, memory", "KB RSS a stream", memory, MEMORY)
            )
        if not quick:
            ways = {
                "ours": (clients.ours_streaming, MANY),
                "ours, 16 streams": (clients.ours_streaming, FEW),
                "bare loop": (clients.bare_streaming, MANY),
                "bare loop, 16 streams": (clients.bare_streaming, FEW),
            }
            work = {
                name: partial(way, f"{root}/burst/{CHUNKS // streams - 3}", streams)
                for name, (way, streams) in ways.items()
            }
            cpu = alternate(work, 5)
            results.append(report("1,000 streams at once, burst", "µs CPU a chunk", cpu, GOALS))
    write("many_streams", results)


if __name__ == "__main__":
    main()
