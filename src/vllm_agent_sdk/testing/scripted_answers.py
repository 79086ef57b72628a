"""What the model says in a scripted run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from vllm_agent_sdk._core.dialect.answer import answer_text, is_wrapped
from vllm_agent_sdk._core.run.state import ANSWER_TOOL
from vllm_agent_sdk._core.schema.output import OutputType
from vllm_agent_sdk.errors import (
    ConstraintIgnoredError,
    OutputError,
    OutputValidationError,
    ProtocolError,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.testing.model_output import dumps
from vllm_agent_sdk.testing.reply import Chat, Reply
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.events import Compacted, ModelEnded
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ContentBlock,
    ReasoningBlock,
    TextBlock,
    ToolCall,
)
from vllm_agent_sdk.types.results import ErrorInfo, Usage

__all__ = ["AgentScript", "Answers", "ScriptAnswer", "changed"]

ScriptAnswer: TypeAlias = str | Reply | AssistantMessage | ModelEnded | VLLMError

S = TypeVar("S")

_ANSWERS = (str, Reply, AssistantMessage, ModelEnded, VLLMError)


@dataclass(frozen=True)
class AgentScript:
    """What an agent's model says when it runs as a tool of another one.

    It stands among the `results=` of `scripted_run`. The agent's run is played as the other is: its
    tools run, its caller's rules and hooks hold.

    Attributes:
        answers: What its model says, one answer for each time it is asked, over all calls that the
            run makes of it.
        results: What its own tools give instead of being run, as in `scripted_run`.
    """

    answers: Iterable[ScriptAnswer]
    results: Mapping[str, Any] | None = None


class Answers:
    """The answers of a script, taken one after the other.

    Args:
        answers: They.
        output: What the run's answer is to be.
        name: What the script is called in errors.

    Raises:
        UsageError: Something is no answer of a model.

    Attributes:
        failure: The exception of the last answer that was one.
    """

    def __init__(
        self,
        answers: Iterable[ScriptAnswer],
        output: OutputType | None,
        name: str = "The script",
    ) -> None:
        if isinstance(answers, _ANSWERS):
            raise UsageError("answers= is a list: one answer for each time the model is asked.")
        self._answers = [_checked(answer, at) for at, answer in enumerate(answers, 1)]
        self._output = output
        self._name = name
        self._used = 0
        self._calls = 0
        self.failure: VLLMError | None = None

    def close(self, stop_reason: str, turn: int) -> None:
        """Refuse a script that says more than was asked for."""
        left = len(self._answers) - self._used
        if left:
            raise UsageError(
                f"{self._name} has {left} answer{'s' * (left > 1)} too many: the run ended with "
                f"{stop_reason!r} in turn {turn}, after {self._used}."
            )

    def next_turn(self, turn: int, turn_mode: str, constrained: bool) -> ModelEnded:
        """Let the model say what comes next.

        Args:
            turn: The turn's number.
            turn_mode: How tools are offered in it.
            constrained: Whether the request asks for JSON by `response_format`.
        """
        said = self._next(f"in turn {turn}")
        if isinstance(said, VLLMError):
            self.failure = said
            nothing, usage = AssistantMessage(), Usage(requests=1)
            return ModelEnded(turn=turn, message=nothing, error=ErrorInfo.of(said), usage=usage)
        if isinstance(said, ModelEnded):
            ended = changed(said, turn=turn)
        else:
            ended = self._ended(said, turn)
        if turn_mode == "required" and ended.message is not None:
            ended = changed(ended, message=self._required(ended.message))
        if ended.error is not None or ended.finish_reason in {"length", "refusal"}:
            return ended
        return self._judged(ended, turn_mode, constrained)

    def summary(self, messages: int) -> Compacted:
        """Let the model say its summary of so many messages."""
        said = self._next("for a summary")
        if isinstance(said, VLLMError):
            return Compacted(error=ErrorInfo.of(said))
        ended = said if isinstance(said, ModelEnded) else self._ended(said, 0)
        text = "" if ended.message is None else ended.message.text
        if not text:
            error = ended.error or ErrorInfo("OutputError", "The summary is empty.")
            return Compacted(usage=ended.usage, error=error)
        summary = f"Summary of the conversation so far:\n{text}"
        return Compacted(messages=messages, summary=summary, usage=ended.usage)

    def _next(self, where: str) -> ScriptAnswer:
        if self._used == len(self._answers):
            raise UsageError(
                f"{self._name} has {self._used} answer{'s' * (self._used != 1)}, and the model is "
                f"asked once more {where}: add what it says then."
            )
        self._used += 1
        return self._answers[self._used - 1]

    def _ended(self, said: str | Reply | AssistantMessage, turn: int) -> ModelEnded:
        usage = Usage(requests=1)
        reason: str | None = None
        cached: int | None = None
        if isinstance(said, str):
            message = AssistantMessage([TextBlock(said)] if said else [])
        elif isinstance(said, AssistantMessage):
            message = said
        else:
            message = self._message(said)
            counts = said.options.get("usage", {})
            cached = counts.get("cached_tokens")
            usage = Usage(
                input_tokens=counts.get("prompt_tokens", 0),
                output_tokens=counts.get("completion_tokens", 0),
                cached_tokens=cached or 0,
                reasoning_tokens=counts.get("reasoning_tokens", 0),
                requests=1,
            )
            reason = said.options.get("finish_reason")
        reason = reason or ("tool_calls" if message.tool_calls else "stop")
        return ModelEnded(
            turn=turn, message=message, usage=usage, finish_reason=reason, cached_tokens=cached
        )

    def _message(self, reply: Reply) -> AssistantMessage:
        body = reply.body
        assert isinstance(body, Chat), "only what a model says is played"
        blocks: list[ContentBlock] = []
        if body.reasoning:
            blocks.append(ReasoningBlock("".join(body.reasoning)))
        if body.text:
            blocks.append(TextBlock("".join(body.text)))
        for name, arguments, call_id in body.calls:
            if isinstance(arguments, Mapping):
                text = dumps(arguments)
            else:
                text = arguments if isinstance(arguments, str) else "".join(arguments)
            blocks.append(ToolCall.from_text(call_id or self._call_id(), name, text))
        return AssistantMessage(blocks)

    def _call_id(self) -> str:
        self._calls += 1
        return f"call_{self._calls}"

    # ── typed answers, and turns that are all calls ──────────────────────────────────────────────

    def _required(self, message: AssistantMessage) -> AssistantMessage:
        """Give an answer as what it is in such a turn: a call of the answer's tool."""
        output = None if self._output is None else self._output.schema
        names = [call.name for call in message.tool_calls]
        if not names and message.text.strip():
            text = message.text if output is not None else _codec.encode(message.text).decode()
            given = f'{{"answer": {text}}}' if is_wrapped(output) else text
            call = ToolCall.from_text(self._call_id(), ANSWER_TOOL, given)
            others = [block for block in message.content if not isinstance(block, TextBlock)]
            message = AssistantMessage([*others, call])
            names = [ANSWER_TOOL]
        call_of = message.tool_calls
        if output is not None or names != [ANSWER_TOOL] or call_of[0].arguments is None:
            return message
        return AssistantMessage([TextBlock(answer_text(call_of[0], None)), *message.content])

    def _judged(self, ended: ModelEnded, turn_mode: str, constrained: bool) -> ModelEnded:
        """Check an answer that is to be of a type, as a real run does."""
        message, output = ended.message, self._output
        if output is None or message is None or ended.output != _codec.NULL:
            return ended
        calls, text = message.tool_calls, message.text
        if calls:
            if turn_mode != "required" or [call.name for call in calls] != [ANSWER_TOOL]:
                return ended
            text = answer_text(calls[0], output.schema)
        if not text.strip():
            return ended
        data = text.strip().encode("utf-8", "replace")
        try:
            output.value_of_json(data)
        except ProtocolError:
            problem = ErrorInfo.of(OutputValidationError(f"It is not JSON: {text[:200]!r}."))
            error: ErrorInfo | None = None
            if constrained and ended.finish_reason == "stop":
                self.failure = ConstraintIgnoredError(
                    "The server did not apply the schema: the reply is not JSON at all: "
                    f"{text[:200]!r}. Is its structured output switched off?"
                )
                error = ErrorInfo.of(self.failure)
            return changed(ended, error=error, output_error=problem)
        except OutputError as wrong:
            return changed(ended, output_error=ErrorInfo.of(wrong))
        return changed(ended, output=_codec.Raw(data))


def changed(value: S, **changes: Any) -> S:
    """Give a copy of a fact with some of its fields changed."""
    cls: Any = type(value)
    fields = {name: getattr(value, name) for name in cls.__struct_fields__}
    made: S = cls(**{**fields, **changes})
    return made


def _checked(answer: ScriptAnswer, at: int) -> ScriptAnswer:
    if isinstance(answer, Reply):
        if not isinstance(answer.body, Chat) or answer.kills:
            raise UsageError(
                f"Answer {at} is what a server sends, not what a model says: give the exception "
                'that comes of it, such as InternalServerError("…"), or use a Simulator.'
            )
        wire = sorted(set(answer.options) - {"usage", "finish_reason", "stop_reason"})
        if wire:
            raise UsageError(f"Answer {at}: {wire[0]}= is for a Simulator; nothing is sent here.")
    elif not isinstance(answer, _ANSWERS):
        raise UsageError(
            f"Answer {at} is a {type(answer).__name__}: give text, a Reply, an AssistantMessage, a "
            "ModelEnded or an exception of ours."
        )
    return answer
