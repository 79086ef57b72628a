"""OpenAI's own client, as it is, works against the simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pydantic
import pytest

from vllm_agent_sdk.testing import Reply, Simulator

from .clients import WEATHER

pytestmark = pytest.mark.feature("Q-01")

HI: list[Any] = [{"role": "user", "content": "Hi"}]
PARIS = Reply.calls(("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"}))
ARGUMENTS = ['{"city": "Paris"}', '{"city": "Rome"}']
TOOL: Any = WEATHER
RESPONSES_TOOL: Any = {"type": "function", "parameters": {}, "name": "get_weather", "strict": None}


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.fixture
async def server() -> AsyncIterator[Simulator]:
    text = Reply.text("Hello out there.")
    async with Simulator(text, PARIS, text, api_key="secret") as server:
        yield server


def client_of(server: Simulator, key: str = "secret") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=server.base_url, api_key=key, max_retries=0)


async def test_chat_tools_and_errors(server: Simulator) -> None:
    async with client_of(server) as client:
        (model,) = (await client.models.list()).data
        create = client.chat.completions.create
        hello = await create(model=model.id, messages=HI)
        assert hello.choices[0].message.content == "Hello out there."
        called = await create(model=model.id, messages=HI, tools=[TOOL])
        calls: Any = called.choices[0].message.tool_calls
        assert [call.function.arguments for call in calls] == ARGUMENTS
        assert called.choices[0].finish_reason == "tool_calls"
        with pytest.raises(openai.NotFoundError, match="`x` does not exist"):
            await create(model="x", messages=HI)
    async with client_of(server, "wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_streams(server: Simulator) -> None:
    async with client_of(server) as client:
        stream = client.chat.completions.stream
        async with stream(model="sim-model", messages=HI) as events:
            text = [event.delta async for event in events if event.type == "content.delta"]
            final = await events.get_final_completion()
        # vLLM's role chunk holds empty text.
        assert text == ["", "Hello", " out", " there."]
        assert final.choices[0].message.content == "Hello out there."
        async with stream(model="sim-model", messages=HI, tools=[TOOL]) as events:
            final = await events.get_final_completion()
        calls: Any = final.choices[0].message.tool_calls
        assert [call.function.arguments for call in calls] == ARGUMENTS


async def test_the_deltas_of_tool_calls_make_up_the_calls() -> None:
    async with Simulator(PARIS) as server, client_of(server) as client:
        stream = await client.chat.completions.create(
            model="sim-model",
            messages=HI,
            tools=[TOOL],
            stream=True,
            stream_options={"include_usage": True},
        )
        names: dict[int, str] = {}
        arguments: dict[int, str] = {}
        reasons: list[str] = []
        usage = None
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                reasons += [choice.finish_reason] if choice.finish_reason else []
                for call in choice.delta.tool_calls or ():
                    assert call.function is not None
                    if call.function.name:
                        names[call.index] = call.function.name
                    arguments.setdefault(call.index, "")
                    arguments[call.index] += call.function.arguments or ""
    assert names == {0: "get_weather", 1: "get_weather"}
    assert list(arguments.values()) == ARGUMENTS
    assert reasons == ["tool_calls"]
    assert usage is not None
    assert usage.completion_tokens > 0


async def test_parse_gives_the_pydantic_model() -> None:
    async with Simulator(Reply.text('{"name": "Ann", "age": 30}')) as server:
        async with client_of(server) as client:
            reply = await client.chat.completions.parse(
                model="sim-model", messages=HI, response_format=Person
            )
            assert reply.choices[0].message.parsed == Person(name="Ann", age=30)
            response = await client.responses.parse(
                model="sim-model", input="Hi", text_format=Person
            )
            assert response.output_parsed == Person(name="Ann", age=30)
    sent = server.requests[0].json["response_format"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["strict"] is True


async def test_completions_whole_and_streamed() -> None:
    async with Simulator(Reply.text(" one two")) as server, client_of(server) as client:
        whole = await client.completions.create(model="sim-model", prompt="Count:", echo=True)
        assert whole.choices[0].text == "Count: one two"
        stream = await client.completions.create(model="sim-model", prompt="Count:", stream=True)
        pieces = [chunk.choices[0].text async for chunk in stream]
    assert "".join(pieces) == " one two"


async def test_responses_whole_and_streamed() -> None:
    replies = (Reply.text("one two"), PARIS, Reply.text("one two"), PARIS)
    async with Simulator(*replies) as server, client_of(server) as client:
        whole = await client.responses.create(model="sim-model", input="Hi")
        assert whole.output_text == "one two"
        called = await client.responses.create(
            model="sim-model", input="Hi", tools=[RESPONSES_TOOL]
        )
        calls: list[Any] = list(called.output)
        assert [call.arguments for call in calls] == ARGUMENTS
        stream = await client.responses.create(model="sim-model", input="Hi", stream=True)
        events = [event async for event in stream]
        text = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert text == ["one", " two"]
        assert events[-1].type == "response.completed"
        async with client.responses.stream(
            model="sim-model", input="Hi", tools=[RESPONSES_TOOL]
        ) as run:
            final = await run.get_final_response()
        streamed: list[Any] = list(final.output)
        assert [call.arguments for call in streamed] == ARGUMENTS


async def test_a_failure_in_mid_stream_reaches_it() -> None:
    async with Simulator(Reply.text("a b", error_after=2)) as server, client_of(server) as client:
        chunks = await client.chat.completions.create(model="sim-model", messages=HI, stream=True)
        with pytest.raises(openai.APIError, match="Internal server error"):
            [chunk async for chunk in chunks]


async def test_an_overloaded_server_is_its_internal_server_error() -> None:
    async with Simulator(Reply.error(503)) as server, client_of(server) as client:
        with pytest.raises(openai.InternalServerError, match="currently busy") as caught:
            await client.chat.completions.create(model="sim-model", messages=HI)
    assert caught.value.status_code == 503
