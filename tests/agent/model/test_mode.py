"""Which turn mode a run takes, by what is known of its server."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import Agent, AsyncVLLM, tool
from vllm_agent_sdk.agent.model.mode import Choice, Learnt, choose_mode
from vllm_agent_sdk.testing import Reply, Simulator, SimulatorRequest
from vllm_agent_sdk.types.profile import Known, ServerProfile
from vllm_agent_sdk.types.server import ModelInfo
from vllm_agent_sdk.types.tools import ToolSpec

pytestmark = pytest.mark.feature("O-06")

TOOL = ToolSpec(name="f", parameters={"type": "object"})
SHOWS = ServerProfile(model="m").with_(blind_template=False)


async def chosen(
    profile: ServerProfile, asked: str = "auto", *, typed: bool = False, tools: Any = (TOOL,)
) -> Choice:
    """What is chosen for a server whose profile is known; nobody listens at its address."""
    learnt = Learnt()
    async with AsyncVLLM("http://127.0.0.1:9/v1") as client:
        learnt.profiles[client.base_url, client.model] = profile
        return await choose_mode(asked, list(tools), client, "m", learnt, typed)


@pytest.mark.parametrize("typed", [False, True])
async def test_without_tools_turns_are_plain_and_nothing_is_asked(typed: bool) -> None:
    async with AsyncVLLM("http://127.0.0.1:9/v1") as client:
        choice = await choose_mode("auto", [], client, "m", Learnt(), typed)
    assert (choice.mode, choice.reason, choice.window) == ("plain", "there are no tools", None)


async def test_plain_is_taken_without_asking_the_server() -> None:
    async with AsyncVLLM("http://127.0.0.1:9/v1") as client:
        choice = await choose_mode("plain", [TOOL], client, "m", Learnt())
    assert (choice.mode, choice.dialect) == ("plain", "native")


async def test_a_template_that_shows_tools_gets_native_calls() -> None:
    choice = await chosen(SHOWS)
    assert (choice.mode, choice.dialect, choice.notice) == ("native", "native", None)
    assert "shows tools" in choice.reason


async def test_a_typed_output_beside_tools_is_given_by_a_required_call() -> None:
    choice = await chosen(SHOWS, typed=True)
    assert (choice.mode, choice.dialect) == ("required", "native")


@pytest.mark.parametrize("typed", [False, True])
async def test_a_blind_template_gets_guided_turns(typed: bool) -> None:
    choice = await chosen(SHOWS.with_(blind_template=True), typed=typed)
    assert (choice.mode, choice.dialect) == ("guided", "text")
    assert "shows no tools" in choice.reason


@pytest.mark.parametrize(("typed", "fact"), [(False, "auto_tools"), (True, "required_tools")])
async def test_missing_flags_give_guided_turns_and_are_named(typed: bool, fact: str) -> None:
    lacks = Known(False, "refusal", "--tool-call-parser NAME", "it said so")
    choice = await chosen(SHOWS.with_(**{fact: lacks}), typed=typed)
    assert choice.mode == "guided"
    assert "it said so" in choice.reason
    other = await chosen(SHOWS.with_(**{fact: lacks}), typed=not typed)
    assert other.mode in {"native", "required"}


async def test_a_server_without_structural_tags_gets_envelopes() -> None:
    profile = SHOWS.with_(blind_template=True, structural_tags=False)
    choice = await chosen(profile)
    assert (choice.mode, choice.dialect) == ("envelope", "text")
    assert "structural tags" in choice.reason


async def test_an_unknown_template_gets_native_calls_and_the_user_is_told() -> None:
    profile = ServerProfile().with_(blind_template=Known(reason="/tokenize: 404"))
    choice = await chosen(profile)
    assert choice.mode == "native"
    assert choice.notice is not None
    assert "/tokenize: 404" in choice.notice
    assert "turn_mode='guided'" in choice.notice
    assert (await chosen(profile, typed=True)).mode == "guided"


@pytest.mark.parametrize("asked", ["native", "required", "guided", "envelope"])
async def test_a_mode_that_is_asked_for_is_taken(asked: str) -> None:
    choice = await chosen(SHOWS.with_(blind_template=True, structural_tags=False), asked)
    assert (choice.mode, choice.reason) == (asked, "asked for")


async def test_the_window_is_that_of_the_model() -> None:
    cards = (ModelInfo(id="m", max_model_len=4096), ModelInfo(id="lora", parent="m"))
    profile = SHOWS.with_(models=cards, context_length=4096)
    assert (await chosen(profile)).window == 4096
    async with AsyncVLLM("http://127.0.0.1:9/v1") as client:
        learnt = Learnt({(client.base_url, None): profile})
        assert (await choose_mode("auto", [TOOL], client, "lora", learnt)).window == 4096


async def test_the_profile_is_asked_for_once_and_given_to_a_fresh_client() -> None:
    learnt = Learnt()
    async with Simulator(Reply.text("x"), blind=True) as server:
        async with AsyncVLLM(server.base_url) as client:
            first = await choose_mode("auto", [TOOL], client, "sim-model", learnt)
        asked = len(server.requests)
        async with AsyncVLLM(server.base_url) as client:
            learnt.give(client)
            assert await choose_mode("auto", [TOOL], client, "sim-model", learnt) == first
            profile = await client.server.profile()
        assert len(server.requests) == asked
    assert (first.mode, first.window) == ("guided", 8192)
    assert profile.blind_template.value is True


async def test_where_a_run_had_to_move_the_next_one_begins() -> None:
    learnt = Learnt()
    async with AsyncVLLM("http://127.0.0.1:9/v1") as client:
        learnt.profiles[client.base_url, None] = SHOWS
        learnt.moved(client, "envelope", "no tags")
        choice = await choose_mode("auto", [TOOL], client, "m", learnt)
        asked = await choose_mode("native", [TOOL], client, "m", learnt)
    assert choice.mode == "envelope"
    assert "no tags" in choice.reason
    assert asked.mode == "native"


@tool
async def double(n: int) -> str:
    """Double a number."""
    return str(2 * n)


async def test_a_server_that_refuses_structural_tags_is_asked_in_envelopes_from_then_on() -> None:
    def answer(request: SimulatorRequest) -> Reply:
        body = request.json
        if body["response_format"]["type"] == "structural_tag":
            message = "Invalid response_format structural_tag specification."
            return Reply.error(400, message=f"{message} (parameter=response_format)")
        if body["messages"][-1]["content"] == "Twice 4?":
            return Reply.text('{"tool": "double", "arguments": {"n": 4}}')
        assert body["messages"][-1]["content"] == "[[result double]]8[[/result]]"
        return Reply.text('{"final": "It is 8."}')

    async with Simulator(answer, blind=True) as server:
        agent = Agent(client=server.base_url, tools=[double])
        async with agent:
            first = await agent.run("Twice 4?")
            asked = len(server.requests)
            second = await agent.run("Twice 4?")
            assert len(server.requests) == asked + 2
    assert (first.text, first.turn_mode, second.turn_mode) == ("It is 8.", "envelope", "envelope")


async def test_a_server_without_flags_is_asked_in_guided_turns_from_then_on() -> None:
    async with Simulator(Reply.text("[[final]]Hello.[[/final]]"), tool_parser=None) as server:
        agent = Agent(client=server.base_url, tools=[double])
        results = [await agent.run("Hi") for _ in range(2)]
        chats = [r for r in server.requests if r.path == "/v1/chat/completions"]
        assert ["tools" in request.json for request in chats] == [True, False, False]
    assert [(each.turn_mode, each.text) for each in results] == [("guided", "Hello.")] * 2


@pytest.mark.feature("O-08")
async def test_what_the_models_name_tells_decides_how_requests_are_written() -> None:
    cards = (
        ModelInfo(id="chat", root="mistralai/Ministral-8B-Instruct"),
        ModelInfo(id="tuned", parent="chat"),
        ModelInfo(id="phi", root="microsoft/Phi-4-mini-instruct"),
        ModelInfo(id="qwen", root="Qwen/Qwen3-8B"),
    )
    learnt = Learnt()
    async with AsyncVLLM("http://127.0.0.1:9/v1") as client:
        learnt.profiles[client.base_url, None] = ServerProfile().with_(models=cards)
        assert learnt.traits(client, "chat").nine_ids
        assert learnt.traits(client, "tuned").nine_ids
        assert not learnt.traits(client, "phi").streams_calls
        qwen = learnt.traits(client, "qwen")
        assert (qwen.text_calls, qwen.thinking_switch, qwen.nine_ids) == (
            "hermes",
            "enable_thinking",
            False,
        )
        assert learnt.traits(client, "qwen") is qwen
