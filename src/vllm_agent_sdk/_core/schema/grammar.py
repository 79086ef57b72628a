"""JSON Schemas for vLLM's grammars: rewritten where nothing is lost, else refused.

What is said of grammars was tried with xgrammar 0.2.8, as vLLM 0.32 uses it.

A schema that the grammar compiler refuses is answered with a bare 400. Worse, vLLM refuses for
xgrammar what it merely ignores in a response's schema, and takes another backend: the first
constrained request settles a server's backend for all that follow, and strict tools then fail until
it is restarted. So what xgrammar ignores is left out of a response's schema.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from vllm_agent_sdk._core.schema import refs
from vllm_agent_sdk._core.schema.pattern import looks_around, unsupported_syntax
from vllm_agent_sdk.errors import SchemaError
from vllm_agent_sdk.types import _codec

__all__ = ["bounded", "grammar_schema", "response_schema", "strict_tool", "unenforced"]

Schema = dict[str, Any]

#: Keywords that grammars compile and do not enforce; `if` does nothing without the other two.
_UNENFORCED = (
    "uniqueItems", "not", "allOf", "oneOf", "dependentRequired", "if", "then", "else",
    "contains", "minContains", "maxContains", "dependentSchemas", "dependencies",
)  # fmt: skip
#: Of a response, vLLM refuses these beside the type; xgrammar ignores them.
_DROPPED = {
    "array": ("uniqueItems", "contains", "minContains", "maxContains"),
    "integer": ("multipleOf",),
    "number": ("multipleOf",),
}
#: The formats that grammars know; of others vLLM refuses a response's schema.
_FORMATS = frozenset({
    "email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid", "uri",
    "uri-reference", "uri-template", "json-pointer", "relative-json-pointer",
})  # fmt: skip
_TYPES = frozenset({"string", "integer", "number", "boolean", "object", "array", "null"})
_RANGES = (
    ("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)  # fmt: skip
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LENGTHS = ("minLength", "maxLength")
_MOST = 2**63 - 1
#: Objects and arrays in one another that vLLM takes, and what it wraps a tool's schema in.
_DEEPEST = 64
_WRAPPED = 8


def unenforced(schema: Any) -> tuple[str, ...]:
    """Name the keywords of a schema that the server's grammars take and do not enforce.

    What breaks one of these is found by the check made here, not kept from being written.
    """
    found: set[str] = set()
    for each in refs.subschemas(schema):
        found |= {key for key in _UNENFORCED if each.get(key, False) is not False}
        if "multipleOf" in each and ("integer" not in _types(each) or _bounded(each)):
            found.add("multipleOf")
        if "pattern" in each or "format" in each:
            found |= {key for key in _LENGTHS if key in each}
        if isinstance(pattern := each.get("pattern"), str) and looks_around(pattern):
            found.add("pattern")
    return (*(key for key in _UNENFORCED if key in found), *sorted(found - set(_UNENFORCED)))


def _bounded(schema: Schema) -> bool:
    return any(key in schema for key in _BOUNDS)


def strict_tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give a wire tool whose arguments' grammar compiles, where it is `strict`; any other as it is.

    Raises:
        SchemaError: No grammar can be made of the parameters; keyword and path are named.
    """
    function = tool.get("function")
    if not isinstance(function, Mapping) or function.get("strict") is not True:
        return tool
    parameters = function.get("parameters")
    if not isinstance(parameters, Mapping):
        return tool
    made = _strict_parameters(str(function.get("name")), _codec.encode(parameters))
    return tool if made is None else {**tool, "function": {**function, "parameters": made}}


@functools.lru_cache(maxsize=512)
def _strict_parameters(name: str, encoded: bytes) -> Schema | None:
    """Give the parameters that compile; `None` for those that do as they are.

    Remembered, because an agent sends the same tools with each of its turns.
    """
    parameters = _codec.decode(encoded)
    hint = "strict=False leaves the schema to the server as it is"
    made = grammar_schema(parameters, f"The parameters of the tool {name!r}", hint)
    return None if made == parameters else made


def response_schema(schema: Schema, where: str = "The response's schema") -> Schema:
    """Give the schema to send for a response: what xgrammar enforces of it.

    Raises:
        SchemaError: No grammar can be made of it; keyword and path are named.
    """
    made = grammar_schema(schema, where)
    for each in refs.subschemas(made):
        patterns = each.get("patternProperties")
        if isinstance(patterns, dict) and (len(patterns) > 1 or "properties" in each):
            raise SchemaError(
                f"{where}: vLLM makes no grammar of 'patternProperties' ({', '.join(patterns)}) "
                "beside 'properties' or another pattern. Use additionalProperties instead."
            )
    sent: Schema = _enforced(made)
    return sent


