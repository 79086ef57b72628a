"""Chunks of a chat stream to events and, in the end, the whole reply.

1. Calls are merged entry by entry: one chunk may hold two entries of one index; a new id or another
   name on an index opens a new call (gigachat always sends index 0); an entry without index belongs
   to the last call unless it brings a new id.
2. Arguments are parsed once, when their choice ends; a failure to parse is data, not an exception.
3. Calls in the text are read only where they were asked for, and only until the server sends one
   of its own: from then on all text is text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm_agent_sdk._core.stream.chunk_fold import ChunkFold
from vllm_agent_sdk._core.stream.stall import StallGuard
from vllm_agent_sdk._core.stream.think import ThinkSplitter
from vllm_agent_sdk._core.text_calls.text_calls import (
    TextCall,
    TextCallParser,
    TextCalls,
    find_calls,
)
from vllm_agent_sdk.types.chat import (
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatMessage,
    ChatToolCall,
    ChunkChoice,
    FunctionCall,
)
from vllm_agent_sdk.types.events import (
    ChoiceFinished,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallReady,
)
from vllm_agent_sdk.types.logprobs import ChatLogprobs
from vllm_agent_sdk.types.messages import ToolCall

__all__ = ["ChatAccumulator"]


class _Call:
    """A call as it comes in."""

    __slots__ = ("arguments", "id", "name", "stall")

    def __init__(self) -> None:
        self.stall = StallGuard()
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class _Choice:
    """A choice as it comes in."""

    __slots__ = (
        "by_index", "calls", "finish_reason", "logprobs", "plain", "reasoning", "refusal", "stall",
        "stop_reason", "text", "text_calls", "think", "token_ids",
    )  # fmt: skip

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: list[_Call] = []
        self.by_index: dict[int, int] = {}
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.logprobs: list[ChatLogprobs] = []
        self.token_ids: list[int] | None = None
        self.think: ThinkSplitter | None = None
        self.stall: StallGuard | None = None
        self.text_calls: TextCallParser | None = None
        self.plain = True  # text is nothing but text

    def place(self, entry: ChatToolCall) -> int:
        """Find the call an entry belongs to, or open a new one; give its position."""
        name = entry.function.name if entry.function else None
        if entry.index is None:
            at = len(self.calls) - 1 if self.calls else None
        else:
            at = self.by_index.get(entry.index)
        if at is not None:
            call = self.calls[at]
            other_id = entry.id and call.id and entry.id != call.id
            other_name = name and call.name and name != call.name
            if not (other_id or other_name):
                return at
        self.calls.append(_Call())
        at = len(self.calls) - 1
        if entry.index is not None:
            self.by_index[entry.index] = at
        return at


class ChatAccumulator(ChunkFold[ChatCompletionChunk, _Choice, ChatCompletion[Any]]):
    """Folds the chunks of one stream.

    Args:
        choices: How many choices were asked for (`n`).
        offered: The names of the tools that may be called; a call of another is `unexpected`.
            `None` for unknown.
        check: Checks the whole reply at the end; raises what is wrong with it.
        constrained: The text is constrained: endless white space ends it.
        constrained_calls: The same of calls' arguments.
        think_tags: `<think>…</think>` at the beginning of the text is reasoning.
        text_calls: How calls are found in the text of a reply that has no others.
    """

    def __init__(
        self,
        choices: int = 1,
        offered: frozenset[str] | None = None,
        check: Callable[[ChatCompletion[Any]], None] | None = None,
        constrained: bool = False,
        *,
        constrained_calls: bool = False,
        think_tags: bool = False,
        text_calls: TextCalls | None = None,
    ) -> None:
        super().__init__(choices, ChatCompletionChunk())
        self._offered = offered
        self._check = check
        self._constrained = constrained
        self._constrained_calls = constrained_calls
        self._think_tags = think_tags
        self._text_calls = text_calls

    def read_text(self, *, think_tags: bool, text_calls: TextCalls | None) -> None:
        """Say before the first chunk how the text is read."""
        self._think_tags = think_tags
        self._text_calls = text_calls

    def _push_choice(self, part: ChunkChoice, events: list[StreamEvent]) -> None:
        index = part.index
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = self._new_choice()
        delta = part.delta
        if delta is not None:
            reasoning = delta.reasoning or delta.reasoning_content
            if reasoning:
                choice.reasoning.append(reasoning)
                events.append(ReasoningDelta(reasoning, index))
            text = delta.content
            if text:
                if choice.plain:
                    choice.text.append(text)
                    events.append(TextDelta(text, index))
                else:
                    self._push_text(choice, text, index, events)
            if delta.refusal:
                choice.refusal.append(delta.refusal)
                events.append(RefusalDelta(delta.refusal, index))
            if delta.tool_calls:
                self._end_text_calls(choice, index, events)
                self._push_calls(choice, delta.tool_calls, index, events)
        if part.token_ids:
            choice.token_ids = (choice.token_ids or []) + part.token_ids
        if part.logprobs is not None:
            choice.logprobs.append(part.logprobs)
        if part.finish_reason is not None and choice.finish_reason is None:
            self._finish_choice(choice, part, events)

    def _push_text(self, choice: _Choice, text: str, index: int, events: list[StreamEvent]) -> None:
        """Take text in which there may be reasoning, calls, or endless white space."""
        if choice.think is not None:
            self._add(choice, choice.think.push(text), index, events)
        elif choice.text_calls is not None:
            self._say(choice, text, index, events)
        else:
            choice.text.append(text)
            events.append(TextDelta(text, index))
        if choice.stall is not None:
            choice.stall.push(text)

    def _finish_choice(self, choice: _Choice, part: ChunkChoice, events: list[StreamEvent]) -> None:
        choice.finish_reason = part.finish_reason
        choice.stop_reason = part.stop_reason
        if choice.think is not None:
            self._add(choice, choice.think.close(), part.index, events)
        self._end_text_calls(choice, part.index, events)
        thought_only = not choice.calls and part.finish_reason == "stop"
        if self._text_calls is not None and thought_only and not "".join(choice.text).strip():
            for call in find_calls("".join(choice.reasoning), self._text_calls)[1]:
                self._add_call(choice, call, part.index, events)
        for position, _ in enumerate(choice.calls):
            events.append(ToolCallReady(self._call(choice, position), part.index))
        events.append(ChoiceFinished(part.finish_reason or "", part.stop_reason, part.index))

    def _new_choice(self) -> _Choice:
        choice = _Choice()
        if self._think_tags:
            choice.think = ThinkSplitter()
        if self._constrained:
            choice.stall = StallGuard()
        if self._text_calls is not None:
            choice.text_calls = self._text_calls.parser()
        choice.plain = not (self._think_tags or self._constrained or self._text_calls)
        return choice

    @classmethod
    def _add(
        cls,
        choice: _Choice,
        pieces: list[tuple[str, str]],
        index: int,
        events: list[StreamEvent],
    ) -> None:
        for reasoning, text in pieces:
            if reasoning:
                choice.reasoning.append(reasoning)
                events.append(ReasoningDelta(reasoning, index))
            else:
                cls._say(choice, text, index, events)

    @classmethod
    def _say(cls, choice: _Choice, text: str, index: int, events: list[StreamEvent]) -> None:
        parser = choice.text_calls
        cls._settle(choice, [text] if parser is None else parser.push(text), index, events)

    @classmethod
    def _settle(
        cls,
        choice: _Choice,
        settled: list[str | TextCall],
        index: int,
        events: list[StreamEvent],
    ) -> None:
        for each in settled:
            if isinstance(each, TextCall):
                cls._add_call(choice, each, index, events)
            else:
                choice.text.append(each)
                events.append(TextDelta(each, index))

    @staticmethod
    def _add_call(choice: _Choice, found: TextCall, index: int, events: list[StreamEvent]) -> None:
        position = len(choice.calls)
        call = _Call()
        call.id, call.name, call.arguments = f"call_{position}", found.name, [found.arguments]
        choice.calls.append(call)
        events.append(ToolCallDelta(position, call.id, call.name, found.arguments, index))

    @classmethod
    def _end_text_calls(cls, choice: _Choice, index: int, events: list[StreamEvent]) -> None:
        parser, choice.text_calls = choice.text_calls, None
        if parser is not None:
            cls._settle(choice, parser.close(), index, events)

    def _push_calls(
        self, choice: _Choice, entries: list[ChatToolCall], index: int, events: list[StreamEvent]
    ) -> None:
        for entry in entries:
            position = choice.place(entry)
            call = choice.calls[position]
            new_id = entry.id if entry.id and not call.id else None
            if new_id:
                call.id = new_id
            function = entry.function
            new_name, arguments = None, ""
            if function is not None:
                if function.name and not call.name:
                    call.name = new_name = function.name
                arguments = function.arguments or ""
            if new_id or new_name or arguments:
                events.append(ToolCallDelta(position, new_id, new_name, arguments, index))
            if arguments:
                call.arguments.append(arguments)
                if self._constrained_calls:
                    call.stall.push(arguments)

    def _call(self, choice: _Choice, position: int) -> ToolCall:
        call = choice.calls[position]
        return ToolCall.from_text(
            call.id or f"call_{position}",
            call.name,
            "".join(call.arguments),
            unexpected=self._offered is not None and call.name not in self._offered,
        )

    def snapshot(self) -> ChatCompletion[Any]:
        """Give the reply as far as it has come."""
        return ChatCompletion(
            **self._shared(),
            choices=[self._whole(index) for index in sorted(self._choices)],
            prompt_token_ids=self._head.prompt_token_ids,
            prompt_text=self._head.prompt_text,
        )

    def _whole(self, index: int) -> ChatChoice:
        choice = self._choices[index]
        calls = [
            ChatToolCall(
                id=call.id or f"call_{position}",
                type="function",
                function=FunctionCall(call.name, "".join(call.arguments)),
            )
            for position, call in enumerate(choice.calls)
        ]
        message = ChatMessage(
            role="assistant",
            content="".join(choice.text) if choice.text else None,
            refusal="".join(choice.refusal) or None,
            tool_calls=calls or None,
            reasoning="".join(choice.reasoning) or None,
        )
        return ChatChoice(
            index=index,
            message=message,
            logprobs=_joined_logprobs(choice.logprobs),
            finish_reason=choice.finish_reason,
            stop_reason=choice.stop_reason,
            token_ids=choice.token_ids,
        )

    def finish(self) -> ChatCompletion[Any]:
        """Give the whole reply at the end of the stream, checked."""
        reply = super().finish()
        if self._check is not None:
            self._check(reply)
        return reply


def _joined_logprobs(parts: list[ChatLogprobs]) -> ChatLogprobs | None:
    """Join the log probabilities of a choice's chunks."""
    if not parts:
        return None
    content = [token for part in parts for token in part.content or ()]
    refusal = [token for part in parts for token in part.refusal or ()]
    return ChatLogprobs(content or None, refusal or None)
