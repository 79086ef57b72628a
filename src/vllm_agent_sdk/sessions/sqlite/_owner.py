"""Who owns sessions: a number, and a file that is locked as long as its process lives.

The kernel frees the lock at the process's death, however it dies, so an owner is known to be dead
at once. Numbers are never given twice: a session that names another owner's number has been taken
over, and whoever had it before can no longer write to it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import weakref

__all__ = ["LockFile", "is_alive"]


def _try_lock(handle: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


#: The files of this process; a child would hold them locked after its parent's death.
_held: weakref.WeakSet[LockFile] = weakref.WeakSet()


@functools.cache
def _let_go_in_children() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    for file in list(_held):
        file.close()


class LockFile:
    """A file that this process holds locked."""

    def __init__(self, path: str, handle: int) -> None:
        self._path = path
        self._handle = handle
        self._pid = os.getpid()
        _let_go_in_children()
        _held.add(self)

    @classmethod
    def take(cls, path: str) -> LockFile | None:
        """Lock the file, made if need be; `None`: another process has it. Raises `OSError`."""
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        if _try_lock(handle):
            return cls(path, handle)
        os.close(handle)
        return None

    def free(self) -> None:
        """Remove the file and unlock it. Idempotent."""
        if self._handle >= 0 and self._pid == os.getpid():
            _remove(self._path)
            self.close()

    def close(self) -> None:
        """Close the file; it stays locked for those who hold it still."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def is_alive(path: str) -> bool:
    """Tell whether the process whose file this is still lives; a dead one's file is removed."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # another user's: it cannot be told, so it is left alone
    try:
        if not _try_lock(handle):
            return True
        _remove(path)
        return False
    finally:
        os.close(handle)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # somebody else has seen that it is free
        os.unlink(path)
