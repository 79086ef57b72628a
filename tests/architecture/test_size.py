"""Law 9: small. Files of 150 to 400 lines, functions under 60, at most 8 parameters."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from .source import ROOT, SRC, Function, functions, listing, modules

FILE_LIMIT, FILE_MAXIMUM = 400, 600
FUNCTION_LIMIT, FUNCTION_MAXIMUM = 60, 100
PARAMETER_MAXIMUM = 8

TABLE = Path(__file__).with_name("size.toml")
ALLOWED: dict[str, dict[str, str]] = tomllib.loads(TABLE.read_text(encoding="utf-8"))

# Only these may be listed under [parameters]: constructors whose keywords are the options of a
# client or of a definition, and the decorator that describes a tool.
MAY_HAVE_MANY = ("AsyncVLLM.__init__", "VLLM.__init__", "Agent.__init__", "Agent.__new__", "tool")


# The table of public names is as long as there are names.
NOT_COUNTED = SRC / "__init__.py"


def file_lengths() -> dict[str, int]:
    return {
        str(path.relative_to(SRC)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sorted(SRC.rglob("*.py"))
        if path != NOT_COUNTED
    }


def sizes_of_functions(measure: Callable[[Function, bool], int]) -> dict[str, int]:
    """The measure of each function; of several with one name (overloads), the largest."""
    found: dict[str, int] = {}
    for module in modules():
        path = (ROOT / module.path).relative_to(SRC)
        for name, node, in_class in functions(module.tree):
            key = f"{path}::{name}"
            found[key] = max(found.get(key, 0), measure(node, in_class))
    return found


def length(node: Function, _in_class: bool = False) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def parameters(node: Function, in_class: bool) -> int:
    """How many parameters a caller sees; `*args` and `**kwargs` are one each."""
    args = node.args
    count = len(args.posonlyargs) + len(args.args) + len(args.kwonlyargs)
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
    if in_class and not static and (args.posonlyargs or args.args):
        count -= 1
    return count + (args.vararg is not None) + (args.kwarg is not None)


def too_large(sizes: Mapping[str, int], limit: int, allowed: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: {size}" for name, size in sizes.items() if size > limit and name not in allowed
    ]


def no_longer_needed(sizes: Mapping[str, int], limit: int, allowed: Mapping[str, str]) -> list[str]:
    return [f"{name}: {sizes.get(name, 'gone')}" for name in allowed if sizes.get(name, 0) <= limit]


def assert_within(kind: str, sizes: Mapping[str, int], limit: int, maximum: int) -> None:
    allowed = ALLOWED[kind]
    huge = too_large(sizes, maximum, {})
    assert not huge, listing(huge, f"Nothing may be over {maximum}: cut it in parts by concept.")
    large = too_large(sizes, limit, allowed)
    assert not large, listing(
        large, f"Over {limit}: cut it in parts, or list it with a reason in {TABLE.name} [{kind}]."
    )
    stale = no_longer_needed(sizes, limit, allowed)
    assert not stale, listing(
        stale, f"No longer over {limit}: take the entry out of {TABLE.name} [{kind}]."
    )


def test_files_are_small() -> None:
    assert_within("files", file_lengths(), FILE_LIMIT, FILE_MAXIMUM)


def test_functions_are_small() -> None:
    sizes = sizes_of_functions(length)
    assert_within("functions", sizes, FUNCTION_LIMIT, FUNCTION_MAXIMUM)


def test_functions_have_at_most_eight_parameters() -> None:
    allowed = ALLOWED["parameters"]
    sizes = sizes_of_functions(parameters)
    many = too_large(sizes, PARAMETER_MAXIMUM, allowed)
    assert not many, listing(many, "Over 8 parameters: make a frozen group of options of them.")
    stale = no_longer_needed(sizes, PARAMETER_MAXIMUM, allowed)
    assert not stale, listing(stale, f"8 or fewer now: take it out of {TABLE.name} [parameters].")
    foreign = [name for name in allowed if name.partition("::")[2] not in MAY_HAVE_MANY]
    assert not foreign, listing(foreign, f"Only {', '.join(MAY_HAVE_MANY)} may have more than 8.")


def test_what_is_listed_has_a_reason() -> None:
    bare = [name for table in ALLOWED.values() for name, why in table.items() if len(why) < 10]
    assert not bare, listing(bare, f"Say in {TABLE.name} why it cannot be smaller.")


def test_the_count_of_parameters_leaves_out_self() -> None:
    tree = ast.parse(
        "class A:\n"
        "    def f(self, a, /, b, *args, c, **kw): ...\n"
        "    @staticmethod\n"
        "    def g(a, b): ...\n"
        "def h(a, b=1): ...\n"
    )
    counts = {name: parameters(node, inside) for name, node, inside in functions(tree)}
    assert counts == {"A.f": 5, "A.g": 2, "h": 2}
