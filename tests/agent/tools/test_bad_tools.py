"""Tools that do what no tool should: how the run ends, and what the model reads of it.

The table of docs/tools.md; each row has a test here.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    BadRequestError,
    ImageBlock,
    Limits,
    RunContext,
    RunResult,
    SchemaError,
    ToolArgumentsError,
    ToolCall,
    ToolEnded,
    ToolMessage,
    ToolOutput,
    ToolSpec,
    UsageError,
    tool,
)
from vllm_agent_sdk.agent.tools import call as tool_call
from vllm_agent_sdk.agent.tools.function import MOST_LEFT, left_threads
from vllm_agent_sdk.testing import Reply, Simulator

pytestmark = [pytest.mark.feature("A-02"), pytest.mark.feature("A-03")]


async def run_with(
    client: Any, *tools: Any, call: Any = None, limits: Limits | None = None
) -> tuple[RunResult[Any], list[str]]:
    """Let the model call the first tool and answer; give the result, and what it read."""
    called = call or Reply.calls((tools[0].spec.name, {}))
    async with Simulator(called, Reply.text("ok")) as server:
        agent = Agent(client=client(server), tools=tools, limits=limits or Limits())
        result = await asyncio.wait_for(agent.run("?"), 20)
    return result, [m.text for m in result.messages if isinstance(m, ToolMessage)]


def failed(result: RunResult[Any]) -> bool:
    """Whether the run went on, and the call failed."""
    (answer,) = [m for m in result.messages if isinstance(m, ToolMessage)]
    return result.stop_reason == "end_turn" and answer.is_error


class Foreign:
    """A tool of another's making, that does whatever it is told to."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.spec = ToolSpec(name="work", parameters={"type": "object"})
        self._work = work

    async def invoke(self, arguments: dict[str, Any], ctx: RunContext[Any]) -> ToolOutput:
        output = self._work()
        return await output if asyncio.iscoroutine(output) else output  # type: ignore[no-any-return]


class Unspeakable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("broken")

    __repr__ = __str__


class Beyond(BaseException):
    """No `Exception`, and nothing that ends a program."""


# ── as they are defined ──────────────────────────────────────────────────────────────────────────


def test_two_of_one_name_are_refused() -> None:
    @tool(name="work")
    async def one() -> None: ...

    @tool(name="work")
    async def two() -> None: ...

    with pytest.raises(UsageError, match="Two tools are called work"):
        Agent(tools=[one, two])


def test_a_parameter_without_an_annotation_is_refused() -> None:
    def work(city) -> None:  # type: ignore[no-untyped-def]
        """Work."""

    with pytest.raises(SchemaError, match=r"Parameter 'city' of .* has no annotation"):
        tool(work)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "text"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/None"}}},
        {"type": "array", "items": {}},
    ],
)
def test_a_schema_that_is_none_is_refused(schema: Any) -> None:
    async def work(**given: Any) -> None: ...

    with pytest.raises(SchemaError, match="work"):
        tool(schema=schema)(work)


async def test_a_schema_that_the_server_refuses_ends_the_run_with_its_words(client: Any) -> None:
    async def work(**given: Any) -> None: ...

    made = tool(schema={"type": "object", "properties": {"a": {"not": {}}}})(work)
    refused = Reply.error(400, message="The provided JSON schema contains features not supported")
    result, read = await run_with(client, made, call=refused)
    assert (result.stop_reason, read) == ("error", [])
    assert isinstance(result.error, BadRequestError)
    assert "features not supported" in str(result.error)


# ── as they are called ───────────────────────────────────────────────────────────────────────────


@tool
async def add(a: int, b: int = 0) -> int:
    """Add."""
    return a + b


@pytest.mark.parametrize(
    ("call", "read"),
    [
        (("nope", {}), "There is no tool 'nope'. The tools are: add."),
        (("add", "{a: 1"), "The arguments are not valid JSON: "),
        (("add", "[1]"), "The arguments must be a JSON object, not an array. Call add again with"),
        (("add", "null"), "The arguments must be a JSON object, not null."),
        (("add", {}), "Invalid arguments for add: "),
        (("add", {"a": "x"}), "Invalid arguments for add: a: "),
        (("add", {"a": 1, "c": 2}), "Invalid arguments for add: "),
    ],
)
async def test_a_call_that_cannot_be_made_is_answered_and_not_executed(
    client: Any, call: Any, read: str
) -> None:
    result, answers = await run_with(client, add, call=Reply.calls(call))
    assert failed(result)
    assert answers[0].startswith(read)
    assert result.tool_calls == {}


async def test_such_calls_again_and_again_end_the_run(client: Any) -> None:
    calls = [Reply.calls(("add", f"{{{number}")) for number in range(3)]
    async with Simulator(*calls) as server:
        result = await Agent(client=client(server), tools=[add]).run("?")
    assert result.stop_reason == "invalid_tool_call"
    assert isinstance(result.error, ToolArgumentsError)
    assert len(server.chats) == 1 + Limits().repairs


# ── what they raise ──────────────────────────────────────────────────────────────────────────────


