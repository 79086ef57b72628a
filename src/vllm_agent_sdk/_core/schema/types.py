"""Types as JSON Schema, and JSON values as objects of those types.

`Shapes` walks a type once and gives a `Shape`: its schema, and the function that turns a JSON value
into an object of the type. Both come from one walk, so that they cannot disagree. msgspec and
pydantic are asked only about their own classes.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import enum
import pathlib
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NewType, Union, get_args, get_origin

import typing_extensions

from vllm_agent_sdk._core.schema import refs
from vllm_agent_sdk._core.schema.shapes import (
    ANY,
    PLAIN_SHAPES,
    Field,
    Shape,
    annotated,
    check_union,
    choice,
    json_scalar,
    key_decoder,
    key_schema,
    object_shape,
    with_default,
    wrapped,
)
from vllm_agent_sdk._core.schema.values import (
    Decode,
    MismatchError,
    decode_array,
    decode_dict,
    decode_tuple,
    decode_union,
)
from vllm_agent_sdk.errors import SchemaError
from vllm_agent_sdk.types import schema_types as by_msgspec

__all__ = ["Shapes", "resolve_hint"]

Schema = dict[str, Any]

_ARRAYS: dict[Any, Callable[[Iterable[Any]], Any]] = {
    list: list, abc.Sequence: list, abc.MutableSequence: list, abc.Collection: list,
    abc.Iterable: list, set: set, abc.Set: set, abc.MutableSet: set, frozenset: frozenset,
}  # fmt: skip
_OBJECTS = (dict, abc.Mapping, abc.MutableMapping)
_PATHS: dict[Any, Any] = {
    kind: kind
    for kind in (
        pathlib.Path, pathlib.PurePath, pathlib.PurePosixPath, pathlib.PureWindowsPath,
    )
}  # fmt: skip
_QUALIFIERS = (
    typing.Required,
    typing.NotRequired,
    typing.Final,
    typing_extensions.ReadOnly,
    typing.ClassVar,
)


class Shapes:
    """The types of one schema; named ones are kept in common `$defs`.

    Args:
        localns: Names for string annotations that a module's globals don't have.
    """

    def __init__(self, localns: Mapping[str, Any] | None = None) -> None:
        self._localns = dict(localns or {})
        self._defs: Schema = {}
        self._names: dict[Any, str] = {}
        self._decoders: dict[str, Decode] = {}
        self._unions: list[tuple[str, list[Schema]]] = []

    def finish(self, schema: Schema) -> Schema:
        """Complete a schema made of these shapes with the `$defs` it needs.

        Raises:
            SchemaError: A union cannot be decoded for sure.
        """
        for where, members in self._unions:
            check_union(where, [refs.resolve(m, {"$defs": self._defs}) for m in members])
        return refs.inline(schema, self._defs)

    def of(self, annotation: Any, where: str) -> Shape:
        """Give the shape of a type.

        Args:
            annotation: The resolved annotation.
            where: What it annotates, for the error (`parameter 'x' of f`).

        Raises:
            SchemaError: The type has no JSON form.
        """
        origin = get_origin(annotation)
        if origin is typing.Annotated:
            return annotated(self.of(annotation.__origin__, where), annotation.__metadata__)
        if annotation in PLAIN_SHAPES:
            return PLAIN_SHAPES[annotation]
        if origin in _QUALIFIERS:
            return self.of(get_args(annotation)[0], where)
        if origin is Literal or origin is typing_extensions.Literal:
            return choice([(json_scalar(v, where), v) for v in get_args(annotation)])
        if origin is Union or origin is types.UnionType:
            return self._union(get_args(annotation), where)
        if isinstance(annotation, NewType):
            return self.of(annotation.__supertype__, where)
        if type(origin or annotation).__name__ == "TypeAliasType":
            return self._alias(annotation, where)
        if isinstance(annotation, (str, typing.ForwardRef)):
            name = annotation if isinstance(annotation, str) else annotation.__forward_arg__
            raise SchemaError(f"{where}: the name {name!r} cannot be resolved; import its type.")
        container = self._container(origin or annotation, get_args(annotation), where)
        if container is not None:
            return container
        if isinstance(origin or annotation, type):
            return self._class(annotation, origin or annotation, where)
        raise _no_schema(annotation, where)

    # ── what is made of other types ──────────────────────────────────────────────────────────────

    def _container(self, kind: Any, args: tuple[Any, ...], where: str) -> Shape | None:
        if kind in _ARRAYS:
            item = self.of(args[0], where) if args else ANY
            schema = refs.merge({"type": "array"}, {"items": item.schema or None})
            # No `uniqueItems` for sets: some grammars refuse it, and a duplicate does no harm.
            return Shape(schema, decode_array(_ARRAYS[kind], item.decode))
        if kind is tuple and (not args or args[-1] is Ellipsis):
            item = self.of(args[0], where) if args else ANY
            schema = refs.merge({"type": "array"}, {"items": item.schema or None})
            return Shape(schema, decode_array(tuple, item.decode))
        if kind is tuple:
            items = [self.of(arg, where) for arg in args if arg != ()]
            schema = {
                "type": "array", "prefixItems": [item.schema for item in items], "items": False,
                "minItems": len(items), "maxItems": len(items),
            }  # fmt: skip
            return Shape(schema, decode_tuple([item.decode for item in items]))
        if kind in _OBJECTS:
            key, value = [self.of(arg, where) for arg in args] or [PLAIN_SHAPES[str], ANY]
            decode_key = key_decoder(key, where)
            schema = refs.merge(
                {"type": "object"},
                {
                    "additionalProperties": value.schema or None,
                    "propertyNames": None if key.plain is str else key_schema(key),
                },
            )
            return Shape(schema, decode_dict(decode_key, value.decode))
        return None

    def _union(self, args: tuple[Any, ...], where: str) -> Shape:
        members = [self.of(arg, where) for arg in args]
        self._unions.append((where, [member.schema for member in members]))
        # `int | float` keeps 3.0 and `float | int` keeps 3: between these two the value decides.
        numbers = {member.plain for member in members} >= {int, float}
        schemas = [member.schema for member in members]
        if {} in schemas:
            return ANY
        return Shape(
            {"anyOf": schemas},
            decode_union([m.decode for m in members], {int, float} if numbers else set()),
        )

    def _alias(self, annotation: Any, where: str) -> Shape:
        alias = get_origin(annotation) or annotation
        names = vars(sys.modules.get(alias.__module__, typing))
        try:
            value = resolve_hint(alias.__value__, names, {alias.__name__: alias, **self._localns})
        except (NameError, TypeError, SyntaxError) as cause:
            raise SchemaError(f"{where}: {alias.__name__} cannot be resolved: {cause}.") from cause
        if args := get_args(annotation):
            value = _bind(value, dict(zip(alias.__type_params__, args, strict=False)))
        return self._named(annotation, alias.__name__, lambda: self.of(value, where))

    # ── classes ──────────────────────────────────────────────────────────────────────────────────

    def _class(self, annotation: Any, kind: type, where: str) -> Shape:
        if kind in _PATHS:
            return Shape({"type": "string"}, wrapped(str, _PATHS[kind]))
        if kind in by_msgspec.SCALARS:
            return Shape(by_msgspec.SCALARS[kind], _by_msgspec(kind))
        if issubclass(kind, enum.Enum):
            return choice([(json_scalar(member, where), member) for member in kind])
        if by_msgspec.is_struct(annotation):
            return self._struct(annotation, where)
        if _is_pydantic(kind):
            return self._pydantic(annotation, where)
        if typing_extensions.is_typeddict(kind):
            return self._named(annotation, kind.__name__, lambda: self._typed_dict(annotation))
        if dataclasses.is_dataclass(kind):
            return self._named(annotation, kind.__name__, lambda: self._dataclass(annotation))
        if issubclass(kind, tuple) and hasattr(kind, "_field_defaults"):
            return self._named(annotation, kind.__name__, lambda: self._named_tuple(annotation))
        raise _no_schema(annotation, where)

    def _named(self, key: Any, name: str, build: Callable[[], Shape]) -> Shape:
        if key not in self._names:
            name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
            while name in self._defs:
                name += "_"
            self._names[key] = name
            self._defs[name] = {}  # taken before it is built: a type may contain itself
            shape = build()
            self._defs[name] = shape.schema
            self._decoders[name] = shape.decode
        name = self._names[key]
        return Shape(
            {"$ref": refs.DEFS + name},
            # Looked up when it is used: within its own definition there is none yet.
            lambda value, path: self._decoders[name](value, path),  # noqa: PLW0108
        )

    def _dataclass(self, annotation: Any) -> Shape:
        kind = get_origin(annotation) or annotation
        hints = _hints_of_class(annotation, self._localns)
        fields = []
        for field in dataclasses.fields(kind):
            if field.init:
                required = (
                    field.default is dataclasses.MISSING
                    and field.default_factory is dataclasses.MISSING
                )
                shape = self.of(hints[field.name], f"Field {field.name!r} of {kind.__name__}")
                fields.append(Field(field.name, with_default(shape, field.default), required))
        for name, hint in hints.items():
            if isinstance(hint, dataclasses.InitVar):
                raise SchemaError(f"Field {name!r} of {kind.__name__} is an InitVar; use a field.")
        return object_shape(kind, fields, kind)

    def _typed_dict(self, annotation: Any) -> Shape:
        kind = get_origin(annotation) or annotation
        fields = []
        for name, hint in _hints_of_class(annotation, self._localns).items():
            origin = get_origin(hint)
            required = name in kind.__required_keys__
            if origin in (typing.Required, typing.NotRequired):
                # String annotations hide these from `__required_keys__`.
                required = origin is typing.Required
            shape = self.of(hint, f"Key {name!r} of {kind.__name__}")
            fields.append(Field(name, shape, required))
        return object_shape(kind, fields, dict)

    def _named_tuple(self, annotation: Any) -> Shape:
        kind = get_origin(annotation) or annotation
        hints = _hints_of_class(annotation, self._localns)
        fields = []
        for name in kind._fields:
            default = kind._field_defaults.get(name, dataclasses.MISSING)
            shape = self.of(hints.get(name, Any), f"Field {name!r} of {kind.__name__}")
            required = name not in kind._field_defaults
            fields.append(Field(name, with_default(shape, default), required))
        return object_shape(kind, fields, kind)

    def _struct(self, annotation: Any, where: str) -> Shape:
        try:
            schema = by_msgspec.struct_schema(annotation)
        except (TypeError, NameError) as cause:
            reason = str(cause).splitlines()[-1]
            raise SchemaError(
                f"{where}: msgspec has no schema for {annotation}: {reason}"
            ) from cause
        schema = refs.hoist(refs.drop_titles(schema), self._defs)
        return Shape(schema, _by_msgspec(annotation))

    def _pydantic(self, annotation: Any, where: str) -> Shape:
        if hasattr(annotation, "model_json_schema"):
            make_schema, validate = annotation.model_json_schema, annotation.model_validate
        else:
            adapter = sys.modules["pydantic"].TypeAdapter(annotation)
            make_schema, validate = adapter.json_schema, adapter.validate_python
        try:
            schema = make_schema()
        except Exception as cause:
            raise SchemaError(f"{where}: pydantic has no schema for it: {cause}") from cause
        schema = refs.hoist(refs.drop_titles(schema), self._defs)

        def decode(value: Any, path: str) -> Any:
            try:
                return validate(value)
            except ValueError as cause:
                raise _pydantic_mismatch(cause, path) from cause

        return Shape(schema, decode)


def _by_msgspec(annotation: Any) -> Decode:
    def decode(value: Any, path: str) -> Any:
        try:
            return by_msgspec.convert(value, annotation)
        except ValueError as cause:
            where = (path + getattr(cause, "path", "")).removeprefix(".")
            other = str(cause).startswith("Invalid value")  # of a tag or an enum
            raise MismatchError(where, str(cause), choice=other) from cause

    return decode


def _pydantic_mismatch(cause: ValueError, path: str) -> MismatchError:
    errors: Any = getattr(cause, "errors", None)
    found: Any = errors() if callable(errors) else ()
    for error in found:
        for part in error.get("loc", ()):
            path = refs.at(path, part)
        return MismatchError(path, str(error.get("msg", cause)))
    return MismatchError(path, str(cause))


def _is_pydantic(kind: type) -> bool:
    """True for models, pydantic dataclasses and other types that pydantic makes schemas of."""
    return "pydantic" in sys.modules and (
        hasattr(kind, "__get_pydantic_core_schema__") or hasattr(kind, "__pydantic_validator__")
    )


def resolve_hint(annotation: Any, globalns: Mapping[str, Any], localns: Mapping[str, Any]) -> Any:
    """Resolve a string annotation, and strings inside a type; may raise what the text raises."""
    holder: Any = type("Holder", (), {})()
    holder.__annotations__ = {"hint": annotation}
    hints = typing.get_type_hints(holder, dict(globalns), dict(localns), include_extras=True)
    return hints["hint"]


def _hints_of_class(annotation: Any, localns: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve a class's annotations, with the arguments of a generic one put in.

    Raises:
        SchemaError: A string annotation names something unknown.
    """
    kind = get_origin(annotation) or annotation
    try:
        hints = typing.get_type_hints(
            kind, localns={**localns, kind.__name__: kind}, include_extras=True
        )
    except (NameError, TypeError, SyntaxError) as cause:
        raise SchemaError(
            f"The annotations of {kind.__name__} cannot be resolved: {cause}. "
            "Import the types at run time, not only for type checking."
        ) from cause
    bound = dict(zip(getattr(kind, "__parameters__", ()), get_args(annotation), strict=False))
    return {name: _bind(hint, bound) for name, hint in hints.items()}


def _bind(hint: Any, bound: Mapping[Any, Any]) -> Any:
    if not bound:
        return hint
    if isinstance(hint, typing.TypeVar):
        return bound.get(hint, hint)
    if parameters := getattr(hint, "__parameters__", ()):
        return hint[tuple(bound.get(parameter, parameter) for parameter in parameters)]
    return hint


def _no_schema(annotation: Any, where: str) -> SchemaError:
    shown = getattr(annotation, "__qualname__", None) or repr(annotation)
    return SchemaError(
        f"{where}: no JSON Schema can be made of {shown}. Use text, numbers, bool, None, Literal, "
        "Enum, lists, dicts, dataclasses, TypedDict, msgspec or pydantic models."
    )
