"""Law 1: what has state across time has no I/O, no clock, no randomness and no logging."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .source import Module, imports, listing, modules, parse

# Modules of the standard library that wait, look at a clock, roll dice, log or leave the process.
IMPURE = frozenset(
    {
        "anyio",
        "asyncio",
        "concurrent",
        "contextvars",
        "http",
        "logging",
        "multiprocessing",
        "os",
        "queue",
        "random",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "socketserver",
        "sqlite3",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "uuid",
        "warnings",
    }
)
CALLS = frozenset({"print", "input", "open", "breakpoint", "exec", "eval"})
NEVER_THE_CLOCK = frozenset({"now", "utcnow", "today"})


def impurities(module: Module) -> Iterator[str]:
    for each in imports(module, (module,)):
        if each.foreign in IMPURE:
            yield f"{each.where}: imports {each.foreign}"
    for node in ast.walk(module.tree):
        where = f"{module.path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom) and "urllib.request" in ast.unparse(node):
            yield f"{where}: imports urllib.request"
        if isinstance(node, ast.AsyncFunctionDef):
            yield f"{where}: `async def {node.name}`"
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{where}: waits (`await`, `async for` or `async with`)"
        if isinstance(node, ast.comprehension) and node.is_async:
            yield f"{module.path}: an asynchronous comprehension"
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else None
            if name in CALLS:
                yield f"{where}: calls {name}()"
            if isinstance(node.func, ast.Attribute) and node.func.attr in NEVER_THE_CLOCK:
                yield f"{where}: reads the clock by .{node.func.attr}()"


def test_the_core_does_no_io_and_has_no_clock_randomness_or_logging() -> None:
    core = [module for module in modules() if f"{module.name}.".startswith("_core.")]
    problems = [problem for module in core for problem in impurities(module)]
    assert core, "There is no _core package."
    assert not problems, listing(
        problems, "Take the time, the jitter or the bytes as an argument; the driver does the rest."
    )


def test_the_check_sees_what_is_not_pure() -> None:
    for text in (
        "import time",
        "from os import environ",
        "import urllib.request",
        "def f():\n    import random",
        "async def f(): ...",
        "def f():\n    print(1)",
        "from datetime import datetime\ndef f():\n    return datetime.now()",
    ):
        assert list(impurities(parse("_core.sample", text))), text
    assert not list(impurities(parse("_core.sample", "import json, re\ndef f(now): return now")))
