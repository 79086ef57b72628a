"""CPU per streamed chunk: burst (parsing) and paced (what a server really sends).

`python -m benchmarks.streaming [--quick]`; quick leaves the peers out.
"""

from __future__ import annotations

import sys
from functools import partial

from benchmarks import clients
from benchmarks.emitter import emitter, pin
from benchmarks.measure import alternate, report, write


def main() -> None:
    """Measure and print."""
    quick = "--quick" in sys.argv
    rounds = 3 if quick else 5
    pin(0)
    ways = {"ours": clients.ours_streaming, "bare loop": clients.bare_streaming}
    if not quick:
        ways["openai"] = clients.openai_streaming
    results = []
    with emitter() as root:
        burst = {
            name: partial(way, f"{root}/burst/2000", 4 if name == "openai" else 16)
            for name, way in ways.items()
        }
        results.append(report("stream, burst", "µs CPU a chunk", alternate(burst, rounds)))
        paced = {name: partial(way, f"{root}/paced/66", 64) for name, way in ways.items()}
        results.append(
            report("stream, paced, 64 streams", "µs CPU a chunk", alternate(paced, rounds))
        )
    write("streaming", results)


if __name__ == "__main__":
    main()
