"""Asking people: for permission, and what the model wants to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm_agent_sdk._core.run.policy import remedy
from vllm_agent_sdk._core.run.questions import Question, check_answers
from vllm_agent_sdk.agent.run.guarded import called
from vllm_agent_sdk.agent.tools.results import error_text
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.events import PermissionDecided, StoredEvent, ToolEnded, UserAnswered
from vllm_agent_sdk.types.messages import ToolCall, ToolMessage
from vllm_agent_sdk.types.permissions import (
    Allow,
    CanUseTool,
    Decision,
    Defer,
    Deny,
    PermissionRule,
)
from vllm_agent_sdk.types.tools import RunContext

__all__ = ["ask_permission", "ask_user", "decided"]


async def ask_permission(
    answerer: CanUseTool | None, call: ToolCall, reason: str, unanswered: str, ctx: RunContext[Any]
) -> PermissionDecided:
    """Ask; an answerer that fails or answers with something else is a no.

    Args:
        answerer: `can_use_tool`, or `None` if nobody answers.
        call: What is to run.
        reason: Why it is asked for.
        unanswered: `deny` or `suspend`, for when nobody answers.
        ctx: Where the call comes from.
    """
    if answerer is None:
        if unanswered == "suspend":
            return PermissionDecided(call_id=call.id, decision="defer", reason=reason)
        text = (
            f"{call.name} was not permitted: {reason} Nobody answers permission questions in this "
            f"run. {remedy(call, reason)}"
        )
        return PermissionDecided(call_id=call.id, decision="deny", reason=text.rstrip())
    try:
        answer = await called(answerer, call, ctx, name="can_use_tool")
        return decided(call, answer)
    except Exception as error:  # noqa: BLE001 - what a callback raises must not end the run
        text = f"{call.name} was not permitted: can_use_tool failed ({_told(error)})."
        return PermissionDecided(call_id=call.id, decision="deny", reason=text)


def decided(call: ToolCall, answer: Decision) -> PermissionDecided:
    """Give the event of an answer.

    Raises:
        UsageError: The answer is none, or holds what is no input, rule or message.
    """
    match answer:
        case Allow(input=given, remember=remember):
            if given is not None:
                given = _arguments(given)
            rules = (remember,) if isinstance(remember, str) else tuple(remember or ())
            for rule in rules:
                PermissionRule.of(rule)
            return PermissionDecided(call_id=call.id, decision="allow", input=given, remember=rules)
        case Deny(message=message, interrupt=interrupt):
            said: object = message
            if not isinstance(said, str):
                raise UsageError(f"Deny(message=…) takes text, not {type(said).__name__}.")
            _codec.encode(said)
            return PermissionDecided(
                call_id=call.id, decision="deny", reason=message, interrupt=bool(interrupt)
            )
        case Defer():
            return PermissionDecided(call_id=call.id, decision="defer")
    raise UsageError(
        f"A permission is answered with Allow(), Deny(message) or Defer(), not "
        f"{type(answer).__name__}."
    )


async def ask_user(
    answerer: Callable[..., Any] | None,
    call: ToolCall,
    questions: list[Question],
    ctx: RunContext[Any],
) -> StoredEvent:
    """Ask the user; an answerer that fails gives the model an error result."""
    if answerer is None:
        return UserAnswered(call_id=call.id, deferred=True)
    try:
        answer = await called(answerer, questions, ctx, name="ask_user")
        if isinstance(answer, Defer):
            return UserAnswered(call_id=call.id, deferred=True)
        answers = check_answers(questions, answer)
        _codec.encode(answers)
        return UserAnswered(call_id=call.id, answers=answers)
    except Exception as error:  # noqa: BLE001 - what a callback raises must not end the run
        text = f"The user could not be asked: {_told(error)}"
        return ToolEnded(name=call.name, message=ToolMessage(call.id, text, is_error=True))


def _arguments(given: object) -> dict[str, Any]:
    """Give a copy of the arguments that JSON can hold: they are stored, and are the tool's then."""
    if not isinstance(given, dict):
        raise UsageError(
            f"Allow(input=…) takes all arguments as a dict, not {type(given).__name__}."
        )
    copied: dict[str, Any] = _codec.decode(_codec.encode_checked(given))
    return copied


def _told(error: Exception) -> str:
    """Say what was raised, in text that can be stored."""
    return error_text(error).encode("utf-8", "backslashreplace").decode()
