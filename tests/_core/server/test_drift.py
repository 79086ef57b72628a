"""What is sent to older servers, and what they cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.server.drift import TABLE, release, suited
from vllm_agent_sdk.errors import UnsupportedByServerError
from vllm_agent_sdk.types.profile import Known, ServerProfile

pytestmark = pytest.mark.feature("E-10")

CHAT = "/chat/completions"


def old(version: str) -> ServerProfile:
    return ServerProfile(version=Known(version, "version"))


@pytest.mark.parametrize(
    ("kind", "value", "field"),
    [
        ("json", {"type": "object"}, "guided_json"),
        ("regex", "a+", "guided_regex"),
        ("choice", ["a", "b"], "guided_choice"),
        ("grammar", 'root ::= "a"', "guided_grammar"),
    ],
)
def test_constraints_have_their_old_names_before_0_11(kind: str, value: Any, field: str) -> None:
    body = {"messages": [], "structured_outputs": {kind: value, "whitespace_pattern": " "}}
    assert suited(CHAT, body, old("0.10.2")) == {
        "messages": [],
        field: value,
        "guided_whitespace_pattern": " ",
    }
    assert suited(CHAT, body, old("0.11.0")) == body
    assert "structured_outputs" in body


def test_any_json_object_is_a_response_format_of_old() -> None:
    body = {"structured_outputs": {"json_object": True}}
    assert suited(CHAT, body, old("0.9.1")) == {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize(
    ("body", "path", "version", "feature"),
    [
        ({"structured_outputs": {"structural_tag": "{}"}}, CHAT, "0.10.0",
         "structured_outputs.structural_tag"),
        ({"tool_choice": "required"}, CHAT, "0.8.2", 'tool_choice="required"'),
        ({"return_token_ids": True}, "/completions", "0.10.1", "return_token_ids"),
        ({"input": "x"}, "/responses", "0.9.2", "/v1/responses"),
        ({"input": "x", "stream": True}, "/responses", "0.10.0", "stream"),
    ],
)  # fmt: skip
def test_what_an_old_server_has_nothing_for_is_an_error_that_names_it(
    body: dict[str, Any], path: str, version: str, feature: str
) -> None:
    with pytest.raises(UnsupportedByServerError, match="Nothing was sent") as caught:
        suited(path, body, old(version))
    assert (caught.value.feature, caught.value.status) == (feature, None)


def test_reasoning_and_the_limit_have_their_old_names() -> None:
    body = {
        "messages": [{"role": "assistant", "content": "x", "reasoning": "y"}, {"role": "user"}],
        "max_completion_tokens": 5,
    }
    told = suited(CHAT, body, old("0.6.3"))
    assert told["messages"][0] == {"role": "assistant", "content": "x", "reasoning_content": "y"}
    assert (told["max_tokens"], "max_completion_tokens" in told) == (5, False)
    assert suited(CHAT, body, old("0.16.0")) == body


def test_the_document_counts_more_than_the_version() -> None:
    body = {"structured_outputs": {"choice": ["a"]}}
    fields = {f"/v1{CHAT}": ("messages", "structured_outputs")}
    profile = ServerProfile(version=Known("0.10.0", "version"), fields=Known(fields, "openapi"))
    assert suited(CHAT, body, profile) == body
    without = ServerProfile(fields=Known({f"/v1{CHAT}": ("messages",)}, "openapi"))
    assert suited(CHAT, body, without) == {"guided_choice": ["a"]}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.10.2", (0, 10, 2)),
        ("v0.11", (0, 11, 0)),
        ("0.32.0+cpu", (0, 32, 0)),
        ("0.10.2rc1", (0, 10, 2)),
        ("0.1.dev1+g1234", None),
        ("local", None),
        (None, None),
    ],
)
def test_a_version_that_tells_no_release_tells_nothing(version: str | None, expected: Any) -> None:
    assert release(version) == expected


@given(st.dictionaries(st.text(), st.integers()))
def test_a_server_of_which_nothing_is_known_gets_what_was_asked(body: dict[str, Any]) -> None:
    assert suited(CHAT, body, ServerProfile()) is body


@given(st.sampled_from(TABLE), st.dictionaries(st.sampled_from("abc"), st.integers()))
def test_a_new_server_gets_what_was_asked(drift: Any, body: dict[str, Any]) -> None:
    newest = ServerProfile(version=Known("0.32.0", "version"))
    for path in drift.paths:
        assert suited(path, body, newest) == body
