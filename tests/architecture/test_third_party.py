"""Law 8: one importer per third-party library, and none that is not listed here."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterator
from typing import NamedTuple

from .source import Import, Module, imports, listing, modules, parse


class Rule(NamedTuple):
    """Where a library may be imported.

    Attributes:
        where: Patterns of module names.
        one: True if only one module may import it.
        deferred: True if only inside functions: it is heavy, or only there with an extra.
    """

    where: tuple[str, ...]
    one: bool = True
    deferred: bool = False


RULES: dict[str, Rule] = {
    "typing_extensions": Rule(("*",), one=False),
    # The two that law 8 lets several modules import.
    "msgspec": Rule(("types", "types.*"), one=False),
    "anyio": Rule(("_portal", "mcp", "mcp.*", "local", "local.*"), one=False),
    "aiohttp": Rule(("transport.http.*",), one=False),
    # Of aiohttp's own interface: its URLs and its headers.
    "yarl": Rule(("transport.http.*",)),
    "multidict": Rule(("transport.http.*",)),
    "jsonschema_rs": Rule(("_core.schema.check",), deferred=True),
    # Extras.
    "pathspec": Rule(("sessions.tree",), deferred=True),
    "mcp": Rule(("mcp", "mcp.*"), one=False, deferred=True),
    "opentelemetry": Rule(("telemetry.otel", "telemetry.otel.*"), one=False),
    "prometheus_client": Rule(("telemetry.otel", "telemetry.prometheus"), deferred=True),
    "psycopg": Rule(("sessions.postgres", "sessions.postgres.*")),
    "psycopg_pool": Rule(("sessions.postgres", "sessions.postgres.*")),
    "PIL": Rule(("types.*",), deferred=True),
    # A script that the environment of a provisioned vLLM runs, not the user's Python.
    "torch": Rule(("local._convert",), deferred=True),
    "transformers": Rule(("local._convert",), deferred=True),
    "cyclopts": Rule(("cli.*",)),
    "prompt_toolkit": Rule(("cli.*",)),
    "rich": Rule(("cli.*",), one=False),
}


def strangers(known: tuple[Module, ...]) -> Iterator[Import]:
    for module in known:
        for each in imports(module, known):
            if each.foreign is not None and each.foreign not in sys.stdlib_module_names:
                yield each


def violations(known: tuple[Module, ...]) -> Iterator[str]:
    importers: dict[str, set[str]] = {}
    for each in strangers(known):
        library = str(each.foreign)
        rule = RULES.get(library)
        if rule is None:
            yield f"{each.where}: {library} is not a dependency that is listed in RULES"
            continue
        if not any(fnmatch.fnmatchcase(each.module.name, pattern) for pattern in rule.where):
            yield f"{each.where}: {library} may only be imported by {', '.join(rule.where)}"
        if rule.deferred and not each.deferred and not each.typing_only:
            yield f"{each.where}: {library} may only be imported inside a function"
        importers.setdefault(library, set()).add(each.module.path)
    for library, paths in importers.items():
        if RULES[library].one and len(paths) > 1:
            yield f"{library} is imported by {len(paths)} modules: {', '.join(sorted(paths))}"


def test_each_library_has_one_importer_and_is_listed() -> None:
    problems = list(violations(modules()))
    assert not problems, listing(
        problems, "Use what the importing module offers; a new dependency needs a line in RULES."
    )


def test_the_core_imports_no_library_but_the_schema_validator() -> None:
    problems = [
        f"{each.where}: imports {each.foreign}"
        for each in strangers(modules())
        if f"{each.module.name}.".startswith("_core.")
        and each.foreign not in ("jsonschema_rs", "typing_extensions")
    ]
    assert not problems, listing(problems, "Move what needs the library out of _core.")


def test_the_check_sees_a_second_importer_and_an_unknown_library() -> None:
    first = parse("transport.http.transport", "import aiohttp")
    assert not list(violations((first,)))
    assert list(violations((parse("client.vllm", "import aiohttp"),)))
    assert list(violations((parse("client.vllm", "def f():\n    from httpx import Client"),)))
    assert list(violations((parse("_core.schema.check", "import jsonschema_rs"),)))
    inside = parse("_core.schema.check", "def f():\n    import jsonschema_rs")
    assert not list(violations((inside,)))
    apps = (parse("cli.main", "import cyclopts"), parse("cli.chat", "import cyclopts"))
    assert list(violations(apps))
