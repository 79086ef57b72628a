"""Agents against the simulator: what a user sees of a run."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    AssistantMessage,
    AsyncVLLM,
    ConnectError,
    Interrupted,
    Limits,
    MessageAdded,
    ModelEnded,
    ModelStarted,
    Notice,
    RunContext,
    RunEnded,
    RunResult,
    RunStarted,
    Sampling,
    SettingsChanged,
    StreamTruncatedError,
    TextBlock,
    TextDelta,
    ToolCallDelta,
    ToolCallReady,
    ToolEnded,
    ToolMessage,
    ToolProgress,
    ToolStarted,
    TurnStarted,
    UsageError,
    UserMessage,
    query,
    tool,
)
from vllm_agent_sdk.agent.run.event_queue import QUEUE_SIZE
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.types.events import decode_event
from vllm_agent_sdk.types.results import ErrorInfo

PARIS = ("get_weather", {"city": "Paris"})


@tool
async def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"18 °C in {city}"


async def events_of(run: Any) -> list[Any]:
    return [event async for event in run]


def kinds(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


@pytest.mark.feature("A-01")
async def test_an_agent_without_tools_answers(client: Any) -> None:
    async with Simulator(Reply.text("Hello you.")) as server:
        result = await Agent(client=client(server), instructions="Be kind.").run("Hi")
    assert result.output == result.text == "Hello you."
    assert (result.stop_reason, result.is_error, result.turn_mode) == ("end_turn", False, "plain")
    assert server.chats[0].json["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.feature("A-02")
async def test_a_tool_is_called_and_its_result_is_sent_back_natively(client: Any) -> None:
    async with Simulator(Reply.calls(PARIS), Reply.text("It is 18 °C.")) as server:
        result = await Agent(client=client(server), tools=[get_weather]).run("Weather?")
    assert result.text == "It is 18 °C."
    assert result.tool_calls == {"get_weather": 1}
    assert result.turn_mode == "native"
    first, second = server.chats[0].json, server.chats[1].json
    assert first["tools"][0]["function"]["strict"] is True
    call, answer = second["messages"][1:]
    assert call["tool_calls"][0]["function"]["name"] == "get_weather"
    assert answer == {
        "role": "tool",
        "tool_call_id": call["tool_calls"][0]["id"],
        "content": "18 °C in Paris",
    }


@pytest.mark.feature("O-06")
async def test_on_a_blind_template_turns_are_guided_and_the_history_is_text(client: Any) -> None:
    replies = (
        Reply.text('[[call get_weather]]{"city": "Paris"}[[/call]]'),
        Reply.text("[[final]]It is 18 °C.[[/final]]"),
    )
    async with Simulator(*replies, blind=True) as server:
        agent = Agent(client=client(server), tools=[get_weather])
        async with agent.stream("Weather?") as run:
            events = await events_of(run)
    assert run.result.text == "It is 18 °C."
    started = next(event for event in events if isinstance(event, RunStarted))
    assert (started.turn_mode, started.dialect) == ("guided", "text")
    assert "shows no tools" in started.turn_mode_reason
    body = server.chats[1].json
    assert "tools" not in body
    assert body["response_format"]["type"] == "structural_tag"
    assert body["messages"][-2:] == [
        {"role": "assistant", "content": '[[call get_weather]]{"city": "Paris"}[[/call]]'},
        {"role": "user", "content": "[[result get_weather]]18 °C in Paris[[/result]]"},
    ]
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == "It is 18 °C."


@pytest.mark.feature("O-06")
async def test_without_the_servers_flags_the_run_moves_to_guided_and_remembers(client: Any) -> None:
    replies = (
        Reply.text('[[call get_weather]]{"city": "Paris"}[[/call]]'),
        Reply.text("[[final]]Done.[[/final]]"),
    )
    async with Simulator(*replies, tool_parser=None) as server:
        agent = Agent(client=client(server), tools=[get_weather])
        async with agent.stream("Weather?") as run:
            events = await events_of(run)
        again = await agent.run("And now?")
    assert run.result.text == "Done."
    changed = next(event for event in events if isinstance(event, SettingsChanged))
    assert (changed.what, changed.old, changed.new) == ("turn_mode", "native", "guided")
    assert "--enable-auto-tool-choice" in changed.reason
    assert run.result.turn_mode == "guided"
    assert again.turn_mode == "guided"
    refused = [chat for chat in server.chats if "tools" in chat.json]
    assert len(refused) == 1


async def test_a_server_without_tokenize_is_told_about_in_a_notice(client: Any) -> None:
    async with Simulator(Reply.text("Hello.")) as server:
        transport = server.transport

        class NoTokenize:
            """A proxy that passes only /v1 on."""

            async def send(self, request: Any) -> Any:
                if request.url.endswith("/tokenize"):
                    request = type(request)(
                        **{name: getattr(request, name) for name in request.__struct_fields__}
                        | {"url": "http://sim/nothing"}
                    )
                return await transport.send(request)

            async def aclose(self) -> None:
                await transport.aclose()

        async with AsyncVLLM("http://sim", transport=NoTokenize()) as vllm:
            events = await events_of(Agent(client=vllm, tools=[get_weather]).stream("Hi"))
    notice = next(event for event in events if isinstance(event, Notice))
    assert "/tokenize" in notice.text
    assert events[-1].result.turn_mode == "native"


@pytest.mark.feature("A-01")
async def test_the_events_of_a_run_come_in_order_and_are_json_both_ways(client: Any) -> None:
    async with Simulator(Reply.calls(PARIS), Reply.text("It is 18 °C.")) as server:
        agent = Agent(client=client(server), tools=[get_weather], name="weather")
        events = await events_of(agent.stream("Weather?"))
    stored = [event for event in events if event.seq is not None]
    assert kinds(stored) == [
        "RunStarted",
        "MessageAdded",
        "TurnStarted",
        "ModelStarted",
        "ModelEnded",
        "ToolStarted",
        "ToolEnded",
        "TurnStarted",
        "ModelStarted",
        "ModelEnded",
        "RunEnded",
    ]
    assert [event.seq for event in stored] == list(range(1, 12))
    assert {event.agent_id for event in events} == {"weather"}
    assert len({event.run_id for event in events}) == 1
    import msgspec

    for event in events:
        assert decode_event(msgspec.json.encode(event)) == event


@pytest.mark.feature("O-16")
async def test_the_request_as_sent_is_kept_without_its_messages(client: Any) -> None:
    async with Simulator(Reply.text("ok")) as server:
        agent = Agent(client=client(server), sampling=Sampling(temperature=0, max_tokens=9))
        events = await events_of(agent.stream("Hi"))
    started = next(event for event in events if isinstance(event, ModelStarted))
    assert started.request["temperature"] == 0
    assert started.request["max_tokens"] == 9
    assert started.request["messages"] == 1


@pytest.mark.feature("A-02")
async def test_tools_run_side_by_side_and_results_keep_the_order_of_the_calls(client: Any) -> None:
    both = asyncio.Barrier(2)
    ended: list[str] = []

    @tool
    async def meet(name: str) -> str:
        """Meet."""
        await asyncio.wait_for(both.wait(), 5)
        if name == "a":
            await asyncio.sleep(0.01)
        ended.append(name)
        return name

    calls = (("meet", {"name": "a"}), ("meet", {"name": "b"}))
    async with Simulator(Reply.calls(*calls), Reply.text("ok")) as server:
        result = await Agent(client=client(server), tools=[meet]).run("go")
    assert ended == ["b", "a"]
    assert [m.text for m in result.messages if isinstance(m, ToolMessage)] == ["a", "b"]


@pytest.mark.feature("A-02")
async def test_a_tool_that_raises_gives_the_model_an_error_and_the_run_goes_on(client: Any) -> None:
    @tool
    def divide(a: int, b: int) -> float:
        """Divide."""
        return a / b

    calls = Reply.calls(("divide", {"a": 1, "b": 0}))
    async with Simulator(calls, Reply.text("Not possible.")) as server:
        result = await Agent(client=client(server), tools=[divide]).run("1/0?")
    (answer,) = (m for m in result.messages if isinstance(m, ToolMessage))
    assert answer.is_error
    assert answer.text == "ZeroDivisionError: division by zero"
    assert result.stop_reason == "end_turn"


@pytest.mark.feature("A-02")
async def test_a_tool_that_takes_too_long_is_cancelled_and_says_so(client: Any) -> None:
    cancelled = asyncio.Event()

    @tool(timeout=0.05)
    async def wait() -> str:
        """Wait for ever."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return ""

    async with Simulator(Reply.calls(("wait", {})), Reply.text("Too slow.")) as server:
        result = await Agent(client=client(server), tools=[wait]).run("go")
    (answer,) = (m for m in result.messages if isinstance(m, ToolMessage))
    assert answer.is_error
    assert "cancelled after 0.05 s" in answer.text
    assert cancelled.is_set()


