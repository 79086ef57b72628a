"""How a run ended: usage, error as data, and the result."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeAlias, cast

import msgspec
from typing_extensions import TypeVar

from vllm_agent_sdk import errors
from vllm_agent_sdk.errors import BudgetExceededError, RunError, VLLMError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.chat import CompletionUsage
from vllm_agent_sdk.types.context import CacheTurn
from vllm_agent_sdk.types.messages import Message, ToolCall

__all__ = ["ErrorInfo", "Pending", "RunResult", "StopReason", "Usage"]

T = TypeVar("T", default=str)

StopReason: TypeAlias = Literal[
    "end_turn",
    "length",
    "refusal",
    "aborted",
    "repetition",
    "empty_reply",
    "suspended",
    "max_turns",
    "max_tool_calls",
    "max_total_tokens",
    "max_seconds",
    "max_cost",
    "repeated_call",
    "invalid_tool_call",
    "output_invalid",
    "context_overflow",
    "denied",
    "interrupted",
    "hook_stopped",
    "error",
]

NOT_ERRORS = frozenset({"end_turn", "suspended", "interrupted", "hook_stopped"})
BUDGETS = frozenset({"max_turns", "max_tool_calls", "max_total_tokens", "max_seconds", "max_cost"})
RAISE_CAUSE = frozenset(
    {"error", "context_overflow", "output_invalid", "invalid_tool_call", "denied"}
)


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens of model calls, summed; 0 where the server did not say.

    Attributes:
        input_tokens: Tokens of the prompts.
        output_tokens: Tokens generated.
        cached_tokens: Prompt tokens that came from the server's prefix cache.
        reasoning_tokens: Generated tokens that were reasoning.
        requests: Model calls.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 0

    @classmethod
    def of(cls, usage: CompletionUsage | None) -> Usage:
        """Count one model call by the wire's usage (`None`: the server did not say)."""
        if usage is None:
            return cls(requests=1)
        prompt, output = usage.prompt_tokens_details, usage.completion_tokens_details
        return cls(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens or 0,
            cached_tokens=(prompt.cached_tokens or 0) if prompt else 0,
            reasoning_tokens=(output.reasoning_tokens or 0) if output else 0,
            requests=1,
        )

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.requests + other.requests,
        )

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exception as data.

    Attributes:
        type: The class's name.
        message: Its message.
        facts: Its attributes, as far as JSON can hold them.
    """

    type: str
    message: str
    facts: dict[str, Any] = {}

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """Take down an exception; `partial` and `result` stay behind."""
        kept = {
            name: value
            for name, value in vars(error).items()
            if isinstance(value, (str, int, float, bool, tuple)) and not name.startswith("_")
        }
        return cls(type(error).__name__, str(error), kept)

    def to_exception(self) -> VLLMError:
        """Make the exception again: of the same class where it was one of ours."""
        cls = getattr(errors, self.type, VLLMError)
        if not (isinstance(cls, type) and issubclass(cls, VLLMError)):
            cls = VLLMError
        own = cls is not VLLMError or self.type == "VLLMError"
        error = cls(self.message if own else f"{self.type}: {self.message}")
        return error.with_facts(**self.facts)


class Pending(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a suspended run waits for. `kind`: `approval`, `question`, `tool_result`, `decision`."""

    kind: str
    call: ToolCall
    reason: str = ""


