"""Legacy completions on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from vllm_agent_sdk import (
    AsyncVLLM,
    BadRequestError,
    ChoiceFinished,
    Finished,
    TextDelta,
    UsageUpdated,
)
from vllm_agent_sdk.types.completions import CompletionParams

from .servers import LiveServer

pytestmark = [pytest.mark.live, pytest.mark.server("A"), pytest.mark.feature("E-02")]

COUNT: CompletionParams = {
    "structured_outputs": {"regex": r"( (one|two|three)){4,8}\."},
    "temperature": 0,
    "max_tokens": 40,
}


@pytest.fixture
async def vllm(server: LiveServer) -> AsyncIterator[AsyncVLLM]:
    async with AsyncVLLM(server.base_url, api_key=server.api_key) as client:
        yield client


async def test_a_stream_equals_the_whole_reply(vllm: AsyncVLLM) -> None:
    whole = await vllm.completions.create(prompt="Count: one", **COUNT)
    async with vllm.completions.stream(prompt="Count: one", **COUNT) as stream:
        events = [event async for event in stream]
    assert [type(event) for event in events[-3:]] == [ChoiceFinished, UsageUpdated, Finished]
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == stream.completion.text == whole.text
    assert text.endswith(".")
    assert stream.completion.finish_reason == whole.finish_reason == "stop"
    assert whole.usage is not None
    assert stream.completion.usage is not None
    assert stream.completion.usage.total_tokens == whole.usage.total_tokens
    assert whole.id.startswith("cmpl-")
    assert whole.extra == {}


async def test_echo_comes_before_the_reply_streamed_and_whole(vllm: AsyncVLLM) -> None:
    prompt = "Count: one"
    whole = await vllm.completions.create(prompt=prompt, echo=True, **COUNT)
    streamed = await vllm.completions.stream(prompt=prompt, echo=True, **COUNT).final()
    assert whole.text.startswith(prompt + " ")
    assert streamed.text == whole.text


async def test_a_prompt_is_scored_without_a_reply(vllm: AsyncVLLM) -> None:
    scored = await vllm.completions.create(
        prompt="One, two,", echo=True, max_tokens=0, logprobs=1, temperature=0
    )
    assert scored.text == "One, two,"
    told = scored.choices[0].logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert "".join(told.tokens) == "One, two,"
    assert told.token_logprobs[0] is None
    assert all(value is not None and value < 0 for value in told.token_logprobs[1:])


async def test_each_prompt_of_a_list_has_its_choices(vllm: AsyncVLLM) -> None:
    prompts = ["Count: one", "Count: two"]
    whole = await vllm.completions.create(prompt=prompts, **COUNT)
    streamed = await vllm.completions.stream(prompt=prompts, **COUNT).final()
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert [choice.index for choice in streamed.choices] == [0, 1]
    assert all(choice.text.endswith(".") for choice in (*whole.choices, *streamed.choices))
    ids = (await vllm.tokenize("Count: one")).tokens
    by_ids = await vllm.completions.create(prompt=[ids, ids], n=1, return_token_ids=True, **COUNT)
    assert [choice.prompt_token_ids for choice in by_ids.choices] == [ids, ids]


async def test_several_choices_of_several_prompts_all_end(vllm: AsyncVLLM) -> None:
    stream = vllm.completions.stream(
        prompt=["Red, green,", "One, two,"], n=2, temperature=1, seed=1, max_tokens=4
    )
    async with stream:
        ended = [event.choice async for event in stream if isinstance(event, ChoiceFinished)]
    assert sorted(ended) == [0, 1, 2, 3]
    assert len(stream.completion.choices) == 4


async def test_this_model_takes_no_suffix(vllm: AsyncVLLM) -> None:
    with pytest.raises(BadRequestError, match="suffix is only supported") as caught:
        await vllm.completions.create(prompt="One, two,", suffix="four", max_tokens=2)
    assert caught.value.status == 400
    with pytest.raises(BadRequestError, match="suffix is only supported"):
        await vllm.completions.stream(prompt="One, two,", suffix="four", max_tokens=2).final()
