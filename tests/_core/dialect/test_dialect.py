"""Guided turns as they are sent: the grammar, the system text, the history as text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.dialect.dialect import (
    TextHistory,
    escape,
    guided_format,
    worked_turns,
)
from vllm_agent_sdk._core.dialect.envelope import envelope_format
from vllm_agent_sdk._core.stream.guided import GuidedParser
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ImageBlock,
    Message,
    SystemMessage,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vllm_agent_sdk.types.tools import ToolSpec

pytestmark = pytest.mark.feature("O-06")

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
THING = {"type": "object", "properties": {"thing": {"type": "string"}}, "required": ["thing"]}
WEATHER = ToolSpec(name="get_weather", description="Get the weather of a city", parameters=CITY)
COLOR = ToolSpec(name="get_color", description="Get the color of a thing", parameters=THING)

MARKER = re.compile(r"\[\[(?:call |final\]\]|result |/)")


def tag(spec: ToolSpec) -> dict[str, Any]:
    return {
        "type": "tag",
        "begin": f"[[call {spec.name}]]",
        "content": {"type": "json_schema", "json_schema": spec.parameters},
        "end": "[[/call]]",
    }


def one_of(*specs: ToolSpec) -> dict[str, Any]:
    return {
        "type": "tags_with_separator",
        "separator": "\n",
        "at_least_one": True,
        "stop_after_first": True,
        "tags": [tag(spec) for spec in specs],
    }


TEXT_FINAL = {
    "type": "tag",
    "begin": "[[final]]",
    "content": {"type": "any_text", "excludes": ["[[/"]},
    "end": "[[/final]]",
}

# ── the grammar ──────────────────────────────────────────────────────────────────────────────────


def test_one_call_of_a_known_tool_or_an_answer() -> None:
    assert guided_format([WEATHER, COLOR]) == {
        "type": "structural_tag",
        "format": {"type": "or", "elements": [one_of(WEATHER, COLOR), TEXT_FINAL]},
    }


def test_a_typed_answer_is_its_schema_between_the_tags() -> None:
    form = guided_format([WEATHER], output=THING)["format"]
    final = TEXT_FINAL | {"content": {"type": "json_schema", "json_schema": THING}}
    assert form == {"type": "or", "elements": [one_of(WEATHER), final]}


def test_integers_end() -> None:
    count = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}}
    many = ToolSpec(name="count", description="", parameters=count)
    for form in (guided_format([many]), envelope_format([many]), guided_format([], output=count)):
        assert str(form).count("'maximum': 9223372036854775807") == 1, form
        assert "'minimum': 0" in str(form)


def test_a_required_call_leaves_no_answer() -> None:
    assert guided_format([WEATHER], require_call=True)["format"] == one_of(WEATHER)


def test_without_tools_there_is_only_the_answer() -> None:
    assert guided_format([])["format"] == TEXT_FINAL


def test_several_calls_have_a_cap() -> None:
    calls = guided_format([WEATHER], max_calls=3)["format"]["elements"][0]
    line = {"type": "const_string", "value": "\n"}
    following = {"type": "sequence", "elements": [line, one_of(WEATHER)]}
    repeat = {"type": "repeat", "min": 0, "max": 2, "content": following}
    assert calls == {"type": "sequence", "elements": [one_of(WEATHER), repeat]}


# ── the history as text ──────────────────────────────────────────────────────────────────────────


SCHEMAS = st.recursive(
    st.sampled_from(["string", "integer", "boolean", "array"]).map(lambda kind: {"type": kind}),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
        lambda properties: {"type": "object", "properties": properties}
    ),
    max_leaves=6,
)


def tool_of(parameters: dict[str, Any]) -> ToolSpec:
    return ToolSpec(name="f", description="", parameters=parameters)


def test_worked_turns_read_as_real_messages() -> None:
    assert TextHistory().wire(worked_turns([WEATHER])) == [
        {"role": "user", "content": "What is the color of the sky?"},
        {"role": "assistant", "content": '[[call get_color]]{"thing": "sky"}[[/call]]'},
        {"role": "user", "content": '[[result get_color]]{"color": "blue"}[[/result]]'},
        {"role": "assistant", "content": "[[final]]The color of the sky is blue.[[/final]]"},
        {"role": "user", "content": "Bake the apple pie for 2 hours."},
        {
            "role": "assistant",
            "content": '[[call bake]]{"dish": "apple pie", "hours": 2}[[/call]]',
        },
        {"role": "user", "content": '[[result bake]]{"ready_at": "6 pm"}[[/result]]'},
        {"role": "assistant", "content": "[[final]]The apple pie is ready at 6 pm.[[/final]]"},
    ]


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {"names": {"type": "array", "items": {"type": "string"}}}},
        {"properties": {"names": {"type": ["array", "null"]}}},
        {"properties": {"names": {"anyOf": [{"type": "null"}, {"type": "array"}]}}},
        {"properties": {"of": {"$ref": "#/$defs/of"}}, "$defs": {"of": {"type": "array"}}},
    ],
)
def test_where_a_tool_takes_a_list_one_is_shown(parameters: dict[str, Any]) -> None:
    shown = TextHistory().wire(worked_turns([WEATHER, tool_of(parameters)]))
    others = TextHistory().wire(worked_turns([WEATHER]))
    assert [message for message in shown if message not in others] == [
        {"role": "user", "content": "Pack the red hat and the scarf."},
        {"role": "assistant", "content": '[[call pack]]{"items": ["red hat", "scarf"]}[[/call]]'},
        {"role": "user", "content": '[[result pack]]{"kilos": 2}[[/result]]'},
        {"role": "assistant", "content": "[[final]]They are packed and weigh 2 kilos.[[/final]]"},
    ]


@given(schemas=st.lists(SCHEMAS, max_size=4))
def test_worked_turns_are_whole_and_the_same_for_the_same_tools(
    schemas: list[dict[str, Any]],
) -> None:
    tools = [tool_of(schema) for schema in schemas]
    turns = worked_turns(tools)
    assert turns == worked_turns(reversed(tools))
    assert any(message.tool_calls[0].name == "pack" for message in asked(turns)) == (
        "'array'" in str(schemas)
    )
    wire = TextHistory().wire(turns)
    assert [message["role"] for message in wire] == ["user", "assistant"] * (len(wire) // 2)
    for message in asked(turns):
        (call,) = message.tool_calls
        assert call.arguments == json.loads(call.arguments_json)
        assert sum(call.id == getattr(each, "call_id", None) for each in turns) == 1
    assert len({message.tool_calls[0].id for message in asked(turns)}) == len(asked(turns))


def asked(turns: Sequence[Message]) -> list[AssistantMessage]:
    return [each for each in turns if isinstance(each, AssistantMessage) and each.tool_calls]


def calls(*names: str) -> AssistantMessage:
    return AssistantMessage([ToolCall(f"id_{name}", name, {}, "{}") for name in names])


def test_results_of_one_turn_are_one_user_message_in_their_order() -> None:
    wire = TextHistory().wire(
        [calls("f", "g"), ToolMessage("id_g", "2"), ToolMessage("id_f", "1"), UserMessage("So?")]
    )
    assert [message["content"] for message in wire] == [
        "[[call f]]{}[[/call]]\n[[call g]]{}[[/call]]",
        "[[result g]]2[[/result]]\n[[result f]]1[[/result]]",
        "So?",
    ]
    assert [message["role"] for message in wire] == ["assistant", "user", "user"]


def test_results_name_their_tool_when_they_come_in_a_later_piece_of_the_history() -> None:
    history = TextHistory()
    history.wire([calls("f")])
    assert history.wire([ToolMessage("id_f", "1")]) == [
        {"role": "user", "content": "[[result f]]1[[/result]]"}
    ]
    assert history.wire([ToolMessage("lost", "1")])[0]["content"] == "[[result tool]]1[[/result]]"


@pytest.mark.parametrize(
    "generated",
    [
        '[[call f]]{"a":  1 }[[/call]]',
        '[[call f]]{"a": "[[/call]]"}[[/call]]\n[[call g]]{}[[/call]]',
        "[[final]] so [[ it ]] is\n[[/final]]",
    ],
)
def test_what_was_generated_goes_back_to_the_letter(generated: str) -> None:
    parser = GuidedParser("c")
    parser.push(generated)
    parser.finish()
    message = AssistantMessage(parser.blocks(), verbatim=parser.verbatim)
    assert TextHistory().wire([message])[0] == {"role": "assistant", "content": generated}


def test_system_text_and_media_go_as_they_are() -> None:
    image = ImageBlock.from_url("http://x/[[call f]].png")
    wire = TextHistory().wire(
        [SystemMessage("[[call f]] is a call."), UserMessage([image, TextBlock("[[call f]]")])]
    )
    assert wire == [
        {"role": "system", "content": "[[call f]] is a call."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "http://x/[[call f]].png"}},
                {"type": "text", "text": "[ [call f]]"},
            ],
        },
    ]


# ── forgery ──────────────────────────────────────────────────────────────────────────────────────

FORGED = st.lists(
    st.sampled_from(["[[", "[", "call ", "final]]", "result ", "/", "]]", "{}", " ", "x", "\n"])
).map("".join)


def without_gaps(text: str) -> str:
    """The text without the blanks between two brackets, which are all that escaping adds."""
    return re.sub(r"\[ (?=\[)", "[", text)


@given(text=FORGED | st.text())
def test_escaped_text_holds_no_marker_and_only_markers_are_changed(text: str) -> None:
    escaped = escape(text)
    assert not MARKER.search(escaped)
    assert escaped == escape(escaped)
    assert without_gaps(escaped) == without_gaps(text)
    if not MARKER.search(text):
        assert escaped == text


@given(forged=FORGED)
def test_neither_a_result_nor_the_user_can_forge_a_call_a_result_or_an_answer(forged: str) -> None:
    wire = TextHistory().wire(
        [
            UserMessage(forged),
            UserMessage([TextBlock(forged), TextBlock(forged)]),
            calls("f"),
            ToolMessage("id_f", forged),
            ToolMessage("id_f", [TextBlock(forged), TextBlock(forged)]),
            AssistantMessage([TextBlock(forged)]),
        ]
    )
    user, parts, call, results, answer = (message["content"] for message in wire)
    assert not MARKER.search(user)
    assert not any(MARKER.search(part["text"]) for part in parts)
    assert call == "[[call f]]{}[[/call]]"
    assert MARKER.findall(results) == ["[[result ", "[[/"] * 2
    assert MARKER.findall(answer) == ["[[final]]", "[[/"]


@pytest.mark.parametrize("text", ["[[x]]", "[[ -f y ]]", "[[Paris]]", "[[callback]]", "a[[b"])
def test_other_brackets_are_left_alone(text: str) -> None:
    assert escape(text) == text
