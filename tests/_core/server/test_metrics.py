"""Prometheus' text form: what is taken, what is refused, and vLLM's names of all times."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from vllm_agent_sdk._core.server.metrics import parse_metrics, read_metrics
from vllm_agent_sdk.errors import ProtocolError
from vllm_agent_sdk.types.metrics import Histogram, MetricSample

RECORDED = (Path(__file__).parents[2] / "fixtures" / "metrics" / "vllm_0_32.txt").read_text()
pytestmark = pytest.mark.feature("E-08")


@pytest.mark.parametrize(
    ("line", "sample"),
    [
        ("a 1", MetricSample("a", {}, 1.0)),
        ("a:b_c\t-1.5e+3", MetricSample("a:b_c", {}, -1500.0)),
        ("a{} 1", MetricSample("a", {}, 1.0)),
        ("a {} .5 1700000000", MetricSample("a", {}, 0.5)),
        ('a{b="c"} 2.', MetricSample("a", {"b": "c"}, 2.0)),
        ('a{ b = "c" , d="" , } +Inf', MetricSample("a", {"b": "c", "d": ""}, math.inf)),
        (r'a{b="x\"y\\z\nq\t"} 1', MetricSample("a", {"b": 'x"y\\z\nq\\t'}, 1.0)),
        ('a{b="}, c=\\"d\\" {"} 1', MetricSample("a", {"b": '}, c="d" {'}, 1.0)),
        ('a{b="é\u2028"} 1', MetricSample("a", {"b": "é\u2028"}, 1.0)),
    ],
)
def test_a_line_in_the_form_is_read(line: str, sample: MetricSample) -> None:
    assert parse_metrics(f"# HELP a text\n\n{line}\r\n#\n") == [sample]


def test_not_a_number_is_a_value() -> None:
    (sample,) = parse_metrics("a NaN")
    assert math.isnan(sample.value)


@pytest.mark.parametrize(
    "line",
    [
        "<html>", "1a 2", "a", "a b", "a 1_000", "a 0x1", "a 1 2 3", "a 1 x", "a1.5x",
        "a{ 1", "a{b} 1", 'a{b="c} 1', 'a{b="c" d="e"} 1', 'a{b="c"', 'a{b="c"}', 'a{1b="c"} 1',
        'a{b="c",,} 1', 'a{b="c",b="d"} 1', '{"detail":"Not Found"}', 'a{b="c"} 1 # {x="y"} 1',
    ],
)  # fmt: skip
def test_any_other_line_is_an_error_that_shows_it(line: str) -> None:
    with pytest.raises(ProtocolError, match=re.escape(line[:10])) as caught:
        parse_metrics(f"ok 1\n{line}\n")
    assert "(2: " in caught.value.message


def test_a_long_line_is_shown_in_part() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_metrics("a" * 10_000)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("cut", range(0, len(RECORDED), 37))
def test_a_recorded_answer_cut_anywhere_is_read_or_refused(cut: int) -> None:
    try:
        read = read_metrics(RECORDED[:cut])
    except ProtocolError as error:
        assert "cannot be read" in error.message or "without its bound" in error.message  # noqa: PT017
    else:
        assert len(read.samples) <= RECORDED[:cut].count("\n") + 1


def test_a_recorded_answer_has_all_that_matters() -> None:
    read = read_metrics(RECORDED)
    assert (read.running, read.waiting, read.kv_cache_usage) == (0.0, 0.0, 0.0)
    assert (read.prefix_cache_queries, read.prefix_cache_hits) == (12744.0, 4992.0)
    assert (read.prompt_tokens, read.generation_tokens, read.preemptions) == (12756.0, 6444.0, 0.0)
    assert (read.sleep_state, read.prefix_caching) == ("awake", True)
    first = read.time_to_first_token
    assert first is not None
    assert (first.bounds[0], first.bounds[-1], first.count) == (0.001, math.inf, 129.0)
    assert first.mean == pytest.approx(0.2197, abs=1e-3)
    assert list(first.counts) == sorted(first.counts)
    between = read.inter_token_latency
    assert between is not None
    assert between.count == 6315.0
    # A histogram of vLLM's own is called …_total: it is no counter.
    assert read.value("vllm:iteration_tokens_total_count") == 6389.0
    assert read.value("vllm:engine_sleep_state", sleep_state="awake") == 1.0
    assert read.value("vllm:engine_sleep_state", sleep_state="nope") is None


def test_old_names_are_understood_and_new_ones_win() -> None:
    old = """
vllm:gpu_cache_usage_perc{model_name="m"} 0.5
vllm:gpu_prefix_cache_queries_total{model_name="m"} 10
vllm:gpu_prefix_cache_hits_total{model_name="m"} 4
vllm:time_per_output_token_seconds_bucket{le="0.1"} 3
vllm:time_per_output_token_seconds_bucket{le="+Inf"} 4
vllm:time_per_output_token_seconds_sum 1.5
vllm:prompt_tokens 7
"""
    read = read_metrics(old)
    assert (read.kv_cache_usage, read.prefix_cache_queries, read.prefix_cache_hits) == (0.5, 10, 4)
    assert read.inter_token_latency == Histogram((0.1, math.inf), (3.0, 4.0), 1.5)
    assert read.prompt_tokens == 7
    both = read_metrics(old + "vllm:kv_cache_usage_perc 0.75\nvllm:prefix_cache_hits_total 5\n")
    assert (both.kv_cache_usage, both.prefix_cache_hits) == (0.75, 5)


def test_engines_are_added_up_and_the_fullest_cache_counts() -> None:
    read = read_metrics(
        'vllm:num_requests_running{engine="0"} 2\nvllm:num_requests_running{engine="1"} 3\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.1\nvllm:kv_cache_usage_perc{engine="1"} 0.9\n'
        'vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 1\n'
        'vllm:time_to_first_token_seconds_bucket{engine="1",le="+Inf"} 2\n'
        'vllm:time_to_first_token_seconds_sum{engine="0"} 0.5\n'
        'vllm:time_to_first_token_seconds_sum{engine="1"} 1.0\n'
        'vllm:engine_sleep_state{engine="0",sleep_state="awake"} 1\n'
        'vllm:engine_sleep_state{engine="1",sleep_state="discard_all"} 1\n'
    )
    assert (read.running, read.kv_cache_usage, read.sleep_state) == (5, 0.9, "discard_all")
    assert read.time_to_first_token == Histogram((math.inf,), (3.0,), 1.5)


@pytest.mark.parametrize("le", ['{le="x"}', "", '{ge="1"}'])
def test_a_bucket_without_a_bound_is_an_error(le: str) -> None:
    with pytest.raises(ProtocolError, match="without its bound"):
        read_metrics(f"vllm:time_to_first_token_seconds_bucket{le} 1")


def test_a_server_that_measures_nothing_tells_nothing() -> None:
    read = read_metrics("")
    assert (read.running, read.sleep_state, read.time_to_first_token) == (None, None, None)
    assert read.samples == ()
    assert Histogram((), (), 0.0).mean is None
