"""What tools of ours use of the run that calls them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from vllm_agent_sdk._core.run.read_back import Whole
from vllm_agent_sdk._core.run.state import State
from vllm_agent_sdk.types.events import StoredEvent

if TYPE_CHECKING:
    from vllm_agent_sdk.agent.definition import Agent
    from vllm_agent_sdk.agent.run.driver import Driver
    from vllm_agent_sdk.agent.run.world import World
    from vllm_agent_sdk.types.results import RunResult
    from vllm_agent_sdk.types.tools import RunContext

__all__ = ["Host", "Play"]

#: Gives the result of an agent's run, from the agent, its id, the call and the prompt.
Play: TypeAlias = "Callable[[Agent[Any, Any], str, RunContext[Any], str], RunResult[Any]]"


@dataclass(frozen=True, slots=True)
class Host:
    """The run that calls a tool (`RunContext.host`): for subagents, and what reads on.

    Attributes:
        driver: What drives it.
        play: Plays the runs of its subagents, where they are scripted.
    """

    driver: Driver
    play: Play | None = None

    @property
    def world(self) -> World:
        """What the run acts on."""
        return self.driver.world

    @property
    def state(self) -> State:
        """Where the run stands."""
        return self.driver.state

    def outputs(self) -> list[Whole]:
        """Give the results of which only the beginning was shown."""
        return self.driver.state.outputs.since(0)

    def tell(self, event: StoredEvent) -> None:
        """Let the run keep an event; if it has ended, the session's next one does."""
        self.driver.world.background.tell(event)

    def show(self, event: Any) -> None:
        """Show an event of a subagent as it is."""
        self.driver.publish(event)
