"""What happens, as values: the events of a stream and of a run.

One grammar serves the consumer of a stream, the log, the trace and the replay. Events are immutable
and JSON both ways (`type` tells them apart); `match` works on the class.

- Deltas (`TextDelta` … `UsageUpdated`) are what a model sends bit by bit. A client's stream yields
  them bare; in a run they carry `run_id`, `time` and `agent_id`, and `seq` stays `None`: they are
  not stored.
- All other events of a run are stored, numbered by `seq`, and carry the version `v` of their form.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeAlias

import msgspec
from typing_extensions import TypeVar

from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.chat import ChatCompletion, CompletionUsage
from vllm_agent_sdk.types.checkpoints import FileChange
from vllm_agent_sdk.types.context import Prefix
from vllm_agent_sdk.types.hooks import HookOutput, HookSpec
from vllm_agent_sdk.types.messages import AssistantMessage, Message, ToolCall, ToolMessage
from vllm_agent_sdk.types.options import Context, Limits, Price
from vllm_agent_sdk.types.permissions import PermissionRules
from vllm_agent_sdk.types.results import ErrorInfo, Pending, RunResult, Usage
from vllm_agent_sdk.types.timing import Timing
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = [
    "Checkpointed",
    "ChoiceFinished",
    "Compacted",
    "Delta",
    "Finished",
    "HookRan",
    "Interrupted",
    "MessageAdded",
    "ModelEnded",
    "ModelStarted",
    "Notice",
    "PermissionAsked",
    "PermissionDecided",
    "ReasoningDelta",
    "RefusalDelta",
    "Rewound",
    "RunEnded",
    "RunEvent",
    "RunResumed",
    "RunStarted",
    "RunSuspended",
    "SettingsChanged",
    "StoredEvent",
    "StreamEvent",
    "SubagentEnded",
    "SubagentStarted",
    "TextDelta",
    "ToolCallDelta",
    "ToolCallReady",
    "ToolEnded",
    "ToolProgress",
    "ToolStarted",
    "TurnStarted",
    "UsageUpdated",
    "UserAnswered",
    "UserAsked",
    "decode_event",
    "encode_event",
]

C = TypeVar("C", default=ChatCompletion[Any])

#: The version of the stored form; an older one is brought up to it when a log is read.
VERSION = 1


def _version() -> int:
    # A default of a factory is written even where defaults are omitted.
    return VERSION


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """What all events of a run carry; `None` outside a run.

    A subagent's events carry its caller's `run_id`, no `seq`, and as `agent_id` its caller's, a
    slash, the tool's name, a colon and the call's id.
    """

    run_id: str | None = None
    seq: int | None = None
    time: float | None = None
    agent_id: str | None = None

    @property
    def of_subagent(self) -> bool:
        """True for what a subagent does."""
        return "/" in (self.agent_id or "")


# ── deltas ───────────────────────────────────────────────────────────────────────────────────────


class TextDelta(_Event, frozen=True, tag="text_delta", gc=False):
    """A piece of the answer's text."""

    text: str
    choice: int = 0


class ReasoningDelta(_Event, frozen=True, tag="reasoning_delta", gc=False):
    """A piece of what the model thinks."""

    text: str
    choice: int = 0


class RefusalDelta(_Event, frozen=True, tag="refusal_delta", gc=False):
    """A piece of a refusal."""

    text: str
    choice: int = 0


class ToolCallDelta(_Event, frozen=True, tag="tool_call_delta", gc=False):
    """A piece of a call: `name` and `id` with the first one, then pieces of the arguments."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    choice: int = 0


class ToolCallReady(_Event, frozen=True, tag="tool_call_ready"):
    """A call is whole, its arguments parsed."""

    call: ToolCall
    choice: int = 0


class UsageUpdated(_Event, frozen=True, tag="usage_updated"):
    """The server's count of tokens."""

    usage: CompletionUsage


class ChoiceFinished(_Event, frozen=True, tag="choice_finished"):
    """A choice has ended.

    Attributes:
        finish_reason: The wire's: `stop`, `length`, `tool_calls`, `abort`, `repetition`, ….
        stop_reason: The stop string or token id that matched, or `None`.
    """

    finish_reason: str
    stop_reason: int | str | None = None
    choice: int = 0


