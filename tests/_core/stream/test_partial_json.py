"""Every beginning of a JSON document gives a beginning of its value, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vllm_agent_sdk._core.stream.partial_json import partial_json

texts = st.text(st.characters(exclude_categories=["Cs"]))
plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
values = st.recursive(
    plain | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=12,
)


def begins(part: Any, whole: Any) -> bool:
    """Whether a value is the beginning of another: only what comes last may be shorter."""
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    if isinstance(part, dict) and isinstance(whole, dict):
        part, keys = list(part.items()), list(whole)
        whole = list(whole.items())
        if [key for key, _ in part] != keys[: len(part)]:
            return False
        part, whole = [v for _, v in part], [v for _, v in whole]
    if isinstance(part, list) and isinstance(whole, list):
        if not part:
            return True
        last = len(part) - 1
        return (
            len(part) <= len(whole)
            and part[:last] == whole[:last]
            and begins(part[last], whole[last])
        )
    return type(part) is type(whole) and part == whole


@pytest.mark.feature("O-02")
@given(values, st.booleans(), st.sampled_from([None, 1]))
@example({"a": "\U0001f600\\", "b": [1.5, "\\ud83d"]}, True, None)
def test_every_beginning_gives_a_beginning_of_the_value(
    value: Any, escaped: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=escaped, indent=indent)
    last: Any = None
    seen = False
    for end in range(len(text) + 1):
        there, part = partial_json(text[:end])
        if there:
            assert begins(part, value), (text[:end], part)
            assert not seen or begins(last, part), "what was there is not taken back"
            seen, last = True, part
        else:
            assert not seen
    there, part = partial_json(f"{text} ")
    assert (there, part) == (True, value)


@pytest.mark.feature("O-02")
@given(st.text() | st.text(alphabet='{}[]",:\\u0123dD8eatrlsfn- \ud800'))
def test_no_text_raises(text: str) -> None:
    there, value = partial_json(text)
    assert there or value is None


@pytest.mark.feature("O-02")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"city": "Par', {"city": "Par"}),
        ('{"city": "Paris", "peo', {"city": "Paris"}),
        ('{"city": "Paris", "people": 21', {"city": "Paris"}),
        ('{"city": "Paris", "people": 21,', {"city": "Paris", "people": 21}),
        ('{"days": [true, fal', {"days": [True]}),
        ('["a\\', ["a"]),
        ('["a\\ud83d', ["a"]),
        ('["a\\ud83d\\ude00', ["a😀"]),
    ],
)
def test_numbers_and_words_come_when_they_are_over_texts_as_they_grow(
    text: str, value: Any
) -> None:
    assert partial_json(text) == (True, value)


@pytest.mark.feature("O-02")
@pytest.mark.parametrize("text", ["", "  ", "12", "tr", "Here is", '{"a": oops}, ', "]"])
def test_what_is_no_beginning_of_json_is_nothing(text: str) -> None:
    assert partial_json(text) == (False, None)
