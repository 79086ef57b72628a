"""Whether a call may run: a pure decision over modes, rules and annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vllm_agent_sdk.types.messages import ToolCall
from vllm_agent_sdk.types.permissions import PermissionRule, PermissionRules
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["Verdict", "decide", "denied", "remedy"]

_RULE = "A rule asks about "
_OUTSIDE = ", outside the permitted folders."
_MCP = " is not marked read-only by its MCP server."
_DESTRUCTIVE = " is marked destructive."


@dataclass(frozen=True, slots=True)
class Verdict:
    """`allow`, `deny` or `ask`, and why."""

    answer: Literal["allow", "deny", "ask"]
    reason: str = ""


def decide(
    rules: PermissionRules,
    grants: tuple[PermissionRule, ...],
    spec: ToolSpec,
    call: ToolCall,
    *,
    ask: str | None = None,
    outside: tuple[str, ...] = (),
) -> Verdict:
    """Decide about a call. Deny beats ask beats allow.

    Args:
        rules: Mode and rules.
        grants: What was allowed for later calls.
        spec: The tool.
        call: The call, its arguments parsed.
        ask: Why a hook wants it to be asked for.
        outside: Paths in its arguments outside the permitted folders.
    """
    verdict = _decide(rules, grants, spec, call, ask, outside)
    if verdict.answer == "ask" and rules.mode == "dontAsk":
        return Verdict("deny", f"{verdict.reason} Nothing is asked for in mode 'dontAsk'.")
    return verdict


def denied(rules: PermissionRules, spec: ToolSpec, call: ToolCall) -> Verdict | None:
    """Give the no that nobody's yes can change: of a deny rule, or of mode `plan`."""
    if _matching(rules.deny, spec, call):
        return Verdict("deny", f"A rule denies {call.name}.")
    if rules.mode == "plan" and not spec.read_only:
        return Verdict("deny", f"{call.name} is not read-only, and this is planning (mode 'plan').")
    return None


def remedy(call: ToolCall, reason: str) -> str:
    """Say what lets a call run without asking that asks for this reason; "" for a hook's."""
    if reason.startswith(_RULE):
        return "It runs if no rule in Permissions(ask=…) names it."
    if reason.endswith(_OUTSIDE):
        return "Permissions(directories=…) is where folders are added."
    if reason.endswith((_MCP, _DESTRUCTIVE)):
        return f"Permissions(allow=({call.name!r},)) permits it."
    return ""


def _decide(
    rules: PermissionRules,
    grants: tuple[PermissionRule, ...],
    spec: ToolSpec,
    call: ToolCall,
    ask: str | None,
    outside: tuple[str, ...],
) -> Verdict:
    no = denied(rules, spec, call)
    if no is not None:
        return no
    if ask is not None:
        return Verdict("ask", ask)
    if _matching(rules.ask, spec, call):
        return Verdict("ask", f"{_RULE}{call.name}.")
    if outside and rules.mode != "bypassPermissions":
        paths = ", ".join(outside)
        return Verdict("ask", f"{call.name} would touch {paths}{_OUTSIDE}")
    allowing = (*rules.allow, *grants)
    if rules.mode == "bypassPermissions" or any(
        rule.matches(spec, call, whole=True) for rule in allowing
    ):
        return Verdict("allow")
    if rules.mode == "acceptEdits" and spec.edits_files:
        return Verdict("allow")
    return _by_annotation(spec, call)


def _by_annotation(spec: ToolSpec, call: ToolCall) -> Verdict:
    if spec.kind == "mcp" and not spec.read_only:
        return Verdict("ask", f"{call.name}{_MCP}")
    if spec.destructive:
        return Verdict("ask", f"{call.name}{_DESTRUCTIVE}")
    return Verdict("allow")


def _matching(rules: tuple[PermissionRule, ...], spec: ToolSpec, call: ToolCall) -> bool:
    return any(rule.matches(spec, call) for rule in rules)