class Finished(_Event, Generic[C], frozen=True, tag="finished"):
    """The last event of a client's stream: the accumulated reply (a chat's, or a `Completion`)."""

    completion: C
    timing: Timing


Delta: TypeAlias = (
    TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | ToolCallReady | UsageUpdated
)
StreamEvent: TypeAlias = Delta | ChoiceFinished | Finished[ChatCompletion[Any]]


# ── a run's own events ───────────────────────────────────────────────────────────────────────────


class StoredEvent(_Event, frozen=True, kw_only=True):
    """Base of what is appended to the log."""

    v: int = msgspec.field(default_factory=_version)


class RunStarted(StoredEvent, frozen=True, tag="run_started"):
    """A run begins, with everything that decides how it goes.

    Attributes:
        agent: The agent's name.
        model: The served model's name.
        instructions: The system text, or `None`.
        tools: What can be called.
        limits: What may be used.
        sampling: The sampling fields as they are sent.
        tool_choice: For the first turn.
        turn_mode_asked: `Agent.turn_mode`; `auto` may move to another mode when a server refuses.
        turn_mode: `plain`, `native`, `required`, `guided` or `envelope`.
        turn_mode_reason: Why this one.
        dialect: How the history is written: `native` or `text`.
        examples: Worked turns before the conversation.
        history: What was said before this run, where it is not in the log already.
        session_id: The session's id, if there is one.
        fallback_model: What is asked when the model cannot answer.
        output: JSON Schema of a typed output, or `None` for text.
        permissions: What may run.
        hooks: Which hooks there are.
        context: When older messages are summarised.
        window: Tokens the model can read and write in one call, as far as known.
        prices: By model; `"*"` is for all others.
        checkpoints: When the files are kept, where they are.
    """

    agent: str | None = None
    model: str | None = None
    instructions: str | None = None
    tools: list[ToolSpec] = []
    limits: Limits = msgspec.field(default_factory=Limits)
    sampling: dict[str, Any] = {}
    tool_choice: str | dict[str, Any] | None = None
    turn_mode_asked: str = "auto"
    turn_mode: str = "plain"
    turn_mode_reason: str = ""
    dialect: str = "native"
    examples: list[Message] = []
    history: list[Message] = []
    session_id: str | None = None
    fallback_model: str | None = None
    output: dict[str, Any] | None = None
    permissions: PermissionRules = msgspec.field(default_factory=PermissionRules)
    hooks: list[HookSpec] = []
    context: Context = msgspec.field(default_factory=Context)
    window: int | None = None
    prices: dict[str, Price] = {}
    checkpoints: Literal["tools", "turn"] | None = None


class MessageAdded(StoredEvent, frozen=True, tag="message_added"):
    """A message that neither the model nor a tool wrote entered the conversation.

    Attributes:
        when: `prompt`: it begins the run. `after`, `interrupt`: it waits for the next run.
            `steer`: it goes to the model with its next call. `repair`: the model is to correct
            itself. `hook`: a hook said it. `notification`: a background task has ended.
        queued: True if this prompt had waited for the run (`after`, `interrupt`).
        task: The background task a notification is about.
    """

    message: Message
    when: str = "prompt"
    queued: bool = False
    task: str | None = None


class TurnStarted(StoredEvent, frozen=True, tag="turn_started"):
    """The next model call is being prepared.

    Attributes:
        turn: From 1.
        context_tokens: Tokens of the request, where it comes close to the window.
        exact: False if they are estimated, because the server does not count.
        window: Tokens the model can read and write in one call, where that was learnt just now.
    """

    turn: int
    context_tokens: int | None = None
    exact: bool = True
    window: int | None = None


class ModelStarted(StoredEvent, frozen=True, tag="model_started"):
    """A request goes out.

    Attributes:
        request: The body as sent, after defaults, without the messages' bodies.
        prefix: How it begins, next to the request before it.
    """

    turn: int
    request: dict[str, Any] = {}
    prefix: Prefix | None = None


