"""Long results: the model reads their beginning, and the rest with `read_output`."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from vllm_agent_sdk import Agent, ImageBlock, ToolEnded, ToolMessage, Toolset, UserMessage, tool
from vllm_agent_sdk.sessions import MemoryStore
from vllm_agent_sdk.testing import Reply, Simulator

pytestmark = pytest.mark.feature("A-02")

TEXT = "0123456789" * 3


@tool(max_output=10)
async def page() -> str:
    """Get a page."""
    return TEXT


@tool
async def small() -> str:
    """Get little."""
    return TEXT


def names(chat: Any) -> list[str]:
    """The tools of a request."""
    return [each["function"]["name"] for each in chat.json["tools"]]


def answers(messages: list[Any]) -> list[str]:
    """What the model read of its calls."""
    return [m.text for m in messages if isinstance(m, ToolMessage)]


def read_from(request: Any, offset: int, *, of: int = 0) -> Reply:
    """Read on, by the id that stands where the result was cut."""
    shown = [m["content"] for m in request.json["messages"] if "To read on" in str(m["content"])]
    found = re.search(r'call_id="([^"]+)"', str(shown[of]))
    assert found is not None
    return Reply.calls(("read_output", {"call_id": found[1], "offset": offset}))


def script(*replies: Any) -> Any:
    """Give the replies one after the other; those that are functions see the request."""
    left = list(replies)

    def reply(request: Any) -> Reply:
        following = left.pop(0)
        return following if isinstance(following, Reply) else following(request)

    return reply


async def test_what_reads_on_is_offered_where_a_tool_has_a_cap(client: Any) -> None:
    async with Simulator(Reply.text("ok")) as server:
        use = client(server)
        await Agent(client=use, tools=[page, small]).run("?")
        await Agent(client=use, tools=[small]).run("?")
        await Agent(client=use, tools=[Toolset([page], prefix="web_")]).run("?")
    assert [names(chat) for chat in server.chats] == [
        ["page", "small", "read_output"],
        ["small"],
        ["web_page", "read_output"],
    ]


async def test_the_model_reads_the_rest_of_a_result(client: Any) -> None:
    replies = script(
        Reply.calls(("page", {})),
        lambda request: read_from(request, 10),
        lambda request: read_from(request, 20),
        lambda request: read_from(request, 30),
        Reply.text("ok"),
    )
    async with Simulator(replies) as server:
        async with Agent(client=client(server), tools=[page]).stream("?") as run:
            events = [event async for event in run]
    first, second, third, fourth = answers(run.result.messages)
    assert first.startswith("0123456789\n[20 of 30 characters are left. To read on: read_output(")
    assert second.startswith("0123456789\n[10 of 30 characters are left.")
    assert third == "0123456789"
    assert fourth == "The result has 30 characters: there are no more."
    # What the tool gave is kept whole.
    assert next(event for event in events if isinstance(event, ToolEnded)).message.text == TEXT
    assert run.result.tool_calls == {"page": 1, "read_output": 3}


async def test_a_later_run_and_a_session_opened_again_read_on(client: Any) -> None:
    store = MemoryStore()
    replies = script(
        Reply.calls(("page", {})),
        Reply.text("a"),
        lambda request: read_from(request, 10),
        Reply.text("b"),
        lambda request: read_from(request, 20),
        Reply.text("c"),
    )
    async with Simulator(replies) as server:
        agent = Agent(client=client(server), tools=[page])
        async with agent.session("s", store=store) as session:
            await session.run("1")
            second = await session.run("2")
        async with agent.session("s", store=store) as session:
            third = await session.run("3")
    assert answers(second.messages)[-1].startswith("0123456789\n[10 of 30")
    assert answers(third.messages)[-1] == "0123456789"


async def test_an_unknown_result_names_those_that_there_are(client: Any) -> None:
    replies = (
        Reply.calls(("read_output", {"call_id": "c9", "offset": 0})),
        Reply.text("ok"),
    )
    async with Simulator(*replies) as server:
        result = await Agent(client=client(server), tools=[page]).run("?")
    assert answers(result.messages) == ["No result of call 'c9' was cut. Those that were: none."]


async def test_a_result_of_the_background_is_cut_and_read_on_too(client: Any) -> None:
    go = asyncio.Event()

    @tool(background=True, max_output=10)
    async def crawl() -> str:
        """Crawl."""
        await go.wait()
        return TEXT

    def told(request: Any) -> Reply:
        assert "To read on" in str(request.json["messages"])
        return read_from(request, 20)

    replies = script(Reply.calls(("crawl", {})), Reply.text("a"), told, Reply.text("b"))
    async with Simulator(replies) as server:
        visible = Toolset([crawl], visible=lambda ctx: ctx.turn == 1)
        async with Agent(client=client(server), tools=[visible]).session() as session:
            await session.run("1")
            go.set()
            await asyncio.wait(list(session._background._tasks.values()))
            result = await session.run("2")
    notes = [m.text for m in result.messages if isinstance(m, UserMessage)]
    assert " of crawl has ended.]\n0123456789\n[20 of 30 characters are left." in notes[1]
    assert 'read_output(call_id="task_' in notes[1]
    handle, read = answers(result.messages)
    assert handle.startswith("crawl goes on in the background as task_")
    assert read == "0123456789"


async def test_pictures_stay_where_text_is_cut(client: Any) -> None:
    picture = ImageBlock.from_bytes(b"x", "image/png")

    @tool(max_output=4)
    async def shot() -> list[Any]:
        """Take one."""
        return ["abcdefgh", picture]

    async with Simulator(Reply.calls(("shot", {})), Reply.text("ok")) as server:
        result = await Agent(client=client(server), tools=[shot]).run("?")
    content = next(m for m in result.messages if isinstance(m, ToolMessage)).content
    assert isinstance(content, list)
    assert content[1] == picture
    assert str(content[0]).count("abcd") == 1
    assert "efgh" not in str(content)


async def test_a_subagent_reads_on_in_its_own_results(client: Any) -> None:
    replies = script(
        Reply.calls(("helper", {"prompt": "x"})),
        Reply.calls(("page", {})),
        lambda request: read_from(request, 20),
        Reply.text("read"),
        Reply.text("ok"),
    )
    async with Simulator(replies) as server:
        helper = Agent(name="helper", tools=[page])
        await Agent(client=client(server), tools=[helper.as_tool()]).run("?")
    assert names(server.chats[0]) == ["helper"]
    assert server.chats[3].json["messages"][-1]["content"] == "0123456789"


async def test_guided_turns_read_on_too(client: Any) -> None:
    def on(request: Any) -> Reply:
        found = re.search(r'call_id=\\?"([^"\\]+)', str(request.json["messages"][-1]["content"]))
        assert found is not None
        call = f'{{"call_id": "{found[1]}", "offset": 20}}'
        return Reply.text(f"[[call read_output]]{call}[[/call]]")

    replies = script(
        Reply.text("[[call page]]{}[[/call]]"), on, Reply.text("[[final]]ok[[/final]]")
    )
    async with Simulator(replies) as server:
        agent = Agent(client=client(server), tools=[page], turn_mode="guided")
        result = await agent.run("?")
    assert answers(result.messages)[-1] == "0123456789"


def test_a_tool_of_that_name_is_refused() -> None:
    from vllm_agent_sdk import UsageError

    @tool(name="read_output", max_output=3)
    async def mine() -> None: ...

    with pytest.raises(UsageError, match="Two tools are called read_output"):
        Agent(tools=[mine])
