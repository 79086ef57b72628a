"""What stands before every attempt of a call: a free slot, the rate, a server; and what follows.

The decisions are those of `_core.resilience` and `_core.pool`; here they are waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from vllm_agent_sdk._core.server.failures import engine_died
from vllm_agent_sdk._core.server.pool import NOTHING, Change, Pool
from vllm_agent_sdk._core.server.resilience import Attempts, GiveUp, RateLimiter, Retry, RetryBudget
from vllm_agent_sdk.errors import CircuitOpenError, EngineDeadError, VLLMError
from vllm_agent_sdk.telemetry.recorder import (
    BreakerClosed,
    BreakerOpened,
    LimiterWaited,
    RequestRetried,
    ServerEjected,
    ServerFact,
    ServerReturned,
)
from vllm_agent_sdk.types._codec import Record
from vllm_agent_sdk.types.options import HTTPOptions, RetryPolicy

__all__ = ["Admission", "Booking", "Guard", "Passage"]

T = TypeVar("T")
Report = Callable[[ServerFact], None]


class Booking(Record, frozen=True, kw_only=True):
    """What the guard has to know of a call.

    Attributes:
        stores: It changes something on the server, beyond its reply.
        tokens: How many it may need, for the rate of tokens.
        probe: It asks how the server is: it goes out once, whatever happened before, and says
            nothing to the breaker.
        server: The number of the server to ask, for a probe.
    """

    stores: bool = False
    tokens: int = 0
    probe: bool = False
    server: int = 0


def _random() -> Callable[[], float]:
    import random  # not with the package: it loads OpenSSL's hashes

    return random.random


class Passage:
    """The way of one call through the guard.

    Attributes:
        attempts: Those that were made.
        server: The number of the server that was asked last; `None` before that.
        admission: The attempt that was let through last.
        failure: How the one before it ended.
        elsewhere: The next one must go to another server.
    """

    __slots__ = (
        "admission", "attempts", "booking", "elsewhere", "failure", "request_id", "server", "tried",
    )  # fmt: skip

    def __init__(self, booking: Booking, request_id: str | None, attempts: Attempts) -> None:
        self.booking = booking
        self.request_id = request_id
        self.attempts = attempts
        self.server: int | None = None
        self.tried: set[int] = set()
        self.admission: Admission | None = None
        self.failure: VLLMError | None = None
        self.elsewhere = False


class Admission:
    """One attempt that may go out.

    Attributes:
        server: The number of the server to ask.
        replied: The head of a reply has come.
    """

    __slots__ = ("_over", "replied", "server")

    def __init__(self, server: int, over: Callable[[int], None] | None) -> None:
        self._over = over
        self.server = server
        self.replied = False

    def release(self) -> None:
        """Give slot and server back. Idempotent."""
        over, self._over = self._over, None
        if over is not None:
            over(self.server)


class Guard:
    """Guards the servers of one client.

    Args:
        policy: When a call is sent again.
        options: Limits, breaker and balance.
        servers: Their addresses.
        healthy: Asks the server of a number for its health.
        report: Takes facts, if anybody wants them.
        jitter: Random numbers from 0 to 1.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        options: HTTPOptions,
        servers: Sequence[str],
        healthy: Callable[[int], Awaitable[bool]],
        report: Report | None = None,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        self._policy = policy
        self._jitter = jitter or _random()
        self._servers = servers
        self._healthy = healthy
        self._report = report
        self._budget = RetryBudget(policy.budget)
        self._reset_s = 0.0 if options.breaker is None else options.breaker.reset_s
        self._pool = Pool(
            len(servers), options.breaker, round_robin=options.balance == "round_robin"
        )
        self._rate = RateLimiter(options.requests_per_s, options.tokens_per_min)
        self._limited = options.requests_per_s is not None or options.tokens_per_min is not None
        limit = options.max_concurrency
        self._slots = None if limit is None else asyncio.Semaphore(limit)
        self._asking: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Ask for nobody's health any more."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def passage(self, booking: Booking, request_id: str | None) -> Passage:
        """Begin a call."""
        return Passage(
            booking, request_id, Attempts(self._policy, self._budget, stores=booking.stores)
        )

    async def run(self, passage: Passage, attempt: Callable[[Admission], Awaitable[T]]) -> T:
        """Make attempts until one succeeds or no other is to follow.

        An attempt that succeeds keeps its slot until `Admission.release`.

        Raises:
            VLLMError: The last failure, with the number of `attempts`.
            CircuitOpenError: No server is asked now.
        """
        booking = passage.booking
        if booking.probe:
            passage.server = booking.server
            return await attempt(Admission(booking.server, None))
        if passage.failure is None:
            self._budget.called(asyncio.get_running_loop().time())
        while True:
            admission = passage.admission = await self._admit(passage)
            try:
                value = await attempt(admission)
            except VLLMError as error:
                await self._after(passage, admission, error)
            except BaseException:
                admission.release()
                self._pool.dropped(admission.server)
                raise
            else:
                change = self._pool.answered(admission.server)
                if change is not NOTHING:
                    self._changed(change, admission.server, None)
                return value

    async def again(
        self, passage: Passage, error: VLLMError, attempt: Callable[[Admission], Awaitable[T]]
    ) -> T:
        """Make further attempts where the last had succeeded, and failed after all.

        Raises:
            VLLMError: No other attempt is to follow, or the last failure.
        """
        if passage.admission is not None and not passage.booking.probe:
            await self._after(passage, passage.admission, error)
            return await self.run(passage, attempt)
        raise error

    async def _after(self, passage: Passage, admission: Admission, error: VLLMError) -> None:
        """Raise a failure, or wait until the next attempt is due."""
        admission.release()
        verdict = self._judge(passage, admission, error)
        if isinstance(verdict, GiveUp):
            raise error.with_facts(attempts=passage.attempts.made) from error.__cause__
        passage.failure, passage.elsewhere = error, verdict.elsewhere
        await asyncio.sleep(verdict.delay)

    def _judge(self, passage: Passage, admission: Admission, error: VLLMError) -> Retry | GiveUp:
        """Count a failure, and decide what follows."""
        now = asyncio.get_running_loop().time()
        server = admission.server
        passage.tried.add(server)
        self._changed(self._pool.failed(server, error, now), server, error)
        made = passage.attempts.made
        verdict = passage.attempts.next(
            error,
            now=now,
            jitter=self._jitter(),
            elsewhere=self._pool.another(now, passage.tried),
            replied=admission.replied,
        )
        if self._report is not None and isinstance(verdict, Retry):
            self._report(
                RequestRetried(
                    request_id=passage.request_id,
                    server=self._servers[server],
                    attempt=made,
                    reason=type(error).__name__,
                    status=getattr(error, "status", None),
                    delay_s=verdict.delay,
                    elsewhere=verdict.elsewhere,
                )
            )
        return verdict

    async def _admit(self, passage: Passage) -> Admission:
        """Wait until an attempt may go out."""
        loop = asyncio.get_running_loop()
        if self._limited:
            wait = self._rate.reserve(loop.time(), passage.booking.tokens)
            await asyncio.sleep(wait)
            if wait and self._report is not None:
                self._report(
                    LimiterWaited(request_id=passage.request_id, limit="rate", waited_s=wait)
                )
        slots = self._slots
        if slots is not None:
            begun, full = loop.time(), slots.locked()
            await slots.acquire()
            if full and self._report is not None:
                waited = loop.time() - begun
                self._report(
                    LimiterWaited(
                        request_id=passage.request_id, limit="concurrency", waited_s=waited
                    )
                )
        try:
            now = loop.time()
            chosen = self._pool.pick(now, passage.tried, elsewhere=passage.elsewhere)
            if chosen is None or len(self._servers) > 1:
                self._ask_health(now)
            server = await self._another(passage) if chosen is None else chosen
        except BaseException:
            if slots is not None:
                slots.release()
            raise

        self._pool.began(server)
        passage.server = server
        return Admission(server, self._over)

    def _over(self, server: int) -> None:
        self._pool.ended(server)
        if self._slots is not None:
            self._slots.release()

    async def _another(self, passage: Passage) -> int:
        """Choose a server where all were left alone, once the health of one has been heard of."""
        failure = passage.failure
        loop = asyncio.get_running_loop()
        if failure is None and self._asking:
            await asyncio.wait(set(self._asking), return_when=asyncio.FIRST_COMPLETED)
            server = self._pool.pick(loop.time(), passage.tried)
            if server is not None:
                return server
        if failure is not None:
            raise failure.with_facts(attempts=max(1, passage.attempts.made - 1))
        last = self._pool.last()
        if self._pool.dead():
            raise EngineDeadError(
                "The server's engine has died, and its /health does not say yes yet; nothing was "
                "sent. Start the server again (its log says why it died).",
                status=getattr(last, "status", None),
            ) from last
        wait = self._pool.waits(loop.time())
        who = "The server" if len(self._servers) == 1 else "Each server"
        raise CircuitOpenError(
            f"{who} failed several times in a row and is left alone for {wait:.1f} s "
            f"(HTTPOptions.breaker). The last time: {last}",
            retry_after=wait,
        ) from last

    # ── health ───────────────────────────────────────────────────────────────────────────────────

    def _ask_health(self, now: float) -> None:
        for server in self._pool.due(now):
            task = asyncio.create_task(self._health(server))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _health(self, server: int) -> None:
        healthy: bool | None = None
        try:
            healthy = await self._healthy(server)
        finally:
            now = asyncio.get_running_loop().time()
            self._changed(self._pool.told(server, healthy, now), server, None)

    def failed_later(self, server: int, error: VLLMError) -> None:
        """Take note of how a stream failed that had begun: its server's engine may be dead."""
        if engine_died(error):
            now = asyncio.get_running_loop().time()
            self._changed(self._pool.failed(server, error, now), server, error)

    def _changed(self, change: Change, server: int, error: VLLMError | None) -> None:
        report = self._report
        if report is None:
            return
        name, reason = self._servers[server], type(error).__name__
        if change.opened:
            report(BreakerOpened(server=name, reason=reason, reset_s=self._reset_s))
        if change.ejected:
            report(ServerEjected(server=name, reason=reason))
        if change.closed:
            report(BreakerClosed(server=name))
        if change.returned:
            report(ServerReturned(server=name))

    def used(self, reserved: int, used: int) -> None:
        """Correct the tokens that a call reserved by those it used."""
        if self._limited:
            self._rate.correct(reserved, used)
