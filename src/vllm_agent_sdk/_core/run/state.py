"""A run at one moment: the value that `run.evolve` folds events into."""

from __future__ import annotations

import enum
from typing import Any

from vllm_agent_sdk._core.run.log import Log
from vllm_agent_sdk._core.run.read_back import Whole
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types._codec import Fact, replace
from vllm_agent_sdk.types.context import CacheTurn, Prefix
from vllm_agent_sdk.types.events import Checkpointed, RunStarted
from vllm_agent_sdk.types.hooks import HookSpec
from vllm_agent_sdk.types.messages import Message, ToolCall, ToolMessage, UserMessage
from vllm_agent_sdk.types.permissions import PermissionRule, PermissionRules
from vllm_agent_sdk.types.results import ErrorInfo, StopReason, Usage
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = [
    "ANSWER_TOOL",
    "CallState",
    "CallStatus",
    "Change",
    "Edit",
    "IllegalTransitionError",
    "Moment",
    "Phase",
    "State",
    "Stop",
    "replace",
]

#: The tool that a typed answer is given with in `required` turns.
ANSWER_TOOL = "final_answer"


class IllegalTransitionError(AssertionError):
    """An event came in a phase that does not know it: a bug of this library."""


class Phase(enum.StrEnum):
    """Where a run stands."""

    IDLE = "idle"
    PREPARING = "preparing"
    COMPACTING = "compacting"
    MODEL = "model"
    GATING = "gating"
    TOOLS = "tools"
    SUSPENDED = "suspended"
    DONE = "done"


class CallStatus(enum.StrEnum):
    """Where a call stands."""

    INVALID = "invalid"  # answered without being run
    HOOKED = "hooked"  # hooks run before it is permitted
    ASKING = "asking"  # permission_request hooks run, then somebody is asked
    WAITING = "waiting"  # for what comes from outside, later: see `CallState.waits_for`
    DENIED = "denied"
    ALLOWED = "allowed"
    RUNNING = "running"
    ENDED = "ended"  # hooks run on its result
    DONE = "done"


class CallState(Fact, frozen=True, gc=False):
    """A call of the current turn.

    Attributes:
        call: With the arguments it is to run with.
        result: How it was answered, once it was.
        reason: Why it is invalid, is asked for, or was denied.
        hook: How many hooks of its present status have run.
        ask: Why a hook wants it to be asked for.
        allowed: True if a hook or a person has allowed it.
        waits_for: `approval`, `question`, `tool_result` or `decision` (`Pending.kind`).
        outside: Paths in its arguments that lie outside the permitted folders.
        failed: True if the tool gave an error.
        repairs: What was repaired in its arguments.
        detached: True if its tool goes on in the background.
    """

    call: ToolCall
    status: CallStatus
    spec: ToolSpec | None = None
    reason: str = ""
    result: ToolMessage | None = None
    hook: int = 0
    ask: str | None = None
    allowed: bool = False
    waits_for: str | None = None
    outside: tuple[str, ...] = ()
    failed: bool = False
    repairs: tuple[str, ...] = ()
    detached: bool = False


class Stop(Fact, frozen=True, gc=False):
    """Why the run is to end."""

    reason: StopReason
    error: ErrorInfo | None = None


class Change(Fact, frozen=True, gc=False):
    """A change that the run itself wants (`SettingsChanged`)."""

    what: str
    new: str
    reason: str


class Moment(Fact, frozen=True, gc=False):
    """A checkpoint: where the conversation stood, and what was kept of the files.

    Attributes:
        event: What says so.
        turn: The turn before which it was taken.
        history: The conversation at the beginning of that turn.
    """

    event: Checkpointed
    turn: int
    history: Log[Message]


class Edit(Fact, frozen=True, gc=False):
    """A call of a tool that edits files.

    Attributes:
        checkpoint: The newest checkpoint before it.
        spec: The tool.
        call: The call.
    """

    checkpoint: str
    spec: ToolSpec
    call: ToolCall


