"""`assert_prefix_stable` says which request broke the prefix, at which byte, and why."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import Agent, AsyncVLLM, UsageError, tool
from vllm_agent_sdk.testing import Reply, Simulator, assert_prefix_stable

pytestmark = pytest.mark.feature("Q-05")


@tool
async def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"18 °C in {city}"


CALL = Reply.calls(("get_weather", {"city": "Rome"}))


async def test_runs_results_sessions_and_reports_are_taken() -> None:
    async with Simulator(CALL, Reply.text("18 °C.")) as server:
        async with AsyncVLLM("http://sim", transport=server.transport) as vllm:
            agent = Agent(client=vllm, tools=[get_weather])
            run = agent.stream("Weather?")
            with pytest.raises(UsageError):
                assert_prefix_stable(run)
            async with run:
                result = await run
            async with agent.session() as session:
                await session.run("Weather?")
                for each in (run, result, session, await session.explain_cache()):
                    assert_prefix_stable(each)
    assert [turn.prefix.cause for turn in result.cache_by_turn if turn.prefix] == [None, None]
    kept = result.cache_by_turn[1].prefix
    assert kept is not None
    assert kept.kept_bytes == kept.previous_bytes


async def test_a_break_is_named_with_its_byte_and_its_cause(monkeypatch: Any) -> None:
    async with Simulator(Reply.text("Fine.")) as server:
        async with AsyncVLLM("http://sim", transport=server.transport) as vllm:
            async with Agent(client=vllm, instructions="Today is Monday.").session() as session:
                await session.run("Hi")
                session._agent = session._agent.with_(instructions="Today is Tuesday.")
                await session.run("And now?")
                at = len('{"role":"system","content":"Today is ')
                with pytest.raises(AssertionError) as raised:
                    assert_prefix_stable(session)
                assert_prefix_stable(session, allow=["system text changed"])
    first, line = str(raised.value).splitlines()
    assert first == "The prefix is not stable:"
    assert line.startswith(f"- request 2 (turn 1) begins like the one before it up to byte {at} of")
    assert line.endswith(": system text changed")


def test_blocking_runs_and_sessions_are_taken_too() -> None:
    with Simulator(CALL, Reply.text("18 °C.")) as server:
        agent = Agent(client=server.base_url, tools=[get_weather])
        with agent.stream_sync("Weather?") as run:
            run.wait()
        assert_prefix_stable(run)
        with agent.session_sync() as session:
            session.run("Weather?")
            assert_prefix_stable(session)
