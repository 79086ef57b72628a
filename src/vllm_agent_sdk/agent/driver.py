"""The one loop that performs a run's effects.

```text
for e in effects(state):
    if e has side effects: append its Started event and wait until it is durable
    start(e)
cancel what is in flight and no longer in effects(state)
event = await inbox; append(event); state = evolve(state, event); publish(event)
```

1. Nothing is shown to anyone before it is durable; no tool starts before its `ToolStarted` is.
2. An effect that is no longer wanted is cancelled; whatever it still says is not heard.
3. Every task is owned by the driver and has ended when `run` returns or is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from vllm_agent_sdk._core.effects import (
    Answer,
    AskPermission,
    BeginTurn,
    CallModel,
    Effect,
    Finish,
    RunTool,
    effects,
)
from vllm_agent_sdk._core.outcome import outcome
from vllm_agent_sdk._core.run import evolve
from vllm_agent_sdk._core.run_state import Phase, State
from vllm_agent_sdk.agent.mode import Learnt
from vllm_agent_sdk.agent.model_call import ModelCall
from vllm_agent_sdk.agent.turns import TurnWriter
from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.errors import UnsupportedByServerError, VLLMError
from vllm_agent_sdk.sessions.store import EventLog
from vllm_agent_sdk.types.events import (
    Interrupted,
    ModelEnded,
    ModelStarted,
    PermissionAsked,
    PermissionDecided,
    RunEnded,
    SettingsChanged,
    StoredEvent,
    ToolEnded,
    ToolProgress,
    ToolStarted,
    TurnStarted,
    stamp,
)
from vllm_agent_sdk.types.messages import ToolCall, ToolMessage
from vllm_agent_sdk.types.options import Limits
from vllm_agent_sdk.types.protocols import Tool
from vllm_agent_sdk.types.results import ErrorInfo, RunResult
from vllm_agent_sdk.types.tools import RunContext, ToolOutput

__all__ = ["Driver", "World"]

#: Seconds that cancelled work is waited for; a stubborn tool is left to its thread.
_CANCEL_S = 1.0


@dataclass(frozen=True, slots=True)
class World:
    """What a run acts on.

    Attributes:
        client: The server.
        tools: The tools by name.
        deps: What tools get as `ctx.deps`.
        log: Where events are kept.
        learnt: What is known of servers; it is added to.
        run_id: The run's id.
        agent_id: The agent's id within the run.
    """

    client: AsyncVLLM
    tools: dict[str, Tool[Any]]
    deps: Any
    log: EventLog
    learnt: Learnt
    run_id: str
    agent_id: str = "main"


@dataclass(slots=True)
class _Flight:
    """An effect under way."""

    task: asyncio.Task[None]
    model: ModelCall | None = field(default=None)


class Driver:
    """Runs one run.

    Args:
        world: What it acts on.
        publish: Gets every event: deltas as they come, all others once they are durable.
    """

    def __init__(self, world: World, publish: Callable[[Any], None]) -> None:
        self._world = world
        self._publish = publish
        self._writer = TurnWriter()
        self._inbox: asyncio.Queue[tuple[str | None, StoredEvent | BaseException]] = asyncio.Queue()
        self._flights: dict[str, _Flight] = {}
        self._errors: list[VLLMError] = []
        self._seq = 0
        self._begun = 0.0
        self._ids: set[str] = set()
        self._result: RunResult[Any] = RunResult()
        self.state = State()

    def interrupt(self, by: str = "user") -> None:
        """Ask the run to end; nothing happens if it has ended."""
        self._inbox.put_nowait((None, Interrupted(by=by)))

    def failed(self, error: VLLMError) -> ErrorInfo:
        """Remember an exception for the result; give what is stored of it."""
        self._errors.append(error)
        return ErrorInfo.of(error)

    def partial(self) -> RunResult[Any]:
        """Give what has come so far, as the result that an interrupt would give."""
        duration = asyncio.get_running_loop().time() - self._begun
        return outcome(self.state, run_id=self._world.run_id, duration_s=duration)

    async def run(self, opening: list[StoredEvent]) -> RunResult[Any]:
        """Run to the end.

        Args:
            opening: `RunStarted`, then what else is known before the first turn.
        """
        loop = asyncio.get_running_loop()
        self._begun = loop.time()
        deadline: asyncio.TimerHandle | None = None
        try:
            for event in opening:
                await self._commit(event)
            seconds = self.state.started.limits.max_seconds
            if seconds is not None:
                deadline = loop.call_later(seconds, self.interrupt, "max_seconds")
            while self.state.phase is not Phase.DONE:
                await self._step()
        finally:
            if deadline is not None:
                deadline.cancel()
            await self._cancel(set(self._flights))
        return self._result

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────

    async def _step(self) -> None:
        wanted = effects(self.state)
        ids = {effect.id for effect in wanted}
        await self._cancel(set(self._flights) - ids)
        for effect in wanted:
            if effect.id not in self._flights:
                await self._begin(effect)
                return
        origin, event = await self._inbox.get()
        if isinstance(event, BaseException):
            raise event
        if origin is not None:
            if self._flights.pop(origin, None) is None:
                return  # it was cancelled meanwhile
        elif isinstance(event, Interrupted):
            event = self._with_partial(event)
            await self._cancel(set(self._flights))
        await self._commit(event)

    async def _begin(self, effect: Effect) -> None:
        match effect:
            case BeginTurn(turn=turn):
                await self._commit(TurnStarted(turn))
            case CallModel():
                await self._begin_model(effect)
            case AskPermission(call=call, reason=reason):
                await self._ask(call, reason)
            case RunTool(call=call):
                await self._commit(ToolStarted(call))
                self._start(effect.id, self._run_tool(effect))
            case Answer(call=call, message=message):
                await self._commit(ToolEnded(call.name, message, executed=False))
            case Finish():
                await self._finish()

    async def _commit(self, event: StoredEvent) -> None:
        """Append, then evolve, then show."""
        self._seq += 1
        stamp(event, self._world.run_id, self._world.agent_id, time.time(), self._seq)
        await self._world.log.append(event)
        self.state = evolve(self.state, event)
        if isinstance(event, ModelEnded) and event.message is not None:
            self._ids.update(call.id for call in event.message.tool_calls)
        self._publish(event)

    def _delta(self, event: Any) -> None:
        stamp(event, self._world.run_id, self._world.agent_id, time.time())
        self._publish(event)

    def _start(
        self, effect_id: str, work: Coroutine[Any, Any, StoredEvent], model: ModelCall | None = None
    ) -> None:
        async def perform() -> None:
            event = await work
            self._inbox.put_nowait((effect_id, event))

        task = asyncio.create_task(perform(), name=effect_id)
        task.add_done_callback(self._broken)
        self._flights[effect_id] = _Flight(task, model)

    def _broken(self, task: asyncio.Task[None]) -> None:
        """A bug inside an effect is raised by `run`, instead of a wait for ever."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._inbox.put_nowait((None, error))

    async def _cancel(self, ids: set[str]) -> None:
        tasks = [flight.task for key in ids if (flight := self._flights.pop(key, None)) is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.shield(asyncio.wait(tasks, timeout=_CANCEL_S))

    # ── effects ──────────────────────────────────────────────────────────────────────────────────

    async def _begin_model(self, effect: CallModel) -> None:
        state = self.state
        params = self._writer.params(state)
        shown = {name: value for name, value in params.items() if name != "messages"}
        await self._commit(ModelStarted(state.turn, {**shown, "messages": len(params["messages"])}))
        call = ModelCall(
            self._world.client,
            params,
            turn=state.turn,
            guided=state.turn_mode == "guided",
            taken=self._ids,
            publish=self._delta,
        )
        self._start(effect.id, self._ask_model(call), call)

    async def _ask_model(self, call: ModelCall) -> StoredEvent:
        ended = await call.run()
        error = call.error
        if isinstance(error, UnsupportedByServerError) and self._can_move_to_guided(error):
            self._world.learnt.without_flags[self._world.client.base_url] = str(error.body or error)
            return SettingsChanged(
                "turn_mode", old=self.state.turn_mode, new="guided", reason=str(error)
            )
        if error is not None:
            self._errors.append(error)
        return ended

    def _can_move_to_guided(self, error: UnsupportedByServerError) -> bool:
        native = self.state.turn_mode == "native"
        auto = self.state.started.turn_mode_asked == "auto"
        return native and auto and error.feature == "tool_choice"

    async def _ask(self, call: ToolCall, reason: str) -> None:
        await self._commit(PermissionAsked(call, reason))
        # There is nobody to ask yet: unanswered means no.
        refusal = (
            f"{call.name} was not permitted: {reason} Nobody answers permission questions in this "
            "run."
        )
        await self._commit(PermissionDecided(call.id, "deny", refusal))

    async def _run_tool(self, effect: RunTool) -> StoredEvent:
        call, spec = effect.call, effect.spec
        loop = asyncio.get_running_loop()
        begun = loop.time()
        limit = spec.timeout if spec.timeout is not None else self._limits.tool_timeout_s
        tool = self._world.tools[call.name]
        scope = asyncio.timeout(limit)
        try:
            async with scope:
                output = await tool.invoke(call.arguments or {}, self._context(call))
        except TimeoutError:
            if not scope.expired():
                raise
            output = ToolOutput(_timed_out(tool, limit), is_error=True)
        except Exception as error:  # noqa: BLE001 - a tool of another's making may break its contract
            output = ToolOutput(f"{type(error).__name__}: {error}", is_error=True)
        twice = call.arguments_json.lstrip().startswith('"')
        repairs = ("the arguments were a JSON string that held the object",) if twice else ()
        return ToolEnded(
            call.name,
            ToolMessage(call.id, output.content, output.is_error),
            executed=output.executed,
            repairs=(*repairs, *output.repairs),
            duration_s=loop.time() - begun,
        )

    @property
    def _limits(self) -> Limits:
        return self.state.started.limits

    def _context(self, call: ToolCall) -> RunContext[Any]:
        loop = asyncio.get_running_loop()

        def report(message: str, fraction: float | None) -> None:
            # A sync tool reports from its thread.
            loop.call_soon_threadsafe(self._delta, ToolProgress(call.id, message, fraction))

        return RunContext(
            deps=self._world.deps,
            call=call,
            run_id=self._world.run_id,
            agent_id=self._world.agent_id,
            turn=self.state.turn,
            report=report,
        )

    def _with_partial(self, event: Interrupted) -> Interrupted:
        for flight in self._flights.values():
            if flight.model is not None:
                return Interrupted(by=event.by, partial=flight.model.partial())
        return event

    async def _finish(self) -> None:
        duration = asyncio.get_running_loop().time() - self._begun
        result = outcome(self.state, run_id=self._world.run_id, duration_s=duration)
        if result.error_info is not None and self._errors:
            # The live exception has what its record cannot hold (causes, partial replies).
            vars(result)["_error"] = self._errors[-1]
        self._result = result
        await self._commit(RunEnded(result=result))


def _timed_out(tool: Tool[Any], limit: float | None) -> str:
    if getattr(tool, "is_async", True):
        return f"{tool.spec.name} was cancelled after {limit} s (its timeout); it may have acted."
    return f"{tool.spec.name} did not end within {limit} s: outcome unknown (still running)."
