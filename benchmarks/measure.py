"""How things are measured: CPU time of this process, alternating, the median of several rounds."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Measured = Callable[[], Awaitable[int]]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

FOLDER = Path("build/benchmarks")
PACKAGES = (
    "vllm-agent-sdk", "aiohttp", "msgspec", "uvloop", "openai", "pydantic-ai-slim",
    "openai-agents",
)  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """What a figure should reach: at most `limit` times another, or at most `limit` itself."""

    id: str
    name: str
    limit: float
    of: str | None = None


def cpu_per_unit(work: Measured, loop_factory: LoopFactory | None = None) -> float:
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
    loop_factories: dict[str, LoopFactory] | None = None,
) -> dict[str, float]:
    """Measure each in turn, several times; give the medians in microseconds.

    A machine that is shared runs faster and slower: what is compared is measured side by side.
    """
    loops = loop_factories or {}
    for name, work in contenders.items():
        # Imports and first allocations are not what is measured.
        cpu_per_unit(work, loops.get(name))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            taken[name].append(cpu_per_unit(work, loops.get(name)) * 1e6)
    return {name: statistics.median(values) for name, values in taken.items()}


def report(
    name: str, unit: str, medians: dict[str, float], goals: tuple[Goal, ...] = ()
) -> dict[str, Any]:
    """Print a table of figures, of their ratios to ours, and of the goals; give them."""
    ours = medians["ours"]
    print(f"\n{name} ({unit})")
    for contender, value in medians.items():
        ratio = "" if contender == "ours" else f"   ours is {ours / value:.3f} of it"
        print(f"  {contender:28} {value:10.2f}{ratio}")
    judged = []
    for goal in goals:
        if goal.name in medians and (goal.of is None or goal.of in medians):
            value = medians[goal.name] / (1.0 if goal.of is None else medians[goal.of])
            of = "" if goal.of is None else f" of {goal.of}"
            reached = value <= goal.limit
            print(
                f"  {goal.id}: {goal.name} is {value:.3f}{of}, at most {goal.limit:.3f}: "
                f"{'reached' if reached else 'NOT REACHED'}"
            )
            judged.append(
                {"id": goal.id, "name": goal.name, "of": goal.of, "limit": goal.limit,
                 "value": value, "reached": reached}
            )  # fmt: skip
    return {"name": name, "unit": unit, "medians": medians, "goals": judged}


def write(file: str, results: list[dict[str, Any]]) -> None:
    """Write results as JSON, with the machine, its load and the versions."""
    about = {
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "date": time.strftime("%Y-%m-%d"),
        "quick": "--quick" in sys.argv,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{file}.json").write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
