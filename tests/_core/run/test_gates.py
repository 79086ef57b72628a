"""What stands between a call and its tool: rules, hooks and people, in the machine alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.run.effects import AskPermission, RunHook, RunTool, effects
from vllm_agent_sdk._core.run.policy import decide
from vllm_agent_sdk._core.run.state import CallStatus, IllegalTransitionError
from vllm_agent_sdk.types.events import (
    HookRan,
    ModelStarted,
    PermissionAsked,
    PermissionDecided,
    RunResumed,
    RunStarted,
    SettingsChanged,
    StoredEvent,
    ToolEnded,
    ToolStarted,
)
from vllm_agent_sdk.types.hooks import AddContext, Ask, Block, HookSpec, Rewrite, Stop
from vllm_agent_sdk.types.messages import ToolMessage, UserMessage
from vllm_agent_sdk.types.permissions import Allow, PermissionRule, PermissionRules

from .play import Play, call, said
from .random_play import SPECS, RandomPlay

SEEDS = st.integers(0, 2**32)


def hooks(*events: str, pattern: str = "*") -> dict[str, Any]:
    return {
        "hooks": [
            HookSpec(event=event, name=f"h{at}", pattern=pattern) for at, event in enumerate(events)
        ]
    }


def rules(**given: Any) -> dict[str, Any]:
    made = {
        name: value if isinstance(value, str) else tuple(map(PermissionRule.of, value))
        for name, value in given.items()
    }
    return {"permissions": PermissionRules(**made)}


def answered(play: Play, event: str, *outputs: Any, number: int = 0, id: str = "c1") -> Play:
    """Let the hook that runs now answer."""
    wanted = [effect for effect in effects(play.state) if isinstance(effect, RunHook)]
    assert (event, number) in [(effect.event, effect.number) for effect in wanted]
    return play.add(HookRan(f"h{number}", event, call_id=id, outputs=outputs))


def wanted(play: Play) -> list[type]:
    return [type(effect) for effect in effects(play.state)]


# ── hooks before rules before people ─────────────────────────────────────────────────────────────


@pytest.mark.feature("H-01")
def test_hooks_of_a_call_run_one_after_the_other_and_before_anybody_is_asked() -> None:
    play = Play(**hooks("pre_tool_use", "pre_tool_use", "permission_request"))
    play.turn(said(call("wipe")))
    assert wanted(play) == [RunHook]
    answered(play, "pre_tool_use")
    assert wanted(play) == [RunHook]
    answered(play, "pre_tool_use", number=1)
    assert play.state.calls[0].status is CallStatus.ASKING
    answered(play, "permission_request", number=2)
    assert wanted(play) == [AskPermission]


@pytest.mark.feature("H-01")
def test_calls_beside_each_other_have_their_hooks_run_beside_each_other() -> None:
    play = Play(**hooks("pre_tool_use")).turn(said(call(), call(id="c2")))
    assert [effect.id for effect in effects(play.state)] == [
        "hook-pre_tool_use-c1-0",
        "hook-pre_tool_use-c2-0",
    ]
    answered(play, "pre_tool_use", id="c2")
    assert RunTool in wanted(play)  # one may begin while the other is still judged


@pytest.mark.feature("H-02")
def test_a_hooks_question_beats_a_rule_that_allows() -> None:
    play = Play(**hooks("pre_tool_use"), **rules(allow=("get",))).turn(said(call()))
    answered(play, "pre_tool_use", Ask("Sure?"))
    (ask,) = effects(play.state)
    assert isinstance(ask, AskPermission)
    assert ask.reason == "Sure?"


@pytest.mark.feature("H-02")
@pytest.mark.parametrize("mode", ["default", "bypassPermissions"])
def test_no_yes_gets_past_a_rule_that_denies(mode: Any) -> None:
    play = Play(**hooks("pre_tool_use"), **rules(deny=("get(a=9)",), mode=mode))
    play.turn(said(call(arguments='{"a": 1}')))
    answered(play, "pre_tool_use", Allow({"a": 9}))
    assert play.state.calls[0].status is CallStatus.DENIED
    assert [denied.id for denied in play.state.denials] == ["c1"]


@pytest.mark.feature("H-02")
@pytest.mark.parametrize("output", [Allow({"a": 9}), Rewrite({"a": 9})])
def test_a_hook_that_answers_for_people_gets_past_no_rule_that_denies(output: Any) -> None:
    play = Play(**hooks("permission_request"), **rules(deny=("wipe(a=9)",)))
    play.turn(said(call("wipe", '{"a": 1}')))
    answered(play, "permission_request", output)
    assert play.state.calls[0].status is CallStatus.DENIED
    assert [denied.id for denied in play.state.denials] == ["c1"]


@pytest.mark.feature("H-02")
def test_a_call_that_was_blocked_asks_no_further_hook_and_is_answered_with_the_reason() -> None:
    play = Play(**hooks("pre_tool_use", "pre_tool_use")).turn(said(call()))
    answered(play, "pre_tool_use", Block("No."))
    play.answer_all()
    assert play.state.history.since(2) == [ToolMessage("c1", "No.", is_error=True)]
    assert [denied.id for denied in play.state.denials] == ["c1"]


@pytest.mark.feature("H-02")
def test_a_hook_that_blocks_and_stops_at_once_does_both() -> None:
    play = Play(**hooks("pre_tool_use")).turn(said(call()))
    answered(play, "pre_tool_use", Block("No."), Stop("Enough."))
    result = play.finish()
    assert result.stop_reason == "hook_stopped"
    assert [denied.id for denied in result.permission_denials] == ["c1"]


@pytest.mark.feature("H-02")
def test_context_of_several_hooks_is_said_once_after_all_results() -> None:
    play = Play(**hooks("pre_tool_use")).turn(said(call(), call(id="c2")))
    answered(play, "pre_tool_use", AddContext("one"))
    answered(play, "pre_tool_use", AddContext("two"), id="c2")
    play.run_tool("c2").run_tool("c1")
    assert play.state.history.since(2) == [
        ToolMessage("c1", "ok"),
        ToolMessage("c2", "ok"),
        UserMessage("one\n\ntwo"),
    ]


@pytest.mark.feature("H-02")
def test_what_a_hook_rewrote_is_what_runs_and_what_the_model_wrote_stays() -> None:
    play = Play(**hooks("pre_tool_use")).turn(said(call(arguments='{"a": 1}')))
    answered(play, "pre_tool_use", Rewrite({"a": 2}))
    (run,) = effects(play.state)
    assert isinstance(run, RunTool)
    assert (run.call.arguments, run.call.arguments_json) == ({"a": 2}, '{"a": 1}')


# ── people ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("H-04")
def test_an_answer_is_for_its_call_alone() -> None:
    play = Play().turn(said(call("wipe"), call("wipe", id="c2")))
    play.add(PermissionAsked(play.state.calls[0].call), PermissionDecided("c1", "allow"))
    assert [entry.status for entry in play.state.calls] == [CallStatus.ALLOWED, CallStatus.ASKING]
    with pytest.raises(IllegalTransitionError):
        play.add(PermissionDecided("c1", "deny"))
    with pytest.raises(IllegalTransitionError):
        play.add(PermissionDecided("c9", "allow"))


@pytest.mark.feature("H-04")
def test_a_grant_is_for_what_its_rule_matches_in_this_run_and_the_next() -> None:
    play = Play().turn(said(call("wipe", '{"a": 1}')))
    play.add(PermissionDecided("c1", "allow", remember=("wipe(a=1)",))).run_tool(name="wipe")
    play.turn(said(call("wipe", '{"a": 1}', "c2"), call("wipe", '{"a": 2}', "c3")))
    assert [entry.status for entry in play.state.calls] == [CallStatus.ALLOWED, CallStatus.ASKING]


@pytest.mark.feature("H-03")
def test_a_mode_counts_for_the_calls_that_are_judged_after_it_was_set() -> None:
    play = Play().turn(said(call()))
    play.add(SettingsChanged("permission_mode", "default", "plan"))
    assert wanted(play) == [RunTool]
    play.run_tool().turn(said(call(id="c2")))
    assert play.state.calls[0].status is CallStatus.DENIED


@pytest.mark.feature("H-03")
@pytest.mark.parametrize("given", [{"deny": ("get",)}, {"mode": "plan"}, {"ask": ("get",)}])
def test_what_was_denied_by_a_rule_or_a_mode_is_listed_once(given: dict[str, Any]) -> None:
    if "ask" in given:
        given = {**given, "mode": "dontAsk"}
    play = Play(**rules(**given)).turn(said(call(), call("look", id="c2")))
    play.answer_all().run_tool("c2", "look")
    play.turn(said("ok"))
    assert [denied.id for denied in play.finish().permission_denials] == ["c1"]


# ── for every run ────────────────────────────────────────────────────────────────────────────────


def runs_of(log: list[StoredEvent]) -> list[list[StoredEvent]]:
    runs: list[list[StoredEvent]] = []
    for event in log:
        if isinstance(event, RunStarted):
            runs.append([])
        if runs:
            runs[-1].append(event)
    return runs


@pytest.mark.feature("H-03")
@given(SEEDS)
def test_no_tool_ever_starts_that_a_rule_denies(seed: int) -> None:
    specs = {spec.name: spec for spec in SPECS}
    for run in runs_of(RandomPlay(seed).play().log):
        started = run[0]
        assert isinstance(started, RunStarted)
        deny = PermissionRules(deny=started.permissions.deny)
        for event in run:
            if isinstance(event, ToolStarted):
                verdict = decide(deny, (), specs[event.call.name], event.call)
                assert not verdict.reason.startswith("A rule denies")


@pytest.mark.feature("H-04")
@given(SEEDS)
def test_what_asks_starts_only_after_a_yes_for_this_call_or_one_that_is_remembered(
    seed: int,
) -> None:
    specs = {spec.name: spec for spec in SPECS}
    remembered: set[str] = set()
    for run in runs_of(RandomPlay(seed).play().log):
        started = run[0]
        assert isinstance(started, RunStarted)
        yes: set[str] = set()
        for event in run:
            match event:
                case PermissionDecided(call_id=call_id, decision="allow", remember=rules):
                    yes.add(call_id)
                    remembered.update(rules)
                case HookRan(call_id=str() as call_id, outputs=outputs):
                    if any(isinstance(output, Allow) for output in outputs):
                        yes.add(call_id)
                case ToolStarted(call=made):
                    spec = specs[made.name]
                    asks = (spec.destructive or spec.kind == "mcp") and not spec.read_only
                    assert made.id in yes or made.name in remembered or not asks


@pytest.mark.feature("H-02")
@given(SEEDS)
def test_a_blocked_call_never_starts_and_after_a_stop_nothing_does(seed: int) -> None:
    for run in runs_of(RandomPlay(seed).play().log):
        blocked: set[str] = set()
        begun: set[str] = set()
        stopped = False
        for event in run:
            match event:
                case HookRan(call_id=call_id, outputs=outputs, event=name):
                    kinds = [type(output) for output in outputs]
                    if Stop in kinds and name not in {"notification", "session_end"}:
                        stopped = stopped or name != "session_start"
                    if Block in kinds and call_id is not None and call_id not in begun:
                        blocked.add(call_id)
                case RunResumed(reason="retry"):
                    stopped = False
                case ToolStarted(call=made):
                    assert made.id not in blocked
                    assert not stopped
                    begun.add(made.id)
                case ModelStarted():
                    assert not stopped
                    begun.clear()
                    blocked.clear()


@pytest.mark.feature("H-04")
@given(SEEDS)
def test_each_denied_call_is_listed_once_and_answered_without_being_run(seed: int) -> None:
    play = RandomPlay(seed).play()
    for run in runs_of(play.log):
        if any(isinstance(event, RunResumed) and event.reason == "retry" for event in run):
            continue  # a turn that is made again may deny the same call again
        result = getattr(run[-1], "result", None)
        if result is None:
            continue
        denied = [each.id for each in result.permission_denials]
        assert len(denied) == len(set(denied))
        ran = {e.message.call_id for e in run if isinstance(e, ToolEnded) and e.executed}
        begun = {e.call.id for e in run if isinstance(e, ToolStarted)}
        assert not (set(denied) & ran - begun)
