"""`Session`: a conversation of several runs, kept in a store, that can be steered while it runs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable
from typing import Any, Literal

from typing_extensions import TypeVar

from vllm_agent_sdk._core.run.questions import check_answers, parse_questions
from vllm_agent_sdk._core.run.state import (
    CallState,
    CallStatus,
    IllegalTransitionError,
    Phase,
)
from vllm_agent_sdk.agent.run.asking import decided
from vllm_agent_sdk.agent.run.run import Run, Start
from vllm_agent_sdk.agent.session.context import SessionContext
from vllm_agent_sdk.agent.session.feed import EventFeed, Until
from vllm_agent_sdk.agent.session.prompts import PromptRuns
from vllm_agent_sdk.agent.session.runs import heard, unsupported
from vllm_agent_sdk.agent.tools.results import output_of
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.events import (
    Interrupted,
    MessageAdded,
    PermissionDecided,
    RunResumed,
    SettingsChanged,
    StoredEvent,
    ToolEnded,
    UserAnswered,
)
from vllm_agent_sdk.types.messages import Prompt, Prompts, ToolMessage, UserMessage, as_user_message
from vllm_agent_sdk.types.permissions import Decision, PermissionMode, check_mode
from vllm_agent_sdk.types.results import RunResult

__all__ = ["Session"]

T = TypeVar("T", default=str)
When = Literal["after", "steer", "interrupt"]
_ANSWERED = {"approval", "decision", "question"}
Publish = Callable[[Any], None]


class Session(SessionContext[T]):
    """A conversation with an agent; made by `agent.session(…)`, used as `async with`.

    One run is active at a time. Opening a session starts nothing by itself: `resume()` takes up a
    run that was left unfinished.

    Attributes:
        id: The session's id.
    """

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────

    async def run(self, prompt: Prompt | Prompts) -> RunResult[T]:
        """Run to the end, and give the result. Raises as `send` does.

        Args:
            prompt: Text, blocks, or a `UserMessage`; or an async iterator of these: each its own
                run, as by `send`. The result is then the last run's.
        """
        if isinstance(prompt, AsyncIterable):
            return await self.stream(prompt)
        run = await self.send(prompt)
        run.ignore()
        return await run

    def stream(self, prompt: Prompt | Prompts) -> Run[T]:
        """Run and watch: `async for event in session.stream(…)`. It begins when it is read.

        Args:
            prompt: As `run` takes it.
        """
        if isinstance(prompt, AsyncIterable):
            return self._run_all(prompt)
        message = as_user_message(prompt)
        return self._new_run(lambda publish: self._prepared(publish, message))

    def _run_all(self, prompts: Prompts) -> Run[T]:
        async def begin(message: UserMessage, _before: RunResult[Any] | None) -> Run[T]:
            return await self.send(message)

        async def prepare(publish: Publish) -> tuple[PromptRuns, list[StoredEvent]]:
            self._opened()
            return PromptRuns(prompts, begin, publish), []

        async def close() -> None:
            """The session owns its runs."""

        return Run(Start(prepare, close))

    async def send(self, prompt: Prompt, when: When = "after") -> Run[T]:
        """Say something, and return at once; `await` the run for its result.

        Args:
            prompt: Text, blocks, or a `UserMessage`.
            when: While a run is active: `"after"` begins another run when it has ended, `"steer"`
                tells the model before its next call, `"interrupt"` ends the run and begins another.

        Returns:
            The run that answers it.

        Raises:
            UsageError: The prompt cannot be one; the session is not open.
        """
        message = as_user_message(prompt)
        if when not in {"after", "steer", "interrupt"}:
            raise UsageError(f"send(when={when!r}): it is 'after', 'steer' or 'interrupt'.")
        while (active := await self._active()) is not None and self._driver is not None:
            try:
                await self._driver.tell(MessageAdded(message=message, when=when))
            except IllegalTransitionError:
                continue  # it has just ended
            if not any(queued is message for queued in self._now.queue):
                return active  # it was steered
            run = self._wait(message)
            if when == "interrupt":
                self._driver.interrupt()
            return run
        self._opened()
        if self._state.phase is Phase.SUSPENDED:
            await self._commit(MessageAdded(message=message, when="after"))
            return self._wait(message)
        return self._start(lambda publish: self._prepared(publish, message))

    async def resume(self) -> Run[T] | None:
        """Take up what was left: a run that was suspended or cut, or prompts that waited.

        Returns:
            The run, or `None` if there is nothing to take up.
        """
        if (active := await self._active()) is not None:
            return active
        self._opened()
        state = self._state
        if state.phase in {Phase.IDLE, Phase.DONE}:
            if state.queue:
                self._follow(state.queue[0])
            return self._run
        event = RunResumed(reason="restart", unknown=self._on_unknown)
        if state.phase is Phase.SUSPENDED and not state.background:
            event = RunResumed(reason="answered")
        return self._start(lambda publish: self._resumed(publish, event))

    async def retry(self) -> Run[T]:
        """Repeat the model call that failed, on the same history.

        Raises:
            UnsupportedControlError: The last run did not end with `stop_reason="error"`.
        """
        active = await self._active()
        self._opened()
        stop = self._state.stop
        if active is not None or stop is None or stop.reason != "error":
            unsupported("retry", "the last run did not fail")
        return self._start(lambda publish: self._resumed(publish, RunResumed(reason="retry")))

    async def interrupt(self) -> None:
        """End the active run with what has come; returns when it has ended. None: does nothing."""
        active = await self._active()
        self._opened()
        if active is not None:
            await active.interrupt()
        elif self._in_a_run:
            await self._start(lambda publish: self._resumed(publish, Interrupted()))

    async def resolve(self, call_id: str, answer: Decision | dict[str, Any]) -> Run[T]:
        """Answer an approval or a decision that waits, or a question (by question id).

        Args:
            call_id: `Pending.call.id`.
            answer: `Allow`, `Deny` or `Defer`; for a question the answers by its id.

        Returns:
            The run, which goes on.

        Raises:
            UnsupportedControlError: No call of this id waits for that.
        """
        await self._active()
        entry = self._waits("resolve", call_id, _ANSWERED)
        if entry.waits_for == "question":
            questions = parse_questions(entry.call.arguments or {})
            given = check_answers(questions, answer)
            return await self._answered("resolve", UserAnswered(call_id=call_id, answers=given))
        if isinstance(answer, dict):
            raise UsageError("An approval is answered with Allow(), Deny(message) or Defer().")
        return await self._answered("resolve", decided(entry.call, answer))

    async def send_tool_result(self, call_id: str, value: Any, is_error: bool = False) -> Run[T]:
        """Give the result of a deferred call: text, blocks, or anything JSON can hold.

        Raises:
            UnsupportedControlError: No call of this id waits for its result.
        """
        await self._active()
        entry = self._waits("send_tool_result", call_id, {"tool_result"})
        output = output_of(value, entry.call.name)
        message = ToolMessage(call_id, output.content, is_error or output.is_error)
        ended = ToolEnded(name=entry.call.name, message=message)
        return await self._answered("send_tool_result", ended)

    def _waits(self, control: str, call_id: str, kinds: set[str]) -> CallState:
        self._opened()
        entry = self._now.call(call_id)
        if entry is None or entry.status is not CallStatus.WAITING or entry.waits_for not in kinds:
            waiting = ", ".join(f"{p.call.id} ({p.kind})" for p in self.pending) or "nothing"
            unsupported(control, f"call {call_id!r} does not wait for it; waiting: {waiting}")
        return entry

    async def _answered(
        self, control: str, event: PermissionDecided | UserAnswered | ToolEnded
    ) -> Run[T]:
        while (active := await self._active()) is not None and (driver := self._driver) is not None:
            try:
                await driver.tell(event)
            except IllegalTransitionError:
                if not driver.over:
                    unsupported(control, "it was answered meanwhile")
            else:
                return active
        self._opened()
        if self._state.phase is not Phase.SUSPENDED:
            unsupported(control, "the run has ended meanwhile")
        return self._start(lambda publish: self._resumed(publish, RunResumed(), event))

    # ── settings ─────────────────────────────────────────────────────────────────────────────────

    def set_model(self, model: str) -> None:
        """Ask another model, from the next model call on."""
        old = self._now.model
        self._agent = self._agent.with_(model=model)
        self._changed(SettingsChanged(what="model", old=old, new=model, reason="set_model"))

    def set_permission_mode(self, mode: PermissionMode) -> None:
        """Use another permission mode, from the next call that is judged on."""
        check_mode(mode)
        old = self._agent.permissions
        self._set_permissions(mode=mode)
        self._changed(
            SettingsChanged(
                what="permission_mode", old=old.mode, new=mode, reason="set_permission_mode"
            )
        )

    def add_directory(self, path: str | os.PathLike[str]) -> None:
        """Let tools touch another folder, from the next call that is judged on."""
        self._set_directories((*self._agent.permissions.directories, os.fspath(path)))

    def remove_directory(self, path: str | os.PathLike[str]) -> None:
        """Let tools no longer touch a folder.

        Raises:
            UnsupportedControlError: It is none of the session's.
        """
        given = os.fspath(path)
        known = tuple(os.fspath(folder) for folder in self._agent.permissions.directories)
        if given not in known:
            unsupported("remove_directory", f"{given!r} is none of {', '.join(known) or 'none'}")
        rest = tuple(folder for folder in known if folder != given)
        if not rest:
            unsupported("remove_directory", "no folder would be left, which means no limit at all")
        self._set_directories(rest)

    def _set_directories(self, folders: tuple[Any, ...]) -> None:
        old = [os.fspath(folder) for folder in self._agent.permissions.directories]
        new = [os.fspath(folder) for folder in folders]
        self._set_permissions(directories=tuple(folders))
        self._changed(SettingsChanged(what="directories", old=old, new=new, reason="directories"))

    def _set_permissions(self, **changes: Any) -> None:
        now = self._agent.permissions
        fields = {name: getattr(now, name) for name in now.__struct_fields__}
        self._agent = self._agent.with_(permissions=type(now)(**{**fields, **changes}))

    def _changed(self, event: SettingsChanged) -> None:
        """Tell the active run; without one it is kept with what comes next."""
        self._opened()
        if self._driver is not None:
            self._driver.tell(event).add_done_callback(heard)
        elif self._state.phase is not Phase.IDLE:
            self._changes.append(event)

    async def stop_task(self, task_id: str) -> None:
        """Cancel a background task; the model is told that it was stopped.

        Raises:
            UnsupportedControlError: There is none under way by this id.
        """
        if not self._background.stop(task_id):
            tasks = ", ".join(self._background.ids) or "none"
            unsupported("stop_task", f"no task {task_id!r} is under way; there are: {tasks}")

    # ── watching ─────────────────────────────────────────────────────────────────────────────────

    def events(self, after: int | None = None, until: Until = "run_end") -> EventFeed:
        """Watch: an async iterator of what happens from now on.

        Args:
            after: Begin with the kept events after this sequence number (0: all of them).
            until: `"run_end"`: up to the end (or the suspension) of a run. `"close"`: over all
                runs, until the session is closed.
        """
        if until not in {"run_end", "close"}:
            raise UsageError(f"events(until={until!r}): it is 'run_end' or 'close'.")
        return self._feeds.open(self._opened(), after, until)
