"""Retries, breaker, rate limits: what holds at any time and in any order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.server.resilience import (
    Attempts,
    Breaker,
    BreakerState,
    GiveUp,
    RateLimiter,
    Retry,
    RetryBudget,
    is_failure,
)
from vllm_agent_sdk.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectError,
    ConnectTimeoutError,
    EngineDeadError,
    FirstTokenTimeoutError,
    IdleTimeoutError,
    InternalServerError,
    NotFoundError,
    ProtocolError,
    RateLimitError,
    ServerError,
    ServerOverloadedError,
    StreamTruncatedError,
    TotalTimeoutError,
    TransportError,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.types.options import Breaker as BreakerOptions
from vllm_agent_sdk.types.options import RetryPolicy

TIMES = st.floats(0, 1e6)
JITTER = st.floats(0, 1)


def attempts(policy: RetryPolicy | None = None, *, stores: bool = False) -> Attempts:
    return Attempts(policy or RetryPolicy(), RetryBudget(0.1), stores=stores)


def answer(error: VLLMError, *, elsewhere: bool = False, stores: bool = False) -> Retry | GiveUp:
    return attempts(stores=stores).next(error, now=0.0, jitter=1.0, elsewhere=elsewhere)


@pytest.mark.feature("C-05")
@pytest.mark.parametrize(
    "error",
    [
        ConnectError("x"),
        ConnectTimeoutError("x"),
        TransportError("reset"),
        ServerError("x", status=408),
        RateLimitError("x", status=429),
        ServerOverloadedError("x", status=502),
        ServerOverloadedError("x", status=503),
        ServerOverloadedError("x", status=504),
        InternalServerError("x", status=500),
    ],
)
def test_what_the_server_cannot_have_acted_on_or_has_no_effect_is_sent_again(
    error: VLLMError,
) -> None:
    assert isinstance(answer(error), Retry)


@pytest.mark.feature("C-05")
@pytest.mark.parametrize(
    "error",
    [
        BadRequestError("x", status=400),
        AuthenticationError("x", status=401),
        ServerError("x", status=403),
        NotFoundError("x", status=404),
        ServerError("x", status=409),
        ServerError("x", status=422),
        ServerError("x", status=501),
        IdleTimeoutError("x"),
        TotalTimeoutError("x"),
        ProtocolError("redirect"),
        StreamTruncatedError("x"),
        ConnectError("bad certificate", retryable=False),
        UsageError("x"),
    ],
)
def test_what_is_final_or_may_have_had_an_effect_is_not(error: VLLMError) -> None:
    assert isinstance(answer(error, elsewhere=True), GiveUp)


@pytest.mark.feature("C-05")
@pytest.mark.parametrize("error", [EngineDeadError("x", status=500), FirstTokenTimeoutError("x")])
def test_a_dead_engine_and_a_late_first_token_are_tried_on_another_server_only(
    error: VLLMError,
) -> None:
    assert isinstance(answer(error), GiveUp)
    assert answer(error, elsewhere=True) == Retry(0.0, elsewhere=True)


@pytest.mark.feature("C-05")
def test_a_500_is_retried_once() -> None:
    tried = attempts(RetryPolicy(max_attempts=9))
    error = InternalServerError("x", status=500)
    assert isinstance(tried.next(error, now=0, jitter=0), Retry)
    assert isinstance(tried.next(error, now=0, jitter=0), GiveUp)


@pytest.mark.feature("C-05")
def test_a_call_that_stores_is_repeated_only_if_it_never_reached_the_server() -> None:
    assert isinstance(answer(ConnectError("x"), stores=True), Retry)
    for error in (TransportError("reset"), ServerOverloadedError("x", status=503)):
        assert isinstance(answer(error, stores=True, elsewhere=True), GiveUp)


@pytest.mark.feature("C-05")
@given(JITTER, st.integers(2, 12))
def test_waits_grow_with_full_jitter_up_to_the_cap(jitter: float, count: int) -> None:
    policy = RetryPolicy(max_attempts=count, base_s=0.1, cap_s=1.0)
    tried = attempts(policy)
    for number in range(count - 1):
        verdict = tried.next(ConnectError("x"), now=0, jitter=jitter)
        if number >= 10:
            assert isinstance(verdict, GiveUp)  # the budget's floor
            return
        assert verdict == Retry(pytest.approx(jitter * min(1.0, 0.1 * 2**number)))
    assert isinstance(tried.next(ConnectError("x"), now=0, jitter=jitter), GiveUp)
    assert tried.made == count


@pytest.mark.feature("C-05")
def test_retry_after_is_followed_up_to_its_cap() -> None:
    assert answer(RateLimitError("x", status=429, retry_after=7.0)) == Retry(7.0)
    assert answer(ServerOverloadedError("x", status=503, retry_after=900.0)) == Retry(60.0)


@pytest.mark.feature("C-05")
def test_one_attempt_is_off() -> None:
    tried = attempts(RetryPolicy(max_attempts=1))
    assert isinstance(tried.next(ConnectError("x"), now=0, jitter=0), GiveUp)


@pytest.mark.feature("C-05")
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 30)), max_size=300), st.floats(0, 1))
def test_retries_never_exceed_the_budget_of_the_last_minute(
    steps: list[tuple[bool, float]], ratio: float
) -> None:
    budget = RetryBudget(ratio, floor=3)
    now, calls, retries = 0.0, list[float](), list[float]()
    for is_call, wait in steps:
        now += wait
        if is_call:
            budget.called(now)
            calls.append(now)
            continue
        recent_calls = sum(at > now - 60 for at in calls)
        recent_retries = sum(at > now - 60 for at in retries)
        allowed = recent_retries < max(3, ratio * recent_calls)
        assert budget.take(now) is allowed
        if allowed:
            retries.append(now)


# ── the breaker ──────────────────────────────────────────────────────────────────────────────────

OPTIONS = BreakerOptions(failures=3, reset_s=10)


@pytest.mark.feature("C-06")
def test_a_breaker_opens_after_failures_in_a_row_and_lets_one_probe_through() -> None:
    breaker = Breaker(OPTIONS)
    for _ in range(3):
        assert breaker.admit(0)
        breaker.failed(0)
    assert breaker.state(5) is BreakerState.OPEN
    assert not breaker.admit(5)
    assert breaker.retry_after(5) == 5
    assert breaker.state(10) is BreakerState.HALF_OPEN
    assert breaker.admit(10)
    assert not breaker.admit(10), "one probe at a time"
    breaker.succeeded()
    assert breaker.state(10) is BreakerState.CLOSED
    assert breaker.retry_after(10) == 0


@pytest.mark.feature("C-06")
def test_a_failed_probe_opens_it_again_and_a_cancelled_one_says_nothing() -> None:
    breaker = Breaker(OPTIONS)
    for _ in range(3):
        breaker.failed(0)
    assert breaker.admit(10)
    breaker.dropped()
    assert breaker.admit(10)
    breaker.failed(10)
    assert breaker.state(19) is BreakerState.OPEN
    assert breaker.state(20) is BreakerState.HALF_OPEN


@pytest.mark.feature("C-06")
def test_a_success_in_between_makes_the_failures_count_anew() -> None:
    breaker = Breaker(OPTIONS)
    for outcome in "ffsff":
        if outcome == "f":
            breaker.failed(0)
        else:
            breaker.succeeded()
    assert breaker.state(0) is BreakerState.CLOSED


@pytest.mark.feature("C-06")
@given(st.lists(st.tuples(st.sampled_from(["admit", "ok", "bad", "gone"]), st.floats(0, 15))))
def test_no_call_goes_out_while_it_is_open_and_one_at_most_while_half_open(
    steps: list[tuple[str, float]],
) -> None:
    breaker, now, probes = Breaker(OPTIONS), 0.0, 0
    for step, wait in steps:
        now += wait
        before = breaker.state(now)
        if step == "admit":
            admitted = breaker.admit(now)
            if before is BreakerState.OPEN:
                assert not admitted
            if before is BreakerState.HALF_OPEN:
                probes += admitted
                assert probes <= 1
            if before is BreakerState.CLOSED:
                assert admitted
        else:
            {"ok": breaker.succeeded, "gone": breaker.dropped}.get(
                step, lambda at=now: breaker.failed(at)
            )()
            probes = 0


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ConnectError("x"), True),
        (ServerOverloadedError("x", status=503), True),
        (InternalServerError("x", status=500), True),
        (RateLimitError("x", status=429), True),
        (BadRequestError("x", status=400), False),
        (AuthenticationError("x", status=401), False),
        (UsageError("x"), False),
        (ProtocolError("x"), False),
    ],
)
def test_a_refused_request_does_not_count_against_the_server(
    error: VLLMError, counts: bool
) -> None:
    assert is_failure(error) is counts


# ── rate limits ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("C-06")
@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=60), st.floats(0.5, 20))
def test_no_two_requests_go_out_closer_than_the_rate(waits: list[float], rate: float) -> None:
    limiter, now, sent = RateLimiter(rate, None), 0.0, list[float]()
    for wait in waits:
        now += wait
        sent.append(now + limiter.reserve(now, 0))
    gaps = [b - a for a, b in itertools.pairwise(sent)]
    assert all(gap >= 1 / rate - 1e-6 for gap in gaps)


@pytest.mark.feature("C-06")
@given(st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_no_minute_has_more_tokens_than_two_minutes_worth(sizes: list[int]) -> None:
    limiter, sent = RateLimiter(None, 600), list[tuple[float, int]]()
    now = 0.0
    for size in sizes:
        now += limiter.reserve(now, size)
        sent.append((now, size))
    for start, _ in sent:
        window = sum(size for at, size in sent if start <= at < start + 60)
        assert window <= 2 * 600 + max(sizes)


@pytest.mark.feature("C-06")
def test_tokens_that_were_not_used_are_given_back() -> None:
    limiter = RateLimiter(None, 60)
    assert limiter.reserve(0, 60) == 0
    assert limiter.reserve(0, 1) == 0
    assert limiter.reserve(0, 1) == pytest.approx(1)
    limiter.correct(60, 10)
    assert limiter.reserve(2, 1) == 0
