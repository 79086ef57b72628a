"""Agents over Responses: the same runs as over chat completions, in Responses' own shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_agent_sdk import (
    Agent,
    AsyncVLLM,
    Compacted,
    Context,
    Limits,
    Message,
    ReasoningDelta,
    RunResult,
    Sampling,
    StreamTruncatedError,
    TextDelta,
    ToolCallReady,
    UsageError,
    tool,
)
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.types.messages import AssistantMessage, ToolMessage
from vllm_agent_sdk.types.profile import ServerProfile

pytestmark = pytest.mark.feature("A-15")

APIS = ("chat", "responses")
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}
PARIS, ROME = ("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})


class Weather(msgspec.Struct):
    city: str
    degrees: int


@tool
async def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"18 °C in {city}"


@tool
async def fail() -> str:
    """Fail."""
    raise RuntimeError("no")


class Played:
    """A run, what was seen of it, and what was sent."""

    def __init__(self, result: RunResult[Any], seen: Sequence[Any], sent: list[Any]) -> None:
        self.result = result
        self.seen = seen
        self.sent = sent


async def played(
    api: Any, replies: Sequence[Reply], prompts: Sequence[str] = ("Hi",), **fields: Any
) -> Played:
    seen: list[Any] = []
    fields = {"tools": [get_weather, fail], "turn_mode": "native", **fields}
    server = Simulator(*replies)
    history: list[Message] = []
    result: RunResult[Any] = RunResult()
    async with AsyncVLLM("http://sim", transport=server.transport) as client:
        agent = Agent[Any, Any](client=client, api=api, **fields)
        for prompt in prompts:
            async with agent.stream(prompt, history=history) as run:
                seen += [event async for event in run]
            result = run.result
            history = result.messages
    sent = [each for each in server.requests if each.path in PATHS.values()]
    assert {each.path for each in sent} == {PATHS[api]}
    return Played(result, seen, [each.json for each in sent])


def plain(messages: Sequence[Message]) -> list[Any]:
    """Messages with their calls numbered in place of ids, which are the server's."""
    numbers: dict[str, str] = {}

    def number(call_id: str) -> str:
        return numbers.setdefault(call_id, f"call {len(numbers)}")

    wire: list[Any] = msgspec.to_builtins(messages)
    for message, built in zip(messages, wire, strict=True):
        if isinstance(message, AssistantMessage):
            for block in built.get("content", ()):
                if block["type"] == "tool_call":
                    block["id"] = number(block["id"])
        elif isinstance(message, ToolMessage):
            built["call_id"] = number(message.call_id)
    return wire


def facts(run: Played) -> dict[str, Any]:
    """What is to be the same over both."""
    result = run.result
    return {
        "messages": plain(result.messages),
        "text": result.text,
        "stop_reason": result.stop_reason,
        "finish_reason": result.finish_reason,
        "turns": result.turns,
        "tool_calls": result.tool_calls,
        "usage": result.usage,
        "error": None if result.error is None else type(result.error),
        "events": [type(event).__name__ for event in run.seen],
        "shown": "".join(each.text for each in run.seen if isinstance(each, TextDelta)),
        "thought": "".join(each.text for each in run.seen if isinstance(each, ReasoningDelta)),
        "calls": [each.call.name for each in run.seen if isinstance(each, ToolCallReady)],
    }


