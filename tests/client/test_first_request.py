"""What is loaded late is loaded off the loop: the first request stalls nobody."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The loop's own CPU time between two of its rounds, so that a busy machine changes nothing; the
# garbage collector is off, which stalls whatever runs when it comes.
PROGRAM = """
import asyncio, gc, sys, time
from vllm_agent_sdk import Agent, AsyncVLLM, tool
from vllm_agent_sdk.testing import Reply, Simulator
from pydantic import BaseModel

class Sky(BaseModel):
    blue: bool

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
    gc.disable()
    gaps = []
    replies = (
        FIRST, Reply.calls(("get_weather", {"city": "Paris"})), Reply.text("Sunny")
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
TYPED = """kind = Sky
            MESSAGES = [{"role": "user", "content": "Hello"}]
            DO
            assert reply.parsed"""
CREATE = "reply = await vllm.chat.completions.create(messages=MESSAGES, response_type=kind)"
STREAM = "reply = await vllm.chat.completions.stream(messages=MESSAGES, response_type=kind).final()"
SCHEMA = '{"type": "object", "properties": {"blue": {"type": "boolean"}}}'
AGENT = """agent = Agent(tools=[get_weather], client=vllm, turn_mode="native")
            result = await agent.run("What is the weather in Paris?")
            assert result.text == "Hi"
            result = await agent.run("What is the weather in Paris?")
            assert result.tool_calls == {"get_weather": 1}, result"""


USES = {
    "create": WHOLE,
    "agent": AGENT,
    "agent over Responses": AGENT.replace("vllm, ", 'vllm, api="responses", '),
    "typed create": TYPED.replace("DO", CREATE),
    "typed stream": TYPED.replace("DO", STREAM),
    "create by a schema": TYPED.replace("DO", CREATE).replace("Sky", SCHEMA),
    "stream by a schema": TYPED.replace("DO", STREAM).replace("Sky", SCHEMA),
}


@pytest.mark.feature("O-02")
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_the_first_request_and_the_first_tool_call_leave_the_loop_free(use: str) -> None:
    first = """Reply.text('{"blue": true}')""" if "kind" in use else 'Reply.text("Hi")'
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("USE", use).replace("FIRST", first)],
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    longest = float(done.stdout)
    limit = 0.02 if "kind" in use else 0.05
    assert longest < limit, f"The loop was busy for {longest * 1000:.0f} ms in one go."
