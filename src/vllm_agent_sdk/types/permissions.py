"""Permissions as values: what may run, what asks, and how an ask is answered."""

from __future__ import annotations

import fnmatch
import inspect
import os
import posixpath
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types._codec import Fact, Record
from vllm_agent_sdk.types.messages import ToolCall
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = [
    "Allow",
    "CanUseTool",
    "Decision",
    "Defer",
    "Deny",
    "PermissionMode",
    "PermissionRule",
    "PermissionRules",
    "Permissions",
    "takes",
]

PermissionMode: TypeAlias = Literal[
    "default", "acceptEdits", "plan", "dontAsk", "bypassPermissions"
]


class Allow(msgspec.Struct, frozen=True, tag_field="kind", tag="allow", omit_defaults=True):
    """Yes, this call may run.

    Attributes:
        input: Other arguments to run it with, a whole object (None: the model's own).
        remember: A rule, or several, by which later calls run without asking, as in
            `Permissions(allow=…)`: `"get_weather"`, `"write_file(path=/tmp/*)"`.
    """

    input: dict[str, Any] | None = None
    remember: str | tuple[str, ...] | None = None


class Deny(Fact, frozen=True, omit_defaults=True):
    """No, and what the model is told.

    Attributes:
        message: Why not, for the model.
        interrupt: End the run too (`stop_reason="denied"`).
    """

    message: str = "The user does not want this call to be made."
    interrupt: bool = False


class Defer(Fact, frozen=True):
    """Not now: the run suspends, and `session.resolve` gives the answer later."""


Decision: TypeAlias = Allow | Deny | Defer

#: `can_use_tool(call, ctx)`; `ctx` is the `RunContext` of the call.
CanUseTool: TypeAlias = Callable[[ToolCall, Any], Decision | Awaitable[Decision]]

_RULE = re.compile(r"(?P<name>[A-Za-z0-9_*?\[\]!.-]+)(?:\((?P<inside>.*)\))?", re.DOTALL)
_ARGUMENT = re.compile(r"(?P<argument>[A-Za-z_][A-Za-z0-9_-]*)=(?P<pattern>.*)", re.DOTALL)


class PermissionRule(Record, frozen=True, omit_defaults=True):
    """A rule: `name`, `name(pattern)` or `name(argument=pattern)`, with shell-style patterns.

    `*` matches anything (`/` and line ends too), `?` one character, `[…]` a set; upper and lower
    case differ. `name(pattern)` is matched against the first parameter of the tool's schema.
    `mcp__sdk__NAME` also matches the Python tool NAME. An argument that was left out counts with
    its schema's default, one that is no text as JSON, each item of a list by itself. Arguments
    that the tool declares as paths are compared in their plain form: `/tmp/../etc` is `/etc`.

    Attributes:
        tool: The pattern of the tool's name.
        argument: The argument that is matched; None: the first one.
        pattern: What its text must match; None: the rule is about every call of the tool.
    """

    tool: str
    argument: str | None = None
    pattern: str | None = None

    @classmethod
    def of(cls, text: str) -> PermissionRule:
        """Read a rule.

        Raises:
            UsageError: The text is no rule.
        """
        try:
            found = _RULE.fullmatch(text)
        except TypeError:
            found = None
        if found is None or found["inside"] == "":
            raise UsageError(
                f"{text!r} is no permission rule: write 'tool', 'tool(pattern)' or "
                "'tool(argument=pattern)', with * for anything."
            )
        inside = found["inside"]
        if inside is None:
            return cls(tool=found["name"])
        named = _ARGUMENT.fullmatch(inside)
        if named is not None:
            return cls(tool=found["name"], argument=named["argument"], pattern=named["pattern"])
        return cls(tool=found["name"], pattern=inside)

    def __str__(self) -> str:
        """Give the text it is read from."""
        if self.pattern is None:
            return self.tool
        inside = self.pattern if self.argument is None else f"{self.argument}={self.pattern}"
        return f"{self.tool}({inside})"

    def matches(self, spec: ToolSpec, call: ToolCall, *, whole: bool = False) -> bool:
        """Tell whether the rule is about this call.

        Args:
            spec: The tool.
            call: The call.
            whole: Of an argument that is a list, every item must match, not any of them: what
                allows must cover all, what forbids must find one.
        """
        if not self._names(spec, call.name):
            return False
        if self.pattern is None:
            return True
        properties = spec.parameters.get("properties", {})
        arguments = call.arguments or {}
        argument, pattern = self.argument, self.pattern
        if argument is None or not (argument in arguments or argument in properties):
            # The text had a `=` and no name of an argument before it.
            pattern = pattern if argument is None else f"{argument}={pattern}"
            argument = next(iter(properties), "")
        path = argument in spec.reads_files or argument in spec.edits_files
        texts = _texts(arguments, properties, argument)
        if path:
            texts = [_plain(text) for text in texts]
            pattern = pattern if ".." in pattern.split("/") else _plain(pattern)
        found = [fnmatch.fnmatchcase(text, pattern) for text in texts]
        return bool(found) and (all(found) if whole else any(found))

    def _names(self, spec: ToolSpec, name: str) -> bool:
        if fnmatch.fnmatchcase(name, self.tool):
            return True
        own = self.tool.removeprefix("mcp__sdk__")
        return own != self.tool and spec.kind != "mcp" and fnmatch.fnmatchcase(name, own)


