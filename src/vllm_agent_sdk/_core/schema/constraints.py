"""Constraints on a reply: what no server takes, and whether the server kept to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from vllm_agent_sdk.errors import ConstraintIgnoredError, UsageError
from vllm_agent_sdk.types.chat import ChatCompletion, content_text

__all__ = [
    "check_constraints",
    "check_kinds",
    "check_salt",
    "constrains_calls",
    "constrains_text",
    "constraint_of",
    "ended_by_itself",
    "ignored",
    "matcher_of",
    "reply_check",
    "shown",
]

KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_KIND_OF_FORMAT = {"json_object": "json_object", "json_schema": "json"}
_SALT = r"[^@/\\\0]{1,128}"
#: Patterns in which Python may see set operations; another dialect sees none.
_SET_OPERATIONS = re.compile(r"\[\[|--|&&|~~|\|\|")


def check_constraints(body: Mapping[str, Any]) -> None:
    """Refuse what no server setting can allow, before anything is sent.

    Raises:
        UsageError: Two kinds of constraint, an empty one, one that cannot go with another field,
            or a malformed `cache_salt`.
    """
    check_salt(body)
    if body.get("response_format") is not None:
        _check_schema(body["response_format"])
    outputs = body.get("structured_outputs")
    if isinstance(outputs, Mapping):
        _check_kind(outputs, body)
        _check_tool_choice(body)
    constraint = constraint_of(body)
    if constraint is not None and body.get("include_reasoning") is False:
        raise UsageError(
            f"include_reasoning=False cannot go with a constraint ({constraint[0]}): the model "
            "could not think, the constraint would hold from the first token. Leave it out and "
            "pass over `reasoning`."
        )


def check_salt(body: Mapping[str, Any]) -> None:
    """Refuse a malformed `cache_salt`."""
    salt = body.get("cache_salt")
    if salt is not None and not (isinstance(salt, str) and re.fullmatch(_SALT, salt)):
        raise UsageError("cache_salt= takes a text of 1 to 128 characters, without @ / \\ and NUL.")


def _check_schema(form: object) -> None:
    if (
        isinstance(form, Mapping)
        and form.get("type") == "json_schema"
        and form.get("json_schema") is None
    ):
        raise UsageError(
            'response_format= of type "json_schema" needs "json_schema": {"name": …, "schema": …}.'
        )


def check_kinds(outputs: Mapping[str, Any]) -> str:
    """Give the kind of `structured_outputs`; refuse several, none, and one that is empty."""
    kinds = [kind for kind in KINDS if outputs.get(kind) is not None]
    if len(kinds) != 1:
        given = " and ".join(kinds) or "none"
        raise UsageError(
            f"structured_outputs= takes exactly one of {', '.join(KINDS)}; {given} given."
        )
    kind = kinds[0]
    if (kind == "choice" and not outputs[kind]) or outputs[kind] is False:
        raise UsageError(f"structured_outputs= with {kind}={outputs[kind]!r} constrains nothing.")
    return kind


def _check_kind(outputs: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    kind = check_kinds(outputs)
    asked = _format_of(body)
    if asked is not None and _KIND_OF_FORMAT.get(asked, asked) != kind:
        raise UsageError(
            f"response_format= ({asked}) and structured_outputs= ({kind}) are two kinds of "
            "constraint; give one."
        )


def _check_tool_choice(body: Mapping[str, Any]) -> None:
    choice = body.get("tool_choice", "none")
    if isinstance(choice, Mapping):
        raise UsageError(
            "structured_outputs= cannot go with a tool_choice= that names a tool: its arguments "
            "are the constraint then. Give one."
        )
    if choice is None:
        raise UsageError(
            "structured_outputs= cannot go with tool_choice=None: vLLM refuses the null. Leave "
            "tool_choice= out."
        )


def _format_of(body: Mapping[str, Any]) -> str | None:
    """The type of the response format, if it is one that constrains."""
    form = body.get("response_format")
    if form is None:
        return None
    name = form.get("type") if isinstance(form, Mapping) else None
    return None if name in {None, "text"} else str(name)


def constraint_of(body: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Give kind and value of the constraint of a request; `None` if it has none."""
    outputs = body.get("structured_outputs")
    if outputs is not None and isinstance(outputs, Mapping):
        for kind in KINDS:
            if outputs.get(kind) is not None:
                return kind, outputs[kind]
    asked = _format_of(body)
    return None if asked is None else (_KIND_OF_FORMAT.get(asked, asked), body["response_format"])


