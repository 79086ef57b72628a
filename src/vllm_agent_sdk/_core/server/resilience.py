"""Whether to try again, whether to ask a server at all, and how fast: pure objects.

1. A retry repeats only what the server cannot have acted on, or what has no effect: connection
   failures, 408, 429, 502, 503, 504, a connection lost before the first byte of a reply; 500 once.
   An error frame that is a stream's first event counts as its status.
2. It never follows a delivered event, and never a call that stores something once its bytes were
   sent.
3. A dead engine and a first-token timeout are retried on another server only; idle and total
   timeouts never. Where there is another server, every retry goes there, and at once.
4. A kept connection that the server had closed meanwhile is no failure of the server's: the retry
   is made at once and takes nothing from the budget.
5. Time and jitter are arguments.
"""

from __future__ import annotations

import enum
from collections import deque

from vllm_agent_sdk._core.server.failures import engine_died
from vllm_agent_sdk.errors import (
    ConnectError,
    ConnectTimeoutError,
    FirstTokenTimeoutError,
    ServerError,
    StreamFailedError,
    TransportError,
    VLLMError,
)
from vllm_agent_sdk.types._codec import Fact
from vllm_agent_sdk.types.options import Breaker as BreakerOptions
from vllm_agent_sdk.types.options import RetryPolicy

__all__ = [
    "Attempts",
    "Breaker",
    "BreakerState",
    "GiveUp",
    "RateLimiter",
    "Retry",
    "RetryBudget",
    "is_failure",
    "is_stale",
]

_RETRIED = frozenset({408, 429, 502, 503, 504})
_WINDOW_S = 60.0


class Retry(Fact, frozen=True):
    """Try again after `delay` seconds; `elsewhere`: on another server only."""

    delay: float
    elsewhere: bool = False


class GiveUp(Fact, frozen=True):
    """Don't try again, and why."""

    reason: str


class RetryBudget:
    """How many retries the calls of a client may make together.

    In any 60 seconds: as many as `floor`, or as `ratio` of the calls where that is more. A server
    that fails for everyone is not asked three times by everyone.
    """

    def __init__(self, ratio: float, floor: int = 10) -> None:
        self._ratio = ratio
        self._floor = floor
        self._calls: deque[float] = deque()
        self._retries: deque[float] = deque()

    def called(self, now: float) -> None:
        """Count a call (not its retries)."""
        self._calls.append(now)
        self._forget(now)

    def take(self, now: float) -> bool:
        """Take one retry from the budget; `False` if there is none left."""
        self._forget(now)
        if len(self._retries) >= max(self._floor, self._ratio * len(self._calls)):
            return False
        self._retries.append(now)
        return True

    def _forget(self, now: float) -> None:
        for times in (self._calls, self._retries):
            while times and times[0] <= now - _WINDOW_S:
                times.popleft()


class Attempts:
    """The attempts of one call.

    Args:
        policy: How often and how long.
        budget: Shared by the client's calls.
        stores: The call changes something on the server, beyond its reply.
    """

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, *, stores: bool = False) -> None:
        self._policy = policy
        self._budget = budget
        self._stores = stores
        self._internal_errors = 0
        self.made = 1

    def next(
        self,
        error: VLLMError,
        *,
        now: float,
        jitter: float,
        elsewhere: bool = False,
        replied: bool = False,
    ) -> Retry | GiveUp:
        """Say what follows a failure that came before any event was delivered.

        Args:
            error: The failure.
            now: The time, for the budget.
            jitter: A random number from 0 to 1.
            elsewhere: There is another server, which this call has not failed on.
            replied: The reply had begun when it failed.
        """
        if self.made >= self._policy.max_attempts:
            return GiveUp("as many attempts as RetryPolicy.max_attempts allows were made")
        verdict = self._judge(error, elsewhere, replied)
        if isinstance(verdict, GiveUp):
            return verdict
        stale = is_stale(error)
        if not stale and not self._budget.take(now):
            return GiveUp("the retries of all calls have used up RetryPolicy.budget")
        delay = 0.0 if verdict or stale else self._delay(error, jitter)
        self.made += 1
        return Retry(delay, elsewhere=verdict)

    def _judge(self, error: VLLMError, elsewhere: bool, replied: bool) -> GiveUp | bool:
        """Refuse, or say whether the retry must go elsewhere."""
        if engine_died(error) or isinstance(error, FirstTokenTimeoutError):
            if elsewhere and not self._stores:
                return True
            return GiveUp("this failure is retried on another server only")
        if isinstance(error, (ConnectError, ConnectTimeoutError)):
            return elsewhere if error.retryable else GiveUp("another attempt cannot succeed")
        if self._stores:
            return GiveUp("the server may have acted on the call")
        if isinstance(error, (ServerError, StreamFailedError)):
            if error.status == 500:
                self._internal_errors += 1
                return elsewhere if self._internal_errors == 1 else GiveUp("a 500 is retried once")
            return elsewhere if error.status in _RETRIED else GiveUp("the answer is final")
        if isinstance(error, TransportError) and not isinstance(error, TimeoutError):
            if replied:
                return GiveUp("the reply had begun")
            return False if is_stale(error) else elsewhere
        return GiveUp("this failure is not retried")

    def _delay(self, error: VLLMError, jitter: float) -> float:
        """Full jitter: anywhere up to base · 2ⁿ; a `Retry-After` counts instead, up to its cap."""
        asked = getattr(error, "retry_after", None)
        if asked:
            return min(float(asked), self._policy.retry_after_cap_s)
        ceiling: float = min(self._policy.cap_s, self._policy.base_s * 2.0 ** (self.made - 1))
        return ceiling * jitter


