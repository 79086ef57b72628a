"""The public names: one sorted table, each of them importable, each of them ours."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
import tomllib
from collections.abc import Iterator
from typing import Any

import vllm_agent_sdk
from vllm_agent_sdk import errors

from .source import PACKAGE, ROOT, listing


def public_names() -> list[str]:
    return list(getattr(vllm_agent_sdk, "__all__", ()))


def value_of(name: str) -> Any:
    return getattr(vllm_agent_sdk, name)


def test_the_table_of_public_names_is_sorted_and_has_no_doubles() -> None:
    names = public_names()
    assert names, "vllm_agent_sdk has no __all__."
    assert names == sorted(set(names)), "Sort __all__ and take doubles out."


def test_every_public_name_can_be_imported() -> None:
    missing = [name for name in public_names() if not hasattr(vllm_agent_sdk, name)]
    assert not missing, listing(missing, "They are in __all__ and cannot be imported.")


def test_dir_shows_every_public_name() -> None:
    missing = sorted(set(public_names()) - set(dir(vllm_agent_sdk)))
    assert not missing, listing(missing, "`__dir__` leaves them out.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(vllm_agent_sdk, "NoSuchName")


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert vllm_agent_sdk.__version__ == project["version"], (
        "pyproject.toml and src/vllm_agent_sdk/_version.py name different versions."
    )


def test_every_error_can_be_imported_from_the_package() -> None:
    missing = sorted(set(errors.__all__) - set(public_names()))
    assert not missing, listing(missing, "Add them to the package's table of names.")
    strange = [name for name in errors.__all__ if value_of(name) is not getattr(errors, name)]
    assert not strange, listing(strange, "They are not the classes of vllm_agent_sdk.errors.")


def test_every_public_class_and_function_says_it_is_ours() -> None:
    foreign = []
    for name in public_names():
        value = value_of(name)
        if inspect.isclass(value) or inspect.isfunction(value):
            home = value.__module__
            if home != PACKAGE and not home.startswith(f"{PACKAGE}."):
                foreign.append(f"{name} is from {home}")
    assert not foreign, listing(foreign, "Types of other libraries are no public names.")


def test_no_public_name_hides_a_builtin() -> None:
    hidden = sorted(set(public_names()) & set(dir(builtins)))
    assert not hidden, listing(hidden, "Give them names of their own.")


# ── what the documentation uses ──────────────────────────────────────────────────────────────────


def documents() -> Iterator[tuple[str, str]]:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            for block in re.findall(
                r"^[ \t]*```(?:python|py)\b[^\n]*\n(.*?)^[ \t]*```", text, re.MULTILINE | re.DOTALL
            ):
                yield path.relative_to(ROOT).as_posix(), textwrap.dedent(block)
    for path in sorted((ROOT / "examples").rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def imported_names(code: str) -> Iterator[tuple[str, str]]:
    """(module, name) of each import from the package; snippets need not parse as a whole."""
    pattern = rf"^[ \t]*from[ \t]+({PACKAGE}[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]+)"
    for module, names in re.findall(pattern, code, re.MULTILINE):
        plain = re.sub(r"#[^\n]*", "", names).strip("() \t\n").rstrip(",")
        for alias in ast.parse(f"import {' '.join(plain.split())}").body[0].names:  # type: ignore[attr-defined]
            yield module, alias.name


def test_the_names_that_the_documentation_imports_are_public() -> None:
    unknown = []
    for where, code in documents():
        for module, name in imported_names(code):
            if module == PACKAGE and name not in public_names():
                unknown.append(f"{where}: from {PACKAGE} import {name}")
            if any(part.startswith("_") for part in module.split(".")):
                unknown.append(f"{where}: from {module} import {name}")
    assert not unknown, listing(unknown, "Make them public, or correct the documentation.")


def test_imports_are_found_in_snippets_that_do_not_parse() -> None:
    code = "from vllm_agent_sdk import (\n    Agent,  # the agent\n    tool as t,\n)\nawait ...("
    assert list(imported_names(code)) == [(PACKAGE, "Agent"), (PACKAGE, "tool")]
