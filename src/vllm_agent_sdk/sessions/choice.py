"""Which store is used where none was given."""

from __future__ import annotations

import os

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.sessions.memory import MemoryStore
from vllm_agent_sdk.sessions.store import SessionStore

__all__ = ["choose_store", "user_folder"]

VARIABLE = "VLLM_AGENT_SESSION_STORE_PATH"
FILE = "sessions.db"


def choose_store(otherwise: str | os.PathLike[str] | None = None) -> SessionStore:
    """Give the store that `VLLM_AGENT_SESSION_STORE_PATH` names.

    Args:
        otherwise: The path that counts where the variable is unset or empty; without one the
            sessions are in memory.

    A path that is a folder, or that ends in a slash, has the sessions in its `sessions.db`; such a
    folder is made (for this user alone) if there is none. Any other path is a file.

    Raises:
        UsageError: The folder cannot be made.
    """
    path = os.environ.get(VARIABLE) or otherwise
    if path is None:
        return MemoryStore()
    from vllm_agent_sdk.sessions.sqlite import SQLiteStore

    name = os.fspath(path)
    if name.endswith(("/", os.sep)):
        try:
            os.makedirs(name, mode=0o700, exist_ok=True)
        except OSError as cause:
            raise UsageError(f"The folder {name} cannot be made: {cause.strerror}.") from cause
    return SQLiteStore(os.path.join(name, FILE) if os.path.isdir(name) else name)


def user_folder() -> str:
    """Give the folder of the command line's sessions: `$XDG_DATA_HOME/vllm-agent/`."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "vllm-agent", "")
