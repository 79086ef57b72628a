"""A worker that ends well: at SIGTERM it begins nothing new, and what runs gets 20 seconds."""

import asyncio
import signal

from vllm_agent_sdk import AsyncVLLM, ClientClosedError, UserMessage


async def work(vllm: AsyncVLLM, number: int) -> None:
    try:
        while True:
            ask = [UserMessage(f"Say the number {number}.")]
            reply = await vllm.chat.completions.create(messages=ask, max_tokens=32)
            print(f"{number}: {reply.text}", flush=True)
    except ClientClosedError:
        print(f"{number} has ended", flush=True)


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncVLLM() as vllm:
        workers = [asyncio.create_task(work(vllm, number)) for number in (1, 2)]
        await stop.wait()
        await vllm.aclose(drain=20)
        await asyncio.gather(*workers)


asyncio.run(main())
