"""JSON both ways: the traps, each with one typed error."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk.errors import ProtocolError, UsageError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.chat import ChatCompletion, decode_completion


class Inner(msgspec.Struct):
    a: int = 0
    wire_name: int = msgspec.field(default=0, name="wireName")


class Outer(msgspec.Struct):
    one: Inner | None = None
    many: list[Inner] = []
    free: Any = None
    text: str = "unset"


decode_outer = _codec.decoder(Outer)

# ── what a server sends ──────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("S-01")
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"free": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"free":' * 5000, "nested too deeply"),
        (b'{"text": "\xff\xfe"}', "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"text": "\\ud800"}', "not JSON"),
        (b'{"free": NaN}', "not JSON"),
        (b'{"free": -Infinity}', "not JSON"),
        (b'{"free": 1e999}', "another shape"),
        (b'{"free": ' + b"9" * 5000 + b"}", "another shape"),
        (b'{"text": 7}', "another shape"),
        (b'{"text": null, "one": 7}', "another shape"),
        (b"[]", "another shape"),
        (b"null", "another shape"),
        (b'{"text": "a"', "not JSON"),
        (b"<html>", "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_bad_bytes_are_a_protocol_error_that_shows_them(data: bytes, text: str) -> None:
    with pytest.raises(ProtocolError, match=text) as caught:
        decode_outer(data)
    assert len(caught.value.message) < 1000


@pytest.mark.feature("S-01")
@given(data=st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_value_or_a_protocol_error(data: bytes) -> None:
    for decode in (decode_outer, decode_completion, _codec.decode):
        try:
            decode(data)
        except ProtocolError as error:
            assert error.message  # noqa: PT017
    value = _codec.decode_or_none(data)
    assert value is None or _codec.encode(value)


def test_null_equals_absent_wherever_it_stands() -> None:
    data = b'{"text": null, "many": [{"a": null, "wireName": 2}], "one": null, "free": {"b": null}}'
    assert decode_outer(data) == Outer(many=[Inner(0, 2)], free={})
    assert decode_outer(b'{"one": null, "free": {"b": null}}') == Outer(free={"b": None})


def test_a_whole_reply_of_nulls_is_a_reply_without_anything() -> None:
    keys = [field.encode_name for field in msgspec.structs.fields(ChatCompletion)]
    said = decode_completion(json.dumps(dict.fromkeys(keys)).encode())
    assert (said.text, said.choices, said.usage, said.finish_reason) == ("", [], None, None)


# ── what we send ─────────────────────────────────────────────────────────────────────────────────


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append({"again": value})
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": "x\ud800"}, "lone surrogate .* at position 1"),
        ({"\udfff": 1}, "lone surrogate"),
        (deep(100_000), "nested too deeply"),
        (endless(), "contains itself"),
        ({"a": object()}, "cannot be written as JSON"),
        ({("a", 1): 1}, "cannot be written as JSON"),
        ({"a": {1j}}, "cannot be written as JSON"),
    ],
    ids=["surrogate", "surrogate key", "deep", "endless", "object", "tuple key", "complex"],
)
def test_what_json_cannot_hold_is_the_callers_mistake(value: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        _codec.encode_checked(value)
    with pytest.raises(UsageError, match=text):
        _codec.encode(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda x: x, "$"),
        (lambda x: {"a": [1.0, {"b": x}]}, "$.a[1].b"),
        (lambda x: ({"a": 1}, (x,)), "$[1][0]"),
    ],
)
def test_a_number_that_is_none_is_refused_with_its_path(
    number: float, wrap: Any, path: str
) -> None:
    with pytest.raises(UsageError) as caught:
        _codec.encode_checked(wrap(number))
    assert caught.value.message == f"{path} is NaN or infinite: JSON has no such number."


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(value=JSON)
def test_what_is_written_is_read_again(value: Any) -> None:
    written = _codec.encode_checked(value)
    assert _codec.decode(written) == value
    assert json.loads(written) == value


WRITTEN = _codec.Raw(b'{"content":null}')


@pytest.mark.parametrize(
    "messages", [[], [WRITTEN], [WRITTEN, WRITTEN], [WRITTEN, {"content": None}]]
)
def test_a_body_is_written_as_any_value_whatever_of_it_is_bytes_already(messages: Any) -> None:
    body = {"messages": messages, "temperature": 0.5, "stop": None}
    assert (
        _codec.encode_body(body)
        == _codec.encode_checked(body)
        == json.dumps(
            {**body, "messages": [{"content": None} for _ in messages]}, separators=(",", ":")
        ).encode()
    )


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"messages": [WRITTEN], "temperature": math.nan}, "$.temperature"),
        ({"messages": [WRITTEN, {"content": math.inf}]}, "$.messages[1].content"),
        ({"messages": [[WRITTEN, math.nan]]}, "$.messages[0][1]"),
    ],
)
def test_a_body_with_a_number_that_is_none_is_refused_with_its_path(body: Any, path: str) -> None:
    with pytest.raises(UsageError) as caught:
        _codec.encode_body(body)
    assert caught.value.message == f"{path} is NaN or infinite: JSON has no such number."


def test_json_that_is_bytes_already_is_written_as_it_is() -> None:
    assert _codec.encode({"a": _codec.Raw(b"[1,  2]")}) == b'{"a":[1,  2]}'


# ── unknown keys ─────────────────────────────────────────────────────────────────────────────────


def lost(data: bytes) -> Any:
    return _codec.unknown_keys(_codec.decode(data), decode_outer(data))


@pytest.mark.parametrize(
    ("data", "unknown"),
    [
        (b'{"text": "a", "free": {"x": 1}, "many": [{"a": 1, "wireName": 2}]}', {}),
        (b'{"new": 1}', {"new": 1}),
        (b'{"one": {"a": 1, "new": {"b": 2}}}', {"one": {"new": {"b": 2}}}),
        (b'{"many": [{"a": 1}, {"new": 2}, {}]}', {"many": [{}, {"new": 2}, {}]}),
        (b'{"one": {"wire_name": 3}}', {"one": {"wire_name": 3}}),
        (b'{"one": null, "new": null}', {"new": None}),
        (b'{"text": null, "many": [{"a": null, "new": 1}]}', {"many": [{"new": 1}]}),
    ],
)
def test_what_the_types_do_not_know_is_found_again(data: bytes, unknown: Any) -> None:
    assert lost(data) == unknown


@given(extra=st.dictionaries(st.text(min_size=1).map("x_".__add__), st.integers(), min_size=1))
def test_unknown_keys_are_found_at_any_level_of_a_reply(extra: dict[str, int]) -> None:
    message = {"role": "assistant", "content": "a", **extra}
    usage = {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1, **extra}}
    choice = {"index": 0, "message": message, **extra}
    raw = json.dumps({"id": "c", "choices": [choice], "usage": usage, **extra}).encode()
    said = decode_completion(raw)
    said.attach(raw, None, None)
    assert said.extra == {
        "choices": [{"message": extra, **extra}],
        "usage": {"prompt_tokens_details": extra},
        **extra,
    }


# ── what we write for ourselves ──────────────────────────────────────────────────────────────────


class Span:
    """A type that JSON has no form for."""

    def __init__(self, *ends: int) -> None:
        self.ends = list(ends)


class Note(msgspec.Struct):
    span: Span
    number: int = 0


def ends_of(value: Any) -> list[int]:
    if not isinstance(value, Span):
        raise TypeError(f"no {type(value).__name__}")
    return value.ends


encode_own = _codec.encoder(ends_of)
decode_own = _codec.own_decoder(Note, lambda kind, ends: kind(ends[0], ends[1]))


@given(st.integers(0, 9), st.integers(0, 9))
def test_types_of_ours_are_written_and_read_by_their_hooks(first: int, last: int) -> None:
    data = encode_own(Note(Span(first, last), 3))
    assert data == b'{"span":[%d,%d],"number":3}' % (first, last)
    assert decode_own(data).span.ends == [first, last]


@pytest.mark.parametrize("value", [object(), "\ud800", {"a": {1, object()}}])
def test_what_the_hook_does_not_know_is_refused(value: Any) -> None:
    with pytest.raises(UsageError):
        encode_own([Span(1, 2), value])


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b'{"span": [1]}', b'{"span": 3}', b'{"span": [1, 2], "number": "3"}',
     b'{"span": {"a": 1}}', b"[" * 100_000],
)  # fmt: skip
def test_what_was_not_written_so_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_own(data)
