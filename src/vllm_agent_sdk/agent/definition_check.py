"""What of an agent's definition can be checked without a server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from vllm_agent_sdk._core.run.questions import QUESTION_TOOL
from vllm_agent_sdk._core.run.state import ANSWER_TOOL
from vllm_agent_sdk.agent.model.client import check_client
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.hooks import Hooks
from vllm_agent_sdk.types.messages import Message, SystemMessage
from vllm_agent_sdk.types.options import Context, Limits, Sampling
from vllm_agent_sdk.types.permissions import Permissions, takes

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.definition import Agent

__all__ = ["check", "check_changes", "checked_history"]

_GROUPS = {
    "sampling": Sampling,
    "limits": Limits,
    "permissions": Permissions,
    "hooks": Hooks,
    "context": Context,
}
_MODES = ("auto", "plain", "native", "required", "guided", "envelope")


def check(agent: Agent[Any, Any]) -> None:
    """Refuse what cannot work.

    Raises:
        UsageError: Names the field, and what to give.
    """
    for name, cls in _GROUPS.items():
        value = getattr(agent, name)
        if not isinstance(value, cls):
            raise UsageError(f"{name}= takes {cls.__name__}(…), not {type(value).__name__}.")
    for name in ("model", "fallback_model"):
        served = getattr(agent, name)
        if served is not None and not (isinstance(served, str) and served.strip()):
            raise UsageError(f"{name}={served!r}: give the name of a served model, or None.")
    if agent.ask_user is not None and not takes(agent.ask_user, 2):
        raise UsageError("ask_user= takes a function of (questions, ctx).")
    if agent.turn_mode not in _MODES:
        raise UsageError(f"turn_mode={agent.turn_mode!r}: give one of {', '.join(_MODES)}.")
    if agent.name is not None and "/" in agent.name:
        raise UsageError(
            f"name={agent.name!r}: a slash parts a subagent's id from its caller's; leave it out."
        )
    if agent.limits.max_cost is not None and not agent.prices:
        raise UsageError("Limits(max_cost=…) needs prices=: without them the cost is unknown.")
    if agent.tool_choice is not None and not agent.tools:
        raise UsageError("tool_choice= needs tools=.")
    check_client(agent.client, agent.api)
    if agent.api == "responses" and type(agent.sampling.thinking) is int:
        raise UsageError(
            "api='responses' cannot bound thinking by tokens: give thinking=True or an effort, or "
            "leave api= out."
        )
    _check_names(agent)


def check_changes(agent: Agent[Any, Any], changes: Iterable[str]) -> None:
    """Refuse changes of fields that there are not.

    Raises:
        UsageError: Names one, and the fields there are.
    """
    known = {f.name for f in fields(agent) if f.init}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise UsageError(f"Agent has no field {unknown[0]!r}; it has {', '.join(sorted(known))}.")


def checked_history(history: Iterable[Message]) -> list[Message]:
    """Give the messages of a conversation so far.

    Raises:
        UsageError: Something is none, or is the system text.
    """
    said = list(history)
    for item in said:
        if isinstance(item, SystemMessage) or not isinstance(item, Message):
            raise UsageError(
                "history= takes the messages of earlier runs (result.messages), not "
                f"{type(item).__name__}; a system text goes into instructions=."
            )
    return said


def _check_names(agent: Agent[Any, Any]) -> None:
    """Refuse tools under the names of tools of ours, where the run has these too."""
    taken = {
        QUESTION_TOOL.name: agent.ask_user is not None and "ask_user= gives the model a tool",
        ANSWER_TOOL: agent.output is not str and "a typed output= may be given by a tool",
    }
    for name, why in taken.items():
        if why and name in agent.offered:
            raise UsageError(f"A tool is called {name}, and {why} of that name. Rename yours.")
