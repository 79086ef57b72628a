"""Which of several servers takes the next attempt, and which are left alone: a pure object.

1. Servers that this call has not failed on come first.
2. Of several servers, one that fails as often as its breaker allows is ejected, and one that cannot
   be connected to at once; when the breaker's time is over, its `/health` brings it back.
3. A server whose engine has died is ejected wherever it is, also as the only one, until its
   `/health` says yes.
4. An only server that keeps failing is left alone by its breaker, and one call is its probe.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from vllm_agent_sdk._core.server.failures import engine_died
from vllm_agent_sdk._core.server.resilience import Breaker, BreakerState, is_failure, is_stale
from vllm_agent_sdk.errors import ConnectError, ConnectTimeoutError, VLLMError
from vllm_agent_sdk.types._codec import Fact
from vllm_agent_sdk.types.options import Breaker as BreakerOptions

__all__ = ["NOTHING", "Change", "Pool"]


@dataclass(slots=True)
class _Server:
    breaker: Breaker | None
    busy: int = 0
    dead: bool = False
    ask_at: float = 0.0
    asking: bool = False
    last: VLLMError | None = None


class Change(Fact, frozen=True, gc=False):
    """What an outcome changed: the breaker opened or closed, the server was ejected or is back."""

    opened: bool = False
    closed: bool = False
    ejected: bool = False
    returned: bool = False


#: Of an outcome that changed nothing.
NOTHING = Change()


class Pool:
    """The servers of a client, by their numbers.

    Args:
        size: How many there are.
        breaker: When one is left alone; `None` only when its engine has died.
        round_robin: Take turns; otherwise the one with the fewest calls under way is taken.
    """

    def __init__(
        self, size: int, breaker: BreakerOptions | None, *, round_robin: bool = False
    ) -> None:
        self._reset_s = (breaker or BreakerOptions()).reset_s
        self._servers = [
            _Server(None if breaker is None else Breaker(breaker)) for _ in range(size)
        ]
        self._round_robin = round_robin
        self._turn = 0

    def pick(
        self, now: float, tried: Collection[int] = (), *, elsewhere: bool = False
    ) -> int | None:
        """Choose the server of an attempt, or `None`: all are left alone.

        Args:
            now: The time.
            tried: Those the call has failed on.
            elsewhere: Take none of these.
        """
        if len(self._servers) == 1:
            only = self._servers[0]
            calm = not only.dead and (only.breaker is None or only.breaker.quiet)
            if calm and not elsewhere:
                return 0
            return self._only(now, away=elsewhere and 0 in tried)
        usable = [number for number in range(len(self._servers)) if self._usable(number, now)]
        fresh = [number for number in usable if number not in tried]
        found = fresh if fresh or elsewhere else usable
        if not found:
            return None
        size = len(self._servers)
        number = min(
            found,
            key=lambda each: (
                0 if self._round_robin else self._servers[each].busy,
                (each - self._turn) % size,
            ),
        )
        breaker = self._servers[number].breaker
        if breaker is not None and not breaker.admit(now):
            return None
        self._turn = (number + 1) % size
        return number

    def _only(self, now: float, *, away: bool) -> int | None:
        """Choose the one there is."""
        if away or not self._usable(0, now):
            return None
        breaker = self._servers[0].breaker
        return 0 if breaker is None or breaker.admit(now) else None

    def another(self, now: float, tried: Collection[int]) -> bool:
        """Tell whether there is a server that the call has not failed on."""
        return any(
            self._usable(number, now) for number in range(len(self._servers)) if number not in tried
        )

    def _usable(self, number: int, now: float) -> bool:
        server = self._servers[number]
        if server.dead:
            return False
        if server.breaker is None:
            return True
        state = server.breaker.state(now)
        if len(self._servers) == 1:
            return state is not BreakerState.OPEN
        return state is BreakerState.CLOSED

    # ── outcomes ─────────────────────────────────────────────────────────────────────────────────

    def began(self, number: int) -> None:
        """Count a call that goes out."""
        self._servers[number].busy += 1

    def ended(self, number: int) -> None:
        """Count a call that is over."""
        self._servers[number].busy -= 1

    def answered(self, number: int) -> Change:
        """Report that an attempt was answered, if only by a refusal."""
        server = self._servers[number]
        if server.breaker is None or server.breaker.quiet:
            return NOTHING
        closed = server.breaker.is_open
        server.breaker.succeeded()
        if not closed:
            return NOTHING
        back = len(self._servers) > 1 and not server.dead
        return Change(closed=closed, returned=back)

    def failed(self, number: int, error: VLLMError, now: float) -> Change:
        """Report how an attempt failed."""
        server = self._servers[number]
        if engine_died(error):
            server.last = error
            ejected, server.dead = not server.dead, True
            return Change(ejected=ejected)
        if is_stale(error):
            self.dropped(number)
            return Change()
        if not is_failure(error):
            return self.answered(number)
        server.last = error
        if server.breaker is None:
            return Change()
        was_open = server.breaker.is_open
        gone = isinstance(error, (ConnectError, ConnectTimeoutError))
        server.breaker.failed(now, at_once=gone and len(self._servers) > 1)
        opened = server.breaker.is_open and not was_open
        return Change(opened=opened, ejected=opened and len(self._servers) > 1)

    def dropped(self, number: int) -> None:
        """Report that an attempt was cancelled: it says nothing."""
        breaker = self._servers[number].breaker
        if breaker is not None:
            breaker.dropped()

    # ── health ───────────────────────────────────────────────────────────────────────────────────

    def due(self, now: float) -> list[int]:
        """Give the servers whose health is to be asked for now; each is asked by one at a time."""
        found: list[int] = []
        if len(self._servers) == 1 and not self._servers[0].dead:
            return found  # an only server's breaker lets a call through instead
        for number, server in enumerate(self._servers):
            half_open = (
                len(self._servers) > 1
                and server.breaker is not None
                and server.breaker.state(now) is BreakerState.HALF_OPEN
            )
            if (server.dead or half_open) and now >= server.ask_at and not server.asking:
                server.asking = True
                found.append(number)
        return found

    def told(self, number: int, healthy: bool | None, now: float) -> Change:
        """Report what a server said of its health; `None`: it was not asked after all.

        One that is back is on trial: the next failure ejects it again.
        """
        server = self._servers[number]
        server.asking = False
        if healthy is None:
            return Change()
        if not healthy:
            # An only server is asked before each call; of several the others go on meanwhile.
            server.ask_at = now if len(self._servers) == 1 else now + self._reset_s
            return Change()
        was_dead, server.dead = server.dead, False
        closed = server.breaker is not None and server.breaker.is_open
        if server.breaker is not None:
            server.breaker.on_trial()
        return Change(closed=closed, returned=was_dead or closed)

    def waits(self, now: float) -> float:
        """Give the seconds until a server could be asked again."""
        ends = [
            max(0.0, server.ask_at - now) if server.dead else self._breaker_wait(server, now)
            for server in self._servers
        ]
        return min(ends)

    def _breaker_wait(self, server: _Server, now: float) -> float:
        wait = 0.0 if server.breaker is None else server.breaker.retry_after(now)
        return max(wait, server.ask_at - now, 0.0)

    def last(self) -> VLLMError | None:
        """Give the last failure of a server that is left alone."""
        return next((server.last for server in self._servers if server.last is not None), None)

    def dead(self) -> bool:
        """Tell whether the engines of all servers have died."""
        return all(server.dead for server in self._servers)
