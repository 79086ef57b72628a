"""Random ids, drawn from a supply.

To ask the system for each would let go of the interpreter's lock. Where another thread waits for
that, as a store's writer does, each id would cost a change of threads.
"""

from __future__ import annotations

import os

__all__ = ["random_hex"]

#: How many ids the system is asked for at once, of 16 bytes each.
_SUPPLY = 256
_supply: list[str] = []


def random_hex(digits: int = 32) -> str:
    """Give so many random hexadecimal digits, 32 at most; never the same in a forked process."""
    try:
        drawn = _supply.pop()
    except IndexError:
        fresh = os.urandom(16 * _SUPPLY).hex()
        _supply.extend(fresh[at : at + 32] for at in range(32, len(fresh), 32))
        drawn = fresh[:32]
    return drawn[:digits]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_supply.clear)
