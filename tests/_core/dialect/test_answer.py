"""The answer's tool, and schemas that stand inside others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vllm_agent_sdk._core.dialect.answer import answer_text, answer_tool, moved
from vllm_agent_sdk._core.schema.schema import Validator
from vllm_agent_sdk.types.messages import ToolCall

pytestmark = pytest.mark.feature("A-07")

OBJECT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TREE: dict[str, Any] = {
    "type": "array",
    "items": {"$ref": "#/$defs/Node"},
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
            "required": ["children"],
            "additionalProperties": False,
        }
    },
}


def call(arguments: str) -> ToolCall:
    return ToolCall.from_text("c", "final_answer", arguments)


def test_an_object_is_the_arguments_themselves() -> None:
    tool = answer_tool(OBJECT)
    assert (tool.name, tool.parameters, tool.strict) == ("final_answer", OBJECT, True)
    assert answer_text(call('{"n":  1}'), OBJECT) == '{"n":  1}'


def test_what_is_no_object_stands_below_answer() -> None:
    parameters = answer_tool({"type": "integer"}).parameters
    assert parameters["properties"] == {"answer": {"type": "integer"}}
    assert parameters["required"] == ["answer"]
    assert answer_text(call('{"answer": 7}'), {"type": "integer"}) == "7"


def test_an_untyped_answer_is_text() -> None:
    assert answer_tool(None).parameters["properties"] == {"answer": {"type": "string"}}
    assert answer_text(call('{"answer": "It is \\"18\\"."}'), None) == 'It is "18".'


def test_references_are_right_where_the_schema_stands() -> None:
    validator = Validator(answer_tool(TREE).parameters, "here")
    validator.check()
    assert not validator.errors({"answer": [{"children": [{"children": []}]}]})
    assert validator.errors({"answer": [{"children": [{"children": 1}]}]})


def test_data_that_looks_like_a_reference_stays_as_it_is() -> None:
    schema = {"enum": [{"$ref": "#/a"}], "default": {"$ref": "#/a"}, "not": {"$ref": "#/a"}}
    assert moved(schema, "#/$defs/x") == {**schema, "not": {"$ref": "#/$defs/x/a"}}
    assert moved({"$schema": "s", "$id": "i", "type": "null"}, "#") == {"type": "null"}


def test_arguments_that_are_no_object_are_given_as_they_are() -> None:
    assert answer_text(call("[1"), None) == "[1"
    assert json.loads(answer_text(call('{"other": 1}'), {"type": "integer"})) is None
