"""Callbacks of users: whatever they do is an answer or an `Exception`."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from vllm_agent_sdk import Agent, Permissions, ToolMessage, tool
from vllm_agent_sdk.agent.run.guarded import called
from vllm_agent_sdk.testing import Reply, Simulator

pytestmark = pytest.mark.feature("A-02")


class Unspeakable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("broken")

    __repr__ = __str__


def both(fn: Any) -> list[Any]:
    """The function, and an async one that calls it."""

    async def later(*args: Any) -> Any:
        return fn(*args)

    return [fn, later]


def raise_(error: BaseException) -> None:
    raise error


async def test_what_is_returned_comes_back_awaited() -> None:
    async def nested(a: int) -> int:
        return a + 1

    for fn in both(lambda a: a + 1):
        assert await called(fn, 1, name="fn") == 2
    assert await called(lambda a: nested(a + 1), 1, name="fn") == 3


async def test_sync_ones_run_in_a_thread() -> None:
    assert await called(threading.current_thread, name="mine") is not threading.main_thread()


async def test_a_cancellation_of_its_own_is_an_error() -> None:
    fn = both(lambda: raise_(asyncio.CancelledError()))[1]
    with pytest.raises(RuntimeError, match="cancelled by itself"):
        await called(fn, name="fn")


@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt()])
def test_leaving_the_program_from_a_loop_in_another_thread_is_an_error(
    error: BaseException,
) -> None:
    async def leave(*_args: object) -> Any:
        raise error

    @tool
    async def work() -> None:
        """Work."""
        raise error

    with Simulator(Reply.calls(("work", {})), Reply.text("ok")) as server:
        agent = Agent(client=server.base_url, tools=[work])
        result = agent.run_sync("?")  # its loop is in a thread
        again = agent.with_(permissions=Permissions(ask=("work",), can_use_tool=leave)).run_sync(
            "?"
        )
    kind = type(error).__name__
    (read,) = [m.text for m in result.messages if isinstance(m, ToolMessage)]
    assert (result.stop_reason, read.partition(":")[0]) == ("end_turn", kind)
    assert again.stop_reason == "end_turn"


async def test_a_permission_that_cannot_be_shown_why_it_fails_is_a_no(client: Any) -> None:
    @tool
    async def work() -> None:
        """Work."""

    def can_use_tool(_call: Any, _ctx: Any) -> Any:
        raise Unspeakable

    async with Simulator(Reply.calls(("work", {})), Reply.text("ok")) as server:
        asks = Permissions(ask=("work",), can_use_tool=can_use_tool)
        agent = Agent(client=client(server), tools=[work], permissions=asks)
        result = await agent.run("?")
    (read,) = [m.text for m in result.messages if isinstance(m, ToolMessage)]
    assert read.endswith("can_use_tool failed (Unspeakable: (no message)).")
