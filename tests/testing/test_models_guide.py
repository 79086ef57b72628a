"""The guide to models of one's own: its examples pass the suites that they name."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import Agent

pytestmark = pytest.mark.feature("Q-03")

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def examples() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(GUIDE), "exec"), names)
    return names


NAMES = examples()
CASES = [
    (test, check)
    for test in ("test_elsewhere", "test_get_weather")
    for check in NAMES[test].pytestmark[0].args[1]
]


@pytest.mark.parametrize(("test", "check"), CASES, ids=lambda each: getattr(each, "__name__", each))
async def test_an_example_passes_its_suite(test: str, check: Any) -> None:
    assert inspect.iscoroutinefunction(check)
    await NAMES[test](check)


async def test_an_agent_with_tools_runs_on_the_example() -> None:
    function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    call = {"id": "1", "type": "function", "function": function}
    messages: list[dict[str, Any]] = [{"tool_calls": [call]}, {"content": "It is 18 °C."}]
    replies = iter(
        json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
        for message in messages
    )

    async def ask(_request: dict[str, Any]) -> bytes:
        return next(replies)

    agent = Agent(client=NAMES["Elsewhere"](ask), tools=[NAMES["get_weather"]])
    result = await agent.run("Weather?")
    assert (result.text, result.tool_calls) == ("It is 18 °C.", {"get_weather": 1})
