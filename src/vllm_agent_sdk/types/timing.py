"""How long a stream took."""

from __future__ import annotations

import msgspec

__all__ = ["Timing"]


class Timing(msgspec.Struct, frozen=True):
    """How long a stream took, by a monotonic clock of ours.

    Attributes:
        first_token_s: From the call to the first text, reasoning or call, in seconds.
        total_s: From the call to the end.
        tokens_per_s: Output tokens after the first, by the time after it; `None` where the server
            sent no usage or fewer than two tokens.
        chunks: Chunks of the stream.
    """

    first_token_s: float | None
    total_s: float
    tokens_per_s: float | None
    chunks: int
