"""Ranges of numbers and pairs of fields that no server takes."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.server.limits import _ABOVE, _RANGES, check_generation, check_ranges
from vllm_agent_sdk.errors import UsageError

pytestmark = pytest.mark.feature("E-01")

FIELDS = st.sampled_from(sorted(_RANGES))


def refused(body: dict[str, Any]) -> str | None:
    try:
        check_ranges(body)
    except UsageError as error:
        return error.message
    return None


@given(name=FIELDS, value=st.floats() | st.integers())
def test_a_number_is_taken_exactly_within_its_range(name: str, value: float) -> None:
    low, high, give = _RANGES[name]
    within = (
        not math.isnan(value) and low <= value <= high and not (name in _ABOVE and value == low)
    )
    said = refused({name: value})
    assert (said is None) == within
    assert said is None or (said.startswith(f"{name}=") and give in said)


@given(name=FIELDS, value=st.text() | st.lists(st.integers()) | st.booleans())
def test_what_is_no_number_is_named(name: str, value: Any) -> None:
    said = refused({name: value})
    if name == "logprobs" and isinstance(value, bool):
        assert said is None
    else:
        assert said == f"{name}= takes a number, not {type(value).__name__}."


@given(name=FIELDS)
def test_null_is_always_taken(name: str) -> None:
    assert refused({name: None}) is None


@given(texts=st.lists(st.text(max_size=2), max_size=4), name=st.sampled_from(["stop", "bad_words"]))
def test_an_empty_text_ends_no_reply(texts: list[str], name: str) -> None:
    assert (refused({name: texts}) is None) == ("" not in texts)


@given(
    least=st.none() | st.integers(0, 20),
    tokens=st.none() | st.integers(1, 20),
    wins=st.none() | st.integers(1, 20),
)
def test_the_least_is_no_more_than_the_most(
    least: int | None, tokens: int | None, wins: int | None
) -> None:
    body = {"min_tokens": least, "max_tokens": tokens, "max_completion_tokens": wins}
    most = tokens if wins is None else wins
    fits = least is None or most is None or least <= most
    if fits:
        check_generation(body, stream=False)
    else:
        with pytest.raises(UsageError, match="min_tokens="):
            check_generation(body, stream=False)


@given(n=st.none() | st.integers(1, 4), heat=st.none() | st.floats(0, 2), beams=st.booleans())
def test_several_choices_need_a_temperature_or_beams(
    n: int | None, heat: float | None, beams: bool
) -> None:
    body = {"n": n, "temperature": heat, "use_beam_search": beams}
    same = (n or 1) > 1 and heat is not None and heat < 1e-5 and not beams
    if same:
        with pytest.raises(UsageError, match="at temperature="):
            check_generation(body, stream=False)
    else:
        check_generation(body, stream=True)
