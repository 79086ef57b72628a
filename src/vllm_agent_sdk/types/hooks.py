"""Hooks as values: what they are told, what they may answer, and when they run."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types._codec import Record
from vllm_agent_sdk.types.permissions import Allow, takes

__all__ = [
    "HOOK_OUTPUTS",
    "AddContext",
    "Ask",
    "Block",
    "Continue",
    "HookEvent",
    "HookEventName",
    "HookFunction",
    "HookOutput",
    "HookSpec",
    "Hooks",
    "Matcher",
    "Rewrite",
    "RewriteOutput",
    "Stop",
]

HookEventName: TypeAlias = Literal[
    "pre_tool_use",
    "post_tool_use",
    "post_tool_use_failure",
    "user_prompt_submit",
    "permission_request",
    "stop",
    "subagent_start",
    "subagent_stop",
    "pre_compact",
    "notification",
    "session_start",
    "session_end",
]


class _Output(msgspec.Struct, frozen=True, tag_field="kind", omit_defaults=True):
    """Base of what a hook can answer."""


class Block(_Output, frozen=True, tag="block"):
    """Don't let it happen; the reason is told to the model (or, for a prompt, to the user)."""

    reason: str


class Rewrite(_Output, frozen=True, tag="rewrite"):
    """Go on with another input: a call's arguments, or `{"prompt": text}` for a prompt."""

    input: dict[str, Any]


class RewriteOutput(_Output, frozen=True, tag="rewrite_output"):
    """The model reads this instead of what the tool gave: text, or anything JSON can hold."""

    value: Any


class AddContext(_Output, frozen=True, tag="add_context"):
    """Tell the model something besides."""

    text: str


class Ask(_Output, frozen=True, tag="ask"):
    """Ask for permission, whatever the rules say."""

    prompt: str


class Stop(_Output, frozen=True, tag="stop"):
    """End the run (`stop_reason="hook_stopped"`)."""

    reason: str


class Continue(_Output, frozen=True, tag="continue"):
    """Don't end yet: the instruction goes to the model as the next message."""

    instruction: str


HookOutput: TypeAlias = Block | Rewrite | RewriteOutput | AddContext | Ask | Stop | Continue | Allow

_TOOL_ENDED = (RewriteOutput, AddContext, Block, Stop)

#: Which outputs have an effect where; any other is an `UnsupportedHookOutputError`.
HOOK_OUTPUTS: dict[str, tuple[type[Any], ...]] = {
    "pre_tool_use": (Block, Rewrite, Ask, AddContext, Stop, Allow),
    "post_tool_use": _TOOL_ENDED,
    "post_tool_use_failure": _TOOL_ENDED,
    "user_prompt_submit": (Block, Rewrite, AddContext, Stop),
    "permission_request": (Block, Rewrite, AddContext, Stop, Allow),
    "stop": (Continue, Block, AddContext, Stop),
    "subagent_start": (Block, Rewrite, Ask, AddContext, Stop),
    "subagent_stop": _TOOL_ENDED,
    "pre_compact": (Block, AddContext, Stop),
    "notification": (),
    "session_start": (AddContext,),
    "session_end": (),
}


