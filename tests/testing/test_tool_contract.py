"""The suite for tools: ours pass it, and each way to break it is found."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from vllm_agent_sdk import (
    Agent,
    ImageBlock,
    ReasoningBlock,
    RunContext,
    TextBlock,
    ToolOutput,
    Toolset,
    ToolSpec,
    tool,
)
from vllm_agent_sdk.testing import tool_contract
from vllm_agent_sdk.testing.tool_contract import CHECKS, Case

pytestmark = pytest.mark.feature("Q-03")


@tool(read_only=True)
async def get_weather(city: str, unit: Literal["c", "f"] = "c") -> str:
    """Get the weather of a city."""
    return f"18 °{unit} in {city}"


@tool
def add(a: int, b: int, ctx: RunContext[list[int]]) -> dict[str, int]:
    """Add two numbers, in a thread."""
    ctx.deps.append(a + b)
    return {"sum": a + b}


@tool(read_only=True)
async def divide(a: float, b: float) -> float:
    """Divide two numbers."""
    return a / b


@tool("look", "Look at something.", {"what": str})
async def look(args: dict[str, Any]) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": f"It is {args['what']}."}]}


async def check_that(check: tool_contract.Check, case: Case) -> None:
    """A check raises what it finds."""
    await check(case)


CASES = [
    Case(get_weather, {"city": "Paris"}),
    Case(add, {"a": 1, "b": 2}, deps=[]),
    Case(divide, {"a": 1, "b": 2}, failing={"a": 1, "b": 0}),
    Case(look, {"what": "red"}),
    Case(get_weather, {"city": "Rome", "unit": "f"}, invalid=[{"city": "Rome", "unit": "k"}]),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.tool.spec.name)
async def test_tools_of_ours_pass(case: Case, check: tool_contract.Check) -> None:
    await check_that(check, case)


SPEC = ToolSpec(
    name="echo",
    parameters={
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
    },
    read_only=True,
)
Invoke = Callable[[dict[str, Any], RunContext[Any]], Awaitable[Any]]


async def echo(arguments: dict[str, Any], _ctx: RunContext[Any]) -> ToolOutput:
    said = arguments.get("text")
    if not isinstance(said, str):
        return ToolOutput("text is missing", is_error=True, executed=False)
    return ToolOutput("it failed", is_error=True) if said == "fail" else ToolOutput(said)


class Made:
    """A tool of somebody's own."""

    def __init__(self, invoke: Invoke = echo, spec: Any = SPEC) -> None:
        self._invoke = invoke
        self._spec = spec

    @property
    def spec(self) -> ToolSpec:
        spec: Any = self._spec
        return spec() if callable(spec) else spec  # type: ignore[no-any-return]

    async def invoke(self, arguments: dict[str, Any], ctx: RunContext[Any]) -> ToolOutput:
        output: ToolOutput = await self._invoke(arguments, ctx)
        return output


GOOD = Case(Made(), {"text": "hi"}, failing={"text": "fail"})


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_a_tool_of_ones_own_passes(check: tool_contract.Check) -> None:
    await check_that(check, GOOD)


def test_what_passes_can_be_given_to_an_agent() -> None:
    agent = Agent(tools=[GOOD.tool, Toolset([get_weather])])
    assert {"echo", "get_weather"} <= set(agent.offered)


async def raises(arguments: dict[str, Any], ctx: RunContext[Any]) -> Any:
    if arguments.get("text") == "fail":
        raise ValueError("it failed")
    return await echo(arguments, ctx)


async def is_strict_by_exception(arguments: dict[str, Any], _ctx: RunContext[Any]) -> Any:
    return ToolOutput(arguments["text"])


async def runs_whatever_comes(arguments: dict[str, Any], _ctx: RunContext[Any]) -> Any:
    return ToolOutput(str(arguments.get("text")))


async def gives_text(arguments: dict[str, Any], ctx: RunContext[Any]) -> Any:
    return (await echo(arguments, ctx)).content


async def changes_its_arguments(arguments: dict[str, Any], ctx: RunContext[Any]) -> Any:
    output = await echo(arguments, ctx)
    arguments.clear()
    return output


async def thinks(arguments: dict[str, Any], ctx: RunContext[Any]) -> Any:
    output = await echo(arguments, ctx)
    return output if output.is_error else ToolOutput([ReasoningBlock("Hm.")])


async def says_nothing_of_what_is_wrong(arguments: dict[str, Any], ctx: RunContext[Any]) -> Any:
    output = await echo(arguments, ctx)
    return ToolOutput("", is_error=True, executed=False) if not output.executed else output


