"""How things are measured: CPU time of this process, alternating, the median of several rounds."""

from __future__ import annotations

import asyncio
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Measured = Callable[[], Awaitable[int]]


def cpu_per_unit(work: Measured, loop_factory: Callable[[], Any] | None = None) -> float:
    """Run the work; give the CPU seconds of this process per unit it counts."""
    gc.collect()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        begun = time.process_time()
        units = runner.run(_awaited(work))
        return (time.process_time() - begun) / units


async def _awaited(work: Measured) -> int:
    return await work()


def alternate(
    contenders: dict[str, Measured],
    rounds: int,
    loop_factory: Callable[[], Any] | None = None,
) -> dict[str, float]:
    """Measure each in turn, several times; give the medians in microseconds."""
    for work in contenders.values():
        cpu_per_unit(work, loop_factory)  # imports and first allocations are not what is measured
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            taken[name].append(cpu_per_unit(work, loop_factory) * 1e6)
    return {name: statistics.median(values) for name, values in taken.items()}


def report(name: str, unit: str, medians: dict[str, float]) -> dict[str, Any]:
    """Print a table of figures and of their ratios to ours; give them."""
    ours = medians["ours"]
    print(f"\n{name} ({unit})")
    for contender, value in medians.items():
        ratio = "" if contender == "ours" else f"   ours is {ours / value:.3f} of it"
        print(f"  {contender:12} {value:10.2f}{ratio}")
    return {"name": name, "unit": unit, "medians": medians}


def write(file: str, results: list[dict[str, Any]]) -> None:
    """Write results as JSON, with the machine and the versions."""
    packages = ("vllm-agent-sdk", "aiohttp", "msgspec", "openai")
    machine = {
        "python": sys.version.split()[0],
        "machine": platform.machine(),
        "versions": {name: version(name) for name in packages},
        "date": time.strftime("%Y-%m-%d"),
    }
    folder = Path("build/benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{file}.json").write_text(json.dumps({**machine, "results": results}, indent=1))
