"""A Responses stream's events to the response: items, what completes them, what goes wrong."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.stream.responses import ResponseAccumulator
from vllm_agent_sdk.errors import ProtocolError, StreamFailedError, StreamTruncatedError
from vllm_agent_sdk.types import _codec, responses_events
from vllm_agent_sdk.types.responses import Response
from vllm_agent_sdk.types.responses_events import decode_event

pytestmark = pytest.mark.feature("E-03")

Event = dict[str, Any]


def event(type_: str, **fields: Any) -> Event:
    return {"type": f"response.{type_}", **fields}


def added(at: int, kind: str, **fields: Any) -> Event:
    return event("output_item.added", output_index=at, item={"type": kind, **fields})


def ended(status: str = "completed", **fields: Any) -> Event:
    return event("completed", response={"id": "r", "status": status, **fields})


def fold(*events: Event) -> ResponseAccumulator:
    folded = ResponseAccumulator()
    for each in events:
        folded.push(decode_event(_codec.encode(each)))
    return folded


def partial(*events: Event) -> Response:
    """What an unfinished stream has come to, which is what its error carries."""
    folded = fold(*events)
    with pytest.raises(StreamTruncatedError, match=f"after {len(events)} events") as caught:
        folded.finish()
    assert not folded.complete
    said: Response = caught.value.partial
    assert _codec.encode(said) == _codec.encode(folded.snapshot())
    return said


@pytest.mark.feature("S-03")
@given(pieces=st.lists(st.text(st.characters(codec="utf-8"))))
def test_the_pieces_of_text_are_the_text(pieces: list[str]) -> None:
    deltas = [event("output_text.delta", delta=piece) for piece in pieces]
    assert partial(added(0, "message"), *deltas).text == "".join(pieces)


@pytest.mark.feature("S-03")
def test_2_and_2_give_22() -> None:
    deltas = [event("output_text.delta", delta="2")] * 2
    assert partial(*deltas).text == "22"


@pytest.mark.feature("S-04")
def test_reasoning_and_its_summary_are_no_text() -> None:
    said = partial(
        added(0, "reasoning"),
        event("reasoning_text.delta", delta="Let "),
        event("reasoning_text.delta", delta="me see"),
        added(1, "reasoning"),
        event("reasoning_summary_text.delta", output_index=1, delta="seen"),
        event("reasoning_summary_text.done", output_index=1, text="seen."),
        added(2, "message"),
        event("output_text.delta", output_index=2, delta="18"),
    )
    assert (said.reasoning, said.text) == ("Let me seeseen.", "18")
    assert said.output[1].summary is not None


def test_calls_come_in_pieces_of_their_own_item() -> None:
    said = partial(
        added(0, "function_call", call_id="a", name="f"),
        added(1, "function_call", call_id="b", name="g", namespace="n"),
        event("function_call_arguments.delta", output_index=1, delta='{"x"'),
        event("function_call_arguments.delta", output_index=0, delta="{}"),
        event("function_call_arguments.delta", output_index=1, delta=":1}"),
        event("function_call_arguments.done", output_index=0, arguments="{}", name="f"),
    )
    calls = [(call.id, call.name, call.arguments) for call in said.tool_calls]
    assert calls == [("a", "f", {}), ("b", "n__g", {"x": 1})]


def test_what_is_whole_replaces_its_pieces() -> None:
    done = {"type": "message", "content": [{"type": "output_text", "text": "whole"}]}
    said = partial(
        event("output_text.delta", delta="who"),
        event("output_text.done", text="whol"),
        event("content_part.done", part={"type": "output_text", "text": "whole"}),
        event("output_item.done", item=done),
        event("output_text.delta", delta=" and no more"),
    )
    assert said.text == "whole"


@pytest.mark.parametrize(
    ("kind", "field", "events"),
    [
        ("custom_tool_call", "input", ["custom_tool_call_input.delta"] * 2),
        ("mcp_call", "arguments", ["mcp_call_arguments.delta"] * 2),
        ("code_interpreter_call", "code", ["code_interpreter_call_code.delta"] * 2),
        ("function_call", "arguments", ["function_call_arguments.delta"] * 2),
    ],
)
def test_an_item_whose_beginning_was_not_seen_is_made_of_what_comes(
    kind: str, field: str, events: list[str]
) -> None:
    deltas = [event(name, output_index=7, item_id="i", delta="ab") for name in events]
    (item,) = partial(*deltas).output
    assert (item.type, item.id, item.status) == (kind, "i", "in_progress")
    assert getattr(item, field) == "abab"
    whole = event(events[0].replace("delta", "done"), output_index=7, **{field: "whole"})
    assert getattr(partial(*deltas, whole).output[0], field) == "whole"


def test_refusals_annotations_and_log_probabilities_are_kept() -> None:
    said = partial(
        event("output_text.delta", delta="a", logprobs=[{"token": "a"}]),
        event("output_text.delta", delta="b", logprobs=[{"token": "b"}]),
        event("output_text.annotation.added", annotation={"url": "u"}),
        event("refusal.delta", content_index=1, delta="I "),
        event("refusal.delta", content_index=1, delta="won't"),
    )
    text, refusal = said.output[0].content or ()
    assert text.logprobs == [{"token": "a"}, {"token": "b"}]
    assert text.annotations == [{"url": "u"}]
    assert (refusal.type, refusal.refusal, refusal.text) == ("refusal", "I won't", "")
    finished = event("refusal.done", content_index=1, refusal="No.")
    (again,) = partial(finished).output[0].content or ()
    assert again.refusal == "No."


def test_tools_of_the_server_and_new_types_are_taken_calmly() -> None:
    said = partial(
        event("web_search_call.searching", item_id="w"),
        event("mcp_call.in_progress", item_id="m"),
        event("something.new", whatever=[1, {}]),
    )
    assert said.output == []


# ── the end ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("S-06")
def test_only_completed_and_incomplete_complete_a_response() -> None:
    text = [added(0, "message"), event("output_text.delta", delta="a")]
    before = [event("created", response={"id": "r"}), event("in_progress", response={"id": "r"})]
    assert partial(*before, *text, event("output_item.done", item={"type": "message"})).id == "r"
    whole = {"type": "message", "content": [{"type": "output_text", "text": "ab"}]}
    said = fold(*before, *text, ended(output=[whole])).finish()
    assert (said.text, said.status) == ("ab", "completed")
    reason = {"reason": "max_output_tokens"}
    for end in (
        ended("incomplete", incomplete_details=reason),
        event("incomplete", response={"status": "incomplete", "incomplete_details": reason}),
    ):
        cut = fold(*before, *text, end).finish()
        assert cut.status == "incomplete"
        assert cut.incomplete_details is not None
        assert cut.incomplete_details.reason == "max_output_tokens"


def test_a_last_event_without_output_keeps_what_had_come() -> None:
    said = fold(added(0, "message"), event("output_text.delta", delta="a"), ended()).finish()
    assert said.text == "a"


def test_a_cancelled_response_is_given_as_it_is() -> None:
    assert fold(ended("cancelled")).finish().status == "cancelled"


@pytest.mark.feature("S-06")
@pytest.mark.parametrize(
    ("frame", "message", "status"),
    [
        (ended("failed"), "the response has failed", None),
        (event("failed", response={"error": {"code": "server_error", "message": "boom"}}),
         "boom", None),
        ({"type": "error", "message": "boom", "code": 503}, "boom", 503),
        ({"type": "error", "error": {"message": "boom", "code": 400}}, "boom", 400),
        ({"error": {"message": "EngineCore encountered an issue", "code": 500}}, "died", 500),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [[], [event("output_text.delta", delta="a")]])
def test_a_failure_is_an_error_and_what_had_come_is_kept(
    frame: Event, message: str, status: int | None, before: list[Event]
) -> None:
    folded = fold(*before)
    with pytest.raises(StreamFailedError, match=message) as caught:
        folded.push(decode_event(_codec.encode(frame)))
    assert caught.value.status == status
    assert not folded.complete
    assert folded.snapshot().text == ("a" if before else "")


@pytest.mark.feature("S-06")
def test_a_stream_without_an_event_is_truncated() -> None:
    with pytest.raises(StreamTruncatedError, match=r"without response\.completed"):
        ResponseAccumulator().finish()


def test_the_events_own_responses_are_not_changed() -> None:
    folded = ResponseAccumulator()
    end = decode_event(_codec.encode(ended()))
    folded.push(decode_event(_codec.encode(event("output_text.delta", delta="a"))))
    folded.push(end)
    folded.finish().attach(b"", "mine", None)
    assert end.response.output == []  # type: ignore[union-attr]
    assert end.response.request_id is None  # type: ignore[union-attr]


# ── whatever comes ───────────────────────────────────────────────────────────────────────────────

NAMES = sorted(
    {name for cls in get_args(responses_events._Known) for name in cls.__struct_fields__}
    | {"output", "status", "content", "text", "call_id"}
)
TYPES = sorted(str(cls.__struct_config__.tag) for cls in get_args(responses_events._Known))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NAMES, "type"]), inner, max_size=4)
    ),
    max_leaves=6,
)
EVENTS = st.builds(
    lambda type_, fields: {**fields, "type": type_},
    st.sampled_from(TYPES),
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6),
)


@pytest.mark.feature("S-06")
@given(events=st.lists(EVENTS, max_size=6))
def test_whatever_the_events_hold_it_ends_in_a_response_or_a_typed_error(
    events: list[Event],
) -> None:
    folded = ResponseAccumulator()
    for each in events:
        try:
            folded.push(decode_event(_codec.encode(each)))
        except (ProtocolError, StreamFailedError):
            break
    said = folded.snapshot()
    assert isinstance(said.text, str)
    assert len(said.tool_calls) <= len(said.output)
    assert said.assistant_message().text == said.text
    try:
        assert folded.finish() == said
    except StreamTruncatedError:
        assert not folded.complete
