"""CPU per agent run of two model calls and one tool call, no store, 8 at a time.

`python -m benchmarks.agent_run [--quick]`; quick leaves the peers out. The agents of the peers ask
for whole replies; ours reads streams wherever it has no other way.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp

from benchmarks import clients
from benchmarks.emitter import emitter, pin
from benchmarks.measure import Goal, Measured, alternate, report, write

PROMPT = "What is the weather in Paris?"
ANSWER = "Hello there, how can I help you?"
GOALS = (
    Goal("PERF-4", "ours", 1 / 15, "pydantic-ai"),
    Goal("PERF-4", "ours", 1 / 10, "openai-agents"),
)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


async def some(run: Callable[[], Awaitable[Any]], count: int) -> int:
    """Run as often as asked, 8 at a time."""

    async def one() -> int:
        for _ in range(count // 8):
            await run()
        return count // 8

    return await clients.all_at_once(one, 8)


async def ours(root: str, count: int) -> int:
    """Our agent."""
    from vllm_agent_sdk import Agent, AsyncVLLM, tool

    @tool
    async def get_weather(city: str) -> str:
        """Get the current weather of a city."""
        return f"18 °C in {city}"

    async with AsyncVLLM(f"{root}/v1", model="m") as vllm:
        agent = Agent(tools=[get_weather], client=vllm, turn_mode="native", streaming=False)

        async def run() -> None:
            result = await agent.run(PROMPT)
            assert result.tool_calls == {"get_weather": 1}, result
            assert result.turns == 2, result

        return await some(run, count)


async def bare(root: str, count: int) -> int:
    """The least: two posts, JSON, one function between them."""
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(messages: list[Any]) -> Any:
            body = {"model": "m", "messages": messages, "tools": tools}
            async with session.post(f"{root}/v1/chat/completions", json=body) as reply:
                return json.loads(await reply.read())["choices"][0]["message"]

        async def run() -> None:
            messages: list[Any] = [{"role": "user", "content": PROMPT}]
            message = await ask(messages)
            call = message["tool_calls"][0]
            city = json.loads(call["function"]["arguments"])["city"]
            done = {"role": "tool", "tool_call_id": call["id"], "content": f"18 °C in {city}"}
            assert (await ask([*messages, message, done]))["content"] == ANSWER

        return await some(run, count)


@contextlib.asynccontextmanager
async def pydantic_agent(root: str) -> AsyncIterator[Any]:
    """Pydantic AI's agent with the tool."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{root}/v1", api_key="none")
    agent = Agent(OpenAIChatModel("m", provider=provider))

    @agent.tool_plain
    async def get_weather(city: str) -> str:
        """Get the current weather of a city."""
        return f"18 °C in {city}"

    try:
        yield agent
    finally:
        await provider.client.close()


async def pydantic_ai(root: str, count: int) -> int:
    """Pydantic AI's agent."""
    async with pydantic_agent(root) as agent:

        async def run() -> None:
            assert (await agent.run(PROMPT)).output == ANSWER

        return await some(run, count)


@contextlib.asynccontextmanager
async def openai_agent(root: str) -> AsyncIterator[Callable[[Any], Awaitable[Any]]]:
    """What runs the agent of OpenAI's Agents SDK with the tool, its tracing off."""
    import agents
    import openai

    agents.set_tracing_disabled(True)

    @agents.function_tool
    async def get_weather(city: str) -> str:
        """Get the current weather of a city."""
        return f"18 °C in {city}"

    async with openai.AsyncOpenAI(base_url=f"{root}/v1", api_key="none") as client:
        model = agents.OpenAIChatCompletionsModel(model="m", openai_client=client)
        agent = agents.Agent(name="weather", model=model, tools=[get_weather])
        yield partial(agents.Runner.run, agent)


async def openai_agents(root: str, count: int) -> int:
    """The agent of OpenAI's Agents SDK."""
    async with openai_agent(root) as ask:

        async def run() -> None:
            assert (await ask(PROMPT)).final_output == ANSWER

        return await some(run, count)


def main() -> None:
    """Measure and print."""
    quick = "--quick" in sys.argv
    pin(0)
    with emitter() as root:
        work: dict[str, Measured] = {
            "ours": partial(ours, f"{root}/agent/1", 400),
            "bare loop": partial(bare, f"{root}/agent/1", 800),
        }
        if not quick:
            work["pydantic-ai"] = partial(pydantic_ai, f"{root}/agent/1", 80)
            work["openai-agents"] = partial(openai_agents, f"{root}/agent/1", 80)
        medians = alternate(work, 3 if quick else 9)
    name = "agent run: two model calls, one tool call"
    write("agent_run", [report(name, "µs CPU a run", medians, GOALS)])


if __name__ == "__main__":
    main()
