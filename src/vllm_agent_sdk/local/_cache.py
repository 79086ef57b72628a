"""The folder that holds the provisioned environment, converted weights, logs and locks.

Law: whoever installs or serves holds the shared lock of the cache; whoever removes it needs it
alone. Locks are the kernel's (`flock`): they end with the processes that hold them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vllm_agent_sdk.errors import LocalServerError

__all__ = ["Cache", "FileLock", "private_folder", "purge"]

_KEPT_LOGS = 20
_LOCK_POLL_S = 0.2
_SOCKET_PATH_BYTES = 100  # the kernel's limit is 108 on Linux, 104 on macOS


@dataclass(frozen=True, slots=True)
class Cache:
    """Where things lie."""

    root: Path

    @classmethod
    def default(cls) -> Self:
        """`$XDG_CACHE_HOME/vllm-agent`, by default `~/.cache/vllm-agent`."""
        base = os.environ.get("XDG_CACHE_HOME", "")
        # The XDG specification: a relative path is invalid and to be ignored.
        folder = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
        return cls(folder / "vllm-agent")

    @property
    def logs(self) -> Path:
        """The folder of log files."""
        return self.root / "logs"

    def lock(self, name: str, *, shared: bool = False) -> FileLock:
        """The lock of this name, not yet taken."""
        return FileLock(self.root / "locks" / f"{name}.lock", shared=shared)

    def new_log(self, kind: str) -> Path:
        """Create an empty log file of its own, and drop all but the newest 20."""
        self.logs.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        number, name = tempfile.mkstemp(".log", f"{kind}-{stamp}-", self.logs)
        os.close(number)

        def age(path: Path) -> float:
            try:
                return path.stat().st_mtime
            except OSError:
                return 0.0

        for old in sorted(self.logs.glob("*.log"), key=age)[:-_KEPT_LOGS]:
            old.unlink(missing_ok=True)
        return Path(name)

    def socket_path(self, name: str) -> Path:
        """Where a server is offered for reuse, in a folder that only this user can enter."""
        base = os.environ.get("XDG_RUNTIME_DIR", "")
        if os.path.isabs(base) and os.path.isdir(base) and os.access(base, os.W_OK):
            folder = Path(base) / "vllm-agent"
        else:
            folder = self.root / "run"
        if len(os.fsencode(folder / f"{name}.sock")) > _SOCKET_PATH_BYTES:
            folder = Path(tempfile.gettempdir()) / f"vllm-agent-{os.geteuid()}"
        return private_folder(folder) / f"{name}.sock"


def private_folder(path: Path) -> Path:
    """Make a folder that only this user can enter, or raise `LocalServerError`."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    facts = path.lstat()
    ours = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()
    if ours and stat.S_IMODE(facts.st_mode) & 0o077:
        path.chmod(0o700)
    if not ours:
        raise LocalServerError(
            f"{path} belongs to somebody else, so servers cannot be shared there; "
            "remove it, or set XDG_RUNTIME_DIR to a folder of your own."
        )
    return path


class FileLock:
    """One `flock` on one file; shared or exclusive."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path = path
        self._shared = shared
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The descriptor that carries the lock; a process that inherits it holds the lock too."""
        assert self._fd is not None
        return self._fd

    def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        import fcntl

        kind = fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return False
            # A purge may have removed the file between open and lock: then it locks nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(fd).st_ino == self.path.stat().st_ino:
                    self._fd = fd
                    return True
            os.close(fd)

    async def acquire(self, waiting: Callable[[], None]) -> None:
        """Wait for the lock; `waiting` is called while another process has it."""
        while not self.try_acquire():
            waiting()
            await asyncio.sleep(_LOCK_POLL_S)

    def release(self) -> None:
        """Give the lock back, once or more often."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def purge(root: Path | None = None) -> int:
    """Remove everything that was provisioned: environment, weights, logs.

    Args:
        root: The cache's folder (default: the one that `LocalServer` uses).

    Returns:
        The bytes that were freed; 0 if there was nothing.

    Raises:
        LocalServerError: A server runs from it, or something is being installed into it.
    """
    folder = (root or Cache.default().root).resolve()
    if not folder.is_dir():
        return 0
    lock = Cache(folder).lock("use")
    if not lock.try_acquire():
        raise LocalServerError(
            f"A server runs from {folder}, or is being installed there; "
            "stop it first (or wait some seconds for its end), then purge again."
        )
    try:
        # Renamed first: who comes while the files are being removed starts with an empty cache.
        doomed = Path(tempfile.mkdtemp(prefix=f".{folder.name}-purged-", dir=folder.parent))
        folder.rename(doomed / folder.name)
        freed = _size(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise LocalServerError(f"{folder} could not be removed: {error}.") from error
    finally:
        lock.release()
    return freed


def _size(folder: Path) -> int:
    total = 0
    seen: set[tuple[int, int]] = set()
    for parent, _, names in os.walk(folder):
        for name in names:
            facts = os.lstat(os.path.join(parent, name))
            if (key := (facts.st_dev, facts.st_ino)) not in seen:
                seen.add(key)
                total += facts.st_size
    return total
