"""What a client has under way: the scope of a call, and how it ends."""

from __future__ import annotations

import asyncio

import pytest

from vllm_agent_sdk.transport.underway import Underway

pytestmark = pytest.mark.feature("C-04")


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_call_that_ends_in_time_leaves_nothing_under_way() -> None:
    underway = Underway()
    with underway.scope(asyncio.get_running_loop().time() + 60):
        assert len(underway.calls) == 1
        await asyncio.sleep(0)
    assert not underway.calls


async def test_a_deadline_ends_a_call_in_a_timeout() -> None:
    underway = Underway()
    scope = underway.scope(asyncio.get_running_loop().time())
    with pytest.raises(TimeoutError), scope:
        await forever()
    assert not scope.closed
    assert not underway.calls
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_closing_ends_a_call_and_says_that_it_did() -> None:
    underway = Underway()
    scope = underway.scope(None)
    asyncio.get_running_loop().call_soon(scope.close)
    with pytest.raises(TimeoutError), scope:
        await forever()
    assert scope.closed


async def test_closing_a_call_that_is_over_does_nothing() -> None:
    scope = Underway().scope(None)
    with scope:
        pass
    scope.close()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_task_that_somebody_else_cancels_is_cancelled_even_as_the_client_closes() -> None:
    underway = Underway()
    scope = underway.scope(None)

    async def call() -> None:
        with scope:
            await forever()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    scope.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_scopes_within_each_other_end_each_for_itself() -> None:
    underway = Underway()
    outer = underway.scope(None)
    with outer:
        inner = underway.scope(asyncio.get_running_loop().time())
        with pytest.raises(TimeoutError), inner:
            await forever()
        await asyncio.sleep(0)
    assert not outer.closed


async def test_an_error_inside_a_scope_that_was_ended_is_the_error() -> None:
    scope = Underway().scope(None)

    async def fails_when_cancelled() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise ValueError("on its way out") from None

    asyncio.get_running_loop().call_soon(scope.close)
    with pytest.raises(ValueError, match="on its way out"), scope:
        await fails_when_cancelled()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
