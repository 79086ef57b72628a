"""The blocking twin of `Session`: the same names, without `await`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self
from weakref import WeakValueDictionary

from typing_extensions import TypeVar

from vllm_agent_sdk._portal import call, run_there
from vllm_agent_sdk.agent.run.blocking import BlockingEvents, BlockingRun

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.run.run import Run
    from vllm_agent_sdk.agent.session.feed import Until
    from vllm_agent_sdk.agent.session.session import Session, When
    from vllm_agent_sdk.types.checkpoints import Checkpoint, RewindPlan
    from vllm_agent_sdk.types.context import CacheReport, CacheTurn, ContextUsage
    from vllm_agent_sdk.types.events import Compacted
    from vllm_agent_sdk.types.messages import Message, Prompt, Prompts
    from vllm_agent_sdk.types.permissions import Decision, PermissionMode
    from vllm_agent_sdk.types.results import Pending, RunResult

__all__ = ["BlockingSession"]

T = TypeVar("T", default=str)


class BlockingSession(Generic[T]):
    """A conversation with an agent, blocking; made by `agent.session_sync(…)`, used as `with`.

    What `Session` has, without `await`; runs are `BlockingRun`s. Several threads may use it.
    """

    def __init__(self, session: Session[T]) -> None:
        self._session = session
        # One handle for a run, however often it is given, as with the async session. They are made
        # on the background loop, one after the other.
        self._handles: WeakValueDictionary[int, BlockingRun[T]] = WeakValueDictionary()

    def __enter__(self) -> Self:
        call(self._session.__aenter__)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is under way, and give the session free. Idempotent.

        An unfinished run can be taken up by `resume()` after the session was opened again.
        """
        call(self._session.aclose)

    @property
    def id(self) -> str:
        """The session's id."""
        return self._session.id

    @property
    def messages(self) -> list[Message]:
        """The conversation so far."""
        return run_there(lambda: self._session.messages)

    @property
    def pending(self) -> list[Pending]:
        """What the session waits for: approvals, questions, results, decisions."""
        return run_there(lambda: self._session.pending)

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────

    def run(self, prompt: Prompt | Prompts) -> RunResult[T]:
        """Run to the end, and give the result. Raises as `send` does.

        Args:
            prompt: Text, blocks, or a `UserMessage`; or an async iterator of these: each its own
                run, as by `send`. The result is then the last run's.
        """
        if isinstance(prompt, AsyncIterable):
            return self.stream(prompt).wait()
        return self.send(prompt).wait()

    def stream(self, prompt: Prompt | Prompts) -> BlockingRun[T]:
        """Run and watch: `for event in session.stream(…)`. It begins when it is read.

        Args:
            prompt: As `run` takes it.
        """
        return run_there(lambda: self._handle(self._session.stream(prompt)))

    def send(self, prompt: Prompt, when: When = "after") -> BlockingRun[T]:
        """Say something, and return at once; `wait()` for the run's result.

        Args:
            prompt: Text, blocks, or a `UserMessage`.
            when: While a run is active: `"after"` begins another run when it has ended, `"steer"`
                tells the model before its next call, `"interrupt"` ends the run and begins another.

        Returns:
            The run that answers it.

        Raises:
            UsageError: The prompt cannot be one; the session is not open.
        """
        return self._handled(lambda: self._session.send(prompt, when))

    def resume(self) -> BlockingRun[T] | None:
        """Take up what was left: a run that was suspended or cut, or prompts that waited.

        Returns:
            The run, or `None` if there is nothing to take up.
        """

        async def resume() -> BlockingRun[T] | None:
            run = await self._session.resume()
            return None if run is None else self._handle(run)

        return call(resume)

    def retry(self) -> BlockingRun[T]:
        """Repeat the model call that failed, on the same history.

        Raises:
            UnsupportedControlError: The last run did not end with `stop_reason="error"`.
        """
        return self._handled(self._session.retry)

    def interrupt(self) -> None:
        """End the active run with what has come; returns when it has ended. None: does nothing."""
        call(self._session.interrupt)

    def resolve(self, call_id: str, answer: Decision | dict[str, Any]) -> BlockingRun[T]:
        """Answer an approval or a decision that waits, or a question (by question id).

        Args:
            call_id: `Pending.call.id`.
            answer: `Allow`, `Deny` or `Defer`; for a question the answers by its id.

        Returns:
            The run, which goes on.

        Raises:
            UnsupportedControlError: No call of this id waits for that.
        """
        return self._handled(lambda: self._session.resolve(call_id, answer))

    def send_tool_result(self, call_id: str, value: Any, is_error: bool = False) -> BlockingRun[T]:
        """Give the result of a deferred call: text, blocks, or anything JSON can hold.

        Raises:
            UnsupportedControlError: No call of this id waits for its result.
        """
        return self._handled(lambda: self._session.send_tool_result(call_id, value, is_error))

    # ── settings ─────────────────────────────────────────────────────────────────────────────────

    def set_model(self, model: str) -> None:
        """Ask another model, from the next model call on."""
        run_there(lambda: self._session.set_model(model))

    def set_permission_mode(self, mode: PermissionMode) -> None:
        """Use another permission mode, from the next call that is judged on."""
        run_there(lambda: self._session.set_permission_mode(mode))

    def add_directory(self, path: str | os.PathLike[str]) -> None:
        """Let tools touch another folder, from the next call that is judged on."""
        run_there(lambda: self._session.add_directory(path))

    def remove_directory(self, path: str | os.PathLike[str]) -> None:
        """Let tools no longer touch a folder.

        Raises:
            UnsupportedControlError: It is none of the session's.
        """
        run_there(lambda: self._session.remove_directory(path))

    def stop_task(self, task_id: str) -> None:
        """Cancel a background task; the model is told that it was stopped.

        Raises:
            UnsupportedControlError: There is none under way by this id.
        """
        call(lambda: self._session.stop_task(task_id))

    # ── going back ───────────────────────────────────────────────────────────────────────────────

    def checkpoints(self) -> list[Checkpoint]:
        """Give the checkpoints of the session, the oldest first."""
        return run_there(self._session.checkpoints)

    def rewind(
        self,
        checkpoint: str | Checkpoint,
        files: bool = True,
        conversation: bool = True,
        dry_run: bool = False,
        *,
        delete_new: bool = False,
    ) -> RewindPlan:
        """Go back to a checkpoint: the files as they were, the conversation as it stood.

        It takes what `Session.rewind` takes, gives what it gives, and raises what it raises.
        """
        session = self._session
        return call(
            lambda: session.rewind(checkpoint, files, conversation, dry_run, delete_new=delete_new)
        )

    def fork(self, at: str | Checkpoint | int | None = None) -> BlockingSession[T]:
        """Make another session that begins like this one and goes its own way.

        It takes what `Session.fork` takes, and raises what it raises; use it as `with`.
        """
        session = self._session
        return BlockingSession(call(lambda: session.fork(at)))

    # ── the context ──────────────────────────────────────────────────────────────────────────────

    def compact(self) -> Compacted:
        """Replace the older messages by a summary now, while no run is active.

        It gives what `Session.compact` gives, and raises what it raises.
        """
        return call(self._session.compact)

    def context_usage(self) -> ContextUsage:
        """Say what fills the model's window: of the next request, in tokens.

        It raises what `Session.context_usage` raises.
        """
        return call(self._session.context_usage)

    def explain_cache(self) -> CacheReport:
        """Say what each model call of the session found in the server's prefix cache, and why."""
        return call(self._session.explain_cache)

    @property
    def cache_by_turn(self) -> list[CacheTurn]:
        """What each model call of the session found in the server's prefix cache."""
        return run_there(lambda: self._session.cache_by_turn)

    # ── watching ─────────────────────────────────────────────────────────────────────────────────

    def events(self, after: int | None = None, until: Until = "run_end") -> BlockingEvents:
        """Watch: an iterator of what happens from now on.

        Args:
            after: Begin with the kept events after this sequence number (0: all of them).
            until: `"run_end"`: up to the end (or the suspension) of a run. `"close"`: over all
                runs, until the session is closed.
        """
        return BlockingEvents(run_there(lambda: self._session.events(after, until)))

    def _handled(self, begin: Callable[[], Awaitable[Run[T]]]) -> BlockingRun[T]:
        async def handled() -> BlockingRun[T]:
            return self._handle(await begin())

        return call(handled)

    def _handle(self, run: Run[T]) -> BlockingRun[T]:
        handle = self._handles.get(id(run))
        if handle is None:
            self._handles[id(run)] = handle = BlockingRun(run)
        return handle
