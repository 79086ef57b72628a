"""The session functions, on every store."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import (
    SessionLockedError,
    SessionNotFoundError,
    StoreError,
    UsageError,
    sync,
)
from vllm_agent_sdk.sessions import (
    MemoryStore,
    SessionStore,
    SQLiteStore,
    delete_session,
    export_session,
    fork_session,
    functions,
    get_session_messages,
    import_session,
    list_sessions,
    rename_session,
    search_sessions,
    stat_session,
    tag_session,
)
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.types.event_lines import write_line
from vllm_agent_sdk.types.events import Notice


async def talk(agent: Any, store: SessionStore, session_id: str, *prompts: str) -> None:
    async with agent.session(session_id, store=store) as session:
        for prompt in prompts:
            await session.run(prompt)


async def texts(store: SessionStore, session_id: str) -> list[str]:
    return [message.text for message in await get_session_messages(store, session_id)]


async def log_of(store: SessionStore, session_id: str) -> list[bytes]:
    return [write_line(event) for event in await store.read(session_id)]


@pytest.mark.feature("D-02")
async def test_a_session_goes_on_where_it_was_closed(store: SessionStore, agent: Any) -> None:
    one = await agent(Reply.text("Paris"), Reply.text("Rome"))
    await talk(one, store, "trip", "France?")
    await talk(one, store, "other", "?")
    await talk(one, store, "trip", "Italy?")
    assert await texts(store, "trip") == ["France?", "Paris", "Italy?", "Rome"]
    async with one.session(store=store, latest=True) as session:
        assert session.id == "trip"
        assert [message.text for message in session.messages][-1] == "Rome"


@pytest.mark.feature("D-02")
async def test_sessions_are_listed_in_pages(store: SessionStore, agent: Any) -> None:
    one = await agent()
    for number in range(5):
        await talk(one, store, f"s{number}", "hi")
    page = await list_sessions(store, limit=2)
    assert [info.id for info in page.sessions] == ["s4", "s3"]
    page = await list_sessions(store, limit=2, cursor=page.cursor)
    assert [info.id for info in page.sessions] == ["s2", "s1"]
    # What is written to meanwhile comes first, and no page shows it twice.
    await talk(one, store, "s4", "again")
    page = await list_sessions(store, limit=2, cursor=page.cursor)
    assert [info.id for info in page.sessions] == ["s0"]
    assert page.cursor is None
    whole = await list_sessions(store)
    assert [info.id for info in whole.sessions] == ["s4", "s3", "s2", "s1", "s0"]
    assert whole.cursor is None


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"cursor": "x"}, {"cursor": "1.0 ../x"}])
async def test_a_wrong_page_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        await list_sessions(MemoryStore(), **wrong)


@pytest.mark.feature("D-02")
async def test_sessions_are_described_renamed_and_tagged(store: SessionStore, agent: Any) -> None:
    await talk(await agent(), store, "s", "hi")
    info = await stat_session(store, "s")
    lines = await log_of(store, "s")
    assert (info.events, info.size_bytes) == (len(lines), sum(map(len, lines)))
    assert info.created_at <= info.updated_at
    assert (await rename_session(store, "s", "A trip")).title == "A trip"
    assert (await tag_session(store, "s", "b", "a", "b")).tags == ("b", "a")
    assert (await tag_session(store, "s", "c", remove=["b"])).tags == ("a", "c")
    assert [i.id for i in (await list_sessions(store, tag="c")).sessions] == ["s"]
    assert (await list_sessions(store, tag="b")).sessions == []
    assert (await tag_session(store, "s", remove=["*"])).tags == ()
    assert (await rename_session(store, "s", None)).title is None
    assert (await stat_session(store, "s")).updated_at == info.updated_at
    with pytest.raises(UsageError):
        await tag_session(store, "s", " ")
    with pytest.raises(UsageError):
        await tag_session(store, "s", remove="b")


@pytest.mark.feature("D-02")
async def test_sessions_are_found_by_what_was_said(store: SessionStore, agent: Any) -> None:
    one = await agent(Reply.text("The capital is Paris."), Reply.text("No idea."))
    await talk(one, store, "a", "What of France?")
    await talk(one, store, "b", "What of Atlantis?")
    found = await search_sessions(store, "PARIS")
    assert [info.id for info in found.sessions] == ["a"]
    found = await search_sessions(store, "what of", limit=1)
    assert [info.id for info in found.sessions] == ["b"]
    found = await search_sessions(store, "what of", limit=1, cursor=found.cursor)
    assert [info.id for info in found.sessions] == ["a"]
    assert found.cursor is None
    with pytest.raises(UsageError):
        await search_sessions(store, "")


@pytest.mark.feature("D-02")
async def test_messages_are_given_in_parts(store: SessionStore, agent: Any) -> None:
    await talk(await agent(Reply.text("1"), Reply.text("2")), store, "s", "a", "b")
    assert await texts(store, "s") == ["a", "1", "b", "2"]
    part = await get_session_messages(store, "s", offset=1, limit=2)
    assert [message.text for message in part] == ["1", "b"]
    assert await get_session_messages(store, "s", offset=9) == []
    with pytest.raises(UsageError):
        await get_session_messages(store, "s", offset=-1)


@pytest.mark.feature("D-02")
async def test_a_deleted_session_is_gone_and_an_open_one_stays(
    store: SessionStore, agent: Any
) -> None:
    one = await agent()
    async with one.session("s", store=store) as session:
        await session.run("hi")
        with pytest.raises(SessionLockedError):
            await delete_session(store, "s")
    await delete_session(store, "s")
    for ask in (stat_session, get_session_messages, delete_session):
        with pytest.raises(SessionNotFoundError):
            await ask(store, "s")
    with pytest.raises(SessionNotFoundError):
        async with one.session("s", store=store, create=False):
            pass


@pytest.mark.feature("D-02")
async def test_a_fork_begins_like_its_origin_and_goes_its_own_way(
    store: SessionStore, agent: Any
) -> None:
    one = await agent(Reply.text("1"), Reply.text("2"), Reply.text("3"))
    await talk(one, store, "s", "a")
    half = (await stat_session(store, "s")).events
    await rename_session(store, "s", "Title")
    await talk(one, store, "s", "b")
    new = await fork_session(store, "s", at=half)
    assert await fork_session(store, "s", "all") == "all"
    await talk(one, store, new, "c")
    assert await texts(store, new) == ["a", "1", "c", "3"]
    assert await texts(store, "s") == await texts(store, "all") == ["a", "1", "b", "2"]
    assert (await stat_session(store, new)).title == "Title"
    with pytest.raises(UsageError, match="already"):
        await fork_session(store, "s", "all")
    with pytest.raises(UsageError, match="events"):
        await fork_session(store, "s", at=10_000)
    with pytest.raises(SessionNotFoundError):
        await fork_session(store, "no")


@pytest.mark.feature("D-02")
async def test_an_export_is_the_complete_log_and_can_be_imported(
    store: SessionStore, agent: Any, tmp_path: Path
) -> None:
    one = await agent(Reply.text("äöü\n\u2028"), Reply.text("more"))
    await talk(one, store, "s", "a\r\nb")
    path = tmp_path / "s.jsonl"
    count = await export_session(store, "s", path)
    assert path.read_bytes().splitlines() == await log_of(store, "s")
    assert count == len(await store.read("s"))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    other = MemoryStore()
    new = await import_session(other, path)
    assert await log_of(other, new) == await log_of(store, "s")
    buffer = io.BytesIO()
    await export_session(store, "s", buffer)
    buffer.seek(0)
    assert await import_session(store, buffer, "copy") == "copy"
    await talk(one, store, "copy", "c")
    assert await texts(store, "copy") == ["a\r\nb", "äöü\n\u2028", "c", "more"]
    with pytest.raises(UsageError, match="cannot be made"):
        await export_session(store, "s", path)
    with pytest.raises(UsageError, match="already"):
        await import_session(store, path, "copy")
    with pytest.raises(UsageError, match="cannot be read"):
        await import_session(store, tmp_path / "no.jsonl")
    with pytest.raises(SessionNotFoundError):
        await export_session(store, "no", tmp_path / "x")
    assert not (tmp_path / "x").exists()


async def test_a_long_log_is_exported_in_parts(store: SessionStore) -> None:
    log = await store.open("s")
    await log.append(*(Notice("n", str(seq), seq=seq) for seq in range(1, 2501)))
    await log.aclose()
    buffer = io.BytesIO()
    assert await export_session(store, "s", buffer) == 2500
    assert buffer.getvalue().splitlines() == await log_of(store, "s")


@pytest.mark.feature("D-02")
async def test_a_damaged_log_is_not_imported(
    store: SessionStore, agent: Any, tmp_path: Path
) -> None:
    await talk(await agent(), store, "s", "hi")
    lines = await log_of(store, "s")
    cut = [*lines[:-1], lines[-1][:-5]]
    for wrong, named in [
        (lines[:2] + lines[3:], "Line 3 is event 4"),
        (lines[1:], "Line 1 is event 2"),
        (cut, f"Line {len(lines)}: "),
        ([b'{"type":"text_delta","text":"x"}'], "never stored"),
        ([b'{"type":"no_such_event","v":1}'], "no event"),
        ([write_line(Notice("n", "x", seq=1)).replace(b'"v":1', b'"v":99')], "newer"),
        ([lines[0], lines[0].replace(b'"seq":1', b'"seq":2')], "cannot follow"),
    ]:
        with pytest.raises(StoreError, match=named):
            await import_session(store, wrong, "new")
        with pytest.raises(SessionNotFoundError):
            await stat_session(store, "new")


@pytest.mark.feature("D-02")
def test_the_blocking_twins_do_the_same(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "sessions.db")
    lines = [write_line(Notice("n", str(seq), seq=seq)) for seq in (1, 2)]
    assert sync.import_session(store, lines, "s") == "s"
    assert [info.id for info in sync.list_sessions(store).sessions] == ["s"]
    assert sync.tag_session(store, "s", "t").tags == ("t",)
    with pytest.raises(SessionNotFoundError):
        sync.stat_session(store, "no")
    sync.delete_session(store, "s")
    assert sync.list_sessions(store).sessions == []


def test_every_session_function_has_a_blocking_twin() -> None:
    assert sync.__all__ == functions.__all__
    assert all(getattr(sync, name).__doc__ for name in sync.__all__)
