"""Law 7: no import side effects, no environment reads but the documented ones, no output."""

from __future__ import annotations

import ast
import fnmatch
import subprocess
import sys
from collections.abc import Iterator

from .source import ROOT, Module, executed_at_import, listing, modules, parse

# Scripts that another Python runs as a process of their own; no module imports them.
SCRIPTS = ("local._convert", "local._supervisor")
MAY_PRINT = ("cli", "cli.*", "__main__", *SCRIPTS)
# The documented variables are read by the client's configuration and the choice of a session
# store; XDG_* by the local server and the command line; what a .mcp.json names by mcp.
MAY_READ_ENVIRONMENT = (
    "client.config",
    "sessions",
    "sessions.*",
    "mcp.*",
    "local",
    "local.*",
    "cli",
    "cli.*",
)
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def outputs(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        where = f"{module.path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "print",
            "pprint",
            "sys.stdout.write",
            "sys.stderr.write",
        ):
            yield f"{where}: {ast.unparse(node.func)}(…)"


def environment_reads(nodes: Iterator[ast.AST], path: str) -> Iterator[str]:
    for node in nodes:
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {
            f"os.{name}" for name in ENVIRONMENT
        }:
            yield f"{where}: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = ENVIRONMENT & {alias.name for alias in node.names}
            yield from (f"{where}: from os import {name}" for name in sorted(names))


def test_nothing_is_written_to_stdout_or_stderr_outside_the_command_line() -> None:
    problems = [
        problem
        for module in modules()
        if not matches(module.name, MAY_PRINT)
        for problem in outputs(module)
    ]
    assert not problems, listing(problems, "Log it, make it an event, or hand it to a callback.")


def test_the_environment_is_read_only_where_it_is_documented() -> None:
    problems = [
        problem
        for module in modules()
        if not matches(module.name, MAY_READ_ENVIRONMENT)
        for problem in environment_reads(ast.walk(module.tree), module.path)
    ]
    assert not problems, listing(
        problems, "Take the value as an argument; only configuration reads the environment."
    )


def test_the_environment_is_never_read_at_import() -> None:
    problems = [
        problem
        for module in modules()
        if module.name not in SCRIPTS
        for problem in environment_reads(executed_at_import(module.tree), module.path)
        if "from os import" not in problem
    ]
    assert not problems, listing(problems, "Read it inside the function that needs it.")


def test_the_checks_see_output_and_environment_reads() -> None:
    module = parse("agent.x", "import os\ndef f(a=os.getenv('X')):\n    print(os.environ['Y'])\n")
    assert len(list(outputs(module))) == 1
    assert len(list(environment_reads(ast.walk(module.tree), ""))) == 2
    assert len(list(environment_reads(executed_at_import(module.tree), ""))) == 1


# Runs in a Python of its own, imports all modules that the dependencies at hand allow, and reports
# what an import should not do. Twice: other libraries may do in theirs what they like.
IMPORT_ALL = """
import importlib, sys, threading

def import_all():
    for name in NAMES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("vllm_agent_sdk"):
                raise

def watch(event, args):
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if writes or event in WATCHED:
        seen.append(f"{event} {args!r:.100}")

WATCHED = {"socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.fork",
           "os.mkdir", "os.remove", "os.rename", "os.putenv"}
seen = []
sys.dont_write_bytecode = True
import_all()
for name in [name for name in sys.modules if name.partition(".")[0] == "vllm_agent_sdk"]:
    del sys.modules[name]
sys.addaudithook(watch)
import_all()
print("\\n".join(seen + [f"thread {t.name}" for t in threading.enumerate()[1:]]))
"""


def test_importing_does_nothing_that_can_be_seen_from_outside() -> None:
    names = [
        f"vllm_agent_sdk.{module.name}".rstrip(".")
        for module in modules()
        if module.name not in (*SCRIPTS, "__main__")
    ]
    done = subprocess.run(
        [sys.executable, "-c", f"NAMES = {names!r}\n{IMPORT_ALL}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "", listing(
        done.stdout.splitlines(), "Do it when it is first needed, not when it is imported."
    )
    assert done.stderr == ""
