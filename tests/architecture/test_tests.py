"""A test that asserts nothing proves nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .source import ROOT, Function, listing

CLAIMS = {"raises", "warns", "fail", "RaisesGroup", "RaisesExc", "deprecated_call"}


def functions_of(tree: ast.Module) -> Iterator[Function]:
    """Test functions of a file: at its top, or in a class called `Test…`."""
    bodies = [tree.body]
    bodies += [
        n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name.startswith("Test")
    ]
    for body in bodies:
        for node in body:
            if isinstance(node, Function) and node.name.startswith("test_") and not fixture(node):
                yield node


def fixture(node: Function) -> bool:
    return any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)


def claims(node: Function) -> bool:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assert):
            return True
        if isinstance(inner, ast.Call):
            called = inner.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in CLAIMS or name.lstrip("_").startswith(("check_", "assert_")):
                return True
    return False


def test_every_test_asserts_something() -> None:
    empty = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        empty += [
            f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
            for node in functions_of(tree)
            if not claims(node)
        ]
    assert not empty, listing(
        empty, "Assert what a user would see (`assert`, `pytest.raises`, `check_…`, `assert_…`)."
    )


def test_the_check_sees_a_test_without_a_claim() -> None:
    tree = ast.parse(
        "def test_a(): run()\n"
        "def test_b(): assert run()\n"
        "async def test_c():\n    with pytest.raises(E): await run()\n"
        "class TestD:\n    def test_d(self): check_all()\n"
    )
    assert [node.name for node in functions_of(tree) if not claims(node)] == ["test_a"]