def constrains_text(body: Mapping[str, Any]) -> bool:
    """True if white space without end may be all that a constraint lets the model write."""
    return (constraint_of(body) or (None,))[0] not in {None, "choice"}


def constrains_calls(body: Mapping[str, Any]) -> bool:
    """True if the arguments of calls are constrained, in a request to chat or for a response."""
    tools = body.get("tools") or ()
    choice = body.get("tool_choice")
    if not tools or choice == "none":
        return False
    if choice == "required" or isinstance(choice, Mapping):
        return True
    return any(_is_strict(tool) for tool in tools)


def _is_strict(tool: Mapping[str, Any]) -> bool:
    function = tool.get("function", tool)
    return isinstance(function, Mapping) and function.get("strict") is True


class _Ended(Protocol):
    """A choice of a chat or of a completion."""

    finish_reason: str | None
    stop_reason: int | str | None


def ended_by_itself(choice: _Ended, body: Mapping[str, Any]) -> bool:
    """True if the model ended the reply: not a stop string, nor a stop token that was asked for.

    A number alone proves nothing: models with several end tokens report which of them it was.
    """
    if choice.finish_reason != "stop" or isinstance(choice.stop_reason, str):
        return False
    asked = body.get("stop_token_ids") or ()
    return choice.stop_reason is None or choice.stop_reason not in asked


def matcher_of(body: Mapping[str, Any]) -> tuple[str, Callable[[str], object]] | None:
    """Give the kind of a `choice` or `regex`, and what tells whether a text meets it.

    `None` for any other constraint, and where the text begins with what it did not apply to.
    """
    constraint = constraint_of(body)
    if constraint is None:
        return None
    kind, value = constraint
    if body.get("echo") or body.get("continue_final_message"):
        return None
    if kind == "choice" and isinstance(value, (list, tuple)):
        return kind, frozenset(str(item) for item in value).__contains__
    if kind == "regex" and (pattern := _compiled(value)) is not None:
        return kind, pattern.fullmatch
    return None


def ignored(kind: str, text: str) -> ConstraintIgnoredError:
    """Say that a reply does not meet its constraint."""
    return ConstraintIgnoredError(
        f"The server did not apply the {kind}: the reply does not match{shown(text)}. Is its "
        "structured output switched off?"
    )


def reply_check(body: Mapping[str, Any]) -> Callable[[ChatCompletion[Any]], None] | None:
    """Give what checks the replies to a body with a `choice` or `regex`; `None` for any other.

    It raises `ConstraintIgnoredError` for a choice that ended by itself and does not match.
    """
    found = matcher_of(body)
    if found is None:
        return None
    kind, matches = found

    def check(reply: ChatCompletion[Any]) -> None:
        for choice in reply.choices:
            message = choice.message
            text = content_text(message.content)
            if message.refusal or message.tool_calls or not ended_by_itself(choice, body):
                continue
            if not text and (message.reasoning or message.reasoning_content):
                continue  # the constraint begins after the reasoning
            if not matches(text):
                raise ignored(kind, text)

    return check


def _compiled(pattern: object) -> re.Pattern[str] | None:
    """Compile a pattern, unless Python's dialect does not have it: then it is not checked."""
    if not isinstance(pattern, str) or _SET_OPERATIONS.search(pattern):
        return None
    try:
        return re.compile(pattern, re.DOTALL)
    except (re.error, OverflowError, RecursionError):
        return None


def shown(text: str) -> str:
    """Give the beginning of a text for a message."""
    return f": {text[:200]!r}{'…' if len(text) > 200 else ''}"
