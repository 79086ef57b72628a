"""CPU per whole reply, 32 at a time. `python -m benchmarks.whole_replies [--quick]`."""

from __future__ import annotations

import sys
from functools import partial

from benchmarks import clients
from benchmarks.emitter import emitter, pin
from benchmarks.measure import Goal, alternate, report, write

GOALS = (Goal("PERF-3", "ours", 1 / 8, "openai"), Goal("PERF-3", "ours", 1.4, "bare loop"))


def main() -> None:
    """Measure and print."""
    quick = "--quick" in sys.argv
    pin(0)
    ways = {"ours": clients.ours_whole, "bare loop": clients.bare_whole}
    if not quick:
        ways["openai"] = clients.openai_whole
    with emitter() as root:
        work = {
            name: partial(way, f"{root}/whole/1", 320 if name == "openai" else 3200)
            for name, way in ways.items()
        }
        medians = alternate(work, 3 if quick else 15)
    write(
        "whole_replies",
        [report("whole replies, 32 at a time", "µs CPU a request", medians, GOALS)],
    )


if __name__ == "__main__":
    main()
