"""CPU per turn as a conversation grows: a session of 500 turns, its first 50 beside its last 50.

`python -m benchmarks.long_conversation [--quick]`. Each turn asks for a whole reply with a tool
offered, so the request grows with the conversation and the reply does not. *As many bytes from the
start* is our session too, 50 turns after one long prompt: its requests are as long as those of the
last turns, and have a tenth of their messages; what the last turns cost beyond it is work that
grows with the conversation. *Writing the same bytes* is the least that a longer request costs:
every message was encoded once, and they are joined and posted each turn. The *bare loop* keeps a
list of messages and encodes all of it each turn. Quick leaves the peers out.

What the last turns may cost beyond as many bytes is the list of the whole conversation that each
result has (1,000 messages here, each touched twice); encoding or checking again what was sent would
be several times that.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp

from benchmarks.agent_run import openai_agent, pydantic_agent
from benchmarks.emitter import emitter, pin
from benchmarks.measure import Goal, report, write

PROMPT = "And what is the weather in the next town on the way? " * 2
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TURNS, PART = 500, 50
FIRST, LAST = f"turns 1 to {PART}", f"turns {TURNS - PART + 1} to {TURNS}"
WRITING = "writing the same bytes"
FLAT = "ours, as many bytes from the start"
GOALS = (Goal("PERF-10", "ours", 1.3, FLAT),)

Turn = Callable[[int], Awaitable[object]]


async def parts(
    turn: Turn, turns: int = TURNS, grow: Callable[[int], None] | None = None
) -> dict[str, float]:
    """Take the turns; give the CPU microseconds of one, at the beginning and at the end.

    Args:
        turn: Takes one.
        turns: How many.
        grow: Makes the conversation longer by so many turns, in place of those in the middle.
    """
    await turn(0)  # the first one connects
    taken: dict[str, float] = {}
    begun = 0.0
    for number in range(1, turns + 1):
        if grow is not None and PART < number <= turns - PART:
            continue
        if number in {1, turns - PART + 1}:
            if grow is not None and number > 1:
                grow(turns - 2 * PART)
            gc.collect()
            begun = time.process_time()
        await turn(number)
        if number in {PART, turns}:
            name = FIRST if number == PART else LAST
            taken[name] = (time.process_time() - begun) / PART * 1e6
    return taken


async def ours(root: str, sizes: list[int], *, long: bool = False) -> dict[str, float]:
    """Our session; notes the lengths of its requests.

    Args:
        root: The server.
        sizes: Bytes of each request, filled by the first session.
        long: Begin with a prompt as long as the requests of the last turns, and take a few turns.
    """
    from vllm_agent_sdk import Agent, AsyncVLLM, tool

    @tool
    async def get_weather(city: str) -> str:
        """Get the current weather of a city."""
        return f"18 °C in {city}"

    async with AsyncVLLM(f"{root}/v1", model="m") as vllm:
        agent = Agent(tools=[get_weather], client=vllm, turn_mode="native", streaming=False)
        async with agent.session() as session:

            async def turn(_: int) -> None:
                result = await session.run(PROMPT)
                assert result.stop_reason == "end_turn", result

            if long:
                last = sum(sizes[-PART:]) // PART
                await session.run("x" * (last - sizes[PART // 2]))
                return {LAST: (await parts(turn, PART))[FIRST]}
            taken = await parts(turn)
            if not sizes:
                sizes += [each.prefix.sent_bytes for each in session.cache_by_turn if each.prefix]
    return taken


async def writing(root: str, sizes: list[int]) -> dict[str, float]:
    """Messages of the same lengths, encoded beforehand: a turn adds one, joins them and posts."""
    written: list[bytes] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def turn(number: int) -> None:
            url = f"{root}/v1/chat/completions"
            written.append(b"x" * (sizes[number] - (sizes[number - 1] if number else 0)))
            async with session.post(url, data=b",".join(written)) as reply:
                assert json.loads(await reply.read())["choices"]

        return await parts(turn)


async def bare(root: str) -> dict[str, float]:
    """A list of messages that is written anew each turn."""
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
    messages: list[dict[str, str]] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def turn(_: int) -> None:
            messages.append({"role": "user", "content": PROMPT})
            body = {"model": "m", "messages": messages, "tools": tools}
            async with session.post(f"{root}/v1/chat/completions", json=body) as reply:
                said = json.loads(await reply.read())["choices"][0]["message"]
            messages.append({"role": "assistant", "content": said["content"]})

        return await parts(turn)


async def pydantic_ai(root: str) -> dict[str, float]:
    """Pydantic AI's agent, given its messages again each turn (those between are copies)."""
    async with pydantic_agent(root) as agent:
        said: list[Any] = []

        async def turn(_: int) -> None:
            said[:] = (await agent.run(PROMPT, message_history=list(said))).all_messages()

        return await parts(turn, grow=lambda turns: said.extend(said[-2:] * turns))


async def openai_agents(root: str) -> dict[str, float]:
    """The agent of OpenAI's Agents SDK, given its items again each turn, likewise."""
    async with openai_agent(root) as ask:
        said: list[Any] = []

        async def turn(_: int) -> None:
            result = await ask([*said, {"role": "user", "content": PROMPT}])
            said[:] = result.to_input_list()

        return await parts(turn, grow=lambda turns: said.extend(said[-2:] * turns))


def main() -> None:
    """Measure and print."""
    pin(0)
    sizes: list[int] = []
    taken: dict[str, list[dict[str, float]]] = {}
    with emitter() as server:
        root = f"{server}/whole/1"  # which reads nothing of a request: that would be measured
        work = {
            "ours": partial(ours, root, sizes),
            FLAT: partial(ours, root, sizes, long=True),
            WRITING: partial(writing, root, sizes),
            "bare loop": partial(bare, root),
        }
        quick = "--quick" in sys.argv
        if not quick:
            work["pydantic-ai"] = partial(pydantic_ai, root)
            work["openai-agents"] = partial(openai_agents, root)
        for _ in range(3 if quick else 7):
            for name, measured in work.items():
                taken.setdefault(name, []).append(asyncio.run(measured()))

    def median(name: str, part: str) -> float:
        return statistics.median(each[part] for each in taken[name])

    late = {name: median(name, LAST) for name in taken}
    early = {name: median(name, FIRST) for name in taken if name != FLAT}
    results = [
        report(f"a long conversation, {LAST}", "µs CPU a turn", late, GOALS),
        report(f"a long conversation, {FIRST}", "µs CPU a turn", early),
    ]
    write("long_conversation", results)


if __name__ == "__main__":
    main()
