"""Endless white space of a constrained reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.stream.stall import MOST_SPACE, StallGuard
from vllm_agent_sdk.errors import OutputStalledError

pytestmark = pytest.mark.feature("O-15")


def stalls(*pieces: str) -> bool:
    guard = StallGuard()
    try:
        for piece in pieces:
            guard.push(piece)
    except OutputStalledError:
        return True
    return False


@pytest.mark.parametrize(
    ("text", "stalled"),
    [
        ('{"a":' + " " * 64, True),
        ('{"a":' + " " * 63 + "1", False),
        ('{"a":' + "\n" * 32 + "\t\r" * 16, True),
        ((" " * 63 + ",") * 5, False),
        ('"' + " " * 200 + '"', False),
        ('"\\"' + " " * 200 + '"', False),
        ('"\\\\"' + " " * 64, True),
        ('"a"' + " " * 32 + '"' + " " * 40 + '"' + " " * 63, False),
        ("\u00a0" * 200, False),
    ],
)
def test_white_space_counts_outside_strings_in_a_row(text: str, stalled: bool) -> None:
    assert stalls(text) is stalled
    assert stalls(*text) is stalled


@given(
    st.lists(st.sampled_from(['"', "\\", " " * 30, "\n" * 34, "a"]), max_size=12), st.integers(1, 9)
)
def test_any_split_gives_the_same(words: list[str], size: int) -> None:
    text = "".join(words)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert stalls(*pieces) is stalls(text)


def test_the_error_says_how_many() -> None:
    with pytest.raises(OutputStalledError, match=str(MOST_SPACE)):
        StallGuard().push(" " * MOST_SPACE)
