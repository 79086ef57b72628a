"""Plays a run by hand: folds events as the driver does, and keeps the log."""

from __future__ import annotations

from vllm_agent_sdk._core.run.effects import Answer, BeginTurn, CallModel, Finish, effects
from vllm_agent_sdk._core.run.outcome import outcome
from vllm_agent_sdk._core.run.run import evolve
from vllm_agent_sdk._core.run.state import State
from vllm_agent_sdk.types.events import (
    MessageAdded,
    ModelEnded,
    ModelStarted,
    RunEnded,
    RunStarted,
    StoredEvent,
    ToolEnded,
    ToolStarted,
    TurnStarted,
)
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vllm_agent_sdk.types.options import Limits
from vllm_agent_sdk.types.results import RunResult, Usage
from vllm_agent_sdk.types.tools import ToolSpec

TOOLS = [
    ToolSpec(name="get"),
    ToolSpec(name="look", read_only=True),
    ToolSpec(name="alone", serial=True),
    ToolSpec(name="wipe", destructive=True),
]


def call(name: str = "get", arguments: str = "{}", id: str = "c1") -> ToolCall:
    return ToolCall.from_text(id, name, arguments)


def said(*blocks: ToolCall | str, **facts: object) -> ModelEnded:
    content = [TextBlock(block) if isinstance(block, str) else block for block in blocks]
    usage = facts.pop("usage", Usage(10, 5, requests=1))
    return ModelEnded(1, message=AssistantMessage(content), usage=usage, **facts)  # type: ignore[arg-type]


class Play:
    """Folds events and keeps the log, as the driver does."""

    def __init__(self, limits: Limits | None = None, **started: object) -> None:
        self.log: list[StoredEvent] = []
        self.state = State()
        start = RunStarted(tools=TOOLS, limits=limits or Limits(), **started)  # type: ignore[arg-type]
        self.add(start, MessageAdded(UserMessage("hi")))

    def add(self, *events: StoredEvent) -> Play:
        for event in events:
            self.state = evolve(self.state, event)
            self.log.append(event)
        return self

    def turn(self, ended: ModelEnded) -> Play:
        """Begin the next turn and let the model say something."""
        self.begin_turn()
        return self.add(ended)

    def begin_turn(self) -> Play:
        (begin,) = effects(self.state)
        assert isinstance(begin, BeginTurn)
        self.add(TurnStarted(begin.turn))
        (model,) = effects(self.state)
        assert isinstance(model, CallModel), model
        return self.add(ModelStarted(model.turn))

    def answer_all(self) -> Play:
        """Answer what wants an answer, until nothing does."""
        while True:
            answers = [effect for effect in effects(self.state) if isinstance(effect, Answer)]
            if not answers:
                return self
            for effect in answers[:1]:
                self.add(ToolEnded(effect.call.name, effect.message, executed=False))

    def run_tool(self, id: str = "c1", name: str = "get", **facts: object) -> Play:
        self.add(ToolStarted(call(name, id=id)))
        return self.add(ToolEnded(name, ToolMessage(id, "ok"), **facts))  # type: ignore[arg-type]

    def ids(self) -> list[str]:
        return [effect.id for effect in effects(self.state)]

    def result(self) -> RunResult[object]:
        return outcome(self.state, run_id="r", duration_s=1.0)

    def finish(self) -> RunResult[object]:
        assert effects(self.state) == (Finish(),)
        result = self.result()
        self.add(RunEnded(result=result))
        assert effects(self.state) == ()
        return result