GUIDED = Reply.text('[[call get_weather]]{"city": "Paris"}[[/call]]')
ENVELOPE = Reply.text('{"tool": "get_weather", "arguments": {"city": "Paris"}}')
ANSWER = {"answer": {"city": "Paris", "degrees": 18}}
DONE = Reply.text("It is 18 °C.")
RUNS: dict[str, tuple[list[Reply], dict[str, Any]]] = {
    "text": ([DONE], {}),
    "no tools": ([DONE], {"tools": ()}),
    "instructions": ([DONE], {"instructions": "Be brief."}),
    "a call": ([Reply.calls(PARIS), DONE], {}),
    "two calls": ([Reply.calls(PARIS, ROME), DONE], {}),
    "text and a call": ([Reply.calls(PARIS, text="I will look."), DONE], {}),
    "thinking": ([Reply.reasoning("Hm.", text="Yes.")], {}),
    "thinking and a call": ([Reply.calls(PARIS, reasoning="Hm."), DONE], {}),
    "only thinking": ([Reply.reasoning("Hm.")], {}),
    "a tool that fails": ([Reply.calls(("fail", {})), DONE], {}),
    "an unknown tool": ([Reply.calls(("other", {})), DONE], {}),
    "invalid arguments": ([Reply.calls(("get_weather", {"town": 1})), DONE], {}),
    "too long": ([Reply.text("It is", finish_reason="length")], {}),
    "nothing": ([Reply.text("")], {}),
    "too many turns": ([Reply.calls(PARIS)], {"limits": Limits(max_turns=2)}),
    "the same call again": ([Reply.calls(PARIS)], {}),
    "guided": ([GUIDED, Reply.text("[[final]]18[[/final]]")], {"turn_mode": "guided"}),
    "guided, out of form": ([Reply.text("Hello")], {"turn_mode": "guided"}),
    "envelope": ([ENVELOPE, Reply.text('{"answer": "18"}')], {"turn_mode": "envelope"}),
    "typed": (
        [Reply.text('{"city": "Paris", "degrees": 18}')],
        {"tools": (), "output": Weather},
    ),
    "typed, in vain": ([Reply.text('{"city": "Paris"}')], {"tools": (), "output": Weather}),
    "refused": ([Reply.error(400, message="No.")], {}),
    "broken": ([Reply.error(503, message="Later.")], {}),
}


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("name", RUNS)
async def test_the_same_script_gives_the_same_run(name: str, streaming: bool) -> None:
    replies, fields = RUNS[name]
    chat = await played("chat", replies, streaming=streaming, **fields)
    responses = await played("responses", replies, streaming=streaming, **fields)
    assert facts(responses) == facts(chat)
    assert len(responses.sent) == len(chat.sent)


STEPS = st.one_of(
    st.builds(Reply.text, st.text("ab", max_size=5)),
    st.builds(
        lambda names, text: Reply.calls(*[(name, {"city": "X"}) for name in names], text=text),
        st.lists(st.sampled_from(["get_weather", "fail", "other"]), min_size=1, max_size=3),
        st.text("ab", max_size=3),
    ),
    st.builds(Reply.reasoning, st.text("cd", min_size=1, max_size=5)),
)


@given(st.lists(STEPS, min_size=1, max_size=6), st.integers(1, 2), st.booleans())
@settings(max_examples=25)
async def test_any_script_gives_the_same_conversation(
    replies: list[Reply], prompts: int, streaming: bool
) -> None:
    said = ["Hi", "And now?"][:prompts]
    runs = [
        await played(api, replies, said, streaming=streaming, limits=Limits(max_turns=4))
        for api in APIS
    ]
    assert facts(runs[0]) == facts(runs[1])


async def test_a_conversation_that_is_summarised_is_the_same_over_both() -> None:
    runs: list[Any] = []
    for api in APIS:
        server = Simulator(
            Reply.text("word " * 700), Reply.text("They talked."), DONE, max_model_len=1700
        )
        async with AsyncVLLM("http://sim", transport=server.transport) as client:
            agent = Agent[Any, Any](client=client, api=api, context=Context(keep_last=1))
            first = await agent.run("word " * 700)
            async with agent.stream("And now?", history=first.messages) as run:
                events = [event async for event in run]
        assert any(isinstance(event, Compacted) for event in events)
        assert {each.path for each in server.requests if each.path in PATHS.values()} == {
            PATHS[api]
        }
        runs.append((run.result.stop_reason, plain(run.result.messages), len(server.requests)))
    assert runs[0] == runs[1]
    assert "They talked." in str(runs[0])


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────


