"""Random sessions: what holds for every run, whatever the world answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.run.effects import effects
from vllm_agent_sdk._core.run.read_back import read_on
from vllm_agent_sdk._core.run.run import TRANSITIONS, evolve
from vllm_agent_sdk._core.run.state import Phase, State
from vllm_agent_sdk.types.events import (
    MessageAdded,
    PermissionDecided,
    RunEnded,
    RunResumed,
    RunStarted,
    StoredEvent,
    ToolEnded,
    ToolStarted,
    decode_event,
    encode_event,
)
from vllm_agent_sdk.types.messages import ToolMessage

from .random_play import SPECS, RandomPlay, check_transcript, replayed

SEEDS = st.integers(0, 2**32)


def runs_of(log: list[StoredEvent]) -> list[list[StoredEvent]]:
    """The log, cut at each beginning."""
    runs: list[list[StoredEvent]] = []
    for event in log:
        if isinstance(event, RunStarted):
            runs.append([])
        if runs:  # a session may have begun before its first run
            runs[-1].append(event)
    return runs


@pytest.mark.feature("A-06")
@given(SEEDS)
def test_every_run_ends_once_with_a_valid_transcript(seed: int) -> None:
    play = RandomPlay(seed).play()
    for run in runs_of(play.log):
        ends = [event for event in run if isinstance(event, RunEnded)]
        retries = [e for e in run if isinstance(e, RunResumed) and e.reason == "retry"]
        assert len(ends) == 1 + len(retries)
        for end in ends:
            check_transcript(end.result.messages)


@given(SEEDS)
def test_the_limits_hold_and_what_was_used_only_grows(seed: int) -> None:
    used: list[int] = []

    def check(play: RandomPlay) -> None:
        if isinstance(play.log[-1], RunStarted):
            used.clear()
        state = play.state
        used.append(state.total_tokens)
        assert used == sorted(used)
        limits = state.started.limits
        assert state.turn <= limits.max_turns
        assert limits.max_tool_calls is None or len(state.executed) <= limits.max_tool_calls + len(
            [entry for entry in state.calls if entry.spec and entry.spec.kind == "question"]
        )

    RandomPlay(seed, check).play()


@pytest.mark.feature("A-06")
@given(SEEDS)
def test_replaying_the_log_after_every_event_gives_the_same_state_and_effects(seed: int) -> None:
    def check(play: RandomPlay) -> None:
        again = replayed(play.log)
        assert again == play.state
        assert effects(again) == effects(play.state)

    RandomPlay(seed, check).play()


@given(SEEDS)
def test_a_log_that_was_written_and_read_again_gives_the_same_state(seed: int) -> None:
    play = RandomPlay(seed).play()
    read = [decode_event(encode_event(event)) for event in play.log]  # type: ignore[arg-type]
    assert replayed(read) == play.state  # type: ignore[arg-type]


@pytest.mark.feature("A-02")
@given(SEEDS)
def test_what_was_cut_of_a_result_can_be_read_on(seed: int) -> None:
    state = RandomPlay(seed).play().state
    for message in state.history:
        if isinstance(message, ToolMessage) and "To read on" in message.text:
            wholes = ("a result", '{"x":1}', "The outcome of ", "The run ended (")
            rest = read_on(state.outputs.since(0), message.call_id, 3)
            assert any(f"{message.text[:3]}{rest}".startswith(whole[:6]) for whole in wholes)


@pytest.mark.feature("A-04")
@given(SEEDS)
def test_no_tool_starts_whose_call_is_unknown_malformed_or_denied(seed: int) -> None:
    play = RandomPlay(seed).play()
    specs = {spec.name: spec for spec in SPECS}
    for run in runs_of(play.log):
        denied: set[str] = set()
        for event in run:
            if isinstance(event, PermissionDecided) and event.decision == "deny":
                denied.add(event.call_id)
            if isinstance(event, ToolStarted):
                assert event.call.arguments is not None
                assert event.call.name in specs
                assert event.call.id not in denied


@pytest.mark.feature("D-03")
@given(SEEDS)
def test_a_tool_that_may_not_run_twice_starts_twice_only_after_a_yes(seed: int) -> None:
    play = RandomPlay(seed).play()
    specs = {spec.name: spec for spec in SPECS}
    for run in runs_of(play.log):
        begun: set[str] = set()
        allowed: set[str] = set()
        for event in run:
            match event:
                case PermissionDecided(call_id=call_id, decision="allow"):
                    allowed.add(call_id)
                case ToolStarted(call=call):
                    twice = call.id in begun and not specs[call.name].repeatable
                    assert not twice or call.id in allowed
                    begun.add(call.id)
                    allowed.discard(call.id)
                case ToolEnded(message=message):
                    begun.discard(message.call_id)


@pytest.mark.feature("A-20")
@given(SEEDS)
def test_nothing_that_was_said_is_lost(seed: int) -> None:
    """It is in the conversation, waits for the next run, or was taken out on purpose.

    By a summary, a hook, or a user who went back.
    """
    play = RandomPlay(seed).play()
    kinds = {type(event).__name__ for event in play.log}
    hooks = {h.event for e in play.log if isinstance(e, RunStarted) for h in e.hooks}
    if kinds & {"Compacted", "Rewound"} or "user_prompt_submit" in hooks:
        return
    state = play.state
    kept = [m.text for m in (*state.history, *state.queue, *state.notes)]
    retried = any(isinstance(e, RunResumed) and e.reason == "retry" for e in play.log)
    for event in play.log:
        if isinstance(event, MessageAdded) and event.when in {"prompt", "after", "steer"}:
            assert event.message.text in kept or retried


def shown(step: tuple[Phase, type[StoredEvent], Phase]) -> str:
    return f"{step[0]} --{step[1].__name__}--> {step[2]}"


def test_every_transition_of_the_table_happens_and_no_other() -> None:
    seen: set[tuple[Phase, type[StoredEvent], Phase]] = set()
    for seed in range(3000):
        state = State()
        for event in RandomPlay(seed).play().log:
            before, state = state.phase, evolve(state, event)
            if (before, type(event)) in TRANSITIONS:
                seen.add((before, type(event), state.phase))
    written = {(phase, kind, to) for (phase, kind), rule in TRANSITIONS.items() for to in rule.to}
    assert sorted(map(shown, seen - written)) == []
    assert sorted(map(shown, written - seen)) == []
