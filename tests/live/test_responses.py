"""Responses on real servers: A keeps responses, B does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from vllm_agent_sdk import (
    AsyncVLLM,
    BadRequestError,
    NotFoundError,
    ToolMessage,
    UnsupportedByServerError,
    UserMessage,
)
from vllm_agent_sdk.types.responses import Finished, Response
from vllm_agent_sdk.types.responses_events import (
    ResponseCreatedEvent,
    ResponseReasoningTextDeltaEvent,
    ResponseTextDeltaEvent,
    ResponseUnknownEvent,
)

from .servers import LiveServer

pytestmark = [pytest.mark.live, pytest.mark.feature("E-03")]

VARIABLE = "VLLM_ENABLE_RESPONSES_API_STORE=1"
COUNT: dict[str, Any] = {
    "instructions": "Be brief.",
    "structured_outputs": {"regex": r"(one|two|three)( (one|two|three)){4,8}"},
    "temperature": 0,
    "max_output_tokens": 40,
}
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
CALL: dict[str, Any] = {
    "tools": [TOOL],
    "tool_choice": "required",
    "temperature": 0,
    "max_output_tokens": 96,
}
LONG: dict[str, Any] = {"max_output_tokens": 1000, "ignore_eos": True}


@pytest.fixture
async def vllm(server: LiveServer) -> AsyncIterator[AsyncVLLM]:
    async with AsyncVLLM(server.base_url, api_key=server.api_key) as client:
        yield client


async def done(vllm: AsyncVLLM, id_: str, seconds: float = 60) -> Response:
    """The response once it is no longer being made."""
    async with asyncio.timeout(seconds):
        while True:
            kept = await vllm.responses.retrieve(id_)
            if kept.status not in ("queued", "in_progress"):
                return kept
            await asyncio.sleep(0.05)


@pytest.mark.server("A")
@pytest.mark.feature("S-02", "C-02")
async def test_a_stream_ends_in_one_finished_and_equals_the_whole_response(
    vllm: AsyncVLLM,
) -> None:
    whole = await vllm.responses.create(input="Say hello.", request_id="resp_mine", **COUNT)
    async with vllm.responses.stream(input=[UserMessage("Say hello.")], **COUNT) as stream:
        events = [event async for event in stream]
    assert (whole.id, whole.request_id, whole.extra) == ("resp_mine", "resp_mine", {})
    assert isinstance(events[0], ResponseCreatedEvent)
    assert sum(isinstance(event, Finished) for event in events) == 1
    last = events[-1]
    assert isinstance(last, Finished)
    assert not any(isinstance(event, ResponseUnknownEvent) for event in events)
    text = "".join(event.delta for event in events if isinstance(event, ResponseTextDeltaEvent))
    assert text == stream.response.text == whole.text
    assert stream.response.status == whole.status == "completed"
    assert stream.response.id == stream.request_id
    assert stream.response.usage is not None
    assert whole.usage is not None
    assert stream.response.usage.input_tokens == whole.usage.input_tokens
    assert last.timing.first_token_s is not None
    assert 0 < last.timing.first_token_s < last.timing.total_s


@pytest.mark.server("A")
async def test_calls_and_their_results_go_back_as_items(vllm: AsyncVLLM) -> None:
    ask = UserMessage("What is the weather in Paris?")
    whole = await vllm.responses.create(input=[ask], **CALL)
    streamed = await vllm.responses.stream(input=[ask], **CALL).final()
    (call,) = whole.tool_calls
    assert (call.name, call.unexpected, set(call.arguments or {})) == (
        "get_weather",
        False,
        {"city"},
    )
    assert [each.arguments for each in streamed.tool_calls] == [call.arguments]
    result = call.result("18 °C")
    assert isinstance(result, ToolMessage)
    histories: list[list[Any]] = [
        [ask, whole.assistant_message(), result],
        [ask, *whole.output, result],
        [ask, *streamed.output, streamed.tool_calls[0].result("18 °C")],
    ]
    tokens = []
    for history in histories:
        answer = await vllm.responses.create(input=history, tools=[TOOL], max_output_tokens=4)
        assert answer.usage is not None
        tokens.append(answer.usage.input_tokens)
    assert tokens[0] == tokens[1]
    assert whole.usage is not None
    assert min(tokens) > whole.usage.input_tokens


@pytest.mark.server("A")
async def test_a_cut_output_is_incomplete_in_both_ways(vllm: AsyncVLLM) -> None:
    ask: dict[str, Any] = {"input": "Count.", "max_output_tokens": 3, "ignore_eos": True}
    for said in (
        await vllm.responses.create(**ask),
        await vllm.responses.stream(**ask).final(),
    ):
        assert said.status == "incomplete"
        assert said.incomplete_details is not None
        assert said.incomplete_details.reason == "max_output_tokens"


@pytest.mark.server("A")
async def test_log_probabilities_come_with_the_text(vllm: AsyncVLLM) -> None:
    ask: dict[str, Any] = {
        "input": "Hi",
        "max_output_tokens": 2,
        "ignore_eos": True,
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
    }
    for said in (await vllm.responses.create(**ask), await vllm.responses.stream(**ask).final()):
        (part,) = said.output[0].content or ()
        assert [len(each["top_logprobs"]) for each in part.logprobs or ()] == [2, 2]


@pytest.mark.server("A")
async def test_a_kept_response_is_retrieved_and_continued(vllm: AsyncVLLM) -> None:
    first = await vllm.responses.create(input="My name is Ada.", max_output_tokens=8)
    assert (await vllm.responses.retrieve(first.id)).output == first.output
    second = await vllm.responses.create(
        input="What is my name?", previous_response_id=first.id, max_output_tokens=8
    )
    assert second.previous_response_id == first.id
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    with pytest.raises(BadRequestError, match="Cannot cancel a synchronous response"):
        await vllm.responses.cancel(first.id)
    for work in (
        vllm.responses.retrieve("resp_nope"),
        vllm.responses.cancel("resp_nope"),
        vllm.responses.create(input="Hi", previous_response_id="resp_nope"),
        vllm.responses.retrieve("resp_nope", stream=True),
    ):
        with pytest.raises(NotFoundError, match="'resp_nope' not found"):
            await work


@pytest.mark.server("A")
async def test_one_in_the_background_is_done_later_or_cancelled(vllm: AsyncVLLM) -> None:
    queued = await vllm.responses.create(input="Say hello.", background=True, **COUNT)
    assert queued.status == "queued"
    assert (await done(vllm, queued.id)).text
    running = await vllm.responses.create(input="Count.", background=True, **LONG)
    cancelled = await vllm.responses.cancel(running.id)
    assert cancelled.status == "cancelled"
    assert (await vllm.responses.retrieve(running.id)).status == "cancelled"


@pytest.mark.server("A")
async def test_a_background_stream_goes_on_without_us_and_is_replayed(vllm: AsyncVLLM) -> None:
    async with vllm.responses.stream(input="Say hello.", background=True, **COUNT) as stream:
        async for event in stream:
            if isinstance(event, ResponseTextDeltaEvent):
                break
    id_ = stream.partial.id
    replay = await vllm.responses.retrieve(id_, stream=True)
    events = [event async for event in replay]
    assert isinstance(events[0], ResponseCreatedEvent)
    later = await vllm.responses.retrieve(id_, stream=True, starting_after=4)
    rest = [event async for event in later]
    assert rest[:-1] == events[5:-1]
    assert later.response.text == replay.response.text
    assert (await done(vllm, id_)).text == replay.response.text


@pytest.mark.server("B")
async def test_without_a_store_the_error_names_what_turns_it_on(vllm: AsyncVLLM) -> None:
    ask: dict[str, Any] = {"instructions": "Be brief.", "input": "Hi", "max_output_tokens": 2}
    assert (await vllm.responses.create(store=True, **ask)).id
    for work in (
        vllm.responses.retrieve("resp_1"),
        vllm.responses.retrieve("resp_1", stream=True),
        vllm.responses.cancel("resp_1"),
        vllm.responses.create(previous_response_id="resp_1", **ask),
        vllm.responses.create(background=True, **ask),
        vllm.responses.stream(background=True, **ask).final(),
    ):
        with pytest.raises(UnsupportedByServerError, match=VARIABLE) as caught:
            await work
        assert caught.value.flags == (VARIABLE,)


@pytest.mark.server("B")
@pytest.mark.feature("S-04")
async def test_reasoning_has_its_own_item_and_events(vllm: AsyncVLLM) -> None:
    ask: dict[str, Any] = {
        "instructions": "Be brief.",
        "input": "Say hello.",
        "max_output_tokens": 16,
        "ignore_eos": True,
        "chat_template_kwargs": {"enable_thinking": True},
        "logit_bias": {"16": -100},  # </think>
        "temperature": 0,
    }
    whole = await vllm.responses.create(**ask)
    async with vllm.responses.stream(**ask) as stream:
        events = [event async for event in stream]
    thought = [e.delta for e in events if isinstance(e, ResponseReasoningTextDeltaEvent)]
    assert "".join(thought) == stream.response.reasoning
    assert whole.reasoning
    assert whole.text == stream.response.text == ""
    assert [item.type for item in whole.output] == ["reasoning"]
