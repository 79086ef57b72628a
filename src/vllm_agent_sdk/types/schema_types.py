"""What msgspec knows about types: schemas of structs, and strings that stand for richer values."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Mapping
from typing import Any, cast, get_origin

import msgspec

__all__ = ["SCALARS", "convert", "is_struct", "json_schema", "struct_schema"]

#: Types that travel as JSON strings, and what their schema says.
SCALARS: dict[type, dict[str, Any]] = {
    dt.datetime: {"type": "string", "format": "date-time"},
    dt.date: {"type": "string", "format": "date"},
    dt.time: {"type": "string", "format": "time"},
    dt.timedelta: {"type": "string", "format": "duration"},
    decimal.Decimal: {"type": "string", "pattern": r"^-?\d+(\.\d+)?$"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    bytes: {"type": "string", "contentEncoding": "base64"},
}


def json_schema(schema: Mapping[str, Any]) -> type[Any]:
    """Make a JSON Schema a type: `Agent(output=json_schema({…}))`; its values are plain JSON."""
    return cast("type[Any]", dict(schema))


def is_struct(annotation: object) -> bool:
    """True for a `msgspec.Struct` class, a generic one with its arguments too."""
    kind = get_origin(annotation) or annotation
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def struct_schema(annotation: Any) -> dict[str, Any]:
    """Give a struct's JSON Schema, with `$defs` where it needs them.

    Raises:
        TypeError: msgspec has no schema for one of its fields.
    """
    return msgspec.json.schema(annotation)


def convert(value: object, annotation: Any) -> Any:
    """Make a struct or scalar of plain JSON data.

    Raises:
        ValueError: The data does not match. The message is msgspec's sentence, the attribute
            `path` says where in the value (`.a[0]`, empty for the value itself).
    """
    try:
        return msgspec.convert(value, annotation, str_keys=True)
    except msgspec.ValidationError as cause:
        text, _, where = str(cause).partition(" - at `$")
        error = ConvertError(text)
        error.path = where.rstrip("`")
        raise error from cause


class ConvertError(ValueError):
    """Data does not match its type."""

    path: str = ""
