"""A scripted run, step by step: the loop of real runs, with nothing to wait for."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from vllm_agent_sdk._core.run.effects import CallModel, Compact, Effect, RunTool, effects
from vllm_agent_sdk._core.run.outcome import outcome
from vllm_agent_sdk._core.run.state import ANSWER_TOOL, Phase, State
from vllm_agent_sdk._core.schema.check import load
from vllm_agent_sdk.agent.model.call import with_unique_ids
from vllm_agent_sdk.agent.model.mode import Choice, Learnt
from vllm_agent_sdk.agent.run.driver import Driver
from vllm_agent_sdk.agent.run.opening import make_world, run_started, specs
from vllm_agent_sdk.agent.run.perform import Performer
from vllm_agent_sdk.agent.run.world import World
from vllm_agent_sdk.agent.tools.call import coerced_calls
from vllm_agent_sdk.agent.tools.subagent_host import Host
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.testing.scripted_answers import AgentScript, Answers, changed
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.events import (
    MessageAdded,
    ModelEnded,
    ModelStarted,
    StoredEvent,
    ToolEnded,
    stamp,
)
from vllm_agent_sdk.types.hooks import Matcher
from vllm_agent_sdk.types.messages import AssistantMessage, Message, ToolCall, UserMessage
from vllm_agent_sdk.types.protocols import Tool
from vllm_agent_sdk.types.results import RunResult
from vllm_agent_sdk.types.tools import RunContext, ToolOutput, ToolSpec

if TYPE_CHECKING:
    from vllm_agent_sdk import Agent

__all__ = ["Played", "played"]

_NO_LOOP = "no running event loop"


class _ScriptError(BaseException):
    """The script cannot be played; no handler of what callbacks raise takes it for theirs."""


class _NoServer:
    """Stands where the server would (`ChatModel`); the script speaks before it is asked."""

    model = None
    base_url = "scripted"

    @property
    def chat(self) -> _NoServer:
        return self

    completions = chat

    async def create(self, **_params: Any) -> Any:
        raise AssertionError("a scripted run asks nobody")

    stream = create

    async def resolve_model(self, model: str | None = None) -> str:
        return model or "scripted"


class Played(NamedTuple):
    """A run that was played; the runs of its subagents, in the order in which they ended."""

    result: RunResult[Any]
    events: list[StoredEvent]
    subagents: list[Played]


def played(
    agent: Agent[Any, Any],
    script: Answers,
    message: UserMessage,
    history: list[Message],
    results: Mapping[str, Any],
    deps: Any,
) -> Played:
    """Play a run to its end.

    Raises:
        UsageError: The script does not fit the run, or something waits.
    """
    load()
    world = dataclasses.replace(_world(agent, results, deps), run_id="scripted")
    try:
        run = _played(agent, world, script, results, message, history)
    except _ScriptError as problem:
        raise UsageError(str(problem)) from None
    script.close(run.result.stop_reason, run.result.turns)
    return run


def _played(
    agent: Agent[Any, Any],
    world: World,
    script: Answers,
    results: Mapping[str, Any],
    message: UserMessage,
    history: list[Message],
) -> Played:
    scripts = {name: given for name, given in results.items() if isinstance(given, AgentScript)}
    driver = _ScriptedDriver(world, script, scripts)
    tools = [] if agent.turn_mode == "plain" else specs(agent)
    mode = agent.turn_mode
    if mode == "auto":
        mode = "plain" if not tools else "native" if agent.output_type is None else "required"
    choice = Choice(mode, "the run is scripted")
    started = run_started(agent, world, agent.model or "scripted", tools, choice, history)
    result = driver.play([started, MessageAdded(message=message)])
    return Played(result, driver.events, driver.subagents)


def _world(agent: Agent[Any, Any], results: Mapping[str, Any], deps: Any) -> World:
    """Give what the run acts on: no server, and nobody who waits."""
    world = make_world(agent, cast("Any", _NoServer()), deps=deps, learnt=Learnt())
    unknown = sorted(set(results) - set(world.tools))
    if unknown:
        names = ", ".join(world.tools) or "none"
        raise UsageError(f"results= names {unknown[0]!r}; the agent's tools are: {names}.")
    tools = dict(world.tools)
    for name, given in results.items():
        if not isinstance(given, AgentScript):
            tools[name] = _Given(tools[name], given)
        elif tools[name].spec.kind != "agent":
            raise UsageError(f"results[{name!r}] is a script for an agent, and {name} is none.")
    return dataclasses.replace(
        world,
        tools=tools,
        hooks=tuple(_plain_hook(each) for each in world.hooks),
        can_use_tool=_plain(world.can_use_tool, "can_use_tool"),
        ask_user=_plain(world.ask_user, "ask_user"),
    )


def _plain(fn: Any, name: str) -> Any:
    """Give a callback as one that never waits."""
    if fn is None:
        return None

    def call(*args: Any) -> Any:
        return _at_once(fn(*args), name)

    return call


def _plain_hook(matcher: Matcher) -> Matcher:
    name = getattr(matcher.fn, "__name__", type(matcher.fn).__name__)
    fn = _plain(matcher.fn, f"The hook {name}")
    return Matcher(matcher.pattern, fn, matcher.timeout, cast("Any", matcher.on_failure))


def _at_once(answer: Any, name: str) -> Any:
    """Give what was returned; what is awaitable must not wait for anything."""
    if not inspect.isawaitable(answer):
        return answer
    steps = answer.__await__()
    try:
        next(steps)
    except StopIteration as end:
        return end.value
    except RuntimeError as error:
        if _NO_LOOP not in str(error):
            raise
    else:
        steps.close()
    raise _waits(name)


def _waits(name: str) -> _ScriptError:
    return _ScriptError(f"{name} waits for something, and a scripted run has no event loop.")


class _ScriptedDriver(Driver):
    """Performs the effects of a run in the order in which they are wanted, one at a time."""

    def __init__(
        self, world: World, script: Answers, agent_scripts: Mapping[str, AgentScript]
    ) -> None:
        super().__init__(world, self._published)
        self.events: list[StoredEvent] = []
        self.subagents: list[Played] = []
        self.problem: BaseException | None = None
        self.agent_scripts = agent_scripts
        self._said_by: dict[str, Answers] = {}
        self._script = script
        self._performer = _ScriptedPerformer(self, script)
        self._work: dict[str, tuple[Coroutine[Any, Any, StoredEvent], str]] = {}

    def play(self, opening: list[StoredEvent]) -> RunResult[Any]:
        """Go on until the run ends or stands still."""
        self.world.background.listen(lambda event: _at_once(self.commit(event), "The run"))
        _at_once(self.commit(*opening), "The run")
        while self.state.phase not in {Phase.DONE, Phase.SUSPENDED}:
            self._play_step()
        for name in self.agent_scripts:
            if name not in self._said_by:
                raise _ScriptError(f"results[{name!r}] is a script, and {name} was not called.")
            self._said_by[name].close(self._result.stop_reason, self.state.turn)
        return self._result

    def play_agent(
        self, agent: Agent[Any, Any], agent_id: str, ctx: RunContext[Any], prompt: str
    ) -> RunResult[Any]:
        """Play the run of a subagent (`Host.play`)."""
        name = ctx.call.name
        script, results = self.agent_scripts[name], self.agent_scripts[name].results or {}
        try:
            if name not in self._said_by:
                said = Answers(script.answers, agent.output_type, f"The script of {name}")
                self._said_by[name] = said
            world = dataclasses.replace(
                _world(agent, results, ctx.deps), run_id=ctx.run_id, agent_id=agent_id
            )
            run = _played(agent, world, self._said_by[name], results, UserMessage(prompt), [])
        except (UsageError, _ScriptError) as problem:
            self.problem = problem
            raise
        self.subagents.append(run)
        return run.result

    def _play_step(self) -> None:
        wanted = effects(self.state)
        ids = {effect.id for effect in wanted}
        for key in [key for key in self._work if key not in ids]:
            self._work.pop(key)[0].close()
        for effect in wanted:
            if effect.id not in self._work:
                _at_once(self._performer.begin(effect), "The run")
                return
        if not self._work:
            raise AssertionError(f"a scripted run waits for nothing in phase {self.state.phase}")
        work, name = self._work.pop(next(iter(self._work)))
        _at_once(self.commit(_at_once(work, name)), "The run")

    def start(
        self, effect: Effect, work: Coroutine[Any, Any, StoredEvent], model: object = None
    ) -> None:
        """Keep the work of an effect until its turn comes."""
        del model
        name = f"The tool {effect.call.name}" if isinstance(effect, RunTool) else "The run"
        self._work[effect.id] = (work, name)

    def _published(self, event: Any) -> None:
        if isinstance(event, StoredEvent) and event.seq is not None:
            stamp(event, self.world.run_id, self.world.agent_id, 0.0, event.seq)
            self.events.append(event)

    def _outcome(self, state: State | None = None) -> RunResult[Any]:
        result = outcome(state or self.state, run_id=self.world.run_id, duration_s=0.0)
        output = self.world.output
        if output is not None and result.stop_reason == "end_turn":
            vars(result)["_output"] = output.value_of_json(bytes(result.output_json))
        return result


class _ScriptedPerformer(Performer):
    """Lets the script speak for the model; all else is performed as in any run."""

    def __init__(self, driver: _ScriptedDriver, script: Answers) -> None:
        super().__init__(driver)
        self._scripted = driver
        self._script = script

    async def begin(self, effect: Effect) -> None:
        match effect:
            case Compact(messages=count):
                self._driver.start(effect, self._summary(count))
            case RunTool(call=call, spec=spec) if spec.background or spec.detach_after is not None:
                at_once = changed(spec, background=False, detach_after=None)
                await super().begin(RunTool(call, at_once))
            case _:
                await super().begin(effect)

    async def _begin_model(self, effect: CallModel) -> None:
        await self._driver.commit(ModelStarted(turn=self._driver.state.turn))
        self._driver.start(effect, self._said(self._driver.state))

    async def _said(self, state: State) -> ModelEnded:
        constrained = "response_format" in self._writer.params(state)
        ended = self._script.next_turn(state.turn, state.turn_mode, constrained)
        if self._script.failure is not None:
            self._driver.failed(self._script.failure)
        if ended.message is not None and ended.message.tool_calls:
            message = with_unique_ids(_marked(ended.message, state), self._driver.ids, state.turn)
            message, repairs = await coerced_calls(message, self._driver.world.tools)
            ended = changed(ended, message=message, repairs=repairs)
        return self._judged(ended)

    async def _summary(self, messages: int) -> StoredEvent:
        return self._script.summary(messages)

    async def _run_tool(self, effect: RunTool) -> StoredEvent:
        name = effect.call.name
        tool = self._driver.world.tools.get(name)
        given = isinstance(tool, _Given) or name in self._scripted.agent_scripts
        if effect.spec.kind == "agent" and not given:
            raise _ScriptError(
                f"{name} is an agent: results={{{name!r}: …}} says what it gives, or has the "
                "AgentScript of what its model says."
            )
        ended = await super()._run_tool(effect)
        problem = tool.problem if isinstance(tool, _Given) else self._scripted.problem
        if problem is not None:
            raise problem
        if isinstance(ended, ToolEnded) and ended.message.text.endswith(_NO_LOOP):
            raise _waits(f"The tool {effect.call.name}")
        return changed(ended, duration_s=0.0)

    def _context(self, call: ToolCall, turn: int | None = None) -> RunContext[Any]:
        host = Host(self._driver, self._scripted.play_agent)
        return dataclasses.replace(super()._context(call, turn), host=host)


def _marked(message: AssistantMessage, state: State) -> AssistantMessage:
    """Mark the calls of tools that the model does not have."""
    offered = {tool.name for tool in state.tools} if state.tools_offered else set[str]()
    if state.turn_mode == "required":
        offered.add(ANSWER_TOOL)
    blocks = [
        changed(block, unexpected=True)
        if isinstance(block, ToolCall) and block.name not in offered
        else block
        for block in message.content
    ]
    return AssistantMessage(blocks, verbatim=message.verbatim)


class _Given:
    """A tool that gives what the script says, instead of being run.

    Attributes:
        problem: Why that cannot be given.
    """

    def __init__(self, tool: Tool[Any], given: Any) -> None:
        self._given = given
        self._spec = tool.spec
        self.problem: _ScriptError | None = None
        if (coerced := getattr(tool, "coerced", None)) is not None:
            self.coerced = coerced

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    async def invoke(self, arguments: dict[str, Any], ctx: RunContext[Any]) -> ToolOutput:
        del ctx
        try:
            return self._output(arguments, f"results[{self._spec.name!r}]")
        except _ScriptError as problem:
            self.problem = problem
            raise

    def _output(self, arguments: dict[str, Any], where: str) -> ToolOutput:
        given = self._given
        if inspect.isfunction(given) or inspect.ismethod(given):
            given = _at_once(given(**arguments), where)
        if isinstance(given, Exception):
            raise given
        if isinstance(given, (ToolOutput, str)):
            return given if isinstance(given, ToolOutput) else ToolOutput(given)
        try:
            return ToolOutput(_codec.encode_checked(given).decode())
        except UsageError as error:
            raise _ScriptError(f"{where} gives no JSON: {error}") from error
