"""The example of a loop by hand, as it stands, over several rounds."""

from __future__ import annotations

import asyncio
import inspect
import os
import runpy
import sys
from pathlib import Path

import pytest

from vllm_agent_sdk.testing import Reply, Simulator

EXAMPLE = Path(__file__).parents[2] / "examples" / "tool_loop.py"


@pytest.mark.feature("O-13")
async def test_the_example_goes_on_until_the_model_has_no_more_calls() -> None:
    replies = (
        Reply.calls(("get_weather", {"city": "Paris"})),
        Reply.calls(("get_weather", {"city": "Rome"}), ("get_weather", {"city": "Oslo"})),
        Reply.text("21 degrees everywhere."),
    )
    async with Simulator(*replies) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLE),
            env={**os.environ, "VLLM_BASE_URL": server.base_url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out.decode().strip() == "21 degrees everywhere."
    last = server.chats[-1].json["messages"]
    roles = [message["role"] for message in last]
    assert roles == ["user", "assistant", "tool", "assistant", "tool", "tool"]
    calls = [call["id"] for message in last for call in message.get("tool_calls", ())]
    assert calls == [message["tool_call_id"] for message in last if message["role"] == "tool"]


@pytest.mark.feature("O-13")
def test_the_loop_takes_twelve_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "run", lambda coroutine: coroutine.close())
    main = runpy.run_path(str(EXAMPLE), run_name="__main__")["main"]
    assert len(inspect.getsource(main).splitlines()) <= 12