class PermissionRules(Record, frozen=True, omit_defaults=True):
    """The part of `Permissions` that is data; it is kept with the run."""

    mode: PermissionMode = "default"
    allow: tuple[PermissionRule, ...] = ()
    deny: tuple[PermissionRule, ...] = ()
    ask: tuple[PermissionRule, ...] = ()
    directories: tuple[str, ...] = ()
    unanswered: str = "deny"


class Permissions(Record, frozen=True):
    """What an agent may do, and who is asked.

    Deny beats ask beats allow. Without a rule: a Python tool runs unless it is marked destructive,
    an MCP tool runs if it is read-only, everything else asks.

    Attributes:
        mode: `default`; `acceptEdits`: tools that declare `edits_files` run too; `plan`: only
            read-only tools; `dontAsk`: what would ask is denied; `bypassPermissions`: everything
            runs that no deny or ask rule names.
        allow: Rules of what runs without asking.
        deny: Rules of what never runs.
        ask: Rules of what always asks.
        can_use_tool: Answers an ask with `Allow`, `Deny` or `Defer`; it gets the call and its
            `RunContext`, and may be async. None: nobody answers.
        directories: Folders that tools may touch by the arguments they declare in `reads_files`
            and `edits_files`; outside of them asks. Empty: no such limit.
        unanswered: `deny` or `suspend`: what becomes of an ask that nobody answers.
    """

    mode: PermissionMode = "default"
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    can_use_tool: CanUseTool | None = None
    directories: tuple[str | os.PathLike[str], ...] = ()
    unanswered: Literal["deny", "suspend"] = "deny"

    def __post_init__(self) -> None:
        """Refuse what is no permission."""
        check_mode(self.mode)
        if self.unanswered not in {"deny", "suspend"}:
            raise UsageError(
                f"Permissions(unanswered={self.unanswered!r}): it is 'deny' or 'suspend'."
            )
        if self.can_use_tool is not None and not takes(self.can_use_tool, 2):
            raise UsageError("Permissions(can_use_tool=…) takes a function of (call, ctx).")
        self.rules()

    def rules(self) -> PermissionRules:
        """Give what is data of it. Raises `UsageError` for a rule that is none."""
        return PermissionRules(
            mode=self.mode,
            allow=_rules("allow", self.allow),
            deny=_rules("deny", self.deny),
            ask=_rules("ask", self.ask),
            directories=_directories(self.directories),
            unanswered=self.unanswered,
        )


def takes(fn: Any, count: int) -> bool:
    """Say whether something can be called with so many arguments."""
    try:
        inspect.signature(fn).bind(*[None] * count)
    except TypeError:  # it takes something else, or is no function
        return False
    except ValueError:  # a function of C that does not tell
        return True
    return True


def check_mode(mode: object) -> PermissionMode:
    """Give the mode back; raises `UsageError` for one that is none."""
    if mode not in get_args(PermissionMode):
        modes = ", ".join(get_args(PermissionMode))
        raise UsageError(f"{mode!r} is no permission mode; the modes are {modes}.")
    return cast("PermissionMode", mode)


def _rules(name: str, texts: Iterable[str]) -> tuple[PermissionRule, ...]:
    if isinstance(texts, str):
        raise UsageError(f"Permissions({name}=…) takes a tuple of rules: ({texts!r},).")
    return tuple(PermissionRule.of(text) for text in texts)


def _directories(paths: Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    if isinstance(paths, (str, os.PathLike)):
        raise UsageError(f"Permissions(directories=…) takes a tuple of folders: ({paths!r},).")
    return tuple(_directory(path) for path in paths)


def _directory(path: str | os.PathLike[str]) -> str:
    text: object = os.fspath(path) if isinstance(path, os.PathLike) else path
    # An empty text would be the working directory: nobody means that.
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise UsageError(f"Permissions(directories=…): {path!r} is no folder; '.' is this one.")
    return text


def _texts(arguments: dict[str, Any], properties: dict[str, Any], name: str) -> list[str]:
    """Give what a pattern is compared with: an argument's text, or those of its items."""
    if name in arguments:
        value = arguments[name]
    else:
        schema = properties.get(name)
        value = schema.get("default") if isinstance(schema, dict) else None
        if value is None:
            return []
    items = value if isinstance(value, list) else [value]
    return [item if isinstance(item, str) else _codec.canonical(item).decode() for item in items]


def _plain(path: str) -> str:
    """Give a path without `.`, `..` and doubled slashes, as far as its text alone tells."""
    plain = posixpath.normpath(path)
    return f"/{plain.lstrip('/')}" if plain.startswith("/") else plain
