"""What a type is to JSON: a schema beside the function that decodes its values."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vllm_agent_sdk._core.schema import refs
from vllm_agent_sdk._core.schema.docstring import parse_docstring
from vllm_agent_sdk._core.schema.values import (
    PLAIN,
    Decode,
    MismatchError,
    decode_choice,
    decode_object,
    keep,
    to_json,
)
from vllm_agent_sdk.errors import SchemaError, UsageError
from vllm_agent_sdk.types._codec import Fact, replace

__all__ = [
    "ANY",
    "PLAIN_SHAPES",
    "Field",
    "Shape",
    "annotated",
    "check_union",
    "choice",
    "json_scalar",
    "key_decoder",
    "key_schema",
    "object_schema",
    "object_shape",
    "with_default",
    "wrapped",
]

Schema = dict[str, Any]

#: Attribute of `annotated_types`, `msgspec.Meta` and pydantic's metadata → keyword.
_LIMITS = {
    "ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf", "pattern": "pattern",
}  # fmt: skip
_SIZES = {"string": "Length", "array": "Items", "object": "Properties"}


class Shape(Fact, frozen=True, gc=True):
    """A type, as JSON sees it.

    Attributes:
        schema: Its JSON Schema.
        decode: Makes an object of the type from a JSON value (and the value's path); raises
            `MismatchError`.
        plain: The JSON type it is, where the value needs no change.
    """

    schema: Schema
    decode: Decode
    plain: type | None = None


class Field(Fact, frozen=True, gc=True):
    """A field of an object type, or a parameter of a function."""

    name: str
    shape: Shape
    required: bool


ANY = Shape({}, keep)
PLAIN_SHAPES: dict[Any, Shape] = {
    kind: Shape({} if name is None else {"type": name}, decode, kind if name else None)
    for kind, (name, decode) in PLAIN.items()
}


def with_default(shape: Shape, default: Any) -> Shape:
    """Show a default in a shape's schema, if JSON can write it; `MISSING` is none."""
    if default is dataclasses.MISSING:
        return shape
    try:
        shown = to_json(default)
    except UsageError:
        return shape
    return replace(shape, schema={**shape.schema, "default": shown})


def choice(pairs: list[tuple[Any, Any]]) -> Shape:
    """Make the shape of a closed set of (JSON value, Python value)."""
    values = list({(type(value), value): value for value, _ in pairs}.values())
    kinds = {type(value) for value in values}
    kind = kinds.pop() if len(kinds) == 1 else object
    name = PLAIN[kind][0] if kind in PLAIN else None
    schema = refs.merge({"type": name, "enum": values}, {})
    if name is None:
        del schema["type"]
    return Shape(schema, decode_choice(pairs))


def object_shape(kind: type, fields: list[Field], make: Callable[..., Any]) -> Shape:
    """Make the shape of a class with fields; unknown keys are refused."""
    doc = parse_docstring(None if _is_generated_doc(kind) else kind.__doc__)
    schema = object_schema(fields, doc.parameters, False)
    decoders = {field.name: field.shape.decode for field in fields}
    required = [field.name for field in fields if field.required]
    return Shape(
        refs.merge(schema, {"description": doc.description or None}),
        decode_object(decoders, required, make),
    )


def object_schema(
    fields: Iterable[Field], said: Mapping[str, str], additional: Schema | bool
) -> Schema:
    """Make an object schema of fields; a field's own description wins over the docstring's."""
    properties = {
        field.name: {
            **({"description": said[field.name]} if field.name in said else {}),
            **field.shape.schema,
        }
        for field in fields
    }
    schema: Schema = {"type": "object", "properties": properties}
    if required := [field.name for field in fields if field.required]:
        schema["required"] = required
    schema["additionalProperties"] = additional
    return schema


def _is_generated_doc(kind: type) -> bool:
    """True for what `dataclass` and `NamedTuple` write where there is no docstring."""
    doc = kind.__doc__ or ""
    return doc.startswith(f"{kind.__name__}(") or doc is dict.__doc__


def annotated(shape: Shape, metadata: tuple[Any, ...]) -> Shape:
    """Add the descriptions and limits of `Annotated` to a shape."""
    schema = dict(shape.schema)
    for item in metadata:
        inner = getattr(item, "metadata", None)  # a pydantic Field holds its limits in a list
        for note in (item, *inner) if isinstance(inner, (list, tuple)) else (item,):
            text = note if isinstance(note, str) else getattr(note, "description", None)
            text = text if isinstance(text, str) else getattr(note, "documentation", None)
            if isinstance(text, str):
                schema["description"] = text
            if isinstance(examples := getattr(note, "examples", None), list):
                schema["examples"] = examples
            if isinstance(extra := getattr(note, "extra_json_schema", None), dict):
                schema.update(extra)
            schema = _limited(schema, note)
    return replace(shape, schema=schema)


def _limited(schema: Schema, note: object) -> Schema:
    if isinstance(note, (str, type)):
        return schema
    if "anyOf" in schema:
        members = [m if m.get("type") == "null" else _limited(m, note) for m in schema["anyOf"]]
        return {**schema, "anyOf": members}
    limits = {_LIMITS[name]: getattr(note, name, None) for name in _LIMITS}
    size = _SIZES.get(schema.get("type", ""))
    if size is not None:
        limits[f"min{size}"] = getattr(note, "min_length", None)
        limits[f"max{size}"] = getattr(note, "max_length", None)
    return refs.merge(schema, {k: v for k, v in limits.items() if isinstance(v, (int, float, str))})


def wrapped(kind: type, make: Callable[[Any], Any]) -> Decode:
    """Decode a plain value, then make something of it."""
    plain = PLAIN_SHAPES[kind].decode
    return lambda value, path: make(plain(value, path))


def key_schema(key: Shape) -> Schema:
    if key.plain is int:
        return {"pattern": r"^-?\d+$"}
    return {name: value for name, value in key.schema.items() if name != "type"}


def key_decoder(key: Shape, where: str) -> Decode:
    if key.plain is int:
        return _int_key
    if key.schema.get("type") == "string":
        return key.decode
    raise SchemaError(f"{where}: the keys of a JSON object are text; use dict[str, …].")


def _int_key(value: Any, path: str) -> int:
    try:
        return int(value)
    except ValueError as cause:
        raise MismatchError(path, f"the key {value!r} is no integer") from cause


def json_scalar(value: Any, where: str) -> Any:
    plain = value.value if isinstance(value, enum.Enum) else value
    if plain is None or type(plain) in (str, int, bool, float):
        return plain
    if isinstance(plain, (str, int)):  # a str or int with behaviour of its own
        return str.__str__(plain) if isinstance(plain, str) else int(plain)
    raise SchemaError(f"{where}: {value!r} has no JSON form; use text, a number or a bool.")


def check_union(where: str, members: list[Schema]) -> None:
    """Refuse two object members that one value may match: which was meant cannot be told."""
    objects = [member for member in members if member.get("type") == "object"]
    for index, one in enumerate(objects):
        for other in objects[index + 1 :]:
            if not _distinct(one, other):
                names = " and ".join(
                    ", ".join(m.get("properties", {})) or "any" for m in (one, other)
                )
                raise SchemaError(
                    f"{where}: two members of the union cannot be told apart (keys: {names}). Give "
                    "each a required key that the other lacks, or one required key with different "
                    "Literal values."
                )


def _distinct(one: Schema, other: Schema) -> bool:
    mine, yours = one.get("properties"), other.get("properties")
    if mine is None and yours is None:
        return True  # plain dicts: whichever matches, the value is the same
    mine, yours = mine or {}, yours or {}
    if not set(one.get("required", ())) <= _keys(other):
        return True
    if not set(other.get("required", ())) <= _keys(one):
        return True
    shared = set(one.get("required", ())) & set(other.get("required", ()))
    return any(
        not {repr(v) for v in mine[key]["enum"]} & {repr(v) for v in yours[key]["enum"]}
        for key in shared
        if "enum" in mine.get(key, {}) and "enum" in yours.get(key, {})
    )


class _All(set[str]):
    """Every key: what an open mapping may have."""

    def __ge__(self, other: object) -> bool:
        return True


def _keys(schema: Schema) -> set[str]:
    return set(schema["properties"]) if "properties" in schema else _All()
