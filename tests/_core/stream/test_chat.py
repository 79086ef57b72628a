"""A chat stream's chunks to events and the reply: text, calls, choices, what completes them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.stream.chat import ChatAccumulator
from vllm_agent_sdk.errors import ProtocolError, StreamFailedError, StreamTruncatedError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.chat import ChatCompletion, decode_chunk
from vllm_agent_sdk.types.events import (
    ChoiceFinished,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallReady,
    UsageUpdated,
)
from vllm_agent_sdk.types.logprobs import ChatLogprobs, TokenLogprob

Chunk = dict[str, Any]


def delta(index: int = 0, finish: str | None = None, **fields: Any) -> Chunk:
    return {"choices": [{"index": index, "delta": fields, "finish_reason": finish}]}


def entries(*calls: dict[str, Any], **more: Any) -> Chunk:
    return delta(tool_calls=list(calls), **more)


def entry(index: int | None = 0, id: str | None = None, **function: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"function": function}
    return made | ({"index": index} if index is not None else {}) | ({"id": id} if id else {})


def fold(
    *chunks: Chunk, choices: int = 1, offered: frozenset[str] | None = None
) -> tuple[list[StreamEvent], ChatAccumulator]:
    folded = ChatAccumulator(choices, offered)
    events = [e for chunk in chunks for e in folded.push(decode_chunk(_codec.encode(chunk)))]
    return events, folded


def reply(*chunks: Chunk, choices: int = 1) -> ChatCompletion:
    return fold(*chunks, choices=choices)[1].finish()


def calls(*chunks: Chunk) -> list[tuple[str, str, str]]:
    """Id, name and arguments of the calls of a stream that then ends."""
    events, folded = fold(*chunks, delta(finish="tool_calls"))
    ready = [event.call for event in events if isinstance(event, ToolCallReady)]
    assert ready == folded.finish().tool_calls
    check_deltas(events, [(call.id, call.name, call.arguments_json) for call in ready])
    return [(call.id, call.name, call.arguments_json) for call in ready]


def check_deltas(events: list[StreamEvent], expected: list[tuple[str, str, str]]) -> None:
    """Joined by index, the deltas are the calls; id and name come once each."""
    for index, (id_, name, arguments) in enumerate(expected):
        of_call = [e for e in events if isinstance(e, ToolCallDelta) and e.index == index]
        assert [e.id for e in of_call if e.id] in ([id_], [])
        assert [e.name for e in of_call if e.name] in ([name], [])
        assert "".join(e.arguments for e in of_call) == arguments


# ── text ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("S-03")
def test_2_and_2_give_22() -> None:
    events, folded = fold(delta(content="2"), delta(content="2"), delta(finish="stop"))
    assert folded.finish().text == "22"
    assert events == [TextDelta("2"), TextDelta("2"), ChoiceFinished("stop")]


@pytest.mark.feature("S-03")
@given(pieces=st.lists(st.text(st.characters(codec="utf-8"))))
def test_the_pieces_of_text_are_the_text(pieces: list[str]) -> None:
    events, folded = fold(*(delta(content=piece) for piece in pieces), delta(finish="stop"))
    texts = [event.text for event in events if isinstance(event, TextDelta)]
    assert texts == [piece for piece in pieces if piece]
    assert folded.finish().text == "".join(pieces)


@pytest.mark.feature("S-04")
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_read_under_both_names_and_is_no_text(name: str) -> None:
    events, folded = fold(
        delta(**{name: "Let "}),
        delta(**{name: "me see", "content": "18"}),
        delta(finish="stop"),
    )
    whole = folded.finish()
    assert (whole.reasoning, whole.text) == ("Let me see", "18")
    assert events[:3] == [ReasoningDelta("Let "), ReasoningDelta("me see"), TextDelta("18")]


def test_reasoning_under_both_names_at_once_is_read_once() -> None:
    said = reply(delta(reasoning="a", reasoning_content="a"), delta(finish="stop"))
    assert said.reasoning == "a"


def test_a_refusal_has_its_own_events() -> None:
    events, folded = fold(delta(refusal="I "), delta(refusal="won't", finish="stop"))
    assert events == [RefusalDelta("I "), RefusalDelta("won't"), ChoiceFinished("stop")]
    assert folded.finish().choices[0].message.refusal == "I won't"
    assert folded.finish().text == ""


def test_the_text_of_a_chunk_that_finishes_is_kept() -> None:
    events, folded = fold(delta(content="a"), delta(content="b", finish="length"))
    assert folded.finish().text == "ab"
    assert events[-2:] == [TextDelta("b"), ChoiceFinished("length")]


# ── calls ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("S-05")
@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param(
            [entries(entry(0, "a", name="f"), entry(0, arguments='{"x": 1}'))],
            [("a", "f", '{"x": 1}')],
            id="two entries of one index in one chunk",
        ),
        pytest.param(
            [
                entries(entry(0, "a", name="f", arguments='{"x"')),
                entries(entry(0, name=None, arguments=": 1}"), entry(1, "b", name="g")),
                entries(entry(1, arguments="{}")),
            ],
            [("a", "f", '{"x": 1}'), ("b", "g", "{}")],
            id="a name that is null later, and the end of one call with the start of the next",
        ),
        pytest.param(
            [
                entries(entry(0, "a", name="f", arguments="{}")),
                entries(entry(0, "b", name="f", arguments='{"x":')),
                entries(entry(0, arguments="2}")),
            ],
            [("a", "f", "{}"), ("b", "f", '{"x":2}')],
            id="gigachat: a new id on the same index is a new call",
        ),
        pytest.param(
            [entries(entry(0, name="f", arguments="{}"), entry(0, name="g", arguments="{}"))],
            [("call_0", "f", "{}"), ("call_1", "g", "{}")],
            id="another name on the same index is a new call",
        ),
        pytest.param(
            [
                entries(entry(None, "a", name="f", arguments='{"x":')),
                entries(entry(None, arguments="1}")),
                entries(entry(None, "b", name="g", arguments="{}")),
            ],
            [("a", "f", '{"x":1}'), ("b", "g", "{}")],
            id="no index: the last call, unless it brings a new id",
        ),
        pytest.param(
            [entries(entry(0, name="f")), entries(entry(0, "late", arguments="{}"))],
            [("late", "f", "{}")],
            id="an id that comes late",
        ),
        pytest.param(
            [entries(entry(0, name="f", arguments="{}"), entry(1, name="f", arguments="{}"))],
            [("call_0", "f", "{}"), ("call_1", "f", "{}")],
            id="no ids at all",
        ),
        pytest.param(
            [entries(entry(0, "a", name="f")), entries(entry(0, "a", name="f", arguments="{}"))],
            [("a", "f", "{}")],
            id="id and name in every entry",
        ),
        pytest.param(
            [entries(entry(1, "b", name="g")), entries(entry(0, "a", name="f")),
             entries(entry(1, arguments="{}"), entry(0, arguments='{"x":0}'))],
            [("b", "g", "{}"), ("a", "f", '{"x":0}')],
            id="indices out of order",
        ),
        pytest.param([entries({"index": 0, "id": "a"})], [("a", "", "")], id="no function"),
        pytest.param([entries(entry(0, "a", name="f"))], [("a", "f", "")], id="no arguments"),
    ],
)  # fmt: skip
def test_calls_are_put_together_from_what_servers_send(
    chunks: list[Chunk], expected: list[tuple[str, str, str]]
) -> None:
    assert calls(*chunks) == expected


@pytest.mark.feature("S-05")
def test_no_arguments_are_an_empty_object() -> None:
    said = reply(entries(entry(0, "a", name="f", arguments="")), delta(finish="tool_calls"))
    (call,) = said.tool_calls
    assert (call.arguments, call.error) == ({}, None)


@pytest.mark.feature("S-05")
def test_arguments_that_do_not_parse_are_data() -> None:
    events, _ = fold(entries(entry(0, "a", name="f", arguments='{"x": }')), delta(finish="stop"))
    (call,) = [event.call for event in events if isinstance(event, ToolCallReady)]
    assert call.arguments is None
    assert call.arguments_json == '{"x": }'
    assert "not valid JSON" in (call.error or "")


@pytest.mark.feature("S-05")
def test_calls_are_ready_when_their_choice_ends_before_it_is_finished() -> None:
    events, _ = fold(
        entries(entry(0, "a", name="f", arguments="{}"), entry(1, "b", name="g")),
        entries(entry(1, arguments="{}"), finish="tool_calls"),
    )
    kinds = [type(event) for event in events]
    assert kinds == [*[ToolCallDelta] * 3, *[ToolCallReady] * 2, ChoiceFinished]


@pytest.mark.parametrize(
    ("offered", "unexpected"),
    [(None, [False, False]), (frozenset({"f"}), [False, True]), (frozenset[str](), [True, True])],
)
def test_a_call_of_a_tool_that_was_not_offered_is_unexpected(
    offered: frozenset[str] | None, unexpected: list[bool]
) -> None:
    events, _ = fold(
        entries(entry(0, "a", name="f"), entry(1, "b", name="g")),
        delta(finish="tool_calls"),
        offered=offered,
    )
    ready = [event.call for event in events if isinstance(event, ToolCallReady)]
    assert [call.unexpected for call in ready] == unexpected


@pytest.mark.feature("S-05")
@given(
    arguments=st.lists(
        st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=3),
        min_size=1,
        max_size=4,
    ),
    size=st.integers(1, 9),
)
def test_arguments_in_any_pieces_are_the_arguments(
    arguments: list[dict[str, Any]], size: int
) -> None:
    chunks: list[Chunk] = []
    for index, each in enumerate(arguments):
        text = _codec.encode(each).decode()
        chunks.append(entries(entry(index, f"id{index}", name="f")))
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        chunks += [entries(entry(index, arguments=piece)) for piece in pieces]
    said = reply(*chunks, delta(finish="tool_calls"))
    assert [call.arguments for call in said.tool_calls] == arguments


# ── choices ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("S-02")
def test_choices_that_come_interleaved_are_kept_apart() -> None:
    events, folded = fold(
        delta(1, content="b"),
        delta(0, content="a"),
        delta(1, tool_calls=[entry(0, "x", name="f", arguments="{}")]),
        delta(0, content="a", finish="stop"),
        delta(1, finish="tool_calls"),
        choices=2,
    )
    whole = folded.finish()
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert [choice.message.content for choice in whole.choices] == ["aa", "b"]
    assert [choice.finish_reason for choice in whole.choices] == ["stop", "tool_calls"]
    assert [event.choice for event in events] == [1, 0, 1, 0, 0, 1, 1]  # type: ignore[union-attr]


@pytest.mark.feature("S-02")
def test_a_choice_finishes_once_even_if_the_server_says_it_again() -> None:
    events, folded = fold(
        entries(entry(0, "a", name="f")), delta(finish="stop"), delta(finish="stop")
    )
    assert [type(event) for event in events] == [ToolCallDelta, ToolCallReady, ChoiceFinished]
    assert folded.finish().finish_reason == "stop"


@pytest.mark.feature("S-06")
@pytest.mark.parametrize("finished", list(itertools.combinations(range(3), 2)))
def test_a_reply_is_not_complete_before_each_choice_has_its_finish_reason(
    finished: tuple[int, ...],
) -> None:
    _, folded = fold(*(delta(index, "stop", content="a") for index in finished), choices=3)
    assert not folded.complete
    with pytest.raises(StreamTruncatedError, match="1 of 3 choices") as caught:
        folded.finish()
    assert [choice.index for choice in caught.value.partial.choices] == list(finished)
    missing = ({0, 1, 2} - set(finished)).pop()
    folded.push(decode_chunk(_codec.encode(delta(missing, "stop"))))
    assert folded.complete


@pytest.mark.feature("S-06")
def test_a_stream_without_a_chunk_is_truncated() -> None:
    with pytest.raises(StreamTruncatedError, match="without a finish reason after 0 chunks"):
        ChatAccumulator().finish()


@pytest.mark.feature("S-06")
@pytest.mark.parametrize("before", [[], [delta(content="a")], [delta(content="a", finish="stop")]])
def test_an_error_frame_is_an_error_even_after_the_finish(before: list[Chunk]) -> None:
    _, folded = fold(*before)
    error = {"message": "boom", "type": "BadRequestError", "param": None, "code": 400}
    with pytest.raises(StreamFailedError, match="inside the stream: boom") as caught:
        folded.push(decode_chunk(_codec.encode({"error": error})))
    assert (caught.value.status, caught.value.type) == (400, "BadRequestError")


# ── what stands beside the choices ───────────────────────────────────────────────────────────────


@pytest.mark.feature("S-07")
def test_the_usage_chunk_and_continuous_usage_are_understood() -> None:
    counts = [
        {"prompt_tokens": 3, "total_tokens": 3 + n, "completion_tokens": n} for n in (0, 1, 2)
    ]
    events, folded = fold(
        delta(content="") | {"usage": counts[0]},
        delta(content="a", finish="stop") | {"usage": counts[1]},
        {"choices": [], "usage": counts[2]},
    )
    updates = [event.usage for event in events if isinstance(event, UsageUpdated)]
    assert [usage.completion_tokens for usage in updates] == [0, 1, 2]
    assert folded.finish().usage == updates[-1]
    assert [type(event) for event in events][-3:] == [ChoiceFinished, UsageUpdated, UsageUpdated]


def test_log_probabilities_and_token_ids_are_joined() -> None:
    def chunk(token: int, finish: str | None = None) -> Chunk:
        made = delta(content=str(token), finish=finish)
        made["choices"][0] |= {
            "token_ids": [token],
            "logprobs": {"content": [{"token": str(token)}]},
        }
        return made

    (choice,) = reply(chunk(1), delta(content=""), chunk(2, "stop")).choices
    assert choice.token_ids == [1, 2]
    assert choice.logprobs == ChatLogprobs([TokenLogprob("1"), TokenLogprob("2")])


def test_the_head_and_the_fingerprint_are_kept() -> None:
    first = delta(role="assistant", content="") | {"id": "c-1", "created": 7, "model": "m"}
    first |= {"prompt_token_ids": [7], "prompt_text": "Hi"}
    last: Chunk = {"choices": [], "id": "c-1", "system_fingerprint": "vllm-0.32.0"}
    said = reply(first, delta(content="a", finish="stop"), last)
    assert (said.id, said.created, said.model) == ("c-1", 7, "m")
    assert (said.prompt_token_ids, said.prompt_text) == ([7], "Hi")
    assert said.system_fingerprint == "vllm-0.32.0"


def test_chunks_of_no_use_are_taken_calmly() -> None:
    said = reply({}, {"choices": None}, {"choices": [{"index": 0}]}, delta(finish="stop"))
    assert (said.text, said.usage, said.tool_calls) == ("", None, [])


def test_null_equals_absent_in_a_chunk() -> None:
    chunk = b'{"choices":[{"index":null,"delta":{"content":"a"},"finish_reason":"stop"}]}'
    folded = ChatAccumulator()
    assert folded.push(decode_chunk(chunk)) == [TextDelta("a"), ChoiceFinished("stop")]


@given(data=st.binary() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(
        ["choices", "delta", "index", "tool_calls", "function", "usage", "error", "name",
         "arguments", "content", "finish_reason", "id", "logprobs", "message", "code"]
    ), inner, max_size=5),
    max_leaves=20,
).map(_codec.encode))  # fmt: skip
@pytest.mark.feature("S-01")
def test_whatever_the_json_it_is_events_or_a_typed_error(data: bytes) -> None:
    folded = ChatAccumulator()
    try:
        events = folded.push(decode_chunk(data))
    except (ProtocolError, StreamFailedError):
        events = []
    assert all(isinstance(event, StreamEvent) for event in events)
    assert isinstance(folded.snapshot(), ChatCompletion)
