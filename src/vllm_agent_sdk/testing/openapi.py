"""The simulator's `/openapi.json`: what the table of fields says, in OpenAPI's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_agent_sdk.testing.fields import Table
from vllm_agent_sdk.testing.jsontypes import is_list, is_object

__all__ = ["openapi"]

_SCHEMAS = "#/components/schemas/"


def openapi(table: Table, routes: Mapping[str, tuple[str, ...]], version: str) -> dict[str, Any]:
    """Write the document.

    Args:
        table: The fields of requests.
        routes: The methods of each path.
        version: The server's version.
    """
    paths = {
        path: {method.lower(): _operation(path, table) for method in methods}
        for path, methods in routes.items()
        if path != "/openapi.json"
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "FastAPI", "version": version},
        "paths": paths,
        "components": {"schemas": {name: _schema(each) for name, each in table.types.items()}},
    }


def _operation(path: str, table: Table) -> dict[str, Any]:
    operation: dict[str, Any] = {"responses": {"200": {"description": "Successful Response"}}}
    if path in table.endpoints:
        content = {"application/json": {"schema": _schema(table.endpoints[path])}}
        operation["requestBody"] = {"content": content, "required": True}
    return operation


def _schema(type_: Any) -> dict[str, Any]:
    if is_list(type_):
        return {"anyOf": [_schema(each) for each in type_]}
    if not is_object(type_):
        if type_.startswith("#"):
            return {"$ref": _SCHEMAS + type_[1:]}
        return {} if type_ == "any" else {"type": type_}
    if "one of" in type_:
        return {"enum": type_["one of"]}
    if "list" in type_:
        limit = {"maxItems": type_["max"]} if "max" in type_ else {}
        return {"type": "array", "items": _schema(type_["list"]), **limit}
    if "map" in type_:
        return {"type": "object", "additionalProperties": _schema(type_["map"]) or True}
    schema: dict[str, Any] = {"type": "object", "additionalProperties": True}
    schema["properties"] = {name: _schema(each) for name, each in type_["fields"].items()}
    if "required" in type_:
        schema["required"] = type_["required"]
    return schema
