"""How a session lives: opened, its runs one after the other, events between them, closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Self

from typing_extensions import TypeVar

from vllm_agent_sdk._core.run.outcome import outcome
from vllm_agent_sdk._core.run.run import evolve
from vllm_agent_sdk._core.run.state import (
    Phase,
    State,
)
from vllm_agent_sdk._ids import random_hex
from vllm_agent_sdk.agent.model.turns import TurnWriter
from vllm_agent_sdk.agent.run.hook_call import run_hook
from vllm_agent_sdk.agent.run.rewind import SessionFiles
from vllm_agent_sdk.agent.run.run import Run, Start, load
from vllm_agent_sdk.agent.session.feed import Feeds
from vllm_agent_sdk.agent.session.replay import Snapshots
from vllm_agent_sdk.agent.tools.background import Background
from vllm_agent_sdk.errors import SessionNotFoundError, UnsupportedControlError, UsageError
from vllm_agent_sdk.sessions.choice import choose_store
from vllm_agent_sdk.sessions.store import SessionLog, SessionQuery, SessionStore
from vllm_agent_sdk.types.events import (
    HookRan,
    RunResumed,
    StoredEvent,
    stamp,
)
from vllm_agent_sdk.types.hooks import HookEvent, HookSpec, Matcher
from vllm_agent_sdk.types.messages import Message, UserMessage
from vllm_agent_sdk.types.results import Pending

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.definition import Agent
    from vllm_agent_sdk.agent.run.driver import Driver
    from vllm_agent_sdk.types.protocols import ChatModel

__all__ = ["STILL", "SessionRuns", "unsupported"]

T = TypeVar("T", default=str)
When = Literal["after", "steer", "interrupt"]
Publish = Callable[[Any], None]
#: The phases in which no run is active or unfinished.
STILL = frozenset({Phase.IDLE, Phase.DONE})


class SessionRuns(Generic[T]):
    """What a session is made of; `Session` adds what its user can do with it."""

    def __init__(
        self,
        agent: Agent[Any, T],
        session_id: str | None,
        *,
        store: SessionStore | None = None,
        create: bool = True,
        latest: bool = False,
        deps: Any = None,
        on_unknown: Literal["ask", "skip"] = "ask",
    ) -> None:
        if session_id is not None and latest:
            raise UsageError("session(id, latest=True): give an id, or latest=True.")
        if on_unknown not in {"ask", "skip"}:
            raise UsageError(f"session(on_unknown={on_unknown!r}): it is 'ask' or 'skip'.")
        if session_id == "":
            raise UsageError("session(''): an id is not empty; leave it out for a new one.")
        self.id = session_id or random_hex(24)
        self._agent = agent
        self._store: SessionStore = choose_store() if store is None else store
        self._create = create
        self._latest = latest
        self._deps = deps
        self._on_unknown: Literal["ask", "skip"] = on_unknown
        self._stack = AsyncExitStack()
        self._background = Background()
        self._writer = TurnWriter()
        self._files: SessionFiles | None = None
        self._standing = asyncio.Lock()
        self._feeds = Feeds()
        self._state = State()
        self._seq = 0
        self._log: SessionLog | None = None
        self._snapshots: Snapshots | None = None
        self._client: ChatModel | None = None
        self._driver: Driver | None = None
        self._run: Run[T] | None = None
        # Runs of prompts that are queued, and what is set when it is their turn.
        self._waiting: list[_Waiting[T]] = []
        self._moved = asyncio.Event()
        self._committing = asyncio.Lock()
        self._changes: list[StoredEvent] = []
        self._closing = False

    # ── its life ─────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        if self._log is not None or self._closing:
            raise UsageError("A session is entered once.")
        if self._latest:
            newest = await self._store.sessions(SessionQuery(limit=1))
            if not newest and not self._create:
                raise SessionNotFoundError("The store has no session yet.")
            self.id = newest[0].id if newest else self.id
        self._log = await self._store.open(self.id, create=self._create)
        self._stack.push_async_callback(self._log.aclose)
        self._snapshots = Snapshots(self.id, self._log)
        try:
            if self._agent.checkpoints is not None:
                path = getattr(self._store, "path", None)  # an SQLite store's file
                database = path if isinstance(path, str) else None
                self._files = SessionFiles(self._agent.checkpoints, self.id, database)
                await self._files.open()
            self._state, self._seq = await self._snapshots.replay()
            self._feeds.shown = self._seq
            self._client = await self._agent.opened(self._stack)
            self._background.listen(self._notified)
            if self._state.phase in {Phase.IDLE, Phase.DONE, Phase.SUSPENDED}:
                self._background.lost(self._state.background)
            await self._run_hooks("session_start", "resume" if self._seq else "startup")
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel what is under way, and give the session free. Idempotent.

        An unfinished run can be taken up by `resume()` after the session was opened again.
        """
        if self._closing or self._log is None:
            return
        self._closing = True
        if self._run is not None:
            await self._run.aclose()
        for waiting in self._waiting:
            await waiting.run.aclose()
        await self._background.aclose()
        await self._run_hooks("session_end", "close")
        await self._flush()
        self._feeds.close()
        try:
            if self._snapshots is not None:
                await self._snapshots.aclose(self._state, self._seq)
        finally:
            await self._stack.aclose()

    @property
    def messages(self) -> list[Message]:
        """The conversation so far."""
        return self._now.history.since(0)

    @property
    def pending(self) -> list[Pending]:
        """What the session waits for: approvals, questions, results, decisions."""
        return outcome(self._now, run_id="", duration_s=0.0).pending

    @property
    def _now(self) -> State:
        return self._state if self._driver is None else self._driver.kept

    # ── how a run is made ────────────────────────────────────────────────────────────────────────

    def _opened(self) -> SessionLog:
        if self._log is None or self._closing:
            raise UsageError("The session is not open: use `async with agent.session(…)`.")
        return self._log

    def _start(self, prepare: _Prepare) -> Run[T]:
        run = self._run = self._new_run(prepare)
        run.begin()
        return run

    def _wait(self, message: UserMessage) -> Run[T]:
        """Give the run of a queued prompt; whoever reads it early waits for its turn."""
        turn = asyncio.Event()
        run = self._new_run(self._prepared_from_queue, turn)
        self._waiting.append(_Waiting(message, run, turn))
        return run

    def _new_run(self, prepare: _Prepare, turn: asyncio.Event | None = None) -> Run[T]:
        run: Run[T] | None = None

        async def begin(publish: Publish) -> tuple[Driver, list[StoredEvent]]:
            self._opened()
            if turn is not None:
                await turn.wait()
            elif self._run is not run:
                if await self._active() is not None:
                    raise UsageError(
                        "The session has an active run; send(…) says when another begins."
                    )
                self._run = run
            await load(self._agent.api)
            async with self._standing:  # a rewind under way comes first
                return await prepare(publish)

        async def end() -> None:
            if self._run is run:
                self._ended()

        run = Run(Start(begin, end))
        return run

    def _ended(self) -> None:
        if self._driver is not None:
            self._driver.end()
            self._state, self._seq = self._driver.state, self._driver.seq
        self._driver = self._run = None
        self._moved.set()
        self._background.listen(self._notified)
        if self._closing or self._state.phase is not Phase.DONE:
            return
        if self._snapshots is not None:
            self._snapshots.keep(self._state, self._seq)
        if self._state.queue:
            self._follow(self._state.queue[0])

    def _follow(self, message: UserMessage) -> None:
        """Begin the run of the prompt that is next; one that nobody can read, if need be."""
        following = next((each for each in self._waiting if each.message is message), None)
        if following is not None:
            self._waiting.remove(following)
        if following is None or following.run.closed:
            self._start(self._prepared_from_queue)
            return
        self._run = following.run
        following.turn.set()
        following.run.begin()

    async def _active(self) -> Run[T] | None:
        """Give the active run, once it can be spoken to; `None` if there is none.

        What is said to a run that is just beginning, or just over, waits for that moment.
        """
        while self._run is not None and (self._driver is None or self._driver.over):
            self._moved.clear()
            await self._moved.wait()
        return self._run

    def _driver_for(self, publish: Publish) -> Driver:
        from vllm_agent_sdk.agent.run.driver import Driver
        from vllm_agent_sdk.agent.run.opening import make_world

        if self._client is None:
            raise UsageError("The session is not open.")
        world = make_world(
            self._agent,
            self._client,
            deps=self._deps,
            learnt=self._agent.learnt,
            session_id=self.id,
            log=self._opened(),
            background=self._background,
            files=self._files,
        )

        def show(event: Any) -> None:
            publish(event)
            self._feeds.put(event)

        world = replace(world, writer=self._writer)
        return Driver(world, show, self._state, self._seq)

    async def _prepared(
        self, publish: Publish, message: UserMessage, queued: bool = False
    ) -> tuple[Driver, list[StoredEvent]]:
        from vllm_agent_sdk.agent.run.opening import opening

        if self._state.phase not in STILL:
            raise UsageError(
                "The session has an unfinished run: resume() takes it up, interrupt() ends it."
            )
        driver = await self._drive(publish)
        return driver, await opening(self._agent, driver, message, history=[], queued=queued)

    async def _prepared_from_queue(self, publish: Publish) -> tuple[Driver, list[StoredEvent]]:
        return await self._prepared(publish, self._state.queue[0], queued=True)

    async def _resumed(
        self, publish: Publish, *events: StoredEvent
    ) -> tuple[Driver, list[StoredEvent]]:
        from vllm_agent_sdk.agent.run.opening import other_options

        driver = await self._drive(publish)
        resumed, *answers = events
        changes: list[StoredEvent] = []
        if isinstance(resumed, RunResumed):
            changes = other_options(self._agent, driver.world, self._state)
        return driver, [resumed, *changes, *answers]

    async def _drive(self, publish: Publish) -> Driver:
        await self._flush()
        driver = self._driver = self._driver_for(publish)
        self._background.listen(None)  # what ends from here on is told to the run
        self._moved.set()
        return driver

    # ── events between runs ──────────────────────────────────────────────────────────────────────

    async def _flush(self) -> None:
        changes, self._changes = self._changes, []
        await self._commit(*changes)

    async def _commit(self, *events: StoredEvent) -> None:
        if not events or self._log is None:
            return
        async with self._committing:
            state = self._state
            for number, event in enumerate(events, self._seq + 1):
                stamp(event, "", self._agent.name or "main", time.time(), number)
                state = evolve(state, event)
            await self._log.append(*events)
            self._state, self._seq = state, self._seq + len(events)
            for event in events:
                self._feeds.put(event)

    def _notified(self, event: StoredEvent) -> None:
        """A background task has ended while no run is active: the next one is told."""
        self._changes.append(event)

    @property
    def _in_a_run(self) -> bool:
        """True while a run is active, or left unfinished."""
        return self._run is not None or self._state.phase not in STILL

    async def _run_hooks(self, event: str, source: str) -> None:
        for spec, matcher in self._hooks_for(event, source):
            await self._run_hook(spec, matcher)

    def _hooks_for(self, event: str, subject: str) -> list[tuple[HookSpec, Matcher]]:
        hooks = self._agent.hooks.matchers()
        return [each for each in hooks if each[0].event == event and each[0].matches(subject)]

    async def _run_hook(self, spec: HookSpec, matcher: Matcher) -> HookRan:
        """Run a hook while no run is active, and keep what it said."""
        told = HookEvent(event=spec.event, session_id=self.id, deps=self._deps)
        outputs, error = await run_hook(matcher, spec, told)
        ran = HookRan(hook=spec.name, event=spec.event, outputs=outputs, error=error)
        await self._commit(ran)
        return ran


_Prepare = Callable[[Publish], Awaitable[tuple["Driver", list[StoredEvent]]]]


class _Waiting(Generic[T]):
    """A run whose prompt is queued."""

    def __init__(self, message: UserMessage, run: Run[T], turn: asyncio.Event) -> None:
        self.message = message
        self.run = run
        self.turn = turn


def unsupported(control: str, reason: str) -> NoReturn:
    """Refuse a control that cannot work here."""
    raise UnsupportedControlError(
        f"{control} cannot work here: {reason}.", control=control, reason=reason
    )


def heard(kept: asyncio.Future[None]) -> None:
    """A change that came as the run ended counts from the next one on, which has it anyway."""
    if not kept.cancelled():
        kept.exception()
