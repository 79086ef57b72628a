"""`assert_prefix_stable`: each request of a run begins with the bytes of the one before it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from vllm_agent_sdk.types.context import CacheReport, CacheTurn, PrefixBreak

__all__ = ["HasCacheTurns", "HasResult", "assert_prefix_stable"]


class HasCacheTurns(Protocol):
    """A `RunResult`, a `Session` or a `BlockingSession`."""

    @property
    def cache_by_turn(self) -> Sequence[CacheTurn]:
        """What each model call could find in the prefix cache."""
        ...


class HasResult(Protocol):
    """A `Run` or a `BlockingRun`."""

    @property
    def result(self) -> Any:
        """The `RunResult`, once it has ended."""
        ...


def assert_prefix_stable(
    of: HasCacheTurns | HasResult | CacheReport, *, allow: Collection[PrefixBreak] = ()
) -> None:
    """Check that no request broke the prefix that the server has cached.

    Each request is compared, byte by byte, with the one before it. The first request is compared
    with nothing, and neither is the first one after a session was opened again.

    Args:
        of: A run that has ended, its result, a session, or what `explain_cache()` gave.
        allow: Causes that are no failure, such as `"compacted"`.

    Raises:
        AssertionError: A request did; it says which, at which byte, and why.
        UsageError: The run has not ended.
    """
    turns = _turns(of)
    broken = [
        _said(number, turn)
        for number, turn in enumerate(turns, 1)
        if turn.prefix is not None
        and turn.prefix.cause is not None
        and turn.prefix.cause not in allow
    ]
    if broken:
        raise AssertionError("\n".join(["The prefix is not stable:", *broken]))


def _turns(of: HasCacheTurns | HasResult | CacheReport) -> Sequence[CacheTurn]:
    if isinstance(of, CacheReport):
        return of.turns
    given: Any = of
    turns: Sequence[CacheTurn] = (
        given if hasattr(given, "cache_by_turn") else given.result
    ).cache_by_turn
    return turns


def _said(number: int, turn: CacheTurn) -> str:
    prefix = turn.prefix
    if prefix is None:
        raise AssertionError("only what was sent breaks a prefix")
    return (
        f"- request {number} (turn {turn.turn}) begins like the one before it up to byte "
        f"{prefix.kept_bytes} of {prefix.previous_bytes}: {prefix.cause}"
    )
