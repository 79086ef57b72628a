"""Sessions that last: stores of their logs, and what can be done with them.

`MemoryStore`, `SQLiteStore` (a file) and `PostgresStore` (a server) keep the same contract, which
`vllm_agent_sdk.testing.store_contract` checks for a store of your own. The functions are async and
take the store first; `vllm_agent_sdk.sync` has their blocking twins.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vllm_agent_sdk.sessions.memory import MemoryStore
from vllm_agent_sdk.sessions.store import SessionLog, SessionQuery, SessionStore, Snapshot
from vllm_agent_sdk.types.sessions import SessionInfo, SessionPage

if TYPE_CHECKING:
    from vllm_agent_sdk.sessions.choice import choose_store, user_folder
    from vllm_agent_sdk.sessions.functions import (
        delete_session,
        export_session,
        fork_session,
        get_session_messages,
        import_session,
        list_sessions,
        rename_session,
        search_sessions,
        stat_session,
        tag_session,
    )
    from vllm_agent_sdk.sessions.postgres import PostgresStore
    from vllm_agent_sdk.sessions.sqlite import SQLiteStore

__all__ = [
    "MemoryStore",
    "PostgresStore",
    "SQLiteStore",
    "SessionInfo",
    "SessionLog",
    "SessionPage",
    "SessionQuery",
    "SessionStore",
    "Snapshot",
    "choose_store",
    "delete_session",
    "export_session",
    "fork_session",
    "get_session_messages",
    "import_session",
    "list_sessions",
    "rename_session",
    "search_sessions",
    "stat_session",
    "tag_session",
    "user_folder",
]

#: Imported when they are first used: sqlite3 and psycopg are no small things.
_HOME = {
    "PostgresStore": "postgres",
    "SQLiteStore": "sqlite",
    "choose_store": "choice",
    "delete_session": "functions",
    "export_session": "functions",
    "fork_session": "functions",
    "get_session_messages": "functions",
    "import_session": "functions",
    "list_sessions": "functions",
    "rename_session": "functions",
    "search_sessions": "functions",
    "stat_session": "functions",
    "tag_session": "functions",
    "user_folder": "choice",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
