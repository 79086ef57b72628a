"""Calls left in the text, through the client: whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import TextDelta, ToolCallDelta, ToolCallReady, UsageError
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.types.profile import ServerProfile

from .support import HI, WAYS, WEATHER, served

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TOOLS: Any = {"messages": HI, "tools": [WEATHER]}


def hermes() -> ServerProfile:
    return ServerProfile().with_(call_format="hermes")


@pytest.mark.feature("O-14")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("split", [1, 3, 40])
async def test_calls_in_the_text_are_read_whole_and_streamed(way: str, split: int) -> None:
    async with served(Reply.text(f"I look. {CALL}", split=split), way=way) as (_, vllm):
        vllm.server.set_profile(hermes())
        whole = await vllm.chat.completions.create(**TOOLS, parse_text_calls=True)
        async with vllm.chat.completions.stream(**TOOLS, parse_text_calls=True) as stream:
            events = [event async for event in stream]
    for reply in (whole, stream.completion):
        assert reply.text.rstrip() == "I look."
        [call] = reply.tool_calls
        assert (call.name, call.arguments, call.unexpected) == (
            "get_weather",
            {"city": "Paris"},
            False,
        )
    said = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert "tool" not in said
    assert sum(isinstance(event, ToolCallDelta) for event in events) == 1
    [ready] = [event for event in events if isinstance(event, ToolCallReady)]
    assert ready.call == stream.completion.tool_calls[0]
    assert whole.choices[0].message.tool_calls
    assert b"<tool_call>" in whole.raw


@pytest.mark.feature("O-14")
async def test_it_is_off_unless_asked_for_and_without_tools() -> None:
    async with served(Reply.text(CALL)) as (_, vllm):
        vllm.server.set_profile(hermes())
        plain = await vllm.chat.completions.create(**TOOLS)
        no_tools = await vllm.chat.completions.create(messages=HI, parse_text_calls=True)
        forbidden = await vllm.chat.completions.create(
            **TOOLS, tool_choice="none", parse_text_calls=True
        )
    for reply in (plain, no_tools, forbidden):
        assert reply.text == CALL
        assert reply.tool_calls == []


@pytest.mark.feature("O-14")
async def test_the_text_of_a_reply_that_has_calls_is_text() -> None:
    calls = Reply.calls(("get_weather", {"city": "Rome"}), text=f"So: {CALL}")
    async with served(calls) as (_, vllm):
        vllm.server.set_profile(hermes())
        reply = await vllm.chat.completions.create(**TOOLS, parse_text_calls=True)
    assert [call.arguments for call in reply.tool_calls] == [{"city": "Rome"}]
    assert CALL in reply.text


@pytest.mark.feature("O-14")
@pytest.mark.parametrize(("finish", "found"), [("stop", 1), ("length", 0)])
async def test_reasoning_is_read_only_where_nothing_else_came_and_it_ended_by_itself(
    finish: str, found: int
) -> None:
    alone = Reply.reasoning(f"Hm. {CALL}", text="", finish_reason=finish)
    answered = Reply.reasoning(f"Hm. {CALL}", text="Done.")
    async with served(alone, alone, answered) as (_, vllm):
        vllm.server.set_profile(hermes())
        whole = await vllm.chat.completions.create(**TOOLS, parse_text_calls=True)
        last = await vllm.chat.completions.stream(**TOOLS, parse_text_calls=True).final()
        other = await vllm.chat.completions.create(**TOOLS, parse_text_calls=True)
    assert len(whole.tool_calls) == len(last.tool_calls) == found
    assert whole.reasoning == last.reasoning == f"Hm. {CALL}"
    assert other.tool_calls == []


@pytest.mark.feature("O-14")
async def test_an_unknown_format_is_to_be_named_and_can_be() -> None:
    async with served(Reply.text("[get_weather(city='Paris')]")) as (_, vllm):
        vllm.server.set_profile(ServerProfile(model="new"))
        with pytest.raises(UsageError, match=r"parse_text_calls= one of hermes"):
            await vllm.chat.completions.create(**TOOLS, parse_text_calls=True)
        reply = await vllm.chat.completions.create(**TOOLS, parse_text_calls="pythonic")
        assert reply.tool_calls[0].arguments == {"city": "Paris"}
        with pytest.raises(UsageError, match="no format of calls"):
            await vllm.chat.completions.create(**TOOLS, parse_text_calls="xml")


@pytest.mark.feature("O-14")
async def test_malformed_arguments_say_so_and_are_no_arguments() -> None:
    text = CALL.replace('"Paris"', "Paris")
    async with served(Reply.text(text)) as (_, vllm):
        reply = await vllm.chat.completions.create(**TOOLS, parse_text_calls="hermes")
    [call] = reply.tool_calls
    assert call.arguments is None
    assert call.error
