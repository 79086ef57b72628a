"""What a run acts on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vllm_agent_sdk._core.schema.output import OutputType
from vllm_agent_sdk.agent.model.mode import Learnt
from vllm_agent_sdk.agent.model.port import Endpoint
from vllm_agent_sdk.agent.model.turns import TurnWriter
from vllm_agent_sdk.agent.run.rewind import SessionFiles
from vllm_agent_sdk.agent.tools.background import Background
from vllm_agent_sdk.agent.tools.toolset import Offered
from vllm_agent_sdk.sessions.store import EventLog
from vllm_agent_sdk.types.hooks import HookSpec, Matcher
from vllm_agent_sdk.types.permissions import CanUseTool
from vllm_agent_sdk.types.protocols import ChatModel, Tool
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["World"]


@dataclass(frozen=True, slots=True)
class World:
    """What a run acts on.

    Attributes:
        client: The model.
        endpoint: What takes the requests to it.
        tools: The tools by name.
        offered: The same, with the toolsets that may hide them.
        specs: What the model can call, in the order in which it is told of them.
        deps: What tools get as `ctx.deps`.
        log: Where events are kept.
        learnt: What is known of servers; it is added to.
        run_id: The run's id.
        agent_id: The agent's id within the run.
        session_id: The session's id, if there is one.
        hooks: The hooks, in the order of `hook_specs`.
        hook_specs: What is data of them; a run that was taken up may have begun with others.
        can_use_tool: Who is asked for permission.
        ask_user: Who answers the model's questions.
        output: The type of the output; None: text.
        streaming: Whether the model's replies are streamed.
        background: Owner of the tasks that outlive their call.
        files: The files of the session's checkpoints, if it has any.
        writer: What writes the requests; a session's runs share one.
    """

    client: ChatModel
    endpoint: Endpoint
    tools: dict[str, Tool[Any]]
    deps: Any
    log: EventLog
    learnt: Learnt
    run_id: str
    agent_id: str = "main"
    session_id: str | None = None
    hooks: tuple[Matcher, ...] = ()
    hook_specs: tuple[HookSpec, ...] = ()
    can_use_tool: CanUseTool | None = None
    ask_user: Callable[..., Any] | None = None
    output: OutputType | None = None
    streaming: bool = True
    background: Background = field(default_factory=Background)
    files: SessionFiles | None = None
    writer: TurnWriter = field(default_factory=TurnWriter)
    offered: tuple[Offered, ...] = ()
    specs: tuple[ToolSpec, ...] = ()

    def hook(self, number: int, spec: HookSpec) -> Matcher | None:
        """Give the hook that a run has under a number; `None` if the agent has it no more."""
        if number < len(self.hook_specs) and self.hook_specs[number] == spec:
            return self.hooks[number]
        return next(
            (m for s, m in zip(self.hook_specs, self.hooks, strict=True) if s == spec), None
        )
