"""How each effect of a run is performed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from vllm_agent_sdk._core.run.effects import (
    Answer,
    AskPermission,
    AskUser,
    BeginTurn,
    CallModel,
    ChangeSetting,
    Compact,
    Effect,
    Finish,
    RunHook,
    RunTool,
    Say,
    Suspend,
    TakeCheckpoint,
)
from vllm_agent_sdk._core.run.questions import parse_questions
from vllm_agent_sdk._core.run.state import replace
from vllm_agent_sdk.agent.model.call import ModelCall
from vllm_agent_sdk.agent.model.context import ContextMeter, summarise
from vllm_agent_sdk.agent.model.turns import TurnWriter
from vllm_agent_sdk.agent.run.asking import ask_permission, ask_user
from vllm_agent_sdk.agent.run.hook_call import hook_gone, run_hook
from vllm_agent_sdk.agent.run.paths import outside
from vllm_agent_sdk.agent.run.rewind import new_id
from vllm_agent_sdk.agent.tools.call import coerced_calls, run_tool
from vllm_agent_sdk.agent.tools.function import running_loop
from vllm_agent_sdk.agent.tools.subagent_host import Host
from vllm_agent_sdk.agent.tools.visible import hidden
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.events import (
    HookRan,
    MessageAdded,
    ModelEnded,
    ModelStarted,
    Notice,
    PermissionAsked,
    RunSuspended,
    SettingsChanged,
    StoredEvent,
    ToolEnded,
    ToolProgress,
    ToolStarted,
    TurnStarted,
    UserAsked,
)
from vllm_agent_sdk.types.hooks import HookEvent, Rewrite
from vllm_agent_sdk.types.messages import ToolCall, ToolMessage, text_of
from vllm_agent_sdk.types.permissions import Allow
from vllm_agent_sdk.types.tools import RunContext

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.run.driver import Driver

__all__ = ["Performer"]

_REASON = "a toolset shows or hides tools"
_OTHER = "the run goes on with other tools than it began with"


class Performer:
    """Performs the effects of one run."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._meter = ContextMeter(driver.world.client)
        self._offered_for = 0
        self._untold: list[StoredEvent] = []
        self._noticed: set[str] = set()
        self._written_for: tuple[str | None] | None = None

    @property
    def _writer(self) -> TurnWriter:
        """What writes the requests, as the model that is asked now wants them."""
        world, model = self._driver.world, self._driver.state.model
        if self._written_for != (model,):
            self._written_for = (model,)
            world.writer.traits = world.learnt.traits(world.client, model)
        return world.writer

    async def begin(self, effect: Effect) -> None:
        """Perform an effect that takes no time, or start one that does."""
        driver, state = self._driver, self._driver.state
        match effect:
            case BeginTurn():
                await self._begin_turn(effect)
            case CallModel():
                await self._begin_model(effect)
            case Compact(messages=count):
                traits = self._writer.traits
                driver.start(effect, summarise(driver.world.endpoint, traits, state, count))
            case RunHook(number=number, call=entry):
                driver.start(effect, self._hook_ran(number, None if entry is None else entry.call))
            case AskPermission(call=call, reason=reason):
                await driver.commit(PermissionAsked(call=call, reason=reason))
                answerer, unanswered = driver.world.can_use_tool, state.permissions.unanswered
                ctx = self._context(call)
                driver.start(effect, ask_permission(answerer, call, reason, unanswered, ctx))
            case AskUser(call=call):
                await self._ask_user(effect, call)
            case RunTool(call=call):
                await driver.commit(ToolStarted(call=call))
                if not effect.spec.deferred:
                    driver.start(effect, self._run_tool(effect))
            case _:
                await self._at_once(effect)

    async def _at_once(self, effect: Effect) -> None:
        """Perform what is nothing but its event."""
        driver = self._driver
        match effect:
            case Answer(call=call, message=message):
                await driver.commit(ToolEnded(name=call.name, message=message, executed=False))
            case Say(message=message, when=when):
                await driver.commit(MessageAdded(message=message, when=when))
            case ChangeSetting():
                await self._change(effect)
            case TakeCheckpoint():
                driver.start(effect, self._take_checkpoint())
            case Suspend():
                await driver.suspend()
            case Finish():
                await driver.finish()

    # ── a turn ───────────────────────────────────────────────────────────────────────────────────

    async def _begin_turn(self, effect: BeginTurn) -> None:
        driver, state, turn = self._driver, self._driver.state, effect.turn
        if self._offered_for != turn and self._tools_may_change():
            await driver.keep()
            driver.start(effect, self._offer(turn))
        elif self._untold:
            said, self._untold = self._untold, []
            await driver.commit(*said)
        elif self._meter.is_close(state, self._writer.traits):
            await driver.keep()
            driver.start(effect, self._measured_turn(turn))
        else:
            driver.note(TurnStarted(turn=turn))

    def _tools_may_change(self) -> bool:
        """Whether a toolset says from turn to turn, or the run was begun with other tools."""
        state, world = self._driver.state, self._driver.world
        if state.turn_mode == "plain":
            return False
        return world.specs != state.tools or any(each.conditions for each in world.offered)

    async def _offer(self, turn: int) -> StoredEvent:
        """Find out what the model has in the coming turn, and say what changes."""
        state, world = self._driver.state, self._driver.world
        ctx = self._context(ToolCall("", ""), turn)
        away, wrong = await hidden(world.offered, ctx, state.started.limits.tool_timeout_s)
        self._offered_for = turn
        self._untold = [Notice(code="toolset", text=text) for text in wrong]
        tools = [spec for spec in world.specs if spec.name not in away]
        if tuple(tools) != state.tools:
            old, new = ([spec.name for spec in specs] for specs in (state.tools, tools))
            reason = _REASON if any(each.conditions for each in world.offered) else _OTHER
            self._untold.append(
                SettingsChanged(what="tools", old=old, new=new, reason=reason, tools=tools)
            )
        return self._untold.pop(0) if self._untold else TurnStarted(turn=turn)

    # ── the model ────────────────────────────────────────────────────────────────────────────────

    async def _measured_turn(self, turn: int) -> StoredEvent:
        found = await self._meter.measure(self._writer, self._driver.state)
        return TurnStarted(
            turn=turn, context_tokens=found.tokens, exact=found.exact, window=found.window
        )

    async def _begin_model(self, effect: CallModel) -> None:
        driver, state = self._driver, self._driver.state
        try:
            params = self._meter.clamped(state, self._writer.params(state))
            call = ModelCall(
                driver.world.endpoint,
                params,
                state=state,
                writer=self._writer,
                taken=driver.ids,
                publish=driver.delta if driver.watched else None,
                output=driver.world.output,
                streaming=driver.world.streaming,
            )
            prefix = self._writer.prefix(state, params)
            asked = ModelStarted(turn=state.turn, request=call.request(), prefix=prefix)
        except UsageError as error:
            await driver.commit(ModelEnded(turn=state.turn, error=driver.misused(error)))
            return
        await driver.commit(asked)
        for code, text in call.notices:
            if code not in self._noticed:
                self._noticed.add(code)
                await driver.commit(Notice(code=code, text=text))
        driver.start(effect, self._ask_model(call), call)

    async def _ask_model(self, call: ModelCall) -> StoredEvent:
        told = len(call.notices)
        try:
            ended = await call.run()
        except UsageError as error:  # the run ends, and the caller is told by an exception
            return ModelEnded(turn=self._driver.state.turn, error=self._driver.misused(error))
        for code, text in call.notices[told:]:
            kept = self._driver.tell(Notice(code=code, text=text))
            kept.add_done_callback(lambda done: done.cancelled() or done.exception())
        if call.error is not None:
            self._driver.failed(call.error)
        if ended.message is not None and ended.message.tool_calls:
            message, repairs = await coerced_calls(ended.message, self._driver.world.tools)
            if repairs:
                ended = replace(ended, message=message, repairs=repairs)
        return self._judged(ended)

    def _judged(self, ended: ModelEnded) -> ModelEnded:
        """Say of each call whether it would leave the permitted folders."""
        if not self._driver.state.permissions.directories or ended.message is None:
            return ended
        found = {
            call.id: paths
            for call in ended.message.tool_calls
            if (paths := self._outside(call, call.arguments or {}))
        }
        return ended if not found else replace(ended, outside=found)

    def _outside(self, call: ToolCall, arguments: dict[str, Any]) -> tuple[str, ...]:
        state = self._driver.state
        spec = state.spec(call.name)
        if spec is None:
            return ()
        return outside(spec, arguments, state.permissions.directories)

    async def _change(self, effect: ChangeSetting) -> None:
        driver, change = self._driver, effect.change
        old = driver.state.model if change.what == "model" else driver.state.turn_mode
        dialect = driver.state.dialect
        changed = SettingsChanged(what=change.what, old=old, new=change.new, reason=change.reason)
        await driver.commit(changed)
        if change.what == "turn_mode":
            driver.world.learnt.moved(driver.world.client, change.new, change.reason)
        if driver.state.dialect != dialect and len(driver.state.history) > 1:
            text = (
                f"The turns are {change.new} from here on ({change.reason}): the whole history is "
                "written anew, and the server's prefix cache does not know it."
            )
            await driver.commit(Notice(code="dialect", text=text))

    async def _take_checkpoint(self) -> StoredEvent:
        files, state = self._driver.world.files, self._driver.state
        if files is None:
            raise AssertionError("a run without files is to keep them")
        taken = await files.take(new_id(state))
        if taken.error is not None:
            text = f"The files were not kept: {taken.error.message} The run goes on."
            self._driver.tell(Notice(code="checkpoint", text=text))
        return taken

    # ── hooks ────────────────────────────────────────────────────────────────────────────────────

    async def _hook_ran(
        self, number: int, call: ToolCall | None, text: str | None = None
    ) -> HookRan:
        world, state = self._driver.world, self._driver.state
        spec = state.hook_spec(number)
        matcher = world.hook(number, spec)
        if matcher is None:
            outputs, error = hook_gone(spec)
        else:
            event = self._hook_event(spec.event, call, text)
            outputs, error = await run_hook(matcher, spec, event)
        paths: tuple[str, ...] = ()
        for output in outputs:
            if call is not None and isinstance(output, (Rewrite, Allow)) and output.input:
                paths = self._outside(call, output.input)
        return HookRan(
            hook=spec.name,
            event=spec.event,
            call_id=None if call is None else call.id,
            outputs=outputs,
            error=error,
            outside=paths,
        )

    def _hook_event(self, event: str, call: ToolCall | None, text: str | None) -> HookEvent:
        world, state = self._driver.world, self._driver.state
        entry = None if call is None else state.call(call.id)
        result = None if entry is None or entry.result is None else entry.result
        failed = result is not None and entry is not None and entry.failed
        said: str | None = None
        if event == "user_prompt_submit":
            said = text_of(state.prompts[0].content)
        elif event == "stop" and len(state.history):
            said = state.history.since(len(state.history) - 1)[0].text
        return HookEvent(
            event=event,
            session_id=world.session_id,
            run_id=world.run_id,
            agent_id=world.agent_id,
            tool=None if call is None else call.name,
            call_id=None if call is None else call.id,
            input=None if call is None else call.arguments,
            output=None if result is None or failed else result.content,
            error=result.text if result is not None and failed else text,
            prompt=said,
            deps=world.deps,
        )

    async def notify(self, event: Notice | RunSuspended) -> None:
        """Run the notification hooks; what they answer changes nothing."""
        driver = self._driver
        code = event.code if isinstance(event, Notice) else "suspended"
        text = event.text if isinstance(event, Notice) else "The run waits for an answer."
        for number in driver.state.hooks("notification", code):
            await driver.commit(await self._hook_ran(number, None, text))

    # ── people and tools ─────────────────────────────────────────────────────────────────────────

    async def _ask_user(self, effect: AskUser, call: ToolCall) -> None:
        driver = self._driver
        try:
            questions = parse_questions(call.arguments or {})
        except UsageError as error:
            message = ToolMessage(call.id, str(error), is_error=True)
            await driver.commit(ToolEnded(name=call.name, message=message, executed=False))
            return
        shown = [question.wire() for question in questions]
        await driver.commit(UserAsked(call_id=call.id, questions=shown))
        ctx = self._context(call)
        driver.start(effect, ask_user(driver.world.ask_user, call, questions, ctx))

    async def _run_tool(self, effect: RunTool) -> StoredEvent:
        call, spec = effect.call, effect.spec
        world, limits = self._driver.world, self._driver.state.started.limits
        tool = world.tools.get(call.name)
        if tool is None:
            text = f"There is no tool {call.name!r} any more: it was not run."
            message = ToolMessage(call.id, text, is_error=True)
            return ToolEnded(name=call.name, message=message, executed=False)
        entry = self._driver.state.call(call.id)
        repairs = () if entry is None else entry.repairs
        limit = spec.timeout
        if limit is None and spec.kind != "agent":  # an agent has limits of its own
            limit = limits.tool_timeout_s
        if not spec.background and spec.detach_after is None:
            return await run_tool(tool, call, self._context(call), limit, repairs)
        own = spec.timeout  # a task in the background has as long as it needs, unless it says so
        task = asyncio.create_task(run_tool(tool, call, self._context(call), own, repairs))
        if not spec.background:
            try:
                done, _ = await asyncio.wait({task}, timeout=spec.detach_after)
            except asyncio.CancelledError:
                task.cancel()
                raise
            if done:
                return task.result()
        task_id = f"task_{call.id}"
        world.background.keep(task_id, call, task, spec.threaded)
        text = (
            f"{call.name} goes on in the background as {task_id}; a message will tell its result."
        )
        return ToolEnded(name=call.name, message=ToolMessage(call.id, text), task=task_id)

    def _context(self, call: ToolCall, turn: int | None = None) -> RunContext[Any]:
        driver, world = self._driver, self._driver.world
        loop = running_loop()

        def report(message: str, fraction: float | None) -> None:
            progress = ToolProgress(call_id=call.id, message=message, fraction=fraction)
            if loop is None:
                driver.delta(progress)
            else:  # a sync tool reports from its thread
                loop.call_soon_threadsafe(driver.delta, progress)

        return RunContext(
            deps=world.deps,
            call=call,
            run_id=world.run_id,
            agent_id=world.agent_id,
            session_id=world.session_id,
            turn=driver.state.turn if turn is None else turn,
            report=report,
            host=Host(driver),
        )
