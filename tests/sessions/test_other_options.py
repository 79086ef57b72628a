"""A run that is taken up by an agent with other options: it says so, and goes on with them."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import Allow, Hooks, Limits, Matcher, Permissions, Sampling, tool
from vllm_agent_sdk.sessions import MemoryStore, SessionStore
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.types.events import HookRan, SettingsChanged, TurnStarted

pytestmark = pytest.mark.feature("D-03")


@tool(destructive=True)
async def send_mail(to: str) -> str:
    """Send a mail."""
    return "sent"


CALLS = Reply.calls(("send_mail", {"to": "ada"}))
SUSPEND = Permissions(unanswered="suspend")


async def changes(store: SessionStore) -> list[SettingsChanged]:
    return [each for each in await store.read("s") if isinstance(each, SettingsChanged)]


async def suspended(one: Any, store: SessionStore) -> str:
    async with one.session("s", store=store) as session:
        result = await session.run("mail her")
        assert result.stop_reason == "suspended"
        return str(result.pending[0].call.id)


async def test_what_differs_is_an_event_and_counts_from_the_next_turn_on(
    store: SessionStore, agent: Any
) -> None:
    requests: list[dict[str, Any]] = []

    def answer(request: Any) -> Reply:
        requests.append(request.json)
        return CALLS if len(requests) == 1 else Reply.text("done")

    one = await agent(answer, tools=[send_mail], permissions=SUSPEND, instructions="Be kind.")
    call_id = await suspended(one, store)
    limits = Limits(max_turns=7)
    other = one.with_(instructions="Be brief.", sampling=Sampling(top_k=5), limits=limits)
    async with other.session("s", store=store) as session:
        assert (await (await session.resolve(call_id, Allow()))).text == "done"
    (changed,) = await changes(store)
    assert changed.what == "options"
    assert changed.old["instructions"] == "Be kind."
    assert changed.new["instructions"] == "Be brief."
    assert changed.new["limits"]["max_turns"] == 7
    assert sorted(changed.new) == ["instructions", "limits", "sampling"]
    assert [request["messages"][0]["content"] for request in requests] == ["Be kind.", "Be brief."]
    assert [request.get("top_k") for request in requests] == [None, 5]
    # It is said once: who opens the session again goes on with the same.
    async with other.session("s", store=store) as session:
        await session.run("and?")
    assert len(await changes(store)) == 1


async def test_the_same_options_are_no_change(store: SessionStore, agent: Any) -> None:
    sampling = Sampling(stop=["x"], temperature=0)
    rules = Permissions(unanswered="suspend", allow=("look(path=a/*)",), directories=("/tmp",))
    hooks = Hooks(notification=(Matcher("*", print),))
    one = await agent(
        CALLS,
        Reply.text("done"),
        tools=[send_mail],
        permissions=rules,
        sampling=sampling,
        hooks=hooks,
    )
    call_id = await suspended(one, store)
    async with one.session("s", store=store) as session:
        await (await session.resolve(call_id, Allow()))
    assert await changes(store) == []


async def test_what_was_set_while_it_waited_is_no_change_of_options(agent: Any) -> None:
    store = MemoryStore()
    one = await agent(CALLS, Reply.text("done"), tools=[send_mail], permissions=SUSPEND)
    async with one.session("s", store=store) as session:
        result = await session.run("mail her")
        session.set_permission_mode("acceptEdits")
        await (await session.resolve(result.pending[0].call.id, Allow()))
    assert [change.what for change in await changes(store)] == ["permission_mode"]


async def test_hooks_that_are_gone_count_as_failed_and_new_ones_from_the_next_turn(
    agent: Any,
) -> None:
    store = MemoryStore()
    heard: list[str] = []

    def check(event: Any) -> None:
        heard.append("check")

    def audit(event: Any) -> None:
        heard.append("audit")

    one = await agent(
        CALLS,
        CALLS,
        Reply.text("done"),
        tools=[send_mail],
        permissions=SUSPEND,
        hooks=Hooks(post_tool_use=(Matcher("*", check, on_failure="continue"),)),
    )
    call_id = await suspended(one, store)
    other = one.with_(
        hooks=Hooks(post_tool_use=(Matcher("*", audit),)),
        permissions=Permissions(mode="bypassPermissions"),
    )
    async with other.session("s", store=store) as session:
        assert (await (await session.resolve(call_id, Allow()))).text == "done"
    assert heard == ["audit"]
    log = await store.read("s")
    ran = [event for event in log if isinstance(event, HookRan)]
    assert [(event.hook, event.error is None) for event in ran] == [
        ("check", False),
        ("audit", True),
    ]
    assert ran[0].error is not None
    assert "not among the agent's hooks any more" in ran[0].error.message
    turns = [event.seq for event in log if isinstance(event, TurnStarted)]
    (changed,) = await changes(store)
    assert turns[0] < changed.seq < turns[1]
