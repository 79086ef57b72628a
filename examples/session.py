"""A conversation of several runs that is watched, steered and interrupted."""

import asyncio
from collections.abc import AsyncIterator

from vllm_agent_sdk import Agent, RunEnded, Sampling, TextDelta


async def main() -> None:
    agent = Agent(instructions="You tell stories.", sampling=Sampling(max_tokens=200))
    async with agent.session() as session:
        watching = asyncio.create_task(show(session.events(until="close")))
        story = await session.send("Tell a long story of the sea.")
        async for _ in story.text_deltas():
            break
        await session.send("Stop that, and say goodbye.", when="interrupt")
        print(f"\n[{(await story).stop_reason}]")
        result = await session.run("What was the story about?")
    await watching
    print(f"[{len(result.messages)} messages, {result.usage.cached_tokens} tokens from the cache]")


async def show(events: AsyncIterator[object]) -> None:
    async for event in events:
        match event:
            case TextDelta(text=text):
                print(text, end="", flush=True)
            case RunEnded(result=result):
                print(f"\n[a run has ended: {result.stop_reason}]")
            case _:
                pass


asyncio.run(main())