@pytest.mark.feature("A-02")
async def test_a_sync_tool_that_takes_too_long_is_never_reported_as_cancelled(client: Any) -> None:
    release = threading.Event()

    @tool(timeout=0.05)
    def wait() -> str:
        """Wait for long."""
        release.wait(10)
        return ""

    async with Simulator(Reply.calls(("wait", {})), Reply.text("Too slow.")) as server:
        result = await Agent(client=client(server), tools=[wait]).run("go")
    release.set()
    (answer,) = (m for m in result.messages if isinstance(m, ToolMessage))
    assert "outcome unknown (still running)" in answer.text


@pytest.mark.feature("A-03")
async def test_a_tool_gets_its_context_and_reports_progress(client: Any) -> None:
    seen: list[RunContext[int]] = []

    @tool
    def work(ctx: RunContext[int]) -> str:
        """Work."""
        seen.append(ctx)
        ctx.progress("half", 0.5)
        return "done"

    async with Simulator(Reply.calls(("work", {})), Reply.text("ok")) as server:
        agent = Agent(client=client(server), tools=[work], deps_type=int)
        async with agent.stream("go", deps=7) as run:
            events = await events_of(run)
    (ctx,) = seen
    assert (ctx.deps, ctx.turn, ctx.run_id) == (7, 1, run.result.run_id)
    (progress,) = (event for event in events if isinstance(event, ToolProgress))
    assert (progress.message, progress.fraction, progress.seq) == ("half", 0.5, None)


