"""Sets of tools: under other names, shown or not from turn to turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm_agent_sdk.errors import SchemaError, UsageError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types._codec import Fact
from vllm_agent_sdk.types.protocols import Tool
from vllm_agent_sdk.types.tools import TOOL_NAME, RunContext, ToolOutput, ToolSpec

__all__ = ["Offered", "Toolset", "check_tools", "given_tools", "offered_tools"]


@dataclass(frozen=True, init=False)
class Toolset:
    """Tools that are given together, under names of their own.

    `Agent(tools=[…])` takes tools and toolsets mixed; a toolset may hold others.

    Attributes:
        tools: Tools and toolsets.
        prefix: Put before each name.
        rename: New names, by the names that the tools have here; the prefix comes before them.
        visible: `visible(ctx)`, sync or async, says before each turn which of the tools the model
            has: `True` or `False` for all, or their names (those that the tools have here, without
            `prefix` and `rename`). `ctx` is a `RunContext` whose `call` is empty. One that fails,
            or takes longer than a tool may, hides the set for this turn, with a `Notice`. `None`:
            always all. A change is a `SettingsChanged(what="tools")`; the tools stand at the
            beginning of a request, so the server's prefix cache finds nothing after one.

    Raises:
        UsageError: Something is no tool, a name cannot be one, two tools have the same, or a name
            in `rename` is none of theirs.
    """

    tools: tuple[Tool[Any] | Toolset, ...]
    prefix: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)
    visible: Callable[[RunContext[Any]], Any] | None = None

    def __init__(
        self,
        tools: Sequence[Tool[Any] | Toolset],
        prefix: str = "",
        rename: Mapping[str, str] | None = None,
        visible: Callable[[RunContext[Any]], Any] | None = None,
    ) -> None:
        set_ = object.__setattr__
        set_(self, "tools", tuple(tools))
        set_(self, "prefix", prefix)
        set_(self, "rename", dict(rename or {}))
        set_(self, "visible", visible)
        if visible is not None and not callable(visible):
            raise UsageError(f"visible= of a toolset is a function of the context, not {visible!r}")
        own = check_tools(self.tools)
        if unknown := [name for name in self.rename if name not in own]:
            raise UsageError(
                f"rename= of a toolset names {unknown[0]!r}; its tools are {', '.join(own)}."
            )
        check_tools([self])


class Offered(Fact, frozen=True, gc=True):
    """A tool as the model knows it.

    Attributes:
        tool: The tool, under the name that the model calls.
        conditions: The toolsets that may hide it, each with its name there.
    """

    tool: Tool[Any]
    conditions: tuple[tuple[Toolset, str], ...] = ()


def offered_tools(tools: Iterable[Any]) -> dict[str, Offered]:
    """Give tools by the name that the model calls, in order; those of toolsets too.

    Raises:
        UsageError: Something is no tool, a name cannot be one, or two tools have the same.
    """
    found: dict[str, Offered] = {}
    for index, item in enumerate(tools):
        for each in _each(index, item):
            name = each.tool.spec.name
            if not re.fullmatch(TOOL_NAME, name):
                raise UsageError(
                    f"{name!r} cannot be a tool's name: 1 to 64 of A-Z a-z 0-9 _ - are allowed."
                )
            if name in found:
                raise UsageError(
                    f"Two tools are called {name}: {found[name].tool!r} and {each.tool!r}. Rename "
                    'one with @tool(name=…), or give Toolset([…], prefix="…").'
                )
            found[name] = each
    return found


def given_tools(tools: Iterable[Any]) -> dict[str, Offered]:
    """Give an agent's tools by name, in order; and what reads on, where results are cut.

    Raises:
        UsageError: As `offered_tools` has it.
    """
    given = list(tools)
    found = offered_tools(given)
    if any(each.tool.spec.max_output is not None for each in found.values()):
        from vllm_agent_sdk.agent.tools.read_back import read_output

        found = offered_tools([*given, read_output])
    return found


def check_tools(tools: Iterable[Any]) -> dict[str, Tool[Any]]:
    """Give tools by name, in order.

    Raises:
        UsageError: Something is no tool, a name is malformed, or two tools have the same.
    """
    return {name: each.tool for name, each in offered_tools(tools).items()}


def _each(index: int, item: Any) -> list[Offered]:
    if isinstance(item, Toolset):
        return [_within(item, name, each) for name, each in offered_tools(item.tools).items()]
    try:
        is_tool = isinstance(item, Tool) and not isinstance(item, type)
        spec: object = item.spec if is_tool else None
    except Exception as error:
        from vllm_agent_sdk.agent.tools.results import error_text

        raise UsageError(f"The spec of tools[{index}] fails: {error_text(error)}") from error
    if not is_tool:
        shown = getattr(item, "__qualname__", None) or repr(item)
        hint = "Decorate it with @tool." if callable(item) else "It needs `spec` and `invoke`."
        raise UsageError(f"tools[{index}], {shown:.80}, is no tool. {hint}")
    _check_spec(f"tools[{index}]", spec)
    return [Offered(item)]


def _check_spec(where: str, spec: object) -> None:
    """Refuse what no request could offer; of a tool of another's making it may be anything."""
    if not isinstance(spec, ToolSpec):
        raise UsageError(f"The spec of {where} is {type(spec).__name__}; it has to be a ToolSpec.")
    parameters: object = spec.parameters
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise SchemaError(
            f"The schema of tool {spec.name} is {parameters!r:.80}; arguments are a JSON object: "
            '{"type": "object", "properties": {…}}.'
        )
    try:
        _codec.encode_checked(parameters)
    except (UsageError, TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"The schema of tool {spec.name} is no JSON: {error}") from error


def _within(toolset: Toolset, name: str, each: Offered) -> Offered:
    outer = toolset.prefix + toolset.rename.get(name, name)
    tool = each.tool if outer == name else _renamed(each.tool, outer)
    if toolset.visible is None:
        return Offered(tool, each.conditions)
    return Offered(tool, (*each.conditions, (toolset, name)))


def _renamed(tool: Tool[Any], name: str) -> Tool[Any]:
    own = getattr(tool, "renamed", None)
    renamed: Tool[Any] = _Renamed(tool, name) if own is None else own(name)
    return renamed


class _Renamed:
    """A tool of another's making under another name."""

    def __init__(self, tool: Tool[Any], name: str) -> None:
        self._tool = tool
        self._spec = tool.spec.renamed(name)
        if (coerced := getattr(tool, "coerced", None)) is not None:
            self.coerced = coerced

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    async def invoke(self, arguments: dict[str, Any], ctx: RunContext[Any]) -> ToolOutput:
        return await self._tool.invoke(arguments, ctx)

    def __repr__(self) -> str:
        return f"<{self._tool!r} as {self._spec.name}>"