def grammar_schema(schema: Schema, where: str, hint: str | None = None) -> Schema:
    """Give a schema that means the same and compiles.

    Args:
        schema: The schema.
        where: What it belongs to, for errors.
        hint: What else the caller can do, for errors.

    Raises:
        SchemaError: No grammar can be made of it; keyword and path are named.
    """
    if _depth(schema) > _DEEPEST - _WRAPPED:
        raise SchemaError(
            f"{where} is nested deeper than {_DEEPEST - _WRAPPED} levels: vLLM takes {_DEEPEST}, "
            "with what it wraps the schema in. Flatten it, or move parts of it into $defs."
        )
    made: Schema = _Rewriting(schema, where, hint).rewritten(schema, "")
    return made


def bounded(schema: Any) -> Any:
    """Give a grammar's schema whose integers end: they have 64 bits where it says nothing else.

    Small models write digits until their tokens are used up (seen on one of 135 million
    parameters), and what is cut is no call.
    """
    copy = refs.mapped(schema, bounded)
    if isinstance(copy, dict) and "integer" in _types(copy) and "number" not in _types(copy):
        if "minimum" not in copy and "exclusiveMinimum" not in copy:
            copy["minimum"] = -_MOST
        if "maximum" not in copy and "exclusiveMaximum" not in copy:
            copy["maximum"] = _MOST
    return copy


def _depth(schema: Any) -> int:
    level, depth = [schema], 0
    while level:
        level = [
            item
            for each in level
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, (dict, list))
        ]
        depth += 1
        if depth > 10 * _DEEPEST:
            break  # it may contain itself
    return depth


