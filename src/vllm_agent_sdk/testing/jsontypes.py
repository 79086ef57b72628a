"""JSON of unknown shape: what a value is, in words the type checkers follow."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypeIs

__all__ = ["is_list", "is_object"]


def is_object(value: object) -> TypeIs[dict[str, Any]]:
    """Tell whether it is a JSON object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeIs[list[Any]]:
    """Tell whether it is a JSON array."""
    return isinstance(value, list)