async def test_a_turn_sends_the_whole_conversation_in_responses_own_items() -> None:
    run = await played(
        "responses",
        [Reply.calls(PARIS, ROME, text="I will look."), DONE, Reply.text("Yes.")],
        ["Weather?", "Sure?"],
        instructions="Be brief.",
    )
    first, second, third = run.sent
    hi = {"type": "message", "role": "user", "content": "Weather?"}
    assert first["input"] == [hi]
    calls = [call.id for call in run.result.messages[1].tool_calls]  # type: ignore[union-attr]
    assert second["input"] == [
        hi,
        {"type": "message", "role": "assistant", "content": "I will look."},
        *(
            {
                "type": "function_call",
                "call_id": call_id,
                "name": "get_weather",
                "arguments": f'{{"city": "{city}"}}',
            }
            for call_id, city in zip(calls, ("Paris", "Rome"), strict=True)
        ),
        *(
            {"type": "function_call_output", "call_id": call_id, "output": f"18 °C in {city}"}
            for call_id, city in zip(calls, ("Paris", "Rome"), strict=True)
        ),
    ]
    assert third["input"] == [
        *second["input"],
        {"type": "message", "role": "assistant", "content": "It is 18 °C."},
        {"type": "message", "role": "user", "content": "Sure?"},
    ]
    for body in run.sent:
        assert body["instructions"] == "Be brief."
        assert body["store"] is False
        assert not body.keys() & {"previous_response_id", "messages", "background", "conversation"}
        assert [each["name"] for each in body["tools"]] == ["get_weather", "fail"]
        assert {each["type"] for each in body["tools"]} == {"function"}
        assert all(each["strict"] for each in body["tools"])


async def test_options_go_out_under_responses_names() -> None:
    sampling = Sampling(temperature=0.5, top_k=3, max_tokens=9, stop=["x"], extra_body={"seed": 7})
    run = await played(
        "responses", [Reply.calls(PARIS), DONE], sampling=sampling, tool_choice="required"
    )
    body = run.sent[0]
    assert (body["temperature"], body["top_k"], body["max_output_tokens"]) == (0.5, 3, 9)
    assert (body["stop"], body["seed"], body["tool_choice"]) == (["x"], 7, "required")


async def test_a_clients_defaults_count_as_over_chat() -> None:
    async with (
        Simulator(DONE) as server,
        AsyncVLLM(server.base_url, defaults={"temperature": 0.25, "max_tokens": 7}) as client,
    ):
        await Agent(client=client, api="responses").run("Hi")
        [request] = [each for each in server.requests if each.path == PATHS["responses"]]
    assert request.json["temperature"] == 0.25
    assert request.json["max_output_tokens"] == 7


async def test_a_field_that_responses_do_not_have_is_the_callers_mistake() -> None:
    async with (
        Simulator(DONE) as server,
        AsyncVLLM(server.base_url, defaults={"min_tokens": 3}) as client,
    ):
        with pytest.raises(UsageError, match="min_tokens"):
            await Agent(client=client, api="responses").run("Hi")
        assert not [each for each in server.requests if each.path == PATHS["responses"]]


async def test_guided_turns_are_constrained_by_structural_tags_there_too() -> None:
    run = await played(
        "responses", [GUIDED, Reply.text("[[final]]x[[/final]]")], turn_mode="guided"
    )
    body = run.sent[0]
    assert "tools" not in body
    assert "text" not in body
    assert '"structural_tag"' in body["structured_outputs"]["structural_tag"]
    assert "get_weather" in body["instructions"]


async def test_typed_answers_are_asked_for_as_the_format_of_the_text() -> None:
    run = await played(
        "responses", [Reply.text('{"city": "Paris", "degrees": 18}')], tools=(), output=Weather
    )
    assert run.result.output == Weather("Paris", 18)
    form = run.sent[0]["text"]["format"]
    assert (form["type"], form["strict"]) == ("json_schema", True)
    assert set(form["schema"]["properties"]) == {"city", "degrees"}


async def test_an_answer_by_a_call_is_the_same_over_both() -> None:
    profile = ServerProfile().with_(blind_template=False, required_tools=True, auto_tools=True)
    answer = Reply.calls(("final_answer", {"city": "Paris", "degrees": 18}))
    outputs: list[Any] = []
    for api in APIS:
        async with (
            Simulator(Reply.calls(PARIS), answer) as server,
            AsyncVLLM(server.base_url) as client,
        ):
            client.server.set_profile(profile)
            agent = Agent[None, Weather](
                client=client, api=api, tools=[get_weather], output=Weather, turn_mode="required"
            )
            result = await agent.run("Weather?")
            outputs.append((result.stop_reason, [*map(type, result.messages)]))
    assert outputs[0] == outputs[1]


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────