def _types(schema: Mapping[str, Any]) -> set[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        return {kind}
    return {each for each in kind if isinstance(each, str)} if isinstance(kind, list) else set()


class _Rewriting:
    """The rewriting of one schema."""

    def __init__(self, root: Schema, where: str, hint: str | None) -> None:
        self._root = root
        self._where = where
        self._hint = f", or: {hint}" if hint else ""

    def refuse(self, path: str, keyword: str, why: str, what: str) -> SchemaError:
        """Give the error about a keyword."""
        place = f"at {path}" if path else "at the top"
        return SchemaError(
            f"{self._where}: no grammar can be made of {keyword!r} {place}: {why}. "
            f"{what[0].upper()}{what[1:]}{self._hint}."
        )

    def rewritten(self, schema: Any, path: str) -> Any:
        """Rewrite a schema and those inside it."""
        if not isinstance(schema, dict):
            return schema
        schema = self._flattened(dict(schema), path)
        self._check(schema, path)
        self._tuples(schema)
        self._bounds(schema, path)
        self._object(schema, path)
        if "$ref" in schema:
            self._check_ref(schema, path)
        made: Schema = refs.mapped_at(schema, path, self._inner)
        # Bounds of its members that were written anew may stand beside each other now.
        joined = self._flattened(made, path)
        return made if joined is made else self.rewritten(joined, path)

    def _inner(self, schema: Any, path: str) -> Any:
        keyword = path.rpartition(".")[2]
        if schema is False and keyword not in _MAY_BE_FALSE:
            raise self.refuse(path, "false", "it takes no value", "leave it out")
        return self.rewritten(schema, path)

    def _flattened(self, schema: Schema, path: str) -> Schema:
        """Write the members of an `allOf` as one schema, where no keyword is said twice."""
        members = schema.get("allOf")
        if not isinstance(members, list) or not all(isinstance(m, dict) for m in members):
            return schema
        rest = {key: value for key, value in schema.items() if key != "allOf"}
        if len(members) == 1 and not set(rest) - refs.NOTES - {"$defs", "definitions"}:
            if "$ref" in members[0]:
                return schema
            return self._flattened({**rest, **members[0]}, path)
        joined = _joined([rest, *(self._flattened(dict(member), path) for member in members)])
        return schema if joined is None else joined

    def _check(self, schema: Schema, path: str) -> None:
        """Refuse what the compiler refuses, and what nothing can match."""
        for kind in _types(schema) - _TYPES:
            raise self.refuse(
                path, "type", f"{kind!r} is no type", f"use one of {', '.join(sorted(_TYPES))}"
            )
        if schema.get("enum") == []:
            raise self.refuse(path, "enum", "it is empty", "name its values")
        for low, high in _RANGES:
            least, most = schema.get(low), schema.get(high)
            if _is_number(least) and _is_number(most) and least > most:
                raise self.refuse(path, low, f"{least} is above {high}, {most}", "swap them")
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and (said := unsupported_syntax(pattern)) is not None:
            raise self.refuse(
                path, "pattern", f"{pattern!r} has {said}", "write the pattern without"
            )

    def _check_ref(self, schema: Schema, path: str) -> None:
        ref = schema["$ref"]
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise self.refuse(path, "$ref", f"{ref!r} is elsewhere", "put what it names into $defs")
        plain = ref == "#" or (ref.startswith("#/") and not set(ref) & set("~%"))
        target = refs.resolve(schema, self._root)
        found = isinstance(target, bool) or (isinstance(target, dict) and target is not schema)
        if not found and ref != "#":
            raise self.refuse(path, "$ref", f"there is no {ref!r}", "name a schema in $defs")
        if not plain or any(part.isdigit() for part in ref.split("/")):
            raise self.refuse(
                path, "$ref", f"{ref!r} is followed through names alone", "move it into $defs"
            )

    @staticmethod
    def _tuples(schema: Schema) -> None:
        """Write tuples of older drafts as today's."""
        items = schema.get("items")
        if isinstance(items, list):
            rest = schema.pop("additionalItems", None)
            del schema["items"]
            schema["prefixItems"] = items
            if rest is not None:
                schema["items"] = rest

    def _bounds(self, schema: Schema, path: str) -> None:
        for exclusive, bound in (
            ("exclusiveMinimum", "minimum"),
            ("exclusiveMaximum", "maximum"),
        ):
            said = schema.get(exclusive)
            if isinstance(said, bool):  # draft 4
                del schema[exclusive]
                if said and bound in schema:
                    schema[exclusive] = schema.pop(bound)
        if _types(schema) & {"integer"}:
            for keyword in _BOUNDS:
                self._whole(schema, keyword, path)

    def _whole(self, schema: Schema, keyword: str, path: str) -> None:
        """Write a bound of integers as an integer."""
        value = schema.get(keyword)
        if not _is_number(value):
            return
        if isinstance(value, float):
            if "number" in _types(schema) or not math.isfinite(value):
                return
            if not value.is_integer():
                low = keyword.endswith("inimum")
                del schema[keyword]
                keyword = "minimum" if low else "maximum"
                value = math.ceil(value) if low else math.floor(value)
                if keyword in schema:
                    value = (max if low else min)(value, schema[keyword])
            schema[keyword] = int(value)
        if abs(schema[keyword]) > _MOST:
            raise self.refuse(
                path, keyword, f"{schema[keyword]} has more than 64 bits", "give a smaller bound"
            )

    def _object(self, schema: Schema, path: str) -> None:
        """Say of an object what grammars, which take it for closed, would forbid."""
        properties = schema.get("properties")
        known = properties if isinstance(properties, dict) else {}
        rest = schema.get("additionalProperties")
        patterns = bool(schema.get("patternProperties"))
        required = [name for name in schema.get("required") or () if isinstance(name, str)]
        for name in required:
            if (rest is False and not patterns and name not in known) or known.get(name) is False:
                raise self.refuse(path, "required", f"{name!r} cannot be there", "describe it")
        if "object" not in _types(schema) and "properties" not in schema:
            return
        if missing := [name for name in required if name not in known and not patterns]:
            extra = {name: rest if isinstance(rest, dict) else {} for name in missing}
            known = schema["properties"] = {**known, **extra}
        shut = any(value is False for value in known.values())
        if shut:
            schema["properties"] = {k: v for k, v in known.items() if v is not False}
        closes = {"additionalProperties", "unevaluatedProperties", "patternProperties", "$ref"}
        if shut or closes & set(schema) or "propertyNames" in schema:
            return
        least = schema.get("minProperties")
        if not known or (_is_number(least) and least > len(known)):
            schema["additionalProperties"] = True


_MAY_BE_FALSE = {
    "additionalProperties", "unevaluatedProperties", "items", "unevaluatedItems", "not", "if",
    "additionalItems",
}  # fmt: skip


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _joined(members: list[Schema]) -> Schema | None:
    """Write several schemas that all must match as one; `None` where that would change them."""
    joined: Schema = {}
    closing = {"additionalProperties", "unevaluatedProperties", "patternProperties", "$ref"}
    for member in members:
        if closing & set(member) and len([m for m in members if set(m) - refs.NOTES]) > 1:
            return None
        for key, value in member.items():
            if key not in joined or joined[key] == value or key in refs.NOTES:
                joined.setdefault(key, value)
            elif key == "required":
                joined[key] = list(dict.fromkeys([*joined[key], *value]))
            elif key in {"properties", "$defs"} and not set(joined[key]) & set(value):
                joined[key] = {**joined[key], **value}
            else:
                return None
    return joined


def _enforced(schema: Any) -> Any:
    """Leave out what vLLM refuses of a response's schema and xgrammar ignores."""
    if not isinstance(schema, dict):
        return schema
    copy = dict(schema)
    kinds = _types(copy)
    for kind, keywords in _DROPPED.items():
        if kind in kinds:
            for key in keywords:
                copy.pop(key, None)
    if "string" in kinds:
        if copy.get("format") not in _FORMATS:
            copy.pop("format", None)
        if "pattern" in copy or "format" in copy:
            for key in _LENGTHS:
                copy.pop(key, None)
    names = copy.get("propertyNames")
    if isinstance(names, dict) and "object" in kinds:
        loose = {"patternProperties", "properties", "unevaluatedProperties"} & set(copy)
        lengths = ("pattern" in names or "format" in names) and bool(set(_LENGTHS) & set(names))
        if loose or lengths:
            del copy["propertyNames"]
            copy.setdefault("additionalProperties", True)
    if isinstance(copy.get("allOf"), list) and len(copy["allOf"]) > 1:
        del copy["allOf"]
    return refs.mapped(copy, _enforced)
