"""What tests of the agent share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM
from vllm_agent_sdk.testing import Simulator


@pytest.fixture
async def client() -> AsyncIterator[Any]:
    """Makes clients of simulators, and closes them."""
    made: list[AsyncVLLM] = []

    def make(server: Simulator) -> AsyncVLLM:
        made.append(AsyncVLLM("http://sim", transport=server.transport))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()
