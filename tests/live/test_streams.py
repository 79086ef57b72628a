"""Streams of every kind on a real server: their events, their end, and what ends them early."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from vllm_agent_sdk import (
    AsyncVLLM,
    ChoiceFinished,
    Finished,
    TextDelta,
    ToolCallDelta,
    ToolCallReady,
    UsageUpdated,
)
from vllm_agent_sdk.types.chat import ChatParams
from vllm_agent_sdk.types.completions import CompletionParams
from vllm_agent_sdk.types.responses import Finished as ResponseFinished
from vllm_agent_sdk.types.responses_events import ResponseTextDeltaEvent

from .servers import LiveServer
from .test_client import is_idle, running, until

pytestmark = [pytest.mark.live, pytest.mark.server("A")]

HI = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Count to three."}]
FIXED = {"regex": "one two three four five six seven eight"}
TEXT = FIXED["regex"]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris"]}, "unit": {"enum": ["celsius"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


@pytest.fixture
async def vllm(server: LiveServer) -> AsyncIterator[AsyncVLLM]:
    async with AsyncVLLM(server.base_url, api_key=server.api_key) as client:
        yield client


def ends_once(events: list[Any]) -> Finished[Any]:
    """The last event, the only one of its kind, with its timing."""
    last = events[-1]
    assert isinstance(last, Finished)
    assert sum(isinstance(event, Finished) for event in events) == 1
    assert last.timing.first_token_s is not None
    assert 0 < last.timing.first_token_s <= last.timing.total_s
    assert last.timing.chunks > 1
    return last


def of_choice(events: list[Any], index: int) -> list[Any]:
    """The events of one choice: its deltas, then its end, and nothing after that."""
    mine = [event for event in events if getattr(event, "choice", None) == index]
    assert isinstance(mine[-1], ChoiceFinished)
    assert all(isinstance(event, TextDelta) for event in mine[:-1])
    return mine


@pytest.mark.feature("S-02")
async def test_each_choice_of_a_chat_has_its_events_in_order(vllm: AsyncVLLM) -> None:
    # Two choices need a temperature; the pattern leaves them but one text.
    asked: ChatParams = {"n": 2, "temperature": 0.5, "seed": 1, "structured_outputs": FIXED}
    whole = await vllm.chat.completions.create(messages=HI, **asked)
    async with vllm.chat.completions.stream(messages=HI, **asked) as stream:
        events = [event async for event in stream]
    said = ends_once(events).completion
    for index in (0, 1):
        text = "".join(event.text for event in of_choice(events, index)[:-1])
        assert text == TEXT == whole.choices[index].message.content
        assert said.choices[index].message.content == text
        assert said.choices[index].finish_reason == whole.choices[index].finish_reason == "stop"
    assert said.usage == stream.completion.usage
    assert (said.usage and said.usage.completion_tokens) == (
        whole.usage and whole.usage.completion_tokens
    )


@pytest.mark.feature("S-02")
async def test_each_choice_of_a_completion_has_its_events_in_order(vllm: AsyncVLLM) -> None:
    asked: CompletionParams = {"temperature": 0, "structured_outputs": FIXED, "max_tokens": 40}
    prompts = ["Count: ", "Numbers: "]
    whole = await vllm.completions.create(prompt=prompts, **asked)
    async with vllm.completions.stream(prompt=prompts, **asked) as stream:
        events = [event async for event in stream]
    said = ends_once(events).completion
    for index in (0, 1):
        text = "".join(event.text for event in of_choice(events, index)[:-1])
        assert text == TEXT == whole.choices[index].text == said.choices[index].text
        assert said.choices[index].finish_reason == whole.choices[index].finish_reason == "stop"


@pytest.mark.feature("S-02", "E-03")
async def test_a_response_has_its_events_in_order(vllm: AsyncVLLM) -> None:
    asked: dict[str, Any] = {"temperature": 0, "structured_outputs": FIXED}
    whole = await vllm.responses.create(input="Count to three.", **asked)
    async with vllm.responses.stream(input="Count to three.", **asked) as stream:
        events = [event async for event in stream]
    last = events[-1]
    assert isinstance(last, ResponseFinished)
    assert sum(isinstance(event, ResponseFinished) for event in events) == 1
    numbers = [event.sequence_number for event in events[:-1]]  # type: ignore[union-attr]
    assert numbers == sorted(numbers)
    deltas = [event.delta for event in events if isinstance(event, ResponseTextDeltaEvent)]
    assert "".join(deltas) == TEXT == whole.text == last.response.text
    assert last.response.status == whole.status == "completed"
    assert last.timing.first_token_s is not None


@pytest.mark.feature("S-05")
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
async def test_a_call_comes_in_pieces_and_is_whole_at_the_end(vllm: AsyncVLLM, choice: Any) -> None:
    asked: ChatParams = {
        "tools": [TOOL], "tool_choice": choice, "temperature": 0, "max_tokens": 96,
        "parallel_tool_calls": False,
    }  # fmt: skip
    whole = await vllm.chat.completions.create(messages=HI, **asked)
    async with vllm.chat.completions.stream(messages=HI, **asked) as stream:
        events = [event async for event in stream]
    pieces = [event for event in events if isinstance(event, ToolCallDelta)]
    ready = [event.call for event in events if isinstance(event, ToolCallReady)]
    (call,) = stream.completion.tool_calls
    assert len(pieces) > 2, "the arguments did not come in pieces"
    assert {piece.index for piece in pieces} == {0}
    assert [piece.name for piece in pieces if piece.name] == ["get_weather"]
    assert len([piece.id for piece in pieces if piece.id]) == 1
    assert "".join(piece.arguments for piece in pieces) == call.arguments_json
    assert ready == [call]
    assert call.arguments == {"city": "Paris", "unit": "celsius"}
    assert [each.arguments for each in whole.tool_calls] == [call.arguments]
    kinds = [type(event) for event in events]
    assert kinds.index(ToolCallReady) > max(
        at for at, kind in enumerate(kinds) if kind is ToolCallDelta
    )
    assert kinds.index(ChoiceFinished) > kinds.index(ToolCallReady)
    ends_once(events)


@pytest.mark.feature("S-07")
async def test_usage_has_a_chunk_of_its_own_or_comes_with_every_chunk(vllm: AsyncVLLM) -> None:
    asked: ChatParams = {"temperature": 0, "structured_outputs": FIXED}
    chunks = await vllm.chat.completions.create(
        messages=HI, stream=True, stream_options={"include_usage": True}, **asked
    )
    wire = [chunk async for chunk in chunks]
    *others, last = wire
    assert last.choices == []
    assert last.usage is not None
    assert all(chunk.usage is None for chunk in others)

    async with vllm.chat.completions.stream(
        messages=HI,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
        **asked,
    ) as stream:
        counts = [
            event.usage.completion_tokens or 0
            async for event in stream
            if isinstance(event, UsageUpdated)
        ]
    assert len(counts) > 3
    assert counts == sorted(counts)
    assert counts[-1] == last.usage.completion_tokens
    assert stream.completion.usage is not None
    assert stream.completion.usage.total_tokens == last.usage.total_tokens


# ── what frees the server ────────────────────────────────────────────────────────────────────────


LONG: dict[str, Any] = {"max_tokens": 2000, "ignore_eos": True}


@pytest.mark.feature("C-09")
@pytest.mark.parametrize("kind", ["chat", "completions", "responses"])
async def test_closing_a_stream_in_the_middle_frees_the_server(vllm: AsyncVLLM, kind: str) -> None:
    stream: Any
    if kind == "chat":
        stream = vllm.chat.completions.stream(messages=HI, **LONG)
    elif kind == "completions":
        stream = vllm.completions.stream(prompt="One", **LONG)
    else:
        stream = vllm.responses.stream(input="Hi", max_output_tokens=2000, ignore_eos=True)
    assert await anext(stream.text_deltas())
    assert await running(vllm) > 0

    await stream.aclose()
    assert await until(lambda: is_idle(vllm))


@pytest.mark.feature("C-09")
async def test_cancelling_the_reader_of_a_stream_frees_the_server(vllm: AsyncVLLM) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async with vllm.chat.completions.stream(messages=HI, **LONG) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    begun.set()

    task = asyncio.ensure_future(read())
    await begun.wait()
    assert await running(vllm) > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until(lambda: is_idle(vllm))


PROGRAM = """
import asyncio, sys
from vllm_agent_sdk import AsyncVLLM, TextDelta

async def main():
    async with AsyncVLLM(sys.argv[1]) as vllm:
        messages = [{"role": "user", "content": "Hi"}]
        options = {"max_tokens": 2000, "ignore_eos": True}
        async with vllm.chat.completions.stream(messages=messages, **options) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    print("begun", flush=True)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.feature("C-09")
async def test_ctrl_c_in_a_program_frees_the_server(vllm: AsyncVLLM) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, vllm.base_url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert program.stdout is not None
        begun = await program.stdout.readline()
        assert begun, (await program.communicate())[1].decode()
        assert await running(vllm) > 0
        program.send_signal(signal.SIGINT)
        _, errors = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()

    assert program.returncode == 130
    assert errors == b"", errors.decode()
    assert await until(lambda: is_idle(vllm))
