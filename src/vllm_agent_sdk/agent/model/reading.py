"""How the text of a reply is read, by the turn mode: as it is, or for our own forms."""

from __future__ import annotations

from typing import Any, Protocol

from vllm_agent_sdk._core.dialect.envelope import EnvelopeParser
from vllm_agent_sdk._core.run.state import State
from vllm_agent_sdk._core.stream.guided import GuidedParser
from vllm_agent_sdk.types.chat import ChatCompletion
from vllm_agent_sdk.types.events import StreamEvent, TextDelta
from vllm_agent_sdk.types.messages import AssistantMessage, ReasoningBlock

__all__ = ["Reader", "reader_of"]


class Reader(Protocol):
    """Reads the text of one reply as it comes in."""

    @property
    def ignored(self) -> bool:
        """True if the text is not in the form it was constrained to."""
        ...

    def push(self, text: str) -> list[StreamEvent]:
        """Take a piece of the text; give what is shown of it."""
        ...

    def finish(self) -> list[StreamEvent]:
        """Take the end of the reply, whole or cut; give what is still to be shown."""
        ...

    def message(self, said: ChatCompletion[Any]) -> AssistantMessage:
        """Give the message that the reply comes to."""
        ...


def reader_of(state: State) -> Reader:
    """Give what reads the reply to a turn's call."""
    prefix, typed = f"call_{state.turn}_", state.started.output is not None
    match state.turn_mode:
        case "guided":
            return _Constrained(GuidedParser(prefix, typed=typed))
        case "envelope":
            return _Constrained(EnvelopeParser(prefix, typed=typed))
        case _:
            return _Plain()


class _Plain:
    """The text is the answer, calls are told by the server."""

    ignored = False

    def push(self, text: str) -> list[StreamEvent]:
        return [TextDelta(text=text)]

    def finish(self) -> list[StreamEvent]:
        return []

    def message(self, said: ChatCompletion[Any]) -> AssistantMessage:
        return said.assistant_message()


class _Constrained:
    """The text is in a form of ours."""

    def __init__(self, parser: GuidedParser | EnvelopeParser) -> None:
        self._parser = parser

    @property
    def ignored(self) -> bool:
        return self._parser.ignored

    def push(self, text: str) -> list[StreamEvent]:
        return self._parser.push(text)

    def finish(self) -> list[StreamEvent]:
        return self._parser.finish()

    def message(self, said: ChatCompletion[Any]) -> AssistantMessage:
        blocks = self._parser.blocks()
        if said.reasoning and not any(isinstance(block, ReasoningBlock) for block in blocks):
            blocks.insert(0, ReasoningBlock(said.reasoning))
        # What was cut is written anew, closed, when it is sent back.
        return AssistantMessage(
            blocks, verbatim=self._parser.verbatim if self._parser.whole else None
        )
