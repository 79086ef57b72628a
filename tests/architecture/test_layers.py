"""Upper layers may import lower ones, never the other way, never sideways."""

from __future__ import annotations

from collections.abc import Iterator

from .source import Import, Module, imports, listing, modules, parse

# From the top down. A name stands for the module and all modules under it; siblings of one layer
# may not import each other. `sessions` and `telemetry` are listed module by module: their own
# names stand for their `__init__` alone.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__", "cli"),
    ("testing", "local"),
    ("agent",),
    ("sync",),
    ("sessions.choice",),
    ("sessions", "sessions.sqlite", "sessions.postgres", "sessions.checkpoints", "mcp"),
    ("client",),
    ("batch",),
    ("transport",),
    ("telemetry.otel",),
    ("sessions.memory", "sessions.functions"),
    ("telemetry", "telemetry.recorder", "sessions.store", "sessions.tree"),
    ("_core",),
    ("types",),
    ("_portal",),
    ("errors", "_version", "_ids"),
)
LISTED_ONE_BY_ONE = {"sessions", "telemetry"}

# What may only be imported inside a function: heavy, or there only with an extra.
DEFERRED = {
    "telemetry.otel": "anybody",
    "mcp": "agent",
    "sessions": "agent",
    "sessions.sqlite": "agent",
    "sessions.postgres": "agent",
    "sessions.checkpoints": "agent",
}

# The leaves use what users use (no underscore in the path, none of the runtime's own modules).
PUBLIC = ("errors", "types", "sessions", "testing", "local", "sync")
SCRIPTED = tuple(
    f"agent.{name}"
    for name in (
        "model.call",
        "model.mode",
        "model.turns",
        "run.driver",
        "run.opening",
        "run.perform",
        "run.world",
        "tools.call",
        "tools.subagent_host",
    )
)
LEAVES: dict[str, tuple[str, ...]] = {
    "__main__": ("cli",),
    "cli": PUBLIC,
    "local": PUBLIC,
    # A scripted run is the agent's own loop with nothing to wait for: it needs the parts of it.
    "testing": (*PUBLIC, "types._codec", "_core", "transport.base", *SCRIPTED),
}


def layer_of(name: str) -> tuple[int, str] | None:
    """Height (0 is the lowest) and entry of the table for a module; the longest entry counts."""
    best: tuple[int, str] | None = None
    for height, layer in enumerate(reversed(LAYERS)):
        for entry in layer:
            inside = name.startswith(f"{entry}.") and entry not in LISTED_ONE_BY_ONE
            if (name == entry or inside) and (best is None or len(entry) > len(best[1])):
                best = (height, entry)
    return best


def is_public(name: str, allowed: tuple[str, ...]) -> bool:
    """Whether a leaf with this list may import the module."""

    def covers(entry: str) -> bool:
        if entry in LISTED_ONE_BY_ONE or not name.startswith(f"{entry}."):
            return name == entry
        inner = name.removeprefix(entry)
        return entry.startswith("_") or "._" not in inner

    return name == "" or any(covers(entry) for entry in allowed)


def violations(known: tuple[Module, ...]) -> Iterator[str]:
    for module in known:
        for each in imports(module, known):
            problem = problem_of(each)
            if problem:
                yield f"{each.where}: {module.name or 'the package'} imports {problem}"


def problem_of(each: Import) -> str | None:
    target, importer = each.own, each.module.name
    if target is None:
        return None
    if importer == "":
        # The table of public names imports nothing by itself, but for the error tree.
        if each.deferred or each.typing_only or target == "errors":
            return None
        return f"{target} when it is imported itself; give it by `__getattr__`"
    source, goal = layer_of(importer), layer_of(target)
    if source is None or (goal is None and target != ""):
        return None  # test_every_module_belongs_to_a_layer says so
    if goal is not None and source[1] == goal[1]:
        return None
    if source[1] in LEAVES and not is_public(target, LEAVES[source[1]]):
        return f"{target}, and {source[1]} may use the public API only"
    if goal is None:  # the package itself
        return None if source[1] in LEAVES else "the package's public names, which lie above it"
    # Two things are free of the order: names for annotations may come from `types` everywhere,
    # and the `__init__` of a package listed one by one is a table of its modules' names.
    is_table = importer in LISTED_ONE_BY_ONE and target.startswith(f"{importer}.")
    if not is_table and not (each.typing_only and goal[1] == "types"):
        if goal[0] > source[0]:
            return f"{target}, which lies above it"
        if goal[0] == source[0]:
            return f"{target}, which stands beside it"
    must_wait = DEFERRED.get(goal[1]) in ("anybody", source[1])
    if must_wait and not each.deferred and not each.typing_only:
        return f"{target}, which may only be imported inside a function"
    return None


