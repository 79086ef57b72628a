"""A cache, a stand-in vLLM and a stand-in Python for each test."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vllm_agent_sdk.local import _server
from vllm_agent_sdk.local._cache import Cache

from .stand_in import PYTHON, SERVER, model_folder, script

GRACE_S = 1.0

# These tests look into /proc and start POSIX process groups.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    """An empty cache, which is the default one during the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # A socket's path must be short, which pytest's folders are not.
    with tempfile.TemporaryDirectory(prefix="run-") as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        yield Cache.default()


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grace of a server is as long as tests need it; the live tests wait for the real one."""
    monkeypatch.setattr(_server, "GRACE_S", GRACE_S)


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    """The stand-in vLLM, as an interpreter."""
    return script(tmp_path / "python-with-vllm", SERVER)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder to serve."""
    return model_folder(tmp_path / "tiny")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the stand-in Python writes down its calls."""
    path = tmp_path / "calls"
    path.touch()
    monkeypatch.setenv("FAKE_CALLS", str(path))
    monkeypatch.delenv("FAKE_MODE", raising=False)
    return path


@pytest.fixture
def python(tmp_path: Path, calls: Path) -> Path:
    """The stand-in Python."""
    return script(tmp_path / "python", PYTHON)
