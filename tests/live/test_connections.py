"""Connections on a real server that closes idle ones early, after one second."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM, AuthenticationError

from .servers import LiveServer

pytestmark = pytest.mark.live

WORKERS = 20
REQUESTS = 10
HI: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}]


@pytest.mark.server("B")
@pytest.mark.feature("C-07")
async def test_no_reset_surfaces_where_the_server_closes_as_the_next_request_comes(
    server: LiveServer,
) -> None:
    # The gaps lie around the server's second; the client itself would keep them for four.
    gaps = [0.9 + 0.2 * number / (REQUESTS - 1) for number in range(REQUESTS)]

    async def work(vllm: AsyncVLLM, number: int) -> int:
        done = 0
        for each in gaps[number:] + gaps[:number]:
            if (number + done) % 4:
                assert (await vllm.models.list()).data
            else:
                await vllm.chat.completions.create(messages=HI, max_tokens=1)
            done += 1
            await asyncio.sleep(each)
        return done

    async with AsyncVLLM(server.base_url, api_key=server.api_key) as vllm:
        done = await asyncio.gather(*(work(vllm, number) for number in range(WORKERS)))
    assert done == [REQUESTS] * WORKERS


@pytest.mark.server("B")
@pytest.mark.feature("C-02")
async def test_the_key_opens_the_server_and_a_wrong_one_is_refused(server: LiveServer) -> None:
    assert server.api_key is not None
    async with AsyncVLLM(server.base_url, api_key=server.api_key) as vllm:
        assert (await vllm.models.list()).data[0].id == server.model
    async with AsyncVLLM(server.base_url, api_key="wrong") as vllm:
        with pytest.raises(AuthenticationError) as caught:
            await vllm.models.list()
    assert caught.value.request_id
