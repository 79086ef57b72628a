"""The guide's examples run as they stand."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.feature("Q-01"), pytest.mark.feature("Q-02")]

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
async def test_an_example_of_the_guide_passes(example: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(example, str(GUIDE), "exec"), names)
    tests = [names[name] for name in names if name.startswith("test_")]
    assert tests
    for test in tests:
        for arguments in _parameters(test):
            answer = test(*arguments)
            if inspect.isawaitable(answer):
                await answer


def _parameters(test: Any) -> list[tuple[Any, ...]]:
    marks = getattr(test, "pytestmark", ())
    return [(value,) for mark in marks for value in mark.args[1]] or [()]
