"""The fuzzer: it makes a case again, judges by itself, and finds nothing in a few thousand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.feature("S-06", "Q-01")

TOOL = Path(__file__).resolve().parents[2] / "tools" / "fuzz.py"


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_spoilt_replies_end_in_events_or_in_a_typed_error() -> None:
    done = fuzz("--cases", "6000", "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6000 cases, seed 3" in done.stdout
    assert "0 kinds of failure" in done.stdout
    for kind in ("chat stream: whole", "responses stream: StreamTruncatedError", "metrics: read"):
        assert kind in done.stdout


def test_a_case_can_be_made_again() -> None:
    first, again, other = (fuzz("--seed", "3", "--case", number) for number in ("5", "5", "6"))
    assert first.stdout == again.stdout != other.stdout
    assert first.stdout.startswith('{"kind": ')
