"""Live tests run against real vLLM servers, which are started at the first need and shared.

A test carries `@pytest.mark.live` and `@pytest.mark.server("A")` and takes the fixture `server`.
One that needs two (`@pytest.mark.server("A", "B")`) takes `live_servers` as well, by name. One that
starts servers of its own takes `real_vllm`. Tests are ordered by the server they need.

Where there can be no real server they are skipped with the reason; with `VLLM_AGENT_REQUIRE_LIVE=1`
they fail instead. A server that ought to start and doesn't is a failure anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vllm_agent_sdk.errors import LocalServerError

from .servers import NAMES, LiveServer, LiveServers, required

TEST_TIMEOUT_S = 180


def wanted(item: pytest.Item) -> tuple[str, ...]:
    """The servers an item is marked with."""
    mark = item.get_closest_marker("server")
    return () if mark is None else tuple(mark.args)


def place(item: pytest.Item) -> int:
    """Tests of no server come first, then those with servers of their own, then A, B, C."""
    if item.get_closest_marker("live") is None:
        return 0
    names = wanted(item)
    return 2 + max(map(NAMES.index, names)) if names else 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if unknown := set(wanted(item)) - set(NAMES):
            raise pytest.UsageError(f"{item.nodeid}: there is no live server {unknown}")
        if item.get_closest_marker("live") and not item.get_closest_marker("timeout"):
            # The fixtures are not counted: the first of them installs and starts.
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S, func_only=True))
    items.sort(key=place)


@pytest.fixture(scope="session")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServers]:
    servers = LiveServers(tmp_path_factory.mktemp("live"))
    yield servers
    servers.close()


@pytest.fixture
def real_vllm(_servers: LiveServers) -> Path:
    """A real vLLM can be started; the bundled model's folder."""
    try:
        return _servers.provide()
    except LocalServerError as error:
        reason = f"no real vLLM server here: {error.message}"
    if required():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def live_servers(
    request: pytest.FixtureRequest, real_vllm: Path, _servers: LiveServers
) -> dict[str, LiveServer]:
    """The servers the test is marked with, by name."""
    needed = {name for item in request.session.items for name in wanted(item)}
    return {name: _servers.get(name, needed) for name in wanted(request.node)}


@pytest.fixture
def server(request: pytest.FixtureRequest, live_servers: dict[str, LiveServer]) -> LiveServer:
    """The (first) server the test is marked with."""
    names = wanted(request.node)
    if not names:
        pytest.fail('mark the test with @pytest.mark.server("A")', pytrace=False)
    return live_servers[names[0]]
