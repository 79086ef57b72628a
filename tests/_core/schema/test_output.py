"""Typed output: the schema that is sent, and replies read as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from vllm_agent_sdk._core.schema.grammar import unenforced
from vllm_agent_sdk._core.schema.output import OutputType
from vllm_agent_sdk.errors import ConstraintIgnoredError, OutputValidationError, SchemaError
from vllm_agent_sdk.types.chat import ChatChoice, ChatCompletion, ChatMessage

pytestmark = pytest.mark.feature("O-02")


@dataclass
class City:
    name: str
    people: int = 0

    def __post_init__(self) -> None:
        if self.name == "Atlantis":
            raise ValueError("it has sunk")


@dataclass
class River:
    length: float


class Model(pydantic.BaseModel):
    name: str
    people: int = pydantic.Field(ge=0)


class Struct(msgspec.Struct):
    name: str


class Keys(TypedDict):
    name: str


class Colour(enum.Enum):
    RED = "red"


def reply(text: str | None, finish: str | None = "stop", **message: Any) -> ChatCompletion[Any]:
    stop_reason = message.pop("stop_reason", None)
    said = ChatMessage(content=text, **message)
    return ChatCompletion(
        choices=[ChatChoice(message=said, finish_reason=finish, stop_reason=stop_reason)]
    )


def value(type_: Any, text: str | None, finish: str | None = "stop", **message: Any) -> Any:
    return OutputType.of(type_).value_of(reply(text, finish, **message), {"stop_token_ids": [7]})


@pytest.mark.parametrize(
    ("type_", "text", "expected"),
    [
        (City, '{"name": "Rome", "people": 3}', City("Rome", 3)),
        (Model, '{"name": "Rome", "people": 3}', Model(name="Rome", people=3)),
        (Struct, ' {"name": "Rome"}\n', Struct("Rome")),
        (Keys, '{"name": "Rome"}', {"name": "Rome"}),
        (Colour, '"red"', Colour.RED),
        (Literal["a", "b"], '"b"', "b"),
        (City | River, '{"length": 2}', River(2.0)),
        (int, "3", 3),
        (list[int], "[1, 2]", [1, 2]),
        (bool, "true", True),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        ({"type": "integer", "minimum": 2}, "2", 2),
    ],
)
def test_all_kinds_of_types_are_read(type_: Any, text: str, expected: Any) -> None:
    assert value(type_, text) == expected


def test_the_schema_is_sent_under_the_types_name() -> None:
    sent = OutputType.of(City).response_format()
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["name"] == "City"
    assert sent["json_schema"]["strict"] is True
    assert sent["json_schema"]["schema"]["required"] == ["name"]
    names = [
        OutputType.of(each).name
        for each in (list[int], int, {"title": "A b/c!" + "x" * 99}, {}, Literal["a"])
    ]
    assert names == ["response", "int", "A_b_c_" + "x" * 58, "response", "response"]


@pytest.mark.parametrize("text", ["", "Rome it is.", '```json\n{"name": "Rome"}\n```', "NaN"])
def test_a_reply_that_ended_and_is_no_json_means_the_schema_was_ignored(text: str) -> None:
    with pytest.raises(ConstraintIgnoredError, match="not JSON at all"):
        value(City, text)
    with pytest.raises(ConstraintIgnoredError):
        value(City, text, stop_reason=5)  # one of the model's own end tokens


@pytest.mark.parametrize(
    ("text", "finish", "message"),
    [
        ('{"name', "stop", {"stop_reason": "x"}),
        ('{"name', "stop", {"stop_reason": 7}),
        ('{"name', "abort", {}),
        ('{"name', None, {}),
        (None, "stop", {"reasoning": "Hm."}),
        ("[" * 100_000, "stop", {}),
    ],
)
def test_a_reply_that_was_ended_proves_nothing_about_the_constraint(
    text: str | None, finish: str | None, message: dict[str, Any]
) -> None:
    with pytest.raises(OutputValidationError) as caught:
        value(City, text, finish, **message)
    assert caught.value.finish_reason == finish


def test_a_reply_without_choices_is_no_value() -> None:
    with pytest.raises(OutputValidationError):
        OutputType.of(City).value_of(ChatCompletion(), {})


def test_a_reply_cut_at_its_limit_is_never_a_value() -> None:
    with pytest.raises(OutputValidationError, match="max_tokens") as caught:
        value(int, "12", "length")
    assert caught.value.finish_reason == "length"


@pytest.mark.parametrize(
    ("type_", "text", "said"),
    [
        (City, '{"name": 3}', "name"),
        (City, '{"name": "Atlantis"}', "it has sunk"),
        (City, "[]", "does not match its type"),
        (Model, '{"name": "a", "people": -1}', "people"),
        (Literal["a"], '"b"', "does not match its type"),
        (City | River, "{}", "does not match its type"),
    ],
)
def test_json_that_is_not_of_the_type_says_where(type_: Any, text: str, said: str) -> None:
    with pytest.raises(OutputValidationError, match=said) as caught:
        value(type_, text)
    assert caught.value.unenforced == ()


def test_keywords_that_grammars_pass_over_are_named() -> None:
    schema = {
        "type": "object",
        "properties": {"not": {"type": "array", "uniqueItems": True}, "b": {"uniqueItems": False}},
        "oneOf": [{"required": ["not"]}],
    }
    assert unenforced(schema) == ("uniqueItems", "oneOf")
    with pytest.raises(OutputValidationError, match="do not enforce uniqueItems, oneOf") as caught:
        value(schema, '{"not": [1, 1]}')
    assert caught.value.unenforced == ("uniqueItems", "oneOf")


def test_a_refusal_and_calls_are_no_value() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = msgspec.convert({"tool_calls": [call]}, ChatMessage).tool_calls
    assert value(City, None, refusal="No.") is None
    assert value(City, None, "tool_calls", tool_calls=calls) is None


@pytest.mark.parametrize("wrong", [complex, City | dict[str, Any], {"type": "nothing"}])
def test_a_type_that_cannot_work_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(SchemaError, match="response_type="):
        OutputType.of(wrong)
