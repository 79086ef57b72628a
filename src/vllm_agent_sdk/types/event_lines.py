"""The lines of a log: how stored events are written, and how those of any version are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec

from vllm_agent_sdk.errors import StoreError
from vllm_agent_sdk.types.events import (
    VERSION,
    RunEnded,
    RunEvent,
    StoredEvent,
    decode_event,
    encode_event,
)
from vllm_agent_sdk.types.messages import Message

__all__ = ["UPCASTERS", "kept", "read_line", "restored", "write_line"]

#: From a version to the next: what makes an event's JSON of the one into that of the other. Pure.
UPCASTERS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


def kept(event: StoredEvent) -> StoredEvent:
    """Give what a log keeps of an event.

    That is the event itself, but for the result of a run: the conversation in it is what the log
    says anyway, and with every run it would be written once more.
    """
    if not isinstance(event, RunEnded) or not event.result.messages:
        return event
    result = msgspec.structs.replace(event.result, messages=[])
    return msgspec.structs.replace(event, result=result)


def restored(event: RunEnded, messages: list[Message]) -> RunEnded:
    """Give the end of a run the conversation again that its log was not to say twice."""
    result = msgspec.structs.replace(event.result, messages=messages)
    return msgspec.structs.replace(event, result=result)


def write_line(event: StoredEvent) -> bytes:
    """Write what is kept of an event as a line of JSON, without the line's end."""
    return encode_event(cast("RunEvent", kept(event)))


class _Versioned(msgspec.Struct):
    v: int = VERSION


def read_line(line: bytes) -> StoredEvent:
    """Read a line of a log back; one of an older version is brought up to this one's.

    Raises:
        StoreError: It is no event, or one of a newer version of this library.
    """
    try:
        event = _read(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError) as cause:
        shown = line[:100].decode("utf-8", "replace")
        raise StoreError(f"The log has a line that is no event ({cause}): {shown}") from cause
    if not isinstance(event, StoredEvent):
        raise StoreError(f"The log has an event that is never stored: {type(event).__name__}.")
    return event


def _read(line: bytes) -> RunEvent:
    try:
        event = decode_event(line)
        version = getattr(event, "v", VERSION)
        if version == VERSION:
            return event
    except msgspec.ValidationError:
        version = msgspec.json.decode(line, type=_Versioned).v
        if version == VERSION:
            raise
    if version > VERSION:
        raise StoreError(
            f"An event of version {version} was written by a newer vllm-agent-sdk (this one reads "
            f"up to {VERSION}): update it to read this session."
        )
    value = msgspec.json.decode(line)
    for older in range(version, VERSION):
        value = UPCASTERS[older](value)
    return decode_event(msgspec.json.encode({**value, "v": VERSION}))
