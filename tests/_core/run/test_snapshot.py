"""Snapshots: a state comes back as it was, with what its logs share; anything else is none."""

from __future__ import annotations

import enum
import gc
import hashlib
import json
import tracemalloc
import types
import zlib
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vllm_agent_sdk._core.run.effects import effects
from vllm_agent_sdk._core.run.log import Log
from vllm_agent_sdk._core.run.run import evolve
from vllm_agent_sdk._core.run.snapshot import FORMAT, decode, encode
from vllm_agent_sdk._core.run.state import Moment, State
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types._codec import Raw
from vllm_agent_sdk.types.event_lines import read_line, write_line
from vllm_agent_sdk.types.events import Checkpointed, RunStarted, StoredEvent
from vllm_agent_sdk.types.messages import ToolCall, UserMessage

from .random_play import RandomPlay, logs_of, shared_by, states_of

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"


def kept_log(seed: int) -> list[StoredEvent]:
    """The log of a random session, as a store gives it."""
    return [read_line(write_line(event)) for event in RandomPlay(seed).play().log]


def through(state: State, seq: int = 1) -> State:
    """The state, written and read."""
    found = decode(encode(state, seq))
    assert found is not None
    assert found[1] == seq
    return found[0]


# ── resume equals replay ─────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("D-02")
@given(st.integers(0, 2**32), st.integers(0, 6))
def test_a_state_of_any_moment_comes_back_and_goes_on_as_the_log_does(seed: int, at: int) -> None:
    log = kept_log(seed)
    states = states_of(log)
    for seq in range(at, len(states), 7):
        again = through(states[seq], seq)
        assert again == states[seq]
        assert effects(again) == effects(states[seq])
        for event in log[seq:]:
            again = evolve(again, event)
        assert again == states[-1]


@pytest.mark.feature("D-02")
@given(st.integers(0, 2**32), st.integers(0, 6))
def test_logs_share_after_reading_what_they_shared_before(seed: int, at: int) -> None:
    for state in states_of(RandomPlay(seed).play().log)[at::7]:
        again = through(state)
        assert shared_by(again) == shared_by(state)
        logs, logs_again = logs_of(state), logs_of(again)
        for one, one_again in zip(logs, logs_again, strict=True):
            for other, other_again in zip(logs, logs_again, strict=True):
                assert one_again.begins_with(other_again) == one.begins_with(other)


def test_a_state_that_was_read_can_be_gone_on_from_twice() -> None:
    history = Log([UserMessage("a"), UserMessage("b"), UserMessage("c")])
    again = through(State(history=history, before_turn=Log(history.shared, 2)))
    one = again.before_turn.appended(UserMessage("x"))
    assert [m.text for m in again.history] == ["a", "b", "c"]
    two = again.history.appended(UserMessage("d"))
    assert [m.text for m in one] == ["a", "b", "x"]
    assert [m.text for m in two] == ["a", "b", "c", "d"]


# ── its size ─────────────────────────────────────────────────────────────────────────────────────


def checkpointed(count: int) -> tuple[State, State]:
    """A conversation of so many messages, with a checkpoint before each, and without."""
    history: Log[Any] = Log()
    moments: list[Moment] = []
    for number in range(count):
        moments.append(Moment(Checkpointed(f"c{number}", "s", 3), number, history))
        history = history.appended(UserMessage(f"message {number} " * 20))
    return State(history=history, checkpoints=Log(moments)), State(history=history)


@pytest.mark.feature("D-02")
def test_a_thousand_checkpoints_of_a_growing_conversation_take_little() -> None:
    state, bare = checkpointed(1000)
    more = len(encode(state, 1)) - len(encode(bare, 1))
    assert more < 1000 * 150, "each checkpoint takes its own record, and none of the conversation"
    again = through(state)
    assert again == state
    lists = {id(moment.history.shared) for moment in again.checkpoints if len(moment.history)}
    assert lists == {id(again.history.shared)}, "they all share the conversation's list"


def test_what_a_rewind_forks_off_is_written_once() -> None:
    state, bare = checkpointed(300)
    branch = state.checkpoints.since(200)[0].history.appended(UserMessage("another way"))
    more = len(encode(State(history=state.history, before_turn=branch), 1)) - len(encode(bare, 1))
    assert more < 200


def test_nothing_is_left_to_the_garbage_collector_and_no_bytes_stay_alive() -> None:
    state = State(history=Log([UserMessage("x" * 5_000_000)]), output=Raw(b"{}"))
    decode(encode(state, 1))  # builds what every later one uses
    gc.disable()
    tracemalloc.start()
    try:
        found = decode(encode(state, 1))
        assert found is not None
        output = found[0].output
        del found
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert bytes(output) == b"{}"
    assert left < 100_000


# ── what is no snapshot ──────────────────────────────────────────────────────────────────────────

SMALL = encode(checkpointed(3)[0], 12)


@given(st.data())
def test_bytes_of_which_any_one_was_changed_are_none(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(SMALL) - 1))
    changed = bytearray(SMALL)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert decode(bytes(changed)) is None


@given(st.integers(0, len(SMALL) - 1))
def test_bytes_that_were_cut_are_none(length: int) -> None:
    assert decode(SMALL[:length]) is None
    assert decode(SMALL[length + 1 :]) is None
    assert decode(SMALL + SMALL[:length] + b"\n") is None