def is_failure(error: VLLMError) -> bool:
    """Tell whether an error counts against the server.

    A refused request does not, nor a kept connection that the server had closed meanwhile.
    """
    if isinstance(error, (ServerError, StreamFailedError)):
        status = error.status
        return status is not None and (status >= 500 or status == 429) and status != 501
    return isinstance(error, TransportError) and not is_stale(error)


def is_stale(error: VLLMError) -> bool:
    """Tell whether a kept connection was lost before the reply had begun."""
    return isinstance(error, TransportError) and error.reused


class BreakerState(enum.StrEnum):
    """Whether a server is asked."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Keeps calls from a server that failed `failures` times in a row, for `reset_s` seconds.

    Then one call is let through; its outcome closes or opens it again.

    Attributes:
        quiet: Nothing has failed since a call was answered: all go out, and no answer changes that.
    """

    def __init__(self, options: BreakerOptions) -> None:
        self._options = options
        self.quiet = True
        self._failures = 0
        self._opened_at: float | None = None
        self._probing = False

    def state(self, now: float) -> BreakerState:
        """Give the state at a time."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        if now - self._opened_at < self._options.reset_s:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN

    def admit(self, now: float) -> bool:
        """Tell whether a call may go out; the caller reports every admitted call."""
        state = self.state(now)
        if state is BreakerState.HALF_OPEN and not self._probing:
            self._probing = True
            return True
        return state is BreakerState.CLOSED

    def retry_after(self, now: float) -> float:
        """Give the seconds until a call could be let through."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._options.reset_s - now)

    def succeeded(self) -> None:
        """Report that an admitted call was answered."""
        self.quiet = True
        self._failures = 0
        self._opened_at = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether it keeps calls away, but for a probe."""
        return self._opened_at is not None

    def failed(self, now: float, *, at_once: bool = False) -> None:
        """Report that an admitted call failed; `at_once` opens it whatever came before."""
        self.quiet = False
        self._failures += 1
        if at_once or self._probing or self._failures >= self._options.failures:
            self._opened_at = now
        self._probing = False

    def on_trial(self) -> None:
        """Close it, and open it again at the next failure."""
        self.succeeded()
        self.quiet = False
        self._failures = int(self._options.failures) - 1

    def dropped(self) -> None:
        """Report that an admitted call was cancelled: it says nothing about the server."""
        self._probing = False


class RateLimiter:
    """Spreads calls over time: requests a second, tokens a minute.

    A call is charged when it is admitted: one request, and the tokens it may need. `correct` gives
    back what it did not use.
    """

    def __init__(self, requests_per_s: float | None, tokens_per_min: float | None) -> None:
        self._gap = None if requests_per_s is None else 1.0 / requests_per_s
        self._tokens_per_s = None if tokens_per_min is None else tokens_per_min / 60.0
        self._next_request = 0.0
        self._tokens_free_at = 0.0

    def reserve(self, now: float, tokens: int) -> float:
        """Book a call; give the seconds it has to wait."""
        at = now
        if self._gap is not None:
            at = max(at, self._next_request)
            self._next_request = at + self._gap
        if self._tokens_per_s is not None:
            # The bucket holds a minute's worth: that much may go out at once.
            at = max(at, self._tokens_free_at - 60.0)
            self._tokens_free_at = max(self._tokens_free_at, at) + tokens / self._tokens_per_s
        return at - now

    def correct(self, reserved: int, used: int) -> None:
        """Replace the tokens that were reserved for a call by those it used."""
        if self._tokens_per_s is not None:
            self._tokens_free_at += (used - reserved) / self._tokens_per_s