@pytest.mark.feature("A-04")
async def test_malformed_arguments_never_reach_the_tool(client: Any) -> None:
    ran: list[str] = []

    @tool
    def get(city: str) -> str:
        """Get."""
        ran.append(city)
        return "ok"

    replies = (
        Reply.calls(("get", '{"city": "Par')),
        Reply.calls(("get", {"town": "Paris"})),
        Reply.calls(("get", {"city": "Paris"})),
        Reply.text("done"),
    )
    async with Simulator(*replies) as server:
        result = await Agent(client=client(server), tools=[get]).run("go")
    assert ran == ["Paris"]
    assert result.stop_reason == "end_turn"
    answers = [m.text for m in result.messages if isinstance(m, ToolMessage)]
    assert "not valid JSON" in answers[0]
    assert "city" in answers[1]
    assert result.tool_calls == {"get": 1}


@pytest.mark.feature("A-04")
async def test_lossless_repairs_are_made_and_recorded(client: Any) -> None:
    @tool
    def double(n: int) -> int:
        """Double a number."""
        return 2 * n

    replies = (Reply.calls(("double", '"{\\"n\\": \\"4\\"}"')), Reply.text("8"))
    async with Simulator(*replies) as server:
        events = await events_of(Agent(client=client(server), tools=[double]).stream("go"))
    (ended,) = (event for event in events if isinstance(event, ToolEnded))
    assert ended.message.text == "8"
    assert len(ended.repairs) == 2
    assert "JSON string" in ended.repairs[0]
    assert "4" in ended.repairs[1]


@pytest.mark.feature("A-04")
async def test_repairs_can_be_switched_off(client: Any) -> None:
    @tool(coerce=False)
    def double(n: int) -> int:
        """Double a number."""
        raise AssertionError

    replies = (
        Reply.calls(("double", '"{\\"n\\": 4}"')),
        Reply.calls(("double", '{"n": "4"}')),
        Reply.text("no"),
    )
    async with Simulator(*replies) as server:
        events = await events_of(Agent(client=client(server), tools=[double]).stream("go"))
    ended = [event for event in events if isinstance(event, ToolEnded)]
    assert [event.executed for event in ended] == [False, False]


@pytest.mark.feature("A-04")
async def test_repairs_are_bounded_and_the_stop_has_a_name(client: Any) -> None:
    async with Simulator(Reply.calls(("get_weather", "[]"))) as server:
        agent = Agent(client=client(server), tools=[get_weather], limits=Limits(repairs=1))
        result = await agent.run("go")
    assert result.stop_reason == "invalid_tool_call"
    assert len(server.chats) == 2
    with pytest.raises(Exception, match="JSON object"):
        result.raise_for_error()


@pytest.mark.feature("A-12")
async def test_a_repeated_call_ends_the_run(client: Any) -> None:
    async with Simulator(Reply.calls(PARIS)) as server:
        result = await Agent(client=client(server), tools=[get_weather]).run("go")
    assert result.stop_reason == "repeated_call"
    assert result.tool_calls == {"get_weather": 2}


