"""A session's state as bytes, so that opening it does not take its whole log.

A snapshot is a cache of the fold and never the truth: bytes that are damaged, or of another format,
are as good as none.

1. Logs of one state have messages in common (the conversation, what it was before the turn, what it
   was at each checkpoint), and are compared by identity. So each object is written once, each list
   that logs share as runs of objects, and each log as a list and a length; all of it is shared
   again when it is read.
2. It knows nothing of the state's fields but their types: logs are told from the rest by theirs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, get_args

from vllm_agent_sdk._core.run.log import Log
from vllm_agent_sdk._core.run.state import State
from vllm_agent_sdk.errors import ProtocolError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types._codec import Fact, Raw

__all__ = ["FORMAT", "decode", "encode"]

#: Raised when the state's shape changes, or what the fold makes of a log: what was kept before is
#: then not used any more. `tests/_core/run/test_snapshot.py` tells when.
FORMAT = 1


class _Document(Fact, frozen=True):
    """What is written.

    Attributes:
        objects: Every object that is in a log, once.
        lists: For each list that logs share, runs of objects: the first one's place, how many.
        state: The state; a log is the place of its list and its length, or nothing.
    """

    objects: list[Raw]
    lists: list[list[tuple[int, int]]]
    state: Raw


def encode(state: State, seq: int) -> bytes:
    """Write a state.

    Args:
        state: The state.
        seq: The number of the last event in it.

    Raises:
        UsageError: It holds what JSON has no form for; no state of kept events does.
    """
    body = _codec.encode(_Writer().document(state))
    return _head(seq, body) + b"\n" + body


def decode(data: bytes) -> tuple[State, int] | None:
    """Read a state back, and the number of the last event in it.

    Returns:
        None for bytes of another format, and for damaged ones.
    """
    head, _, body = data.partition(b"\n")
    words = head.split(b" ")
    if len(words) != 3 or not words[1].isdigit() or head != _head(int(words[1]), body):
        return None
    try:
        document: _Document = _codec.own_decoder(_Document, _no_other)(body)
        state = _Reader(document).state()
    except ProtocolError:
        return None
    return state, int(words[1])


def _head(seq: int, body: bytes) -> bytes:
    """Give what stands before the body: the format, the number, and a checksum of all."""
    told = b"%d %d" % (FORMAT, seq)
    return b"%b %08x" % (told, zlib.crc32(body, zlib.crc32(told)))


def _no_other(kind: Any, _value: Any) -> Any:
    raise TypeError(f"A document has no {kind}")


class _Writer:
    """Writes one state."""

    def __init__(self) -> None:
        self._objects: list[Raw] = []
        # By identity, but for text: the lists below keep alive what is named.
        self._places: dict[int | str, int] = {}
        self._numbers: dict[int, int] = {}
        self._lists: list[list[Any]] = []
        self._lengths: list[int] = []
        self._written: list[list[int]] = []

    def document(self, state: State) -> _Document:
        encode = _codec.encoder(self._log)
        written = Raw(encode(state))
        grew = True
        while grew:  # what is in a list may name other lists, or more of one
            grew = False
            for number, places in enumerate(self._written):
                length = self._lengths[number]
                grew = grew or len(places) < length
                for value in self._lists[number][len(places) : length]:
                    places.append(self._place(value, encode))
        return _Document(self._objects, [_runs(places) for places in self._written], written)

    def _log(self, value: Any) -> list[int]:
        if not isinstance(value, Log):
            raise TypeError(f"a state holds a {type(value).__name__}")
        if not len(value):
            return []
        number = self._numbers.setdefault(id(value.shared), len(self._lists))
        if number == len(self._lists):
            self._lists.append(value.shared)
            self._lengths.append(0)
            self._written.append([])
        self._lengths[number] = max(self._lengths[number], len(value))
        return [number, len(value)]

    def _place(self, value: Any, encode: Callable[[object], bytes]) -> int:
        key = value if isinstance(value, str) else id(value)
        place = self._places.get(key)
        if place is None:
            self._objects.append(Raw(encode(value)))
            place = self._places[key] = len(self._objects) - 1
        return place


def _runs(places: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and sum(runs[-1]) == place:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((place, 1))
    return runs


class _Reader:
    """Reads one state."""

    def __init__(self, document: _Document) -> None:
        self._document = document
        self._objects: dict[int, Any] = {}
        self._lists: dict[int, list[Any]] = {}
        self._decoders: dict[Any, Callable[[bytes | Raw], Any]] = {}

    def state(self) -> State:
        try:
            # A copy: JSON that stays as it is (an output) would keep all of the bytes alive.
            state: State = self._value(State, bytes(self._document.state))
        finally:
            self._decoders.clear()  # they know this reader
        return state

    def _value(self, kind: Any, data: bytes | Raw) -> Any:
        decoder = self._decoders.get(kind)
        if decoder is None:
            decoder = self._decoders[kind] = _codec.own_decoder(kind, self._log)
        return decoder(data)

    def _log(self, kind: Any, value: Any) -> Log[Any]:
        if not value:
            return Log()
        number, length = value
        shared = self._lists.get(number)
        if shared is None:
            (item,) = get_args(kind)
            runs = self._document.lists[number]
            places = [at for first, count in runs for at in range(first, first + count)]
            shared = self._lists[number] = [self._object(item, place) for place in places]
        if not 0 < length <= len(shared):
            raise ValueError(f"a log of {length} of {len(shared)} objects")
        return Log(shared, length)

    def _object(self, kind: Any, place: int) -> Any:
        if place not in self._objects:
            self._objects[place] = self._value(kind, self._document.objects[place])
        return self._objects[place]
