"""Prometheus' text form to values: small, and strict about what it takes.

1. A line is a name, labels in braces, a number, and perhaps a time; anything else is an error that
   shows the line. Comments are skipped.
2. vLLM has renamed its metrics: each value is looked up under all names it had, with and without
   `_total`; the first name that is there counts.
3. Engines are added up; of the cache usage the fullest engine counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from vllm_agent_sdk.errors import ProtocolError
from vllm_agent_sdk.types.metrics import Histogram, MetricSample, ServerMetrics

__all__ = ["parse_metrics", "read_metrics"]

#: Our name: the names that vLLM has or had for it, newest first.
ALIASES: dict[str, tuple[str, ...]] = {
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "kv_cache_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    "prefix_cache_queries": ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"),
    "prefix_cache_hits": ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
    "prompt_tokens": ("vllm:prompt_tokens",),
    "generation_tokens": ("vllm:generation_tokens",),
    "preemptions": ("vllm:num_preemptions",),
}
HISTOGRAMS: dict[str, tuple[str, ...]] = {
    "time_to_first_token": ("vllm:time_to_first_token_seconds",),
    "inter_token_latency": (
        "vllm:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds",
    ),
}
_SLEEP = "vllm:engine_sleep_state"
_CACHE_CONFIG = "vllm:cache_config_info"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(
    r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\\n]|\\.)*)"[ \t]*(,|(?=\}))'
)
_END = re.compile(
    r"[ \t]*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?Inf|NaN)"
    r"(?:[ \t]+-?[0-9]+)?[ \t]*",
    re.IGNORECASE,
)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "\\": "\\", '"': '"'}


def parse_metrics(text: str) -> list[MetricSample]:
    """Read all lines.

    Raises:
        ProtocolError: A line is not in the form; it is shown.
    """
    samples: list[MetricSample] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t\r")
        if line and not line.startswith("#"):
            samples.append(_sample(line, number))
    return samples


def _sample(line: str, number: int) -> MetricSample:
    name = _NAME.match(line)
    if name is None:
        raise _malformed(line, number, "it does not begin with a name")
    at = name.end()
    while line[at : at + 1] in {" ", "\t"}:
        at += 1
    labels: dict[str, str] = {}
    if line[at : at + 1] == "{":
        at = _labels(line, at + 1, number, labels)
    elif at == name.end():
        raise _malformed(line, number, "there is no number after the name")
    end = _END.fullmatch(line, at)
    if end is None:
        raise _malformed(line, number, "there is no number at its end")
    return MetricSample(name[0], labels, float(end[1]))


def _labels(line: str, at: int, number: int, labels: dict[str, str]) -> int:
    while line[at : at + 1] != "}":
        label = _LABEL.match(line, at)
        if label is None:
            raise _malformed(line, number, "its labels are not in the form")
        if label[1] in labels:
            raise _malformed(line, number, f"the label {label[1]} is there twice")
        labels[label[1]] = _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[0]), label[2])
        at = label.end()
        while line[at : at + 1] in {" ", "\t"}:
            at += 1
    return at + 1


def _malformed(line: str, number: int, why: str) -> ProtocolError:
    shown = line if len(line) <= 120 else f"{line[:120]}…"
    return ProtocolError(f"/metrics has a line that cannot be read ({number}: {why}): {shown}")


def read_metrics(text: str) -> ServerMetrics:
    """Read what `/metrics` answered into typed values.

    Raises:
        ProtocolError: A line is not in Prometheus' text form.
    """
    samples = parse_metrics(text)
    by_name: dict[str, list[MetricSample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    found: dict[str, Any] = {
        ours: _number(by_name, names, max if ours == "kv_cache_usage" else sum)
        for ours, names in ALIASES.items()
    }
    found.update((ours, _histogram(by_name, names)) for ours, names in HISTOGRAMS.items())
    config = [
        sample.labels.get("enable_prefix_caching") for sample in by_name.get(_CACHE_CONFIG, ())
    ]
    return ServerMetrics(
        **found,
        sleep_state=_state(by_name.get(_SLEEP, ())),
        prefix_caching={"True": True, "False": False}.get(config[0] or "") if config else None,
        samples=tuple(samples),
    )


def _number(
    by_name: dict[str, list[MetricSample]],
    names: tuple[str, ...],
    combine: Callable[[Iterable[float]], float],
) -> float | None:
    for name in names:
        for spelt in (name, f"{name}_total"):
            if spelt in by_name:
                return combine(sample.value for sample in by_name[spelt])
    return None


def _histogram(by_name: dict[str, list[MetricSample]], names: tuple[str, ...]) -> Histogram | None:
    for name in names:
        counts: dict[float, float] = {}
        for sample in by_name.get(f"{name}_bucket", ()):
            try:
                bound = float(sample.labels["le"])
            except (KeyError, ValueError):
                raise ProtocolError(f"/metrics has a bucket of {name} without its bound.") from None
            counts[bound] = counts.get(bound, 0.0) + sample.value
        if counts:
            bounds = tuple(sorted(counts))
            total = sum(sample.value for sample in by_name.get(f"{name}_sum", ()))
            return Histogram(bounds, tuple(counts[bound] for bound in bounds), total)
    return None


def _state(samples: Iterable[MetricSample]) -> str | None:
    """The state that is set; of several engines the first that is not awake."""
    states = [sample.labels.get("sleep_state") for sample in samples if sample.value]
    asleep = [state for state in states if state != "awake"]
    return (asleep or states or [None])[0]
