"""The loop by hand: a client, a tool, and as many rounds as the model wants."""

import asyncio
from typing import Any

from vllm_agent_sdk import AsyncVLLM, UserMessage, tool


@tool
async def get_weather(city: str) -> dict[str, object]:
    """Get the current weather of a city."""
    return {"city": city, "temperature_c": 21}


async def main() -> None:
    async with AsyncVLLM(defaults={"tools": [get_weather], "temperature": 0}) as vllm:
        messages: list[Any] = [UserMessage("What is the weather in Paris?")]
        reply = await vllm.chat.completions.create(messages=messages)
        while reply.tool_calls:
            messages.append(reply.assistant_message())
            for call in reply.tool_calls:
                arguments = call.parse(dict[str, str])
                messages.append(call.result(await get_weather(**arguments)))
            reply = await vllm.chat.completions.create(messages=messages)
        print(reply.text)


asyncio.run(main())
