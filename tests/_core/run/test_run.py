"""The machine: what follows from what, without a loop, a clock or a server."""

from __future__ import annotations

import pytest

from vllm_agent_sdk._core.run.effects import Answer, AskPermission, effects
from vllm_agent_sdk._core.run.state import IllegalTransitionError, Phase
from vllm_agent_sdk.types.events import (
    Interrupted,
    MessageAdded,
    ModelEnded,
    ModelStarted,
    PermissionAsked,
    PermissionDecided,
    RunStarted,
    ToolStarted,
)
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ReasoningBlock,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vllm_agent_sdk.types.options import Limits
from vllm_agent_sdk.types.results import ErrorInfo, Usage

from .play import TOOLS, Play, call, said


@pytest.mark.feature("A-06")
def test_an_answer_without_calls_ends_the_turn() -> None:
    result = Play().turn(said("Hello.", finish_reason="stop")).finish()
    assert (result.stop_reason, result.text, result.turns) == ("end_turn", "Hello.", 1)
    assert result.usage == Usage(10, 5, requests=1)
    assert result.finish_reason == "stop"


@pytest.mark.feature("A-06")
def test_a_call_is_run_and_its_result_goes_back_to_the_model() -> None:
    play = Play().turn(said(call()))
    assert play.ids() == ["tool-c1"]
    play.run_tool()
    assert play.ids() == ["turn-2"]
    result = play.turn(said("done")).finish()
    assert [type(message).__name__ for message in result.messages] == [
        "UserMessage",
        "AssistantMessage",
        "ToolMessage",
        "AssistantMessage",
    ]
    assert result.tool_calls == {"get": 1}


def test_results_join_the_history_in_the_order_of_the_calls() -> None:
    play = Play().turn(said(call(id="a"), call("look", id="b")))
    play.run_tool("b", "look").run_tool("a")
    results = [m.call_id for m in play.state.history if isinstance(m, ToolMessage)]
    assert results == ["a", "b"]


def test_no_more_tools_run_at_once_than_the_limit() -> None:
    play = Play(Limits(max_parallel_tools=2)).turn(
        said(call(id="a", arguments='{"n":1}'), call(id="b"), call("look", id="c"))
    )
    assert play.ids() == ["tool-a", "tool-b"]
    play.run_tool("a")
    assert play.ids() == ["tool-b", "tool-c"]


def test_a_serial_tool_runs_by_itself() -> None:
    play = Play().turn(said(call(id="a"), call("alone", id="b"), call("look", id="c")))
    assert play.ids() == ["tool-a"]
    play.run_tool("a")
    assert play.ids() == ["tool-b"]
    play.run_tool("b", "alone")
    assert play.ids() == ["tool-c"]


@pytest.mark.feature("A-04")
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (call(arguments='{"city": '), "not valid JSON"),
        (call(arguments="[1]"), "must be a JSON object"),
        (call("nothing"), "There is no tool 'nothing'"),
        (ToolCall("c1", "get", {}, "{}", unexpected=True), "No tool can be called"),
    ],
)
def test_a_call_that_cannot_be_made_is_answered_and_never_executed(
    bad: ToolCall, words: str
) -> None:
    play = Play().turn(said(bad))
    (answer,) = effects(play.state)
    assert isinstance(answer, Answer)
    assert words in answer.message.text
    assert answer.message.is_error
    play.answer_all()
    assert play.ids() == ["turn-2"]
    assert play.result().tool_calls == {}


@pytest.mark.feature("A-04")
def test_invalid_calls_in_a_row_end_the_run_after_the_repairs() -> None:
    play = Play(Limits(repairs=2))
    for number in range(3):
        play.turn(said(call(arguments=f"[{number}]", id=f"c{number}"))).answer_all()
    result = play.finish()
    assert result.stop_reason == "invalid_tool_call"
    assert result.error_info is not None
    assert result.error_info.type == "ToolArgumentsError"


def test_a_valid_call_makes_the_repairs_count_anew() -> None:
    play = Play(Limits(repairs=1))
    play.turn(said(call(arguments="[", id="a"))).answer_all()
    play.turn(said(call(id="b"))).run_tool("b")
    play.turn(said(call(arguments="[", id="c"))).answer_all()
    assert play.ids() == ["turn-4"]


