"""Checkpoints taken in a run, and the way back to one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from vllm_agent_sdk._core.run.checkpoints import moment
from vllm_agent_sdk._core.run.state import Moment, State
from vllm_agent_sdk.agent.run.paths import named_paths
from vllm_agent_sdk.agent.tools.function import in_thread
from vllm_agent_sdk.errors import CheckpointNotFoundError, SessionError, StoreError, VLLMError
from vllm_agent_sdk.types.checkpoints import Checkpoint, Checkpoints, FileChange
from vllm_agent_sdk.types.events import Checkpointed
from vllm_agent_sdk.types.results import ErrorInfo

if TYPE_CHECKING:
    from vllm_agent_sdk.sessions.checkpoints import CheckpointFiles

__all__ = ["SessionFiles", "checkpoints", "found", "new_id"]

R = TypeVar("R")


class SessionFiles:
    """The files of a session's checkpoints; all of its methods work in a thread.

    Args:
        options: `Agent(checkpoints=…)`.
        session_id: The session's id.
        database: The file of the store that the session is in, if it is in one.
    """

    def __init__(self, options: Checkpoints, session_id: str, database: str | None = None) -> None:
        self._options = options
        self._database = database
        self._session_id = session_id
        self._of: dict[str, CheckpointFiles] = {}

    async def open(self) -> None:
        """Look whether files can be kept.

        Raises:
            UsageError: The root is no folder, pathspec is missing, or a pattern cannot be one.
        """
        await in_thread(lambda: self._files(self._session_id), "checkpoints")

    async def take(self, checkpoint: str) -> Checkpointed:
        """Keep the files as they are; what goes wrong is in the event."""
        try:
            manifest = await in_thread(
                lambda: self._files(self._session_id).take(checkpoint), "checkpoint"
            )
        except VLLMError as error:
            return Checkpointed(
                checkpoint=checkpoint, session_id=self._session_id, error=ErrorInfo.of(error)
            )
        left_out = {path: e.left_out for path, e in manifest.files.items() if e.left_out}
        return Checkpointed(
            checkpoint=checkpoint,
            session_id=self._session_id,
            files=len(manifest.files) - len(left_out),
            left_out=left_out,
        )

    async def plan(self, state: State, to: Moment, delete_new: bool) -> list[FileChange]:
        """Say what is to be done to have the files as they were.

        Raises:
            SessionError: The checkpoint has no files, or they cannot be read.
        """
        if to.event.error is not None:
            raise StoreError(
                f"Checkpoint {to.event.checkpoint!r} has no files: {to.event.error.message} "
                "Use rewind(…, files=False) for the conversation alone."
            )

        def plan() -> list[FileChange]:
            made = self._made(state, to)
            return self._files(to.event.session_id).plan(to.event.checkpoint, made, delete_new)

        return await self._wait(plan)

    async def apply(self, to: Moment, changes: list[FileChange]) -> list[FileChange]:
        """Do it; give the changes again, with what went wrong."""
        files = self._files(to.event.session_id)
        return await self._wait(lambda: files.apply(to.event.checkpoint, changes))

    async def _wait(self, work: Callable[[], R]) -> R:
        # Half a rewind is worse than a late cancellation.
        task = asyncio.ensure_future(in_thread(work, "rewind"))
        try:
            result: R = await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise
        return result

    def _files(self, session_id: str) -> CheckpointFiles:
        """Give the checkpoints of a session: a fork has those of the one it came from, too."""
        from vllm_agent_sdk.sessions.checkpoints import CheckpointFiles

        if session_id not in self._of:
            self._of[session_id] = CheckpointFiles(self._options, session_id, self._database)
        return self._of[session_id]

    def _made(self, state: State, to: Moment) -> set[str]:
        """Give the files that tools made since: they name them, and they were not there before."""
        moments = list(state.checkpoints)
        at = {each.event.checkpoint: number for number, each in enumerate(moments)}
        since = at[to.event.checkpoint]
        files = self._files(to.event.session_id)

        @cache
        def before(checkpoint: str) -> Mapping[str, object] | None:
            event = moments[at[checkpoint]].event
            try:
                return self._files(event.session_id).manifest(checkpoint).files
            except SessionError:  # nothing is known of what was there: nothing is deleted
                return None

        made: set[str] = set()
        for edit in state.edits:
            if at[edit.checkpoint] < since:
                continue
            for given in named_paths(edit.spec, edit.call.arguments or {}, edit.spec.edits_files):
                path = files.relative(given)
                there = before(edit.checkpoint)
                if path is not None and there is not None and path not in there:
                    made.add(path)
        return made


def new_id(state: State) -> str:
    """Give the id of a session's next checkpoint."""
    return f"c{len(state.checkpoints) + 1}"


def found(state: State, checkpoint: str | Checkpoint) -> Moment:
    """Give the checkpoint that is meant.

    Raises:
        CheckpointNotFoundError: The session has none by this id.
    """
    wanted = checkpoint.id if isinstance(checkpoint, Checkpoint) else checkpoint
    to = moment(state, wanted)
    if to is None:
        known = ", ".join(each.event.checkpoint for each in state.checkpoints) or "none"
        raise CheckpointNotFoundError(f"The session has no checkpoint {wanted!r}; it has: {known}.")
    return to


def checkpoints(state: State) -> list[Checkpoint]:
    """Give the checkpoints of a session, the oldest first."""
    return [
        Checkpoint(
            id=each.event.checkpoint,
            turn=each.turn,
            messages=len(each.history),
            files=each.event.files,
            left_out=each.event.left_out,
            time=each.event.time or 0.0,
            error=None if each.event.error is None else each.event.error.message,
        )
        for each in state.checkpoints
    ]
