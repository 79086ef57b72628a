"""Checkpoints of files: contents by their hash, a manifest for each moment, and the way back.

All of it blocks: it is called in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from vllm_agent_sdk.errors import CheckpointNotFoundError, ProtocolError, StoreError, UsageError
from vllm_agent_sdk.sessions.tree import IgnoreRules, files_below
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.checkpoints import (
    Checkpoints,
    Entry,
    FileChange,
    Manifest,
    decode_manifest,
)

__all__ = ["CheckpointFiles"]

_PIECE = 1 << 20
#: A file that was changed this short before may change again within the same time stamp.
_RACY_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class _Known:
    """A file whose hash is known as long as it looks the same."""

    look: tuple[int, int, int, int]
    blob: str


class CheckpointFiles:
    """The checkpoints of one session.

    Args:
        options: What is kept, and where.
        session_id: The session's id.
        database: The file of the store that the session is in: it is not one of the files, and to
            put it back would be to forget the session.

    Raises:
        UsageError: The root is no folder, pathspec is missing, or a pattern cannot be one.
    """

    def __init__(self, options: Checkpoints, session_id: str, database: str | None = None) -> None:
        self._options = options
        self._database = None if database is None else os.path.realpath(database)
        self.root = os.path.realpath(os.path.expanduser(options.root))
        if not os.path.isdir(self.root):
            raise UsageError(f"Checkpoints(root={options.root!r}): there is no such folder.")
        folder = options.folder or os.path.join(_data_home(), "vllm-agent", "checkpoints")
        self.folder = os.path.join(
            os.path.realpath(os.path.expanduser(folder)), _folder_name(session_id)
        )
        self._rules = IgnoreRules(options.ignore)
        self._known: dict[str, _Known] = {}
        #: Bytes of all contents that are kept; `None` until the first look.
        self._taken: int | None = None

    def take(self, checkpoint: str) -> Manifest:
        """Keep all files as they are now, under an id.

        Raises:
            StoreError: They cannot be kept.
        """
        try:
            self._make_folders()
            if self._taken is None:
                self._taken = self._taken_bytes()
            files = {path: self._kept(full, status) for path, full, status in self._below()}
            manifest = Manifest(checkpoint, self.root, time.time(), files)
            self._write(self._manifest_path(checkpoint), _codec.encode(manifest))
        except OSError as error:
            raise StoreError(
                f"The files of {self.root} cannot be kept in {self.folder}: {error}."
            ) from error
        return manifest

    def manifest(self, checkpoint: str) -> Manifest:
        """Give what was kept.

        Raises:
            CheckpointNotFoundError: There is nothing under this id.
            StoreError: It cannot be read.
        """
        try:
            with open(self._manifest_path(checkpoint), "rb") as file:
                data = file.read()
        except FileNotFoundError as error:
            raise CheckpointNotFoundError(
                f"Checkpoint {checkpoint!r} has no files in {self.folder}."
            ) from error
        except OSError as error:
            raise StoreError(f"Checkpoint {checkpoint!r} cannot be read: {error}") from error
        try:
            manifest = decode_manifest(data)
        except ProtocolError as error:
            raise StoreError(f"Checkpoint {checkpoint!r} is damaged: {error}") from error
        return manifest

    # ── what a rewind does ───────────────────────────────────────────────────────────────────────

    def plan(
        self, checkpoint: str, made: Collection[str] = (), delete_new: bool = False
    ) -> list[FileChange]:
        """Say what is to be done to have the files as they were.

        Args:
            checkpoint: The checkpoint.
            made: Paths of files that tools made since then, relative to the root.
            delete_new: Delete all new files, not only those.
        """
        manifest = self.manifest(checkpoint)
        if manifest.root != self.root:
            raise UsageError(
                f"Checkpoint {checkpoint!r} is of {manifest.root}, and the root is {self.root}."
            )
        now = {path: status for path, _, status in self._below()}
        changes: list[FileChange] = []
        for path, entry in manifest.files.items():
            change = self._change(path, entry, now.pop(path, None))
            if change is not None:
                changes.append(change)
        for path in now:
            if path in made:
                changes.append(FileChange(path, "delete", "a tool made it"))
            elif delete_new:
                changes.append(FileChange(path, "delete", "it is new"))
            else:
                changes.append(
                    FileChange(path, "keep", "it is new, and no tool is known to have made it")
                )
        return sorted(changes, key=lambda change: change.path)

    def apply(self, checkpoint: str, changes: list[FileChange]) -> list[FileChange]:
        """Do it; give the changes again, with what went wrong."""
        files = self.manifest(checkpoint).files
        return [self._applied(change, files.get(change.path)) for change in changes]

    def relative(self, path: str) -> str | None:
        """Give a path that a tool was given as it stands in manifests; `None` outside the root."""
        try:
            folder, name = os.path.split(os.path.abspath(os.path.expanduser(path)))
            real = os.path.join(os.path.realpath(folder), name)
        except ValueError:  # a NUL byte
            return None
        if not real.startswith(self.root.rstrip(os.sep) + os.sep):
            return None
        return os.path.relpath(real, self.root).replace(os.sep, "/")

    # ── keeping ──────────────────────────────────────────────────────────────────────────────────

    def _below(self) -> Iterator[tuple[str, str, os.stat_result | str]]:
        found = files_below(self.root, self._rules, self.folder, self._database)
        for path, full, status in found:
            if _is_text(path):
                yield path, full, status
            else:
                shown = path.encode("utf-8", "backslashreplace").decode()
                yield shown, full, "its name is no UTF-8"

    def _kept(self, full: str, status: os.stat_result | str) -> Entry:
        if isinstance(status, str):
            return Entry(left_out=status)
        mode = stat.S_IMODE(status.st_mode)
        try:
            if stat.S_ISLNK(status.st_mode):
                return Entry(mode=mode, link=_link(full))
            known = self._known.get(full)
            if known is not None and known.look == _look(status):
                return Entry(mode=mode, size=status.st_size, blob=known.blob)
            if status.st_size > self._options.max_file_bytes:
                raise _LeftOutError(f"larger than {self._options.max_file_bytes:,} bytes")
            blob = self._keep_content(full)
        except _LeftOutError as reason:
            left_out = str(reason)
        except OSError as error:
            if error.filename != full and error.filename is not None:
                raise  # it is the store that fails
            left_out = error.strerror or str(error)
        else:
            if time.time_ns() - status.st_mtime_ns > _RACY_NS:
                self._known[full] = _Known(_look(status), blob)
            return Entry(mode=mode, size=status.st_size, blob=blob)
        return Entry(mode, status.st_size, left_out=left_out, changed_ns=status.st_mtime_ns)

    def _keep_content(self, full: str) -> str:
        """Copy a file's content to where its hash says; give the hash."""
        taken = self._taken or 0
        source = os.open(full, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with (
            open(source, "rb") as file,
            tempfile.NamedTemporaryFile(dir=self.folder, prefix="new-", delete=False) as copy,
        ):
            try:
                digest, size = hashlib.sha256(), 0
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    size += len(piece)
                    if size > self._options.max_file_bytes:
                        raise _LeftOutError(f"larger than {self._options.max_file_bytes:,} bytes")
                    copy.write(piece)
                copy.flush()
                path = self._blob_path(digest.hexdigest())
                if os.path.exists(path):
                    os.unlink(copy.name)
                    return digest.hexdigest()
                if taken + size > self._options.max_total_bytes:
                    raise _LeftOutError(
                        f"the session's checkpoints have {self._options.max_total_bytes:,} bytes"
                    )
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                os.replace(copy.name, path)
                self._taken = taken + size
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(copy.name)
                raise
        return digest.hexdigest()

    def _taken_bytes(self) -> int:
        total = 0
        for folder, _, names in os.walk(os.path.join(self.folder, "blobs")):
            total += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
        return total

    def _write(self, path: str, data: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="new-", delete=False) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)

    def _make_folders(self) -> None:
        for name in ("blobs", "manifests"):
            os.makedirs(os.path.join(self.folder, name), mode=0o700, exist_ok=True)
        os.chmod(self.folder, 0o700)

    def _manifest_path(self, checkpoint: str) -> str:
        return os.path.join(self.folder, "manifests", f"{_folder_name(checkpoint)}.json")

    def _blob_path(self, blob: str) -> str:
        return os.path.join(self.folder, "blobs", blob[:2], blob)

    # ── going back ───────────────────────────────────────────────────────────────────────────────

    def _change(
        self, path: str, entry: Entry, status: os.stat_result | str | None
    ) -> FileChange | None:
        """Say what is to be done with a file that was there; `None` if it is as it was."""
        full = os.path.join(self.root, path)
        if entry.left_out is not None:
            same = isinstance(status, os.stat_result) and (
                (status.st_size, status.st_mtime_ns) == (entry.size, entry.changed_ns)
            )
            return None if same else FileChange(path, "skip", f"it was not kept: {entry.left_out}")
        if (obstacle := self._obstacle(path)) is not None:
            return FileChange(path, "skip", obstacle)
        if status is None or isinstance(status, str):
            if os.path.lexists(full):
                return FileChange(path, "skip", "it is ignored now, or no file")
            return FileChange(path, "recreate")
        try:
            return self._difference(path, full, entry, status)
        except OSError as error:
            return FileChange(path, "restore", f"it cannot be read now: {error.strerror}")

    def _difference(
        self, path: str, full: str, entry: Entry, status: os.stat_result
    ) -> FileChange | None:
        mode = stat.S_IMODE(status.st_mode)
        is_link = stat.S_ISLNK(status.st_mode)
        if entry.link is not None:
            same = is_link and os.readlink(full) == entry.link
            return None if same else FileChange(path, "restore", "it was a link")
        if is_link:
            return FileChange(path, "restore", "it is a link now")
        if status.st_size != entry.size or _hash(full) != entry.blob:
            return FileChange(path, "restore")
        return None if mode == entry.mode else FileChange(path, "restore", "its mode")

    def _obstacle(self, path: str) -> str | None:
        """Say what stands in the way: a folder that is none any more is not followed."""
        folder = self.root
        for name in path.split("/")[:-1]:
            folder = os.path.join(folder, name)
            try:
                mode = os.lstat(folder).st_mode
            except FileNotFoundError:
                return None
            if not stat.S_ISDIR(mode):
                what = "a link" if stat.S_ISLNK(mode) else "no folder"
                return f"{os.path.relpath(folder, self.root)} is {what} now"
        return None

    def _applied(self, change: FileChange, entry: Entry | None) -> FileChange:
        try:
            if change.action in {"keep", "skip"}:
                return change
            if (obstacle := self._obstacle(change.path)) is not None:
                raise _LeftOutError(obstacle)
            full = os.path.join(self.root, change.path)
            if change.action == "delete":
                os.unlink(full)
            elif entry is not None:
                self._put_back(full, entry)
        except (OSError, _LeftOutError) as error:
            text = (error.strerror if isinstance(error, OSError) else None) or str(error)
            return FileChange(change.path, change.action, change.reason, text)
        return change

    def _put_back(self, full: str, entry: Entry) -> None:
        """Write beside, then replace: whoever reads finds the one file or the other."""
        folder = os.path.dirname(full)
        os.makedirs(folder, exist_ok=True)
        beside = os.path.join(folder, f".{os.urandom(8).hex()}.rewind")
        try:
            if entry.link is not None:
                os.symlink(entry.link, beside)
            else:
                self._copy_out(beside, entry)
            os.replace(beside, full)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
            raise
        self._known.pop(full, None)

    def _copy_out(self, target: str, entry: Entry) -> None:
        digest = hashlib.sha256()
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(made, "wb") as copy, open(self._blob_path(entry.blob or ""), "rb") as blob:
            while piece := blob.read(_PIECE):
                digest.update(piece)
                copy.write(piece)
        if digest.hexdigest() != entry.blob:
            raise _LeftOutError("what was kept of it is damaged")
        os.chmod(target, entry.mode)


class _LeftOutError(Exception):
    """A file is not kept, or not brought back; the text says why."""


def _hash(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with open(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _look(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns


def _link(path: str) -> str:
    target = os.readlink(path)
    if not _is_text(target):
        raise _LeftOutError("it points to a name that is no UTF-8")
    return target


def _is_text(name: str) -> bool:
    """False for a name whose bytes are no UTF-8: it has no form in JSON."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _folder_name(id: str) -> str:
    """Give an id as the name of a file: ids with other characters by their hash."""
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", id):
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()


def _data_home() -> str:
    return os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
