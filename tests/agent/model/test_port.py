"""Agents on whatever fulfils `ChatModel`: stand-ins, wrappers, and what is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    AsyncVLLM,
    ChatCompletion,
    ChatEvents,
    ChatModel,
    ConnectError,
    Context,
    Limits,
    ProtocolError,
    RunStarted,
    Sampling,
    StreamEvent,
    TextDelta,
    UsageError,
    VLLMError,
    tool,
)
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.types.profile import ServerProfile

from .stand_ins import Events, Scripted, calls, text


@tool
async def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"18 °C in {city}"


# ── running on a stand-in ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("streaming", [True, False])
async def test_an_agent_runs_on_whatever_fulfils_chat_model(streaming: bool) -> None:
    model = Scripted(calls("get_weather", '{"city": "Paris"}'), text("It is 18 °C."))
    agent = Agent(client=model, tools=[get_weather], instructions="Be brief.", streaming=streaming)
    async with agent.stream("Weather?") as run:
        events = [event async for event in run]
    result = run.result
    assert (result.stop_reason, result.text) == ("end_turn", "It is 18 °C.")
    assert result.tool_calls == {"get_weather": 1}
    assert result.usage.input_tokens == 7
    assert result.model == "scripted"
    shown = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert shown == (result.text if streaming else "")


async def test_it_gets_plain_dicts_in_chats_shape() -> None:
    model = Scripted(calls("get_weather", '{"city": "Paris"}'), text("Warm."))
    sampling = Sampling(temperature=0.5, extra_body={"seed": 7})
    agent = Agent(client=model, tools=[get_weather], model="big", sampling=sampling)
    await agent.run("Weather?")
    first, second = model.asked
    assert first["messages"] == [{"role": "user", "content": "Weather?"}]
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool"]
    assert all(type(message) is dict for message in second["messages"])
    assert second["messages"][2]["content"] == "18 °C in Paris"
    assert (first["model"], first["temperature"]) == ("big", 0.5)
    assert first["extra_body"] == {"seed": 7}
    assert first["tools"][0]["function"]["name"] == "get_weather"


async def test_a_wrapper_around_a_client_gives_the_same_run() -> None:
    class Wrapper:
        def __init__(self, inner: AsyncVLLM) -> None:
            self._inner = inner
            self.chat = inner.chat

        async def resolve_model(self, model: str | None = None) -> str:
            return await self._inner.resolve_model(model)

    replies = [Reply.calls(("get_weather", {"city": "Paris"})), Reply.text("Warm.")]
    told: list[Any] = []
    for wrap in (lambda client: client, Wrapper):
        server = Simulator(*replies)
        async with AsyncVLLM("http://sim", transport=server.transport) as client:
            model: ChatModel = wrap(client)
            agent = Agent(client=model, tools=[get_weather], turn_mode="native")
            async with agent.stream("Weather?") as run:
                kinds = [type(event).__name__ async for event in run]
            told.append((kinds, run.result.messages, run.result.usage, server.chats[-1].json))
    assert told[0] == told[1]


def test_a_stand_in_works_blocking_too() -> None:
    result = Agent(client=Scripted(text("Hello."))).run_sync("Hi")
    assert result.text == "Hello."


async def test_a_stand_in_is_never_closed_and_serves_sessions() -> None:
    model = Scripted(text("One."), text("Two."))
    async with Agent(client=model) as agent, agent.session() as session:
        assert (await session.run("1")).text == "One."
        assert (await session.run("2")).text == "Two."
    assert [len(asked["messages"]) for asked in model.asked] == [1, 3]


async def test_a_conversation_that_grows_too_long_is_summarised_by_estimate() -> None:
    profile = ServerProfile().with_(context_length=600, blind_template=False, auto_tools=True)
    model = Scripted(text("word " * 300), text("They talked."), text("Yes."), profile=profile)
    agent = Agent(
        client=model, tools=[get_weather], context=Context(keep_last=1), turn_mode="native"
    )
    result = await agent.run("Talk.")
    result = await agent.run("And?", history=result.messages)
    assert result.stop_reason == "end_turn", result.error
    assert "They talked." in str(model.asked[-1]["messages"])


async def test_several_addresses_make_a_pool() -> None:
    async with Simulator(Reply.text("Hello.")) as one, Simulator(Reply.text("Hello.")) as other:
        result = await Agent(client=[one.base_url, other.base_url]).run("Hi")
    assert result.text == "Hello."
    assert len(one.chats) + len(other.chats) == 1


# ── its turn mode ────────────────────────────────────────────────────────────────────────────────


async def mode_of(model: ChatModel, **fields: Any) -> RunStarted:
    agent = Agent[Any, Any](client=model, tools=[get_weather], **fields)
    async with agent.stream("Hi") as run:
        events = [event async for event in run]
    return next(event for event in events if isinstance(event, RunStarted))


@pytest.mark.parametrize(
    ("profile", "mode"),
    [
        (None, "native"),
        (ServerProfile().with_(blind_template=False, auto_tools=True), "native"),
        (ServerProfile().with_(blind_template=True, structural_tags=True), "guided"),
        (ServerProfile().with_(blind_template=True, structural_tags=False), "envelope"),
    ],
)
async def test_its_profile_decides_the_turn_mode(profile: ServerProfile | None, mode: str) -> None:
    model = Scripted(text("[[final]]Hi[[/final]]" if mode == "guided" else "Hi"), profile=profile)
    started = await mode_of(model, limits=Limits(max_turns=1, repairs=0))
    assert started.turn_mode == mode
    if profile is None:
        assert "no profile" in started.turn_mode_reason


async def test_a_turn_mode_that_is_asked_for_needs_no_profile() -> None:
    model = Scripted(text("[[final]]Hi[[/final]]"))
    assert (await mode_of(model, turn_mode="guided")).turn_mode == "guided"
    assert model.asked[0]["response_format"]["type"] == "structural_tag"


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────


class Broken(Scripted):
    """A stand-in that fails in a way of its own."""

    def __init__(self, fail: Callable[[], Any], events: Callable[[], Any]) -> None:
        super().__init__()
        self._fail = fail
        self._fail_events = events

    async def create(self, *, messages: Iterable[Any], **params: Any) -> ChatCompletion[Any]:
        reply: ChatCompletion[Any] = self._fail()
        return reply

    def stream(self, *, messages: Iterable[Any], **params: Any) -> ChatEvents:
        events: ChatEvents = self._fail_events()
        return events


def raising(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


BROKEN: dict[str, tuple[Callable[[], Any], Callable[[], Any], type[VLLMError], str]] = {
    "an error of ours": (
        raising(ConnectError("nobody there")),
        lambda: Events([TextDelta(text="He"), ConnectError("nobody there")]),
        ConnectError,
        "nobody there",
    ),
    "an exception of its own": (
        raising(KeyError("choices")),
        lambda: Events([TextDelta(text="He"), KeyError("choices")]),
        ProtocolError,
        "Broken raised KeyError: 'choices'",
    ),
    "raised at once": (
        raising(ValueError("no")),
        raising(ValueError("no")),
        ProtocolError,
        "Broken raised ValueError: no",
    ),
    "a cancellation that nobody asked for": (
        raising(asyncio.CancelledError()),
        lambda: Events([asyncio.CancelledError()]),
        ProtocolError,
        "cancelled by itself",
    ),
    "a reply of another kind, or none": (
        lambda: {"choices": []},
        lambda: Events([TextDelta(text="He")]),
        ProtocolError,
        "Broken: ",
    ),
}


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("name", BROKEN)
async def test_a_run_ends_by_what_a_stand_in_does_wrong(name: str, streaming: bool) -> None:
    fail, events, kind, said = BROKEN[name]
    agent = Agent(client=Broken(fail, events), streaming=streaming)
    result = await agent.run("Hi")
    assert result.stop_reason == "error"
    assert type(result.error) is kind
    assert said in str(result.error)


async def test_what_had_come_before_it_broke_is_kept() -> None:
    events = Events([TextDelta(text="Hel"), TextDelta(text="lo"), KeyError("x")])
    result = await Agent(client=Broken(raising(KeyError()), lambda: events)).run("Hi")
    assert result.text == "Hello"


async def test_a_usage_error_of_a_stand_in_is_the_callers() -> None:
    model = Broken(raising(UsageError("no such option")), raising(UsageError("no such option")))
    for streaming in (True, False):
        with pytest.raises(UsageError, match="no such option"):
            await Agent(client=model, streaming=streaming).run("Hi")


async def test_an_interrupted_stand_in_is_left_and_what_it_said_is_kept() -> None:
    left = asyncio.Event()

    class Slow(Events):
        def __init__(self) -> None:
            super().__init__([])
            self._said = False

        async def __aexit__(self, *_: object) -> None:
            left.set()

        async def __anext__(self) -> StreamEvent:
            if self._said:
                await asyncio.Event().wait()
            self._said = True
            self.partial = text("Hel", "")
            return TextDelta(text="Hel")

    agent = Agent(client=Broken(raising(KeyError()), Slow))
    async with agent.stream("Hi") as run:
        async for event in run:
            if isinstance(event, TextDelta):
                await run.interrupt()
    assert run.result.stop_reason == "interrupted"
    assert run.result.text == "Hel"
    assert left.is_set()


# ── definition ───────────────────────────────────────────────────────────────────────────────────


def shaped(**completions: Any) -> Any:
    """A stand-in with this much of a model."""
    return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(**completions)))


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (object(), r"object has no chat\.completions\.create"),
        (shaped(create=print), r"SimpleNamespace has no chat\.completions\.stream"),
        (shaped(create=print, stream=print), "SimpleNamespace has no resolve_model"),
        (7, "int has no"),
        ([], "the addresses of servers"),
        ([7], "the addresses of servers"),
        (Scripted(profile={"tools": True}), "profile of Scripted is a dict"),
    ],
)
def test_what_is_no_model_is_told_at_definition(client: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Agent(client=client)


def test_responses_need_a_client_of_ours() -> None:
    with pytest.raises(UsageError, match="'responses' needs an AsyncVLLM"):
        Agent(client=Scripted(), api="responses")


async def test_a_client_of_ours_fulfils_the_protocol() -> None:
    async with AsyncVLLM("http://127.0.0.1:9/v1") as client:
        model: ChatModel = client
        assert callable(model.chat.completions.create)
        assert await model.resolve_model("m") == "m"