def cycles(known: tuple[Module, ...]) -> list[list[str]]:
    """Circles of modules that import each other when they are imported."""
    graph = {
        module.name: sorted(
            {
                each.own
                for each in imports(module, known)
                if each.own is not None and not each.deferred and not each.typing_only
            }
            - {module.name}
        )
        for module in known
    }
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
            return
        if name in done:
            return
        for target in graph.get(name, ()):
            visit(target, [*path, name])
        done.add(name)

    for name in graph:
        visit(name, [])
    return found


def test_every_module_belongs_to_a_layer() -> None:
    homeless = [m.path for m in modules() if m.name != "" and layer_of(m.name) is None]
    assert not homeless, listing(
        homeless,
        "Move each into a layer of docs/DESIGN.md, or add it there and to LAYERS in this test.",
    )


def test_upper_layers_import_lower_ones_and_nothing_else() -> None:
    problems = list(violations(modules()))
    assert not problems, listing(
        problems,
        "Move the shared part into a lower layer, or hand it over as an argument; see LAYERS.",
    )


def test_no_module_imports_itself_in_a_circle() -> None:
    circles = [" → ".join(circle) for circle in cycles(modules())]
    assert not circles, listing(
        circles, "Cut each circle: move what both need into a third module."
    )


def problems_of(*texts: tuple[str, str]) -> list[str]:
    names = [
        "",
        "errors",
        "types.tools",
        "types._codec",
        "_core.run.run",
        "transport.base",
        "agent.tools.tool",
    ]
    names += ["client.vllm", "mcp.client", "sessions.store", "sessions.sqlite", "telemetry.otel"]
    names += ["sessions.postgres", "cli.main", "local.server", "testing.script", "_portal"]
    given = {name for name, _ in texts}
    known = [parse(name, "") for name in names if name not in given]
    known += [parse(name, "", is_package=True) for name in ("sessions", "local", "testing")]
    known += [parse(name, text) for name, text in texts]
    return list(violations(tuple(known)))


def test_the_check_sees_an_import_of_a_higher_layer() -> None:
    assert problems_of(("types.tools", "from vllm_agent_sdk.agent.tools.tool import tool"))
    assert problems_of(("types.tools", "from ..agent import tools"))
    assert problems_of(("_core.run.run", "def f():\n    import vllm_agent_sdk.client.vllm"))
    assert problems_of(("client.vllm", "from vllm_agent_sdk import Agent"))
    assert problems_of(("_core.run.run", "import_module('vllm_agent_sdk.agent.tools.tool')"))
    assert not problems_of(("agent.tools", "from vllm_agent_sdk.types.tools import ToolSpec"))


def test_the_check_sees_an_import_of_a_sibling() -> None:
    assert problems_of(("sessions.sqlite", "from vllm_agent_sdk.sessions.postgres import x"))
    assert problems_of(("mcp.client", "from vllm_agent_sdk.sessions import SQLiteStore"))
    assert not problems_of(("sessions.sqlite", "from vllm_agent_sdk.sessions.store import x"))


def test_the_check_counts_imports_for_annotations() -> None:
    guard = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
    assert problems_of(("_core.run.run", f"{guard}from vllm_agent_sdk.agent.tools.tool import x"))
    assert not problems_of(("errors", f"{guard}from vllm_agent_sdk.types.tools import x"))


def test_the_check_sees_what_must_be_imported_inside_a_function() -> None:
    line = "from vllm_agent_sdk.mcp.client import connect"
    assert problems_of(("agent.tools", line))
    assert not problems_of(("agent.tools", f"def f():\n    {line}"))
    otel = "from vllm_agent_sdk.telemetry.otel import Recorder"
    assert problems_of(("client.vllm", otel))
    assert not problems_of(("client.vllm", f"async def f():\n    {otel}"))


def test_the_check_keeps_leaves_to_the_public_api() -> None:
    assert problems_of(("cli.main", "from vllm_agent_sdk.agent.tools.tool import tool"))
    assert problems_of(("cli.main", "from vllm_agent_sdk.types._codec import decode"))
    assert problems_of(("local.server", "from vllm_agent_sdk.testing import Simulator"))
    assert problems_of(("local.server", "from vllm_agent_sdk._core.run.run import x"))
    assert problems_of(("testing.script", "from vllm_agent_sdk.client.vllm import AsyncVLLM"))
    assert not problems_of(("cli.main", "from vllm_agent_sdk.local import LocalServer"))
    assert not problems_of(("cli.main", "from vllm_agent_sdk import Agent\nimport vllm_agent_sdk"))
    assert not problems_of(("cli.main", "from vllm_agent_sdk.sessions import SQLiteStore"))
    assert not problems_of(("testing.script", "from vllm_agent_sdk._core.run.run import evolve"))
    assert not problems_of(("testing.script", "from vllm_agent_sdk.types._codec import decode"))
    assert not problems_of(("testing.script", "from vllm_agent_sdk.transport.base import Request"))


def test_the_check_sees_a_circle() -> None:
    first = parse("types.a", "from vllm_agent_sdk.types.b import x")
    second = parse("types.b", "from vllm_agent_sdk.types.a import y")
    assert cycles((first, second)) == [["types.a", "types.b", "types.a"]]