async def test_a_destructive_tool_is_denied_where_nobody_can_be_asked(client: Any) -> None:
    ran: list[int] = []

    @tool(destructive=True)
    def wipe() -> str:
        """Wipe."""
        ran.append(1)
        return "wiped"

    async with Simulator(Reply.calls(("wipe", {})), Reply.text("I may not.")) as server:
        result = await Agent(client=client(server), tools=[wipe]).run("go")
    assert not ran
    assert [call.name for call in result.permission_denials] == ["wipe"]
    assert result.text == "I may not."


@pytest.mark.feature("A-06")
async def test_a_stream_that_is_cut_ends_the_run_with_what_had_come(client: Any) -> None:
    cut = Reply.text("one two three", cut_after=800)
    async with Simulator(cut) as server:
        result = await Agent(client=client(server)).run("go")
    assert result.stop_reason == "error"
    assert isinstance(result.error, StreamTruncatedError)
    assert result.error.partial is not None
    assert "one two three".startswith(result.text)
    with pytest.raises(StreamTruncatedError):
        _ = result.output


@pytest.mark.feature("A-06")
async def test_a_server_that_cannot_be_reached_ends_the_run_and_is_no_exception() -> None:
    result = await Agent(client="http://127.0.0.1:9").run("go")
    assert result.stop_reason == "error"
    assert isinstance(result.error, ConnectError)
    assert result.turns == 0
    assert result.messages == [UserMessage("go")]


@pytest.mark.feature("A-06")
async def test_usage_is_summed_over_the_turns_and_by_model(client: Any) -> None:
    replies = (
        Reply.calls(PARIS, usage={"prompt_tokens": 10, "completion_tokens": 3, "cached_tokens": 4}),
        Reply.text("ok", usage={"prompt_tokens": 20, "completion_tokens": 5}),
    )
    async with Simulator(*replies, model="m") as server:
        result = await Agent(client=client(server), tools=[get_weather]).run("go")
    assert (result.usage.input_tokens, result.usage.output_tokens) == (30, 8)
    assert (result.usage.cached_tokens, result.usage.requests) == (4, 2)
    assert [usage.input_tokens for usage in result.usage_by_turn] == [10, 20]
    assert result.usage_by_model == {"m": result.usage}


@pytest.mark.feature("A-06")
async def test_the_time_limit_ends_the_run_and_closes_the_socket(client: Any) -> None:
    async with Simulator(Reply.text("slow", first_delay=60)) as server:
        agent = Agent(client=client(server), limits=Limits(max_seconds=0.05))
        result = await agent.run("go")
        await server.wait_for(lambda: server.running == 0)
    assert result.stop_reason == "max_seconds"


@pytest.mark.feature("A-01")
async def test_history_continues_a_conversation_with_the_same_bytes(client: Any) -> None:
    async with Simulator(Reply.calls(PARIS), Reply.text("18"), Reply.text("20")) as server:
        agent = Agent(client=client(server), tools=[get_weather], instructions="x")
        first = await agent.run("Paris?")
        second = await agent.run("Rome?", history=first.messages)
    before, after = server.chats[1].body, server.chats[2].body
    shared = before[: before.index(b"],")]
    assert after.startswith(shared)
    assert second.messages[: len(first.messages)] == first.messages


async def test_ids_that_a_server_gives_twice_are_told_apart(client: Any) -> None:
    replies = (
        Reply.calls(("get_weather", {"city": "A"}, "call_0")),
        Reply.calls(("get_weather", {"city": "B"}, "call_0")),
        Reply.text("ok"),
    )
    async with Simulator(*replies) as server:
        result = await Agent(client=client(server), tools=[get_weather]).run("go")
    ids = [m.call_id for m in result.messages if isinstance(m, ToolMessage)]
    assert len(set(ids)) == 2
    assert ids[0] == "call_0"


@pytest.mark.feature("A-08")
async def test_an_interrupt_keeps_the_partial_text_and_frees_the_server(client: Any) -> None:
    async with Simulator(Reply.text(chunks=["one"] * 500, delay=0.01)) as server:
        async with Agent(client=client(server)).stream("go") as run:
            async for event in run:
                if isinstance(event, TextDelta):
                    break
            await run.interrupt()
            rest = await events_of(run)
        await server.wait_for(lambda: server.running == 0)
    assert run.result.stop_reason == "interrupted"
    assert run.result.text.startswith("one")
    assert not run.result.is_error
    assert kinds(rest)[-2:] == ["Interrupted", "RunEnded"]
    assert isinstance(rest[-2], Interrupted)


