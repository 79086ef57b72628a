"""JSON Schema for tools: parameters made of signatures, values checked and repaired.

`schema_types` makes schemas of types, `schema_check` checks values against schemas.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass
from typing import Any

from vllm_agent_sdk._core.schema.check import Validator, coerce
from vllm_agent_sdk._core.schema.docstring import Docstring, parse_docstring
from vllm_agent_sdk._core.schema.shapes import Field, object_schema, with_default
from vllm_agent_sdk._core.schema.types import Shapes, resolve_hint
from vllm_agent_sdk._core.schema.values import Decode, MismatchError
from vllm_agent_sdk.errors import SchemaError

__all__ = [
    "MismatchError",
    "Parameters",
    "Unresolved",
    "Validator",
    "arguments_of",
    "coerce",
    "docstring_of",
    "fields_of",
    "hints_of",
    "parameters_of",
    "type_schema",
]

Schema = dict[str, Any]
_POSITIONAL = inspect.Parameter.POSITIONAL_ONLY


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A string annotation that names something unknown.

    Attributes:
        text: The annotation.
        reason: Why it could not be resolved.
    """

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Parameters:
    """A function's parameters as JSON sees them.

    Attributes:
        schema: The object schema of the arguments.
        decoders: By name, what makes a Python object of an argument.
        extra: The same for arguments that go into `**kwargs`, if there is such a parameter.
        positional: Positional-only parameters in order, with their defaults.
    """

    schema: Schema
    decoders: Mapping[str, Decode]
    extra: Decode | None
    positional: tuple[tuple[str, Any], ...]

    def bind(
        self, arguments: Mapping[str, Any], given: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Make the call's positional and keyword arguments.

        Args:
            arguments: JSON data that matches the schema.
            given: Python objects for the parameters that are not in the schema.

        Raises:
            MismatchError: An argument is not of its parameter's type.
        """
        values = dict(given)
        for name, value in arguments.items():
            decode = self.decoders.get(name, self.extra)
            if decode is None:
                raise MismatchError(name, "is not a known argument")
            values[name] = decode(value, name)
        args: list[Any] = []
        for name, default in self.positional:
            if name not in values and default is inspect.Parameter.empty:
                raise MismatchError(name, "is required")
            args.append(values.pop(name, default))
        return args, values


def parameters_of(
    fn: Callable[..., Any],
    skip: Collection[str] = (),
    localns: Mapping[str, Any] | None = None,
) -> Parameters:
    """Make the schema of a function's parameters from its annotations and docstring.

    Args:
        fn: The function, method or other callable.
        skip: Parameters that the caller of the function fills by itself.
        localns: Names for string annotations that the module's globals don't have.

    Raises:
        SchemaError: A parameter has no annotation, or one that has no JSON form.
    """
    shapes = Shapes(localns)
    hints = hints_of(fn, localns)
    fields: list[Field] = []
    positional: list[tuple[str, Any]] = []
    extra: Decode | None = None
    additional: Schema | bool = False
    for parameter in arguments_of(fn):
        name, default = parameter.name, parameter.default
        if parameter.kind is _POSITIONAL:
            positional.append((name, default))
        if name in skip:
            continue
        where = f"Parameter {name!r} of {_name(fn)}"
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            raise SchemaError(f"{where}: *{name} has no place in a JSON object; take a list.")
        if parameter.kind is inspect.Parameter.VAR_KEYWORD and name not in hints:
            shape = shapes.of(Any, where)
        else:
            shape = shapes.of(_annotation(hints, name, where, default), where)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            extra, additional = shape.decode, shape.schema or True
            continue
        missing = default is inspect.Parameter.empty
        shape = with_default(shape, MISSING if missing else default)
        fields.append(Field(name, shape, missing))
    said = docstring_of(fn).parameters
    schema = shapes.finish(object_schema(fields, said, additional))
    decoders = {field.name: field.shape.decode for field in fields}
    return Parameters(schema, decoders, extra, tuple(positional))


def _annotation(hints: Mapping[str, Any], name: str, where: str, default: Any) -> Any:
    if name not in hints:
        hint = "Decorate the bound method, tool(obj.method)." if name in ("self", "cls") else (
            f"Annotate it, for example `{name}: str`."
        )  # fmt: skip
        raise SchemaError(f"{where} has no annotation. {hint}")
    annotation = hints[name]
    if isinstance(annotation, Unresolved):
        raise SchemaError(
            f"{where}: its annotation {annotation.text!r} cannot be resolved "
            f"({annotation.reason}). Import the type at run time, not only for type checking."
        )
    if type(default).__name__ == "FieldInfo":
        raise SchemaError(
            f"{where}: write `{name}: Annotated[…, Field(…)] = …`; as a default, a pydantic Field "
            "is what the function would get."
        )
    # `x: int = None` means that None may be given.
    return typing.Optional[annotation] if default is None else annotation  # noqa: UP045


def hints_of(fn: Callable[..., Any], localns: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Resolve the annotations of a callable's parameters one by one.

    An annotation that names something unknown is an `Unresolved`: whether that matters is for the
    caller to say.
    """
    target = _function(fn)
    try:
        raw = dict(getattr(target, "__annotations__", {}))
    except NameError as cause:
        raise SchemaError(
            f"The annotations of {_name(fn)} cannot be resolved: {cause}. Import the types at run "
            "time, not only for type checking."
        ) from cause
    raw.pop("return", None)
    hints: dict[str, Any] = {}
    for name, annotation in raw.items():
        try:
            hints[name] = resolve_hint(
                annotation, getattr(target, "__globals__", {}), localns or {}
            )
        except Exception as cause:  # noqa: BLE001  an annotation is code: it may raise anything
            hints[name] = Unresolved(str(annotation), str(cause))
    return hints


def _function(fn: Any) -> Any:
    """Find the function whose annotations describe a callable."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = inspect.unwrap(getattr(fn, "__func__", fn))
    if not inspect.isroutine(fn) and not isinstance(fn, type):
        fn = inspect.unwrap(type(fn).__call__)
    return fn


def docstring_of(fn: Callable[..., Any]) -> Docstring:
    """Read a callable's docstring: of a method also an inherited one, of an object `__call__`'s."""
    return parse_docstring(inspect.getdoc(fn if inspect.isroutine(fn) else _function(fn)))


def arguments_of(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    """Give the parameters that a caller may fill: what a `functools.partial` holds is settled.

    Raises:
        SchemaError: The callable does not tell its signature.
    """
    settled: set[str] = set()
    inner: Any = fn
    while isinstance(inner, functools.partial):
        settled |= set(inner.keywords)
        inner = inner.func
    try:
        parameters = inspect.signature(fn).parameters.values()
        return [parameter for parameter in parameters if parameter.name not in settled]
    except (TypeError, ValueError) as cause:
        raise SchemaError(f"{_name(fn)} has no signature that can be read: {cause}.") from cause


def _name(fn: Any) -> str:
    return getattr(_function(fn), "__qualname__", None) or repr(fn)


def type_schema(
    annotation: Any, where: str, localns: Mapping[str, Any] | None = None
) -> tuple[Schema, Decode]:
    """Make the schema of one type, and the function that decodes its values.

    Args:
        annotation: The type.
        where: What it is the type of, for errors.
        localns: Names for string annotations that a module's globals don't have.

    Raises:
        SchemaError: The type has no JSON form, or holds a union that cannot be told apart.
    """
    shapes = Shapes(localns)
    shape = shapes.of(annotation, where)
    return shapes.finish(shape.schema), shape.decode


def fields_of(
    types: Mapping[str, Any], where: str, localns: Mapping[str, Any] | None = None
) -> Parameters:
    """Make parameters of the short form `{"city": str, "days": int}`; all are required.

    Raises:
        SchemaError: A type has no JSON form.
    """
    shapes = Shapes(localns)
    fields = [Field(n, shapes.of(t, f"Argument {n!r} of {where}"), True) for n, t in types.items()]
    schema = shapes.finish(object_schema(fields, {}, False))
    return Parameters(schema, {field.name: field.shape.decode for field in fields}, None, ())
