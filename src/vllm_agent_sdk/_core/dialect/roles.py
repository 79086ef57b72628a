"""The order of roles in a request, for chat templates that insist on one.

- `off`: messages stay as they are.
- `merge`: neighbours of one role become one message. Results of tools, and calls with what follows
  them, stay as they are.
- `strict`: that, with all system messages joined at the beginning, and a user's message before an
  assistant's first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

__all__ = ["Roles", "merged", "ordered", "refuses_roles"]

Roles: TypeAlias = Literal["off", "merge", "strict"]
Wire: TypeAlias = Mapping[str, Any]

_SYSTEM = frozenset({"system", "developer"})
_PLAIN = frozenset({"role", "content"})
# The templates of Llama 2, Mistral and Gemma; of Qwen since 3.5.
_REFUSED = re.compile(r"roles must alternate|System message must be at the beginning")


def refuses_roles(message: str) -> bool:
    """Tell whether a server's error says that a template refused the order of the roles."""
    return _REFUSED.search(message) is not None


def ordered(messages: Iterable[Wire], roles: Roles) -> list[Wire]:
    """Give a request's messages, in the wire's shape, in the order that a template wants.

    Messages that need no change are the same objects.
    """
    if roles == "off":
        return list(messages)
    given = list(messages)
    if roles == "strict":
        first = [message for message in given if message.get("role") in _SYSTEM]
        rest = [message for message in given if message.get("role") not in _SYSTEM]
        if rest and rest[0].get("role") == "assistant":
            rest.insert(0, {"role": "user", "content": ""})
        given = [*({**each, "role": "system"} for each in first), *rest]
    result: list[Wire] = []
    for message in given:
        joined = merged(result[-1], message) if result else None
        if joined is None:
            result.append(message)
        else:
            result[-1] = joined
    return result


def merged(first: Wire, second: Wire) -> dict[str, Any] | None:
    """Join two neighbours of one role; `None` where they stay apart."""
    role = first.get("role")
    if role != second.get("role") or role == "tool" or set(first) - _PLAIN:
        return None
    if set(second) - _PLAIN - {"tool_calls"}:
        return None
    content = _joined(first.get("content"), second.get("content"))
    return {**second, "content": content}


def _joined(first: Any, second: Any) -> Any:
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
