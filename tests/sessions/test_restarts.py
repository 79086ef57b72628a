"""What a session waits for survives a restart: approvals, results, prompts; over real stores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vllm_agent_sdk import Allow, Deny, Permissions, tool
from vllm_agent_sdk.agent.session import replay
from vllm_agent_sdk.sessions import SessionStore
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.types.events import MessageAdded, ToolStarted

SUSPEND = Permissions(unanswered="suspend")


@pytest.fixture(autouse=True, params=["log", "snapshot"])
def opened_from(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions are opened from their whole log, or from a snapshot of their last event."""
    monkeypatch.setattr(replay, "EVENTS", 1 if request.param == "snapshot" else 10_000)


def answers(result: Any) -> list[str]:
    return [message.text for message in result.messages if type(message).__name__ == "ToolMessage"]


@pytest.mark.feature("H-04", "D-03")
@pytest.mark.parametrize("yes", [True, False])
async def test_an_approval_is_answered_after_a_restart(
    store: SessionStore, agent: Any, yes: bool
) -> None:
    sent: list[str] = []

    @tool(destructive=True)
    async def send_mail(to: str) -> str:
        """Send a mail."""
        sent.append(to)
        return "sent"

    calls = Reply.calls(("send_mail", {"to": "ada"}))
    one = await agent(calls, Reply.text("done"), tools=[send_mail], permissions=SUSPEND)
    async with one.session("s", store=store) as session:
        result = await session.run("mail her")
        assert (result.stop_reason, [each.kind for each in result.pending]) == (
            "suspended",
            ["approval"],
        )
    async with one.session("s", store=store) as session:
        (pending,) = session.pending
        answer = Allow(input={"to": "grace"}) if yes else Deny("Not today.")
        result = await (await session.resolve(pending.call.id, answer))
        assert (result.stop_reason, result.text) == ("end_turn", "done")
    assert sent == (["grace"] if yes else [])
    assert answers(result) == ["sent" if yes else "Not today."]


@pytest.mark.feature("H-04")
async def test_a_remembered_yes_is_remembered_after_a_restart(
    store: SessionStore, agent: Any
) -> None:
    @tool(destructive=True)
    async def wipe() -> str:
        """Wipe."""
        return "wiped"

    replies = (
        Reply.calls(("wipe", {})),
        Reply.text("1"),
        Reply.calls(("wipe", {})),
        Reply.text("2"),
    )
    one = await agent(*replies, tools=[wipe], permissions=SUSPEND)
    async with one.session("s", store=store) as session:
        await session.run("wipe")
        (pending,) = session.pending
        await (await session.resolve(pending.call.id, Allow(remember="wipe")))
    async with one.session("s", store=store) as session:
        result = await session.run("again")
    assert (result.stop_reason, result.text) == ("end_turn", "2")


@pytest.mark.feature("A-14")
async def test_a_result_from_elsewhere_comes_after_a_restart(
    store: SessionStore, agent: Any
) -> None:
    @tool(deferred=True)
    def weigh(parcel: int) -> str:
        """Weigh a parcel."""
        raise AssertionError("it runs elsewhere")

    one = await agent(Reply.calls(("weigh", {"parcel": 7})), Reply.text("heavy"), tools=[weigh])
    async with one.session("s", store=store) as session:
        result = await session.run("weigh it")
        assert [each.kind for each in result.pending] == ["tool_result"]
        call_id = result.pending[0].call.id
    async with one.session("s", store=store) as session:
        result = await (await session.send_tool_result(call_id, {"kg": 31}))
    assert (result.text, answers(result)) == ("heavy", ['{"kg":31}'])
    log = await store.read("s")
    assert sum(isinstance(event, ToolStarted) for event in log) == 1


@pytest.mark.feature("A-20", "D-03")
async def test_prompts_that_wait_are_there_after_a_restart(store: SessionStore, agent: Any) -> None:
    begun = asyncio.Event()

    @tool
    async def hang() -> str:
        """Hang."""
        begun.set()
        await asyncio.Event().wait()
        return "never"

    one = await agent(Reply.calls(("hang", {})), Reply.text("on"), tools=[hang])
    async with one.session("s", store=store, on_unknown="skip") as session:
        await session.send("first")
        await asyncio.wait_for(begun.wait(), 10)
        await session.send("second")
        await session.send("steered", when="steer")
    # Closed in the middle, as by a crash: nothing that was said is lost.
    async with one.session("s", store=store, on_unknown="skip") as session:
        run = await session.resume()
        assert run is not None
        first = await run
        assert "outcome" in answers(first)[0]
        following = await session.resume()
        if following is not None:
            await following
        said = [each.text for each in session.messages if type(each).__name__ == "UserMessage"]
        assert said == ["first", "steered", "second"]
    kept = [e for e in await store.read("s") if isinstance(e, MessageAdded) and not e.queued]
    assert [event.message.text for event in kept] == ["first", "second", "steered"]


@pytest.mark.feature("A-20")
async def test_an_interrupt_hits_the_active_run_alone(store: SessionStore, agent: Any) -> None:
    asked = asyncio.Event()

    def never(_request: Any) -> Reply:
        asked.set()
        return Reply.text("never", first_delay=60)

    one = await agent(never, Reply.text("second"), Reply.text("third"))
    async with one.session("s", store=store) as session:
        first = await session.send("1")
        await asyncio.wait_for(asked.wait(), 10)
        second = await session.send("2")
        third = await session.send("3", when="interrupt")
        results = [await run for run in (first, second, third)]
    assert [result.stop_reason for result in results] == ["interrupted", "end_turn", "end_turn"]
    async with one.session("s", store=store) as session:
        assert await session.resume() is None
