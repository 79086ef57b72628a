"""Python functions as tools: the `@tool` decorator and what it makes."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, get_args, get_origin, overload

from vllm_agent_sdk._core.schema import (
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
from vllm_agent_sdk._core.schema_refs import resolve
from vllm_agent_sdk._core.schema_values import Decode, decode_object, keep
from vllm_agent_sdk.agent.tools.function import NAME, FunctionTool, is_async
from vllm_agent_sdk.errors import SchemaError, UsageError
from vllm_agent_sdk.types.tools import RunContext, ToolSpec

__all__ = ["FunctionTool", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

#: A schema by hand: JSON Schema, the short form `{"city": str}`, or a class with fields.
SchemaLike = Mapping[str, Any] | type

# Patterns are compiled at their first use: importing stays quick.
_CONTEXT_TEXT = r"(\w+\.)*RunContext(\[.*\])?(\s*\|\s*None)?"


# ── the decorator ────────────────────────────────────────────────────────────────────────────────


@overload
def tool(
    fn: Callable[P, R],
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    schema: SchemaLike | None = None,
    read_only: bool = False,
    idempotent: bool = False,
    destructive: bool = False,
    open_world: bool | None = None,
    reads_files: tuple[str, ...] = (),
    edits_files: tuple[str, ...] = (),
    serial: bool = False,
    timeout: float | None = None,
    max_output: int | None = None,
    background: bool = False,
    detach_after: float | None = None,
    deferred: bool = False,
    strict: bool = True,
    coerce: bool = True,
) -> FunctionTool[Any, P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    schema: SchemaLike | None = None,
    read_only: bool = False,
    idempotent: bool = False,
    destructive: bool = False,
    open_world: bool | None = None,
    reads_files: tuple[str, ...] = (),
    edits_files: tuple[str, ...] = (),
    serial: bool = False,
    timeout: float | None = None,
    max_output: int | None = None,
    background: bool = False,
    detach_after: float | None = None,
    deferred: bool = False,
    strict: bool = True,
    coerce: bool = True,
) -> Callable[[Callable[P, R]], FunctionTool[Any, P, R]]: ...
@overload
def tool(
    name: str,
    description: str,
    schema: SchemaLike,
    /,
    *,
    read_only: bool = False,
    idempotent: bool = False,
    destructive: bool = False,
    open_world: bool | None = None,
    reads_files: tuple[str, ...] = (),
    edits_files: tuple[str, ...] = (),
    serial: bool = False,
    timeout: float | None = None,
    max_output: int | None = None,
    background: bool = False,
    detach_after: float | None = None,
    deferred: bool = False,
    strict: bool = True,
    coerce: bool = True,
) -> Callable[[Callable[P, R]], FunctionTool[Any, P, R]]: ...
def tool(*args: Any, **options: Any) -> Any:
    """Make a function a tool: `@tool`, `@tool(read_only=True, …)` or `@tool(name, text, schema)`.

    The model sees the name, the docstring's text and a JSON Schema made of the annotations, with
    the docstring's descriptions of the parameters. A parameter annotated `RunContext` is filled by
    the runtime and never shown. With `schema=` the function takes either the schema's properties
    as keywords or one dict; parsed JSON is passed as it is.

    Args:
        args: The function; or name, description and schema, as in the Claude Agent SDK.
        options: As keywords, all optional.
            `name`: instead of the function's; 1 to 64 of `A-Z a-z 0-9 _ -`.
            `description`: instead of the docstring's text.
            `schema`: JSON Schema of the arguments, `{"city": str}`, or a class with fields.
            `read_only`: it changes nothing: may run in parallel, and again after a crash.
            `idempotent`: running it twice is the same as once.
            `destructive`: it may destroy something: it asks before it runs.
            `open_world`: it reaches beyond this machine (unset: unknown).
            `reads_files`, `edits_files`: names of the arguments that are paths it reads or writes.
            `serial`: no other tool runs beside it.
            `timeout`: seconds (unset: `Limits.tool_timeout_s`).
            `max_output`: characters of its result that the model sees at once; it reads on with the
            tool `read_output` (unset: all).
            `background`: its call is answered at once with a handle; its result comes later, as a
            message.
            `detach_after`: seconds after which it goes on in the background.
            `deferred`: it is executed elsewhere, the function is never called: the run suspends
            until `session.send_tool_result(…)`.
            `strict`: ask the server to constrain arguments to the schema (default on).
            `coerce`: repair arguments where nothing is lost (default on).

    Returns:
        A `FunctionTool`, which stays callable; or, called without a function, what makes one.

    Raises:
        UsageError: The function, its name or an option cannot be used.
        SchemaError: A parameter has no JSON form, or the schema is wrong.
    """
    unknown = set(options) - _OPTIONS
    if unknown:
        raise UsageError(
            f"@tool has no option {', '.join(sorted(unknown))}; "
            f"it has {', '.join(sorted(_OPTIONS))}."
        )
    if len(args) == 3 and isinstance(args[0], str):
        if doubled := {"name", "description", "schema"} & set(options):
            raise UsageError(f"@tool was given {', '.join(sorted(doubled))} twice.")
        options |= {"name": args[0], "description": args[1], "schema": args[2]}
        args = ()
    if not args:
        return functools.partial(_make, options)
    if len(args) != 1 or isinstance(args[0], str):
        raise UsageError(
            "@tool takes a function, or name, description and schema, or keywords only: "
            '@tool, @tool("name", "what it does", {"city": str}), @tool(name="name").'
        )
    return _make(options, args[0])


_OPTIONS = {
    "name", "description", "schema", "read_only", "idempotent", "destructive", "open_world",
    "reads_files", "edits_files", "serial", "timeout", "max_output", "background", "detach_after",
    "deferred", "strict", "coerce",
}  # fmt: skip


_SWITCHES = (
    "read_only", "idempotent", "destructive", "serial", "strict", "coerce", "background",
    "deferred",
)  # fmt: skip


def _make(options: dict[str, Any], fn: Any) -> FunctionTool[Any, Any, Any]:
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
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
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
    while frame is not None and frame.f_globals.get("__name__") in (__name__, "functools"):
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
