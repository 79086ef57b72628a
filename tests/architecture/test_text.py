"""What must not stand in the project's text."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from .source import ROOT, listing

FOLDERS = ("src", "docs", "tests", "tools", "examples", "benchmarks", ".ci")
FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")
SUFFIXES = {".py", ".md", ".toml", ".txt", ".json", ".jsonl", ".jinja", ".sh", ".cfg", ".yml", ""}

# Where packages come from is the business of pip's configuration. (Put together, so that this
# file holds none of them.)
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pypi", "python", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("deb", "debian", "org"),
        ("anaconda", "org"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("docker", "io"),
        ("ghcr", "io"),
        ("download", "pytorch", "org"),
    )
)
# PyTorch's CPU build is not on every index: the one place that may name its own.
PYTORCH = REGISTRIES[-1]
MAY_NAME_PYTORCH = ("src/vllm_agent_sdk/local/", "docs/guides/local", "docs/local", "tests/local/")

HOSTS = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, REGISTRIES))})(?!\w)")
PATHS = re.compile(r"(?<![\w.\-}])/(?:work|root)/")


@functools.cache
def texts() -> tuple[tuple[str, str], ...]:
    """Every file that is text: its name, and what is in it."""
    files = []
    paths = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        paths += sorted((ROOT / folder).rglob("*"))
    for path in paths:
        relative = path.relative_to(ROOT)
        if not path.is_file() or path.suffix not in SUFFIXES or "__pycache__" in relative.parts:
            continue
        if path == Path(__file__):
            continue
        files.append((relative.as_posix(), path.read_text(encoding="utf-8", errors="replace")))
    return tuple(files)


def found(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, str]]:
    """The number of the line of each match, and what matched."""
    for match in pattern.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match[0]


def registries_in(name: str, text: str) -> Iterator[str]:
    for number, host in found(HOSTS, text):
        if not (host == PYTORCH and name.startswith(MAY_NAME_PYTORCH)):
            yield f"{name}:{number}: {host}"


def test_no_package_registry_is_named() -> None:
    problems = [problem for name, text in texts() for problem in registries_in(name, text)]
    assert not problems, listing(
        problems, "Say the package's name instead; where it comes from is up to pip's settings."
    )


def test_no_path_of_one_machine_is_named() -> None:
    problems = [
        f"{name}:{number}: {path}" for name, text in texts() for number, path in found(PATHS, text)
    ]
    assert not problems, listing(
        problems, "Write a path that every machine has, or a relative one."
    )


def test_the_check_sees_registries_and_lets_the_pytorch_index_be_named_in_local() -> None:
    host = "https://" + PYTORCH + "/whl/cpu"
    assert list(registries_in("src/vllm_agent_sdk/client/vllm.py", host))
    assert not list(registries_in("src/vllm_agent_sdk/local/install.py", host))
    assert list(registries_in("README.md", "https://" + REGISTRIES[0] + "/project/x"))
    assert PATHS.search("cd /work" + "/main")
    assert not PATHS.search("/v1/work" + "/items")
