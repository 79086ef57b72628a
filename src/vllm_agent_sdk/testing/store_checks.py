"""What the checks of stores are made of: events to keep, and what is expected of a store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from vllm_agent_sdk.errors import VLLMError
from vllm_agent_sdk.sessions import SessionStore
from vllm_agent_sdk.types.event_lines import write_line
from vllm_agent_sdk.types.events import MessageAdded, Notice, StoredEvent
from vllm_agent_sdk.types.messages import UserMessage

__all__ = ["Check", "Place", "expect_log", "lines", "note", "notes", "refused", "said"]

#: Gives a handle on the place where the sessions are.
Place: TypeAlias = Callable[[], SessionStore]
Check: TypeAlias = Callable[[Place], Awaitable[None]]


def note(seq: int, text: str = "") -> Notice:
    """Give an event of a number."""
    return Notice(code="n", text=text or f"event {seq}", seq=seq, run_id="r", time=1.5)


def notes(first: int, last: int) -> list[StoredEvent]:
    """Give the events from one number to another."""
    return [note(seq) for seq in range(first, last + 1)]


def said(seq: int, text: str) -> MessageAdded:
    """Give an event in which something is said."""
    return MessageAdded(message=UserMessage(text), seq=seq)


def lines(events: Sequence[StoredEvent]) -> list[bytes]:
    """Write events as they are kept."""
    return [write_line(event) for event in events]


async def refused(kind: type[VLLMError], work: Awaitable[object], what: str) -> VLLMError:
    """Expect an error, and give it."""
    try:
        await work
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(
            f"{what} must raise {kind.__name__}, and raised {type(error).__name__}: {error}"
        ) from error
    raise AssertionError(f"{what} must raise {kind.__name__}, and raised nothing.")


async def expect_log(store: SessionStore, session_id: str, wanted: Sequence[StoredEvent]) -> None:
    """Expect exactly these events, as another handle reads them."""
    found, expected = lines(await store.read(session_id)), lines(wanted)
    assert found == expected, (
        f"The log of {session_id!r} has {len(found)} events, not the {len(expected)} that were "
        f"kept: {found!r:.300} instead of {expected!r:.300}"
    )
