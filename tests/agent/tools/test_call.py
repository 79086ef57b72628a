"""Running a tool: arguments, threads, exceptions and results."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import datetime as dt
import enum
import logging
import math
import pathlib
import re
import threading
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk.agent.tools.results import output_of
from vllm_agent_sdk.agent.tools.tool import tool
from vllm_agent_sdk.errors import MCPError, ToolError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.messages import AudioBlock, FileBlock, ImageBlock, TextBlock, ToolCall
from vllm_agent_sdk.types.tools import RunContext, ToolOutput

CTX: RunContext[Any] = RunContext(deps=None, call=ToolCall("call-1", "any"))


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int


class Model(pydantic.BaseModel):
    x: int
    at: dt.date | None = None


class Struct(msgspec.Struct):
    x: int


# ── arguments ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-03")
async def test_arguments_arrive_as_the_objects_of_their_types() -> None:
    seen: list[Any] = []

    @tool
    def f(
        colour: Colour,
        point: Point,
        model: Model,
        struct: Struct,
        many: set[int],
        pair: tuple[int, Point],
        day: dt.date,
        maybe: Point | None = None,
    ) -> None:
        seen.extend([colour, point, model, struct, many, pair, day, maybe])

    output = await f.invoke(
        {
            "colour": "red",
            "point": {"x": 1},
            "model": {"x": 2, "at": "2024-01-02"},
            "struct": {"x": 3},
            "many": [1, 1, 2],
            "pair": [1, {"x": 4}],
            "day": "2024-01-02",
            "maybe": {"x": 5},
        },
        CTX,
    )
    assert not output.is_error
    day = dt.date(2024, 1, 2)
    assert seen == [
        Colour.RED,
        Point(1),
        Model(x=2, at=day),
        Struct(3),
        {1, 2},
        (1, Point(4)),
        day,
        Point(5),
    ]


@pytest.mark.feature("A-04")
@pytest.mark.parametrize("coerce", [True, False])
async def test_invalid_arguments_are_never_executed_and_the_model_reads_why(coerce: bool) -> None:
    calls = []

    @tool(coerce=coerce)
    def get_weather(city: str, days: int = 1) -> None:
        calls.append(city)

    output = await get_weather.invoke({"days": "many"}, CTX)
    assert (output.executed, output.is_error) == (False, True)
    assert output.content == (
        'Invalid arguments for get_weather: days: "many" is not of type "integer"; '
        "city: is required. Call it again with corrected arguments."
    )
    assert calls == []


@pytest.mark.feature("A-04")
async def test_repairs_are_reported_and_can_be_switched_off() -> None:
    def double(n: int) -> int:
        return 2 * n

    arguments = {"n": "3"}
    output = await tool(double).invoke(arguments, CTX)
    assert (output.content, output.repairs) == ("6", ('n: "3" → 3',))
    assert arguments == {"n": "3"}
    refused = await tool(double, coerce=False).invoke(arguments, CTX)
    assert (refused.executed, refused.repairs) == (False, ())
    # JSON Schema takes 3.0 for an integer; the function still gets an int.
    whole = await tool(double, coerce=False).invoke({"n": 3.0}, CTX)
    assert (whole.content, whole.repairs) == ("6", ())


@pytest.mark.feature("A-04")
async def test_what_only_the_type_can_refuse_is_not_executed_either() -> None:
    @dataclasses.dataclass
    class Even:
        n: int

        def __post_init__(self) -> None:
            if self.n % 2:
                raise ValueError("n must be even")
            if self.n > 9:
                raise KeyboardError

    class KeyboardError(Exception):
        pass

    @tool
    def f(even: Even, at: dt.datetime | None = None) -> str:
        return "ran"

    output = await f.invoke({"even": {"n": 3}}, CTX)
    assert (output.executed, output.is_error) == (False, True)
    assert "Invalid arguments for f: even: n must be even." in str(output.content)
    output = await f.invoke({"even": {"n": 2}, "at": "tomorrow"}, CTX)
    assert not output.executed
    assert "at: Invalid RFC3339" in str(output.content)
    output = await f.invoke({"even": {"n": 10}}, CTX)
    assert (output.executed, output.content) == (False, "KeyboardError")


@pytest.mark.feature("A-04")
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda v: st.lists(v, max_size=2) | st.dictionaries(st.sampled_from(["a", "p", "z"]), v),
        max_leaves=5,
    )
)
def test_whatever_the_model_sends_gives_an_output_and_no_exception(arguments: Any) -> None:
    ran = []

    @tool
    async def f(a: int, p: Point | list[float] | None = None) -> str:
        ran.append((a, p))
        assert type(a) is int
        assert p is None or isinstance(p, (Point, list))
        return "ok"

    output = asyncio.run(f.invoke(arguments, CTX))
    assert output.executed is bool(ran)
    assert output.is_error is not bool(ran)


# ── threads and tasks ────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-02")
async def test_sync_tools_run_in_threads_beside_the_loop_with_context_variables() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("from the caller")
    release = threading.Event()

    @tool
    def blocking() -> str:
        release.wait(5)
        assert threading.current_thread() is not threading.main_thread()
        return variable.get()

    @tool
    async def releasing() -> str:
        release.set()
        return "released"

    first, second = await asyncio.gather(blocking.invoke({}, CTX), releasing.invoke({}, CTX))
    assert (first.content, second.content) == ("from the caller", "released")


@pytest.mark.feature("A-02")
async def test_a_cancelled_async_tool_is_cancelled_and_a_sync_one_only_left_alone() -> None:
    release = threading.Event()
    ended = threading.Event()
    cancelled = []

    @tool
    def blocking() -> None:
        release.wait(5)
        ended.set()

    @tool
    async def waiting() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    for each in (blocking, waiting):
        task = asyncio.create_task(each.invoke({}, CTX))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert cancelled == [True]
    assert not ended.is_set()
    release.set()
    assert await asyncio.to_thread(ended.wait, 5)
    await asyncio.sleep(0.01)  # the late result finds nobody, and nothing is raised


def test_a_thread_that_outlives_its_loop_ends_quietly() -> None:
    release = threading.Event()

    @tool
    def blocking() -> None:
        release.wait(5)

    async def leave() -> None:
        task = asyncio.create_task(blocking.invoke({}, CTX))
        await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(leave())
    (thread,) = (t for t in threading.enumerate() if t.name == "tool-blocking")
    assert thread.daemon
    release.set()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.feature("A-02")
async def test_many_hung_tools_do_not_stop_others() -> None:
    release = threading.Event()

    @tool
    def hung() -> None:
        release.wait(5)

    @tool
    def quick() -> str:
        return "done"

    tasks = [asyncio.create_task(hung.invoke({}, CTX)) for _ in range(70)]
    await asyncio.sleep(0)
    assert (await quick.invoke({}, CTX)).content == "done"
    assert await asyncio.to_thread(lambda: "the default executor is free")
    release.set()
    await asyncio.gather(*tasks)


# ── exceptions ───────────────────────────────────────────────────────────────────────────────────


class Unspeakable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("broken")


@pytest.mark.feature("A-02")
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no such city"), "ValueError: no such city"),
        (ToolError("Try another city."), "Try another city."),
        (MCPError("gone"), "MCPError: gone"),
        (KeyError("a"), "KeyError: 'a'"),
        (RuntimeError(), "RuntimeError"),
        (Unspeakable(), "Unspeakable: (no message)"),
        (ValueError("\ud800"), "ValueError: ?"),
        (ExceptionGroup("many", [ValueError("a")]), "ExceptionGroup: many (1 sub-exception)"),
        (TimeoutError("slow"), "TimeoutError: slow"),
    ],
)
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_an_exception_is_an_error_result(
    error: Exception, text: str, asynchronous: bool
) -> None:
    def fail() -> None:
        raise error

    async def fail_later() -> None:
        fail()

    output = await tool(fail_later if asynchronous else fail).invoke({}, CTX)
    assert output == ToolOutput(content=text, is_error=True, executed=True)


async def test_stop_iteration_in_a_thread_does_not_hang() -> None:
    @tool
    def stop() -> None:
        next(iter(()))

    output = await asyncio.wait_for(stop.invoke({}, CTX), 5)
    assert output.is_error
    assert "StopIteration" in str(output.content)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_the_end_of_the_program_is_not_a_result(error: type[BaseException]) -> None:
    @tool
    async def leave() -> None:
        raise error

    with pytest.raises(error):
        asyncio.run(leave.invoke({}, CTX))


async def test_the_traceback_is_logged_for_those_who_ask(caplog: pytest.LogCaptureFixture) -> None:
    @tool
    def fail(a: int) -> None:
        raise ValueError("no such city")

    caplog.set_level(logging.INFO, "vllm_agent_sdk.tools")
    await fail.invoke({"a": 1}, CTX)
    assert not caplog.records
    caplog.set_level(logging.DEBUG, "vllm_agent_sdk.tools")
    await fail.invoke({"a": 1}, CTX)
    assert "Tool fail raised ValueError" in caplog.text
    assert 'raise ValueError("no such city")' in caplog.text


# ── results ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("18 °C", "18 °C"),
        (None, "(no output)"),
        ("", "(no output)"),
        (3, "3"),
        (10**30, "1" + "0" * 30),
        (True, "true"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        ([], "[]"),
        (["a", "b"], '["a","b"]'),
        ({"b", "a"}, '["a","b"]'),
        (Point(1), '{"x":1}'),
        ({"all": [Point(1), Struct(2), Model(x=3)]}, '{"all":[{"x":1},{"x":2},{"x":3,"at":null}]}'),
        ({Colour.RED: Colour.RED}, '{"red":"red"}'),
        (dt.date(2024, 1, 2), "2024-01-02"),
        (pathlib.PurePosixPath("/x"), "/x"),
        (TextBlock("a"), "a"),
        ([TextBlock("a"), "b"], [TextBlock("a"), TextBlock("b")]),
        (("a", ImageBlock("data:,")), [TextBlock("a"), ImageBlock("data:,")]),
        ({"content": [{"type": "text", "text": "a"}]}, "a"),
        ({"content": []}, "(no output)"),
        (
            {
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image", "data": "AA==", "mimeType": "image/png"},
                    {"type": "audio", "data": "AA==", "mimeType": "audio/wav"},
                    {"type": "resource", "resource": {"uri": "f:x", "text": "t"}},
                    {"type": "resource", "resource": {"uri": "f:x", "blob": "AA=="}},
                    {"type": "resource_link", "uri": "f:x", "name": "x"},
                ]
            },
            [
                TextBlock("a"),
                ImageBlock("data:image/png;base64,AA=="),
                AudioBlock("data:audio/wav;base64,AA=="),
                TextBlock("t"),
                FileBlock("data:application/octet-stream;base64,AA=="),
                TextBlock("f:x"),
            ],
        ),
        # Data of its own that only looks a little like the Claude form stays data.
        ({"content": "text"}, '{"content":"text"}'),
        ({"content": [{"type": "post"}]}, '{"content":[{"type":"post"}]}'),
        (
            {"content": [{"type": "text", "text": "a"}], "page": 1},
            '{"content":[{"type":"text","text":"a"}],"page":1}',
        ),
    ],
)
def test_a_result_becomes_text_or_blocks(value: Any, content: Any) -> None:
    assert output_of(value, "f") == ToolOutput(content=content)


def test_an_error_in_the_claude_form_is_an_error() -> None:
    content = [{"type": "text", "text": "failed"}]
    for key in ("is_error", "isError"):
        assert output_of({"content": content, key: True}, "f") == ToolOutput(
            "failed", is_error=True
        )


def test_an_output_passes_through() -> None:
    output = ToolOutput([TextBlock("a")], is_error=True)
    assert output_of(output, "f") is output


async def test_repairs_are_added_to_an_output_of_the_tools_own() -> None:
    @tool
    def f(n: int) -> ToolOutput:
        return ToolOutput(str(n), is_error=True, repairs=("own",))

    output = await f.invoke({"n": "1"}, CTX)
    assert output == ToolOutput("1", is_error=True, repairs=('n: "1" → 1', "own"))


class Loop(list[Any]):
    pass


LOOP = Loop()
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"x", r"\(bytes\).*Return text, or a block"),
        ({"a": {"b": b"x"}}, r"\(dict\).*holds bytes"),
        (object(), r"\(object\)"),
        ([1, lambda: 1], r"\(list\).*function"),
        (1j, r"\(complex\)"),
        (math.nan, "NaN"),
        ({"a": [1.0, math.inf]}, r"\$\.a\[1\] is NaN or infinite"),
        ({(1, 2): 3}, r"\(dict\)"),
        (LOOP, "contains itself"),
        ("\ud800", "lone surrogate"),
        ([TextBlock("\ud800")], "lone surrogate"),
        ([TextBlock("a"), 3], "text and blocks only, not int"),
        ({"content": [{"type": "image", "data": "x"}]}, "lacks 'mimeType'"),
        ({"content": [{"type": "text", "text": 3}]}, "holds int where text belongs"),
    ],
)
async def test_a_result_without_a_form_for_the_model_is_an_error_that_names_its_type(
    value: Any, reason: str
) -> None:
    @tool
    def f() -> Any:
        return value

    output = await f.invoke({}, CTX)
    assert (output.is_error, output.executed) == (True, True)
    assert isinstance(output.content, str)
    assert output.content.startswith("f ran, but its result (")
    assert re.search(reason, output.content)
    _codec.encode(output)
