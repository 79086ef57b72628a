"""Bytes to server-sent events, by the WHATWG standard (HTML Living Standard, section 9.2).

1. Any split of the same bytes gives the same events; every byte is looked at a bounded number of
   times, whatever the split.
2. Lines end in CR, LF or CRLF; a leading BOM and comments are dropped; several `data` lines are
   joined by LF. `id`, `retry` and an event's name have no use here: an event is its data (vLLM
   names the events of Responses in the data too).
3. `data` stays bytes: UTF-8 is decoded once, with the JSON.
4. The standard drops an event that the end of the stream cuts before its blank line. `close` gives
   it, marked as unterminated: whether it is whole is for the reader of its JSON to say.
"""

from __future__ import annotations

from vllm_agent_sdk.errors import ProtocolError

__all__ = ["SSEDecoder"]

_BOM = b"\xef\xbb\xbf"


class SSEDecoder:
    """Turns the bytes of one stream into the data of its events.

    Args:
        max_event_bytes: The size at which a single event is refused: its data so far and the line
            that is being read. `None` for no limit.
    """

    def __init__(self, max_event_bytes: int | None = None) -> None:
        self._limit = max_event_bytes
        self._between = False  # nothing of an event has come
        self._at_start = True
        self._after_cr = False
        self._tail: list[bytes] = []  # pieces of a line whose end has not come
        self._tail_size = 0
        self._data: list[bytes] = []
        self._data_size = 0
        self._failure: ProtocolError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; give the data of each event they complete.

        Raises:
            ProtocolError: An event is larger than `max_event_bytes`. Where events came before it
                in the same bytes, they are given, and the next call raises.
        """
        # What servers send most of the time: one whole event.
        if (
            self._between
            and data.startswith(b"data: ")
            and data.find(b"\n") == len(data) - 2
            and data.endswith(b"\n")
            and b"\r" not in data
            and (self._limit is None or len(data) - 2 <= self._limit)
        ):
            return [data[6:-2]]
        if self._failure is not None:
            raise self._failure
        events: list[bytes] = []
        self._between = False
        try:
            self._feed(data, events)
        except ProtocolError as error:
            self._failure = error
            if not events:
                raise
        else:
            self._between = not (self._at_start or self._after_cr or self._tail or self._data)
        return events

    def _feed(self, data: bytes, events: list[bytes]) -> None:
        if self._at_start:
            data = self._without_bom(data)
        if b"\r" in data or self._after_cr:
            data = self._with_lf(data)
        if self._tail:
            if b"\n" not in data:
                self._keep(data)
                return
            self._tail.append(data)
            data = b"".join(self._tail)
            self._tail.clear()
            self._tail_size = 0
        blocks = data.split(b"\n\n")
        last = blocks.pop()
        limit = self._limit
        for block in blocks:
            if block.startswith(b"data: ") and not self._data and b"\n" not in block:
                if limit is not None:
                    self._check(len(block))
                events.append(block[6:])
            else:
                for line in block.split(b"\n"):
                    self._line(line, events)
                self._dispatch(events)
        lines, newline, rest = last.rpartition(b"\n")
        if newline:
            for line in lines.split(b"\n"):
                self._line(line, events)
        if rest:
            self._keep(rest)

    def close(self) -> bytes | None:
        """Take the end of the stream; give the data of the event that it cut, if any.

        Cut means: its last line may be whole, the blank line after it is missing.

        Raises:
            ProtocolError: An event was larger than `max_event_bytes`.
        """
        if self._failure is not None:
            raise self._failure
        events: list[bytes] = []
        if self._tail:
            self._line(b"".join(self._tail), events)
            self._tail.clear()
        self._dispatch(events)
        return events[0] if events else None

    def _without_bom(self, data: bytes) -> bytes:
        """Drop a BOM; a part of one is kept until it is whole or something else."""
        data = b"".join((*self._tail, data))
        self._tail.clear()
        self._tail_size = 0
        if len(data) < 3 and _BOM.startswith(data):
            self._keep(data)
            return b""
        self._at_start = False
        return data[3:] if data.startswith(_BOM) else data

    def _with_lf(self, data: bytes) -> bytes:
        """Make every line end LF; a CR at the end may be half of a CRLF."""
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if data.endswith(b"\r"):
            self._after_cr = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _keep(self, data: bytes) -> None:
        if data:
            self._tail.append(data)
            self._tail_size += len(data)
            self._check(self._tail_size + self._data_size)

    def _check(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            raise ProtocolError(
                f"The server sent an event of more than {self._limit} bytes; "
                "HTTPOptions(max_response_bytes=…) sets the limit."
            )

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            self._dispatch(events)
            return
        self._check(self._data_size + len(line))
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._data_size += len(value) + 1

    def _dispatch(self, events: list[bytes]) -> None:
        if self._data:
            events.append(b"\n".join(self._data))
            self._data.clear()
            self._data_size = 0
