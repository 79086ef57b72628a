"""The tables, and how an older file gets them."""

from __future__ import annotations

import sqlite3
import time

from vllm_agent_sdk.errors import StoreError

__all__ = ["MIGRATIONS", "bring_up"]

#: By name, in order; each is applied once, and none is ever changed after a release.
MIGRATIONS: tuple[tuple[str, str], ...] = (
    (
        "0001_sessions",
        """
        CREATE TABLE owners (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            pid INTEGER NOT NULL,
            host TEXT NOT NULL,
            since REAL NOT NULL
        );
        CREATE TABLE sessions (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            title TEXT,
            tags TEXT NOT NULL DEFAULT '[]',
            named TEXT NOT NULL,
            created_at REAL NOT NULL,
            updated_at REAL NOT NULL,
            events INTEGER NOT NULL DEFAULT 0,
            size_bytes INTEGER NOT NULL DEFAULT 0,
            owner INTEGER
        );
        CREATE TABLE events (
            session INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            line BLOB NOT NULL,
            said TEXT,
            PRIMARY KEY (session, seq)
        ) WITHOUT ROWID;
        """,
    ),
    (
        "0002_snapshots",
        """
        CREATE TABLE snapshots (
            session INTEGER PRIMARY KEY,
            seq INTEGER NOT NULL,
            data BLOB NOT NULL
        )
        """,
    ),
)


def bring_up(connection: sqlite3.Connection, path: str, read_only: bool) -> None:
    """Apply the migrations that the file has not seen.

    Raises:
        StoreError: The file was written by a newer version, is none of ours, or is read-only.
        sqlite3.Error: It cannot be read or written.
    """
    if _missing(connection, path) == []:
        return
    if read_only:
        raise StoreError(
            f"{path} is of an older version, or empty, and read-only: open it once for writing."
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Looked at again: another process may have been first.
        for name, script in _missing(connection, path):
            for statement in script.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO migrations VALUES (?, ?)", (name, time.time()))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _missing(connection: sqlite3.Connection, path: str) -> list[tuple[str, str]]:
    tables = {
        name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
    }
    if "migrations" not in tables:
        if tables:
            shown = ", ".join(sorted(tables)[:5])
            raise StoreError(f"{path} is a database of something else (its tables: {shown}).")
        first = "CREATE TABLE migrations (name TEXT PRIMARY KEY, applied_at REAL NOT NULL)"
        return [("0000_migrations", first), *MIGRATIONS]
    applied = {name for (name,) in connection.execute("SELECT name FROM migrations")}
    newer = sorted(applied - {name for name, _ in MIGRATIONS} - {"0000_migrations"})
    if newer:
        raise StoreError(
            f"{path} was written by a newer vllm-agent-sdk (it has {', '.join(newer)}): update it."
        )
    return [each for each in MIGRATIONS if each[0] not in applied]