@pytest.mark.feature("A-04")
def test_a_reply_that_was_cut_executes_none_of_its_calls() -> None:
    play = Play().turn(said(call(), call(id="c2", arguments='{"a'), finish_reason="length"))
    result = play.finish()
    assert result.stop_reason == "length"
    assert result.tool_calls == {}
    closed = [m for m in result.messages if isinstance(m, ToolMessage)]
    assert [m.call_id for m in closed] == ["c1", "c2"]
    assert all("Not executed" in m.text for m in closed)


@pytest.mark.feature("A-12")
def test_the_same_call_again_and_again_ends_the_run_before_it_is_executed_once_more() -> None:
    play = Play(Limits(repeated_calls=3))
    play.turn(said(call(arguments='{"a":1,"b":2}', id="a"))).run_tool("a")
    play.turn(said(call(arguments='{"b": 2, "a": 1}', id="b"))).run_tool("b")
    play.turn(said(call(arguments='{"a":1,"b":2}', id="c")))
    result = play.finish()
    assert result.stop_reason == "repeated_call"
    assert result.tool_calls == {"get": 2}


@pytest.mark.feature("A-12")
def test_another_call_in_between_is_no_repetition() -> None:
    play = Play(Limits(repeated_calls=2))
    play.turn(said(call(id="a"))).run_tool("a")
    play.turn(said(call("look", id="b"))).run_tool("b", "look")
    play.turn(said(call(id="c"))).run_tool("c")
    assert play.ids() == ["turn-4"]


@pytest.mark.feature("A-06")
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_turns=1), "max_turns"),
        (Limits(max_total_tokens=15), "max_total_tokens"),
    ],
)
def test_a_limit_ends_the_run_with_its_name(limits: Limits, reason: str) -> None:
    play = Play(limits).turn(said(call())).run_tool()
    assert play.finish().stop_reason == reason


@pytest.mark.feature("A-06")
def test_no_more_calls_are_executed_than_allowed() -> None:
    play = Play(Limits(max_tool_calls=1)).turn(said(call(id="a"), call("look", id="b")))
    assert play.ids() == ["tool-a"]
    result = play.run_tool("a").finish()
    assert result.stop_reason == "max_tool_calls"
    assert result.tool_calls == {"get": 1}
    assert result.messages[-1].text == "Not executed: the run ended (max_tool_calls)."


@pytest.mark.feature("A-06")
@pytest.mark.parametrize(
    ("finish_reason", "stop_reason"),
    [
        ("length", "length"),
        ("abort", "aborted"),
        ("repetition", "repetition"),
        ("refusal", "refusal"),
        ("content_filter", "refusal"),
    ],
)
def test_the_servers_own_end_is_named(finish_reason: str, stop_reason: str) -> None:
    result = Play().turn(said("so f", finish_reason=finish_reason)).finish()
    assert (result.stop_reason, result.text) == (stop_reason, "so f")
    assert result.finish_reason == finish_reason
    assert result.is_error


def test_an_empty_reply_is_asked_for_once_more_without_thinking_and_is_no_success() -> None:
    play = Play().turn(said("  \n", finish_reason="stop"))
    assert play.ids() == ["model-1-1"]
    assert play.state.thinking_off
    thought = AssistantMessage([ReasoningBlock("hm")])
    play.add(ModelStarted(1), ModelEnded(1, message=thought, finish_reason="stop"))
    result = play.finish()
    assert result.stop_reason == "empty_reply"
    assert result.error_info is not None
    assert result.error_info.facts == {"reasoning": "hm"}


def test_an_answer_after_an_empty_reply_is_the_answer() -> None:
    play = Play().turn(said("", finish_reason="stop"))
    result = play.add(ModelStarted(1), said("Here.")).finish()
    assert (result.stop_reason, result.text, result.turns) == ("end_turn", "Here.", 1)
    assert [type(m).__name__ for m in result.messages] == ["UserMessage", "AssistantMessage"]


@pytest.mark.feature("A-06")
def test_a_failed_model_call_ends_the_run_with_what_had_come() -> None:
    error = ErrorInfo("StreamTruncatedError", "cut")
    play = Play().turn(said("Hel", call(arguments='{"ci'), error=error))
    result = play.finish()
    assert (result.stop_reason, result.text) == ("error", "Hel")
    assert isinstance(result.messages[-1], ToolMessage)