class RunResult(msgspec.Struct, Generic[T], frozen=True, kw_only=True, dict=True):
    """How a run ended, and everything that came of it.

    Attributes:
        text: The last answer's text, as far as it came.
        messages: The whole conversation, without the system text; give it as `history=` to go on.
        usage: Tokens of all turns.
        usage_by_turn: Tokens of each model call.
        cache_by_turn: What each could find in the server's prefix cache, and what it found.
        usage_by_model: Tokens by the model's name.
        turns: Model calls.
        tool_calls: How often each tool was executed, by name.
        stop_reason: Why it ended.
        finish_reason: The server's, of the last model call.
        pending: What a suspended run waits for.
        permission_denials: The calls that were not permitted.
        turn_mode: How tools were offered in the last turn.
        session_id: The session's id, if there is one.
        run_id: The run's id.
        model: The served model's name.
        duration_s: Seconds from start to end.
        model_time_s: Seconds of them in model calls.
        ttft_s: Seconds from the first request to its first token.
        cost: `None` without a price table.
    """

    text: str = ""
    messages: list[Message] = []
    usage: Usage = msgspec.field(default_factory=Usage)
    usage_by_turn: list[Usage] = []
    cache_by_turn: list[CacheTurn] = []
    usage_by_model: dict[str, Usage] = {}
    turns: int = 0
    tool_calls: dict[str, int] = {}
    stop_reason: StopReason = "error"
    finish_reason: str | None = None
    error_info: ErrorInfo | None = msgspec.field(default=None, name="error")
    output_json: _codec.Raw = msgspec.field(default=_codec.NULL, name="output")
    pending: list[Pending] = []
    permission_denials: list[ToolCall] = []
    turn_mode: str = "plain"
    session_id: str | None = None
    run_id: str = ""
    model: str | None = None
    duration_s: float = 0.0
    model_time_s: float = 0.0
    ttft_s: float | None = None
    cost: float | None = None

    @property
    def is_error(self) -> bool:
        """True for all stop reasons but `end_turn, suspended, interrupted, hook_stopped`."""
        return self.stop_reason not in NOT_ERRORS

    @property
    def output(self) -> T:
        """The typed output; the text where no type was asked for.

        In a result that was read from a log it is plain data, as JSON holds it.

        Raises:
            VLLMError: The run has none: it ended in an error, was suspended, interrupted or
                stopped. `text` keeps what came.
        """
        self.raise_for_error()
        if self.stop_reason != "end_turn":
            raise RunError(
                f"The run has no output: it ended with {self.stop_reason!r}.",
                stop_reason=self.stop_reason,
                result=self,
            )
        if "_output" in self.__dict__:
            return cast("T", self.__dict__["_output"])
        stored = self.output_json
        return cast("T", self.text if stored == _codec.NULL else _codec.decode(bytes(stored)))

    @property
    def error(self) -> VLLMError | None:
        """The exception that ended the run, or `None`."""
        live: VLLMError | None = self.__dict__.get("_error")
        if live is None and self.error_info is not None:
            return self.error_info.to_exception()
        return live

    def raise_for_error(self) -> None:
        """Raise if `is_error`.

        Raises:
            VLLMError: The cause, for `error, context_overflow, output_invalid, invalid_tool_call,
                denied`; `BudgetExceededError` for the `max_…`; `RunError` for the rest.
        """
        if not self.is_error:
            return
        cause = self.error
        if self.stop_reason in RAISE_CAUSE and cause is not None:
            raise cause
        kind = BudgetExceededError if self.stop_reason in BUDGETS else RunError
        raise kind(
            f"The run ended with {self.stop_reason!r}: {_MEANING.get(self.stop_reason, '')}",
            stop_reason=self.stop_reason,
            result=self,
        ) from cause


_MEANING = {
    "length": "the model's answer was cut at max_tokens or at the end of the context.",
    "refusal": "the model refused.",
    "aborted": "the server aborted the request.",
    "repetition": "the server stopped a repeating output.",
    "empty_reply": "the model said nothing.",
    "max_turns": "it made as many model calls as Limits.max_turns allows.",
    "max_tool_calls": "it made as many tool calls as Limits.max_tool_calls allows.",
    "max_total_tokens": "it used as many tokens as Limits.max_total_tokens allows.",
    "max_seconds": "it took as long as Limits.max_seconds allows.",
    "max_cost": "it cost as much as Limits.max_cost allows.",
    "repeated_call": "the model made the same call again and again (Limits.repeated_calls).",
}
