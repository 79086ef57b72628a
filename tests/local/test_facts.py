"""Whether the CPU build can run: judged from a record of facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vllm_agent_sdk.local import Facts, gather_facts, problem
from vllm_agent_sdk.local._cache import Cache

GOOD = Facts(
    system="Linux",
    machine="x86_64",
    python=(3, 12),
    implementation="cpython",
    libc=(2, 36),
    cpu_flags=frozenset({"sse4_2", "avx", "avx2"}),
    disk_free=20_000_000_000,
    cache="/somewhere/vllm-agent",
    has_venv=True,
)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"python": (3, 11)},
        {"python": (3, 14)},
        {"machine": "AMD64"},
        {"machine": "aarch64", "cpu_flags": frozenset({"asimd"})},
        {"cpu_flags": None},  # unreadable: the installation decides
        {"libc": (2, 28)},
        {"disk_free": 8_000_000_000},
    ],
)
def test_these_can_run_it(change: dict[str, Any]) -> None:
    assert problem(replace(GOOD, **change)) is None


@pytest.mark.feature("X-03")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"system": "Darwin", "machine": "arm64"}, "not for Darwin on arm64; use a server"),
        ({"system": "Windows", "machine": "AMD64"}, "not for Windows on AMD64"),
        ({"machine": "riscv64"}, "not for Linux on riscv64"),
        ({"libc": None}, "another C library"),
        ({"libc": (2, 17)}, "glibc 2.17; use a newer"),
        ({"cpu_flags": frozenset({"avx"})}, "AVX2, which this one lacks; use a newer"),
        ({"python": (3, 10)}, "CPython 3.11 to 3.14, and this is cpython 3.10; run"),
        ({"python": (3, 15)}, "this is cpython 3.15"),
        ({"implementation": "pypy"}, "this is pypy 3.12"),
        ({"implementation": "cpython-free-threaded"}, "cpython-free-threaded 3.12"),
        ({"has_venv": False}, "apt install python3.12-venv"),
        ({"disk_free": 3_210_000_000}, "8 GB of free disk at /somewhere/vllm-agent, and there are"),
        ({"disk_free": 3_210_000_000}, "3.2 GB; free some, or set XDG_CACHE_HOME"),
    ],
)
def test_these_cannot_and_are_told_in_one_sentence(change: dict[str, Any], said: str) -> None:
    sentence = problem(replace(GOOD, **change))
    assert sentence is not None
    assert said in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


def test_the_facts_of_this_machine(cache: Cache) -> None:
    facts = gather_facts()
    assert facts.cache == str(cache.root)
    assert facts.disk_free > 0
    assert facts.python >= (3, 11)
    assert not cache.root.exists()  # looking makes nothing
