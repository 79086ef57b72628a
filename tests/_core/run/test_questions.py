"""The ask-user tool: what the model may ask, and what counts as an answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.run.policy import decide
from vllm_agent_sdk._core.run.questions import QUESTION_TOOL, check_answers, parse_questions
from vllm_agent_sdk._core.schema.check import Validator
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.messages import ToolCall
from vllm_agent_sdk.types.permissions import PermissionRules
from vllm_agent_sdk.types.questions import Question

pytestmark = pytest.mark.feature("H-05")

COLOUR = Question("colour", "Which colour?", ("red", "blue"))
SIZES = Question("sizes", "Which sizes?", ("S", "M", "L"), multi_select=True)
KEY = Question("key", "The key?", secret=True)
VALIDATOR = Validator(QUESTION_TOOL.parameters, "the schema")


# ── the tool ─────────────────────────────────────────────────────────────────────────────────────


def test_the_tool_can_be_asked_with_in_every_mode_without_a_question_before() -> None:
    call = ToolCall("c1", QUESTION_TOOL.name, {"questions": [{"text": "Why?"}]})
    for mode in ("default", "acceptEdits", "plan", "dontAsk", "bypassPermissions"):
        rules = PermissionRules(mode=mode)
        assert decide(rules, (), QUESTION_TOOL, call).answer == "allow"


def test_the_tool_is_constrained_to_a_closed_schema_with_one_required_field() -> None:
    assert (QUESTION_TOOL.name, QUESTION_TOOL.kind) == ("ask_user_question", "question")
    assert QUESTION_TOOL.strict
    item = QUESTION_TOOL.parameters["properties"]["questions"]["items"]
    assert item["required"] == ["text"]
    assert set(item["properties"]) == {"text", "options", "multi_select", "secret", "id"}
    assert item["additionalProperties"] is False
    assert VALIDATOR.errors({"questions": []})
    assert VALIDATOR.errors({"questions": [{"text": "a", "header": "b"}]})


# ── the model asks ───────────────────────────────────────────────────────────────────────────────


def test_arguments_become_questions_and_missing_ids_are_numbers() -> None:
    asked = parse_questions(
        {
            "questions": [
                {"text": "Name?"},
                {"text": "Which?", "id": "which", "options": ["a", "b"], "multi_select": True},
                {"text": "Key?", "secret": True, "options": None},
            ]
        }
    )
    assert asked == [
        Question("question_1", "Name?"),
        Question("which", "Which?", ("a", "b"), multi_select=True),
        Question("question_3", "Key?", secret=True),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "must be a list of at least one"),
        ({"questions": []}, "must be a list of at least one"),
        ({"questions": {"text": "a"}}, "must be a list of at least one"),
        ({"question": "a"}, "there is no argument 'question'"),
        ({"questions": ["Why?"]}, 'question 1 must be an object with "text"'),
        ({"questions": [{"text": "a"}, {}]}, 'question 2 needs a "text" that is not empty'),
        ({"questions": [{"text": "  "}]}, 'question 1 needs a "text" that is not empty'),
        ({"questions": [{"text": "a", "id": ""}]}, 'question 1 needs a "id" that is not empty'),
        ({"questions": [{"text": 3}]}, "text of question 1 must be text"),
        ({"questions": [{"text": "a", "options": "b"}]}, "options of question 1 must be a list"),
        ({"questions": [{"text": "a", "options": [1]}]}, "options of question 1 must be texts"),
        ({"questions": [{"text": "a", "options": [""]}]}, "options of question 1 must be texts"),
        (
            {"questions": [{"text": "a", "options": ["b", "b"]}]},
            "the option of question 1 'b' is there twice",
        ),
        ({"questions": [{"text": "a", "secret": "yes"}]}, "secret of question 1 must be true or"),
        (
            {"questions": [{"text": "a", "colour": 1}]},
            "question 1 has an unknown field 'colour'; known are id, text, options",
        ),
        (
            {"questions": [{"text": "a", "id": "x"}, {"text": "b", "id": "x"}]},
            "the id 'x' is there twice",
        ),
        (
            {"questions": [{"text": "a", "id": "question_2"}, {"text": "b"}]},
            "the id 'question_2' is there twice",
        ),
        ({"questions": [{"text": "a"}, {"text": "a"}]}, "the text 'a' is there twice"),
    ],
)
def test_what_is_no_question_is_told_to_the_model(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_questions(arguments)
    assert caught.value.message.startswith("Invalid arguments for ask_user_question: ")
    assert caught.value.message.endswith("Call it again with corrected arguments.")


@pytest.mark.parametrize("question", [COLOUR, SIZES, KEY])
def test_a_question_in_an_event_says_everything_and_is_read_as_the_same(question: Question) -> None:
    wire = question.wire()
    assert set(wire) == {"id", "text", "options", "multi_select", "secret"}
    assert _codec.decode(_codec.encode(wire)) == wire
    assert parse_questions({"questions": [wire]}) == [question]


QUESTIONS = st.fixed_dictionaries(
    {"text": st.text(max_size=4)},
    optional={
        "id": st.text(max_size=3),
        "options": st.lists(st.text(max_size=2), max_size=3),
        "multi_select": st.booleans(),
        "secret": st.booleans(),
    },
)


@given(st.lists(QUESTIONS, max_size=3))
def test_what_is_read_was_valid_by_the_schema_and_is_told_apart(given_: list[Any]) -> None:
    arguments = {"questions": given_}
    try:
        asked = parse_questions(arguments)
    except UsageError:
        return
    assert not VALIDATOR.errors(arguments)
    assert [question.text for question in asked] == [each["text"] for each in given_]
    assert len({question.id for question in asked}) == len(asked) == len(given_)


# ── the user answers ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("questions", "answers", "expected"),
    [
        ([COLOUR], "red", {"colour": ["red"]}),
        ([COLOUR], ["red"], {"colour": ["red"]}),
        ([COLOUR], {"colour": "red"}, {"colour": ["red"]}),
        ([COLOUR], {"Which colour?": ["red"]}, {"colour": ["red"]}),
        ([COLOUR], "a dark green", {"colour": ["a dark green"]}),
        ([SIZES], ["S", "L"], {"sizes": ["S", "L"]}),
        ([SIZES], ("S", "other"), {"sizes": ["S", "other"]}),
        (
            [COLOUR, SIZES, KEY],
            {"key": "abc", "sizes": "S", "colour": ["red"]},
            {"colour": ["red"], "sizes": ["S"], "key": ["abc"]},
        ),
    ],
)
def test_answers_are_lists_by_id_in_the_order_of_the_questions(
    questions: list[Question], answers: object, expected: dict[str, list[str]]
) -> None:
    checked = check_answers(questions, answers)
    assert checked == expected
    assert list(checked) == list(expected)


@pytest.mark.parametrize(
    ("questions", "answers", "said"),
    [
        ([COLOUR], None, r"a dict of texts by id \(colour\), not with a value of type NoneType"),
        ([COLOUR, KEY], "red", r"a dict of texts by id \(colour, key\), not .* type str"),
        ([COLOUR, KEY], {"colour": "red"}, r"Question 'key' \(The key\?\) is not answered"),
        ([COLOUR], {"color": "red"}, "There is no question 'color'; asked were colour"),
        ([COLOUR], {"colour": "a", "Which colour?": "b"}, "answered twice, by its id and by its"),
        ([COLOUR], ["red", "blue"], "'colour' takes one answer, not 2: it is not multi_select"),
        ([COLOUR], {"colour": 3}, "answer to 'colour' must be text or a list of texts"),
        ([COLOUR], {"colour": [3]}, "answer to 'colour' must be text or a list of texts"),
        ([COLOUR], {"colour": {"a": "b"}}, "answer to 'colour' must be text or a list of texts"),
        ([COLOUR], "", "answer to 'colour' is empty"),
        ([SIZES], [], "answer to 'sizes' is empty"),
        ([SIZES], ["S", " "], "answer to 'sizes' is empty"),
        ([SIZES], ["S", "S"], "answer to 'sizes' names the same text twice"),
    ],
)
def test_what_is_no_answer_is_refused_by_the_questions_name(
    questions: list[Question], answers: object, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        check_answers(questions, answers)


ANSWERS = st.text(max_size=3) | st.lists(st.text(max_size=2), max_size=3) | st.integers()


@given(
    st.dictionaries(st.sampled_from(["colour", "sizes", "key", "Which colour?", "x"]), ANSWERS)
    | ANSWERS
)
def test_whatever_is_answered_every_question_has_its_texts_or_the_error_is_typed(
    answers: Any,
) -> None:
    asked = [COLOUR, SIZES, KEY]
    try:
        checked = check_answers(asked, answers)
    except UsageError:
        return
    assert list(checked) == ["colour", "sizes", "key"]
    for question in asked:
        texts = checked[question.id]
        assert texts
        assert all(text.strip() for text in texts)
        assert len(texts) == 1 or question.multi_select
    assert check_answers(asked, checked) == checked


def test_an_error_about_a_secret_does_not_tell_it() -> None:
    for answers in (["hunter2", "hunter2"], ["hunter2", "x"], {"key": ["hunter2", 3]}):
        with pytest.raises(UsageError) as caught:
            check_answers([KEY], answers)
        assert "hunter2" not in str(caught.value)
