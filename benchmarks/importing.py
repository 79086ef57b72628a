"""What importing costs, over a bare Python. `python -m benchmarks.importing [--quick]`."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile

from benchmarks.measure import Goal, report, write

STATEMENTS = {
    "import vllm_agent_sdk": "import vllm_agent_sdk",
    "ours": "from vllm_agent_sdk import AsyncVLLM, Agent, tool",
    "import asyncio, msgspec": "import asyncio, msgspec",
    "import aiohttp": "import aiohttp",
    "import openai": "import openai",
}
GOALS = (Goal("PERF-7", "import vllm_agent_sdk", 40), Goal("PERF-7", "ours", 80))


def cpu_ms(statement: str, environment: dict[str, str]) -> float:
    """Give the CPU time of a Python that runs a statement and ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def main() -> None:
    """Measure and print."""
    quick = "--quick" in sys.argv
    taken: dict[str, list[float]] = {name: [] for name in ("bare", *STATEMENTS)}
    with tempfile.TemporaryDirectory() as folder:
        # As installed: with the byte code written, wherever this runs.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        for name in taken:
            cpu_ms(STATEMENTS.get(name, "pass"), environment)
        for _ in range(5 if quick else 15):
            for name, values in taken.items():
                values.append(cpu_ms(STATEMENTS.get(name, "pass"), environment))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    bare = medians.pop("bare")
    over = {name: value - bare for name, value in medians.items()}
    name = "imports; ours is `from vllm_agent_sdk import AsyncVLLM, Agent, tool`"
    write("importing", [report(name, "ms CPU over a bare Python", over, GOALS)])


if __name__ == "__main__":
    main()
