"""The package as text: its modules, and what each imports, read with `ast` and never executed."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "vllm_agent_sdk"
ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / PACKAGE

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file.

    Attributes:
        name: Dotted and relative to the package: `types.tools`; a package's `__init__` goes by the
            package's name, the top one by `""`.
        path: Relative to the project's folder, for messages.
        tree: The parsed file.
        is_package: True for an `__init__.py`.
    """

    name: str
    path: str
    tree: ast.Module
    is_package: bool = False

    @property
    def package(self) -> str:
        """The name of the package that the module is, or is in."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Import:
    """One module that another one imports.

    Attributes:
        module: Who imports.
        line: Where.
        own: The imported module of this package (as `Module.name`), or `None`.
        foreign: The imported top-level module of anybody else's, or `None`.
        deferred: True inside a function: nothing happens at import.
        typing_only: True under `if TYPE_CHECKING:`.
    """

    module: Module
    line: int
    own: str | None
    foreign: str | None
    deferred: bool
    typing_only: bool

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.module.path}:{self.line}"


def parse(name: str, text: str, *, is_package: bool = False) -> Module:
    """A module from its text; tests of the checks themselves use it."""
    path = name.replace(".", "/") + ("/__init__.py" if is_package else ".py")
    return Module(name, f"src/{PACKAGE}/{path}", ast.parse(text), is_package)


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every module of the package."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        found.append(Module(name, str(path.relative_to(ROOT)), tree, is_package))
    return tuple(found)


def imports(module: Module, known: Iterable[Module] = ()) -> Iterator[Import]:
    """Everything that `module` imports, constant `import_module("…")` calls included.

    `from package import name` counts as an import of `package.name` where that is a module of
    `known` (default: all of the package's), else of `package`.
    """
    names = {each.name for each in (known or modules())}
    for node, deferred, typing_only in _walk(module.tree, deferred=False, typing_only=False):
        for target in _targets(node, module, names):
            top, _, rest = target.partition(".")
            ours = top == PACKAGE
            yield Import(
                module,
                node.lineno,
                own=_nearest(rest, names) if ours else None,
                foreign=None if ours else top,
                deferred=deferred,
                typing_only=typing_only,
            )


def _walk(
    node: ast.AST, *, deferred: bool, typing_only: bool
) -> Iterator[tuple[ast.stmt | ast.Call, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom | ast.Call):
            yield child, deferred, typing_only
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            for part in child.body:
                yield from _walk(ast.Module([part], []), deferred=deferred, typing_only=True)
            for part in child.orelse:
                yield from _walk(ast.Module([part], []), deferred=deferred, typing_only=typing_only)
            continue
        inside = deferred or isinstance(child, Function | ast.Lambda)
        yield from _walk(child, deferred=inside, typing_only=typing_only)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _targets(node: ast.AST, module: Module, names: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = [PACKAGE, *(module.package.split(".") if module.package else [])]
            parts = parts[: len(parts) - (node.level - 1)]
            base = ".".join([*parts, *([node.module] if node.module else [])])
        for alias in node.names:
            inner = f"{base}.{alias.name}".removeprefix(f"{PACKAGE}.")
            yield f"{PACKAGE}.{inner}" if inner in names and base.startswith(PACKAGE) else base
    elif isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else None
        called = node.func.id if isinstance(node.func, ast.Name) else called
        first = node.args[0]
        if (
            called in ("import_module", "__import__")
            and isinstance(first, ast.Constant)
            and isinstance(first.value, str)
            and not first.value.startswith(".")
        ):
            yield first.value


def _nearest(name: str, names: set[str]) -> str:
    """The module that holds `name`: itself, or the package around it."""
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name


def functions(tree: ast.Module) -> Iterator[tuple[str, Function, bool]]:
    """Each function with its qualified name, and whether it is a method."""

    def visit(
        node: ast.AST, prefix: str, *, in_class: bool
    ) -> Iterator[tuple[str, Function, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield f"{prefix}{child.name}", child, in_class
                yield from visit(child, f"{prefix}{child.name}.", in_class=False)
            elif isinstance(child, ast.ClassDef):
                yield from visit(child, f"{prefix}{child.name}.", in_class=True)
            else:
                yield from visit(child, prefix, in_class=in_class)

    yield from visit(tree, "", in_class=False)


def executed_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported.

    Bodies of functions don't; decorators, defaults and annotations outside of them do.
    """

    def visit(node: ast.AST) -> Iterator[ast.AST]:
        yield node
        if isinstance(node, Function):
            for part in [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]:
                if part is not None:
                    yield from visit(part)
        elif isinstance(node, ast.Lambda):
            for part in [*node.args.defaults, *node.args.kw_defaults]:
                if part is not None:
                    yield from visit(part)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            for part in node.orelse:
                yield from visit(part)
        else:
            for child in ast.iter_child_nodes(node):
                yield from visit(child)

    yield from visit(tree)


def listing(problems: Iterable[str], advice: str) -> str:
    """A failure's message: the problems, a line each, and what to do."""
    return "\n".join(["", *(f"  {problem}" for problem in problems), advice])
