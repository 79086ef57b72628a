"""Tasks that go on after their call was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from vllm_agent_sdk._core.run.read_back import notification
from vllm_agent_sdk.agent.tools.results import error_text
from vllm_agent_sdk.types.events import MessageAdded, StoredEvent, ToolEnded
from vllm_agent_sdk.types.messages import ContentBlock, ToolCall

__all__ = ["Background"]


class Background:
    """Owns background tasks; each ends in a notification to whoever listens.

    A task that is stopped, or that is under way when `aclose` comes, is cancelled; a sync tool's
    thread goes on, which is why its end is never reported as cancelled but as unknown.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[ToolEnded]] = {}
        self._listener: Callable[[StoredEvent], None] | None = None
        self._unheard: list[StoredEvent] = []

    def listen(self, listener: Callable[[StoredEvent], None] | None) -> None:
        """Say who is told; what nobody heard so far is told at once."""
        self._listener = listener
        if listener is not None:
            unheard, self._unheard = self._unheard, []
            for event in unheard:
                listener(event)

    def tell(self, event: StoredEvent) -> None:
        """Tell whoever listens, now or next."""
        if self._listener is None:
            self._unheard.append(event)
        else:
            self._listener(event)

    def keep(
        self, task_id: str, call: ToolCall, task: asyncio.Task[ToolEnded], threaded: bool = False
    ) -> None:
        """Take a task over; `threaded` if it cannot be cancelled."""
        self._tasks[task_id] = task
        task.add_done_callback(lambda done: self._ended(task_id, call, done, threaded))

    def lost(self, tasks: Iterable[tuple[str, ToolCall]]) -> None:
        """Tell of tasks that ended with the program which ran them."""
        for task_id, call in tasks:
            self._say(task_id, call, "It was lost when the program ended: its outcome is unknown.")

    @property
    def ids(self) -> list[str]:
        """The tasks under way."""
        return list(self._tasks)

    def stop(self, task_id: str) -> bool:
        """Cancel a task; False if there is none under way by this id."""
        task = self._tasks.get(task_id)
        return task is not None and task.cancel()

    async def aclose(self) -> None:
        """Cancel what is under way, and wait a second for it; whoever listens is told."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        self._listener = None

    def _ended(
        self, task_id: str, call: ToolCall, task: asyncio.Task[ToolEnded], threaded: bool
    ) -> None:
        self._tasks.pop(task_id, None)
        content: str | list[ContentBlock]
        if task.cancelled():
            content = "It was stopped; what it had done until then is unknown."
            if threaded:
                content = "It was to stop: outcome unknown (still running)."
        elif (error := task.exception()) is not None:
            content = f"It failed: {error_text(error)}"
        else:
            message = task.result().message
            content = f"It failed: {message.text}" if message.is_error else message.content
        self._say(task_id, call, content)

    def _say(self, task_id: str, call: ToolCall, content: str | list[ContentBlock]) -> None:
        told = notification(task_id, call.name, content)
        self.tell(MessageAdded(message=told, when="notification", task=task_id))
