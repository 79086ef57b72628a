"""What a hook answered, as outputs that have an effect: ours, or the Claude Agent SDK's dicts."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from vllm_agent_sdk.errors import ProtocolError, UnsupportedHookOutputError, UsageError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.hooks import (
    HOOK_OUTPUTS,
    AddContext,
    Ask,
    Block,
    Continue,
    HookOutput,
    Rewrite,
    RewriteOutput,
    Stop,
)
from vllm_agent_sdk.types.permissions import Allow, Defer, Deny

__all__ = ["hook_outputs"]

T = TypeVar("T")

#: The order in which the outputs of one hook have their effect: what is added to a prompt is added
#: to the rewritten one, a no comes after a yes, the end last.
_ORDER = (Rewrite, RewriteOutput, AddContext, Allow, Ask, Block, Continue, Stop)

_TEXTS = {Block: "reason", AddContext: "text", Ask: "prompt", Stop: "reason"}

#: The Python SDK writes keywords with an underscore; snake case is taken as well.
_TOP = {
    "continue": "continue",
    "continue_": "continue",
    "stopReason": "stopReason",
    "stop_reason": "stopReason",
    "decision": "decision",
    "reason": "reason",
    "systemMessage": "systemMessage",
    "system_message": "systemMessage",
    "suppressOutput": "suppressOutput",
    "suppress_output": "suppressOutput",
    "hookSpecificOutput": "hookSpecificOutput",
    "hook_specific_output": "hookSpecificOutput",
}
_SPECIFIC = {
    "hookEventName": "hookEventName",
    "hook_event_name": "hookEventName",
    "permissionDecision": "permissionDecision",
    "permission_decision": "permissionDecision",
    "permissionDecisionReason": "permissionDecisionReason",
    "permission_decision_reason": "permissionDecisionReason",
    "updatedInput": "updatedInput",
    "updated_input": "updatedInput",
    "additionalContext": "additionalContext",
    "additional_context": "additionalContext",
    "updatedToolOutput": "updatedToolOutput",
    "updated_tool_output": "updatedToolOutput",
    "updatedMCPToolOutput": "updatedMCPToolOutput",
    "updated_mcp_tool_output": "updatedMCPToolOutput",
    "decision": "decision",
}
_ASKED = {
    "behavior": "behavior",
    "message": "message",
    "interrupt": "interrupt",
    "updatedInput": "updatedInput",
    "updated_input": "updatedInput",
}

_INSTEAD: dict[type[Any], str] = {
    Deny: "return Block(reason).",
    Defer: "a hook cannot answer later, can_use_tool can.",
    str: "return AddContext(text) to tell it to the model, Block(reason) to forbid.",
    bool: "return None to let it go on.",
}


def hook_outputs(value: object, event: str, hook: str = "hook") -> tuple[HookOutput, ...]:
    """Read what a hook returned.

    Args:
        value: One of our outputs, a dict as the Claude Agent SDK's hooks give, or `None`.
        event: What the hook ran for, such as `pre_tool_use`.
        hook: Its name, for the error.

    Returns:
        The outputs in the order in which they have their effect; none for `None` and for a dict
        that only says to go on. What they hold is JSON and nobody else's: a later change by the
        hook changes nothing.

    Raises:
        UnsupportedHookOutputError: Something in it has no effect at this event.
    """
    reader = _Reader(event, hook)
    if value is None:
        return ()
    found = reader.claude(value) if isinstance(value, dict) else [("", value)]
    kept = [reader.checked(output, key) for key, output in found]
    return tuple(sorted(kept, key=lambda output: _ORDER.index(type(output))))


#: A key of a dict, and the output that it is.
_Found = list[tuple[str, Any]]


class _Reader:
    """Reads the outputs of one hook at one event."""

    def __init__(self, event: str, hook: str) -> None:
        self._event = event
        self._hook = hook
        self._allowed = HOOK_OUTPUTS[event]

    def error(self, problem: str, instead: str | None = None) -> UnsupportedHookOutputError:
        names = ", ".join(cls.__name__ for cls in self._allowed)
        works = f"None or one of {names}" if names else "None only: what it answers has no effect"
        advice = f": {instead}" if instead else "."
        return UnsupportedHookOutputError(
            f"Hook {self._hook} at {self._event} returned {problem}{advice} "
            f"At {self._event} a hook gives {works}."
        ).with_facts(hook=self._hook, event=self._event)

    # ── our own classes ──────────────────────────────────────────────────────────────────────────

    def checked(self, output: Any, key: str = "") -> HookOutput:
        """Give the output back with JSON in it, if it has an effect here."""
        kind = type(output)
        if kind not in self._allowed:
            shown = kind.__name__ if kind in _ORDER else _kind(output)
            shown = f"{key} (that is {shown})" if key else shown
            raise self.error(f"{shown}, which has no effect there", _INSTEAD.get(kind))
        match output:
            case Rewrite(input=given):
                return Rewrite(self._input(given))
            case RewriteOutput(value=given):
                return RewriteOutput(self._json(given, "RewriteOutput.value"))
            case Allow(input=given, remember=remember):
                if remember is not None:
                    instead = (
                        "a hook is asked every time: it needs not remember, Allow() is enough."
                    )
                    raise self.error("Allow(remember=…)", instead)
                return Allow() if given is None else Allow(self._input(given))
            case Continue(instruction=text):
                return Continue(self._text(text, "Continue.instruction"))
        field = _TEXTS[kind]
        text = self._text(getattr(output, field), f"{kind.__name__}.{field}")
        return cast("HookOutput", kind(text))

    def _input(self, given: object) -> dict[str, Any]:
        value = self._json(given, "another input")
        if not isinstance(value, dict):
            raise self.error(f"another input that is {_kind(given)}", "give a dict of it all.")
        if self._event == "user_prompt_submit" and (
            set(value) != {"prompt"} or not isinstance(value["prompt"], str)
        ):
            keys = ", ".join(map(repr, value)) or "nothing"
            raise self.error(
                f"another input with {keys}", 'the input of a prompt is {"prompt": text}.'
            )
        return value

    def _json(self, value: object, name: str) -> Any:
        try:
            return _codec.decode(_codec.encode_checked(value))
        except (UsageError, ProtocolError) as cause:
            raise self.error(f"{name} that is no JSON ({cause.message.rstrip('.')})") from cause

    def _text(self, value: object, name: str) -> str:
        if not isinstance(value, str):
            raise self.error(f"{name} that is {_kind(value)}", f"{name} is text.")
        return str(self._json(value, name))

    # ── the Claude Agent SDK's dicts ─────────────────────────────────────────────────────────────

    def claude(self, value: dict[Any, Any]) -> _Found:
        """Convert a dict; what it says is checked afterwards, as our own classes are."""
        for name in ("async", "async_"):
            if name in value:
                instead = "a hook is waited for: start a task of your own and return None."
                raise self.error(f"an asynchronous output ({name!r})", instead)
        top = self._fields(value, _TOP, "")
        found = [*self._decision(top), *self._end(top)]
        if (said := self._optional(top, "systemMessage", str)) is not None:
            found.append(("systemMessage", AddContext(said)))
        # What a hook prints is never part of a run: there is nothing to suppress.
        self._optional(top, "suppressOutput", bool)
        specific = self._optional(top, "hookSpecificOutput", dict)
        if specific is not None:
            found += self._specific(self._fields(specific, _SPECIFIC, "hookSpecificOutput."))
        return found

    def _fields(self, given: dict[Any, Any], known: dict[str, str], at: str) -> dict[str, Any]:
        """Give the fields under one spelling; `None` is as if it was not there."""
        fields: dict[str, Any] = {}
        for key, value in given.items():
            name = known.get(key) if isinstance(key, str) else None
            if name is None:
                names = ", ".join(dict.fromkeys(known.values()))
                raise self.error(f"the unknown key {at}{key}", f"known are {names}.")
            if value is None:
                continue
            if name in fields:
                raise self.error(f"{at}{name} in two spellings", "give it once.")
            fields[name] = value
        return fields

    def _optional(self, fields: dict[str, Any], name: str, kind: type[T]) -> T | None:
        value = fields.get(name)
        if value is not None and not isinstance(value, kind):
            wanted = {str: "text", bool: "True or False", dict: "a dict"}[kind]
            raise self.error(f"{name} that is {_kind(value)}", f"{name} is {wanted}.")
        return value

    def _choice(self, fields: dict[str, Any], name: str, choices: tuple[str, ...]) -> str | None:
        value = fields.get(name)
        if value is not None and value not in choices:
            raise self.error(f"{name}={value!r}", f"{name} is one of {', '.join(choices)}.")
        return value

    def _decision(self, top: dict[str, Any]) -> _Found:
        decision = self._choice(top, "decision", ("block", "approve"))
        reason = self._optional(top, "reason", str)
        match decision:
            case "block":
                return [("decision", self._no(reason))]
            case "approve":
                return [("decision", Allow())]
        if reason is not None:
            raise self.error("reason without a decision", 'give decision="block" with it.')
        return []

    def _end(self, top: dict[str, Any]) -> _Found:
        goes_on = self._optional(top, "continue", bool)
        reason = self._optional(top, "stopReason", str)
        if goes_on is False:
            return [("continue", Stop(reason or f"Hook {self._hook} ended the run."))]
        if reason is not None:
            raise self.error("stopReason without continue=False", "give both, or neither.")
        return []

    def _specific(self, fields: dict[str, Any]) -> _Found:
        named = self._optional(fields, "hookEventName", str)
        if named is not None and _snake(named) != self._event:
            raise self.error(f"an output for {named}", "hookEventName names another event.")
        found: _Found = []
        if (text := self._optional(fields, "additionalContext", str)) is not None:
            found.append(("additionalContext", AddContext(text)))
        outputs = [name for name in ("updatedToolOutput", "updatedMCPToolOutput") if name in fields]
        if len(outputs) > 1:
            raise self.error(" and ".join(outputs), "give one of them.")
        found += [(name, RewriteOutput(fields[name])) for name in outputs]
        found += self._permission(fields)
        asked = self._optional(fields, "decision", dict)
        if asked is not None:
            found += self._asked(self._fields(asked, _ASKED, "hookSpecificOutput.decision."))
        return found

    def _permission(self, fields: dict[str, Any]) -> _Found:
        choices = ("allow", "deny", "ask")
        decision = self._choice(fields, "permissionDecision", choices)
        reason = self._optional(fields, "permissionDecisionReason", str)
        given = fields.get("updatedInput")
        rewritten: _Found = [] if given is None else [("updatedInput", Rewrite(given))]
        match decision:
            case "allow":  # the reason of a yes is told to nobody
                return [("permissionDecision", Allow(given))]
            case "deny":
                return [*rewritten, ("permissionDecision", self._no(reason))]
            case "ask":
                asked = Ask(reason or f"Hook {self._hook} wants it asked for.")
                return [*rewritten, ("permissionDecision", asked)]
        if reason is not None:
            raise self.error("permissionDecisionReason without permissionDecision", "give both.")
        return rewritten

    def _asked(self, fields: dict[str, Any]) -> _Found:
        """Read a PermissionRequest's `decision`."""
        behavior = self._choice(fields, "behavior", ("allow", "deny"))
        message = self._optional(fields, "message", str)
        interrupt = self._optional(fields, "interrupt", bool)
        given = fields.get("updatedInput")
        if behavior is None:
            raise self.error("a decision without behavior", "behavior is one of allow, deny.")
        if behavior == "allow":
            if message is not None or interrupt:
                raise self.error("message or interrupt with a yes", "they belong to deny.")
            return [("decision", Allow(given))]
        if given is not None:
            raise self.error("updatedInput with a no", "it belongs to allow.")
        no = self._no(message)
        end: _Found = [("interrupt", Stop(no.reason))] if interrupt else []
        return [("decision", no), *end]

    def _no(self, reason: str | None) -> Block:
        return Block(reason or f"Hook {self._hook} forbids it.")


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _snake(name: str) -> str:
    """Give an event's name as we write it: `PreToolUse` is `pre_tool_use`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")
