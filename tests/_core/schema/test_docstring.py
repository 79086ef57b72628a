"""Docstrings in the three common styles."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.schema.docstring import parse_docstring

pytestmark = pytest.mark.feature("A-03")

GOOGLE = """Find a flight.

    Prices are in euros.

    Args:
        origin (str, optional): Where it starts,
            as an IATA code.
        to: Where it goes: an IATA code.
        *rest: More
          stops.
        options (dict[str, tuple[int, str]]): Others.

    Returns:
        to: not a parameter.

    Raises:
        ValueError: Unknown code.
"""

NUMPY = """Find a flight.

Prices are in euros.

Parameters
----------
origin : str, optional
    Where it starts,
    as an IATA code.
to
    Where it goes: an IATA code.
*rest : str
    More stops.
x, y : int
    A position.

Returns
-------
to : str
    Not a parameter.
"""

SPHINX = """Find a flight.

Prices are in euros.

:param str origin: Where it starts,
    as an IATA code.
:param to: Where it goes: an IATA code.
:type to: str
:param *rest: More stops.
:returns: Nothing.
:raises ValueError: Unknown code.
"""


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_description_and_parameters_are_read_in_each_style(text: str) -> None:
    description, parameters = parse_docstring(text)
    assert description == "Find a flight.\n\nPrices are in euros."
    assert parameters["origin"] == "Where it starts, as an IATA code."
    assert parameters["to"] == "Where it goes: an IATA code."
    assert parameters["rest"] == "More stops."


def test_types_in_brackets_and_shared_entries_are_understood() -> None:
    assert parse_docstring(GOOGLE).parameters["options"] == "Others."
    assert parse_docstring(NUMPY).parameters["x"] == "A position."
    assert parse_docstring(NUMPY).parameters["y"] == "A position."


@pytest.mark.parametrize("text", [None, "", "  \n "])
def test_no_docstring_is_no_description(text: str | None) -> None:
    assert parse_docstring(text) == ("", {})


def test_text_of_no_known_style_is_all_description() -> None:
    text = "Say: hello.\n\nArgs without a colon\nNote that `x: y` is no section."
    assert parse_docstring(text) == (text, {})


def test_a_title_without_a_block_is_text() -> None:
    assert (
        parse_docstring("See\n\nExamples:\n\nnothing").description == "See\n\nExamples:\n\nnothing"
    )


def test_text_after_a_section_is_not_taken_for_the_description() -> None:
    description, parameters = parse_docstring("Do.\n\nArgs:\n    a: One.\n\nLater text.")
    assert (description, parameters) == ("Do.", {"a": "One."})


def test_a_parameter_without_text_is_left_out() -> None:
    assert parse_docstring("Do.\n\nArgs:\n    a:\n    b: Two.").parameters == {"b": "Two."}


@given(st.text(alphabet="ab :*-()\n\t@", max_size=80) | st.text(max_size=80))
def test_any_text_is_read_without_an_exception(text: str) -> None:
    for whole in (text, f"Do.\n\nArgs:\n    {text}\n\nParameters\n----\n{text}"):
        description, parameters = parse_docstring(whole)
        assert description == description.strip()
        assert all(re.fullmatch(r"\w+", name) for name in parameters)
