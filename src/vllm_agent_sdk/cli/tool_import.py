"""`--tool module:function`: a tool by the name of a Python function."""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import Any

from vllm_agent_sdk import Tool, UsageError, tool

__all__ = ["import_tool"]


def import_tool(name: str) -> Tool[Any]:
    """Import what `module:function` names; a plain function is made a tool.

    Raises:
        UsageError: There is no such module or function, or it cannot be a tool.
    """
    path, colon, attribute = name.partition(":")
    if not (path and colon and attribute) or path.endswith(".py"):
        written = path.removesuffix(".py").replace("/", ".") or "module"
        raise UsageError(
            f"--tool {name}: write it as module:function, such as {written}:{attribute or 'fn'}."
        )
    value: Any = _module(path, name)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise UsageError(f"--tool {name}: {_missing(value, part)}")
        value = getattr(value, part)
    if isinstance(value, Tool) and not isinstance(value, type):
        return value
    if not callable(value):
        raise UsageError(
            f"--tool {name}: {attribute} is {type(value).__name__}, no function; name a function."
        )
    try:
        return tool(value)
    except UsageError as error:
        raise UsageError(f"--tool {name}: {error.message}") from error


def _module(path: str, name: str) -> Any:
    if sys.path[:1] != [""]:
        sys.path.insert(0, "")  # the current folder, as `python -m` has it
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{path}.".startswith(f"{error.name}."):
            raise UsageError(
                f"--tool {name}: there is no module {error.name!r} in the current folder or among "
                "the installed packages."
            ) from error
        raise UsageError(f"--tool {name}: {path} could not be imported: {error}.") from error
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"--tool {name}: {path} could not be imported: {type(error).__name__}: {error}."
        ) from error


def _missing(value: Any, part: str) -> str:
    own = getattr(value, "__name__", type(value).__name__)
    near = difflib.get_close_matches(part, dir(value), 1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{own} has no {part!r}{hint}"