def raising(error: BaseException) -> list[Any]:
    """Tools that raise it: async, in a thread, and of another's making."""

    async def work() -> None:
        raise error

    def threaded() -> None:
        raise error

    def foreign() -> None:
        raise error

    return [tool(name="work")(work), tool(name="work")(threaded), Foreign(foreign)]


@pytest.mark.parametrize("way", [0, 1, 2])
@pytest.mark.parametrize(
    ("error", "read"),
    [
        (ValueError("no such city"), "ValueError: no such city"),
        (Unspeakable(), "Unspeakable: (no message)"),
        (ValueError("\ud800"), "ValueError: ?"),
        (TimeoutError("slow"), "TimeoutError: slow"),
        (StopAsyncIteration(), "StopAsyncIteration"),
    ],
)
async def test_an_exception_is_what_the_model_reads(
    client: Any, error: Exception, read: str, way: int
) -> None:
    result, answers = await run_with(client, raising(error)[way])
    assert failed(result)
    assert answers == [read]


@pytest.mark.parametrize(
    ("way", "read"),
    [(0, "Beyond: far"), (1, "RuntimeError: it raised Beyond('far')"), (2, "Beyond: far")],
)
async def test_an_exception_that_is_no_exception_is_too(client: Any, way: int, read: str) -> None:
    result, answers = await run_with(client, raising(Beyond("far"))[way])
    assert failed(result)
    assert answers == [read]


async def test_one_that_cannot_even_be_shown_does_not_hang(client: Any) -> None:
    class Mute(BaseException):
        def __str__(self) -> str:
            raise RuntimeError("broken")

        __repr__ = __str__

    for way, read in enumerate(["Mute: (no message)", "RuntimeError: it raised Mute"]):
        result, answers = await run_with(client, raising(Mute())[way])
        assert failed(result)
        assert answers == [read]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_leaving_the_program_from_a_thread_is_an_error(
    client: Any, error: BaseException
) -> None:
    @tool
    def work() -> None:
        """Work."""
        if isinstance(error, SystemExit):
            sys.exit(error.code)
        raise error

    result, answers = await run_with(client, work)
    assert failed(result)
    assert answers == [f"RuntimeError: it raised {error!r}"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_leaving_the_program_from_an_async_tool_leaves_it(error: type[BaseException]) -> None:
    @tool
    async def work() -> None:
        """Work."""
        raise error

    async def main() -> None:
        from vllm_agent_sdk import AsyncVLLM

        async with Simulator(Reply.calls(("work", {}))) as server:
            async with AsyncVLLM("http://sim", transport=server.transport) as client:
                await Agent(client=client, tools=[work]).run("?")

    with pytest.raises(error):
        asyncio.run(main())


@pytest.mark.parametrize("way", ["raises", "cancels"])
async def test_one_that_cancels_itself_does_not_cancel_the_run(client: Any, way: str) -> None:
    @tool
    async def work() -> None:
        """Work."""
        if way == "raises":
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    result, answers = await run_with(client, work)
    assert failed(result)
    assert answers == ["work cancelled itself; it may have acted."]


async def test_a_thread_that_raises_a_cancellation_does_not_cancel_the_run(client: Any) -> None:
    result, answers = await run_with(client, raising(asyncio.CancelledError())[1])
    assert failed(result)
    assert answers == ["RuntimeError: it raised CancelledError()"]


# ── what they return ─────────────────────────────────────────────────────────────────────────────


class Opaque:
    """No JSON, no text."""


async def stream() -> AsyncIterator[str]:
    yield "a"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Opaque(), "Opaque"),
        (b"\x89PNG", "bytes"),
        (float("nan"), "float"),
        ({1: {Opaque()}}, "dict"),
        ([ImageBlock.from_bytes(b"x", "image/png"), 3], "list"),
        ("\ud800", "str"),
        (lambda: None, "function"),
        (stream(), "async_generator"),
    ],
)
async def test_what_has_no_form_for_the_model_is_an_error_that_names_its_type(
    client: Any, value: Any, kind: str
) -> None:
    @tool
    async def work() -> Any:
        """Work."""
        return value

    result, answers = await run_with(client, work)
    assert failed(result)
    assert answers[0].startswith(f"work ran, but its result ({kind}) cannot be shown: ")


async def test_what_contains_itself_is_an_error(client: Any) -> None:
    endless: list[Any] = []
    endless.append(endless)

    @tool
    async def work() -> Any:
        """Work."""
        return endless

    result, answers = await run_with(client, work)
    assert failed(result)
    assert "contains itself or is nested too deeply" in answers[0]


async def test_an_awaitable_is_awaited(client: Any) -> None:
    async def later(depth: int) -> Any:
        return later(depth - 1) if depth else "here"

    @tool(name="work")
    def sync() -> Awaitable[str]:
        """Work."""
        return later(0)

    @tool(name="work")
    async def nested() -> Any:
        """Work."""
        return later(2)

    for work in (sync, nested):
        result, answers = await run_with(client, work)
        assert (result.stop_reason, answers) == ("end_turn", ["here"])


