"""Where a database is: its file, made private; how it is connected to, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from vllm_agent_sdk.errors import StoreError, UsageError

__all__ = ["Place", "store_error"]

#: Seconds that another process may hold the database's write lock.
_BUSY_S = 30.0

#: File systems on which locks of this machine are not seen by others, or not by SQLite.
_NETWORK = frozenset(
    {"afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs"}
    | {"fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
)
_MOUNTS = "/proc/self/mountinfo"


class Place:
    """A database file.

    Args:
        path: Its path, or an SQLite URI (`file:agents.db?mode=ro`).

    Raises:
        UsageError: It names no file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fsdecode(path)
        query = ""
        if name.startswith("file:"):
            parts = urlsplit(name)
            name, query = unquote(parts.path), parts.query
        modes = parse_qs(query).get("mode", [])
        if name in {"", ":memory:"} or "memory" in modes:
            raise UsageError(f"SQLiteStore({path!r}) names no file; MemoryStore() keeps no files.")
        self.path = os.path.realpath(name)
        self.read_only = "ro" in modes or "immutable=1" in query
        rest = "&".join(part for part in query.split("&") if part and not part.startswith("mode="))
        mode = "mode=ro" if self.read_only else "mode=rw"
        self.uri = f"file:{quote(self.path)}?{'&'.join(filter(None, [mode, rest]))}"

    def __repr__(self) -> str:
        return f"SQLiteStore({self.path!r})"

    def make(self) -> None:
        """Make the file if there is none, for this user alone.

        Raises:
            StoreError: It cannot be made, or lies on a network file system.
        """
        folder = os.path.dirname(self.path)
        kind = file_system(folder)
        if kind in _NETWORK:
            raise StoreError(
                f"{self.path} lies on a network file system ({kind}), where SQLite's locks do not "
                "hold: use a local path, or PostgresStore."
            )
        if os.path.isdir(self.path):
            raise StoreError(f"{self.path} is a folder: name a file in it, such as sessions.db.")
        if self.read_only or os.path.exists(self.path):
            return
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass  # another process was first
        except FileNotFoundError as cause:
            raise StoreError(f"The folder {folder} does not exist: make it first.") from cause
        except OSError as cause:
            raise StoreError(f"{self.path} cannot be made: {cause.strerror}.") from cause

    def connect(self) -> sqlite3.Connection:
        """Connect to the file. Raises `StoreError`."""
        try:
            # Transactions are begun and ended by us; each thread has a connection to itself.
            connection = sqlite3.connect(
                self.uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as cause:
            raise store_error(cause, self.path) from cause
        try:
            if not self.read_only:
                mode = _into_wal(connection)
                if mode != "wal":
                    raise StoreError(
                        f"{self.path} cannot have a write-ahead log here (journal mode {mode}): "
                        "use another file system."
                    )
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error as cause:
            connection.close()
            raise store_error(cause, self.path) from cause
        except StoreError:
            connection.close()
            raise
        return connection

    def identity(self) -> tuple[int, int]:
        """Tell the file from another of the same name, and from none."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return 0, 0
        except OSError as cause:
            raise StoreError(f"{self.path} cannot be found: {cause.strerror}.") from cause
        return found.st_dev, found.st_ino


def file_system(folder: str) -> str:
    """Give the type of the file system a folder is on; empty where that cannot be told."""
    try:
        mounts = Path(_MOUNTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = fields[4].replace("\\040", " ").rstrip("/")
        # Of two mounts on one point the later one counts.
        inside = folder == point or folder.startswith(f"{point}/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


_MEANINGS = (
    ("SQLITE_FULL", "the disk is full, or the database has reached its largest size"),
    ("SQLITE_READONLY", "it is read-only"),
    ("SQLITE_PERM", "it is read-only"),
    ("SQLITE_NOTADB", "it is no SQLite database, or damaged"),
    ("SQLITE_CORRUPT", "the file is damaged: restore it from a backup, or `sqlite3 … .recover`"),
    ("SQLITE_BUSY", "another process has held its lock for too long"),
    ("SQLITE_LOCKED", "another process has held its lock for too long"),
    ("SQLITE_CANTOPEN", "it cannot be opened: does it exist, and may this user read it?"),
    ("SQLITE_IOERR", "it could not be read or written"),
)


def _into_wal(connection: sqlite3.Connection) -> str:
    """Give the database its write-ahead log; give the journal mode that it has then.

    Of those that do so at the same moment to a new file, SQLite lets one wait for nobody: it is
    tried again here. It is on the engine's own thread, or in a worker's.
    """
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.005)


def store_error(cause: sqlite3.Error, path: str) -> StoreError:
    """Say what an error of SQLite means for the store."""
    name = getattr(cause, "sqlite_errorname", None) or ""
    for prefix, meaning in _MEANINGS:
        if name.startswith(prefix):
            return StoreError(f"{path}: {meaning} ({cause}).")
    return StoreError(f"{path}: {cause}.")
