"""What importing costs, over a bare Python. `python -m benchmarks.importing`."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from benchmarks.measure import write

STATEMENTS = {
    "import vllm_agent_sdk": "import vllm_agent_sdk",
    "from … import AsyncVLLM, Agent, tool": "from vllm_agent_sdk import AsyncVLLM, Agent, tool",
    "import asyncio": "import asyncio",
    "import msgspec": "import msgspec",
    "import aiohttp": "import aiohttp",
    "import openai": "import openai",
}


def cpu_ms(statement: str) -> float:
    """Give the CPU time of a Python that runs a statement and ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def main() -> None:
    """Measure and print."""
    quick = "--quick" in sys.argv
    taken: dict[str, list[float]] = {name: [] for name in ("bare", *STATEMENTS)}
    for _ in range(5 if quick else 15):
        for name, values in taken.items():
            values.append(cpu_ms(STATEMENTS.get(name, "pass")))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    bare = medians.pop("bare")
    print(f"\nimports (ms CPU over a bare Python, which takes {bare:.0f})")
    for name, value in medians.items():
        print(f"  {name:40} {value - bare:6.0f}")
    over = {name: value - bare for name, value in medians.items()}
    write("importing", [{"name": "imports", "unit": "ms CPU over bare", "medians": over}])


if __name__ == "__main__":
    main()
