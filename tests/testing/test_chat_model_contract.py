"""The suite for chat models: ours pass it, and each way to break it is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from vllm_agent_sdk import (
    AsyncVLLM,
    ChatCompletion,
    ChatEvents,
    ChatModel,
    Finished,
    ProtocolError,
    StreamEvent,
    TextDelta,
    ToolCall,
    ToolCallReady,
)
from vllm_agent_sdk.testing import Reply, Simulator, chat_model_contract
from vllm_agent_sdk.testing.chat_model_contract import CHECKS, FAILURES, Check

from ..agent.model.stand_ins import (  # noqa: TID252 - the same stand-ins
    TIMING,
    Events,
    Scripted,
    calls,
    text,
)

pytestmark = pytest.mark.feature("Q-03")


async def check_that(check: Check, model: ChatModel) -> None:
    """A check raises what it finds."""
    await check(model)


REPLIES = {
    "text": Reply.text("Hello there."),
    "thinking": Reply.reasoning("Hm.", text="Hello."),
    "calls": Reply.calls(("get_weather", {"city": "Paris"})),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("reply", REPLIES)
async def test_our_client_passes(reply: str, check: Check) -> None:
    server = Simulator(REPLIES[reply])
    async with AsyncVLLM("http://sim", transport=server.transport) as client:
        await check_that(check, client)


@pytest.mark.parametrize("check", FAILURES, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "reply", [Reply.error(500), Reply.text("Hello there.", cut_after=300)], ids=["error", "cut"]
)
async def test_our_client_fails_as_it_should(reply: Reply, check: Check) -> None:
    server = Simulator(reply)
    async with AsyncVLLM("http://sim", transport=server.transport) as client:
        await check_that(check, client)


class Model(Scripted):
    """A stand-in that says the same again and again, as it is told."""

    def __init__(
        self,
        reply: Callable[[], Any] = lambda: text("Hello."),
        events: Callable[[], Any] | None = None,
        name: Any = "m",
    ) -> None:
        super().__init__()
        self._reply = reply
        self._given = events
        self._name = name

    async def resolve_model(self, model: str | None = None) -> str:
        name: str = model or self._name
        return name

    async def create(self, *, messages: Iterable[Any], **params: Any) -> ChatCompletion[Any]:
        reply: ChatCompletion[Any] = self._reply()
        return reply

    def stream(self, *, messages: Iterable[Any], **params: Any) -> ChatEvents:
        if self._given is not None:
            events: ChatEvents = self._given()
            return events
        reply = text("Hello.")
        return Whole([TextDelta(text="Hel"), TextDelta(text="lo."), finished(reply)])


class Whole(Events):
    """Events whose last one is the whole reply."""

    async def __anext__(self) -> StreamEvent:
        event = await super().__anext__()
        if isinstance(event, Finished):
            self.partial = event.completion
        return event


def finished(reply: ChatCompletion[Any]) -> Finished[Any]:
    return Finished(completion=reply, timing=TIMING)


def streams(*events: Any) -> Model:
    return Model(events=lambda: Whole(events))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_a_model_of_ones_own_passes(check: Check) -> None:
    await check_that(check, Model())


class Renames(Model):
    async def resolve_model(self, model: str | None = None) -> str:
        return "mine"


class Meddles(Model):
    async def create(self, *, messages: Iterable[Any], **params: Any) -> ChatCompletion[Any]:
        for message in messages:
            message["content"] = "Hi."
        return text("Hello.")


class Forgets(Events):
    """Events that keep no account of what came."""

    async def __anext__(self) -> StreamEvent:
        event = await super().__anext__()
        self.partial = ChatCompletion[Any]()
        return event


class OneAtATime(Model):
    """A model whose second stream ends the first."""

    def __init__(self) -> None:
        super().__init__()
        self._open: list[Whole] = []

    def stream(self, *, messages: Iterable[Any], **params: Any) -> ChatEvents:
        for events in self._open:
            events._events = iter(())
        reply = text("Hello.")
        self._open.append(Whole([TextDelta(text="Hello."), finished(reply)]))
        return self._open[-1]


class Said(Events):
    def __init__(self) -> None:
        super().__init__([])
        self.partial = text("Already")


HELLO = TextDelta(text="Hello.")
CALL = ToolCallReady(call=ToolCall("other", "get_weather", {}, "{}"))
BROKEN: list[tuple[Any, Check, str]] = [
    (object(), CHECKS[0], "has no chat"),
    (Model(name=""), CHECKS[1], "empty name"),
    (Model(name=7), CHECKS[1], "not a model's name"),
    (Renames(), CHECKS[1], "'other'"),
    (Model(lambda: {"choices": []}), CHECKS[2], "not a ChatCompletion"),
    (Model(ChatCompletion), CHECKS[2], "without a choice"),
    (Model(lambda: text("Hel", "")), CHECKS[2], "without a finish_reason"),
    (Meddles(), CHECKS[2], "changed its messages"),
    (streams(HELLO), CHECKS[3], "0 times Finished"),
    (streams(HELLO, finished(text("Hello.")), finished(text("Hello."))), CHECKS[3], "2 times"),
    (streams(finished(text("Hello.")), HELLO), CHECKS[3], "after Finished"),
    (streams(HELLO, finished(text("Hello there."))), CHECKS[3], "TextDeltas say 'Hello.'"),
    (streams(CALL, finished(calls("get_weather", "{}"))), CHECKS[3], "ToolCallReady told"),
    (Model(events=Said), CHECKS[3], "before anything has come"),
    (Model(events=lambda: Forgets([HELLO, finished(text("Hello."))])), CHECKS[3], "whole reply"),
    (Model(events=lambda: Forgets([HELLO, finished(text("Hello."))])), CHECKS[5], "had come"),
    (OneAtATime(), CHECKS[6], "waited for another"),
    (streams(HELLO), CHECKS[7], "ended by an error"),
    (Model(), FAILURES[0], "gave a reply"),
    (Model(lambda: {}["choices"]), FAILURES[0], "raised a KeyError"),
    (streams(HELLO), FAILURES[1], "as if it were whole"),
    (streams(HELLO, KeyError("x")), FAILURES[1], "raised a KeyError"),
    (streams(HELLO, finished(text("Hello.")), ProtocolError("x")), FAILURES[1], "Finished first"),
    (Model(events=lambda: Forgets([HELLO, ProtocolError("x")])), FAILURES[1], "partial.text"),
    (Model(), FAILURES[2], "ended by 'end_turn'"),
]


@pytest.mark.parametrize(("model", "check", "said"), BROKEN, ids=[said for _, _, said in BROKEN])
async def test_what_is_broken_is_found(model: Any, check: Check, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        await check_that(check, model)


def test_each_check_is_told_apart_and_says_what_it_is_for() -> None:
    checks = [*CHECKS, *FAILURES]
    assert len({check.__name__ for check in checks}) == len(checks)
    assert all(check.__doc__ for check in checks)
    assert chat_model_contract.__doc__
