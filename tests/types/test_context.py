"""The cache's account: what is missed, what is broken, and how it is said."""

from __future__ import annotations

import msgspec
import pytest

from vllm_agent_sdk.types.context import CacheReport, CacheTurn, ContextUsage, Prefix

pytestmark = pytest.mark.feature("Q-05")

FIRST = CacheTurn(1, Prefix(100), input_tokens=300, cached_tokens=0)
KEPT = CacheTurn(2, Prefix(200, 100, 100), 600, expected_tokens=300, cached_tokens=256)
BROKEN = CacheTurn(3, Prefix(210, 200, 50, "tools changed"), 610, 150, 128)
LOST = CacheTurn(4, Prefix(220, 210, 210), 620, expected_tokens=610, cached_tokens=128)


def test_whole_blocks_are_expected_and_what_is_less_is_missed() -> None:
    report = CacheReport(turns=(FIRST, KEPT, BROKEN, LOST), block_size=128, prefix_caching=True)
    assert report.missed == (LOST,)
    assert report.breaks == (BROKEN,)
    # Where the size of a block is not known, every token counts.
    assert CacheReport(turns=report.turns).missed == (KEPT, BROKEN, LOST)


def test_it_is_said_in_words_a_line_for_each_call() -> None:
    report = CacheReport(turns=(FIRST, BROKEN), block_size=128, prefix_caching=True)
    assert report.explain().splitlines() == [
        "The server caches prefixes in blocks of 128 tokens.",
        "call 1: 300 tokens, expected nothing, found 0",
        "call 2: 610 tokens, expected 150, found 128; broken at byte 50: tools changed",
    ]


def test_a_server_that_caches_nothing_or_does_not_tell_is_said_to() -> None:
    untold = CacheTurn(1, Prefix(100), input_tokens=300)
    off = CacheReport(turns=(untold,), prefix_caching=False).explain()
    assert "--no-enable-prefix-caching" in off
    assert "--enable-prompt-tokens-details" in off
    assert "of a size that it does not tell" in CacheReport(turns=()).explain()


@pytest.mark.parametrize(
    "value",
    [
        CacheReport(turns=(FIRST, BROKEN), block_size=16),
        ContextUsage(
            system=10,
            tools=20,
            messages={"user": 5},
            total=35,
            window=100,
            free=65,
            exact=True,
        ),
    ],
)
def test_they_are_json_both_ways(value: object) -> None:
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value