@pytest.mark.parametrize(
    ("output", "read"),
    [
        ("text", "work gave str, no ToolOutput."),
        (None, "work gave NoneType, no ToolOutput."),
        (ToolOutput(None), "work ran, but its output holds neither text nor a list of blocks."),  # type: ignore[arg-type]
        (ToolOutput([{"type": "text"}]), "work ran, but its output holds neither text nor"),  # type: ignore[list-item]
        (ToolOutput([ToolCall("c", "x", {})]), "work ran, but its output holds neither text nor"),
        (ToolOutput("\ud800"), "work ran, but its output cannot be shown: "),
    ],
)
async def test_an_output_of_anothers_making_that_is_none_is_an_error(
    client: Any, output: Any, read: str
) -> None:
    result, answers = await run_with(client, Foreign(lambda: output))
    assert failed(result)
    assert answers[0].startswith(read)


async def test_what_a_tool_prints_is_no_result(
    client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    @tool
    def work() -> None:
        """Work."""
        print("to whoever looks")  # noqa: T201

    result, answers = await run_with(client, work)
    assert (result.stop_reason, answers) == ("end_turn", ["(no output)"])
    assert capsys.readouterr().out == "to whoever looks\n"


# ── how long they take ───────────────────────────────────────────────────────────────────────────


async def test_one_that_hangs_is_cancelled_when_its_time_is_over(client: Any) -> None:
    cancelled = asyncio.Event()

    @tool(timeout=0.01)
    async def work() -> None:
        """Work."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    result, answers = await run_with(client, work)
    assert failed(result)
    assert cancelled.is_set()
    assert answers == ["work was cancelled after 0.01 s (its timeout); it may have acted."]


async def test_one_in_a_thread_that_hangs_is_left_and_counted(client: Any) -> None:
    release = threading.Event()

    @tool
    def work() -> None:
        """Work."""
        release.wait(20)

    before = left_threads()
    result, answers = await run_with(client, work, limits=Limits(tool_timeout_s=0.01))
    assert failed(result)
    assert answers == ["work did not end within 0.01 s: outcome unknown (still running)."]
    assert left_threads() == before + 1
    release.set()


async def test_the_65th_that_hangs_is_not_run(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_agent_sdk.agent.tools.function.left_threads", lambda: MOST_LEFT)

    @tool
    def work() -> None:
        """Work."""

    result, answers = await run_with(client, work)
    assert failed(result)
    assert answers[0].startswith("work was not run: 64 calls that were interrupted or timed out")
    assert result.tool_calls == {}


async def test_one_that_will_not_be_cancelled_holds_up_nobody(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_call, "_CANCEL_S", 0.01)
    release = asyncio.Event()
    ended = asyncio.Event()

    @tool(timeout=0.01)
    async def work() -> None:
        """Work."""
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    result, answers = await run_with(client, work)
    assert failed(result)
    assert answers == [
        "work was to end after 0.01 s (its timeout) and does not: outcome unknown (still running)."
    ]
    release.set()
    await asyncio.wait_for(ended.wait(), 5)


async def test_one_that_answers_when_it_is_cancelled_has_answered(client: Any) -> None:
    @tool(timeout=0.01)
    async def work() -> str:
        """Work."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "as far as I came"
        return "never"

    result, answers = await run_with(client, work)
    assert (result.stop_reason, answers) == ("end_turn", ["as far as I came"])


async def test_one_that_raises_when_it_is_cancelled_timed_out(client: Any) -> None:
    @tool(timeout=0.01)
    async def work() -> None:
        """Work."""
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("while cleaning up")

    result, answers = await run_with(client, work)
    assert failed(result)
    (read,) = answers
    assert read.startswith("work was cancelled after 0.01 s (its timeout); it may have acted.")
    assert read.endswith("Then: OSError: while cleaning up")


# ── in a run that was begun with other tools ─────────────────────────────────────────────────────


async def test_a_tool_that_is_gone_when_its_run_is_taken_up_is_not_run(client: Any) -> None:
    from vllm_agent_sdk import Allow, Permissions
    from vllm_agent_sdk.sessions import MemoryStore

    @tool(destructive=True)
    async def wipe() -> None:
        """Wipe."""
        raise AssertionError("it was run")

    store = MemoryStore()
    asks = Permissions(unanswered="suspend")
    async with Simulator(Reply.calls(("wipe", {})), Reply.text("ok")) as server:
        use = client(server)
        before = Agent(client=use, tools=[wipe], permissions=asks)
        async with before.session("s", store=store) as session:
            (waits,) = (await session.run("?")).pending
        async with Agent(client=use, tools=[add]).session("s", store=store) as session:
            result = await (await session.resolve(waits.call.id, Allow()))
            feed = session.events(after=0, until="close")
        ended = [event async for event in feed if isinstance(event, ToolEnded)]
    assert result.stop_reason == "end_turn"
    assert [event.message.text for event in ended] == [
        "There is no tool 'wipe' any more: it was not run."
    ]
