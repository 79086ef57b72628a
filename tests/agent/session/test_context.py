"""What a session tells of its context, and making it shorter by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from vllm_agent_sdk import (
    AddContext,
    Agent,
    Block,
    Context,
    HookError,
    Hooks,
    Matcher,
    OutputError,
    ServerError,
    UnsupportedControlError,
    tool,
)
from vllm_agent_sdk._core.server.metrics import read_metrics
from vllm_agent_sdk.agent.model.context import INSTRUCTION
from vllm_agent_sdk.testing import Reply, Simulator


@tool
async def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"18 °C in {city}"


def fine(cached: int | None = None) -> Reply:
    return Reply.text("Fine.", usage={} if cached is None else {"cached_tokens": cached})


async def chat(agent: Agent[Any, Any], *prompts: str) -> Any:
    session = agent.session()
    await session.__aenter__()
    for prompt in prompts:
        await session.run(prompt)
    return session


# ── compact ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-10")
async def test_compact_replaces_older_messages_and_the_next_run_goes_on_from_there(
    client: Any,
) -> None:
    async with Simulator(fine(), fine(), Reply.text("Much was said."), fine()) as server:
        agent = Agent(client=client(server), context=Context(keep_last=1))
        async with agent.session() as session:
            await session.run("One")
            await session.run("Two")
            event = await session.compact()
            await session.run("Three")
            cause = (await session.explain_cache()).turns[-1].prefix.cause  # type: ignore[union-attr]
            said = [message.text for message in session.messages]
    assert (event.messages, event.error) == (2, None)
    assert said == [event.summary, "Two", "Fine.", "Three", "Fine."]
    assert event.summary.endswith("Much was said.")
    assert event.usage.requests == 1
    assert cause == "compacted"
    asked = [r.json for r in server.requests if r.path.endswith("/completions")][2]["messages"]
    assert [m["content"] for m in asked] == ["One", "Fine.", INSTRUCTION]


@pytest.mark.feature("A-10")
async def test_compact_refuses_what_it_cannot_do(client: Any) -> None:
    async with Simulator(Reply.text("Fine.", first_delay=30), fine()) as server:
        async with Agent(client=client(server)).session() as session:
            with pytest.raises(UnsupportedControlError, match="leave nothing"):
                await session.compact()
            run = await session.send("One")
            with pytest.raises(UnsupportedControlError, match="a run is active"):
                await session.compact()
            await run.interrupt()


@pytest.mark.feature("A-10")
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply.error(400, message="no"), ServerError),
        (Reply.text(""), OutputError),
        (Reply.text("Much", finish_reason="length"), OutputError),
    ],
)
async def test_a_compact_that_fails_raises_and_changes_nothing(
    client: Any, reply: Reply, kind: type[Exception]
) -> None:
    async with Simulator(fine(), fine(), reply, fine()) as server:
        async with Agent(client=client(server), context=Context(keep_last=0)).session() as session:
            await session.run("One")
            await session.run("Two")
            before = session.messages
            with pytest.raises(kind):
                await session.compact()
            assert session.messages == before
            result = await session.run("Three")
    assert result.stop_reason == "end_turn"


@pytest.mark.feature("A-10", "A-05")
async def test_pre_compact_hooks_run_first_and_may_forbid_it(client: Any) -> None:
    async def note(_: Any) -> Any:
        return AddContext("Keep the numbers.")

    async def forbid(_: Any) -> Any:
        return Block("not now")

    script = [fine(), fine(), Reply.text("Much was said.")]
    async with Simulator(*script) as server:
        agent = Agent(client=client(server), context=Context(keep_last=0))
        hooks = Hooks(pre_compact=(Matcher("*", note),))
        session = await chat(agent.with_(hooks=hooks), "One", "Two")
        await session.compact()
        asked = server.requests[-1].json["messages"][-1]["content"]
        await session.aclose()
        refused = await chat(
            agent.with_(hooks=Hooks(pre_compact=(Matcher("*", forbid),))), "One", "Two"
        )
        with pytest.raises(HookError, match="forbid forbids the summary: not now"):
            await refused.compact()
        await refused.aclose()
    assert asked == f"{INSTRUCTION}\nKeep the numbers."


@pytest.mark.feature("A-10")
async def test_a_run_begun_during_a_summary_waits_for_it(client: Any) -> None:
    summary = Reply.text("Much was said.", first_delay=0.05)
    async with Simulator(fine(), fine(), summary, fine()) as server:
        agent = Agent(client=client(server), context=Context(keep_last=0))
        async with agent.session() as session:
            await session.run("One")
            await session.run("Two")
            event, result = await asyncio.gather(session.compact(), session.run("Three"))
    assert result.messages[0].text == event.summary


@pytest.mark.feature("A-10")
async def test_a_summary_survives_a_restart(client: Any) -> None:
    from vllm_agent_sdk.sessions import MemoryStore

    store = MemoryStore()
    script = [fine(), fine(), Reply.text("Much was said.")]
    async with Simulator(*script) as server:
        agent = Agent(client=client(server), context=Context(keep_last=0))
        async with agent.session("s", store=store) as session:
            await session.run("One")
            await session.run("Two")
            await session.compact()
            said = session.messages
        async with agent.session("s", store=store) as again:
            assert again.messages == said


# ── context_usage ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-23")
@pytest.mark.parametrize("mode", ["native", "guided"])
async def test_the_parts_add_up_to_what_the_server_counts(client: Any, mode: Any) -> None:
    def reply(request: Any) -> Reply:
        last = request.json["messages"][-1]
        if last["role"] == "tool" or "[[result" in last["content"]:
            return Reply.text("It is 18." if mode == "native" else "[[final]]It is 18.[[/final]]")
        if mode == "native":
            return Reply.calls(("get_weather", {"city": "Rome"}))
        return Reply.text('[[call get_weather]]{"city": "Rome"}[[/call]]')

    async with Simulator(reply, max_model_len=1000) as server:
        vllm = client(server)
        agent = Agent(
            client=vllm, tools=[get_weather], instructions="Be very brief.", turn_mode=mode
        )
        async with agent.session() as session:
            result = await session.run("What is the weather in Rome?")
            usage = await session.context_usage()
            chats = [r.json for r in server.requests if r.path.endswith("/completions")]
            last = await vllm.tokenize(
                messages=[*chats[-1]["messages"], {"role": "assistant", "content": "It is 18."}],
                tools=chats[-1].get("tools"),
            )
    assert result.stop_reason == "end_turn"
    assert usage.exact
    assert usage.system + usage.tools + sum(usage.messages.values()) == usage.total
    assert min(usage.system, usage.tools, *usage.messages.values()) > 0
    roles = {"user", "assistant", "tool"} if mode == "native" else {"user", "assistant"}
    assert set(usage.messages) == roles
    assert (usage.window, usage.free) == (1000, 1000 - usage.total)
    if mode == "native":
        assert usage.total == last.count


@pytest.mark.feature("A-23")
async def test_before_the_first_run_there_are_the_system_text_and_the_tools(client: Any) -> None:
    async with Simulator(fine()) as server:
        agent = Agent(client=client(server), tools=[get_weather], instructions="Be very brief.")
        async with agent.session() as session:
            usage = await session.context_usage()
            assert session.messages == []
    assert usage.messages == {}
    assert usage.total == usage.system + usage.tools
    assert usage.tools > usage.system > 0


@pytest.mark.feature("A-23")
async def test_a_server_that_does_not_count_gets_an_estimate_that_says_so(client: Any) -> None:
    async with Simulator(fine()) as server:
        vllm = client(server)
        agent = Agent(client=vllm, tools=[get_weather], instructions="Be brief.")
        session = await chat(agent, "Hello there")

        async def refused(**_: Any) -> Any:
            raise ServerError("no", status=404)

        vllm.tokenize = refused
        usage = await session.context_usage()
        await session.aclose()
    assert not usage.exact
    assert usage.system + usage.tools + sum(usage.messages.values()) == usage.total
    assert usage.tools > 0


@pytest.mark.feature("A-23")
async def test_a_request_that_the_template_refuses_is_split_by_bytes(client: Any) -> None:
    async with Simulator(fine()) as server:
        vllm = client(server)
        session = await chat(Agent(client=vllm, instructions="Be brief."), "Hello there")
        tokenize, asked = vllm.tokenize, []

        async def strict(**fields: Any) -> Any:
            sent = msgspec.json.decode(msgspec.json.encode(fields["messages"]))
            asked.append([message["role"] for message in sent])
            if sent[0]["role"] != "system":
                raise ServerError("The first message must have the role system.", status=400)
            return await tokenize(**fields)

        vllm.tokenize = strict
        usage = await session.context_usage()
        await session.aclose()
    assert not usage.exact
    assert usage.system + sum(usage.messages.values()) == usage.total
    assert usage.tools == 0
    assert usage.system > 0
    assert asked[0] == ["system", "user", "assistant"]


# ── explain_cache ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("Q-05", "A-13")
async def test_the_cache_is_explained_call_by_call(client: Any) -> None:
    async with Simulator(fine(0), fine(9), fine(0)) as server:
        async with Agent(client=client(server), instructions="Be brief.").session() as session:
            await session.run("Hello there, how are you today?")
            await session.run("And now?")
            session._agent = session._agent.with_(instructions="Be long.")
            await session.run("And then?")
            report = await session.explain_cache()
    first, second, third = report.turns
    assert (first.expected_tokens, first.cached_tokens) == (None, 0)
    assert second.expected_tokens == first.input_tokens
    assert second.cached_tokens == 9
    assert second.prefix is not None
    assert second.prefix.cause is None
    assert third.prefix is not None
    assert third.prefix.cause == "system text changed"
    assert third.prefix.kept_bytes == len('{"role":"system","content":"Be ')
    assert report.breaks == (third,)
    assert "broken at byte 31: system text changed" in report.explain()
    # This server's /metrics does not tell of its cache.
    assert (report.block_size, report.prefix_caching) == (None, None)


@pytest.mark.feature("Q-05")
async def test_a_server_that_does_not_tell_of_cached_tokens_is_said_to_need_a_flag(
    client: Any,
) -> None:
    async with Simulator(fine()) as server:
        session = await chat(Agent(client=client(server)), "One", "Two")
        report = await session.explain_cache()
        await session.aclose()
    assert [turn.cached_tokens for turn in report.turns] == [None, None]
    assert "--enable-prompt-tokens-details" in report.explain()


@pytest.mark.feature("Q-05")
@pytest.mark.parametrize("caching", [True, False])
async def test_the_block_size_is_what_the_server_tells_of_its_cache(
    client: Any, monkeypatch: pytest.MonkeyPatch, caching: bool
) -> None:
    line = f'vllm:cache_config_info{{block_size="16",enable_prefix_caching="{caching}"}} 1.0'

    async def metrics(_: Any) -> Any:
        return read_metrics(line)

    async with Simulator(fine(0)) as server:
        vllm = client(server)
        monkeypatch.setattr(type(vllm.server), "metrics", metrics)
        session = await chat(Agent(client=vllm), "One")
        report = await session.explain_cache()
        await session.aclose()
    assert (report.block_size, report.prefix_caching) == (16, caching)


# ── blocking ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-23", "A-10", "Q-05")
def test_the_blocking_session_has_the_same(blocked_connections: list[str]) -> None:
    with Simulator(fine(), fine(), Reply.text("Much was said.")) as server:
        agent = Agent(client=server.base_url, context=Context(keep_last=0))
        with agent.session_sync() as session:
            session.run("One")
            session.run("Two")
            assert session.context_usage().exact
            assert len(session.explain_cache().turns) == 2
            assert session.compact().messages == 2
            assert len(session.messages) == 3