class ModelEnded(StoredEvent, frozen=True, tag="model_ended"):
    """A model call has ended, well or not.

    Attributes:
        message: What the model said, whole or as far as it came.
        error: Why the call failed, or `None`.
        finish_reason: The server's.
        usage: The call's tokens.
        cached_tokens: Tokens from the server's prefix cache; `None` where it did not say.
        output: A typed output that was given and is valid, as JSON; else null.
        output_error: Why what was given is no valid output.
        outside: By call id, the paths in its arguments that lie outside the permitted folders.
        repairs: By call id, what was repaired in its arguments.
    """

    turn: int
    message: AssistantMessage | None = None
    error: ErrorInfo | None = None
    output: _codec.Raw = _codec.NULL
    output_error: ErrorInfo | None = None
    outside: dict[str, tuple[str, ...]] = {}
    repairs: dict[str, tuple[str, ...]] = {}
    finish_reason: str | None = None
    usage: Usage = msgspec.field(default_factory=Usage)
    cached_tokens: int | None = None
    duration_s: float = 0.0
    ttft_s: float | None = None
    request_id: str | None = None


class PermissionAsked(StoredEvent, frozen=True, tag="permission_asked"):
    """A call waits for a yes or no."""

    call: ToolCall
    reason: str = ""


class PermissionDecided(StoredEvent, frozen=True, tag="permission_decided"):
    """A call may run, or not.

    Attributes:
        decision: `allow`, `deny`, or `defer`: the answer comes later.
        reason: Why not, for the model.
        input: Other arguments to run it with.
        remember: Rules by which later calls run without asking.
        interrupt: The run ends too.
    """

    call_id: str
    decision: str
    reason: str = ""
    input: dict[str, Any] | None = None
    remember: tuple[str, ...] = ()
    interrupt: bool = False


class UserAsked(StoredEvent, frozen=True, tag="user_asked"):
    """The model asks the user."""

    call_id: str
    questions: list[dict[str, Any]] = []


class UserAnswered(StoredEvent, frozen=True, tag="user_answered"):
    """The user has answered.

    Attributes:
        answers: By question id, the chosen or written texts.
        deferred: True if the answer comes later.
    """

    call_id: str
    answers: dict[str, list[str]] = {}
    deferred: bool = False


class HookRan(StoredEvent, frozen=True, tag="hook_ran"):
    """A hook has run.

    Attributes:
        hook: The function's name.
        event: What it ran for, such as `pre_tool_use`.
        call_id: The call it ran for, if it was for one.
        outputs: What it answered, or what its failure counts as.
        error: Why it failed.
        outside: Paths outside the permitted folders, where it gave a call other arguments.
    """

    hook: str
    event: str
    call_id: str | None = None
    outputs: tuple[HookOutput, ...] = ()
    error: ErrorInfo | None = None
    outside: tuple[str, ...] = ()


class ToolStarted(StoredEvent, frozen=True, tag="tool_started"):
    """A tool is about to run; stored before it does."""

    call: ToolCall


class ToolProgress(_Event, frozen=True, tag="tool_progress"):
    """A tool tells how far it is; not stored."""

    call_id: str
    message: str
    fraction: float | None = None


class ToolEnded(StoredEvent, frozen=True, tag="tool_ended"):
    """A call is answered.

    Attributes:
        name: The tool's name.
        message: What the tool gave, whole; of a tool with `max_output` the model reads the
            beginning, and the rest with `read_output`.
        executed: False if the tool was never entered.
        repairs: What was repaired in the arguments.
        task: The background task that goes on; its result comes as a notification.
    """

    name: str
    message: ToolMessage
    executed: bool = True
    task: str | None = None
    repairs: tuple[str, ...] = ()
    duration_s: float = 0.0


class Compacted(StoredEvent, frozen=True, tag="compacted"):
    """Older messages were replaced by a summary, or could not be.

    Attributes:
        messages: How many were replaced, from the first on.
        summary: What stands in their place.
        usage: The tokens that the summary cost.
        error: Why there is no summary: the messages stay.
    """

    messages: int = 0
    summary: str = ""
    usage: Usage = msgspec.field(default_factory=Usage)
    error: ErrorInfo | None = None


class SubagentStarted(StoredEvent, frozen=True, tag="subagent_started"):
    """A subagent's run begins; `agent` is what its events carry as `agent_id`."""

    call_id: str
    agent: str


class SubagentEnded(StoredEvent, frozen=True, tag="subagent_ended"):
    """A subagent's run has ended; what it used is its caller's use too."""

    call_id: str
    stop_reason: str
    usage: Usage = msgspec.field(default_factory=Usage)
    usage_by_model: dict[str, Usage] = {}
    cost: float | None = None


