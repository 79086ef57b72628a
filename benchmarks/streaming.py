"""CPU per streamed chunk: burst (parsing) and paced (what a server really sends).

`python -m benchmarks.streaming [--quick]`; quick leaves the peers out.
"""

from __future__ import annotations

import sys
from functools import partial

from benchmarks import clients
from benchmarks.emitter import emitter, pin
from benchmarks.measure import Goal, LoopFactory, alternate, report, write

BURST = (Goal("PERF-1", "ours", 1 / 25, "openai"),)
PACED = (
    Goal("PERF-2", "ours", 1 / 5, "openai"),
    Goal("PERF-2", "ours", 1.25, "bare loop"),
    Goal("PERF-2", "ours, uvloop", 1 / 10, "openai"),
)


def uvloops() -> dict[str, LoopFactory]:
    """Give the loops of those that run on uvloop, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return {}
    return {"ours, uvloop": uvloop.new_event_loop, "bare loop, uvloop": uvloop.new_event_loop}


def main() -> None:
    """Measure and print."""
    quick = "--quick" in sys.argv
    rounds = 3 if quick else 9
    pin(0)
    ways = {"ours": clients.ours_streaming, "bare loop": clients.bare_streaming}
    loops = {} if quick else uvloops()
    if not quick:
        ways["openai"] = clients.openai_streaming
    results = []
    with emitter() as root:
        burst = {
            name: partial(way, f"{root}/burst/2000", 4 if name == "openai" else 16)
            for name, way in ways.items()
        }
        results.append(report("stream, burst", "µs CPU a chunk", alternate(burst, rounds), BURST))
        if loops:
            ways["ours, uvloop"] = clients.ours_streaming
            ways["bare loop, uvloop"] = clients.bare_streaming
        paced = {name: partial(way, f"{root}/paced/100", 64) for name, way in ways.items()}
        results.append(
            report(
                "stream, paced, 64 streams",
                "µs CPU a chunk",
                alternate(paced, 2 if quick else rounds, loops),
                PACED,
            )
        )
    write("streaming", results)


if __name__ == "__main__":
    main()
