"""One model call: its stream to deltas for whoever watches, and to the message it comes to."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any

from vllm_agent_sdk._core.dialect.answer import answer_text
from vllm_agent_sdk._core.dialect.roles import refuses_roles
from vllm_agent_sdk._core.run.state import ANSWER_TOOL, State
from vllm_agent_sdk._core.schema.constraints import ended_by_itself
from vllm_agent_sdk._core.schema.output import OutputType
from vllm_agent_sdk.agent.model.port import Endpoint, Request
from vllm_agent_sdk.agent.model.reading import reader_of
from vllm_agent_sdk.agent.model.turns import TurnWriter
from vllm_agent_sdk.errors import (
    BadRequestError,
    ConstraintIgnoredError,
    OutputValidationError,
    ProtocolError,
    ServerError,
    UnprocessableEntityError,
    UnsupportedByServerError,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.chat import ChatCompletion
from vllm_agent_sdk.types.events import (
    ChoiceFinished,
    Finished,
    ModelEnded,
    StreamEvent,
    TextDelta,
    ToolCallReady,
    UsageUpdated,
)
from vllm_agent_sdk.types.messages import AssistantMessage, TextBlock, ToolCall
from vllm_agent_sdk.types.protocols import ChatEvents
from vllm_agent_sdk.types.results import ErrorInfo, Usage

__all__ = ["ModelCall"]

#: Ways in which a request is written anew because the server refused it as it was.
_AMENDMENTS = 2


class ModelCall:
    """A model call under way.

    Args:
        endpoint: What takes the request.
        params: The keywords of the call, as `writer` gave them.
        state: The run as it calls.
        writer: What wrote them; it writes them anew where the server refuses the order of the
            roles, or the ids of calls.
        taken: Ids of calls that the conversation has seen.
        publish: Gets each delta; of a whole reply come its calls and its usage alone. `None` where
            nobody watches.
        output: The type of the run's output; `None` for text.
        streaming: Ask for a stream; where calls are known not to come in one, a whole reply is
            asked for all the same.

    Attributes:
        error: What `ModelEnded.error` was made of.
        notices: What the user should know: a code and a text each.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        params: Mapping[str, Any],
        *,
        state: State,
        writer: TurnWriter,
        taken: set[str],
        publish: Callable[[StreamEvent], None] | None,
        output: OutputType | None = None,
        streaming: bool = True,
    ) -> None:
        self._endpoint = endpoint
        self._params = params
        self._state = state
        self._writer = writer
        self._taken = taken
        self._publish = publish
        self._output = output
        self.error: VLLMError | None = None
        self.notices: list[tuple[str, str]] = []
        self._ttft: float | None = None
        self._read = False
        self._streaming = streaming and self._calls_stream(params)
        self._request = self._made()
        self._events: ChatEvents | None = None
        self._reader = reader_of(state)

    def request(self) -> dict[str, Any]:
        """Give the body that goes out, with the number of its messages in their place."""
        return self._request.shown()

    async def run(self) -> ModelEnded:
        """Get the reply to its end; errors are in the event, never raised.

        Raises:
            UsageError: The request cannot work.
        """
        begun = time.monotonic()
        reply = await self._reply()
        said = reply if reply is not None else self._said()
        self._read_to_its_end(said)
        message = self._message(said)
        if reply is not None and self._reader.ignored:
            self.error = ConstraintIgnoredError(
                "The server did not apply the constraint of the turn: the reply is outside the "
                f"given form: {said.text[:200]!r}. Is its structured output switched off?",
                partial=message,
            )
        refused = said.choices[0].message.refusal if said.choices else None
        output, output_error = _codec.NULL, None
        if self.error is None and not refused and said.finish_reason != "length":
            output, output_error = self._judged(message, said)
        return ModelEnded(
            turn=self._state.turn,
            message=message,
            error=None if self.error is None else ErrorInfo.of(self.error),
            output=output,
            output_error=output_error,
            finish_reason="refusal" if refused else said.finish_reason,
            usage=Usage.of(said.usage),
            cached_tokens=_cached(said),
            duration_s=time.monotonic() - begun,
            ttft_s=self._ttft,
            request_id=said.request_id,
        )

    def partial(self) -> AssistantMessage:
        """Give what has been said so far, for a call that is interrupted."""
        said = self._said()
        self._read_to_its_end(said)
        return self._message(said)

    def so_far(self) -> AssistantMessage:
        """Give what has been said so far, of a call that goes on."""
        reader = self._reader
        if not self._read:
            reader = copy.deepcopy(reader)
            reader.finish()
        return with_unique_ids(reader.message(self._said()), self._taken, self._state.turn)

    # ── asking ───────────────────────────────────────────────────────────────────────────────────

    def _calls_stream(self, params: Mapping[str, Any]) -> bool:
        """Say no, and tell the user, where calls are known not to come in streams."""
        streamed = self._writer.traits.streams_calls or not params.get("tools")
        if not streamed:
            text = "This model's calls do not come in streams: its replies are asked for whole."
            self.notices.append(("streaming", text))
        return streamed

    def _made(self) -> Request:
        return self._endpoint.request(self._params, stream=self._streaming)

    def _said(self) -> ChatCompletion[Any]:
        return ChatCompletion() if self._events is None else self._events.partial

    async def _reply(self) -> ChatCompletion[Any] | None:
        """Get the whole reply; without one, `error` says why."""
        for left in range(_AMENDMENTS, -1, -1):
            try:
                return await (self._watched() if self._streaming else self._whole())
            except UsageError:
                raise
            except VLLMError as error:
                again = None
                if left and isinstance(error, BadRequestError):
                    again = self._writer.amended(self._state, error.message)
                if again is None:
                    self.error = self._refusal(error)
                    return None
                text = f"The server refused the messages as they were written: {error.message}"
                self.notices.append(("messages", f"{text} They are written as it wants them."))
                self._params = again
                self._request = self._made()
        return None

    async def _watched(self) -> ChatCompletion[Any]:
        events = self._events = self._request.events()
        async with events:
            async for event in events:
                if isinstance(event, Finished):
                    self._ttft = event.timing.first_token_s
                    return event.completion
                if isinstance(event, TextDelta):
                    for read in self._reader.push(event.text):
                        self._show(read)
                elif not isinstance(event, ChoiceFinished):
                    self._show(event)
        raise AssertionError("a stream ended without its end")

    async def _whole(self) -> ChatCompletion[Any]:
        reply = await self._request.whole()
        for event in self._reader.push(reply.text):
            self._show(event)
        if self._publish is not None:
            for call in reply.tool_calls:
                self._show(ToolCallReady(call=call))
            if reply.usage is not None:
                self._show(UsageUpdated(usage=reply.usage))
        return reply

    def _show(self, event: StreamEvent) -> None:
        """Publish an event; of a whole reply, those that are not pieces."""
        if self._publish is None:
            return
        if self._streaming or isinstance(event, (ToolCallReady, UsageUpdated)):
            self._publish(event)

    def _refusal(self, error: VLLMError) -> VLLMError:
        """Say what the server refused, where its error leaves that to the text."""
        if not isinstance(error, (BadRequestError, UnprocessableEntityError)):
            return error
        mode, message = self._state.turn_mode, error.message
        if mode == "guided" and ("structural_tag" in message or "response_format" in message):
            feature, why = "structural_tag", "The server knows no such structural tags"
        elif mode in {"native", "required"} and refuses_roles(message):
            feature, why = "tool_choice", "The chat template takes no calls and results"
        else:
            return error
        return _unsupported(error, feature, f"{why}: {message}")

    # ── what was said ────────────────────────────────────────────────────────────────────────────

    def _read_to_its_end(self, said: ChatCompletion[Any]) -> None:
        if self._read:
            return
        self._read = True
        for event in self._reader.finish():
            self._show(event)

    def _message(self, said: ChatCompletion[Any]) -> AssistantMessage:
        message = self._reader.message(said)
        if self._output is None and self._state.turn_mode == "required":
            calls = message.tool_calls
            if [call.name for call in calls] == [ANSWER_TOOL]:
                message = self._with_answer(message, calls[0])
        return with_unique_ids(message, self._taken, self._state.turn)

    def _with_answer(self, message: AssistantMessage, call: ToolCall) -> AssistantMessage:
        """Show an answer that was given by a call as the text that it is."""
        if call.arguments is None:
            return message
        text = answer_text(call, None)
        if text:
            self._show(TextDelta(text=text))
        return AssistantMessage([TextBlock(text), *message.content])

    def _judged(
        self, message: AssistantMessage, said: ChatCompletion[Any]
    ) -> tuple[_codec.Raw, ErrorInfo | None]:
        """Check a final answer that is to be of a type; nothing of what is none."""
        output = self._output
        if output is None:
            return _codec.NULL, None
        text, calls = message.text, message.tool_calls
        if calls:
            names = [call.name for call in calls]
            if self._state.turn_mode != "required" or names != [ANSWER_TOOL]:
                return _codec.NULL, None
            text = answer_text(calls[0], output.schema)
        if not text.strip():
            return _codec.NULL, None
        data = text.strip().encode("utf-8", "replace")
        try:
            output.value_of_json(data)
        except OutputValidationError as error:
            return _codec.NULL, ErrorInfo.of(error)
        except ProtocolError:
            self._not_json(text, said)
            problem = OutputValidationError(f"It is not JSON: {text[:200]!r}.")
            return _codec.NULL, ErrorInfo.of(problem)
        return _codec.Raw(data), None

    def _not_json(self, text: str, said: ChatCompletion[Any]) -> None:
        """Blame the server, where it was to let nothing else than JSON pass."""
        asked = "response_format" in self._params
        if asked and said.choices and ended_by_itself(said.choices[0], self._params):
            self.error = ConstraintIgnoredError(
                "The server did not apply the schema: the reply is not JSON at all: "
                f"{text[:200]!r}. Is its structured output switched off?"
            )


def _cached(said: ChatCompletion[Any]) -> int | None:
    details = None if said.usage is None else said.usage.prompt_tokens_details
    return None if details is None else details.cached_tokens


def _unsupported(error: ServerError, feature: str, message: str) -> UnsupportedByServerError:
    made = UnsupportedByServerError(
        message,
        feature=feature,
        status=error.status,
        code=error.code,
        type=error.type,
        param=error.param,
        body=error.body,
    )
    made.__cause__ = error
    return made


def with_unique_ids(message: AssistantMessage, taken: set[str], turn: int) -> AssistantMessage:
    """Rename calls whose id the conversation has seen (servers count from 0 again)."""
    fresh: set[str] = set()
    blocks = list(message.content)
    for at, block in enumerate(blocks):
        if isinstance(block, ToolCall):
            call_id, number = block.id, 1
            while call_id in taken or call_id in fresh:
                number += 1
                call_id = f"{block.id}_{turn}_{number}"
            fresh.add(call_id)
            blocks[at] = block.with_id(call_id)
    return AssistantMessage(blocks, verbatim=message.verbatim)
