"""JSON Schemas as trees: walking them, and keeping references valid when they are joined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

__all__ = [
    "DEFS", "NOTES", "at", "drop_titles", "hoist", "inline", "mapped", "mapped_at", "merge",
    "resolve", "subschemas",
]  # fmt: skip

Schema = dict[str, Any]

#: Where generated schemas keep their named types.
DEFS = "#/$defs/"

_ONE = {
    "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items",
    "not", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
}  # fmt: skip
_LIST = {"allOf", "anyOf", "items", "oneOf", "prefixItems"}
_MAP = {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}

#: Keywords that only describe: beside a `$ref` they may win over what they stand beside.
NOTES = {"$comment", "default", "deprecated", "description", "examples", "readOnly", "title"}


def at(path: str, key: object) -> str:
    """Go one step deeper: a number is a position, text a key."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)


def mapped(schema: Any, change: Callable[[Any], Any]) -> Any:
    """Copy a schema with every direct subschema replaced by `change(subschema)`."""
    if not isinstance(schema, dict):
        return schema
    copy: Schema = {}
    for key, value in schema.items():
        if key in _MAP and isinstance(value, dict):
            copy[key] = {name: change(item) for name, item in value.items()}
        elif key in _LIST and isinstance(value, list):
            copy[key] = [change(item) for item in value]
        elif key in _ONE:
            copy[key] = change(value)
        else:
            copy[key] = value
    return copy


def mapped_at(schema: Schema, path: str, change: Callable[[Any, str], Any]) -> Schema:
    """Copy a schema with every direct subschema replaced by `change(subschema, its path)`."""
    copy: Schema = {}
    for key, value in schema.items():
        here = at(path, key)
        if key in _MAP and isinstance(value, dict):
            copy[key] = {name: change(item, at(here, name)) for name, item in value.items()}
        elif key in _LIST and isinstance(value, list):
            copy[key] = [change(item, at(here, index)) for index, item in enumerate(value)]
        elif key in _ONE:
            copy[key] = change(value, here)
        else:
            copy[key] = value
    return copy


def subschemas(schema: Any) -> Iterator[Schema]:
    """Give a schema and all schemas inside it (a `$ref` is not followed)."""
    if isinstance(schema, dict):
        yield schema
        inner: list[Any] = []
        mapped(schema, inner.append)
        for item in inner:
            yield from subschemas(item)


def drop_titles(schema: Any) -> Any:
    """Copy a schema without the titles that repeat the name of a class or field."""
    copy = mapped(schema, drop_titles)
    if isinstance(copy, dict):
        copy.pop("title", None)
    return copy


def resolve(schema: Any, root: Schema) -> Any:
    """Follow a local `$ref` to the schema it names; anything else is given back as it is."""
    for _ in range(32):
        ref = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(ref, str) or not ref.startswith("#"):
            return schema
        target: Any = root
        for part in ref[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdigit() and int(key) < len(target):
                target = target[int(key)]
            else:
                return schema
        schema = target
    return schema


def hoist(schema: Schema, defs: Schema) -> Schema:
    """Move a schema's own `$defs` into a common `defs`, renaming those whose name is taken.

    Args:
        schema: A schema whose references are all of the form `#/$defs/NAME`.
        defs: The common definitions; it is added to.

    Returns:
        The schema without `$defs`, its references in order.
    """
    own = schema.get("$defs", {})
    names: dict[str, str] = {}
    for name, item in own.items():
        new = name
        while new in defs and defs[new] != item:
            new += "_"
        names[name] = new

    def renamed(item: Any) -> Any:
        copy = mapped(item, renamed)
        if isinstance(copy, dict) and isinstance(ref := copy.get("$ref"), str):
            name = ref.removeprefix(DEFS)
            copy["$ref"] = DEFS + names[name] if name in names else ref
        return copy

    for name, item in own.items():
        defs[names[name]] = renamed(item)
    return dict(renamed({key: value for key, value in schema.items() if key != "$defs"}))


def inline(schema: Schema, defs: Schema) -> Schema:
    """Write definitions that are used once and don't contain themselves where they are used.

    Many chat templates show the model a tool's properties without its `$defs`.

    Returns:
        The schema, with `$defs` for the rest.
    """
    uses: Counter[str] = Counter()
    for tree in (schema, *defs.values()):
        for item in subschemas(tree):
            if isinstance(ref := item.get("$ref"), str):
                uses[ref.removeprefix(DEFS)] += 1
    once = {name for name in defs if uses[name] == 1 and not _reaches(name, name, defs)}

    def written(item: Any) -> Any:
        copy = mapped(item, written)
        ref = copy.get("$ref") if isinstance(copy, dict) else None
        name = ref.removeprefix(DEFS) if isinstance(ref, str) else None
        if name not in once or not set(copy) - {"$ref"} <= NOTES:
            return copy
        notes = {key: value for key, value in copy.items() if key != "$ref"}
        return {**written(defs[name]), **notes}

    result: Schema = written(schema)
    kept: Schema = {}
    pending = _refs(result)
    while pending:
        name = pending.pop()
        if name in defs and name not in kept:
            kept[name] = written(defs[name])
            pending |= _refs(kept[name])
    if kept:
        result["$defs"] = {name: kept[name] for name in defs if name in kept}
    return result


def _refs(schema: Schema) -> set[str]:
    refs = (item.get("$ref") for item in subschemas(schema))
    return {ref.removeprefix(DEFS) for ref in refs if isinstance(ref, str)}


def _reaches(start: str, goal: str, defs: Schema) -> bool:
    seen: set[str] = set()
    pending = _refs(defs[start])
    while pending:
        name = pending.pop()
        if name == goal:
            return True
        if name in defs and name not in seen:
            seen.add(name)
            pending |= _refs(defs[name])
    return False


def merge(schema: Schema, notes: Schema) -> Schema:
    """Add keywords to a schema without changing it; those that are `None` are left out."""
    return {**schema, **{key: value for key, value in notes.items() if value is not None}}