async def test_a_cut_response_is_an_error_with_what_had_come() -> None:
    run = await played("responses", [Reply.text("It is warm", cut_after=3600)], tools=())
    assert run.result.stop_reason == "error"
    assert isinstance(run.result.error, StreamTruncatedError)
    assert run.result.error.partial is not None
    shown = "".join(each.text for each in run.seen if isinstance(each, TextDelta))
    assert shown
    assert shown == run.result.error.partial.text == run.result.text


async def test_an_interrupted_response_keeps_what_was_said() -> None:
    async with Simulator(Reply.text("one two three", stall_after=8)) as server:
        agent = Agent(client=server.base_url, api="responses")
        async with agent.stream("Count") as run:
            async for event in run:
                if isinstance(event, TextDelta):
                    await run.interrupt()
        await server.wait_for(lambda: server.disconnects == 1)
    assert run.result.stop_reason == "interrupted"
    assert run.result.text
    assert "one two three".startswith(run.result.text)


async def test_too_long_a_conversation_is_a_context_overflow_over_both() -> None:
    words = "word " * 300
    for api in APIS:
        async with Simulator(DONE, max_model_len=200) as server:
            result = await Agent(client=server.base_url, api=api).run(words)
        assert result.stop_reason == "context_overflow"


async def test_a_stop_text_that_may_have_ended_a_typed_answer_is_not_the_servers_fault() -> None:
    reply = Reply.text("Paris, of cour")
    run = await played(
        "responses",
        [reply],
        tools=(),
        output=Weather,
        sampling=Sampling(stop="se"),
        limits=Limits(repairs=0),
    )
    assert run.result.stop_reason == "output_invalid"


# ── reading ──────────────────────────────────────────────────────────────────────────────────────

HERMES = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.mark.parametrize("streaming", [True, False])
async def test_calls_left_in_the_text_are_read_there_too(streaming: bool) -> None:
    # Unlike chat, Responses takes tools on a server that has no parser for calls.
    async with (
        Simulator(Reply.text(HERMES), DONE, tool_parser=None) as server,
        AsyncVLLM(server.base_url) as client,
    ):
        client.server.set_profile(ServerProfile().with_(call_format="hermes"))
        agent = Agent[Any, Any](
            client=client,
            api="responses",
            tools=[get_weather],
            turn_mode="native",
            streaming=streaming,
        )
        result = await agent.run("Weather?")
    assert result.tool_calls == {"get_weather": 1}
    assert result.text == "It is 18 °C."


@pytest.mark.parametrize("streaming", [True, False])
async def test_thinking_tags_are_split_off_there_too(streaming: bool) -> None:
    async with (
        Simulator(Reply.text("<think>Hm.</think>Yes.")) as server,
        AsyncVLLM(server.base_url) as client,
    ):
        client.server.set_profile(ServerProfile().with_(think_tags=True))
        result = await Agent(client=client, api="responses", streaming=streaming).run("Hi")
    assert result.text == "Yes."
    assert result.messages[-1].reasoning == "Hm."  # type: ignore[union-attr]


async def test_thinking_is_switched_as_over_chat() -> None:
    profile = ServerProfile().with_(thinking_switch="enable_thinking", thinking_efforts=True)
    for thinking, expected in (
        (False, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("low", {"reasoning": {"effort": "low"}}),
    ):
        async with Simulator(DONE) as server, AsyncVLLM(server.base_url) as client:
            client.server.set_profile(profile)
            sampling = Sampling(thinking=thinking)
            result = await Agent(client=client, api="responses", sampling=sampling).run("Hi")
            [request] = [each for each in server.requests if each.path == PATHS["responses"]]
        assert result.stop_reason == "end_turn"
        assert {name: request.json[name] for name in expected} == expected


# ── definition ───────────────────────────────────────────────────────────────────────────────────


def test_an_api_that_there_is_not_is_told() -> None:
    with pytest.raises(UsageError, match="'chat' or 'responses'"):
        Agent(api="completions")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_thinking_bounded_by_tokens_is_told_at_definition() -> None:
    with pytest.raises(UsageError, match="tokens"):
        Agent(api="responses", sampling=Sampling(thinking=100))
    Agent(api="responses", sampling=Sampling(thinking=True))
