"""The order of roles: what is joined, what is moved, and what stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.dialect.roles import Roles, ordered, refuses_roles

pytestmark = pytest.mark.feature("O-07")


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "1"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize(
    "message",
    [
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "After the optional system message, conversation roles must alternate user and assistant.",
        "System message must be at the beginning.",
    ],
)
def test_a_template_that_refuses_the_order_is_known_by_its_words(message: str) -> None:
    assert refuses_roles(message)
    assert not refuses_roles("max_tokens must be at least 1")


def test_off_changes_nothing() -> None:
    messages = [said("user", "a"), said("user", "b"), said("system", "s")]
    assert ordered(messages, "off") == messages


def test_neighbours_of_one_role_are_joined_by_a_blank_line() -> None:
    messages = [
        said("user", "a"),
        said("user", "b"),
        said("assistant", "c"),
        said("assistant", "d"),
    ]
    assert ordered(messages, "merge") == [said("user", "a\n\nb"), said("assistant", "c\n\nd")]


def test_parts_are_a_list_only_where_one_had_parts() -> None:
    messages = [said("user", "a"), said("user", [PICTURE]), said("user", "b")]
    text_a, text_b = ({"type": "text", "text": text} for text in "ab")
    assert ordered(messages, "merge") == [said("user", [text_a, PICTURE, text_b])]


def test_an_empty_neighbour_adds_no_blank_line() -> None:
    assert ordered([said("user", ""), said("user", "b")], "merge") == [said("user", "b")]


def test_results_and_calls_with_what_follows_stay_apart() -> None:
    messages = [CALLING, RESULT, RESULT, said("assistant", "a")]
    assert ordered(messages, "merge") == messages
    assert ordered([CALLING, said("assistant", "a")], "merge") == [CALLING, said("assistant", "a")]


def test_text_before_a_call_joins_it() -> None:
    joined = ordered([said("assistant", "Let me see."), CALLING], "merge")
    assert joined == [{**CALLING, "content": "Let me see."}]


def test_a_message_that_says_more_than_its_content_stays_apart() -> None:
    named = {**said("user", "a"), "name": "Ann"}
    assert ordered([named, said("user", "b")], "merge") == [named, said("user", "b")]
    assert ordered([said("user", "b"), named], "merge") == [said("user", "b"), named]


def test_strict_puts_the_system_messages_first_and_the_user_before_the_assistant() -> None:
    messages = [
        said("assistant", "a"),
        said("system", "s"),
        said("user", "b"),
        said("developer", "t"),
    ]
    assert ordered(messages, "strict") == [
        said("system", "s\n\nt"),
        said("user", ""),
        said("assistant", "a"),
        said("user", "b"),
    ]


MESSAGES = st.lists(
    st.builds(said, st.sampled_from(["system", "user", "assistant"]), st.text(min_size=1)),
    max_size=8,
)


@given(MESSAGES)
def test_strict_alternates_and_loses_no_text(messages: list[Mapping[str, Any]]) -> None:
    result = ordered(messages, "strict")
    roles = [message["role"] for message in result if message["role"] != "system"]
    assert roles == [("user", "assistant")[at % 2] for at in range(len(roles))]
    for role in ("system", "user", "assistant"):
        texts = [message["content"] for message in messages if message["role"] == role]
        found = [m["content"] for m in result if m["role"] == role and m["content"]]
        assert "\n\n".join(found) == "\n\n".join(texts)


@given(MESSAGES, st.sampled_from(["off", "merge", "strict"]))
def test_ordering_twice_is_ordering_once(messages: list[Mapping[str, Any]], roles: Roles) -> None:
    once = ordered(messages, roles)
    assert ordered(once, roles) == once
