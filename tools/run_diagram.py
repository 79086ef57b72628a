"""Draws the run's diagram in docs/DESIGN.md from the machine's table.

`python tools/run_diagram.py` writes it, `--check` fails if it is not current.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vllm_agent_sdk._core.run.run import TRANSITIONS

PAGE = Path(__file__).parent.parent / "docs" / "DESIGN.md"
BEGIN, END = "<!-- run diagram: make docs -->\n", "<!-- end of run diagram -->"


def diagram() -> str:
    """Give the diagram: one arrow for each pair of phases, with the events that lead there."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (phase, event), rule in TRANSITIONS.items():
        for to in rule.to:
            arrows.setdefault((phase.value, to.value), []).append(event.__name__)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> idle"]
    lines += [f"    {a} --> {b}: {', '.join(names)}" for (a, b), names in arrows.items()]
    return "\n".join([*lines, "```", ""])


def main() -> int:
    """Write or check the page."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    current = f"{head}{BEGIN}{diagram()}{END}{tail}"
    if "--check" in sys.argv:
        if current != text:
            print("docs/DESIGN.md is not current: run `make docs`.", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