async def test_interrupting_a_run_that_has_ended_does_nothing(client: Any) -> None:
    async with Simulator(Reply.text("ok")) as server:
        run = Agent(client=client(server)).stream("go")
        result = await run
        await run.interrupt()
    assert run.result is result
    assert result.stop_reason == "end_turn"


@pytest.mark.feature("C-09")
async def test_leaving_the_block_cancels_the_run_and_frees_the_server(client: Any) -> None:
    async with Simulator(Reply.text("late", first_delay=60)) as server:
        async with Agent(client=client(server)).stream("go") as run:
            async for event in run:
                if isinstance(event, ModelStarted):
                    break
        await server.wait_for(lambda: server.running == 0)
    with pytest.raises(UsageError, match="no result yet"):
        _ = run.result
    assert run.partial.stop_reason == "interrupted"


@pytest.mark.feature("C-09")
async def test_cancelling_who_waits_cancels_the_run_and_its_tools(client: Any) -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    @tool
    async def hang() -> str:
        """Hang."""
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    async with Simulator(Reply.calls(("hang", {}))) as server:
        task = asyncio.ensure_future(Agent(client=client(server), tools=[hang]).run("go"))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cancelled.is_set()


@pytest.mark.feature("C-09")
async def test_a_run_that_is_dropped_frees_the_server_and_warns_once(client: Any) -> None:
    async with Simulator(Reply.text("late", first_delay=60)) as server:
        run = Agent(client=client(server)).stream("go")
        async for event in run:
            if isinstance(event, ModelStarted):
                break
        await server.wait_for(lambda: server.running == 1)
        with pytest.warns(ResourceWarning, match="A run was dropped") as warned:  # noqa: PT031
            del run
            gc.collect()
        assert len(warned) == 1
        await server.wait_for(lambda: server.running == 0)


@pytest.mark.feature("S-08")
async def test_a_slow_reader_stalls_nothing_and_loses_no_text(client: Any) -> None:
    pieces = [f"{number} " for number in range(3 * QUEUE_SIZE)]
    async with Simulator(Reply.text(chunks=pieces)) as server:
        async with Agent(client=client(server)).stream("go") as run:
            await run
            events = await events_of(run)
    deltas = [event for event in events if isinstance(event, TextDelta)]
    assert len(deltas) <= QUEUE_SIZE
    assert "".join(event.text for event in deltas) == "".join(pieces)
    assert isinstance(events[-1], RunEnded)


@pytest.mark.feature("A-01")
async def test_text_deltas_of_a_run_are_the_answer(client: Any) -> None:
    async with Simulator(Reply.text("one two")) as server:
        async with Agent(client=client(server)).stream("go") as run:
            assert "".join([text async for text in run.text_deltas()]) == "one two"


@pytest.mark.feature("A-01")
async def test_query_gives_the_messages_in_order_and_last_the_result(client: Any) -> None:
    async with Simulator(Reply.calls(PARIS), Reply.text("18")) as server:
        messages = [m async for m in query("go", client=client(server), tools=[get_weather])]
    assert kinds(messages) == [
        "UserMessage",
        "AssistantMessage",
        "ToolMessage",
        "AssistantMessage",
        "RunResult",
    ]


@pytest.mark.feature("A-01")
async def test_query_gives_deltas_only_when_asked(client: Any) -> None:
    async with Simulator(Reply.text("one two")) as server:
        said = [m async for m in query("go", client=client(server), include_partial=True)]
    assert "TextDelta" in kinds(said)


@pytest.mark.feature("A-01")
def test_an_agent_runs_without_a_loop() -> None:
    with Simulator(Reply.calls(PARIS), Reply.text("18")) as server:
        agent = Agent(client=server.base_url, tools=[get_weather])
        result: RunResult[str] = agent.run_sync("go")
        again = agent.run_sync("go")
    assert result.text == again.text == "18"


@pytest.mark.feature("A-01")
async def test_an_agent_runs_blocking_inside_a_running_loop() -> None:
    with Simulator(Reply.text("ok")) as server:
        assert Agent(client=server.base_url).run_sync("go").text == "ok"


async def test_an_open_agent_keeps_one_client_for_its_runs() -> None:
    async with Simulator(Reply.text("ok")) as server, Agent(client=server.base_url) as agent:
        await agent.run("a")
        await agent.run("b")
        models = [request for request in server.requests if request.path == "/v1/models"]
        assert len(models) == 1


