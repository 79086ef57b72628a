"""What is loaded late is loaded off the loop, or quickly: the first request stalls nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_agent_sdk.testing import Reply, Simulator

# The loop's own CPU time between two of its rounds, so that a busy machine changes nothing; the
# garbage collector is off, which stalls whatever runs when it comes. The server is another process:
# nothing that is loaded for it is loaded for the client too.
PROGRAM = """
import asyncio, gc, sys, time
from vllm_agent_sdk import Agent, AsyncVLLM, tool

BEFORE

async def watch(gaps):
    before = time.thread_time()
    while True:
        await asyncio.sleep(0.001)
        now = time.thread_time()
        gaps.append(now - before)
        before = now

async def main(url):
    gc.disable()
    gaps = []
    MADE
    late = {"aiohttp", "jsonschema_rs"}
    assert not late & set(sys.modules), late & set(sys.modules)
    watching = asyncio.create_task(watch(gaps))
    await asyncio.sleep(0)
    USE
    watching.cancel()
    assert late & set(sys.modules)
    print(max(gaps))

asyncio.run(main(sys.argv[1]))
"""
CREATE = """async with AsyncVLLM(url) as vllm:
        await vllm.chat.completions.create(messages=[{"role": "user", "content": "Hello"}])"""
STREAM = """async with AsyncVLLM(url) as vllm:
        async with vllm.chat.completions.stream(
            messages=[{"role": "user", "content": "Hello"}]
        ) as stream:
            assert await stream.text() == "Hi\""""
TOOL = """@tool
    async def get_weather(city: str) -> str:
        "Get the weather of a city."
        return f"Sunny in {city}"

    """
RUNS = """
    result = await agent.run("What is the weather in Paris?")
    assert result.text == "Hi", result
    result = await agent.run("What is the weather in Paris?")
    assert result.tool_calls == {"get_weather": 1}, result"""
AGENT = f'{TOOL}agent = Agent(tools=[get_weather], client=url, turn_mode="native"){RUNS}'
OF_A_CLIENT = AGENT.replace("client=url", "client=vllm").replace(
    "agent = ", "vllm = AsyncVLLM(url)\n    agent = "
) + "\n    await vllm.aclose()"  # fmt: skip
USES = {
    "create": CREATE,
    "stream": STREAM,
    "agent": AGENT,
    "agent with a client": OF_A_CLIENT,
    "agent over Responses": AGENT.replace("client=url", 'client=url, api="responses"'),
}
TYPED = "reply = await vllm.chat.completions.create(messages=messages, response_type=kind)"
TYPED_STREAM = TYPED.replace("create(", "stream(") + ".final()"
SCHEMA = '{"type": "object", "properties": {"blue": {"type": "boolean"}}}'
SKY = """from pydantic import BaseModel
class Sky(BaseModel):
    blue: bool"""
KINDS = {
    "typed create": (TYPED, "Sky"),
    "typed stream": (TYPED_STREAM, "Sky"),
    "create by a schema": (TYPED, SCHEMA),
    "stream by a schema": (TYPED_STREAM, SCHEMA),
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a program whose libraries have their byte code, as installed ones do."""
    folder: Path = tmp_path_factory.mktemp("bytecode")
    return {**os.environ, "PYTHONPYCACHEPREFIX": str(folder), "PYTHONDONTWRITEBYTECODE": ""}


def longest_gap(program: str, first: str, environment: dict[str, str]) -> float:
    """Run a program twice, the first time to write the byte code; give the second's longest gap."""
    replies = (Reply.text(first), Reply.calls(("get_weather", {"city": "Paris"})), Reply.text("Ok"))
    longest = 0.0
    for _ in range(2):
        with Simulator(*replies) as server:
            done = subprocess.run(
                [sys.executable, "-c", program, server.base_url],
                capture_output=True, text=True, check=False, timeout=50, env=environment,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        longest = float(done.stdout)
    return longest


@pytest.mark.feature("O-02")
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_first_client_agent_and_request_made_in_a_loop_leave_it_free(
    use: str, installed: dict[str, str]
) -> None:
    program = PROGRAM.replace("BEFORE", "").replace("MADE", "").replace("USE", use)
    longest = longest_gap(program, "Hi", installed)
    assert longest < 0.05, f"The loop was busy for {longest * 1000:.0f} ms in one go."


@pytest.mark.feature("O-02")
@pytest.mark.parametrize(("ask", "kind"), KINDS.values(), ids=KINDS)
def test_the_first_typed_reply_leaves_the_loop_free(
    ask: str, kind: str, installed: dict[str, str]
) -> None:
    use = f"""kind = {kind}
    messages = [{{"role": "user", "content": "Hello"}}]
    {ask}
    assert reply.parsed
    await vllm.aclose()"""
    program = PROGRAM.replace("BEFORE", SKY).replace("USE", use)
    longest = longest_gap(
        program.replace("MADE", "vllm = AsyncVLLM(url)"), '{"blue": true}', installed
    )
    assert longest < 0.02, f"The loop was busy for {longest * 1000:.0f} ms in one go."
