"""Server-sent events: the standard's cases, any split of any bytes, limits."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.stream.sse import SSEDecoder
from vllm_agent_sdk.errors import ProtocolError

pytestmark = pytest.mark.feature("S-01")

RECORDED = sorted((Path(__file__).parents[2] / "fixtures" / "sse").glob("*.sse"))
BOM = b"\xef\xbb\xbf"
TOO_LARGE = (
    "The server sent an event of more than {} bytes; HTTPOptions(max_response_bytes=…) sets the "
    "limit."
)

Read = tuple[list[bytes], bytes | str | None]


def read(pieces: Iterable[bytes], limit: int | None = None) -> Read:
    """The events of a stream that comes in these pieces, and what its end gave."""
    decoder = SSEDecoder(limit)
    events: list[bytes] = []
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        return events, decoder.close()
    except ProtocolError as error:
        return events, str(error)


def data(stream: bytes) -> list[bytes]:
    return read([stream])[0]


def in_pieces(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    return [stream[start:end] for start, end in pairwise(ends)]


# ── the standard's cases ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", [b"a", b"b", b"c"]),
        (b"data: a\n\r", [b"a"]),
        (b"data: first\ndata: second\n\n", [b"first\nsecond"]),
        (b"data: first\r\ndata:second\rdata\n\n", [b"first\nsecond\n"]),
        (b": a comment\n\ndata: a\n: another\n\n:\n\n", [b"a"]),
        (b"data:a\n\ndata:  a\n\n", [b"a", b" a"]),
        (b"data: a: b\n\n", [b"a: b"]),
        (b"data\n\ndata\ndata\n\ndata:", [b"", b"\n"]),
        (b"\n\n\ndata: a\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"Data: a\n data: b\ndatas: c\ndata: d\n\n", [b"d"]),
        (b"data: \xff\xfe\n\n", [b"\xff\xfe"]),
        (b"data: a\x0bb\x0cc\xc2\x85d\n\n", [b"a\x0bb\x0cc\xc2\x85d"]),
        (b"", []),
    ],
)
def test_the_standards_cases(stream: bytes, expected: list[bytes]) -> None:
    assert data(stream) == expected
    assert read(bytes([byte]) for byte in stream) == read([stream])


def test_names_are_ignored_and_a_name_alone_is_no_event() -> None:
    stream = b"event: one\nevent: two\ndata: a\n\nevent\ndata: b\n\nevent: c\n\ndata: d\n\n"
    assert data(stream) == [b"a", b"b", b"d"]


def test_ids_and_retry_are_ignored() -> None:
    assert data(b"id: 1\nretry: 10\ndata: a\nid: 2\n\nid: 3\n\nretry: x\n\n") == [b"a"]


def test_a_byte_order_mark_is_dropped_at_the_start_only() -> None:
    assert data(BOM + b"data: a\n\n" + BOM + b"data: b\n\n") == [b"a"]
    assert data(BOM + BOM + b"data: a\n\n") == []


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_byte_order_mark_may_be_split(cut: int) -> None:
    stream = BOM + b"data: a\n\n"
    assert read([b"", stream[:cut], b"", stream[cut:]])[0] == [b"a"]


@pytest.mark.parametrize("start", [b"\xef", b"\xef\xbb", b"\xef\xbbX"])
def test_what_only_begins_like_a_byte_order_mark_is_kept(start: bytes) -> None:
    stream = start + b"data: a\n\ndata: b\n\n"
    assert read(bytes([byte]) for byte in stream)[0] == [b"b"]


def test_a_crlf_split_between_its_halves_ends_one_line() -> None:
    assert read([b"data: a\r", b"\ndata: b\r", b"\n", b"\r", b"\n"])[0] == [b"a\nb"]


# ── its end ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_an_event_that_the_end_cuts_before_its_blank_line_is_given_by_close(end: bytes) -> None:
    events, rest = read([b"data: a\n\nevent: b\ndata: c" + end])
    assert events == [b"a"]
    assert rest == b"c"


@pytest.mark.parametrize("end", [b"", b"\n", b": comment", b"event: a", b"dat", BOM[:2]])
def test_close_gives_nothing_where_no_data_had_begun(end: bytes) -> None:
    assert read([end])[1] is None
    assert read([b"data: a\n\n", end])[1] is None


# ── any split ────────────────────────────────────────────────────────────────────────────────────

# fmt: off
PARTS = [
    b"data: ", b"data:", b"data", b"event: ", b"event", b"id: 1", b": c", b"\n", b"\r", b"\r\n",
    b"\n\n", b"\r\r", b" ", b":", BOM, b"\xe2\x82\xac", b"\xff", b'{"a": "\xf0\x9f', b"data: a\n\n",
    b"x" * 10,
]
# fmt: on
LINES = st.lists(st.sampled_from(PARTS) | st.binary(max_size=6), max_size=30).map(b"".join)


@given(
    stream=st.one_of(LINES, LINES.map(BOM.__add__), st.binary()), cuts=st.lists(st.integers(0, 150))
)
def test_any_split_of_any_bytes_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    assert read(in_pieces(stream, cuts)) == read([stream])


@given(stream=LINES, cuts=st.lists(st.integers(0, 150)), limit=st.integers(3, 30))
def test_with_a_limit_any_split_gives_the_same_events_and_the_same_error(
    stream: bytes, cuts: list[int], limit: int
) -> None:
    assert read(in_pieces(stream, cuts), limit) == read([stream], limit)


@given(stream=LINES)
def test_one_byte_at_a_time_gives_the_same_events(stream: bytes) -> None:
    assert read(bytes([byte]) for byte in stream) == read([stream])


@given(texts=st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1)))
def test_what_a_server_writes_is_what_is_read(texts: list[str]) -> None:
    stream = b"".join(b"data: " + text.encode() + b"\n\n" for text in texts)
    assert [each.decode() for each in data(stream)] == texts


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_stream_cut_in_two_anywhere_gives_the_same_events(path: Path) -> None:
    stream = path.read_bytes()
    whole = read([stream])
    assert all(read([stream[:at], stream[at:]]) == whole for at in range(len(stream)))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
@pytest.mark.parametrize("ending", [b"\r", b"\r\n"])
def test_a_recorded_stream_with_other_line_ends_gives_the_same_events(
    path: Path, ending: bytes
) -> None:
    stream = path.read_bytes()
    assert read([stream.replace(b"\n", ending)]) == read([stream])


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────


def test_an_event_over_the_limit_is_refused_with_the_limit_and_where_it_is_set() -> None:
    decoder = SSEDecoder(20)
    assert decoder.feed(b"data: 12345678901234\n\n") == [b"12345678901234"]
    with pytest.raises(ProtocolError, match=r"more than 20 bytes.*max_response_bytes"):
        decoder.feed(b"data: 123456789012345\n\n")


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 100,
        b"data: 12345678\n" * 20,
        b"data\n" * 60,
        b": " + b"x" * 100,
        b"event: " + b"x" * 100,
    ],
    ids=["a line without end", "many lines", "many empty lines", "a comment", "a name"],
)
def test_what_has_no_end_is_refused_before_it_fills_the_memory(stream: bytes) -> None:
    assert read((bytes([byte]) for byte in stream), 50) == ([], TOO_LARGE.format(50))
    assert read([stream], 50) == ([], TOO_LARGE.format(50))


def test_events_before_one_that_is_too_large_are_not_lost() -> None:
    decoder = SSEDecoder(20)
    assert decoder.feed(b"data: a\n\ndata: " + b"x" * 30) == [b"a"]
    with pytest.raises(ProtocolError, match="20 bytes"):
        decoder.feed(b"more")
    with pytest.raises(ProtocolError, match="20 bytes"):
        decoder.close()


def test_many_small_events_are_not_one_large_one() -> None:
    assert len(SSEDecoder(20).feed(b"data: 12345678\n\n" * 1000)) == 1000


def test_a_large_event_in_small_pieces_is_put_together_once() -> None:
    decoder = SSEDecoder()
    body = b"x" * 2_000_000
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    assert not decoder.feed(b"data: ")
    for piece in pieces:
        assert not decoder.feed(piece)
    assert decoder._tail_size == len(body) + 6
    assert len(decoder._tail) == len(pieces) + 1  # kept as they came: nothing was joined yet
    assert decoder.feed(b"\n\n") == [body]
    assert decoder._tail == []
