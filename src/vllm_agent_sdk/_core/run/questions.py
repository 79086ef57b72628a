"""The ask-user tool: its specification, its arguments as questions, and the answers to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.questions import Question
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["QUESTION_TOOL", "Question", "check_answers", "parse_questions"]

_NAME = "ask_user_question"

QUESTION_TOOL = ToolSpec(
    name=_NAME,
    description=(
        "Ask the user and wait for the answer. Use it when you cannot go on without something "
        "that only the user knows or decides."
    ),
    parameters={
        "type": "object",
        "properties": {
            "questions": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "text": {"type": "string", "description": "The question."},
                        "options": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "Answers to choose from.",
                        },
                        "multi_select": {
                            "type": "boolean",
                            "description": "True if several options may be chosen.",
                        },
                        "secret": {
                            "type": "boolean",
                            "description": "True for a password or the like.",
                        },
                        "id": {"type": "string", "description": "A short name of the answer."},
                    },
                    "required": ["text"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["questions"],
        "additionalProperties": False,
    },
    read_only=True,
    kind="question",
)

_QUESTION: dict[str, tuple[type, str]] = {
    "id": (str, "text"),
    "text": (str, "text"),
    "options": (list, "a list of texts"),
    "multi_select": (bool, "true or false"),
    "secret": (bool, "true or false"),
}


# ── the model asks ───────────────────────────────────────────────────────────────────────────────


def parse_questions(arguments: Mapping[str, Any]) -> list[Question]:
    """Read the arguments of a call; a question without an id is `question_1`, `question_2`, ….

    Raises:
        UsageError: They are no questions; the message is for the model.
    """
    for key in arguments:
        if key != "questions":
            raise _wrong(f"there is no argument {key!r}")
    given = arguments.get("questions")
    if not isinstance(given, list) or not given:
        raise _wrong('"questions" must be a list of at least one {"text": …}')
    questions = [_question(number, each) for number, each in enumerate(given, 1)]
    _unique([question.id for question in questions], "id")
    _unique([question.text for question in questions], "text")
    return questions


def _question(number: int, given: Any) -> Question:
    at = f"question {number}"
    if not isinstance(given, Mapping):
        raise _wrong(f'{at} must be an object with "text"')
    fields: dict[str, Any] = {}
    for key, value in given.items():
        if key not in _QUESTION:
            raise _wrong(f"{at} has an unknown field {key!r}; known are {', '.join(_QUESTION)}")
        kind, wanted = _QUESTION[key]
        if value is None:
            continue
        if not isinstance(value, kind):
            raise _wrong(f"{key} of {at} must be {wanted}")
        fields[key] = value
    fields = {"id": f"question_{number}", "text": "", **fields}
    for key in ("text", "id"):
        if not fields[key].strip():
            raise _wrong(f'{at} needs a "{key}" that is not empty')
    options = fields.get("options", [])
    if not all(isinstance(option, str) and option.strip() for option in options):
        raise _wrong(f"options of {at} must be texts that are not empty")
    _unique(options, f"option of {at}")
    return Question(**{**fields, "options": tuple(options)})


def _unique(names: list[str], what: str) -> None:
    doubles = [name for at, name in enumerate(names) if name in names[:at]]
    if doubles:
        raise _wrong(f"the {what} {doubles[0]!r} is there twice")


def _wrong(problem: str) -> UsageError:
    return UsageError(
        f"Invalid arguments for {_NAME}: {problem}. Call it again with corrected arguments."
    )


# ── the user answers ─────────────────────────────────────────────────────────────────────────────


def check_answers(questions: list[Question], answers: object) -> dict[str, list[str]]:
    """Give the answers by question id, each a list, in the order of the questions.

    The options are an offer, as with the Claude Agent SDK: any other text is an answer, too.

    Args:
        questions: What was asked.
        answers: Text, or a list of texts, by id or by the question's text; for a single question
            also the bare text or list.

    Raises:
        UsageError: A question is not answered, or not by text, or by several texts without
            `multi_select`, or an answer belongs to no question.
    """
    if isinstance(answers, (str, list, tuple)) and len(questions) == 1:
        answers = {questions[0].id: answers}
    if not isinstance(answers, Mapping):
        names = ", ".join(question.id for question in questions)
        raise UsageError(
            f"Questions are answered with a dict of texts by id ({names}), not with a value of "
            f"type {type(answers).__name__}."
        )
    by_text = {question.text: question.id for question in questions}
    ids = {question.id for question in questions}
    given: dict[str, Any] = {}
    for key, value in answers.items():
        name = key if key in ids else by_text.get(key)
        if name is None:
            raise UsageError(f"There is no question {key!r}; asked were {', '.join(sorted(ids))}.")
        if name in given:
            raise UsageError(f"Question {name!r} is answered twice, by its id and by its text.")
        given[name] = value
    return {question.id: _answer(question, given) for question in questions}


def _answer(question: Question, given: dict[str, Any]) -> list[str]:
    if question.id not in given:
        raise UsageError(f"Question {question.id!r} ({question.text}) is not answered.")
    value = given[question.id]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"The answer to {question.id!r} must be text or a list of texts.")
    if not texts or not all(text.strip() for text in texts):
        raise UsageError(f"The answer to {question.id!r} is empty.")
    if len(texts) > 1 and not question.multi_select:
        raise UsageError(
            f"Question {question.id!r} takes one answer, not {len(texts)}: it is not multi_select."
        )
    if len(set(texts)) < len(texts):
        raise UsageError(f"The answer to {question.id!r} names the same text twice.")
    return list(texts)
