"""Messages about wrong values, and repairs that lose nothing."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.schema.schema import Validator, coerce
from vllm_agent_sdk.errors import SchemaError

ITEMS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"price": {"type": "number"}},
                "required": ["price"],
                "additionalProperties": False,
            },
        },
        "unit": {"enum": ["c", "f"]},
        "when": {"anyOf": [{"$ref": "#/$defs/Day"}, {"type": "null"}]},
        "many": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {
        "Day": {
            "type": "object",
            "properties": {"day": {"type": "integer", "maximum": 31}},
            "required": ["day"],
        }
    },
}


# ── messages ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-03")
@pytest.mark.parametrize(
    ("value", "errors"),
    [
        ({"city": "Paris"}, []),
        ({}, ["city: is required"]),
        ({"city": 3}, ['city: 3 is not of type "string"']),
        ({"city": "x", "town": 1}, ["town: is not a known argument"]),
        (
            {"city": "x", "items": [{"price": 1}, {"price": "a"}, {}]},
            ['items[1].price: "a" is not of type "number"', "items[2].price: is required"],
        ),
        ({"city": "x", "unit": "k"}, ['unit: "k" is not one of "c" or "f"']),
        ({"city": "x", "when": {}}, ["when.day: is required"]),
        (
            {"city": "x", "when": {"day": 32}},
            ["when.day: 32 is greater than the maximum of 31"],
        ),
        ({"city": "x", "many": []}, ['many: [] is not of type "integer" or "boolean"']),
        ([], ['[] is not of type "object"']),
        ({"city": b"x"}, None),
        ({1: 2}, None),
    ],
)
def test_errors_name_the_path_and_the_reason(value: Any, errors: list[str] | None) -> None:
    found = Validator(ITEMS).errors(value)
    if errors is None:
        assert found[0].startswith("the value cannot be checked")
    else:
        assert found == errors


def test_a_union_of_several_objects_says_what_each_lacks() -> None:
    one, two = ({"type": "object", "required": [name]} for name in "ab")
    (error,) = Validator({"anyOf": [one, two]}).errors({})
    assert error == "matches no alternative: a: is required, or b: is required"


def test_many_errors_are_cut_and_long_values_too() -> None:
    errors = Validator({"type": "array", "items": {"type": "integer"}}).errors(["x" * 9999] * 30)
    assert len(errors) == 11
    assert errors[-1] == "… and 20 more"
    assert all(len(error) < 400 for error in errors)


def test_a_value_nested_too_deeply_is_an_error_and_no_crash() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    schema = {
        "$ref": "#/$defs/L",
        "$defs": {"L": {"type": "array", "items": {"$ref": "#/$defs/L"}}},
    }
    validator = Validator(schema)
    assert validator.errors(value)
    assert validator.coerce(value) == (value, ())


@pytest.mark.feature("A-03")
@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"properties": {"a": {"type": "strin"}}}, "keyword 'type' at properties.a.type"),
        ({"properties": {"a": {"minimum": "x"}}}, "keyword 'minimum' at properties.a.minimum"),
        ({"required": "a"}, "keyword 'required' at required"),
        ({"properties": {"a": {"pattern": "("}}}, r'"\(" is not a "regex"'),
        ({"$ref": "#/$defs/Nothing"}, "Nothing"),
        ({"$schema": "http://json-schema.org/unheard-of"}, "is no valid JSON Schema"),
    ],
)
def test_a_wrong_schema_is_named_with_keyword_and_path(schema: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Validator(schema).check()


def test_a_reference_to_another_machine_is_refused_and_never_followed(
    blocked_connections: list[str],
) -> None:
    with pytest.raises(SchemaError, match="is elsewhere; put its schema into"):
        Validator({"$ref": "http://192.0.2.1/schema.json"}).check()
    assert not blocked_connections


# ── repairs ──────────────────────────────────────────────────────────────────────────────────────

INT = {"type": "integer"}
OBJECT = {"type": "object", "properties": {"n": INT}, "required": ["n"]}


@pytest.mark.feature("A-04")
@pytest.mark.parametrize(
    ("schema", "value", "repaired"),
    [
        (INT, "3", 3),
        (INT, "-12", -12),
        (INT, "3.0", 3),
        (INT, 3.0, 3),
        ({"type": "number"}, "0.5", 0.5),
        ({"type": "number"}, "3", 3),
        ({"type": "number"}, "1e3", 1000.0),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, "false", False),
        (OBJECT, '{"n": 1}', {"n": 1}),
        (OBJECT, '{"n": "1"}', {"n": 1}),
        ({"type": "array", "items": INT}, "[1, 2]", [1, 2]),
        ({"type": "array", "items": INT}, ["1", 2.0], [1, 2]),
        ({"type": ["integer", "null"]}, "3", 3),
        ({"anyOf": [INT, {"type": "null"}]}, "3", 3),
        ({"anyOf": [INT, {"type": "null"}]}, 3.0, 3),
        ({"anyOf": [OBJECT, {"type": "null"}]}, '{"n": "3"}', {"n": 3}),
        ({"anyOf": [OBJECT, {"type": "null"}]}, {"n": 3.0}, {"n": 3}),
        ({"oneOf": [{"type": "boolean"}, {"type": "null"}]}, "true", True),
        ({"$ref": "#/$defs/I", "$defs": {"I": INT}}, "3", 3),
        ({"allOf": [INT, {"minimum": 1}]}, "3", 3),
        ({"type": "object", "additionalProperties": INT}, {"a": "3"}, {"a": 3}),
        ({"type": "object", "patternProperties": {"^a": INT}}, {"a": "3"}, {"a": 3}),
        ({"type": "array", "prefixItems": [INT]}, ["3"], [3]),
    ],
)
def test_what_loses_nothing_is_repaired_and_recorded(
    schema: dict[str, Any], value: Any, repaired: Any
) -> None:
    result, repairs = coerce(value, schema)
    assert json.dumps(result) == json.dumps(repaired)  # 3 and 3.0 are told apart
    assert repairs


@pytest.mark.feature("A-04")
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (INT, "three"),
        (INT, "3.5"),
        (INT, " 3"),
        (INT, "+3"),
        (INT, "007"),
        (INT, "-0"),
        (INT, "-0.0"),
        (INT, "3_000"),
        (INT, "٣"),
        (INT, 3.5),
        (INT, True),
        (INT, None),
        (INT, "9" * 200),
        ({"type": "number"}, "0.1000000000000000055511151231257827"),
        ({"type": "number"}, "1e999"),
        ({"type": "number"}, "NaN"),
        ({"type": "boolean"}, "True"),
        ({"type": "boolean"}, "yes"),
        ({"type": "boolean"}, 1),
        ({"type": "string"}, 3),
        ({"type": "null"}, "null"),
        (OBJECT, '{"n": 1'),
        (OBJECT, '{"n": 1, "n": 2}'),
        (OBJECT, '{"n": NaN}'),
        (OBJECT, "[1]"),
        (OBJECT, '{"m": 1}'),
        ({"type": "integer", "minimum": 5}, "3"),
        ({"anyOf": [{"type": "string"}, INT]}, "3"),
        ({"anyOf": [INT, {"type": "number"}]}, 3.0),
        ({"type": ["string", "integer"]}, "3"),
        ({}, "3"),
        (True, "3"),
    ],
)
def test_what_would_lose_something_or_is_valid_stays_as_it_is(schema: Any, value: Any) -> None:
    result, repairs = coerce(value, schema)
    assert result is value
    assert repairs == ()


@pytest.mark.feature("A-04")
def test_repairs_say_where_what_and_into_what() -> None:
    schema = {
        "type": "object",
        "properties": {"count": INT, "on": {"type": "boolean"}, "o": OBJECT},
    }
    value = {"count": "3", "on": "true", "o": '{"n": 2.0}'}
    before = copy.deepcopy(value)
    result, repairs = coerce(value, schema)
    assert result == {"count": 3, "on": True, "o": {"n": 2}}
    assert value == before
    assert set(repairs) == {
        'count: "3" → 3',
        'on: "true" → true',
        'o: "{\\"n\\": 2.0}" → {"n": 2.0}',
        "o.n: 2.0 → 2",
    }


@pytest.mark.feature("A-04")
def test_nothing_is_repaired_where_the_whole_would_still_be_wrong() -> None:
    value = {"price": "3", "extra": 1}
    assert coerce({"city": 1, "items": [value]}, ITEMS) == ({"city": 1, "items": [value]}, ())


# ── properties ───────────────────────────────────────────────────────────────────────────────────

_leaves = st.sampled_from(
    [
        *({"type": name} for name in ("integer", "number", "boolean", "string", "null")),
        {},
        {"type": "integer", "minimum": 2},
        {"enum": ["1", 2]},
        {"type": ["integer", "null"]},
    ]
)


def _grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    return st.one_of(
        st.builds(lambda i: {"type": "array", "items": i}, inner),
        st.builds(lambda i: {"type": "object", "additionalProperties": i}, inner),
        st.builds(
            lambda p: {"type": "object", "properties": p, "additionalProperties": False}, fields
        ),
        st.builds(lambda p: {"type": "object", "properties": p, "required": sorted(p)}, fields),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(lambda a, b: {"oneOf": [a, b]}, inner, inner),
        st.builds(lambda a, b: {"allOf": [a, b]}, inner, inner),
        st.builds(lambda a: {"$ref": "#/$defs/A", "$defs": {"A": a}}, _leaves),
    )


SCHEMAS = st.recursive(_leaves, _grown, max_leaves=6)

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([0.0, 1.0, 2.0, 2.5, -3.0, 1e300])
    | st.sampled_from(["1", "2", "2.0", "-3", "true", "false", "null", "x", "", "1e2", "007"])
)
_json = st.recursive(
    _scalars,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from("abcd"), v, max_size=3),
    max_leaves=6,
)
VALUES = st.recursive(
    _json,
    lambda v: (
        v.map(json.dumps)
        | st.lists(v, max_size=2)
        | st.dictionaries(st.sampled_from("abc"), v, max_size=2)
    ),
    max_leaves=4,
)


@pytest.mark.feature("A-04")
@given(SCHEMAS, VALUES)
def test_repairing_is_idempotent_valid_or_nothing_and_never_changes_what_is_valid(
    schema: dict[str, Any], value: Any
) -> None:
    root = {"$defs": {"A": INT}, **schema}
    validator = Validator(root)
    before = copy.deepcopy(value)
    valid = validator.is_valid(value)
    result, repairs = validator.coerce(value)
    assert value == before
    if valid:
        assert result == value  # 3.0 may have become 3, which is equal
    if repairs:
        assert validator.is_valid(result)
        assert validator.coerce(result) == (result, ())
    else:
        assert result is value
    assert bool(validator.errors(value)) is not valid


@pytest.mark.feature("A-04")
@given(st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_written_as_text_comes_back_exactly(number: float) -> None:
    result, _ = coerce(json.dumps(number), {"type": "number"})
    assert result == number
    assert type(result) is type(number)
