"""Runs played from a script: no server, no event loop, no clock."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.testing.scripted_answers import AgentScript, Answers, ScriptAnswer
from vllm_agent_sdk.types.events import StoredEvent
from vllm_agent_sdk.types.messages import Message, Prompt, SystemMessage, as_user_message
from vllm_agent_sdk.types.results import RunResult

if TYPE_CHECKING:
    from vllm_agent_sdk import Agent
    from vllm_agent_sdk.testing.scripted_play import Played

__all__ = ["AgentScript", "ScriptAnswer", "ScriptedRun", "scripted_run"]

T = TypeVar("T", default=str)


@dataclass(frozen=True)
class ScriptedRun(Generic[T]):
    """What came of a script.

    Attributes:
        result: The run's result; its times are 0.
        events: What a store would have kept, in its order: numbered from 1, without deltas.
        subagents: The runs of subagents that an `AgentScript` spoke for, in the order in which they
            ended; each with events of its own.
    """

    result: RunResult[T]
    events: list[StoredEvent]
    subagents: list[ScriptedRun[Any]] = field(default_factory=list["ScriptedRun[Any]"])


def scripted_run(
    agent: Agent[Any, T],
    prompt: Prompt,
    answers: Iterable[ScriptAnswer],
    *,
    results: Mapping[str, Any] | None = None,
    history: Iterable[Message] = (),
    deps: Any = None,
) -> ScriptedRun[T]:
    """Play a run: the model says what the script says, everything else is real.

    It goes through the machine that real runs go through, one step at a time, in the same order
    each time: arguments are repaired, hooks run, permissions are asked for, limits count, and a
    tool is entered only after its `ToolStarted` was kept. Nothing is sent, and nothing waits:
    tools, hooks and callbacks are called where the script is played, and those that are async must
    not wait for anything. A background tool is answered when it has ended. Time limits don't count.

    Args:
        agent: The agent. Its `turn_mode` counts; `"auto"` is `plain` without tools, `native` with
            them, `required` where the output is typed, too.
        prompt: Text, blocks, or a `UserMessage`.
        answers: What the model says, one answer for each time it is asked (for a summary, too):

            - text: it answers with that;
            - a `Reply` that says something, with `usage=` and `finish_reason=` where they matter;
            - an `AssistantMessage`; or a `ModelEnded`, for all else;
            - an exception of ours, such as `RateLimitError("…")`: the call fails with it.

            It is what the model means, in every turn mode: no tags, no call text. A typed answer is
            JSON text, in `required` turns, too.
        results: What tools give, by name, instead of being run: text, anything JSON can hold, a
            `ToolOutput`, an exception to raise, or a function that takes the call's arguments. An
            agent's tool needs one, or an `AgentScript`: its run is played, too.
        history: What was said before.
        deps: What tools and hooks get.

    Returns:
        The result and the events. A run that waits for somebody ends as `suspended`.

    Raises:
        UsageError: The script has too few answers or too many, an answer or a result that cannot
            be one, or something that waits.
    """
    script = Answers(answers, agent.output_type)
    message = as_user_message(prompt)
    said = list(history)
    for item in said:
        if isinstance(item, SystemMessage) or not isinstance(item, Message):
            raise UsageError(
                f"history= takes the messages of earlier runs, not {type(item).__name__}; a system "
                "text goes into the agent's instructions=."
            )

    def play() -> ScriptedRun[T]:
        # What agents are made of is heavy, and a Simulator needs none of it.
        from vllm_agent_sdk.testing.scripted_play import played

        return _run_of(played(agent, script, message, said, results or {}, deps))

    return _without_loop(play)


def _run_of(run: Played) -> ScriptedRun[Any]:
    return ScriptedRun(run.result, run.events, [_run_of(each) for each in run.subagents])


def _without_loop(play: Callable[[], ScriptedRun[T]]) -> ScriptedRun[T]:
    """Call it where no event loop runs: in a thread, if this one has a loop."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return play()
    given: list[ScriptedRun[T]] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            given.append(play())
        except BaseException as error:  # noqa: BLE001  it is raised again below
            raised.append(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="scripted-run")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return given[0]
