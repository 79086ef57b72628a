"""What is loaded late is loaded off the loop: the first request stalls nobody."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The loop's own CPU time between two of its rounds, so that a busy machine changes nothing.
PROGRAM = """
import asyncio, sys, time
from vllm_agent_sdk import Agent, AsyncVLLM, tool
from vllm_agent_sdk.testing import Reply, Simulator

@tool
async def get_weather(city: str) -> str:
    "Get the weather of a city."
    return f"Sunny in {city}"

async def watch(gaps):
    before = time.thread_time()
    while True:
        await asyncio.sleep(0.001)
        now = time.thread_time()
        gaps.append(now - before)
        before = now

async def main():
    gaps = []
    replies = (
        Reply.text("Hi"), Reply.calls(("get_weather", {"city": "Paris"})), Reply.text("Sunny")
    )
    async with Simulator(*replies) as server:
        late = {"aiohttp", "jsonschema_rs"}
        assert not late & set(sys.modules), late & set(sys.modules)
        watching = asyncio.create_task(watch(gaps))
        await asyncio.sleep(0)
        async with AsyncVLLM(server.base_url) as vllm:
            USE
        watching.cancel()
        assert late & set(sys.modules)
    print(max(gaps))

asyncio.run(main())
"""
WHOLE = 'await vllm.chat.completions.create(messages=[{"role": "user", "content": "Hello"}])'
AGENT = """agent = Agent(tools=[get_weather], client=vllm, turn_mode="native")
            result = await agent.run("What is the weather in Paris?")
            assert result.text == "Hi"
            result = await agent.run("What is the weather in Paris?")
            assert result.tool_calls == {"get_weather": 1}, result"""


@pytest.mark.parametrize("use", [WHOLE, AGENT], ids=["create", "agent"])
def test_the_first_request_and_the_first_tool_call_leave_the_loop_free(use: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("USE", use)],
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    longest = float(done.stdout)
    assert longest < 0.05, f"The loop was busy for {longest * 1000:.0f} ms in one go."
