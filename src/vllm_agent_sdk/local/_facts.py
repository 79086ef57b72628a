"""Whether this machine can run the CPU build: a record of facts, and a judgement of one."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NEEDED_BYTES", "Facts", "gather_facts", "problem"]

NEEDED_BYTES = 8_000_000_000
_GLIBC = (2, 28)
_PYTHONS = ((3, 11), (3, 14))
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides whether vLLM's CPU build can be installed here.

    Attributes:
        system: As `platform.system()` says, such as `"Linux"`.
        machine: As `platform.machine()` says, such as `"x86_64"`.
        python: Major and minor version of the interpreter.
        implementation: `"cpython"`, `"cpython-free-threaded"`, `"pypy"`, …
        libc: Version of glibc, or `None` where the C library is another one.
        cpu_flags: The processor's features in lower case, or `None` where they cannot be read.
        disk_free: Free bytes where the cache is.
        cache: The cache's folder, for the sentence.
        has_venv: Whether the modules `venv` and `ensurepip` are there.
    """

    system: str
    machine: str
    python: tuple[int, int]
    implementation: str
    libc: tuple[int, int] | None
    cpu_flags: frozenset[str] | None
    disk_free: int
    cache: str
    has_venv: bool


def gather_facts(cache: Path | None = None) -> Facts:
    """Collect the facts of this machine; nothing is written and nothing is sent.

    Args:
        cache: The cache's folder (default: the one that `LocalServer` uses); it need not exist.
    """
    if cache is None:
        from vllm_agent_sdk.local._cache import Cache

        cache = Cache.default().root
    name = sys.implementation.name
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        name += "-free-threaded"
    return Facts(
        system=platform.system(),
        machine=platform.machine(),
        python=sys.version_info[:2],
        implementation=name,
        libc=_glibc(),
        cpu_flags=_cpu_flags(),
        disk_free=_disk_free(cache),
        cache=str(cache),
        has_venv=all(importlib.util.find_spec(module) for module in ("venv", "ensurepip")),
    )


def problem(facts: Facts) -> str | None:
    """Say in one sentence why the CPU build cannot be installed, or `None` if it can."""
    machine = _MACHINES.get(facts.machine.lower())
    low, high = _PYTHONS
    version = ".".join(map(str, facts.python))
    if facts.system != "Linux" or machine is None:
        return (
            f"vLLM's CPU build exists for Linux on x86-64 and aarch64, not for {facts.system} on "
            f"{facts.machine}; use a server elsewhere (base_url=) or install vllm here yourself."
        )
    if facts.libc is None or facts.libc < _GLIBC:
        has = "another C library" if facts.libc is None else "glibc {}.{}".format(*facts.libc)
        return (
            f"vLLM's CPU build needs glibc 2.28 or newer, and this system has {has}; use a newer "
            "Linux distribution, or a server elsewhere (base_url=)."
        )
    if machine == "x86_64" and facts.cpu_flags is not None and "avx2" not in facts.cpu_flags:
        return (
            "vLLM's CPU build needs a processor with AVX2, which this one lacks; use a newer "
            "machine, or a server elsewhere (base_url=)."
        )
    if facts.implementation != "cpython" or not low <= facts.python <= high:
        return (
            f"vLLM's CPU build has wheels for CPython 3.11 to 3.14, and this is "
            f"{facts.implementation} {version}; run vllm-agent with one of those."
        )
    if not facts.has_venv:
        return (
            "Python's venv and ensurepip modules are missing; install them "
            f"(Debian and Ubuntu: apt install python{version}-venv)."
        )
    if facts.disk_free < NEEDED_BYTES:
        return (
            f"vLLM's CPU build needs 8 GB of free disk at {facts.cache}, and there are "
            f"{facts.disk_free / 1e9:.1f} GB; free some, or set XDG_CACHE_HOME to another disk."
        )
    return None


def _glibc() -> tuple[int, int] | None:
    # os.confstr asks the running C library; platform.libc_ver reads the interpreter's file.
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) if name == "glibc" else None
    except (AttributeError, ValueError, OSError):
        return None


def _cpu_flags() -> frozenset[str] | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in {"flags", "features"}:
            return frozenset(value.lower().split())
    return None


def _disk_free(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
