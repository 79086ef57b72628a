"""The request as it is sent, after defaults: kept with each model call of a run."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from vllm_agent_sdk import Agent, ModelEnded, ModelStarted, Sampling, UsageError, tool
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.types.events import decode_event
from vllm_agent_sdk.types.profile import ServerProfile

from .support import HI, served

pytestmark = pytest.mark.feature("O-16")

CHAT = "/v1/chat/completions"
DEFAULTS = {"client": {"defaults": {"top_k": 7, "seed": 3, "temperature": 0.9}}}


@tool
async def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"Sunny in {city}"


def bodies(server: Any) -> list[dict[str, Any]]:
    """What the server got, with the number of the messages in their place."""
    sent = [each.json for each in server.requests if each.path == CHAT]
    return [{**body, "messages": len(body["messages"])} for body in sent]


async def started(agent: Agent[Any, Any], prompt: str = "Hi") -> list[ModelStarted]:
    async with agent.stream(prompt) as run:
        return [event async for event in run if isinstance(event, ModelStarted)]


async def put(run: Any, seen: list[Any]) -> None:
    async for event in run:
        seen.append(event)  # noqa: PERF401 - what came before an error counts too


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("mode", ["native", "guided", "envelope", "required"])
async def test_each_model_call_keeps_the_body_that_the_server_got(
    mode: Any, streaming: bool
) -> None:
    called = Reply.calls(("get_weather", {"city": "Paris"}))
    if mode == "guided":
        called = Reply.text('[[call get_weather]]{"city": "Paris"}[[/call]]')
    final = Reply.text("[[final]]Sunny[[/final]]" if mode == "guided" else "Sunny")
    async with served(called, final, **DEFAULTS) as (server, vllm):
        agent = Agent(
            client=vllm,
            tools=[get_weather],
            turn_mode=mode,
            streaming=streaming,
            sampling=Sampling(temperature=0, extra_body={"min_tokens": 1}),
        )
        events = await started(agent)
    assert [event.request for event in events] == bodies(server)
    first = events[0].request
    assert (first["temperature"], first["top_k"], first["seed"]) == (0, 7, 3)
    assert first["min_tokens"] == 1
    assert first["model"] == "sim-model"
    assert first.get("stream", False) is streaming
    assert "[" not in str(first["messages"])
    for event in events:
        assert decode_event(msgspec.json.encode(event)) == event


async def test_thinking_is_kept_as_the_fields_it_was_sent_as() -> None:
    switch = {"thinking_switch": "enable_thinking", "reasoning_parser": True}
    async with served(Reply.text("Hello")) as (server, vllm):
        vllm.server.set_profile(ServerProfile(model="sim-model").with_(**switch))
        (event,) = await started(Agent(client=vllm, sampling=Sampling(thinking=False)))
    assert event.request["chat_template_kwargs"] == {"enable_thinking": False}
    assert "thinking" not in event.request
    assert [event.request] == bodies(server)


async def test_an_older_server_is_shown_the_names_it_got() -> None:
    async with served(Reply.text("aa"), check_fields=False) as (server, vllm):
        vllm.server.set_profile(ServerProfile(model="sim-model").with_(version="0.10.2"))
        form = {"structured_outputs": {"regex": "a+"}}
        (event,) = await started(Agent(client=vllm, sampling=Sampling(extra_body=form)))
    assert event.request["guided_regex"] == "a+"
    assert [event.request] == bodies(server)


async def test_no_request_is_shown_where_none_went_out() -> None:
    seen: list[Any] = []
    async with served(Reply.text("Hi")) as (server, vllm):
        agent = Agent(client=vllm, sampling=Sampling(extra_body={"temperature": 9}))
        run = agent.stream("Hi")
        with pytest.raises(UsageError, match="temperature"):
            await put(run, seen)
        await run.aclose()
    assert not bodies(server)
    assert not any(isinstance(event, ModelStarted) for event in seen)
    assert any(isinstance(event, ModelEnded) and event.error for event in seen)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_clients_request_can_be_seen_before_it_is_sent(stream: bool) -> None:
    async with served(Reply.text("Hi"), **DEFAULTS) as (server, vllm):
        completions = vllm.chat.completions
        request = completions.request(HI, {"model": "sim-model", "top_p": 0.5}, stream=stream)
        shown = completions.as_sent(request)
        assert not server.requests
        if stream:
            await completions.streamed(request).final()
        else:
            await completions.whole(request)
    assert [{**shown, "messages": 1}] == bodies(server)
    assert "messages" not in shown
