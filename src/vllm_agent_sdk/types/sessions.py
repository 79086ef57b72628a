"""What a store tells of its sessions."""

from __future__ import annotations

from vllm_agent_sdk.types import _codec

__all__ = ["SessionInfo", "SessionPage"]


class SessionInfo(_codec.Record, frozen=True, kw_only=True):
    """A session, without its events.

    Attributes:
        id: Its id.
        title: What it is called (`rename_session`), or `None`.
        tags: Its tags, in order (`tag_session`).
        created_at: When it was made, in seconds since 1970.
        updated_at: When its last event was kept; when it was made, if it has none.
        events: How many events its log has; the last one's `seq`.
        size_bytes: The length of its log as JSON lines, without the lines' ends.
        holder: Who has it open, as text, or `None`. A holder that died without closing it is still
            named here until the next one opens the session.
    """

    id: str
    title: str | None = None
    tags: tuple[str, ...] = ()
    created_at: float = 0.0
    updated_at: float = 0.0
    events: int = 0
    size_bytes: int = 0
    holder: str | None = None


class SessionPage(_codec.Record, frozen=True, kw_only=True):
    """Some sessions of a store, the one that was written to last first.

    Attributes:
        sessions: The sessions.
        cursor: Give it to the same function to get the next ones; `None`: there are no more.
    """

    sessions: list[SessionInfo]
    cursor: str | None = None
