"""What a user's program looks like to a type checker; mypy and pyright read it, nothing runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, assert_type

from vllm_agent_sdk import (
    Agent,
    AsyncVLLM,
    ChatCompletion,
    Finished,
    RefusalDelta,
    RunContext,
    RunEnded,
    RunResult,
    TextDelta,
    Timeout,
    ToolCall,
    ToolMessage,
    Toolset,
    TotalTimeoutError,
    VLLMError,
    tool,
)


@tool
async def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
    """Get the current weather of a city."""
    return f"18 degrees {unit} in {city}"


@tool(read_only=True)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def a_decorated_tool_keeps_its_signature() -> None:
    """Called with the same arguments, giving the same types."""
    assert_type(await get_weather("Paris", unit="fahrenheit"), str)
    assert_type(add(1, 2), int)
    assert_type(get_weather.name, str)
    await get_weather(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    add(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def a_reply_is_typed() -> None:
    """Keywords are checked, replies have attributes."""
    async with AsyncVLLM("http://127.0.0.1:8000", timeout=Timeout(total=60.0)) as vllm:
        reply = await vllm.chat.completions.create(
            messages=[{"role": "user", "content": "Hi"}], top_k=50, temperature=0.0
        )
        assert_type(reply.text, str)
        assert_type(reply.request_id, str | None)
        assert_type(reply.choices[0].message.content, str | list[Any] | None)
        assert_type(reply.tool_calls, list[ToolCall])
        await vllm.chat.completions.create(
            messages=[],
            top_k="many",  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
        )


@dataclass
class Sky:
    """What a reply is to be."""

    colour: str


async def a_reply_is_parsed_as_the_type_that_was_asked_for() -> None:
    """Classes, special forms and unions are inferred; a JSON Schema gives anything."""
    chat = AsyncVLLM().chat.completions
    assert_type((await chat.create(messages=[])).parsed, None)
    assert_type(await chat.create(messages=[], response_type=Sky), ChatCompletion[Sky])
    either = await chat.create(messages=[], response_type=Sky | list[int])
    assert_type(either.parsed, Sky | list[int] | None)
    one = await chat.create(messages=[], response_type=Literal["a", "b"])
    assert_type(one.parsed, Literal["a", "b"] | None)
    anything = await chat.create(messages=[], response_type={"type": "integer"})
    assert_type(anything, ChatCompletion[Any])
    assert_type((await chat.stream(messages=[], response_type=Sky).final()).parsed, Sky | None)


async def a_stream_can_be_matched() -> None:
    """Events are told apart by their classes."""
    vllm = AsyncVLLM()
    async with vllm.chat.completions.stream(messages=[{"role": "user", "content": "Hi"}]) as stream:
        async for event in stream:
            match event:
                case TextDelta(text=text):
                    assert_type(text, str)
                case RefusalDelta(text=text):
                    assert_type(text, str)
                case Finished(completion=completion):
                    assert_type(completion.text, str)
                case _:
                    pass
        assert_type(await stream.text(), str)
        last: ChatCompletion[Any] = await stream.final()
        assert_type(last.text, str)


async def errors_are_caught_by_their_classes() -> None:
    """A timeout of ours is a builtin timeout too."""
    try:
        await a_reply_is_typed()
    except TotalTimeoutError as error:
        as_builtin: TimeoutError = error
        assert_type(error.attempts, int)
        assert_type(error.request_id, str | None)
        raise as_builtin from None
    except VLLMError as error:
        assert_type(error.retryable, bool)
        assert_type(error.message, str)


async def an_agent_is_typed_by_its_output_and_its_deps() -> None:
    """Without a type of deps there is no `deps=`; with one it is required."""
    agent = Agent(instructions="Use the tools.", tools=[get_weather, add])
    result = await agent.run("What is the weather in Paris?")
    assert_type(result, RunResult[str])
    assert_type(result.output, str)
    assert_type(agent.run_sync("Hi").text, str)
    again = await agent.run("And in Rome?", history=result.messages)
    assert_type(again.usage.total_tokens, int)
    await agent.run("Hi", deps=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


async def agents_and_sets_are_tools() -> None:
    """An agent of any output is a tool of an agent of any other."""
    helper = Agent(name="helper", output=list[int]).as_tool("numbers", "Gives numbers.")
    tools = Toolset([get_weather, Toolset([add])], prefix="a_", visible=lambda ctx: ctx.turn > 1)
    agent = Agent(tools=[helper, tools, get_weather])
    assert_type(await agent.run("Hi"), RunResult[str])


@tool
async def whoami(ctx: RunContext[str]) -> str:
    """Tell who asks."""
    return ctx.deps


async def deps_are_settled_by_their_type() -> None:
    """`deps_type` alone settles them; the tools need not agree."""
    agent = Agent(tools=[whoami, get_weather], deps_type=str)
    await agent.run("Who am I?", deps="Anna")
    await agent.run("Who?", deps=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def a_run_is_iterated_and_has_a_result() -> None:
    """Events are matched by class."""
    async with Agent().stream("Hi") as run:
        async for event in run:
            match event:
                case TextDelta(text=text):
                    assert_type(text, str)
                case RunEnded(result=result):
                    assert_type(result.stop_reason == "end_turn", bool)
                case _:
                    pass
    assert_type(run.result.output, str)
    assert_type([m for m in run.result.messages if isinstance(m, ToolMessage)], list[ToolMessage])
