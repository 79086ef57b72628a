"""What all stores need: ids, and waiting that cannot be cut."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk import StoreError, UsageError
from vllm_agent_sdk.sessions.store import Pending, check_id, check_numbers
from vllm_agent_sdk.types.events import Notice


@given(st.text(max_size=250))
def test_an_id_names_no_path_and_can_be_shown(text: str) -> None:
    try:
        assert check_id(text) == text
    except UsageError:
        return
    assert text.isprintable()
    assert 1 <= len(text) <= 200
    assert not set(text) & {"/", "\\"}
    assert text not in {".", ".."}


@pytest.mark.parametrize("text", ["support-42", "tenant:42", "a b", "名前", ".hidden", "x" * 200])
def test_what_people_use_as_ids_can_be_one(text: str) -> None:
    assert check_id(text) == text


@pytest.mark.parametrize("numbers", [[None], [0], [-1], [1, 3], [2, 1], [1, 1], [1, None]], ids=str)
def test_events_that_do_not_follow_each_other_are_refused(numbers: list[int | None]) -> None:
    with pytest.raises(StoreError):
        check_numbers([Notice("n", "x", seq=number) for number in numbers])


async def test_who_is_cancelled_gets_the_result_and_then_the_cancellation() -> None:
    pending: Pending[int] = Pending()
    got: list[int] = []

    async def wait() -> None:
        got.append(await pending)
        await asyncio.sleep(0)
        got.append(-1)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    for _ in range(3):  # more than once is as good as once
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    pending.settle(7)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert got == [7]


async def test_a_cancellation_that_comes_with_the_result_does_not_lose_it() -> None:
    pending: Pending[int] = Pending()
    got: list[int] = []

    async def wait() -> None:
        got.append(await pending)
        await asyncio.sleep(0)
        got.append(-1)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    pending.settle(7)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert got == [7]


async def test_a_timeout_around_it_is_a_timeout_still() -> None:
    pending: Pending[int] = Pending()
    got: list[int] = []
    asyncio.get_running_loop().call_later(0.02, pending.settle, 7)

    async def wait() -> None:
        async with asyncio.timeout(0.001):
            got.append(await pending)
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await wait()
    assert got == [7]
    await asyncio.sleep(0)  # nothing is left of the cancellation


async def test_an_error_is_raised_to_who_waits() -> None:
    pending: Pending[None] = Pending()
    pending.settle(None, StoreError("full"))
    pending.settle(None)  # what was said first counts
    with pytest.raises(StoreError, match="full"):
        await pending