@given(st.binary())
@example(b"1 12 00000000\n{}")
@example(b"1 1\n")
@example("1 \u0661 00000000\n{}".encode())
def test_any_bytes_are_none(data: bytes) -> None:
    assert decode(data) is None


def sealed(body: bytes, form: int = FORMAT) -> bytes:
    told = b"%d %d" % (form, 12)
    return b"%b %08x\n%b" % (told, zlib.crc32(body, zlib.crc32(told)), body)


def test_another_format_is_none_even_where_it_could_be_read() -> None:
    body = SMALL.partition(b"\n")[2]
    assert sealed(body) == SMALL
    for form in (0, FORMAT - 1, FORMAT + 1, 10**20):
        assert decode(sealed(body, form)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"state": {}, "objects": 3},
        {"state": None},
        {"state": {"history": [0, 99]}},
        {"state": {"history": [99, 1]}},
        {"state": {"history": [0, -1]}},
        {"state": {"history": [0]}},
        {"state": {"history": "no"}},
        {"state": {"history": ["a", "b"]}},
        {"state": {"history": {"0": 1}}},
        {"state": {"phase": "elsewhere"}},
        {"lists": [[[0, 99]]]},
        {"lists": [[[5, 5]]]},
        {"lists": [["a"]]},
        {"objects": []},
        {"objects": [{"role": "nobody"}]},
        # A checkpoint whose conversation is the list of checkpoints.
        {"objects": [{"event": {"type": "checkpointed", "checkpoint": "c"}, "turn": 1,
                      "history": [0, 1]}], "lists": [[[0, 1]]], "state": {"checkpoints": [0, 1]}},
    ],
)  # fmt: skip
def test_a_document_that_says_something_else_is_none(change: dict[str, Any]) -> None:
    document = json.loads(encode(State(history=Log([UserMessage("a")])), 12).partition(b"\n")[2])
    assert decode(sealed(json.dumps(document).encode())) is not None
    assert decode(sealed(json.dumps({**document, **change}).encode())) is None


def test_a_state_that_no_log_can_lead_to_is_refused() -> None:
    call = ToolCall("c", "get", {"a": object()})
    with pytest.raises(UsageError, match="JSON"):
        encode(State(denials=(call,)), 1)


# ── its format ───────────────────────────────────────────────────────────────────────────────────

#: What `FORMAT` stands for.
FROZEN = {"format": 1, "shape": "c8edac3da0c9bc69", "fold": "ef7833f4e175934d"}


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """A value with all its fields, also those that have their default."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, (Log, list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return bytes(value).decode() if isinstance(value, (bytes, msgspec.Raw)) else value


def described(kind: Any, known: dict[str, Any]) -> str:
    """A type's name; what it is made of goes into `known`."""
    origin = get_origin(kind)
    if origin is Literal:
        return f"Literal{get_args(kind)!r}"
    if origin in {Union, types.UnionType}:
        return " | ".join(described(each, known) for each in get_args(kind))
    if origin is not None:
        inner = ", ".join(described(each, known) for each in get_args(kind))
        return f"{described(origin, known)}[{inner}]"
    if kind is Any or not isinstance(kind, type):
        return repr(kind).removeprefix("typing.")
    name = kind.__qualname__
    if name in known or kind.__module__ == "builtins":
        return name
    if issubclass(kind, enum.Enum):
        known[name] = [str(each.value) for each in kind]
    elif issubclass(kind, msgspec.Struct):
        fields = known[name] = []
        for field in msgspec.structs.fields(kind):
            default = field.default
            if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            shown = "" if default is msgspec.NODEFAULT else written(default)
            fields.append([field.encode_name, described(field.type, known), shown])
    return name


def written(value: Any) -> str:
    """A default; for State's own, its logs are empty."""
    return msgspec.json.encode(value, enc_hook=list).decode()


@pytest.mark.feature("D-01")
def test_the_shape_of_the_state_is_that_of_the_format() -> None:
    known: dict[str, Any] = {}
    described(State, known)
    assert {"State", "CallState", "Moment", "Edit", "Whole", "RunStarted", "Phase"} <= set(known)
    assert (FORMAT, digest(known)) == (FROZEN["format"], FROZEN["shape"]), (
        "The state's shape changed: raise FORMAT in _core/run/snapshot.py, and write it and the "
        f"new digest, {digest(known)!r}, into FROZEN in this file."
    )


@pytest.mark.feature("D-01")
def test_what_is_made_of_old_logs_is_that_of_the_format() -> None:
    states: list[State] = []
    for path in sorted(LOGS.glob("*.jsonl")):
        states += states_of(read_line(line) for line in path.read_bytes().splitlines())
    assert len(states) > 100
    found = digest([plain(state) for state in states])
    assert (FORMAT, found) == (FROZEN["format"], FROZEN["fold"]), (
        "The fold makes something else of a log than it did: raise FORMAT in "
        f"_core/run/snapshot.py, and write it and the new digest, {found!r}, into FROZEN here."
    )


def test_the_shape_tells_of_what_a_state_is_made_of() -> None:
    class Inner(msgspec.Struct):
        a: int = 1

    class InnerChanged(msgspec.Struct):
        a: int = 2

    shapes = []
    for kind in (Inner, InnerChanged):
        known: dict[str, Any] = {}
        described(Log[kind | None], known)  # type: ignore[valid-type]
        shapes.append(next(iter(known.values())))
    assert shapes == [[["a", "int", "1"]], [["a", "int", "2"]]]
    assert described(RunStarted, {}) == "RunStarted"
