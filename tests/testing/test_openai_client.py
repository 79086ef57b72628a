"""OpenAI's own client, as it is, works against the simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from vllm_agent_sdk.testing import Reply, Simulator

from .clients import WEATHER

pytestmark = pytest.mark.feature("Q-01")

HI: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def server() -> AsyncIterator[Simulator]:
    text = Reply.text("Hello out there.")
    calls = Reply.calls(("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"}))
    async with Simulator(text, calls, text, api_key="secret") as server:
        yield server


async def test_chat_tools_and_errors(server: Simulator) -> None:
    import openai

    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="secret") as client:
        (model,) = (await client.models.list()).data
        create = client.chat.completions.create
        hello = await create(model=model.id, messages=HI)
        assert hello.choices[0].message.content == "Hello out there."
        called = await create(model=model.id, messages=HI, tools=[WEATHER])  # type: ignore[list-item]
        calls: Any = called.choices[0].message.tool_calls
        assert [call.function.arguments for call in calls] == [
            '{"city": "Paris"}',
            '{"city": "Rome"}',
        ]
        assert called.choices[0].finish_reason == "tool_calls"
        with pytest.raises(openai.NotFoundError, match="`x` does not exist"):
            await create(model="x", messages=HI)
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_streams(server: Simulator) -> None:
    import openai

    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="secret") as client:
        stream = client.chat.completions.stream
        async with stream(model="sim-model", messages=HI) as events:
            text = [event.delta async for event in events if event.type == "content.delta"]
            final = await events.get_final_completion()
        # vLLM's role and finish chunks hold empty text.
        assert text == ["", "Hello", " out", " there.", ""]
        assert final.choices[0].message.content == "Hello out there."
        async with stream(model="sim-model", messages=HI, tools=[WEATHER]) as events:  # type: ignore[list-item]
            final = await events.get_final_completion()
        calls: Any = final.choices[0].message.tool_calls
        assert [call.function.arguments for call in calls] == [
            '{"city": "Paris"}',
            '{"city": "Rome"}',
        ]


async def test_a_failure_in_mid_stream_reaches_it() -> None:
    import openai

    async with (
        Simulator(Reply.text("a b", error_after=2)) as server,
        openai.AsyncOpenAI(base_url=server.base_url, api_key="-", max_retries=0) as client,
    ):
        chunks = await client.chat.completions.create(model="sim-model", messages=HI, stream=True)
        with pytest.raises(openai.APIError, match="Internal server error"):
            [chunk async for chunk in chunks]
