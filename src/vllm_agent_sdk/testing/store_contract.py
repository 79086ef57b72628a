"""What every `SessionStore` must do: the suite that ours pass, for yours.

```python
import pytest
from vllm_agent_sdk.testing import store_contract

@pytest.mark.parametrize("check", store_contract.CHECKS, ids=lambda check: check.__name__)
async def test_my_store(check, tmp_path):
    await check(lambda: MyStore(tmp_path / "sessions"))
```

A check is given a function that makes a store; each call of it gives another handle on the same
place, which holds no sessions when the check begins. A check that finds something raises
`AssertionError`, saying what.
"""

from __future__ import annotations

import asyncio

from vllm_agent_sdk.errors import (
    SessionLockedError,
    SessionNotFoundError,
    StoreError,
    UsageError,
)
from vllm_agent_sdk.sessions import SessionQuery
from vllm_agent_sdk.testing.snapshot_contract import (
    a_snapshot_goes_with_its_session,
    a_snapshot_is_never_newer_than_the_log,
    a_snapshot_takes_the_place_of_the_one_before,
    only_the_writer_keeps_a_snapshot,
)
from vllm_agent_sdk.testing.store_checks import (
    Check,
    Place,
    expect_log,
    lines,
    note,
    notes,
    refused,
    said,
)
from vllm_agent_sdk.types.events import (
    MessageAdded,
    ModelEnded,
    Notice,
    RunEnded,
    RunStarted,
    StoredEvent,
    ToolStarted,
)
from vllm_agent_sdk.types.messages import AssistantMessage, TextBlock, ToolCall, UserMessage
from vllm_agent_sdk.types.results import RunResult

__all__ = ["CHECKS", "Check", "Place"]

_BAD_IDS = ("", ".", "..", "../passwd", "a/b", "a\\b", "a\nb", "a\0b", "x" * 201)


# ── the log ──────────────────────────────────────────────────────────────────────────────────────


async def what_was_appended_is_read_back(place: Place) -> None:
    """All events, their order and every field of them, by the log and by another handle."""
    store = place()
    call = ToolCall.from_text("c1", "wipe", '{"path": "ä\\n\\u0000"}')
    events: list[StoredEvent] = [
        RunStarted(agent="a", model="m", seq=1, run_id="r", time=1.25, agent_id="main"),
        MessageAdded(
            message=UserMessage('“ünï” \\ " \u2028 \U0001f600' + "long " * 200_000), seq=2
        ),
        ModelEnded(1, message=AssistantMessage([TextBlock("ok"), call]), seq=3),
        ToolStarted(call=call, seq=4),
        RunEnded(result=RunResult(text="done"), seq=5),
    ]
    log = await store.open("s")
    assert list(await log.read()) == [], "A new session has no events."
    await log.append(*events[:2])
    await log.append(*events[2:])
    assert lines(await log.read()) == lines(events), "The log reads other events than were kept."
    assert lines(await log.read(3)) == lines(events[3:]), "read(after=3) begins with event 4."
    await expect_log(place(), "s", events)
    await log.aclose()
    await expect_log(place(), "s", events)


async def reading_gives_a_part(place: Place) -> None:
    """`after` and `limit` of `read`."""
    log = await place().open("s")
    await log.append(*notes(1, 10))
    store = place()
    part = [event.seq for event in await store.read("s", 3, 4)]
    assert part == [4, 5, 6, 7], f"read(after=3, limit=4) gave {part}."
    assert list(await store.read("s", 10)) == [], "Nothing comes after the last event."
    assert [event.seq for event in await store.read("s", 9, 5)] == [10]
    await log.aclose()


async def an_event_is_kept_once(place: Place) -> None:
    """The same event again changes nothing: whoever does not know whether it was kept repeats."""
    log = await place().open("s")
    await log.append(*notes(1, 3))
    await log.append(*notes(1, 3))
    await log.append(*notes(3, 5))
    await log.append()
    await expect_log(place(), "s", notes(1, 5))
    await log.aclose()


async def another_event_of_the_same_number_is_refused(place: Place) -> None:
    """What is kept is never changed."""
    log = await place().open("s")
    await log.append(*notes(1, 2))
    other = note(2, "another one")
    await refused(StoreError, log.append(other), "append of another event 2")
    await refused(StoreError, log.append(other, note(3)), "append of another event 2, and 3")
    await expect_log(place(), "s", notes(1, 2))
    await log.append(note(3))
    await expect_log(place(), "s", notes(1, 3))
    await log.aclose()


async def a_gap_is_refused(place: Place) -> None:
    """Numbers follow each other, from 1; and what is refused is refused as a whole."""
    log = await place().open("s")
    await refused(StoreError, log.append(note(2)), "append of event 2 to an empty log")
    await log.append(note(1))
    await refused(StoreError, log.append(note(3)), "append of event 3 after event 1")
    await refused(StoreError, log.append(note(2), note(4)), "append of events 2 and 4")
    await refused(StoreError, log.append(Notice("n", "x")), "append of an event without a number")
    await expect_log(place(), "s", [note(1)])
    await log.append(note(2))
    await log.aclose()


