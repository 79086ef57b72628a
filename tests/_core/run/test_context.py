"""What a run does as its context fills up, and what it notes of the prefix cache."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.run.effects import CallModel, Compact, Finish, compactable, effects
from vllm_agent_sdk._core.run.log import Log
from vllm_agent_sdk._core.run.state import Phase, State, replace
from vllm_agent_sdk.types.context import Prefix
from vllm_agent_sdk.types.events import (
    Compacted,
    MessageAdded,
    ModelEnded,
    ModelStarted,
    RunStarted,
    StoredEvent,
    TurnStarted,
)
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    Message,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vllm_agent_sdk.types.options import Context
from vllm_agent_sdk.types.results import ErrorInfo, Usage

from .play import Play, said
from .random_play import RandomPlay, check_transcript, replayed

pytestmark = pytest.mark.feature("A-10")

OLD: list[Message] = [
    UserMessage("one"),
    AssistantMessage([TextBlock("1")]),
    UserMessage("two"),
    AssistantMessage([TextBlock("2")]),
]
FAILED = Compacted(error=ErrorInfo("OutputError", "cut"))


def play(**started: Any) -> Play:
    """A run with a window of 100 tokens and two turns before it."""
    started.setdefault("context", Context(keep_last=1))
    return Play(history=list(OLD), window=100, **started)


def begun(tokens: int | None, *, exact: bool = True, **started: Any) -> Play:
    return play(**started).add(TurnStarted(1, context_tokens=tokens, exact=exact))


# ── what may be summarised ───────────────────────────────────────────────────────────────────────

TURNS = st.lists(st.sampled_from(["user", "text", "calls"]), max_size=12)


def conversation(kinds: list[str]) -> list[Message]:
    messages: list[Message] = []
    for number, kind in enumerate(kinds):
        match kind:
            case "user":
                messages.append(UserMessage(f"u{number}"))
            case "text":
                messages.append(AssistantMessage([TextBlock("a")]))
            case _:
                ids = [f"c{number}", f"d{number}"]
                calls = [ToolCall.from_text(each, "f", "{}") for each in ids]
                messages += [AssistantMessage(calls), *(ToolMessage(each, "r") for each in ids)]
    return messages


@given(TURNS, st.integers(0, 5))
def test_a_call_stays_with_its_results_and_the_newest_prompt_with_what_follows(
    kinds: list[str], keep_last: int
) -> None:
    messages = conversation(kinds)
    started = RunStarted(context=Context(keep_last=keep_last))
    cut = compactable(State(started=started, history=Log(messages)))
    kept = messages[cut:]
    check_transcript(kept)
    check_transcript(messages[:cut])
    assert cut == 0 or cut > 1  # one message is no shorter as a summary
    if cut:
        assert len(kept) >= keep_last
        newest = [message for message in messages if isinstance(message, UserMessage)][-1]
        assert newest in kept


@given(st.integers(0, 2**32))
def test_whatever_happens_a_summary_keeps_the_newest_prompt_and_valid_transcripts(
    seed: int,
) -> None:
    before: list[State] = [State()]

    def check(random_play: RandomPlay) -> None:
        event, state = random_play.log[-1], random_play.state
        if isinstance(event, Compacted):
            old = before[-1].history.since(0)
            if event.error is not None:
                assert state.history.since(0) == old
                assert state.summaries == before[-1].summaries
            else:
                rest = old[event.messages :]
                assert state.history.since(0) == [UserMessage(event.summary), *rest]
                assert state.summaries == before[-1].summaries + 1
                newest = [message for message in old if isinstance(message, UserMessage)][-1:]
                assert all(message in rest for message in newest)
                check_transcript(state.history)
        before.append(state)

    RandomPlay(seed, check).play()


# ── foreseen ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("tokens", "wanted"), [(None, False), (80, False), (81, True)])
def test_a_turn_that_passes_compact_at_is_preceded_by_a_summary(
    tokens: int | None, wanted: bool
) -> None:
    assert effects(begun(tokens).state) == ((Compact(1, 4) if wanted else CallModel(1, 0)),)


def test_a_window_learnt_as_the_turn_begins_counts_at_once() -> None:
    run = Play(history=list(OLD), context=Context(keep_last=1))
    run.add(TurnStarted(1, context_tokens=81, window=100))
    assert run.state.phase is Phase.COMPACTING
    assert run.state.window == 100


def test_after_a_summary_the_turn_goes_on_from_there() -> None:
    run = begun(90).add(Compacted(messages=4, summary="much", usage=Usage(50, 5, requests=1)))
    assert effects(run.state) == (CallModel(1, 1),)
    result = run.add(ModelStarted(1), said("fine")).finish()
    assert [message.text for message in result.messages] == ["much", "hi", "fine"]
    assert result.usage.requests == 2
    assert replayed(run.log) == run.state


@pytest.mark.parametrize(
    ("tokens", "exact", "ends"),
    [(90, True, False), (99, True, False), (100, True, True), (300, False, False)],
)
def test_a_failed_summary_ends_the_run_only_if_the_next_call_cannot_fit(
    tokens: int, exact: bool, ends: bool
) -> None:
    run = begun(tokens, exact=exact).add(FAILED)
    assert run.state.history.since(0)[:4] == OLD
    if not ends:
        assert effects(run.state) == (CallModel(1, 0),)
        return
    result = run.finish()
    assert result.stop_reason == "context_overflow"
    assert result.error_info is not None
    assert result.error_info.facts == {"max": 100}


def test_a_summary_that_failed_is_not_tried_again_in_this_turn() -> None:
    run = begun(90).add(FAILED, ModelStarted(1))
    run.add(ModelEnded(1, error=ErrorInfo("ContextLengthError", "long", {"max": 100})))
    assert run.finish().stop_reason == "context_overflow"


def test_without_summaries_a_turn_that_cannot_fit_ends_the_run() -> None:
    off = Context(strategy="off")
    assert begun(100, context=off).finish().stop_reason == "context_overflow"
    assert effects(begun(99, context=off).state) == (CallModel(1, 0),)
    assert effects(begun(500, exact=False, context=off).state) == (CallModel(1, 0),)


# ── caught ───────────────────────────────────────────────────────────────────────────────────────


def test_a_refusal_is_followed_by_a_summary_and_names_the_window_that_counts() -> None:
    run = begun(None).add(ModelStarted(1))
    run.add(ModelEnded(1, error=ErrorInfo("ContextLengthError", "long", {"max": 60})))
    assert effects(run.state) == (Compact(1, 4),)
    assert run.state.window == 60
    run.add(Compacted(messages=4, summary="much"))
    assert effects(run.state) == (CallModel(1, 1),)


def test_a_second_refusal_is_followed_by_another_summary_while_there_is_something_left() -> None:
    refused = ModelEnded(1, error=ErrorInfo("ContextLengthError", "long", {"max": 100}))
    run = begun(None).add(ModelStarted(1), refused, Compacted(messages=2, summary="a little"))
    run.add(ModelStarted(1), refused)
    assert effects(run.state) == (Compact(1, 3),)
    run.add(Compacted(messages=3, summary="all"), ModelStarted(1), refused)
    assert effects(run.state) == (Finish(),)
    assert run.finish().stop_reason == "context_overflow"


@pytest.mark.parametrize(("left", "reason"), [(63, "context_overflow"), (64, "length")])
def test_an_answer_cut_with_little_room_left_ran_into_the_end_of_the_window(
    left: int, reason: str
) -> None:
    run = Play(window=1000)
    run.begin_turn()
    usage = Usage(1000 - 10 - left, 10, requests=1)
    assert run.add(said("cut", finish_reason="length", usage=usage)).finish().stop_reason == reason


# ── from run to run ──────────────────────────────────────────────────────────────────────────────


def test_what_was_measured_is_known_to_the_next_run() -> None:
    run = Play()
    run.turn(said("fine", usage=Usage(40, 2, requests=1))).finish()
    run.add(RunStarted(), MessageAdded(UserMessage("more")))
    assert (run.state.last_tokens, run.state.measured) == (42, 2)
    run.turn(said("fine", usage=Usage(50, 2, requests=1))).finish()
    run.add(Compacted(messages=2, summary="much"))
    assert (run.state.last_tokens, run.state.measured, run.state.summaries) == (0, 0, 1)
    run.add(RunStarted())
    assert run.state.summaries == 1


# ── the prefix cache ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-13")
def test_what_a_call_could_find_is_what_the_last_one_had_up_to_the_break() -> None:
    run = Play()
    calls: list[tuple[Prefix | None, int, int | None]] = [
        (Prefix(100), 40, 0),
        (Prefix(200, 100, 100), 80, 32),
        (Prefix(210, 200, 50, "system text changed"), 84, 16),
        (None, 0, None),
        (Prefix(300, 210, 210), 120, None),
    ]
    for turn, (prefix, tokens, cached) in enumerate(calls, 1):
        events: list[StoredEvent] = [TurnStarted(turn), ModelStarted(turn, prefix=prefix)]
        usage = Usage(tokens, 2, requests=1)
        ended = said("x", usage=usage, cached_tokens=cached)
        run.add(*events, ended)
        run.state = replace(run.state, phase=Phase.PREPARING, ending=None, stop=None)
    found = run.result().cache_by_turn
    assert [each.expected_tokens for each in found] == [None, 40, 20, None, None]
    assert [each.cached_tokens for each in found] == [0, 32, 16, None, None]
    assert [each.input_tokens for each in found] == [40, 80, 84, 0, 120]
    assert [each.turn for each in found] == [1, 2, 3, 4, 5]
