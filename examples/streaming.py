"""Typed events of a stream, as they come."""

import asyncio

from vllm_agent_sdk import AsyncVLLM, Finished, ReasoningDelta, TextDelta, UserMessage


async def main() -> None:
    async with AsyncVLLM() as vllm:
        ask = [UserMessage("Say hello in three words.")]
        async with vllm.chat.completions.stream(messages=ask, max_tokens=32) as stream:
            async for event in stream:
                match event:
                    case TextDelta(text=text):
                        print(text, end="", flush=True)
                    case ReasoningDelta():
                        print(".", end="", flush=True)
                    case Finished(completion=completion, timing=timing):
                        print(f"\n{completion.finish_reason}, {timing.tokens_per_s} tokens/s")
                    case _:
                        pass


asyncio.run(main())
