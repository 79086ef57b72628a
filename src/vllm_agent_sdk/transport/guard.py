"""What stands before every attempt of a call: a free slot, the rate, the breaker; and what follows.

The decisions are those of `_core.resilience`; here they are waited for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from vllm_agent_sdk._core.resilience import (
    Attempts,
    Breaker,
    GiveUp,
    RateLimiter,
    RetryBudget,
    is_failure,
)
from vllm_agent_sdk.errors import CircuitOpenError, VLLMError
from vllm_agent_sdk.types._codec import Record
from vllm_agent_sdk.types.options import HTTPOptions, RetryPolicy

__all__ = ["Admission", "Booking", "Guard"]

T = TypeVar("T")


class Booking(Record, frozen=True, kw_only=True):
    """What the guard has to know of a call.

    Attributes:
        stores: It changes something on the server, beyond its reply.
        tokens: How many it may need, for the rate of tokens.
        probe: It asks how the server is: it goes out once, whatever happened before, and says
            nothing to the breaker.
    """

    stores: bool = False
    tokens: int = 0
    probe: bool = False


class Admission:
    """One attempt that may go out.

    Attributes:
        replied: The head of a reply has come.
    """

    __slots__ = ("_slots", "replied")

    def __init__(self, slots: asyncio.Semaphore | None) -> None:
        self._slots = slots
        self.replied = False

    def release(self) -> None:
        """Give the slot back. Idempotent."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release()


class Guard:
    """Guards one server for one client.

    Args:
        policy: When a call is sent again.
        options: Limits and breaker.
        jitter: Random numbers from 0 to 1.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        options: HTTPOptions,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._jitter = jitter
        self._budget = RetryBudget(policy.budget)
        self._breaker = None if options.breaker is None else Breaker(options.breaker)
        self._rate = RateLimiter(options.requests_per_s, options.tokens_per_min)
        self._limited = options.requests_per_s is not None or options.tokens_per_min is not None
        limit = options.max_concurrency
        self._slots = None if limit is None else asyncio.Semaphore(limit)
        self._last: VLLMError | None = None

    async def run(self, booking: Booking, attempt: Callable[[Admission], Awaitable[T]]) -> T:
        """Make attempts until one succeeds or no other is to follow.

        An attempt that succeeds keeps its slot until `Admission.release`.

        Raises:
            VLLMError: The last failure, with the number of `attempts`.
            CircuitOpenError: The server is not asked now.
        """
        if booking.probe:
            return await attempt(Admission(None))
        loop = asyncio.get_running_loop()
        self._budget.called(loop.time())
        attempts = Attempts(self._policy, self._budget, stores=booking.stores)
        failure: VLLMError | None = None
        while True:
            admission = await self._admit(booking, failure)
            try:
                value = await attempt(admission)
            except VLLMError as error:
                admission.release()
                self._count(error)
                verdict = attempts.next(
                    error, now=loop.time(), jitter=self._jitter(), replied=admission.replied
                )
                if isinstance(verdict, GiveUp):
                    raise error.with_facts(attempts=attempts.made) from error.__cause__
                failure = error
            except BaseException:
                admission.release()
                if self._breaker is not None:
                    self._breaker.dropped()
                raise
            else:
                self._count(None)
                return value
            await asyncio.sleep(verdict.delay)

    async def _admit(self, booking: Booking, failure: VLLMError | None) -> Admission:
        """Wait until an attempt may go out; `failure` is how the one before it ended."""
        if self._limited:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(self._rate.reserve(now, booking.tokens))
        if self._slots is not None:
            await self._slots.acquire()
        admission = Admission(self._slots)
        now = asyncio.get_running_loop().time()
        if self._breaker is not None and not self._breaker.admit(now):
            admission.release()
            if failure is not None:
                raise failure
            wait = self._breaker.retry_after(now)
            raise CircuitOpenError(
                f"The server failed several times in a row and is left alone for {wait:.1f} s "
                f"(HTTPOptions.breaker). The last time: {self._last}",
                retry_after=wait,
            ) from self._last
        return admission

    def _count(self, error: VLLMError | None) -> None:
        if self._breaker is None:
            return
        if error is not None and is_failure(error):
            self._last = error
            self._breaker.failed(asyncio.get_running_loop().time())
        else:
            self._breaker.succeeded()

    def used(self, reserved: int, used: int) -> None:
        """Correct the tokens that a call reserved by those it used."""
        if self._limited:
            self._rate.correct(reserved, used)
