"""The machine: what follows from what, without a loop, a clock or a server."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.effects import (
    Answer,
    AskPermission,
    BeginTurn,
    CallModel,
    Finish,
    RunTool,
    effects,
)
from vllm_agent_sdk._core.outcome import outcome
from vllm_agent_sdk._core.run import TRANSITIONS, evolve
from vllm_agent_sdk._core.run_state import IllegalTransitionError, Phase, State
from vllm_agent_sdk.types.events import (
    Interrupted,
    MessageAdded,
    ModelEnded,
    ModelStarted,
    PermissionAsked,
    PermissionDecided,
    RunEnded,
    RunStarted,
    SettingsChanged,
    StoredEvent,
    ToolEnded,
    ToolStarted,
    TurnStarted,
)
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vllm_agent_sdk.types.options import Limits
from vllm_agent_sdk.types.results import ErrorInfo, RunResult, Usage
from vllm_agent_sdk.types.tools import ToolSpec

TOOLS = [
    ToolSpec(name="get"),
    ToolSpec(name="look", read_only=True),
    ToolSpec(name="alone", serial=True),
    ToolSpec(name="wipe", destructive=True),
]


def call(name: str = "get", arguments: str = "{}", id: str = "c1") -> ToolCall:
    return ToolCall.from_text(id, name, arguments)


def said(*blocks: ToolCall | str, **facts: object) -> ModelEnded:
    content = [TextBlock(block) if isinstance(block, str) else block for block in blocks]
    usage = facts.pop("usage", Usage(10, 5, requests=1))
    return ModelEnded(1, message=AssistantMessage(content), usage=usage, **facts)  # type: ignore[arg-type]


class Play:
    """Folds events and keeps the log, as the driver does."""

    def __init__(self, limits: Limits | None = None, **started: object) -> None:
        self.log: list[StoredEvent] = []
        self.state = State()
        start = RunStarted(tools=TOOLS, limits=limits or Limits(), **started)  # type: ignore[arg-type]
        self.add(start, MessageAdded(UserMessage("hi")))

    def add(self, *events: StoredEvent) -> Play:
        for event in events:
            self.state = evolve(self.state, event)
            self.log.append(event)
        return self

    def turn(self, ended: ModelEnded) -> Play:
        """Begin the next turn and let the model say something."""
        self.begin_turn()
        return self.add(ended)

    def begin_turn(self) -> Play:
        (begin,) = effects(self.state)
        assert isinstance(begin, BeginTurn)
        self.add(TurnStarted(begin.turn))
        (model,) = effects(self.state)
        assert isinstance(model, CallModel)
        return self.add(ModelStarted(model.turn))

    def answer_all(self) -> Play:
        """Answer what wants an answer, until nothing does."""
        while True:
            answers = [effect for effect in effects(self.state) if isinstance(effect, Answer)]
            if not answers:
                return self
            for effect in answers[:1]:
                self.add(ToolEnded(effect.call.name, effect.message, executed=False))

    def run_tool(self, id: str = "c1", name: str = "get", **facts: object) -> Play:
        self.add(ToolStarted(call(name, id=id)))
        return self.add(ToolEnded(name, ToolMessage(id, "ok"), **facts))  # type: ignore[arg-type]

    def ids(self) -> list[str]:
        return [effect.id for effect in effects(self.state)]

    def result(self) -> RunResult[object]:
        return outcome(self.state, run_id="r", duration_s=1.0)

    def finish(self) -> RunResult[object]:
        assert effects(self.state) == (Finish(),)
        result = self.result()
        self.add(RunEnded(result=result))
        assert effects(self.state) == ()
        return result


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
        (ToolCall("c1", "get", {}, "{}", unexpected=True), "There is no tool"),
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


def test_an_empty_reply_is_not_success() -> None:
    assert Play().turn(said("  \n", finish_reason="stop")).finish().stop_reason == "empty_reply"


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


def test_a_required_call_that_is_missing_is_an_error() -> None:
    result = Play(tool_choice="required").turn(said("no")).finish()
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


def test_every_transition_of_the_table_happens_and_no_other() -> None:
    seen: set[tuple[Phase, type[StoredEvent], Phase]] = set()
    for seed in range(4000):
        state = State()
        for event in play_randomly(seed).log:
            before, state = state.phase, evolve(state, event)
            seen.add((before, type(event), state.phase))
    again = Play().turn(said("one"))
    again.finish()
    again.add(RunStarted())
    seen.add((Phase.DONE, RunStarted, again.state.phase))
    for phase in (Phase.PREPARING, Phase.MODEL):  # the driver's, when a server refuses a mode
        play = Play() if phase is Phase.PREPARING else Play().begin_turn()
        play.add(SettingsChanged("turn_mode", "native", "guided"))
        assert play.state.dialect == "text"
        seen.add((phase, SettingsChanged, play.state.phase))
    written = {(phase, kind, to) for (phase, kind), rule in TRANSITIONS.items() for to in rule.to}
    assert seen == written


# ── random runs ──────────────────────────────────────────────────────────────────────────────────

ARGUMENTS = ["{}", '{"a":1}', '{"a":', "[1]", "3", ""]
NAMES = [spec.name for spec in TOOLS] + ["unknown"]
FINISHES = ["stop", "length", "tool_calls", "abort", None]


def random_reply(pick: random.Random, turn: int) -> ModelEnded:
    blocks: list[ToolCall | str] = [
        call(pick.choice(NAMES), pick.choice(ARGUMENTS), f"t{turn}c{number}")
        for number in range(pick.choice([0, 0, 1, 1, 2, 4]))
    ]
    if pick.random() < 0.3:
        blocks.insert(0, "text")
    if pick.random() < 0.05:
        return said(*blocks, error=ErrorInfo("InternalServerError", "x"))
    return said(*blocks, finish_reason=pick.choices(FINISHES, [8, 1, 8, 1, 1])[0])


def random_step(pick: random.Random, play: Play) -> None:
    """Do one legal thing of those that the effects and the world allow."""
    wanted = effects(play.state)
    if wanted != (Finish(),) and pick.random() < 0.02:
        play.add(Interrupted(by=pick.choice(["user", "max_seconds"])))
        return
    effect = pick.choice(wanted)
    match effect:
        case BeginTurn(turn=turn):
            play.add(TurnStarted(turn))
        case CallModel(turn=turn):
            play.add(ModelStarted(turn), random_reply(pick, turn))
        case AskPermission(call=asked):
            decision = pick.choice(["allow", "deny"])
            play.add(PermissionAsked(asked), PermissionDecided(asked.id, decision, "no"))
        case RunTool(call=made):
            running = any(
                isinstance(event, ToolStarted) and event.call.id == made.id for event in play.log
            )
            if not running:
                play.add(ToolStarted(made))
            else:
                play.add(
                    ToolEnded(made.name, ToolMessage(made.id, "r"), executed=pick.random() < 0.8)
                )
        case Answer(call=made, message=message):
            play.add(ToolEnded(made.name, message, executed=False))
        case Finish():
            play.add(RunEnded(result=play.result()))


def check_transcript(messages: Iterable[object]) -> None:
    """Every call has exactly one result, right after its turn, in order."""
    open_ids: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            assert open_ids, "a result without a call"
            assert open_ids.pop(0) == message.call_id
        else:
            assert not open_ids, "a call without a result"
        if isinstance(message, AssistantMessage):
            open_ids = [made.id for made in message.tool_calls]
    assert not open_ids


def replayed(log: list[StoredEvent]) -> State:
    state = State()
    for event in log:
        state = evolve(state, event)
    return state


def play_randomly(seed: int, check: Callable[[Play], None] | None = None) -> Play:
    pick = random.Random(seed)
    limits = Limits(
        max_turns=pick.randint(1, 6),
        max_tool_calls=pick.choice([None, 1, 3]),
        max_total_tokens=pick.choice([None, 40]),
        max_parallel_tools=pick.randint(1, 3),
        repairs=pick.randint(0, 2),
    )
    play = Play(limits)
    for _ in range(400):
        if play.state.phase is Phase.DONE:
            break
        random_step(pick, play)
        if check is not None:
            check(play)
    return play


@pytest.mark.feature("A-06")
@given(st.integers(0, 2**32))
def test_every_random_run_ends_once_with_a_valid_transcript(seed: int) -> None:
    play = play_randomly(seed)
    assert play.state.phase is Phase.DONE
    assert sum(isinstance(event, RunEnded) for event in play.log) == 1
    result = play.result()
    check_transcript(result.messages)
    limits = play.state.started.limits
    assert result.turns <= limits.max_turns
    executed = sum(result.tool_calls.values())
    assert limits.max_tool_calls is None or executed <= limits.max_tool_calls
    started = [event.call.id for event in play.log if isinstance(event, ToolStarted)]
    assert len(started) == len(set(started)), "a tool was started twice"


@given(st.integers(0, 2**32))
def test_replaying_the_log_after_every_event_gives_the_same_state_and_effects(seed: int) -> None:
    def check(play: Play) -> None:
        again = replayed(play.log)
        assert effects(again) == effects(play.state)
        assert again == play.state

    assert play_randomly(seed, check).state.phase is Phase.DONE


@pytest.mark.feature("A-04")
@given(st.integers(0, 2**32))
def test_no_tool_is_started_whose_call_is_unknown_or_malformed_or_was_denied(seed: int) -> None:
    play = play_randomly(seed)
    denied = {
        e.call_id for e in play.log if isinstance(e, PermissionDecided) if e.decision == "deny"
    }
    for event in play.log:
        if isinstance(event, ToolStarted):
            assert event.call.arguments is not None
            assert event.call.name in {spec.name for spec in TOOLS}
            assert event.call.id not in denied
