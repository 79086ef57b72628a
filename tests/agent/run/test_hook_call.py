"""How a hook is run: in time or not, sync or async, and what its failures count as."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from typing import Any

import pytest

from vllm_agent_sdk.agent.run.hook_call import run_hook
from vllm_agent_sdk.types.hooks import (
    HOOK_OUTPUTS,
    AddContext,
    Block,
    HookEvent,
    HookOutput,
    Matcher,
    Rewrite,
    Stop,
)
from vllm_agent_sdk.types.results import ErrorInfo

pytestmark = pytest.mark.feature("H-01")

Outcome = tuple[tuple[HookOutput, ...], ErrorInfo | None]


async def run(fn: Any, event: str = "pre_tool_use", **matcher: Any) -> Outcome:
    fields = {"tool": "t", "call_id": "c1", "input": {"a": [1]}} if "tool" in event else {}
    made = Matcher("*", fn, **matcher)
    return await run_hook(made, made.spec(event), HookEvent(event=event, run_id="r1", **fields))


class Callback:
    async def __call__(self, event: HookEvent) -> AddContext:
        return AddContext(event.event)


def blocking(event: HookEvent) -> AddContext:
    return AddContext(event.event)


async def waiting(event: HookEvent) -> AddContext:
    await asyncio.sleep(0)
    return AddContext(event.event)


@pytest.mark.parametrize(
    "fn",
    [
        blocking,
        waiting,
        Callback(),
        functools.partial(waiting),
        lambda told: waiting(event=told),
        lambda event: {"systemMessage": event.event},
    ],
)
async def test_a_hook_may_be_any_function_sync_or_async(fn: Any) -> None:
    assert await run(fn) == ((AddContext("pre_tool_use"),), None)


@pytest.mark.parametrize("event", HOOK_OUTPUTS)
async def test_a_silent_hook_changes_nothing(event: str) -> None:
    assert await run(lambda told: None, event) == ((), None)


async def test_a_sync_hook_runs_beside_the_loop_with_context_variables() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    passed = asyncio.Event()
    loop = asyncio.get_running_loop()
    seen: list[Any] = []

    def hook(event: HookEvent) -> None:
        seen.extend([variable.get(), threading.current_thread().name])
        # It can only end if the loop goes on meanwhile.
        asyncio.run_coroutine_threadsafe(passed.wait(), loop).result(10)

    hooked = asyncio.create_task(run(hook))
    passed.set()
    assert await hooked == ((), None)
    assert seen == ["set", "hook-hook"]


async def test_several_effects_of_one_dict_are_several_outputs() -> None:
    answer = {"hookSpecificOutput": {"updatedInput": {"a": 2}, "additionalContext": "note"}}
    outputs, error = await run(lambda event: answer)
    assert (outputs, error) == ((Rewrite({"a": 2}), AddContext("note")), None)


async def test_what_a_hook_does_to_the_input_it_got_changes_nothing() -> None:
    given: dict[str, Any] = {"a": [1]}
    made = Matcher("*", lambda event: event.input["a"].append(2))  # type: ignore[index]
    event = HookEvent(event="pre_tool_use", input=given, output=given, deps=(deps := object()))
    await run_hook(made, made.spec("pre_tool_use"), event)
    assert given == {"a": [1]}
    told: list[HookEvent] = []
    keep = Matcher("*", told.append)
    await run_hook(keep, keep.spec("pre_tool_use"), event)
    assert told == [event]
    assert told[0].deps is deps


# ── failures ─────────────────────────────────────────────────────────────────────────────────────


async def broken(event: HookEvent) -> None:
    raise ValueError(f"no {event.event}")


def broken_sync(event: HookEvent) -> None:
    raise ValueError(f"no {event.event}")


@pytest.mark.parametrize("fn", [broken, broken_sync])
async def test_a_hook_that_raises_blocks_with_its_name_and_the_failure(fn: Any) -> None:
    outputs, error = await run(fn)
    said = f"Hook {fn.__name__} at pre_tool_use failed: ValueError: no pre_tool_use."
    assert outputs == (Block(said),)
    assert error is not None
    assert (error.type, error.message) == ("HookError", said)
    assert (error.facts["hook"], error.facts["event"]) == (fn.__name__, "pre_tool_use")


@pytest.mark.parametrize("fn", [broken, broken_sync, lambda event: "nonsense"])
@pytest.mark.parametrize("event", HOOK_OUTPUTS)
async def test_a_failure_fails_open_or_closed_as_the_matcher_says(fn: Any, event: str) -> None:
    outputs, error = await run(fn, event, on_failure="continue")
    assert outputs == ()
    assert error is not None
    closed, same = await run(fn, event, on_failure="block")
    assert same == error
    if event == "stop":  # a Block would make the run go on, and fail at its next end again
        assert closed == (Stop(error.message),)
    elif Block in HOOK_OUTPUTS[event]:
        assert closed == (Block(error.message),)
    else:
        assert closed == ()


@pytest.mark.feature("H-02")
async def test_an_answer_without_effect_is_a_typed_error() -> None:
    outputs, error = await run(lambda event: {"sessionTitle": "x"})
    assert error is not None
    assert error.type == "UnsupportedHookOutputError"
    assert "unknown key sessionTitle" in error.message
    assert outputs == (Block(error.message),)
    assert type(error.to_exception()).__name__ == "UnsupportedHookOutputError"


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (MuteError(), "failed: MuteError: (no message)."),
        (ValueError(), "failed: ValueError."),
        (ValueError("half \ud800"), "failed: ValueError: half \\ud800."),
        (TimeoutError("mine"), "failed: TimeoutError: mine."),
        (asyncio.CancelledError(), "failed: RuntimeError: it was cancelled by itself."),
    ],
)
@pytest.mark.parametrize("sync", [True, False])
async def test_whatever_a_hook_raises_is_a_failure_of_the_hook(
    raised: BaseException, said: str, sync: bool
) -> None:
    def fail(event: HookEvent) -> None:
        raise raised

    async def fail_async(event: HookEvent) -> None:
        raise raised

    fn = fail if sync else fail_async
    if sync and isinstance(raised, asyncio.CancelledError):  # in a thread nothing is cancelled
        said = "failed: RuntimeError: it raised CancelledError()."
    outputs, error = await run(fn)
    assert error is not None
    assert error.message == f"Hook {fn.__name__} at pre_tool_use {said}"
    assert outputs == (Block(error.message),)


# ── time ─────────────────────────────────────────────────────────────────────────────────────────


async def test_an_async_hook_is_cancelled_when_its_time_is_over() -> None:
    ended: list[str] = []

    async def slow(event: HookEvent) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(event.event)

    outputs, error = await run(slow, timeout=0.01)
    said = "Hook slow at pre_tool_use did not answer within 0.01 s (its timeout)."
    assert outputs == (Block(said),)
    assert error is not None
    assert error.message == said
    assert ended == ["pre_tool_use"]


async def test_a_sync_hook_that_is_too_slow_is_not_waited_for_nor_heard() -> None:
    release = threading.Event()

    def slow(event: HookEvent) -> AddContext:
        release.wait(10)
        return AddContext("late")

    try:
        outputs, error = await run(slow, timeout=0.01, on_failure="continue")
    finally:
        release.set()
    assert outputs == ()
    assert error is not None
    assert "did not answer within 0.01 s" in error.message


async def test_an_answer_after_the_time_does_not_count() -> None:
    async def stubborn(event: HookEvent) -> AddContext:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return AddContext("late")

    outputs, error = await run(stubborn, timeout=0.01)
    assert error is not None
    assert outputs == (Block(error.message),)


@pytest.mark.parametrize("timeout", [None, 60])
async def test_a_cancelled_caller_is_cancelled(timeout: float | None) -> None:
    begun = asyncio.Event()

    async def slow(event: HookEvent) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(run(slow, timeout=timeout))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
