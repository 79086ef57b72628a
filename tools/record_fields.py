"""Make the simulator's table of request fields from a server's `/openapi.json`.

Of the document, only this is kept: which fields a request may have, which it must have, and the
type of each. A type is a name (`"string"`, `"integer"`, `"number"`, `"boolean"`, `"null"`,
`"any"`), `"#Name"` for an object of the table's `types`, `{"list": type}` (with `"max"`),
`{"map": type}`, `{"one of": [values]}`, or a list of alternatives.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["PATHS", "fields_table", "written"]

#: The routes that the simulator has and that take a body.
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize", "/detokenize")
#: An item of a response may have any of some two hundred kinds. Objects deeper than this below a
#: request are only said to be objects there; other requests are described to the last field.
RESPONSES_DEPTH = 2
_SHALLOW = "/v1/responses"
_DEEP = 100


class _Reader:
    """Reads the schemas of one document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._paths: dict[str, Any] = document["paths"]
        self._schemas: dict[str, Any] = document["components"]["schemas"]
        self.types: dict[str, Any] = {}

    def request(self, path: str) -> Any:
        """Give the type of a route's body."""
        body = self._paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        return self._read(body, RESPONSES_DEPTH if path == _SHALLOW else _DEEP)

    def _read(self, schema: dict[str, Any], depth: int) -> Any:
        if "$ref" in schema:
            return self._named(schema["$ref"].rpartition("/")[2], depth)
        if alternatives := schema.get("anyOf") or schema.get("oneOf"):
            return _union([self._read(each, depth) for each in alternatives])
        if "const" in schema:
            return {"one of": [schema["const"]]}
        if "enum" in schema:
            return {"one of": schema["enum"]}
        match schema.get("type", "any"):
            case "array":
                limit = {"max": schema["maxItems"]} if "maxItems" in schema else {}
                return {"list": self._read(schema.get("items", {}), depth), **limit}
            case "object":
                return self._object(schema, depth)
            case list(names):
                return _union([self._read({**schema, "type": name}, depth) for name in names])
            case name:
                return name

    def _named(self, name: str, depth: int) -> Any:
        schema = self._schemas[name]
        if not schema.get("properties"):
            return self._read(schema, depth)
        if depth < 0 and name not in self.types:
            return {"map": "any"}
        if name not in self.types:
            self.types[name] = None  # it may hold itself
            self.types[name] = self._object(schema, depth)
        return f"#{name}"

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties")
        if not properties:
            others = schema.get("additionalProperties")
            return {"map": self._read(others, depth) if isinstance(others, dict) else "any"}
        fields = {name: self._read(each, depth - 1) for name, each in properties.items()}
        required = schema.get("required")
        return {"fields": fields, **({"required": required} if required else {})}


def _union(read: list[Any]) -> Any:
    """Make one type of alternatives."""
    found: list[Any] = []
    for each in read:
        for one in each if isinstance(each, list) else [each]:
            if one not in found:
                found.append(one)
    return found if len(found) > 1 else found[0]


def fields_table(document: dict[str, Any], version: str) -> dict[str, Any]:
    """Make the table."""
    reader = _Reader(document)
    # The shallow one last: what others describe in full is in full for it, too.
    endpoints = {path: reader.request(path) for path in sorted(PATHS, key=_SHALLOW.__eq__)}
    return _merged({"vllm": version, "endpoints": endpoints, "types": reader.types})


def _merged(table: dict[str, Any]) -> dict[str, Any]:
    """Give types of the same fields one name, and all of them short ones."""
    while True:
        by_fields: dict[str, str] = {}
        names: dict[str, str] = {}
        for name in sorted(table["types"], key=_rank):
            names[name] = by_fields.setdefault(json.dumps(table["types"][name]), name)
        if all(old == new for old, new in names.items()):
            break
        table = _renamed(table, names)
    short: dict[str, str] = {}
    for name in sorted(table["types"], key=_rank):
        short[name] = _free(name.rpartition("__")[2], set(short.values()))
    return _renamed(table, short)


def _rank(name: str) -> tuple[bool, int, str]:
    """Short names before long ones, the server's own before those of OpenAI's package."""
    return name.startswith("openai"), len(name), name


def _free(name: str, taken: set[str]) -> str:
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name}{number}"
    return free


def _renamed(table: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    def renamed(value: Any) -> Any:
        if isinstance(value, str):
            return f"#{names[value[1:]]}" if value.startswith("#") else value
        if isinstance(value, list):
            return _union([renamed(each) for each in value]) if value else value
        if isinstance(value, dict):
            keep = ("one of", "required")
            return {key: each if key in keep else renamed(each) for key, each in value.items()}
        return value

    types = {names[name]: renamed(each) for name, each in table["types"].items()}
    ends = {path: renamed(each) for path, each in table["endpoints"].items()}
    return {"vllm": table["vllm"], "endpoints": ends, "types": types}


def written(table: dict[str, Any]) -> str:
    """Write the table, a line for each endpoint and type."""

    def lines(part: dict[str, Any]) -> str:
        pairs = (
            f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}"
            for key, value in sorted(part.items())
        )
        return "{\n" + ",\n".join(pairs) + "\n}"

    return (
        f'{{\n"vllm":{json.dumps(table["vllm"])},\n"endpoints":{lines(table["endpoints"])},\n'
        f'"types":{lines(table["types"])}\n}}\n'
    )