def test_the_prompt_can_be_blocks_or_a_message() -> None:
    with Simulator(Reply.text("ok")) as server:
        agent = Agent(client=server.base_url)
        agent.run_sync(["look", TextBlock("here")])
        agent.run_sync(UserMessage("there"))
    assert server.chats[0].json["messages"][0]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "text", "text": "here"},
    ]
    assert server.chats[1].json["messages"][0]["content"] == "there"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tools": [get_weather, get_weather]}, "get_weather"),
        ({"tools": [len]}, "@tool"),
        ({"turn_mode": "magic"}, "give one of"),
        ({"tool_choice": "required"}, "needs tools="),
        ({"client": 3}, "client= takes"),
    ],
)
def test_a_wrong_definition_is_refused_before_anything_runs(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        Agent(**fields)


async def test_wrong_prompts_and_histories_are_refused() -> None:
    agent = Agent(client="http://127.0.0.1:9")
    with pytest.raises(UsageError, match="The prompt is empty"):
        await agent.run("")
    with pytest.raises(UsageError, match="A prompt is text"):
        await agent.run(3)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="history="):
        await agent.run("x", history=[{"role": "user"}])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="no field 'tool'"):
        agent.with_(tool=[])


async def test_several_models_and_none_named_is_the_callers_mistake(client: Any) -> None:
    vllm = AsyncVLLM("http://127.0.0.1:9")
    with pytest.raises(UsageError, match="run_sync"):
        Agent(client=vllm).run_sync("x")
    await vllm.aclose()


def test_with_changes_a_copy_and_keeps_what_was_learnt_out_of_equality() -> None:
    agent = Agent(instructions="a")
    assert agent.with_(instructions="b").instructions == "b"
    assert agent.instructions == "a"
    assert agent == Agent(instructions="a")


async def test_examples_stand_before_the_conversation(client: Any) -> None:
    examples = [UserMessage("1+1?"), AssistantMessage([TextBlock("2")])]
    async with Simulator(Reply.text("4")) as server:
        await Agent(client=client(server), examples=examples).run("2+2?")
    assert [m["content"] for m in server.chats[0].json["messages"]] == ["1+1?", "2", "2+2?"]


async def test_an_error_in_the_log_becomes_the_same_exception_again(client: Any) -> None:
    async with Simulator(Reply.error(500, message="boom")) as server:
        result = await Agent(client=client(server)).run("go")
    assert result.error_info is not None
    again = result.error_info.to_exception()
    assert type(again) is type(result.error)
    assert again.status == 500  # type: ignore[attr-defined]
    assert ErrorInfo.of(again) == result.error_info


async def test_a_run_is_awaited_and_iterated_by_the_same_handle(client: Any) -> None:
    async with Simulator(Reply.text("ok")) as server:
        async with Agent(client=client(server)).stream("go") as run:
            events = await events_of(run)
            result = await run
    assert events[-1].result is result is run.result
    assert isinstance(events[1], MessageAdded)
    assert any(isinstance(event, ModelEnded) for event in events)
    assert any(isinstance(event, TurnStarted) for event in events)


async def test_call_deltas_come_before_the_tool_starts(client: Any) -> None:
    async with Simulator(Reply.calls(PARIS), Reply.text("ok")) as server:
        events = await events_of(Agent(client=client(server), tools=[get_weather]).stream("go"))
    order = [
        kind
        for kind in (ToolCallDelta, ToolCallReady, ToolStarted, ToolEnded)
        if any(isinstance(event, kind) for event in events)
    ]
    first = [next(i for i, e in enumerate(events) if isinstance(e, kind)) for kind in order]
    assert len(first) == 4
    assert first == sorted(first)


@pytest.mark.feature("D-07")
async def test_ended_runs_and_closed_sessions_leave_nothing_to_the_garbage_collector(
    client: Any,
) -> None:
    async with Simulator(lambda _: Reply.text("ok")) as server:
        agent = Agent(client=client(server))

        async def use_it() -> None:
            await agent.run("a")
            async with agent.stream("b") as run:
                async for _ in run:
                    pass
            async with agent.session() as session:
                await session.run("c")
                await (await session.send("d"))

        await use_it()
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await use_it()
            gc.collect()
            kept = {type(each).__qualname__ for each in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not kept & {"Driver", "Run", "Session", "State", "RunResult", "RunEnded", "TurnWriter"}
