"""What `@tool` makes of a function: its name, its schema, its specification."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args, get_origin

from vllm_agent_sdk._core.schema.refs import resolve
from vllm_agent_sdk._core.schema.schema import (
    Parameters,
    Unresolved,
    Validator,
    arguments_of,
    docstring_of,
    fields_of,
    hints_of,
    parameters_of,
    type_schema,
)
from vllm_agent_sdk._core.schema.values import Decode, decode_object, keep
from vllm_agent_sdk.agent.tools.function import FunctionTool, is_async
from vllm_agent_sdk.errors import SchemaError, UsageError
from vllm_agent_sdk.types.tools import TOOL_NAME, RunContext, ToolSpec

__all__ = ["make"]

# Patterns are compiled at their first use: importing stays quick.
_CONTEXT_TEXT = r"(\w+\.)*RunContext(\[.*\])?(\s*\|\s*None)?"

# Between `@tool` and here.
_ON_THE_WAY = (__name__, "vllm_agent_sdk.agent.tools.tool", "functools")

_SWITCHES = (
    "read_only", "idempotent", "destructive", "serial", "strict", "coerce", "background",
    "deferred",
)  # fmt: skip


def make(options: Mapping[str, Any], fn: Any) -> FunctionTool[Any, Any, Any]:
    """Make a function a tool.

    Args:
        options: The keywords of `@tool`, known ones all.
        fn: The function.

    Raises:
        UsageError: The function, its name or an option cannot be used.
        SchemaError: A parameter has no JSON form, or the schema is wrong.
    """
    options = dict(options)
    name = _checked_name(fn, options.pop("name", None))
    description = options.pop("description", None)
    schema = options.pop("schema", None)
    localns = _caller_locals(fn)
    contexts = _context_parameters(fn, localns)
    if schema is None:
        parameters = parameters_of(fn, contexts, localns)
    else:
        parameters = _by_hand(fn, name, schema, contexts, localns)
    if description is None:
        description = docstring_of(fn).description
    if not isinstance(description, str):
        raise UsageError(
            f"The description of tool {name} is {type(description).__name__}, no text."
        )
    _check_options(name, options, parameters.schema)
    spec = ToolSpec(
        name=name,
        description=description,
        parameters=parameters.schema,
        threaded=not is_async(fn),
        **options,
    )
    return FunctionTool(fn, spec, parameters, contexts)


def _checked_name(fn: Any, name: str | None) -> str:
    if isinstance(fn, FunctionTool):
        raise UsageError(f"{fn.name} is a tool already; give @tool the function.")
    if not callable(fn) or isinstance(fn, type):
        raise UsageError(f"@tool takes a function, not {fn!r:.80}.")
    own = getattr(fn, "__name__", None)
    if own == "<lambda>":
        raise UsageError("A lambda has no annotations to make a schema of; write a def.")
    if any(
        check(part)
        for check in (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        for part in (fn, getattr(fn, "__call__", None))  # noqa: B004  the method itself is meant
    ):
        raise UsageError(f"{own or fn!r} is a generator; a tool returns its result in one piece.")
    if name is None and own is None:
        raise UsageError(f"{fn!r:.80} has no name: give one, tool(fn, name=…).")
    name = own if name is None else name
    if not isinstance(name, str) or not re.fullmatch(TOOL_NAME, name):
        raise UsageError(
            f"{name!r} cannot be a tool's name: 1 to 64 characters of A-Z a-z 0-9 _ - are allowed. "
            "Give another with name=."
        )
    return name


def _check_options(name: str, options: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    known = schema.get("properties", {})
    for option in ("reads_files", "edits_files"):
        names = options.get(option, ())
        if not isinstance(names, tuple) or not all(isinstance(item, str) for item in names):
            raise UsageError(f'{option} of tool {name} is a tuple of argument names: ("path",).')
        if missing := [item for item in names if item not in known]:
            raise UsageError(f"{option} of tool {name} names {missing[0]!r}, which is no argument.")
    for option in ("timeout", "detach_after"):
        seconds = options.get(option)
        if seconds is not None and not (isinstance(seconds, (int, float)) and seconds > 0):
            raise UsageError(f"{option} of tool {name} is {seconds!r}; it takes seconds above 0.")
    most = options.get("max_output")
    if most is not None and (type(most) is not int or most < 1):
        raise UsageError(f"max_output of tool {name} is {most!r}; it takes characters, 1 or more.")
    ways = [way for way in ("background", "detach_after", "deferred") if options.get(way)]
    if len(ways) > 1:
        raise UsageError(f"Tool {name} is {' and '.join(ways)}: choose one.")
    if options.get("read_only") and (options.get("destructive") or options.get("edits_files")):
        raise UsageError(f"Tool {name} is read_only, yet destructive or with edits_files; choose.")
    for option in _SWITCHES:
        if not isinstance(options.get(option, False), bool):
            raise UsageError(f"{option} of tool {name} is True or False, not {options[option]!r}.")


def _caller_locals(fn: Any) -> dict[str, Any]:
    """Give the names visible where `@tool` was written, for a function made in a function."""
    if "<locals>" not in getattr(fn, "__qualname__", ""):
        return {}
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") in _ON_THE_WAY:
        frame = frame.f_back
    same_module = frame is not None and frame.f_globals is getattr(fn, "__globals__", None)
    return dict(frame.f_locals) if frame is not None and same_module else {}


def _context_parameters(fn: Any, localns: Mapping[str, Any]) -> tuple[str, ...]:
    hints = hints_of(fn, localns)
    return tuple(name for name, hint in hints.items() if _is_context(hint))


def _is_context(hint: Any) -> bool:
    if isinstance(hint, Unresolved):  # imported for type checking only, or its Deps are
        return re.fullmatch(_CONTEXT_TEXT, hint.text) is not None
    origin = get_origin(hint)
    if origin in (typing.Annotated, typing.Union, types.UnionType):
        return any(_is_context(arg) for arg in get_args(hint))
    return (origin or hint) is RunContext


# ── schemas by hand ──────────────────────────────────────────────────────────────────────────────


def _by_hand(
    fn: Any, name: str, schema: Any, contexts: tuple[str, ...], localns: Mapping[str, Any]
) -> Parameters:
    """Take a schema that was given, and find how the function wants its arguments."""
    made, whole = _given_schema(name, schema, localns)
    own = [parameter for parameter in arguments_of(fn) if parameter.name not in contexts]
    properties = made.schema.get("properties", {})
    positional = tuple((p.name, p.default) for p in own if p.kind is p.POSITIONAL_ONLY)
    by_name = {p.name for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    if len(own) == len(by_name) == 1 and not by_name & set(properties):
        return _OneDict(made.schema, {own[0].name: whole}, None, positional)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in own)
    needed = {p.name for p in own if p.default is p.empty} & by_name
    if (
        isinstance(schema, type)
        or (set(properties) - by_name and not takes_any)
        or needed - set(made.schema.get("required", ()))
    ):
        raise SchemaError(
            f"Tool {name}: the function takes {', '.join(p.name for p in own) or 'nothing'}, the "
            f"schema has {', '.join(properties) or 'nothing'}. Take one dict, or a parameter for "
            "each property (with a default where it is not required)."
        )
    decoders = {name: made.decoders.get(name, keep) for name in by_name}
    return replace(
        made, decoders=decoders, extra=keep if takes_any else None, positional=positional
    )


class _OneDict(Parameters):
    """Parameters of a function that takes all arguments as one object."""

    __slots__ = ()

    def bind(
        self, arguments: Mapping[str, Any], given: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        (name,) = self.decoders
        # Paths begin at the arguments, so the parameter's own name is no part of them.
        value = self.decoders[name](arguments, "")
        if self.positional:
            return [value], dict(given)
        return [], {**given, name: value}


def _given_schema(name: str, schema: Any, localns: Mapping[str, Any]) -> tuple[Parameters, Decode]:
    """Make parameters of a given schema, and what decodes the arguments as one object."""
    where = f"The schema of tool {name}"
    if isinstance(schema, type):
        made, decode = type_schema(schema, where, localns)
        root = {**resolve(made, made), **({"$defs": made["$defs"]} if "$defs" in made else {})}
        if root.get("type") != "object":
            raise SchemaError(f"{where} is {schema.__qualname__}, which is no object with fields.")
        return Parameters(root, {}, None, ()), decode
    if not isinstance(schema, Mapping):
        raise SchemaError(f"{where} is a dict or a class with fields, not {schema!r:.80}.")
    if not any(isinstance(value, _JSON_VALUES) for value in schema.values()):
        short = fields_of(schema, f"tool {name}", localns)
        required = list(short.schema.get("required", ()))
        return short, decode_object(short.decoders, required, dict)
    full = {"type": "object", **schema} if "properties" in schema else dict(schema)
    if full.get("type") != "object":
        raise SchemaError(
            f'{where} must be an object schema, {{"type": "object", "properties": {{…}}}}, or map '
            'names to types, {"city": str}.'
        )
    Validator(full, where).check()
    return Parameters(full, {}, None, ()), keep


#: What the values of a JSON Schema are; types are none of these.
_JSON_VALUES = (str, bool, int, float, list, dict, type(None))
