"""Schemas for grammars: what is rewritten means the same, what cannot be is named."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vllm_agent_sdk import SchemaError
from vllm_agent_sdk._core.schema.grammar import (
    bounded,
    grammar_schema,
    response_schema,
    strict_tool,
    unenforced,
)
from vllm_agent_sdk._core.schema.schema import Validator

INTEGER: Any = {"type": "integer"}
bounds = st.integers(-3, 3) | st.sampled_from([-1.5, 0.5, 2.0])
names = st.sampled_from(["a", "b", "c"])
numbers = st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "number"])},
    optional={
        "exclusiveMinimum": bounds,
        "multipleOf": st.sampled_from([2, 3]),
        "minimum": st.integers(-3, 0) | st.sampled_from([-1.5]),
        "maximum": st.integers(1, 3) | st.sampled_from([1.5]),
    },
)
strings = st.sampled_from(
    [{"type": "string"}, {"enum": ["x", 1]}, {"type": "string", "pattern": "^x", "maxLength": 2}]
)


def composed(inner: Any) -> Any:
    objects = st.fixed_dictionaries(
        {"type": st.just("object")},
        optional={
            "properties": st.dictionaries(names, inner, max_size=2),
            "required": st.lists(names, unique=True, max_size=2),
            "additionalProperties": inner | st.just(True),
            "minProperties": st.integers(0, 2),
        },
    )
    return objects | st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"description": st.just("x"), "allOf": st.lists(inner, min_size=1)}),
        st.fixed_dictionaries({"not": inner}),
    )


schemas = st.recursive(numbers | strings, composed, max_leaves=4)
values = st.recursive(
    st.integers(-4, 4) | st.sampled_from([0.5, -1.5, "x", "y", "xxx", None]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.feature("O-03")
@given(schemas, st.lists(values, min_size=1, max_size=8))
@example(
    {
        "allOf": [
            {"type": "integer", "exclusiveMinimum": 0},
            {"type": "integer", "exclusiveMinimum": -1.5},
        ]
    },
    [0, 1, -1],
)
def test_a_rewritten_schema_takes_the_same_values(schema: Any, samples: list[Any]) -> None:
    before = repr(schema)
    try:
        made = grammar_schema(schema, "It")
    except SchemaError:
        return
    assert repr(schema) == before
    for value in samples:
        assert Validator(made).is_valid(value) == Validator(schema).is_valid(value), made
    assert grammar_schema(made, "It") == made


@pytest.mark.feature("O-03")
@given(schemas, st.lists(values, min_size=1, max_size=8))
def test_a_response_s_schema_takes_no_less(schema: Any, samples: list[Any]) -> None:
    try:
        sent = response_schema(schema)
    except SchemaError:
        return
    # What is left out of `not` takes more away: such a schema is not enforced at all.
    for value in samples:
        if "not" not in repr(schema) and Validator(schema).is_valid(value):
            assert Validator(sent).is_valid(value), sent


@pytest.mark.feature("O-03")
@pytest.mark.parametrize(
    ("schema", "made"),
    [
        (
            {"type": "array", "items": [INTEGER], "additionalItems": False},
            {"type": "array", "prefixItems": [INTEGER], "items": False},
        ),
        (
            {"type": "integer", "minimum": 3, "exclusiveMinimum": True},
            {"type": "integer", "exclusiveMinimum": 3},
        ),
        ({"type": "integer", "minimum": 1.5}, {"type": "integer", "minimum": 2}),
        ({"type": "integer", "exclusiveMaximum": 1.5}, {"type": "integer", "maximum": 1}),
        (
            {"type": "object", "properties": {"a": INTEGER}, "required": ["a", "b"]},
            {"type": "object", "properties": {"a": INTEGER, "b": {}}, "required": ["a", "b"]},
        ),
        (
            {"type": "object", "properties": {"a": INTEGER, "b": False}},
            {"type": "object", "properties": {"a": INTEGER}},
        ),
        ({"type": "object"}, {"type": "object", "additionalProperties": True}),
        ({"allOf": [INTEGER, {"minimum": 3}]}, {"type": "integer", "minimum": 3}),
    ],
)
def test_what_grammars_would_refuse_or_forbid_is_written_so_that_they_take_it(
    schema: Any, made: Any
) -> None:
    assert grammar_schema(schema, "It") == made


REFUSED: list[tuple[Any, str, str]] = [
    ({"type": "string", "pattern": r"^(a|b)\1$"}, "pattern", "reference back"),
    ({"type": "string", "pattern": r"\bword\b"}, "pattern", "word boundary"),
    ({"type": "string", "pattern": r"^\p{L}+$"}, "pattern", "Unicode class"),
    ({"type": "string", "pattern": "(?i)a"}, "pattern", "flags"),
    ({"type": "string", "pattern": "("}, "pattern", "not closed"),
    ({"enum": []}, "enum", "empty"),
    ({"type": "any"}, "type", "no type"),
    ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum", "above maximum"),
    ({"type": "integer", "maximum": 2**63}, "maximum", "64 bits"),
    ({"$ref": "https://example.org/x.json"}, "$ref", "elsewhere"),
    ({"$ref": "#/$defs/Nowhere"}, "$ref", "there is no"),
    (
        {"type": "object", "required": ["x"], "additionalProperties": False},
        "required",
        "cannot be there",
    ),
]


@pytest.mark.feature("O-03")
@pytest.mark.parametrize(("inner", "keyword", "why"), REFUSED, ids=[r[1] + r[2] for r in REFUSED])
def test_what_has_no_grammar_is_refused_with_keyword_and_path(
    inner: Any, keyword: str, why: str
) -> None:
    schema = {"type": "object", "properties": {"days": {"type": "array", "items": inner}}}
    function: Any = {"name": "plan", "strict": True, "parameters": schema}
    with pytest.raises(SchemaError) as caught:
        strict_tool({"type": "function", "function": function})
    message = caught.value.message
    assert f"'{keyword}' at properties.days.items" in message
    assert why in message
    assert "'plan'" in message
    assert "strict=False" in message
    loose: Any = {"type": "function", "function": {**function, "strict": False}}
    assert strict_tool(loose) is loose


@pytest.mark.feature("O-03")
def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    schema: Any = {"type": "integer"}
    for _ in range(60):
        schema = {"type": "array", "items": schema}
    with pytest.raises(SchemaError, match="nested deeper"):
        grammar_schema(schema, "It")


@pytest.mark.feature("O-03")
@pytest.mark.parametrize(
    ("schema", "keywords"),
    [
        ({"type": "array", "uniqueItems": True, "contains": {}}, ("uniqueItems", "contains")),
        ({"type": "array", "uniqueItems": False}, ()),
        ({"properties": {"a": {"not": {}}}}, ("not",)),
        ({"if": {}, "then": {}, "else": {}}, ("if", "then", "else")),
        ({"oneOf": [{}], "dependentRequired": {}}, ("oneOf", "dependentRequired")),
        ({"type": "number", "multipleOf": 2}, ("multipleOf",)),
        ({"type": "integer", "multipleOf": 2}, ()),
        ({"type": "string", "pattern": "^a", "maxLength": 2}, ("maxLength",)),
        ({"type": "string", "pattern": "^(?!a)"}, ("pattern",)),
        ({"properties": {"not": INTEGER, "oneOf": INTEGER}}, ()),
    ],
)
def test_keywords_that_grammars_take_and_do_not_enforce_are_named(
    schema: Any, keywords: tuple[str, ...]
) -> None:
    assert unenforced(schema) == keywords


@pytest.mark.feature("O-03")
def test_a_response_s_schema_holds_nothing_that_makes_vllm_change_its_backend() -> None:
    schema: Any = {
        "type": "object",
        "properties": {
            "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            "even": {"type": "integer", "multipleOf": 2, "minimum": 0},
            "site": {"type": "string", "format": "iri"},
            "code": {"type": "string", "pattern": "^a", "minLength": 2},
        },
    }
    sent: Any = response_schema(schema)["properties"]
    assert sent == {
        "tags": {"type": "array", "items": {"type": "string"}},
        "even": {"type": "integer", "minimum": 0},
        "site": {"type": "string"},
        "code": {"type": "string", "pattern": "^a"},
    }
    with pytest.raises(SchemaError, match="patternProperties"):
        response_schema({"type": "object", "properties": {}, "patternProperties": {"^x": {}}})


@pytest.mark.feature("O-06")
@pytest.mark.parametrize(
    ("schema", "added"),
    [
        ({"type": "integer"}, {"minimum": -(2**63) + 1, "maximum": 2**63 - 1}),
        ({"type": ["integer", "null"]}, {"minimum": -(2**63) + 1, "maximum": 2**63 - 1}),
        ({"type": "integer", "minimum": 3}, {"maximum": 2**63 - 1}),
        ({"type": "integer", "exclusiveMaximum": 9}, {"minimum": -(2**63) + 1}),
        ({"type": "number"}, {}),
        ({"type": ["integer", "number"]}, {}),
        ({"type": "object", "properties": {"type": {"const": {"type": "integer"}}}}, {}),
    ],
)
def test_integers_have_64_bits_where_the_schema_says_nothing_else(schema: Any, added: Any) -> None:
    before = copy.deepcopy(schema)
    assert bounded(schema) == {**schema, **added}
    assert bounded({"items": schema, "anyOf": [schema]}) == {
        "items": {**schema, **added},
        "anyOf": [{**schema, **added}],
    }
    assert schema == before
