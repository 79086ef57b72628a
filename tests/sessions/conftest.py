"""What tests of stores share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import Agent, AsyncVLLM
from vllm_agent_sdk.sessions import MemoryStore, SessionStore, SQLiteStore
from vllm_agent_sdk.testing import Reply, Simulator


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: Any, tmp_path: Path) -> AsyncIterator[SessionStore]:
    """A store of each kind, without sessions."""
    made: SessionStore = MemoryStore()
    if request.param == "sqlite":
        made = SQLiteStore(tmp_path / "sessions.db")
    yield made
    await made.aclose()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    made = SQLiteStore(tmp_path / "sessions.db")
    yield made
    await made.aclose()


@pytest.fixture
async def agent() -> AsyncIterator[Any]:
    """Makes agents that are answered from a script, the last reply again and again."""
    async with AsyncExitStack() as stack:

        async def make(*replies: Reply, **options: Any) -> Agent[Any, str]:
            server = await stack.enter_async_context(Simulator(*(replies or [Reply.text("yes")])))
            client = await stack.enter_async_context(
                AsyncVLLM("http://sim", transport=server.transport)
            )
            return Agent(client=client, **options)

        yield make
