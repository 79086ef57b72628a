"""The programs of the guides to agents and sessions run as they stand."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk.testing import Reply, Simulator

DOCS = Path(__file__).resolve().parents[2] / "docs"


def programs(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)


def reply(request: Any) -> Reply:
    """Calls the first tool with a word for each of its arguments, then answers."""
    tools, last = request.json.get("tools"), request.json["messages"][-1]
    if not tools or last["role"] != "user":
        return Reply.text("So it is, and more.")
    function = tools[0]["function"]
    return Reply.calls((function["name"], dict.fromkeys(function["parameters"]["properties"], "x")))


@pytest.mark.feature("A-01")
@pytest.mark.parametrize("guide", ["agent.md", "sessions.md"])
async def test_the_programs_of_a_guide_run_one_after_the_other(
    guide: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {"__name__": guide}
    with Simulator(reply) as server:
        monkeypatch.setenv("VLLM_BASE_URL", server.base_url)
        for program in programs(guide):
            code = compile(program, guide, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            waiting = eval(code, names)
            if inspect.isawaitable(waiting):
                await waiting
    assert "So it is, and more." in capsys.readouterr().out
