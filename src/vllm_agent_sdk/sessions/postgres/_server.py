"""The server: connections to it, the tables there, and what its errors mean."""

from __future__ import annotations

import re
import time
import zlib
from typing import Any, TypeAlias

import psycopg
import psycopg_pool
from psycopg import conninfo as connection_info
from psycopg import sql

from vllm_agent_sdk.errors import StoreError, UsageError

__all__ = ["Connection", "DatabaseError", "Pool", "Server"]

Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]
Pool: TypeAlias = psycopg_pool.AsyncConnectionPool[Connection]
DatabaseError: TypeAlias = psycopg.Error

#: Seconds until a server that does not answer is given up.
_CONNECT_S = 10
#: A commit is durable when it is acknowledged; a dead client's connection ends within seconds.
_OPTIONS = (
    "-c synchronous_commit=on -c tcp_keepalives_idle=10"
    " -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
)

#: By name, in order; each is applied once, and none is ever changed after a release.
MIGRATIONS: tuple[tuple[str, str], ...] = (
    (
        "0001_sessions",
        """
        CREATE TABLE owners (
            number integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
            pid integer NOT NULL,
            host text NOT NULL,
            since double precision NOT NULL
        );
        CREATE TABLE sessions (
            number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
            id text COLLATE "C" NOT NULL UNIQUE,
            title text,
            tags text[] NOT NULL DEFAULT '{}',
            named text NOT NULL,
            created_at double precision NOT NULL,
            updated_at double precision NOT NULL,
            events bigint NOT NULL DEFAULT 0,
            size_bytes bigint NOT NULL DEFAULT 0,
            owner integer
        );
        CREATE TABLE events (
            session bigint NOT NULL,
            seq bigint NOT NULL,
            line bytea NOT NULL,
            said text,
            PRIMARY KEY (session, seq)
        );
        """,
    ),
    (
        "0002_snapshots",
        """
        CREATE TABLE snapshots (
            session bigint PRIMARY KEY,
            seq bigint NOT NULL,
            data bytea NOT NULL
        );
        """,
    ),
)


class Server:
    """A database, and the schema that the sessions are in.

    Args:
        conninfo: As libpq takes it: a URL, or `key=value` pairs.
        schema: The schema's name.
        max_connections: For reading, at most; one more is for writing.

    Raises:
        UsageError: `conninfo` is none, or the schema is no plain name.
    """

    def __init__(self, conninfo: str, schema: str, max_connections: int) -> None:
        try:
            facts = connection_info.conninfo_to_dict(conninfo)
        except psycopg.Error as cause:
            # Its message quotes what it could not read, which may be the password.
            raise UsageError(
                "The connection string is neither a postgresql:// URL nor key=value pairs."
            ) from cause
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
            raise UsageError(f"schema={schema!r}: use small letters, digits and _, at most 63.")
        self.schema = schema
        self.max_connections = max_connections
        #: What tells it from others.
        self.place = (conninfo, schema, str(max_connections))
        self._conninfo = conninfo
        self._options = " ".join(
            filter(None, [str(facts.get("options") or ""), _OPTIONS, f"-c search_path={schema}"])
        )
        self._timeout = int(facts.get("connect_timeout") or _CONNECT_S)
        #: The first half of the key of our advisory locks; the second is an owner's number.
        self.lock_class = zlib.crc32(schema.encode()) - 2**31
        place = facts.get("host") or facts.get("hostaddr") or "localhost"
        self.name = f"{facts.get('dbname') or 'postgres'} at {place}"

    async def connect(self) -> Connection:
        """Connect, each statement a transaction of its own unless one is begun."""
        return await psycopg.AsyncConnection.connect(
            self._conninfo,
            autocommit=True,
            options=self._options,
            connect_timeout=self._timeout,
            application_name="vllm-agent-sdk",
        )

    def pool(self) -> Pool:
        """Make a pool of connections for reading; it is to be opened."""
        return psycopg_pool.AsyncConnectionPool(
            self._conninfo,
            kwargs={
                "autocommit": True,
                "options": self._options,
                "connect_timeout": self._timeout,
                "application_name": "vllm-agent-sdk",
            },
            min_size=0,
            max_size=self.max_connections,
            timeout=float(self._timeout),
            check=psycopg_pool.AsyncConnectionPool.check_connection,
            open=False,
        )

    async def bring_up(self, connection: Connection) -> None:
        """Apply the migrations that the schema has not seen. One process at a time does it.

        Raises:
            StoreError: The schema was written by a newer version.
        """
        if await self._missing(connection) == []:
            return
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (self.lock_class,))
            name = sql.Identifier(self.schema)
            await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS migrations"
                " (name text PRIMARY KEY, applied_at double precision NOT NULL)"
            )
            for migration, script in await self._missing(connection):
                await connection.execute(script.encode())
                await connection.execute(
                    "INSERT INTO migrations VALUES (%s, %s)", (migration, time.time())
                )

    async def _missing(self, connection: Connection) -> list[tuple[str, str]]:
        cursor = await connection.execute(
            "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'migrations'",
            (self.schema,),
        )
        if await cursor.fetchone() is None:
            return list(MIGRATIONS)
        cursor = await connection.execute("SELECT name FROM migrations")
        applied = {name for (name,) in await cursor.fetchall()}
        newer = sorted(applied - {name for name, _ in MIGRATIONS})
        if newer:
            raise StoreError(
                f"Schema {self.schema} of {self.name} was written by a newer vllm-agent-sdk "
                f"(it has {', '.join(newer)}): update it."
            )
        return [each for each in MIGRATIONS if each[0] not in applied]

    def error(self, cause: DatabaseError) -> StoreError:
        """Say what an error means for the store."""
        text = " ".join(str(cause).split()) or type(cause).__name__
        return StoreError(f"{self.name}: {text}")

    @staticmethod
    def is_gone(cause: DatabaseError, connection: Connection | None) -> bool:
        """Tell whether the server was lost, and may come back."""
        state = cause.sqlstate or ""
        if state[:2] in {"08", "57"}:
            return True
        if isinstance(cause, psycopg_pool.PoolTimeout):
            return True
        return isinstance(cause, psycopg.OperationalError) and (
            connection.closed if connection is not None else not state
        )
