"""Python functions as tools: the `@tool` decorator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from vllm_agent_sdk.errors import UsageError

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.tools.function import FunctionTool

__all__ = ["tool"]

P = ParamSpec("P")
R = TypeVar("R")

#: A schema by hand: JSON Schema, the short form `{"city": str}`, or a class with fields.
SchemaLike = Mapping[str, Any] | type


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
    # What makes a tool is loaded with the first one: importing `tool` stays quick.
    from vllm_agent_sdk.agent.tools.making import make

    if not args:
        return functools.partial(make, options)
    if len(args) != 1 or isinstance(args[0], str):
        raise UsageError(
            "@tool takes a function, or name, description and schema, or keywords only: "
            '@tool, @tool("name", "what it does", {"city": str}), @tool(name="name").'
        )
    return make(options, args[0])


_OPTIONS = {
    "name", "description", "schema", "read_only", "idempotent", "destructive", "open_world",
    "reads_files", "edits_files", "serial", "timeout", "max_output", "background", "detach_after",
    "deferred", "strict", "coerce",
}  # fmt: skip