def test_an_overflowing_context_has_its_own_stop_reason() -> None:
    error = ErrorInfo("ContextLengthError", "too long")
    play = Play().begin_turn().add(ModelEnded(1, error=error))
    assert play.finish().stop_reason == "context_overflow"


def test_a_required_call_that_is_missing_is_asked_for_once_more_and_then_an_error() -> None:
    play = Play(tool_choice="required").turn(said("no"))
    assert play.ids() == ["model-1-1"]
    result = play.add(ModelStarted(1), said("no")).finish()
    assert result.error_info is not None
    assert result.error_info.type == "ToolCallMissingError"


def test_a_forced_call_is_for_the_first_turn_only() -> None:
    play = Play(tool_choice="required").turn(said(call())).run_tool()
    assert play.turn(said("done")).finish().stop_reason == "end_turn"


def test_a_destructive_tool_waits_for_a_yes_and_runs_after_it() -> None:
    play = Play().turn(said(call("wipe", id="w"), call(id="g")))
    assert play.state.phase is Phase.GATING
    assert play.ids() == ["permission-w", "tool-g"]
    play.add(PermissionAsked(call("wipe", id="w")), PermissionDecided("w", "allow"))
    assert play.ids() == ["tool-w", "tool-g"]


def test_a_denied_call_is_answered_with_the_reason_and_counted() -> None:
    play = Play().turn(said(call("wipe", id="w")))
    (ask,) = effects(play.state)
    assert isinstance(ask, AskPermission)
    play.add(PermissionDecided("w", "deny", "nobody may")).answer_all()
    result = play.turn(said("I may not.")).finish()
    assert [c.id for c in result.permission_denials] == ["w"]
    assert any(m.text == "nobody may" for m in result.messages)
    assert result.tool_calls == {}


def test_a_tool_may_end_while_another_call_is_still_asked_about() -> None:
    play = Play().turn(said(call("wipe", id="w"), call(id="g"))).run_tool("g")
    assert play.ids() == ["permission-w"]


@pytest.mark.feature("A-06")
def test_an_interrupt_keeps_the_partial_text_and_closes_the_turn() -> None:
    partial = AssistantMessage([TextBlock("Once"), call(arguments="{")])
    play = Play().begin_turn().add(Interrupted(partial=partial))
    result = play.finish()
    assert (result.stop_reason, result.text) == ("interrupted", "Once")
    assert result.messages[-1] == AssistantMessage([TextBlock("Once")])


def test_an_interrupt_while_tools_run_says_that_their_outcome_is_unknown() -> None:
    play = Play().turn(said(call(id="a"), call("look", id="b")))
    play.add(ToolStarted(call(id="a")), Interrupted())
    result = play.finish()
    first, second = (m for m in result.messages if isinstance(m, ToolMessage))
    assert "outcome is unknown" in first.text
    assert "Not executed" in second.text


def test_history_given_is_part_of_the_messages_but_not_of_the_answer() -> None:
    before = [UserMessage("a"), AssistantMessage([TextBlock("old")])]
    play = Play(history=before).begin_turn()
    play.add(ModelEnded(1, error=ErrorInfo("ConnectError", "no")))
    result = play.finish()
    assert result.messages[:2] == before
    assert result.text == ""


def test_an_event_that_its_phase_does_not_know_is_refused() -> None:
    with pytest.raises(IllegalTransitionError, match="ToolStarted in phase preparing"):
        Play().add(ToolStarted(call()))


def test_nothing_but_the_end_comes_after_a_stop() -> None:
    play = Play().turn(said("done"))
    with pytest.raises(IllegalTransitionError):
        play.add(Interrupted())


def test_a_second_run_goes_on_with_the_conversation_of_the_first() -> None:
    play = Play().turn(said("one"))
    play.finish()
    play.add(RunStarted(tools=TOOLS), MessageAdded(UserMessage("again")))
    result = play.turn(said("two")).finish()
    assert [m.text for m in result.messages] == ["hi", "one", "again", "two"]
    assert result.usage.requests == 1
