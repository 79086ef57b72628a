"""How a session goes back: the part of `Session` that knows its checkpoints."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from typing_extensions import TypeVar

from vllm_agent_sdk._core.run.state import Moment
from vllm_agent_sdk.agent.run.rewind import SessionFiles, checkpoints, found, new_id
from vllm_agent_sdk.agent.session.runs import SessionRuns, unsupported
from vllm_agent_sdk.errors import StoreError, UsageError
from vllm_agent_sdk.sessions.functions import fork_session
from vllm_agent_sdk.types.checkpoints import Checkpoint, RewindPlan
from vllm_agent_sdk.types.events import Rewound, stamp

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.session.session import Session

__all__ = ["SessionRewind"]

T = TypeVar("T", default=str)


class SessionRewind(SessionRuns[T]):
    """Checkpoints, and the way back to them."""

    def checkpoints(self) -> list[Checkpoint]:
        """Give the checkpoints of the session, the oldest first."""
        return checkpoints(self._now)

    async def rewind(
        self,
        checkpoint: str | Checkpoint,
        files: bool = True,
        conversation: bool = True,
        dry_run: bool = False,
        *,
        delete_new: bool = False,
    ) -> RewindPlan:
        """Go back to a checkpoint: the files as they were, the conversation as it stood.

        What is there now is kept first, as another checkpoint (`RewindPlan.undo`), unless files
        cannot be kept: then nothing is done. New files stay, but those that a tool made: that it
        was given in an argument named by `edits_files`, and that were not there before.

        Args:
            checkpoint: One of `checkpoints()`, or its id.
            files: Bring the files back.
            conversation: Forget what was said since the turn before which it was taken began.
            dry_run: Do nothing, only say what would be done.
            delete_new: Delete all files that are new, not only those that tools made.

        Returns:
            What was done, file by file; `failed` has those with which it did not work.

        Raises:
            CheckpointNotFoundError: There is no such checkpoint, or its files are gone.
            UnsupportedControlError: A run is active or unfinished, or `files=True` and the agent
                has no `checkpoints=`.
            StoreError: The files cannot be read, or what is there now cannot be kept.
            UsageError: Neither files nor conversation, or the session is not open.
        """
        self._opened()
        if not (files or conversation):
            raise UsageError("rewind(files=False, conversation=False) would do nothing.")
        if files and self._files is None:
            unsupported("rewind", "the agent has no checkpoints=; files=False leaves the files")
        await self._active()
        async with self._standing:
            if self._in_a_run:
                unsupported("rewind", "a run is active or unfinished; interrupt() ends it")
            to = found(self._state, checkpoint)
            return await self._rewound(
                to, self._files if files else None, conversation, dry_run, delete_new
            )

    async def _rewound(
        self,
        to: Moment,
        files: SessionFiles | None,
        conversation: bool,
        dry_run: bool,
        delete_new: bool,
    ) -> RewindPlan:
        changes = [] if files is None else await files.plan(self._state, to, delete_new)
        name, undo = to.event.checkpoint, None
        gone = max(0, len(self._state.history) - len(to.history)) if conversation else 0
        if dry_run:
            return RewindPlan(checkpoint=name, files=tuple(changes), messages=gone)
        if files is not None:
            kept = await files.take(new_id(self._state))
            if kept.error is not None:
                raise StoreError(f"Nothing was rewound: {kept.error.message}")
            await self._commit(kept)
            undo = kept.checkpoint
            changes = await files.apply(to, changes)
        await self._commit(
            Rewound(checkpoint=name, conversation=conversation, files=changes, undo=undo)
        )
        return RewindPlan(
            checkpoint=name, files=tuple(changes), messages=gone, applied=True, undo=undo
        )

    async def fork(self, at: str | Checkpoint | int | None = None) -> Session[T]:
        """Make another session that begins like this one and goes its own way.

        Args:
            at: A checkpoint, or its id: the conversation of the new one goes on from there; the
                files stay as they are. A number: it has the events up to this one. `None`: all.

        Returns:
            The new session, of the same agent in the same store, not yet opened: use it as
            `async with`. An unfinished run is unfinished there, too: `resume()` takes it up.

        Raises:
            CheckpointNotFoundError: There is no such checkpoint.
            UnsupportedControlError: A checkpoint is given, and a run is active or unfinished.
            UsageError: The log has no such event, or the session is not open.
        """
        from vllm_agent_sdk.agent.session.session import Session

        self._opened()
        await self._active()
        if isinstance(at, (str, Checkpoint)):
            async with self._standing:  # no run begins meanwhile
                new_id = await self._forked_at(at)
        else:
            await self._flush()
            new_id = await fork_session(self._store, self.id, at=at)
        return Session(
            self._agent, new_id, store=self._store, deps=self._deps, on_unknown=self._on_unknown
        )

    async def _forked_at(self, checkpoint: str | Checkpoint) -> str:
        if self._in_a_run:
            unsupported("fork", "a run is active or unfinished; interrupt() ends it")
        back = Rewound(checkpoint=found(self._state, checkpoint).event.checkpoint)
        await self._flush()
        new_id = await fork_session(self._store, self.id)
        # Background tasks may have told something while it was copied.
        last = (await self._store.stat(new_id)).events
        log = await self._store.open(new_id, create=False)
        try:
            stamp(back, "", self._agent.name or "main", time.time(), last + 1)
            await log.append(back)
        finally:
            await log.aclose()
        return new_id