async def always_fails(arguments: dict[str, Any], ctx: RunContext[Any]) -> Any:
    output = await echo(arguments, ctx)
    return ToolOutput("no", is_error=True, executed=output.executed)


def one_at_a_time() -> Invoke:
    busy = False

    async def invoke(arguments: dict[str, Any], ctx: RunContext[Any]) -> Any:
        nonlocal busy
        if busy:
            return ToolOutput("busy", is_error=True)
        busy = True
        try:
            await asyncio.sleep(0)
            return await echo(arguments, ctx)
        finally:
            busy = False

    return invoke


async def will_not_end(arguments: dict[str, Any], ctx: RunContext[Any]) -> Any:
    output = await echo(arguments, ctx)
    try:
        await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        await asyncio.sleep(3600)
    return output


def renamed() -> Callable[[], ToolSpec]:
    names = iter(f"echo_{at}" for at in range(1000))
    return lambda: SPEC.renamed(next(names))


def with_parameters(parameters: dict[str, Any]) -> Made:
    return Made(spec=ToolSpec(name="echo", parameters=parameters))


BROKEN: list[tuple[Case, Callable[[Case], Awaitable[None]], str]] = [
    (Case(Made(spec={"name": "x"}), {}), CHECKS[0], "not a ToolSpec"),
    (Case(Made(spec=SPEC.renamed("my tool")), {}), CHECKS[0], "a name is"),
    (Case(Made(spec=renamed()), {}), CHECKS[0], "second look"),
    (Case(with_parameters({"type": "string"}), {}), CHECKS[0], "of an object"),
    (Case(with_parameters({"type": "object", "required": 7}), {}), CHECKS[0], "no JSON Schema"),
    (Case(Made(), {"text": 7}), CHECKS[1], "no valid arguments"),
    (Case(Made(), {"text": "hi"}, failing={}), CHECKS[1], "no valid arguments"),
    (Case(Made(), {"text": "hi"}, invalid=[{"text": "a"}]), CHECKS[1], "are valid arguments"),
    (Case(Made(always_fails), {"text": "hi"}), CHECKS[2], "failed"),
    (Case(Made(gives_text), {"text": "hi"}), CHECKS[2], "not a ToolOutput"),
    (Case(Made(thinks), {"text": "hi"}), CHECKS[2], "not a ReasoningBlock"),
    (Case(Made(changes_its_arguments), {"text": "hi"}), CHECKS[2], "changed its arguments"),
    (Case(Made(is_strict_by_exception), {"text": "hi"}), CHECKS[3], "raised KeyError"),
    (Case(Made(runs_whatever_comes), {"text": "hi"}), CHECKS[3], "is not executed"),
    (Case(Made(says_nothing_of_what_is_wrong), {"text": "hi"}), CHECKS[3], "told what is wrong"),
    (Case(Made(raises), {"text": "hi"}, failing={"text": "fail"}), CHECKS[4], "raised ValueError"),
    (Case(Made(), {"text": "hi"}, failing={"text": "ok"}), CHECKS[4], "is an error"),
    (Case(Made(one_at_a_time()), {"text": "hi"}), CHECKS[5], "two calls"),
    (Case(Made(will_not_end), {"text": "hi"}), CHECKS[6], "has not ended"),
]


@pytest.mark.parametrize(("case", "check", "said"), BROKEN, ids=[said for _, _, said in BROKEN])
async def test_what_is_broken_is_found(
    case: Case, check: tool_contract.Check, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_contract, "_SOON_S", 0.2)
    with pytest.raises(AssertionError, match=said):
        await check_that(check, case)


async def test_a_tool_that_hangs_in_its_thread_is_left_there() -> None:
    hold = threading.Event()

    @tool
    def wait(seconds: float) -> str:
        """Wait."""
        hold.wait(seconds)
        return "done"

    await check_that(tool_contract.a_cancelled_call_ends, Case(wait, {"seconds": 60}))
    hold.set()


async def test_blocks_of_text_and_media_are_results() -> None:
    async def show(arguments: dict[str, Any], ctx: RunContext[Any]) -> Any:
        output = await echo(arguments, ctx)
        image = ImageBlock.from_url("https://x/a.png")
        return output if output.is_error else ToolOutput([TextBlock("Here:"), image])

    await check_that(tool_contract.a_call_gives_an_output, Case(Made(show), {"text": "hi"}))
