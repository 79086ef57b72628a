"""Which server takes an attempt: what holds whatever happens, in any order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.server.pool import Pool
from vllm_agent_sdk.errors import (
    BadRequestError,
    ConnectError,
    EngineDeadError,
    ServerOverloadedError,
    TransportError,
    VLLMError,
)
from vllm_agent_sdk.types.options import Breaker

pytestmark = pytest.mark.feature("C-08")

ERRORS: list[VLLMError | None] = [
    None,
    ConnectError("x"),
    ServerOverloadedError("x", status=503),
    EngineDeadError("x", status=500),
    BadRequestError("x", status=400),
]
STEPS = st.lists(
    st.tuples(st.sampled_from(ERRORS), st.floats(0, 5), st.booleans()), min_size=1, max_size=40
)


@given(st.integers(1, 4), st.booleans(), STEPS)
def test_no_dead_or_ejected_server_takes_a_call_before_its_health_says_yes(
    size: int, turns: bool, steps: list[Any]
) -> None:
    pool = Pool(size, Breaker(failures=2, reset_s=3), round_robin=turns)
    now, away = 0.0, set[int]()
    for error, wait, healthy in steps:
        now += wait
        for number in pool.due(now):
            assert number in away
            assert pool.told(number, healthy, now).returned is healthy
            if healthy:
                away.discard(number)
        number = pool.pick(now)
        if number is None:
            assert size == 1 or len(away) == size
            continue
        assert number not in away
        change = pool.answered(number) if error is None else pool.failed(number, error, now)
        if change.ejected:
            away.add(number)


@given(st.integers(2, 5), st.integers(0, 30))
def test_turns_and_the_least_busy_share_alike(size: int, calls: int) -> None:
    for turns in (True, False):
        pool = Pool(size, None, round_robin=turns)
        taken = [0] * size
        for _ in range(calls):
            number = pool.pick(0.0)
            assert number is not None
            pool.began(number)
            taken[number] += 1
        assert max(taken) - min(taken) <= 1


def test_a_call_goes_elsewhere_where_it_can_and_only_there_if_it_must() -> None:
    pool = Pool(2, Breaker())
    assert pool.pick(0.0, {0}) == pool.pick(0.0, {0}, elsewhere=True) == 1
    assert pool.pick(0.0, {0, 1}) is not None
    assert pool.pick(0.0, {0, 1}, elsewhere=True) is None
    assert not pool.another(0.0, {0, 1})


def test_one_that_is_back_is_on_trial() -> None:
    pool = Pool(2, Breaker(failures=5, reset_s=1))
    assert pool.failed(0, ConnectError("x"), 0.0).ejected
    assert pool.due(0.5) == []
    assert pool.due(1.0) == [0]
    assert pool.due(1.0) == []  # it is being asked
    assert pool.told(0, True, 1.0).returned
    assert pool.failed(0, ServerOverloadedError("x", status=503), 1.0).ejected


def test_a_stale_connection_says_nothing() -> None:
    stale = TransportError("reset")
    stale.reused = True
    pool = Pool(2, Breaker(failures=1))
    assert not pool.failed(0, stale, 0.0).opened
    assert pool.failed(0, TransportError("reset"), 0.0).opened
