"""How a run begins: what it acts on, what is learnt of its server, and its first events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm_agent_sdk._core.run.questions import QUESTION_TOOL
from vllm_agent_sdk._core.run.state import State
from vllm_agent_sdk._ids import random_hex
from vllm_agent_sdk.agent.model.mode import Choice, Learnt, choose_mode
from vllm_agent_sdk.agent.model.port import Endpoint, endpoint_of
from vllm_agent_sdk.agent.run.rewind import SessionFiles
from vllm_agent_sdk.agent.run.world import World
from vllm_agent_sdk.agent.tools.background import Background
from vllm_agent_sdk.agent.tools.toolset import Offered
from vllm_agent_sdk.errors import UsageError, VLLMError
from vllm_agent_sdk.sessions.store import EventLog, MemoryLog
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.events import (
    MessageAdded,
    ModelEnded,
    Notice,
    RunStarted,
    SettingsChanged,
    StoredEvent,
    TurnStarted,
)
from vllm_agent_sdk.types.hooks import HookSpec, Matcher
from vllm_agent_sdk.types.messages import Message, UserMessage
from vllm_agent_sdk.types.permissions import PermissionRules
from vllm_agent_sdk.types.protocols import ChatModel, Tool
from vllm_agent_sdk.types.tools import ToolSpec

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.definition import Agent
    from vllm_agent_sdk.agent.run.driver import Driver

#: What of a run's beginning are options of its agent.
_OPTIONS = (
    "instructions", "limits", "sampling", "tool_choice", "examples", "fallback_model", "output",
    "permissions", "hooks", "context", "prices", "checkpoints",
)  # fmt: skip

__all__ = ["begun", "make_world", "opening", "run_started", "specs"]


def make_world(
    agent: Agent[Any, Any],
    client: ChatModel,
    *,
    deps: Any,
    learnt: Learnt,
    session_id: str | None = None,
    log: EventLog | None = None,
    background: Background | None = None,
    files: SessionFiles | None = None,
) -> World:
    """Give what a run of the agent acts on."""
    standing = _standing(agent)
    return World(
        client=client,
        endpoint=standing.endpoint_of(client, agent.api),
        tools=standing.tools,
        offered=standing.offered,
        specs=standing.specs,
        deps=deps,
        log=MemoryLog() if log is None else log,
        learnt=learnt,
        run_id=random_hex(16),
        agent_id=agent.name or "main",
        session_id=session_id,
        hooks=standing.hooks,
        hook_specs=standing.hook_specs,
        can_use_tool=agent.permissions.can_use_tool,
        ask_user=agent.ask_user,
        output=agent.output_type,
        streaming=agent.streaming,
        background=Background() if background is None else background,
        files=files,
    )


@dataclass(slots=True)
class _Standing:
    """What of a definition is the same for all its runs."""

    tools: dict[str, Tool[Any]]
    offered: tuple[Offered, ...]
    specs: tuple[ToolSpec, ...]
    hooks: tuple[Matcher, ...]
    hook_specs: tuple[HookSpec, ...]
    sampling: dict[str, Any]
    permissions: PermissionRules
    endpoint: tuple[ChatModel, Endpoint] | None = None

    def endpoint_of(self, client: ChatModel, api: str) -> Endpoint:
        """Give what takes the requests to a client; for the same one the same."""
        known = self.endpoint
        if known is None or known[0] is not client:
            known = self.endpoint = (client, endpoint_of(client, api))
        return known[1]


def _standing(agent: Agent[Any, Any]) -> _Standing:
    known: _Standing | None = vars(agent).get("_standing")
    if known is None:
        hooks = agent.hooks.matchers()
        sampling = agent.sampling.wire()
        if agent.sampling.extra_body is not None:
            sampling["extra_body"] = agent.sampling.extra_body
        known = _Standing(
            tools={name: each.tool for name, each in agent.offered.items()},
            offered=tuple(agent.offered.values()),
            specs=tuple(specs(agent)),
            hooks=tuple(matcher for _, matcher in hooks),
            hook_specs=tuple(spec for spec, _ in hooks),
            sampling=sampling,
            permissions=agent.permissions.rules(),
        )
        vars(agent)["_standing"] = known
    return known


def specs(agent: Agent[Any, Any]) -> list[ToolSpec]:
    """Give the specifications of what the model can call."""
    own = [each.tool.spec for each in agent.offered.values()]
    return own if agent.ask_user is None else [*own, QUESTION_TOOL]


async def opening(
    agent: Agent[Any, Any],
    driver: Driver,
    message: UserMessage,
    *,
    history: list[Message],
    queued: bool = False,
) -> list[StoredEvent]:
    """Learn what is to be known of the server, and give the run's first events.

    A server that fails is how the run ends, not how the call does.

    Args:
        agent: The agent.
        driver: The run's driver.
        message: The prompt.
        history: What was said before and is not in the log.
        queued: True if the prompt has waited for the run.

    Raises:
        UsageError: The call cannot work as it is.
    """
    world = driver.world
    said = MessageAdded(message=message, queued=queued)
    try:
        started, choice = await begun(agent, world, history)
    except UsageError:
        raise
    except VLLMError as error:
        unknown = Choice("plain", "the server could not be asked")
        started = run_started(agent, world, agent.model, _offered(agent, world), unknown, history)
        failed = ModelEnded(turn=1, error=driver.failed(error))
        return [started, said, TurnStarted(turn=1), failed]
    notices = [] if choice.notice is None else [Notice(code="turn_mode", text=choice.notice)]
    return [started, said, *notices]


async def begun(
    agent: Agent[Any, Any], world: World, history: list[Message]
) -> tuple[RunStarted, Choice]:
    """Learn what is to be known of the server; give the event that begins a run, and its mode.

    Raises:
        UsageError: The agent cannot work with this server.
        VLLMError: The server could not be asked.
    """
    tools = _offered(agent, world)
    model = await world.client.resolve_model(agent.model)
    typed = world.output is not None
    choice = await choose_mode(agent.turn_mode, tools, world.client, model, world.learnt, typed)
    if agent.sampling.thinking is not None:
        await world.learnt.profile(world.client)  # it decides what is sent for it
    return run_started(agent, world, model, tools, choice, history), choice


def _offered(agent: Agent[Any, Any], world: World) -> list[ToolSpec]:
    return [] if agent.turn_mode == "plain" else list(world.specs)


def run_started(
    agent: Agent[Any, Any],
    world: World,
    model: str | None,
    tools: list[ToolSpec],
    choice: Choice,
    history: list[Message],
) -> RunStarted:
    """Give the event that says everything that decides how the run goes."""
    standing = _standing(agent)
    return RunStarted(
        agent=agent.name,
        model=model,
        instructions=agent.instructions,
        tools=tools,
        limits=agent.limits,
        sampling=dict(standing.sampling),
        tool_choice=agent.tool_choice if tools else None,
        turn_mode_asked=agent.turn_mode,
        turn_mode=choice.mode,
        turn_mode_reason=choice.reason,
        dialect=choice.dialect,
        examples=list(agent.examples),
        history=history,
        session_id=world.session_id,
        fallback_model=agent.fallback_model,
        output=None if world.output is None else world.output.schema,
        permissions=standing.permissions,
        hooks=list(standing.hook_specs),
        context=agent.context,
        window=choice.window or world.learnt.traits(world.client, model).window,
        prices=agent.priced(),
        checkpoints=None
        if agent.checkpoints is None or world.files is None
        else agent.checkpoints.when,
    )


def other_options(agent: Agent[Any, Any], world: World, state: State) -> list[StoredEvent]:
    """Say what an agent that takes a run up has other than the one that began it; else nothing."""
    started = state.started
    now = run_started(agent, world, started.model, started.tools, Choice("plain", ""), [])
    # As they are read from a log: with lists where there were tuples.
    old, new = (
        {name: _codec.decode(_codec.encode(getattr(each, name))) for name in _OPTIONS}
        for each in (started, now)
    )
    names = [name for name in _OPTIONS if old[name] != new[name]]
    if now.permissions == state.permissions:  # they were changed while the run was active
        names = [name for name in names if name != "permissions"]
    if not names:
        return []
    changes = {name: getattr(now, name) for name in names}
    return [
        SettingsChanged(
            what="options",
            old={name: old[name] for name in names},
            new={name: new[name] for name in names},
            reason="the run goes on with other options than it began with",
            options=_codec.replace(started, history=[], **changes),
        )
    ]
