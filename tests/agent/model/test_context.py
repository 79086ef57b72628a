"""A context that fills up: foreseen, caught, summarised, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import (
    AddContext,
    Agent,
    Block,
    Compacted,
    Context,
    Hooks,
    ImageBlock,
    Matcher,
    Notice,
    RunResult,
    RunStarted,
    Sampling,
    TextBlock,
    ToolMessage,
    TurnStarted,
    UserMessage,
    tool,
)
from vllm_agent_sdk.agent.model.context import INSTRUCTION
from vllm_agent_sdk.testing import Reply, Simulator

pytestmark = pytest.mark.feature("A-10")

ASKED = INSTRUCTION[:40]
LONG = "lengthily " * 60  # 60 tokens of the simulator's, 600 bytes: 200 tokens by the estimate


@tool
async def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"18 °C in {city}"


def bodies(server: Simulator, path: str = "/v1/chat/completions") -> list[dict[str, Any]]:
    return [request.json for request in server.requests if request.path == path]


def is_summary(body: dict[str, Any]) -> bool:
    return ASKED in str(body["messages"][-1]["content"])


def scripted(answers: Any = None, summary: Any = None, calls_first: bool = False) -> Any:
    """A model that answers, and summarises when it is asked to."""
    summary = Reply.text("Weather was asked for.") if summary is None else summary

    def reply(request: Any) -> Reply:
        body = request.json
        if is_summary(body):
            return summary
        if calls_first and body["messages"][-1]["role"] == "user":
            return Reply.calls(("get_weather", {"city": "Rome"}))
        return answers or Reply.text("Fine.")

    return reply


async def events_of(session: Any, prompt: Any) -> tuple[list[Any], RunResult[Any]]:
    async with session.stream(prompt) as run:
        events = [event async for event in run]
    return events, run.result


# ── foreseen ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_context_that_gets_close_is_counted_and_summarised_before_it_overflows(
    client: Any,
) -> None:
    async with Simulator(scripted(calls_first=True), max_model_len=480) as server:
        agent = Agent(client=client(server), tools=[get_weather], context=Context(keep_last=2))
        async with agent.session() as session:
            await session.run(f"Weather? {LONG}")
            await session.run(f"And now? {LONG}")
            # The profile asks a little; nobody counted what was said.
            assert "lengthily" not in str(bodies(server, "/tokenize"))
            before = bodies(server)[-1]
            events, result = await events_of(session, f"And then? {LONG * 4}")
    begun = next(e for e in events if isinstance(e, TurnStarted))
    assert begun.exact
    assert begun.context_tokens is not None
    assert 384 < begun.context_tokens < 480
    (compacted,) = (event for event in events if isinstance(event, Compacted))
    assert compacted.error is None
    assert result.stop_reason == "end_turn"
    request, after, *_ = bodies(server)[4:]
    *said, asked = request["messages"]
    # The summary is asked for on what the server has cached, by one message more.
    assert said == before["messages"][: len(said)]
    assert len(said) == compacted.messages
    assert asked == {"role": "user", "content": INSTRUCTION}
    assert (request["tools"], request["tool_choice"]) == (before["tools"], "none")
    assert after["messages"][0]["content"].endswith("Weather was asked for.")
    assert after["messages"][-1]["content"].startswith("And then?")


async def test_the_summariser_sees_calls_and_results_and_a_call_stays_with_its_result(
    client: Any,
) -> None:
    script = scripted(calls_first=True)
    async with Simulator(script, max_model_len=460) as server:
        agent = Agent(client=client(server), tools=[get_weather], context=Context(keep_last=3))
        async with agent.session() as session:
            await session.run(f"Weather? {LONG}")
            await session.run(f"And now? {LONG}")
            await session.run(f"And then? {LONG} {LONG} {LONG}")
            history = session.messages
    (request,) = (body for body in bodies(server) if is_summary(body))
    roles = [message["role"] for message in request["messages"]]
    assert {"role": "tool", "content": "18 °C in Rome"}.items() <= request["messages"][2].items()
    assert roles == ["user", "assistant", "tool", "assistant", "user", "user"]
    kept = [getattr(message, "call_id", None) for message in history]
    calls = {call.id for message in history for call in getattr(message, "tool_calls", ())}
    assert {call_id for call_id in kept if call_id} <= calls
    assert not isinstance(history[1], ToolMessage)


async def test_what_the_server_cannot_count_is_estimated_and_says_so(client: Any) -> None:
    script = scripted(calls_first=True)
    async with Simulator(script, max_model_len=2000, tool_parser="hermes") as server:
        agent = Agent(client=client(server), tools=[get_weather])
        async with agent.session() as session:
            await session.run("Weather?")
            vllm = session._client  # type: ignore[attr-defined]

            async def refused(**_: Any) -> Any:
                raise vllm_error()

            vllm.tokenize = refused
            events, result = await events_of(session, LONG * 8)
    begun = next(e for e in events if isinstance(e, TurnStarted))
    assert (begun.exact, result.stop_reason) == (False, "end_turn")
    assert begun.context_tokens is not None
    assert begun.context_tokens > 1600  # too high, rather than too low


def vllm_error() -> Exception:
    from vllm_agent_sdk import UnsupportedByServerError

    return UnsupportedByServerError("no route", feature="/tokenize")


async def test_an_agent_without_tools_learns_the_window_once_its_prompts_are_long(
    client: Any,
) -> None:
    async with Simulator(scripted(), max_model_len=2000) as server:
        vllm = client(server)
        async with Agent(client=vllm, model="sim-model").session() as session:
            await session.run("Hi")
            assert [request.path for request in server.requests] == ["/v1/chat/completions"]
            events, _ = await events_of(session, LONG * 6)
            more, _ = await events_of(session, "And now?")
    assert [e.window for e in events if isinstance(e, TurnStarted)] == [2000]
    assert [e.window for e in more if isinstance(e, RunStarted)] == [2000]
    paths = [request.path for request in server.requests]
    assert paths.count("/v1/models") == 1
    assert "/tokenize" not in paths


async def test_an_image_counts_as_a_thousand_tokens_and_not_by_its_bytes(client: Any) -> None:
    image = ImageBlock.from_bytes(bytes(30_000), "image/png")
    async with Simulator(scripted(), max_model_len=2800) as server:
        agent = Agent(client=client(server), tools=[get_weather], context=Context(keep_last=0))
        async with agent.session() as session:
            await session.run("Hi")
            events, result = await events_of(session, [TextBlock("What is it?"), image])
            assert [e.context_tokens for e in events if isinstance(e, TurnStarted)] == [None]
            three, _ = await events_of(session, [TextBlock("And these?"), image, image])
    (near,) = [event for event in three if isinstance(event, TurnStarted)]
    # By the estimate it came close, and the server counted.
    assert (near.exact, result.stop_reason) == (True, "end_turn")
    assert near.context_tokens is not None


# ── caught ───────────────────────────────────────────────────────────────────────────────────────


async def test_an_overflow_that_nobody_foresaw_is_caught_and_summarised(client: Any) -> None:
    async with Simulator(scripted(), max_model_len=130) as server:
        agent = Agent(client=client(server), model="sim-model", context=Context(keep_last=1))
        async with agent.session() as session:
            await session.run(LONG)
            await session.run("And now?")
            events, result = await events_of(session, LONG)
    (compacted,) = (event for event in events if isinstance(event, Compacted))
    assert (compacted.error, result.stop_reason, result.text) == (None, "end_turn", "Fine.")
    assert [m.text.split()[0] for m in session.messages] == ["Summary", "lengthily", "Fine."]
    assert result.usage.requests == 3  # the one that was refused, the summary's, the answer's


async def test_a_prompt_of_exactly_the_window_is_an_overflow_too(client: Any) -> None:
    async with Simulator(scripted(), max_model_len=7) as server:
        agent = Agent(client=client(server), model="sim-model")
        result = await agent.run("a b c d")
        shorter = await agent.run("a b c")
    assert result.stop_reason == "context_overflow", result.error
    assert shorter.stop_reason == "end_turn"


async def test_a_summary_that_is_itself_too_long_is_made_of_half_as_much(client: Any) -> None:
    """As where a conversation goes on with a model whose window is smaller."""
    small = 130

    def reply(request: Any) -> Reply:
        words = len(str(request.json["messages"]).split())
        if request.json["model"] == "small" and words > small:
            return Reply.context_overflow(small, words)
        return scripted()(request)

    async with Simulator(reply, model="m", check_fields=False) as server:
        agent = Agent(client=client(server), model="m", context=Context(keep_last=0))
        async with agent.session() as session:
            for _ in range(4):
                await session.run("word " * 25)
        history = session.messages
    async with Simulator(reply, model="small") as server:
        agent = Agent(client=client(server), model="small", context=Context(keep_last=0))
        result = await agent.run("word " * 25, history=history)
    summaries = [len(body["messages"]) - 1 for body in bodies(server) if is_summary(body)]
    assert summaries[:2] == [8, 4]
    assert result.stop_reason == "end_turn"


# ── a summary that fails ─────────────────────────────────────────────────────────────────────────

FAILED = {
    "an error": Reply.error(400, message="no"),
    "cut": Reply.text("The weather", finish_reason="length"),
    "empty": Reply.text(""),
}


@pytest.mark.parametrize("how", FAILED)
async def test_a_failed_summary_leaves_the_history_and_the_run_goes_on_where_it_fits(
    client: Any, how: str
) -> None:
    script = scripted(summary=FAILED[how], calls_first=True)
    async with Simulator(script, max_model_len=500) as server:
        agent = Agent(client=client(server), tools=[get_weather], context=Context(keep_last=1))
        async with agent.session() as session:
            await session.run(f"Weather? {LONG}")
            events, result = await events_of(session, f"And then? {LONG * 5}")
            history = session.messages
    compacted = [event for event in events if isinstance(event, Compacted)]
    assert compacted
    assert all(event.error is not None for event in compacted)
    assert result.stop_reason == "end_turn"
    assert history[0] == UserMessage(f"Weather? {LONG}")


@pytest.mark.parametrize("how", FAILED)
async def test_a_failed_summary_ends_the_run_where_the_next_call_cannot_fit(
    client: Any, how: str
) -> None:
    async with Simulator(scripted(summary=FAILED[how]), max_model_len=130) as server:
        agent = Agent(client=client(server), model="sim-model", context=Context(keep_last=1))
        async with agent.session() as session:
            await session.run(LONG)
            await session.run("And now?")
            result = await session.run(LONG)
            again = await session.run("Short.")
    assert result.stop_reason == "context_overflow"
    assert result.error is not None
    assert type(result.error).__name__ == "ContextLengthError"
    assert again.stop_reason == "context_overflow"


async def test_summaries_that_are_switched_off_are_not_made(client: Any) -> None:
    async with Simulator(scripted(), max_model_len=130) as server:
        agent = Agent(
            client=client(server), model="sim-model", context=Context(strategy="off", keep_last=1)
        )
        async with agent.session() as session:
            await session.run(LONG)
            await session.run("And now?")
            result = await session.run(LONG)
    assert result.stop_reason == "context_overflow"
    assert not any(is_summary(body) for body in bodies(server))


async def test_the_newest_prompt_is_never_summarised_away(client: Any) -> None:
    async with Simulator(scripted(), max_model_len=130) as server:
        agent = Agent(client=client(server), model="sim-model", context=Context(keep_last=0))
        result = await agent.run(LONG * 4)
    assert result.stop_reason == "context_overflow"
    assert not any(is_summary(body) for body in bodies(server))


# ── what a summary's request is ──────────────────────────────────────────────────────────────────


async def overflown(client: Any, **agent: Any) -> tuple[dict[str, Any], list[Any]]:
    """The request of a summary, and the events of the run that wanted it."""
    async with Simulator(scripted(), max_model_len=130) as server:
        one = Agent(
            client=client(server),
            model="sim-model",
            context=agent.pop("context", Context(keep_last=1)),
            **agent,
        )
        async with one.session() as session:
            await session.run(LONG)
            await session.run("And now?")
            events, _ = await events_of(session, LONG)
    (request,) = [body for body in bodies(server) if is_summary(body)] or [{}]
    return request, events


async def test_the_agents_own_limits_do_not_cut_a_summary(client: Any) -> None:
    sampling = Sampling(max_tokens=5, stop=["weather"], temperature=0)
    request, _ = await overflown(client, sampling=sampling)
    assert "stop" not in request
    assert request["max_tokens"] == 256
    assert request["temperature"] == 0


async def test_the_agents_own_words_ask_for_the_summary(client: Any) -> None:
    own = Context(keep_last=1, instruction=f"{ASKED} and be brief.")
    request, _ = await overflown(client, context=own)
    assert request["messages"][-1]["content"] == f"{ASKED} and be brief."


@pytest.mark.feature("A-05")
async def test_a_pre_compact_hook_adds_to_what_is_asked_or_forbids_it(client: Any) -> None:
    async def note(_: Any) -> Any:
        return AddContext("Keep the numbers.")

    async def forbid(_: Any) -> Any:
        return Block("not now")

    request, _ = await overflown(client, hooks=Hooks(pre_compact=(Matcher("*", note),)))
    assert request["messages"][-1]["content"] == f"{INSTRUCTION}\nKeep the numbers."
    request, events = await overflown(client, hooks=Hooks(pre_compact=(Matcher("*", forbid),)))
    assert request == {}
    assert events[-1].result.stop_reason == "context_overflow"


async def test_a_summary_of_guided_turns_is_asked_for_as_text(client: Any) -> None:
    def reply(request: Any) -> Reply:
        if is_summary(request.json):
            return Reply.text("[[final]]It is 18 °C.[[/final]]")
        return Reply.text("[[final]]Fine.[[/final]]")

    async with Simulator(reply, max_model_len=260) as server:
        agent = Agent(
            client=client(server),
            tools=[get_weather],
            turn_mode="guided",
            context=Context(keep_last=1),
        )
        async with agent.session() as session:
            for _ in range(4):
                result = await session.run(LONG)
            first = session.messages[0].text
    (request, *_) = (body for body in bodies(server) if is_summary(body))
    assert "response_format" not in request
    assert result.stop_reason == "end_turn"
    assert first.endswith("so far:\nIt is 18 °C.")


# ── max_tokens ───────────────────────────────────────────────────────────────────────────────────


async def test_max_tokens_is_clamped_to_what_is_left(client: Any) -> None:
    sampling = Sampling(max_tokens=900)
    async with Simulator(scripted(), max_model_len=500) as server:
        agent = Agent(
            client=client(server), tools=[get_weather], sampling=sampling, turn_mode="native"
        )
        await agent.run("Hi")
        result = await agent.run(LONG * 5)
    first, second = bodies(server)
    tokens = result.usage_by_turn[0].input_tokens
    assert first["max_tokens"] == 500  # a server refuses more than its window
    assert second["max_tokens"] == 500 - tokens < 250


async def test_an_answer_cut_at_the_end_of_the_window_is_an_overflow(client: Any) -> None:
    cut = Reply.text("word " * 40, finish_reason="length")
    async with Simulator(cut, max_model_len=440) as server:
        agent = Agent(client=client(server), tools=[get_weather])
        near = await agent.run(LONG * 6)
        far = await agent.run("Hi")
    assert (near.stop_reason, far.stop_reason) == ("context_overflow", "length")


async def test_no_notice_is_made_of_all_this(client: Any) -> None:
    _, events = await overflown(client)
    assert not [event for event in events if isinstance(event, Notice)]
