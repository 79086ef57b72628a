"""Thinking and reasoning: a server that splits it off, and one that leaves it in the text."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM, ReasoningDelta, TextDelta, UnsupportedByServerError

from .servers import LiveServer

pytestmark = [pytest.mark.live]

ASK: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2+2?"}]
COLD: Any = {"messages": ASK, "temperature": 0, "max_tokens": 24}


def client(server: LiveServer) -> AsyncVLLM:
    return AsyncVLLM(server.base_url, api_key=server.api_key)


@pytest.mark.server("B")
@pytest.mark.feature("O-10")
async def test_thinking_is_switched_on_off_and_limited(server: LiveServer) -> None:
    async with client(server) as vllm:
        create = vllm.chat.completions.create
        off = await create(**COLD, thinking=False)
        on = await create(**COLD, thinking=True)
        short = await create(**COLD, thinking=4)
        with pytest.raises(UnsupportedByServerError, match="no effort"):
            await create(**COLD, thinking="high")
        profile = await vllm.server.profile()
    assert profile.thinking_switch.value == "enable_thinking"
    assert off.text
    assert not off.reasoning
    assert on.reasoning
    assert short.reasoning
    assert short.text
    assert "think>" not in off.text + on.text + short.text
    details = short.usage.completion_tokens_details if short.usage else None
    assert details is not None
    assert details.reasoning_tokens is not None
    assert details.reasoning_tokens <= 8


@pytest.mark.server("B")
@pytest.mark.feature("S-04")
async def test_reasoning_is_streamed_apart_from_the_text(server: LiveServer) -> None:
    async with client(server) as vllm:
        async with vllm.chat.completions.stream(**COLD, thinking=4) as stream:
            events = [event async for event in stream]
        whole = await vllm.chat.completions.create(**COLD, thinking=4)
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    said = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert thought == stream.completion.reasoning
    assert said == stream.completion.text
    assert "think>" not in said
    for reply in (whole, stream.completion):
        assert (reply.reasoning or "").strip()
        assert reply.text.strip()


@pytest.mark.server("A")
@pytest.mark.feature("O-10")
async def test_a_model_without_thinking_is_an_error_that_says_so(server: LiveServer) -> None:
    async with client(server) as vllm:
        for value in (True, False, "low"):
            with pytest.raises(UnsupportedByServerError, match="no switch") as caught:
                await vllm.chat.completions.create(**COLD, thinking=value)
            assert caught.value.feature == f"thinking={value!r}"
        with pytest.raises(UnsupportedByServerError, match="--reasoning-parser"):
            await vllm.chat.completions.stream(**COLD, thinking=100).final()


@pytest.mark.server("A")
@pytest.mark.feature("S-04")
async def test_think_tags_in_the_text_are_split_off_whole_and_streamed(server: LiveServer) -> None:
    grammar = 'root ::= "<think>" [a-z ]{3,12} "</think>" ("yes" | "no")'
    asked: Any = {**COLD, "structured_outputs": {"grammar": grammar}}
    async with client(server) as vllm:
        plain = await vllm.chat.completions.create(**asked)
        profile = await vllm.server.profile()
        vllm.server.set_profile(profile.with_(think_tags=True))
        whole = await vllm.chat.completions.create(**asked)
        streamed = await vllm.chat.completions.stream(**asked).final()
    assert plain.text.startswith("<think>")
    for reply in (whole, streamed):
        assert reply.text in {"yes", "no"}
        assert f"<think>{reply.reasoning}</think>{reply.text}" == plain.text
