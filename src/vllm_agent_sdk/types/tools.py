"""What a tool is to the rest: its specification, its output, and the context it runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal

import msgspec
from typing_extensions import TypeVar

from vllm_agent_sdk.types.messages import ContentBlock, ToolCall

__all__ = ["TOOL_NAME", "RunContext", "ToolOutput", "ToolSpec"]

Deps = TypeVar("Deps", default=None)

#: What a tool can be called.
TOOL_NAME = r"[A-Za-z0-9_-]{1,64}"


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the model and the runtime know of a tool.

    The annotations decide permissions, parallelism and recovery. Unset means: not read-only, not
    idempotent, not destructive.

    Attributes:
        name: 1 to 64 characters of `A-Z a-z 0-9 _ -`, unique in an agent.
        description: What the model reads.
        parameters: JSON Schema of the arguments, an object schema.
        strict: Ask the server to constrain the arguments to the schema.
        coerce: Repair arguments where nothing is lost (`"3"` for an integer, `3.0` for `3`, a
            JSON string that holds the object); each repair is recorded in the event.
        read_only: It changes nothing; it may run in parallel and again after a crash.
        idempotent: Running it twice is the same as once; it may run again after a crash.
        destructive: It may destroy something: it asks before it runs.
        open_world: It reaches beyond this machine; unset means unknown.
        reads_files: Names of arguments that are paths it reads.
        edits_files: Names of arguments that are paths it writes.
        serial: No other tool runs beside it.
        timeout: Seconds; unset takes `Limits.tool_timeout_s`, but for subagents, which have
            limits of their own.
        max_output: Characters of its result that the model sees at once; unset means all.
        background: It is answered at once with a handle, its result comes later.
        detach_after: Seconds after which it goes on in the background.
        deferred: Its result is sent from elsewhere.
        threaded: It runs in a thread, which goes on when its call is interrupted or times out.
        kind: `function`; `mcp`: a tool of an MCP server; `agent`: a subagent; `question`: it asks
            the user.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool = True
    coerce: bool = True
    read_only: bool = False
    idempotent: bool = False
    destructive: bool = False
    open_world: bool | None = None
    reads_files: tuple[str, ...] = ()
    edits_files: tuple[str, ...] = ()
    serial: bool = False
    timeout: float | None = None
    max_output: int | None = None
    background: bool = False
    detach_after: float | None = None
    deferred: bool = False
    threaded: bool = False
    kind: Literal["function", "mcp", "agent", "question"] = "function"

    @property
    def repeatable(self) -> bool:
        """True if running it twice does no harm."""
        return self.read_only or self.idempotent

    def renamed(self, name: str) -> ToolSpec:
        """Give the same under another name."""
        return msgspec.structs.replace(self, name=name)

    def of_agent(self) -> ToolSpec:
        """Give the same as a subagent's."""
        return msgspec.structs.replace(self, kind="agent")


class ToolOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a tool gave.

    Attributes:
        content: Text, or blocks of text and media, for the model.
        is_error: True if the model is to take it as a failure.
        repairs: What was repaired in the arguments before the call.
        executed: False if the tool itself was never entered (its arguments were invalid).
    """

    content: str | list[ContentBlock]
    is_error: bool = False
    repairs: tuple[str, ...] = ()
    executed: bool = True


def _no_progress(_message: str, _fraction: float | None) -> None:
    return None


@dataclass(frozen=True)
class RunContext(Generic[Deps]):
    """What a tool that takes `ctx: RunContext[Deps]` gets; the model never sees it.

    Attributes:
        deps: What was given to `run(deps=…)`.
        call: The call being answered.
        run_id: The run's id.
        agent_id: The agent's id within the run.
        session_id: The session's id, if there is one.
        turn: The number of the model call that asked for it, from 1.
        host: What subagents and `read_output` use of the run that calls them; no concern of other
            tools.
    """

    deps: Deps
    call: ToolCall
    run_id: str = ""
    agent_id: str = ""
    session_id: str | None = None
    turn: int = 1
    report: Callable[[str, float | None], None] = field(default=_no_progress, repr=False)
    host: Any = field(default=None, repr=False)

    def progress(self, message: str, fraction: float | None = None) -> None:
        """Tell whoever watches the run how far the tool is (0 to 1, if known)."""
        self.report(message, fraction)
