"""The files below a folder, without those that ignore rules name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any

from vllm_agent_sdk.errors import UsageError

__all__ = ["IgnoreRules", "files_below"]

#: What version systems keep for themselves.
_ALWAYS = (".git", ".hg", ".svn", ".jj")


class IgnoreRules:
    """Patterns as in a `.gitignore`: of one's own, and of the `.gitignore` files on the way.

    The last rule that matches decides; rules of a folder beat those of the folders above it.

    Raises:
        UsageError: pathspec is not installed, or a pattern cannot be one.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._own = _spec(patterns, "Checkpoints(ignore=…)")

    def below(self, folder: str) -> list[tuple[str, Any]]:
        """Give the rules that count in the root; `entered` adds those of a folder below it."""
        return self.entered([("", self._own)], "", folder)

    def entered(
        self, rules: list[tuple[str, Any]], relative: str, folder: str
    ) -> list[tuple[str, Any]]:
        """Give the rules that count in a folder: its own `.gitignore` comes on top."""
        try:
            with open(
                os.path.join(folder, ".gitignore"), encoding="utf-8", errors="replace"
            ) as file:
                lines = file.read().splitlines()
        except OSError:  # there is none, or nobody may read it: git goes on, too
            return rules
        return [*rules, (relative, _spec(lines, None))]


def ignored(rules: list[tuple[str, Any]], path: str, is_folder: bool) -> bool:
    """Tell whether a path below the root is left alone."""
    if path.rpartition("/")[2] in _ALWAYS:
        return True
    for base, spec in reversed(rules):
        inner = path[len(base) :].lstrip("/")
        decided = spec.check_file(inner + "/" * is_folder).include
        if decided is not None:
            return bool(decided)
    return False


def files_below(
    root: str, rules: IgnoreRules, without: str | None = None, database: str | None = None
) -> Iterator[tuple[str, str, os.stat_result | str]]:
    """Give the files and links below a folder, in the order of their names.

    Args:
        root: The folder.
        rules: What is left alone.
        without: A folder that is not looked into.
        database: An SQLite file that is not given, nor what stands beside it as `database-…`.

    Yields:
        The path relative to the root, with `/`; the path; and what `lstat` says of it, or why it
        cannot be read. Folders, sockets and the like are not given.
    """
    stack = [("", root, rules.below(root))]
    while stack:
        relative, folder, known = stack.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            yield relative or ".", folder, error.strerror or str(error)
            continue
        inner: list[tuple[str, str, list[tuple[str, Any]]]] = []
        for entry in entries:
            path = f"{relative}/{entry.name}".lstrip("/")
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.path in {without, database} or ignored(known, path, is_folder):
                continue
            if database is not None and entry.path.startswith(f"{database}-"):
                continue
            if is_folder:
                inner.append((path, entry.path, rules.entered(known, path, entry.path)))
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                yield path, entry.path, error.strerror or str(error)
                continue
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                yield path, entry.path, status
        stack.extend(reversed(inner))


def _spec(lines: Sequence[str], where: str | None) -> Any:
    """Read patterns; lines of a file that cannot be patterns count for nothing, as in git."""
    try:
        import pathspec
    except ImportError as error:
        raise UsageError(
            "Checkpoints need pathspec: pip install 'vllm-agent-sdk[checkpoints]'."
        ) from error
    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except (ValueError, TypeError, AttributeError) as error:
        if where is not None:
            raise UsageError(f"{where} has a pattern that cannot be one: {error}") from error
    return pathspec.GitIgnoreSpec.from_lines([line for line in lines if _is_pattern(line)])


def _is_pattern(line: str) -> bool:
    import pathspec

    try:
        pathspec.GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True
