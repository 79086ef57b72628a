"""The one loop that performs a run's effects.

```text
for e in effects(state):
    if e has side effects: append its Started event and wait until it is durable
    start(e)
cancel what is in flight and no longer in effects(state)
event = await inbox; state = evolve(state, event); append(event); publish(event)
```

How an effect ended is appended together with what begins the next one, where that follows at once:
one entry of the log for both.


1. Nothing is shown to anyone before it is durable; no tool starts before its `ToolStarted` is.
2. An effect that is no longer wanted is cancelled; whatever it still says is not heard.
3. Every task is owned by the driver and has ended when `run` returns or is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vllm_agent_sdk._core.run.effects import (
    BeginTurn,
    CallModel,
    Effect,
    Finish,
    RunTool,
    effects,
)
from vllm_agent_sdk._core.run.outcome import outcome
from vllm_agent_sdk._core.run.run import evolve
from vllm_agent_sdk._core.run.state import IllegalTransitionError, Phase, State
from vllm_agent_sdk.agent.model.call import ModelCall
from vllm_agent_sdk.agent.run.perform import Performer
from vllm_agent_sdk.agent.run.run import unwatched
from vllm_agent_sdk.agent.run.world import World
from vllm_agent_sdk.errors import UsageError, VLLMError
from vllm_agent_sdk.types.events import (
    Interrupted,
    ModelEnded,
    Notice,
    RunEnded,
    RunSuspended,
    StoredEvent,
    stamp,
)
from vllm_agent_sdk.types.results import ErrorInfo, RunResult

__all__ = ["Driver", "World"]

#: Seconds that cancelled work is waited for; a stubborn tool is left to its thread.
_CANCEL_S = 1.0


@dataclass(slots=True)
class _Flight:
    """An effect under way."""

    task: asyncio.Task[None]
    work: Coroutine[Any, Any, StoredEvent]
    model: ModelCall | None


@dataclass(slots=True)
class _Told:
    """An event from outside, and who waits for it to be kept."""

    event: StoredEvent
    kept: asyncio.Future[None] | None = None


#: What is said to a run: how an effect ended, what came from outside, or a bug.
_Said = tuple[str, StoredEvent] | _Told | BaseException
_STILL = frozenset({Phase.DONE, Phase.SUSPENDED})
#: Effects that begin with an entry of the log, or see to it themselves.
_KEEPING = (BeginTurn, CallModel, RunTool, Finish)


class Driver:
    """Runs one run.

    Args:
        world: What it acts on.
        publish: Gets every event: deltas as they come, all others once they are durable.
        state: Where a session stands; unset for a run of its own.
        seq: How many events its log has.

    Attributes:
        watched: Somebody gets the events; what is not kept need not be made for nobody.
    """

    def __init__(
        self,
        world: World,
        publish: Callable[[Any], None],
        state: State | None = None,
        seq: int = 0,
    ) -> None:
        self.world = world
        self.state = State() if state is None else state
        self.seq = seq
        self._noted: list[StoredEvent] = []
        self._kept = self.state, seq
        self.ids = world.writer.call_ids(self.state.history)
        self._publish = publish
        self.watched = publish is not unwatched
        self._performer = Performer(self)
        self._inbox: deque[_Said] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._flights: dict[str, _Flight] = {}
        self._errors: list[VLLMError] = []
        self._loop: asyncio.AbstractEventLoop
        self._begun = 0.0
        self._over = False
        self._misuse: UsageError | None = None
        self._result: RunResult[Any] = RunResult()

    @property
    def kept(self) -> State:
        """Where the run stands by what is in its log."""
        return self._kept[0]

    # ── what others may ask of a run ─────────────────────────────────────────────────────────────

    @property
    def over(self) -> bool:
        """Nothing is heard any more."""
        return self._over

    def interrupt(self, by: str = "user") -> None:
        """Ask the run to end; nothing happens if it has ended."""
        self._say(_Told(Interrupted(by=by)))

    def tell(self, event: StoredEvent) -> asyncio.Future[None]:
        """Give the run an event from outside; the future ends when it is kept.

        It raises `IllegalTransitionError` where the run has no place for it any more.
        """
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._over:
            kept.set_exception(IllegalTransitionError("The run has ended"))
        else:
            self._say(_Told(event, kept))
        return kept

    def failed(self, error: VLLMError) -> ErrorInfo:
        """Remember an exception for the result; give what is stored of it."""
        self._errors.append(error)
        return ErrorInfo.of(error)

    def misused(self, error: UsageError) -> ErrorInfo:
        """Remember the caller's mistake: it is raised once the run has ended."""
        self._misuse = error
        return self.failed(error)

    def partial(self) -> RunResult[Any]:
        """Give what has come so far, as the result that an interrupt would give."""
        said = [flight.model.so_far() for flight in self._flights.values() if flight.model]
        try:
            state = evolve(self.state, Interrupted(partial=said[0] if said else None))
        except IllegalTransitionError:
            state = self.state  # nothing is under way
        return self._outcome(state)

    async def run(self, opening: Sequence[StoredEvent]) -> RunResult[Any]:
        """Run until the run ends or stands still.

        Args:
            opening: `RunStarted` or `RunResumed`, and what else is known before the first turn;
                kept all together.
        """
        # Asked for once: on Python 3.11 each time is a system call.
        self._loop = loop = asyncio.get_running_loop()
        self._begun = time.monotonic()
        deadline: asyncio.TimerHandle | None = None
        self.world.background.listen(lambda event: self._say(_Told(event)))
        try:
            self.note(*opening)
            seconds = self.state.started.limits.max_seconds
            if seconds is not None:
                deadline = loop.call_later(seconds, self.interrupt, "max_seconds")
            while self.state.phase not in _STILL:
                await self._step()
        except Exception:
            await self.keep()  # what came before it has happened
            raise
        finally:
            self._over = True
            self.world.background.listen(None)
            if deadline is not None:
                deadline.cancel()
            await self._cancel(list(self._flights))
            self.end()
            del self._performer  # they hold each other: nothing is left to the garbage collector
        if self._misuse is not None:
            raise self._misuse
        return self._result

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────

    async def _step(self) -> None:
        wanted = effects(self.state)
        if self._flights:
            gone = self._flights.keys() - {effect.id for effect in wanted}
            if gone:
                await self.keep()
                await self._cancel(gone)
        if not self._inbox:  # what was said to the run counts before it begins anything more
            for effect in wanted:
                if not self._flights or effect.id not in self._flights:
                    if not isinstance(effect, _KEEPING):
                        await self.keep()
                    await self._performer.begin(effect)
                    return
        await self.keep()
        said = await self._heard()
        if isinstance(said, BaseException):
            raise said
        if isinstance(said, _Told):
            await self._told(said)
        elif self._flights.pop(said[0], None) is not None:  # else it was cancelled meanwhile
            self.note(said[1])

    def _say(self, said: _Said) -> None:
        self._inbox.append(said)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _heard(self) -> _Said:
        while not self._inbox:
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._inbox.popleft()

    async def _told(self, told: _Told) -> None:
        event = told.event
        try:
            if isinstance(event, Interrupted):
                event = self._with_partial(event)
                evolve(self.state, event)
                await self._cancel(list(self._flights))
            await self.commit(event)
        except IllegalTransitionError as error:
            # It came too late; who said it is told.
            if told.kept is not None and not told.kept.done():
                told.kept.set_exception(error)
            return
        if told.kept is not None and not told.kept.done():
            told.kept.set_result(None)

    def end(self) -> None:
        """Hear nothing any more; who said something that was not heard is told."""
        self._over = True
        while self._inbox:
            said = self._inbox.popleft()
            if isinstance(said, _Told) and said.kept is not None and not said.kept.done():
                said.kept.set_exception(IllegalTransitionError("The run has ended"))

    # ── for those who perform effects ────────────────────────────────────────────────────────────

    async def commit(self, *events: StoredEvent) -> None:
        """Note, and keep: nothing illegal is kept, nothing unkept is shown."""
        self.note(*events)
        await self.keep()

    def note(self, *events: StoredEvent) -> None:
        """Evolve. The events are kept with those that follow, before anything else happens."""
        state, seq, world = self.state, self.seq, self.world
        for event in events:
            seq += 1
            stamp(event, world.run_id, world.agent_id, time.time(), seq)
            state = evolve(state, event)
        self.state, self.seq = state, seq
        self._noted += events

    async def keep(self) -> None:
        """Append what was noted, in one entry, and show it."""
        if not self._noted:
            return
        events, self._noted = self._noted, []
        try:
            await self.world.log.append(*events)
        except BaseException:
            self.state, self.seq = self._kept  # what is not in the log has not happened
            raise
        self._kept = self.state, self.seq
        told: list[Notice | RunSuspended] = []
        for event in events:
            if type(event) is ModelEnded:
                said = event.message
                if said is not None and said.content:
                    self.ids.update([call.id for call in said.tool_calls])
            elif type(event) is Notice or type(event) is RunSuspended:
                told.append(event)
            if self.watched:
                self._publish(event)
        for event in told:
            await self._performer.notify(event)

    def delta(self, event: Any) -> None:
        """Show what is not kept."""
        if not self.watched:
            return
        stamp(event, self.world.run_id, self.world.agent_id, time.time())
        self._publish(event)

    def publish(self, event: Any) -> None:
        """Show an event of another run (a subagent's) as it is."""
        self._publish(event)

    def start(
        self, effect: Effect, work: Coroutine[Any, Any, StoredEvent], model: ModelCall | None = None
    ) -> None:
        """Begin the work of an effect; what it gives is the event that ends it."""
        key = effect.id
        task = self._loop.create_task(self._perform(key, work), name=key)
        self._flights[key] = _Flight(task, work, model)

    async def _perform(self, key: str, work: Coroutine[Any, Any, StoredEvent]) -> None:
        try:
            event = await work
        except Exception as error:  # noqa: BLE001 - a bug: `run` raises it, and waits for nothing
            self._say(error)
        except (KeyboardInterrupt, SystemExit) as error:
            self._say(error)
            raise
        else:
            self._say((key, event))

    async def suspend(self) -> None:
        """Stand still until what is waited for comes."""
        waiting = self._outcome().pending
        await self.commit(RunSuspended(waiting=waiting))
        self._result = self._outcome()

    async def finish(self) -> None:
        """End the run."""
        result = self._outcome()
        for error in self._errors:
            # The live exception has what its record cannot hold (causes, partial replies).
            if ErrorInfo.of(error) == result.error_info:
                vars(result)["_error"] = error
        await self.commit(RunEnded(result=result))
        self._result = result

    def _outcome(self, state: State | None = None) -> RunResult[Any]:
        duration = time.monotonic() - self._begun
        result = outcome(state or self.state, run_id=self.world.run_id, duration_s=duration)
        output = self.world.output
        if output is not None and result.stop_reason == "end_turn":
            vars(result)["_output"] = output.value_of_json(bytes(result.output_json))
        return result

    async def _cancel(self, ids: Iterable[str]) -> None:
        flights = [flight for key in ids if (flight := self._flights.pop(key, None)) is not None]
        if not flights:
            return
        for flight in flights:
            flight.task.cancel()
        try:
            await asyncio.shield(
                asyncio.wait([flight.task for flight in flights], timeout=_CANCEL_S)
            )
        finally:
            for flight in flights:
                if flight.task.done():
                    flight.work.close()  # it may have been cancelled before it began

    def _with_partial(self, event: Interrupted) -> Interrupted:
        for flight in self._flights.values():
            if flight.model is not None:
                return Interrupted(by=event.by, partial=flight.model.partial())
        return event