async def an_append_that_is_cancelled_is_whole(place: Place) -> None:
    """It has kept nothing, or it returns: never both an error and the events."""
    log = await place().open("s")
    seq = 1
    for steps in range(12):
        done = False

        async def append(number: int = seq) -> None:
            nonlocal done
            await log.append(*notes(number, number + 1))
            done = True

        task = asyncio.create_task(append())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        kept = len(await log.read())
        expected = seq + 1 if done else seq - 1
        assert kept == expected, (
            f"An append that was cancelled {'returned' if done else 'raised'}, and {kept} events "
            f"are kept instead of {expected}."
        )
        seq = kept + 1
    await log.aclose()


async def many_sessions_are_written_at_once(place: Place) -> None:
    """None gets another's events, and none loses one."""
    store = place()
    ids = [f"s{number}" for number in range(20)]

    async def write(session_id: str) -> None:
        log = await store.open(session_id)
        for seq in range(1, 11):
            await log.append(note(seq, f"{session_id} {seq}"))
        await log.aclose()

    await asyncio.gather(*(write(session_id) for session_id in ids))
    other = place()
    for session_id in ids:
        await expect_log(other, session_id, [note(n, f"{session_id} {n}") for n in range(1, 11)])


# ── one writer ───────────────────────────────────────────────────────────────────────────────────


async def a_session_has_one_writer(place: Place) -> None:
    """A second one is told who has it; the session is free once it was closed."""
    store = place()
    log = await store.open("s")
    for handle in (store, place()):
        error = await refused(SessionLockedError, handle.open("s"), "open of an open session")
        assert isinstance(error, SessionLockedError)
        assert error.holder, "SessionLockedError.holder says who has the session."
    assert (await store.stat("s")).holder, "stat says who has the session open."
    await log.append(note(1))
    await log.aclose()
    await log.aclose()
    assert (await store.stat("s")).holder is None, "Nobody has the session open any more."
    await refused(StoreError, log.append(note(2)), "append to a log that was closed")
    again = await place().open("s")
    await refused(StoreError, log.append(note(2)), "append to a log that was closed")
    await again.append(note(2))
    await expect_log(store, "s", notes(1, 2))
    await again.aclose()


async def of_many_who_open_one_gets_it(place: Place) -> None:
    """Also when they come at the same moment."""
    handles = [place() for _ in range(8)]
    found = await asyncio.gather(*(h.open("s") for h in handles), return_exceptions=True)
    logs = [each for each in found if not isinstance(each, BaseException)]
    errors = [each for each in found if isinstance(each, BaseException)]
    assert len(logs) == 1, f"{len(logs)} of 8 who opened one session got it."
    strange = [error for error in errors if not isinstance(error, SessionLockedError)]
    assert not strange, f"The others get SessionLockedError, not {strange[0]!r}."
    await logs[0].aclose()


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────


async def what_is_not_there_is_not_found(place: Place) -> None:
    """`SessionNotFoundError`, and nothing is made."""
    store = place()
    await refused(SessionNotFoundError, store.open("no", create=False), "open(create=False)")
    await refused(SessionNotFoundError, store.read("no"), "read")
    await refused(SessionNotFoundError, store.stat("no"), "stat")
    await refused(SessionNotFoundError, store.describe("no", title="t", tags=()), "describe")
    await refused(SessionNotFoundError, store.delete("no"), "delete")
    assert not await store.sessions(SessionQuery()), "A session was made by asking for it."


async def an_id_that_cannot_be_one_is_refused(place: Place) -> None:
    """Paths, control characters, nothing at all."""
    store = place()
    for bad in _BAD_IDS:
        await refused(UsageError, store.open(bad), f"open({bad!r:.20})")
        await refused(UsageError, store.read(bad), f"read({bad!r:.20})")
        await refused(UsageError, store.stat(bad), f"stat({bad!r:.20})")
        await refused(UsageError, store.delete(bad), f"delete({bad!r:.20})")
    for good in ("a", "a b", "tenant:42", "名前", "it's", '"x"', "%_", "x" * 200, "..a"):
        log = await store.open(good)
        await log.append(note(1))
        await log.aclose()
        await expect_log(store, good, [note(1)])


