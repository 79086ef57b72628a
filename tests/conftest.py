"""What all tests share: feature marks, the block on foreign connections, hypothesis profiles.

- `@pytest.mark.feature("C-01", "C-02")` names rows of `features.toml`; an id that is not there
  ends the collection. `--feature-report PATH` writes `{id: [[test, outcome], …]}` as JSON.
- No test may reach anything but loopback and Unix sockets: nothing is ever sent anywhere but to
  the servers the user named. A test that tries fails, even if the code under test takes the
  refusal for a lost connection.
- Property tests run 200 examples, the same ones every time in CI; `--hypothesis-profile=fuzz`
  runs many.
"""

from __future__ import annotations

import gc
import ipaddress
import json
import os
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

FEATURES = Path(__file__).with_name("features.toml")

settings.register_profile("default", max_examples=200, deadline=None)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.register_profile("fuzz", settings.get_profile("default"), max_examples=20_000)
settings.load_profile("ci" if os.environ.get("CI") else "default")


# ── feature marks ────────────────────────────────────────────────────────────────────────────────


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--feature-report",
        metavar="PATH",
        help="write which tests proved which rows of tests/features.toml, as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(FeatureMarks(config), "feature-marks")
    _guard.install()


def pytest_unconfigure() -> None:
    _guard.remove()


def pytest_collection_finish() -> None:
    # What the tests are made of stays to the end: no search for garbage has to look at it again.
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


class FeatureMarks:
    """Checks the ids of feature marks and collects what became of their tests."""

    def __init__(self, config: pytest.Config) -> None:
        self.report_path: str | None = config.getoption("--feature-report")
        self.rows: dict[str, Any] = tomllib.loads(FEATURES.read_text(encoding="utf-8"))
        self.ids_by_test: dict[str, tuple[str, ...]] = {}
        self.outcomes: dict[str, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        problems = []
        for item in items:
            ids = tuple(id_ for mark in item.iter_markers("feature") for id_ in mark.args)
            if any(not mark.args for mark in item.iter_markers("feature")):
                problems.append(f"{item.nodeid}: a feature mark needs an id")
            problems += [
                f"{item.nodeid}: there is no row {id_!r} in tests/features.toml"
                for id_ in ids
                if id_ not in self.rows
            ]
            if ids:
                self.ids_by_test[item.nodeid] = tuple(dict.fromkeys(ids))
        if problems:
            raise pytest.UsageError(*problems)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A failure in set-up or tear-down counts; a call that passed is only a pass until then.
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        if not self.report_path:
            return
        report: dict[str, list[tuple[str, str]]] = {id_: [] for id_ in self.rows}
        for test, ids in sorted(self.ids_by_test.items()):
            for id_ in ids:
                report[id_].append((test, self.outcomes.get(test, "not run")))
        Path(self.report_path).write_text(
            json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


# ── no connection but to this machine ────────────────────────────────────────────────────────────


class BlockedConnectionError(PermissionError):
    """A test tried to reach another machine."""


def _is_local(family: int, address: Any) -> bool:
    if family == getattr(socket, "AF_UNIX", None):
        return True
    if family not in (socket.AF_INET, socket.AF_INET6):
        return False
    host = str(address[0]).partition("%")[0]
    if host in ("", "localhost"):
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback or ip.is_unspecified


class _ConnectionGuard:
    """Replaces the ways out of `socket.socket`, and name look-ups, for the whole test session."""

    def __init__(self) -> None:
        self.attempts: list[str] = []
        self._patch = pytest.MonkeyPatch()

    def install(self) -> None:
        for name in ("connect", "connect_ex", "sendto"):
            self._patch.setattr(socket.socket, name, self._guarded(getattr(socket.socket, name)))
        self._patch.setattr(socket, "getaddrinfo", self._guarded_lookup(socket.getaddrinfo))

    def remove(self) -> None:
        self._patch.undo()

    def _guarded(self, original: Any) -> Any:
        def method(sock: socket.socket, *args: Any) -> Any:
            # The address comes last: connect(address), sendto(data, [flags,] address).
            if not _is_local(sock.family, args[-1]):
                self.attempts.append(f"{original.__name__} to {args[-1]!r}")
                raise BlockedConnectionError(f"tests may not reach {args[-1]!r}")
            return original(sock, *args)

        return method

    def _guarded_lookup(self, original: Any) -> Any:
        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            name = host.decode() if isinstance(host, bytes) else host
            if name is None or _is_local(socket.AF_INET, (name,)) or _is_ip(name):
                return original(host, *args, **kwargs)
            # No test asks a name server: every other name is unknown here, at once.
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        return getaddrinfo


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


_guard = _ConnectionGuard()


@pytest.fixture
def blocked_connections() -> list[str]:
    """What was refused since the test began; a test that expects refusals clears it."""
    return _guard.attempts


@pytest.fixture(autouse=True)
def _no_foreign_connections() -> Iterator[None]:
    _guard.attempts.clear()
    yield
    attempts = list(_guard.attempts)
    _guard.attempts.clear()
    if attempts:
        pytest.fail(f"the test tried to reach another machine: {'; '.join(attempts)}")
