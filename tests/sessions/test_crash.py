"""Processes that are killed, and what is taken up after them."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.crash import kill_often


@pytest.mark.feature("D-03")
@pytest.mark.timeout(300)
def test_ten_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    figures = kill_often("sqlite", tmp_path, kills=10, seed=3, every=20)
    assert figures["kills"] == 10
    assert figures["resumed"] >= 10
    assert figures["shown"] > 0
    assert figures["openings_from_a_snapshot"] >= 10
