"""What a server measures: `/metrics` and `/load` as values."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from vllm_agent_sdk.types import _codec

__all__ = ["Histogram", "MetricSample", "ServerMetrics"]


class MetricSample(_codec.Fact, frozen=True):
    """One line of `/metrics`: a name, its labels, a number."""

    name: str
    labels: Mapping[str, str]
    value: float


class Histogram(_codec.Fact, frozen=True):
    """How often something took how long, since the server began; all engines together.

    Attributes:
        bounds: The upper bounds of the buckets, rising; the last is infinite.
        counts: How many were at most as large as each bound (cumulative).
        sum: All of them added up.
    """

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    sum: float

    @property
    def count(self) -> float:
        """How many there were."""
        return self.counts[-1] if self.counts else 0.0

    @property
    def mean(self) -> float | None:
        """The mean, or `None` while there were none."""
        return self.sum / self.count if self.count else None


class ServerMetrics(_codec.Record, frozen=True):
    """The numbers that matter, by one name for all versions; `None` where the server has none.

    Sums over all engines and models of the server; counters count from its start.

    Attributes:
        running: Requests that are being answered.
        waiting: Requests in the queue.
        kv_cache_usage: The fullest engine's share of its KV cache, 0 to 1.
        prefix_cache_queries: Prompt tokens that were looked up in the prefix cache.
        prefix_cache_hits: Those that were found there.
        prompt_tokens: Prompt tokens so far.
        generation_tokens: Reply tokens so far.
        preemptions: How often a request had to give its cache to another.
        sleep_state: `"awake"`, `"weights_offloaded"` or `"discard_all"`.
        prefix_caching: Whether the prefix cache is on.
        time_to_first_token: In seconds.
        inter_token_latency: In seconds.
        samples: Every line, raw.
    """

    running: float | None = None
    waiting: float | None = None
    kv_cache_usage: float | None = None
    prefix_cache_queries: float | None = None
    prefix_cache_hits: float | None = None
    prompt_tokens: float | None = None
    generation_tokens: float | None = None
    preemptions: float | None = None
    sleep_state: str | None = None
    prefix_caching: bool | None = None
    time_to_first_token: Histogram | None = None
    inter_token_latency: Histogram | None = None
    samples: tuple[MetricSample, ...] = ()

    def value(self, name: str, **labels: str) -> float | None:
        """Add up the samples of exactly this name that have these labels; `None` without any."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


class Load(msgspec.Struct):
    """What `/load` answers."""

    server_load: int = 0


decode_load = _codec.decoder(Load)