async def a_session_is_described(place: Place) -> None:
    """`stat` counts; title and tags are kept; the time of the last change moves with events."""
    store = place()
    log = await store.open("s")
    before = await store.stat("s")
    assert (before.events, before.size_bytes, before.title, before.tags) == (0, 0, None, ())
    await log.append(*notes(1, 3))
    await log.append(*notes(2, 4))
    info = await place().stat("s")
    assert info.events == 4, f"4 events were kept, stat says {info.events}."
    assert info.size_bytes == sum(map(len, lines(notes(1, 4)))), "size_bytes is the lines' length"
    assert info.created_at == before.created_at
    assert info.updated_at > before.updated_at, "updated_at moves with the events."
    await store.describe("s", title="A title", tags=("b", "a"))
    await log.aclose()
    named = await place().stat("s")
    assert (named.title, named.tags) == ("A title", ("b", "a"))
    assert named.updated_at == info.updated_at, "A new title is no event."


async def sessions_are_listed_the_newest_first(place: Place) -> None:
    """In pages that together have each session once; by tag."""
    store = place()
    ids = [f"s{number}" for number in range(7)]
    for session_id in ids:
        await (await store.open(session_id)).aclose()
    log = await store.open("s2")
    await log.append(note(1))
    await log.aclose()
    order = ["s2", "s6", "s5", "s4", "s3", "s1", "s0"]
    found = [info.id for info in await place().sessions(SessionQuery())]
    assert found == order, f"Listed as {found}; the one that was written to last comes first."
    paged: list[str] = []
    query = SessionQuery(limit=3)
    while len(paged) < 2 * len(order) and (page := await store.sessions(query)):
        assert len(page) <= 3, "A page has `limit` sessions at most."
        paged += [info.id for info in page]
        query = SessionQuery(limit=3, before=(page[-1].updated_at, page[-1].id))
    assert paged == order, f"The pages together have {paged}."
    await store.describe("s5", title=None, tags=("x", "y"))
    await store.describe("s1", title=None, tags=("xy",))
    tagged = [info.id for info in await store.sessions(SessionQuery(tag="x"))]
    assert tagged == ["s5"], f"By tag 'x': {tagged}; s5 has the tags x and y, s1 has xy."


async def sessions_are_found_by_what_was_said(place: Place) -> None:
    """And by id, title and tag; without regard to case; nothing in the text is a pattern."""
    store = place()
    texts = {"one": "Grüße aus KÖLN", "two": '100% of "it" \\ done', "three": "100 of it"}
    for session_id, text in texts.items():
        log = await store.open(session_id)
        model = AssistantMessage([TextBlock(f"answer to {session_id}")])
        await log.append(said(1, text), ModelEnded(1, message=model, seq=2))
        await log.aclose()
    await store.describe("three", title="Straße", tags=("Blue",))

    async def expect(text: str, *ids: str) -> None:
        found = {info.id for info in await store.sessions(SessionQuery(text=text))}
        assert found == set(ids), f"Searching {text!r} gave {sorted(found)}, not {sorted(ids)}."

    await expect("grüSSE aus köln", "one")
    await expect('% of "it" \\', "two")
    await expect("100_", *())
    await expect("ANSWER TO", "one", "two", "three")
    await expect("STRASSE", "three")
    await expect("blue", "three")
    await expect("message_added", *())
    await expect("TWO", "two")


async def what_is_deleted_is_gone(place: Place) -> None:
    """Its log too; an open session is not deleted; the id can be used again."""
    store = place()
    log = await store.open("s")
    await log.append(said(1, "secret"))
    await refused(SessionLockedError, place().delete("s"), "delete of an open session")
    await log.aclose()
    await place().delete("s")
    await refused(SessionNotFoundError, store.read("s"), "read of a deleted session")
    assert not await store.sessions(SessionQuery(text="secret"))
    new = await store.open("s")
    assert not await new.read(), "A session of a deleted one's id begins without events."
    await new.append(note(1))
    await expect_log(place(), "s", [note(1)])
    await new.aclose()


async def a_store_that_was_closed_can_be_used_again(place: Place) -> None:
    """`aclose` lets go of resources only, and twice does no harm."""
    store = place()
    log = await store.open("s")
    await log.append(note(1))
    await log.aclose()
    await store.aclose()
    await store.aclose()
    await expect_log(store, "s", [note(1)])
    await store.aclose()


CHECKS: tuple[Check, ...] = (
    what_was_appended_is_read_back,
    reading_gives_a_part,
    an_event_is_kept_once,
    another_event_of_the_same_number_is_refused,
    a_gap_is_refused,
    an_append_that_is_cancelled_is_whole,
    many_sessions_are_written_at_once,
    a_session_has_one_writer,
    of_many_who_open_one_gets_it,
    what_is_not_there_is_not_found,
    an_id_that_cannot_be_one_is_refused,
    a_session_is_described,
    sessions_are_listed_the_newest_first,
    sessions_are_found_by_what_was_said,
    what_is_deleted_is_gone,
    a_store_that_was_closed_can_be_used_again,
    a_snapshot_takes_the_place_of_the_one_before,
    a_snapshot_is_never_newer_than_the_log,
    only_the_writer_keeps_a_snapshot,
    a_snapshot_goes_with_its_session,
)