class State(Fact, frozen=True, gc=False):
    """A run at one moment, and what a session keeps between its runs.

    Attributes:
        started: What it was started with.
        history: The conversation, what was said before this run included.
        said_before: How many messages of it were said before this run.
        prompts: What is said to the model next, once the hooks of it have run.
        hook: How many hooks of the present step (a prompt, an end, a compaction) have run.
        say: What the run itself says next (a repair, a hook's instruction).
        change: What the run itself changes next.
        queue: Prompts that wait for the next run.
        notes: What the model is told at the beginning of the next run.
        background: Tasks that go on after their call was answered, by id.
        calls: The calls of the current turn.
        context: What hooks want the model to know after the results of this turn.
        executed: The names of the tools that ran, in order.
        options: What the run goes on with from its next turn on, where that is something else.
        outputs: Results of which the model was shown the beginning only.
        checkpoints: The checkpoints of the session, in order.
        checkpointed: The last turn of the run that has one.
        edits: The calls of tools that edit files, where there are checkpoints.
        last_call: Name and canonical arguments of the last call.
        repeats: How often in a row it was made.
        invalid_in_row: Turns in a row in which no call, or no output, was valid.
        attempt: Model calls of this turn that came to nothing.
        before_turn: The history as it was before the turn's model call.
        thinking_off: True if the turn is asked again without thinking.
        window: Tokens the model can read and write in one call, as far as known.
        compacted: True if this turn's history could not be summarised.
        summaries: How often older messages were summarised, in earlier runs too.
        grants: What was allowed for later, too.
        ending: How the run ends if no stop hook objects.
        context_tokens: Tokens of the turn's request, where it comes close to the window.
        exact: False if they are estimated.
        prefix: How the request under way begins.
        cache: What the model calls could find in the prefix cache, and what they found.
        cached_before: How many of them were made before this run.
        last_tokens: Tokens of the last model call, request and answer.
        measured: How many messages they are of.
    """

    phase: Phase = Phase.IDLE
    started: RunStarted = RunStarted()
    model: str | None = None
    tools: tuple[ToolSpec, ...] = ()
    permissions: PermissionRules = PermissionRules()
    grants: tuple[PermissionRule, ...] = ()
    history: Log[Message] = Log()
    said_before: int = 0
    prompts: tuple[UserMessage, ...] = ()
    hook: int = 0
    say: tuple[UserMessage, str] | None = None
    change: Change | None = None
    queue: tuple[UserMessage, ...] = ()
    notes: tuple[UserMessage, ...] = ()
    background: tuple[tuple[str, ToolCall], ...] = ()
    turn: int = 0
    turn_mode: str = "plain"
    dialect: str = "native"
    attempt: int = 0
    empty: int = 0
    missing: int = 0
    thinking_off: bool = False
    before_turn: Log[Message] = Log()
    window: int | None = None
    compacted: bool = False
    summaries: int = 0
    overflow: ErrorInfo | None = None
    instruction: str = ""
    calls: tuple[CallState, ...] = ()
    context: tuple[str, ...] = ()
    executed: Log[str] = Log()
    options: RunStarted | None = None
    outputs: Log[Whole] = Log()
    checkpoints: Log[Moment] = Log()
    checkpointed: int = 0
    edits: Log[Edit] = Log()
    usage_by_turn: Log[Usage] = Log()
    usage_by_model: tuple[tuple[str, Usage], ...] = ()
    total_tokens: int = 0
    cost: float | None = None
    context_tokens: int | None = None
    exact: bool = True
    prefix: Prefix | None = None
    cache: Log[CacheTurn] = Log()
    cached_before: int = 0
    last_tokens: int = 0
    measured: int = 0
    last_call: tuple[str, bytes] | None = None
    repeats: int = 0
    invalid_in_row: int = 0
    denials: tuple[ToolCall, ...] = ()
    output: _codec.Raw = _codec.NULL
    ending: Stop | None = None
    stop: Stop | None = None
    finish_reason: str | None = None
    model_time_s: float = 0.0
    ttft_s: float | None = None

    def spec(self, name: str) -> ToolSpec | None:
        """Give a tool's specification."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def hooks(self, event: str, subject: str = "") -> list[int]:
        """Give the numbers of the hooks that run for an event."""
        specs = self.started.hooks
        if not specs:
            return []
        return [
            at for at, spec in enumerate(specs) if spec.event == event and spec.matches(subject)
        ]

    def hook_spec(self, number: int) -> HookSpec:
        """Give what is data of a hook."""
        return self.started.hooks[number]

    @property
    def tool_choice(self) -> str | dict[str, Any] | None:
        """What counts in the current turn: a forced choice is for the first one only."""
        return self.started.tool_choice if self.turn <= 1 else None

    @property
    def tools_offered(self) -> bool:
        """False in a last turn that is to be answered without tools."""
        limits = self.started.limits
        last = limits.last_turn_without_tools and self.turn >= limits.max_turns
        return bool(self.tools) and not last

    def with_call(self, call_id: str, **changes: Any) -> State:
        """Give the state with one call changed."""
        if not any(entry.call.id == call_id for entry in self.calls):
            raise IllegalTransitionError(f"There is no call {call_id!r} in turn {self.turn}")
        calls = tuple(
            replace(entry, **changes) if entry.call.id == call_id else entry for entry in self.calls
        )
        return replace(self, calls=calls)

    def call(self, call_id: str) -> CallState | None:
        """Give a call of the current turn."""
        return next((entry for entry in self.calls if entry.call.id == call_id), None)
