"""Constraints: what is refused before sending, and what replies are held to."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk._core.schema.constraints import check_constraints, constraint_of, reply_check
from vllm_agent_sdk.errors import ConstraintIgnoredError, UsageError
from vllm_agent_sdk.types.chat import ChatChoice, ChatCompletion, ChatMessage

pytestmark = pytest.mark.feature("O-01")

CHOICE = {"structured_outputs": {"choice": ["red", "green"]}}
REGEX = {"structured_outputs": {"regex": r"\d{3}-.x"}}
JSON_OBJECT = {"response_format": {"type": "json_object"}}
SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}
NAMED = {"tool_choice": {"type": "function", "function": {"name": "f"}}}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"structured_outputs": {}}, "none given"),
        ({"structured_outputs": {"regex": "a", "json": {}}}, "json and regex given"),
        ({"structured_outputs": {"choice": []}}, "constrains nothing"),
        ({"structured_outputs": {"json_object": False}}, "constrains nothing"),
        ({**CHOICE, **JSON_OBJECT}, "json_object.*choice"),
        ({**REGEX, **SCHEMA}, "json_schema.*regex"),
        ({**CHOICE, "response_format": {"type": "structural_tag"}}, "structural_tag.*choice"),
        ({**CHOICE, **NAMED}, "names a tool"),
        ({**CHOICE, "tool_choice": None}, "tool_choice=None"),
        ({**CHOICE, "include_reasoning": False}, r"include_reasoning=False.*\(choice\)"),
        ({**SCHEMA, "include_reasoning": False}, r"include_reasoning=False.*\(json\)"),
        *[({"cache_salt": salt}, "cache_salt") for salt in ("", "a@", "/", "\\", "\0", "x" * 129)],
        ({"cache_salt": 3}, "cache_salt"),
    ],
)
def test_what_no_server_takes_is_refused(body: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_constraints(body)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}, "include_reasoning": False}, None),
        ({"response_format": None, "structured_outputs": None}, None),
        ({"cache_salt": "x" * 128}, None),
        ({**CHOICE, "response_format": {"type": "text"}}, "choice"),
        ({**SCHEMA, "structured_outputs": {"json": {}}}, "json"),
        ({**SCHEMA, **NAMED}, "json"),
        ({**JSON_OBJECT, "structured_outputs": {"json_object": True}}, "json_object"),
        ({"response_format": {"type": "structural_tag"}}, "structural_tag"),
        ({**CHOICE, "tool_choice": "auto", "include_reasoning": True}, "choice"),
    ],
)
def test_what_a_server_may_take_is_sent(body: dict[str, Any], kind: str | None) -> None:
    check_constraints(body)
    assert (constraint_of(body) or (None,))[0] == kind


def reply(text: str | None, finish: str = "stop", **facts: Any) -> ChatCompletion[Any]:
    stop_reason = facts.pop("stop_reason", None)
    message = ChatMessage(content=text, **facts)
    choice = ChatChoice(message=message, finish_reason=finish, stop_reason=stop_reason)
    return ChatCompletion(choices=[choice])


def is_kept(body: dict[str, Any], said: ChatCompletion[Any]) -> bool:
    check = reply_check(body)
    assert check is not None
    try:
        check(said)
    except ConstraintIgnoredError:
        return False
    return True


def test_a_choice_or_a_pattern_must_be_met_by_a_reply_that_ended() -> None:
    assert is_kept(CHOICE, reply("red"))
    assert is_kept(REGEX, reply("123-\nx"))
    for text in ("red.", "Red", "", None):
        assert not is_kept(CHOICE, reply(text))
    assert not is_kept(REGEX, reply("123-ax and more"))
    assert not is_kept(CHOICE, reply("blue", stop_reason=9))
    assert not is_kept(
        CHOICE, ChatCompletion(choices=[*reply("red").choices, *reply("blue").choices])
    )


def test_a_reply_that_was_ended_or_holds_something_else_is_not_judged() -> None:
    asked = {**CHOICE, "stop_token_ids": [9]}
    assert is_kept(asked, reply("blu", "length"))
    assert is_kept(asked, reply("blu", stop_reason="e"))
    assert is_kept(asked, reply("blu", stop_reason=9))
    assert is_kept(asked, reply(None, refusal="No."))
    assert is_kept(asked, reply(None, reasoning="Hm."))
    assert is_kept(asked, ChatCompletion())


@pytest.mark.parametrize(
    "body",
    [
        {},
        SCHEMA,
        {"structured_outputs": {"grammar": 'root ::= "a"'}},
        {"structured_outputs": {"regex": r"\p{L}+"}},
        {"structured_outputs": {"regex": "[[a]"}},
        {**CHOICE, "echo": True},
    ],
)
def test_what_cannot_be_checked_here_is_left_alone(body: dict[str, Any]) -> None:
    assert reply_check(body) is None
