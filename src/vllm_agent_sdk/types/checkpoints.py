"""Checkpoints of files: what is kept, and what a rewind would do."""

from __future__ import annotations

import os
from typing import Literal, TypeAlias

import msgspec

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types._codec import Fact, Record

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "Entry",
    "FileAction",
    "FileChange",
    "Manifest",
    "RewindPlan",
    "decode_manifest",
]

#: What a rewind does with a file.
FileAction: TypeAlias = Literal["restore", "recreate", "delete", "keep", "skip"]


class Checkpoints(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep the files of a folder as they are before tools change them, for `session.rewind`.

    Attributes:
        root: The folder; its files and those of the folders in it are kept. Links are kept as
            links and never followed.
        when: `"tools"`: before the first tool of a turn that declares `edits_files`; `"turn"`:
            before each turn.
        folder: Where contents are kept, each once for a session (`None`:
            `$XDG_DATA_HOME/vllm-agent/checkpoints`). Delete it, or a session's folder in it, when
            its checkpoints are no longer wanted.
        ignore: Patterns of what is left alone, as in a `.gitignore`. Those of `.gitignore` files in
            the folder count too, and `.git` (and what other version systems have) always.
        max_file_bytes: Larger files are not kept (10 million).
        max_total_bytes: What a session's contents may take in all (1,000 million); what would come
            after is not kept.

    Raises:
        UsageError: A value cannot work.
    """

    root: str
    when: Literal["tools", "turn"] = "tools"
    folder: str | None = None
    ignore: tuple[str, ...] = ("node_modules/", ".venv/", "__pycache__/")
    max_file_bytes: int = 10_000_000
    max_total_bytes: int = 1_000_000_000

    def __post_init__(self) -> None:
        """Refuse what cannot work; paths become text."""
        for name in ("root", "folder"):
            given = getattr(self, name)
            if isinstance(given, os.PathLike):
                msgspec.structs.force_setattr(self, name, os.fspath(given))
            elif not isinstance(given, str) and not (name == "folder" and given is None):
                raise UsageError(f"Checkpoints({name}=…) takes a path, not {given!r:.80}.")
        if not self.root:
            raise UsageError('Checkpoints(root=…) is empty; "." is the working directory.')
        if self.when not in {"tools", "turn"}:
            raise UsageError(f"Checkpoints(when={self.when!r}): it is 'tools' or 'turn'.")
        if isinstance(self.ignore, str):
            raise UsageError('Checkpoints(ignore=…) takes several patterns: ("*.log", "data/").')
        msgspec.structs.force_setattr(self, "ignore", tuple(self.ignore))
        if self.max_file_bytes < 0 or self.max_total_bytes < 0:
            raise UsageError("Checkpoints: sizes are 0 or more.")


class Checkpoint(Record, frozen=True):
    """A moment to which a session can go back.

    Attributes:
        id: What `session.rewind` takes.
        turn: The run's turn before which it was taken.
        messages: How many messages the conversation had at the beginning of that turn.
        files: Files that were kept; 0 where nothing was (see `error`).
        left_out: Files that were not kept, with the reason.
        time: Seconds since 1970.
        error: Why nothing was kept.
    """

    id: str
    turn: int
    messages: int
    files: int = 0
    left_out: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    time: float = 0.0
    error: str | None = None


class FileChange(Fact, frozen=True, omit_defaults=True):
    """What a rewind does with a file, or has done.

    Attributes:
        path: Relative to the root, with `/`.
        action: `restore`: it has changed, and gets its old content and mode. `recreate`: it is
            gone, and comes back. `delete`: a tool made it. `keep`: it is new, and nobody says that
            a tool made it. `skip`: it cannot be brought back.
        reason: More of why.
        error: Why it was not done.
    """

    path: str
    action: FileAction
    reason: str = ""
    error: str | None = None


class RewindPlan(Record, frozen=True):
    """What a rewind does, or has done.

    Attributes:
        checkpoint: Where to.
        files: The files that are not as they were, by path.
        messages: How many messages the conversation loses.
        applied: False for a plan only (`dry_run=True`).
        undo: The checkpoint that was taken just before: going back to it brings the files back.
    """

    checkpoint: str
    files: tuple[FileChange, ...] = ()
    messages: int = 0
    applied: bool = False
    undo: str | None = None

    @property
    def failed(self) -> tuple[FileChange, ...]:
        """The files with which it did not work."""
        return tuple(change for change in self.files if change.error is not None)


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file as it was.

    Attributes:
        mode: Its permission bits.
        size: Bytes.
        blob: SHA-256 of its content.
        link: Where it points to, if it is a link.
        left_out: Why its content was not kept.
        changed_ns: When it was changed last, where its content was not kept.
    """

    mode: int = 0
    size: int = 0
    blob: str | None = None
    link: str | None = None
    left_out: str | None = None
    changed_ns: int = 0


class Manifest(msgspec.Struct, frozen=True):
    """All files of the root at one moment, by their path in it."""

    id: str
    root: str
    time: float
    files: dict[str, Entry]


#: Reads a manifest from JSON; raises `ProtocolError`.
decode_manifest = _codec.decoder(Manifest)
