"""Tools that wait, for tests of what happens meanwhile."""

from __future__ import annotations

import asyncio

from vllm_agent_sdk import tool


@tool(deferred=True)
async def order(item: str) -> str:
    """Order something; people do it."""
    raise AssertionError("a deferred tool is not run here")


class Gate:
    """A tool that waits until the test lets it go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

        @tool
        async def work() -> str:
            """Work."""
            self.begun.set()
            await self.go_on.wait()
            return "worked"

        self.tool = work
