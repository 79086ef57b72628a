"""The tools in the system text, one a line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.dialect.tool_lines import system_text
from vllm_agent_sdk.types.tools import ToolSpec


def one_argument(name: str, description: str, argument: str) -> ToolSpec:
    parameters = {"properties": {argument: {"type": "string"}}, "required": [argument]}
    return ToolSpec(name=name, description=description, parameters=parameters)


WEATHER = one_argument("get_weather", "Get the weather of a city.", "city")
COLOR = one_argument("get_color", "Get the color of a thing", "thing")

pytestmark = pytest.mark.feature("O-06")


def test_the_tools_stand_in_the_system_text_one_a_line() -> None:
    assert system_text(None, [WEATHER, COLOR]) == (
        "Use the tools to answer.\nTools:\n"
        "Get the weather of a city: get_weather(city)\n"
        "Get the color of a thing: get_color(thing)"
    )


def test_instructions_come_first_and_stand_alone_without_tools() -> None:
    assert system_text("Be brief.", [COLOR]) == (
        "Be brief.\nTools:\nGet the color of a thing: get_color(thing)"
    )
    assert system_text("Be brief.", []) == "Be brief."
    assert system_text(None, []) == ""


def test_arguments_show_their_type_choices_and_whether_they_may_be_left_out() -> None:
    parameters = {
        "properties": {
            "n": {"type": "integer"},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "odds": {"enum": ["no word", "true", "", True, 3]},
            "any": {},
            "either": {"type": ["string", "null"]},
            "odd": True,
        },
        "required": ["n", "any", "odds"],
    }
    spec = ToolSpec(name="f", description=" A\n  tool. ", parameters=parameters)
    assert system_text("x", [spec]).splitlines()[-1] == (
        'A tool: f(n: integer, unit: celsius | fahrenheit?, odds: "no word" | "true" | "" | true '
        "| 3, any, either?, odd?)"
    )
    assert system_text("x", [ToolSpec(name="g")]).splitlines()[-1] == "g()"


def line_of(parameters: dict[str, Any]) -> str:
    spec = ToolSpec(name="f", description="Do it", parameters=parameters)
    return system_text("x", [spec]).splitlines()[-1].removeprefix("Do it: ")


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "array", "items": {"type": "string"}}, "a: list of string"),
        ({"type": "array"}, "a: array"),
        ({"type": "array", "items": {"enum": ["on", "off"]}}, "a: list of on | off"),
        ({"type": "object"}, "a: object"),
        ({"properties": {"b": {"type": "integer"}, "c": {}}}, "a: {b: integer?, c?}"),
        ({"type": "string", "format": "date"}, "a: date"),
        ({"const": 3}, "a: 3"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "a: integer | null"),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, "a: string | integer"),
        ({"anyOf": [{"type": "integer"}, {}]}, "a"),
        ({"$ref": "#/$defs/nowhere"}, "a"),
    ],
    ids=str,
)  # fmt: skip
def test_types_are_shown_to_what_is_inside_of_them(schema: dict[str, Any], shown: str) -> None:
    assert line_of({"properties": {"a": schema}, "required": ["a"]}) == f"f({shown})"


def test_null_is_not_said_of_what_may_be_left_out() -> None:
    either = {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}
    text = {"type": ["string", "null"], "default": None}
    assert line_of({"properties": {"a": either, "b": text}}) == "f(a: integer?, b?)"


def test_an_arguments_description_stands_behind_it() -> None:
    note = "  The day to look at,\n as ISO date. "
    parameters = {
        "properties": {
            "day": {"type": "string", "description": note},
            "room": {"$ref": "#/$defs/Room"},
            "other": {"$ref": "#/$defs/Room", "description": "Next to it"},
        },
        "$defs": {"Room": {"enum": ["bath", "hall"], "description": "A room"}},
        "required": ["day"],
    }
    assert line_of(parameters) == (
        "f(day (The day to look at, as ISO date), room: bath | hall? (A room), "
        "other: bath | hall? (Next to it))"
    )


def test_a_type_that_holds_itself_is_named_there() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "n": {}}}
    found = line_of({"properties": {"a": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}})
    assert found == "f(a: {next: object?, n?}?)"
    ring = {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "integer"}]}}
    assert line_of({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": ring}) == "f(a?)"


SCHEMAS = st.recursive(
    st.sampled_from(
        [{}, True, {"type": "integer"}, {"$ref": "#/$defs/a"}, {"$ref": "#"}, {"enum": [1, "x"]}]
    ),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("ab"), inner, max_size=2).map(
            lambda fields: {"type": "object", "properties": fields, "required": list(fields)[:1]}
        ),
        inner.map(lambda item: {"type": "array", "items": item}),
        st.lists(inner, min_size=1, max_size=2).map(lambda some: {"anyOf": some}),
    ),
    max_leaves=6,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from("abc"), SCHEMAS, min_size=1), SCHEMAS)
def test_any_schema_is_one_line_with_all_its_names(fields: dict[str, Any], named: Any) -> None:
    found = line_of({"properties": fields, "$defs": {"a": named}})
    assert found.startswith("f(")
    assert found.endswith(")")
    assert "\n" not in found
    assert all(name in found for name in fields)