class Checkpointed(StoredEvent, frozen=True, tag="checkpointed"):
    """The files were kept as they are, to be gone back to by `session.rewind`.

    Attributes:
        checkpoint: What `rewind` takes.
        session_id: The session with whose checkpoints the files are: another than this one in a
            fork.
        files: How many files.
        left_out: Files that were not kept, with the reason.
        error: Why none were: the conversation can be rewound all the same.
    """

    checkpoint: str
    session_id: str = ""
    files: int = 0
    left_out: dict[str, str] = {}
    error: ErrorInfo | None = None


class Rewound(StoredEvent, frozen=True, tag="rewound"):
    """A session went back to a checkpoint.

    Attributes:
        checkpoint: Which.
        conversation: Whether the conversation goes on from there.
        files: What was done with which file.
        undo: The checkpoint that was taken just before.
    """

    checkpoint: str
    conversation: bool = True
    files: list[FileChange] = []
    undo: str | None = None


class SettingsChanged(StoredEvent, frozen=True, tag="settings_changed"):
    """Something about the run has changed; it counts from the next turn on.

    Attributes:
        what: `model`, `turn_mode`, `permission_mode`, `directories`, `tools` or `options`.
        old: What it was.
        new: What it is; for tools, their names.
        reason: Why.
        tools: The new tools.
        options: What the run goes on with; `old` and `new` have what differs.
    """

    what: str
    old: Any = None
    new: Any = None
    reason: str = ""
    tools: list[ToolSpec] | None = None
    options: RunStarted | None = None


class Interrupted(StoredEvent, frozen=True, tag="interrupted"):
    """The run is to end now.

    Attributes:
        by: `user`, or the limit that was reached (`max_seconds`).
        partial: What the model had said in the turn that was cut.
    """

    by: str = "user"
    partial: AssistantMessage | None = None


class Notice(StoredEvent, frozen=True, tag="notice"):
    """Something the user should know. `code` is stable, `text` is for people."""

    code: str
    text: str


class RunSuspended(StoredEvent, frozen=True, tag="run_suspended"):
    """The run stands still until what it waits for is answered."""

    waiting: list[Pending]


class RunResumed(StoredEvent, frozen=True, tag="run_resumed"):
    """A run that stood still, had crashed or had failed goes on.

    Attributes:
        reason: `answered`, `restart` or `retry`.
        unknown: After a restart, what becomes of calls whose outcome is unknown: `ask` or `skip`.
    """

    reason: str = "answered"
    unknown: str = "ask"


class RunEnded(StoredEvent, frozen=True, tag="run_ended"):
    """The last event of a run, exactly one."""

    result: RunResult[Any]


RunEvent: TypeAlias = (
    Delta
    | RunStarted
    | MessageAdded
    | TurnStarted
    | ModelStarted
    | ModelEnded
    | PermissionAsked
    | PermissionDecided
    | UserAsked
    | UserAnswered
    | HookRan
    | ToolStarted
    | ToolProgress
    | ToolEnded
    | Compacted
    | SubagentStarted
    | SubagentEnded
    | Checkpointed
    | Rewound
    | SettingsChanged
    | Interrupted
    | Notice
    | RunSuspended
    | RunResumed
    | RunEnded
)


_decoder: list[msgspec.json.Decoder[RunEvent]] = []


def encode_event(event: RunEvent) -> bytes:
    """Write an event as one line of JSON, without the line's end; `decode_event` reads it back."""
    return _codec.encode(event)


def decode_event(line: bytes) -> RunEvent:
    """Read one line of a log back.

    Raises:
        msgspec.DecodeError: The line is no event.
    """
    if not _decoder:
        _decoder.append(msgspec.json.Decoder(RunEvent))
    return _decoder[0].decode(line)


def stamp(event: _Event, run_id: str, agent_id: str, time: float, seq: int | None = None) -> None:
    """Set what an event of a run carries, before anyone else has seen it.

    Raises nothing; the event is new and owned by the caller, which is why it may be changed.
    """
    force = msgspec.structs.force_setattr
    force(event, "run_id", run_id)
    force(event, "agent_id", agent_id)
    force(event, "time", time)
    force(event, "seq", seq)