#: Events that are about nothing with a name: a pattern has nothing to match.
_NAMELESS = {"user_prompt_submit", "stop", "pre_compact", "session_start", "session_end"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HookEvent:
    """What a hook is told; what does not belong to the event is `None`.

    Attributes:
        event: Its name, such as `pre_tool_use`.
        session_id: The session's id, if there is one.
        run_id: The run's id.
        agent_id: The agent's id within the run.
        tool: The tool's name.
        call_id: The call's id.
        input: The call's arguments.
        output: What the tool gave, as the model would read it.
        error: The tool's error text, or the text of a notice.
        prompt: The user's prompt; at `stop`, the model's answer.
        deps: What was given to `run(deps=…)`.
    """

    event: str
    session_id: str | None = None
    run_id: str | None = None
    agent_id: str | None = None
    tool: str | None = None
    call_id: str | None = None
    input: dict[str, Any] | None = None
    output: Any = None
    error: str | None = None
    prompt: str | None = None
    deps: Any = None


#: A hook: sync (in a thread) or async. It gives one of the outputs, a dict as the Claude Agent
#: SDK's hooks give, or `None`.
HookFunction: TypeAlias = Callable[
    [HookEvent], HookOutput | dict[str, Any] | Awaitable[HookOutput | dict[str, Any] | None] | None
]


class HookSpec(Record, frozen=True, omit_defaults=True):
    """The part of a matcher that is data; it is kept with the run."""

    event: str
    name: str
    pattern: str = "*"
    regex: bool = False
    flags: int = 0
    timeout: float | None = 5.0
    on_failure: str = "block"

    def matches(self, subject: str) -> bool:
        """Tell whether the hook is for this tool (or subagent, or notice)."""
        if self.regex:
            return re.fullmatch(self.pattern, subject, self.flags) is not None
        return any(fnmatch.fnmatchcase(subject, one) for one in self.pattern.split("|"))


class Matcher:
    """A hook, and what it is for.

    Args:
        pattern: Of the tool's name (the subagent's, the notice's code): a name, a shell-style
            pattern, several joined by `|`, or a compiled regular expression, which must match the
            whole name. `"*"` is everything, and all there is for events about nothing named.
        fn: The hook: `fn(event)`, sync or async.
        timeout: Seconds it may take (5); `None` for no limit.
        on_failure: `"block"` if a hook that raises, is too slow or answers with what has no effect
            there counts as a `Block` (at `stop`, as a `Stop`); `"continue"` if it counts as silent.
    """

    __slots__ = ("fn", "on_failure", "pattern", "timeout")

    def __init__(
        self,
        pattern: str | re.Pattern[str],
        fn: HookFunction,
        timeout: float | None = 5,
        on_failure: Literal["block", "continue"] = "block",
    ) -> None:
        text: Any = getattr(pattern, "pattern", pattern)
        if not isinstance(text, str) or not text:
            raise UsageError(
                f"Matcher({pattern!r}, fn): the pattern is text ('*' for everything) or a compiled "
                "regular expression."
            )
        if not takes(fn, 1):
            raise UsageError(f"Matcher({text!r}, {fn!r}): fn is a function of one HookEvent.")
        if on_failure not in {"block", "continue"}:
            raise UsageError(f"Matcher(on_failure={on_failure!r}): it is 'block' or 'continue'.")
        seconds: Any = timeout
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if timeout is not None and not (number and timeout > 0):
            raise UsageError(f"Matcher(timeout={timeout!r}): give a number above 0, or None.")
        self.pattern = pattern
        self.fn = fn
        self.timeout = timeout
        self.on_failure = on_failure

    def spec(self, event: str) -> HookSpec:
        """Give what is data of it."""
        pattern = self.pattern
        regex = isinstance(pattern, re.Pattern)
        return HookSpec(
            event=event,
            name=getattr(self.fn, "__name__", type(self.fn).__name__),
            pattern=pattern.pattern if isinstance(pattern, re.Pattern) else pattern,
            regex=regex,
            flags=pattern.flags if isinstance(pattern, re.Pattern) else 0,
            timeout=self.timeout,
            on_failure=self.on_failure,
        )


class Hooks(Record, frozen=True):
    """Hooks by event, each a tuple of `Matcher`s that run in order.

    Attributes:
        pre_tool_use: Before a call is permitted. Block, Rewrite, Ask, AddContext, Stop.
        post_tool_use: After a tool gave its result. RewriteOutput, AddContext, Block (the model
            reads the reason as an error), Stop.
        post_tool_use_failure: The same, after a tool failed.
        user_prompt_submit: Before a prompt enters the conversation. Block (the prompt is dropped
            and the run ends), Rewrite, AddContext, Stop.
        permission_request: Before somebody is asked. Block (deny), Rewrite, AddContext, Stop.
        stop: Before the run ends with the model's answer. Continue, Block (as Continue),
            AddContext, Stop.
        subagent_start: Before a subagent runs. As `pre_tool_use`.
        subagent_stop: After it ran. As `post_tool_use`.
        pre_compact: Before older messages are summarised. Block (they are not), AddContext (for
            the summary's instruction), Stop.
        notification: When the run has a notice for the user. Its output has no effect: `None`.
        session_start: When a session is opened. AddContext.
        session_end: When it is closed. Its output has no effect: `None`.
    """

    pre_tool_use: tuple[Matcher, ...] = ()
    post_tool_use: tuple[Matcher, ...] = ()
    post_tool_use_failure: tuple[Matcher, ...] = ()
    user_prompt_submit: tuple[Matcher, ...] = ()
    permission_request: tuple[Matcher, ...] = ()
    stop: tuple[Matcher, ...] = ()
    subagent_start: tuple[Matcher, ...] = ()
    subagent_stop: tuple[Matcher, ...] = ()
    pre_compact: tuple[Matcher, ...] = ()
    notification: tuple[Matcher, ...] = ()
    session_start: tuple[Matcher, ...] = ()
    session_end: tuple[Matcher, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no matcher."""
        for event in get_args(HookEventName):
            given = getattr(self, event)
            if not isinstance(given, tuple) or not all(isinstance(m, Matcher) for m in given):
                raise UsageError(f"Hooks({event}=…) takes a tuple of Matcher(pattern, fn).")
            if event in _NAMELESS:
                for spec in (matcher.spec(event) for matcher in given):
                    if not spec.matches(""):
                        raise UsageError(
                            f"Hooks({event}=…): {spec.pattern!r} would never match, there is no "
                            "name to match at this event. Write Matcher('*', fn)."
                        )

    def matchers(self) -> list[tuple[HookSpec, Matcher]]:
        """Give all hooks with what is data of them, in order."""
        return [
            (matcher.spec(event), matcher)
            for event in get_args(HookEventName)
            for matcher in getattr(self, event)
        ]
