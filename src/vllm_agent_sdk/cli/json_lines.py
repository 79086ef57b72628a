"""Events as JSON lines, as `decode_event` reads them back."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["json_line"]

_CONTAINERS = (list, dict, set)


def json_line(event: object) -> str:
    """Write an event, or any of the library's values, as one line of JSON."""
    return json.dumps(_form(event), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _form(value: Any) -> Any:
    if hasattr(value, "__struct_config__"):
        return _struct(value)
    if isinstance(value, dict):
        return {str(key): _form(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_form(item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    return json.loads(bytes(value))  # JSON that is bytes already


def _struct(value: Any) -> dict[str, Any]:
    """A struct by what it says of itself: its tag, and the fields that are not at their default."""
    config = value.__struct_config__
    form: dict[str, Any] = {config.tag_field: config.tag} if config.tag is not None else {}
    names, keys = value.__struct_fields__, value.__struct_encode_fields__
    defaults = value.__struct_defaults__
    without = len(names) - len(defaults)  # defaults are those of the last fields
    for index, (name, key) in enumerate(zip(names, keys, strict=True)):
        item = getattr(value, name)
        if config.omit_defaults and index >= without and _at(defaults[index - without], item):
            continue
        form[key] = _form(item)
    return form


def _at(default: Any, item: Any) -> bool:
    if item is default:
        return True
    factory = getattr(default, "factory", None)
    return factory in _CONTAINERS and type(item) is factory and not item
