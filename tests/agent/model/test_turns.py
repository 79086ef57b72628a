"""What each turn sends, in every mode, and that what was sent keeps its bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.run.log import Log
from vllm_agent_sdk._core.run.state import ANSWER_TOOL, State, replace
from vllm_agent_sdk.agent.model.turns import Traits, TurnWriter
from vllm_agent_sdk.types.events import RunStarted
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ImageBlock,
    Message,
    ReasoningBlock,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vllm_agent_sdk.types.options import Limits
from vllm_agent_sdk.types.tools import ToolSpec

pytestmark = pytest.mark.feature("O-06", "A-07")

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
F = ToolSpec(name="f", description="Do it", parameters=SCHEMA)
G = ToolSpec(name="g", parameters={"type": "object"}, strict=False)
MODES = ["plain", "native", "required", "guided", "envelope"]
ALTERNATE = "Conversation roles must alternate user/assistant/user/assistant/..."


def state(mode: str, *history: Message, tools: tuple[ToolSpec, ...] = (F, G), **more: Any) -> State:
    text = mode in {"guided", "envelope"}
    started = {
        name: more.pop(name)
        for name in ("output", "tool_choice", "sampling", "limits", "instructions", "examples")
        if name in more
    }
    return State(
        started=RunStarted(model="m", tools=list(tools), **started),
        model="m",
        tools=() if mode == "plain" else tools,
        turn=more.pop("turn", 1),
        turn_mode=mode,
        dialect="text" if text else "native",
        history=Log([*history]),
        **more,
    )


def sent(params: dict[str, Any]) -> list[Any]:
    return [json.loads(bytes(message)) for message in params["messages"]]


def call(call_id: str = "c", name: str = "f", arguments: str = '{"city": "Rome"}') -> ToolCall:
    return ToolCall.from_text(call_id, name, arguments)


HI = UserMessage("Hi")
CALLED = [HI, AssistantMessage([call()]), ToolMessage("c", "18")]


# ── what a mode adds ─────────────────────────────────────────────────────────────────────────────


def test_a_plain_turn_adds_nothing_but_the_schema_of_a_typed_output() -> None:
    assert set(TurnWriter().params(state("plain", HI))) == {"messages", "model"}
    form = TurnWriter().params(state("plain", HI, output=SCHEMA))["response_format"]
    assert form["json_schema"]["schema"] == SCHEMA


def test_a_native_turn_offers_the_tools_strict_ones_as_such() -> None:
    params = TurnWriter().params(state("native", HI))
    functions = [tool["function"] for tool in params["tools"]]
    assert [(each["name"], each.get("strict")) for each in functions] == [("f", True), ("g", None)]
    assert "tool_choice" not in params
    assert "response_format" not in params


def test_a_forced_choice_is_for_the_first_native_turn_only() -> None:
    first = state("native", HI, tool_choice="required")
    assert TurnWriter().params(first)["tool_choice"] == "required"
    assert "tool_choice" not in TurnWriter().params(replace(first, turn=2))


def test_a_required_turn_offers_the_answer_as_a_tool_and_one_call_a_turn() -> None:
    params = TurnWriter().params(state("required", HI, output=SCHEMA))
    assert [tool["function"]["name"] for tool in params["tools"]] == ["f", "g", ANSWER_TOOL]
    assert params["tools"][-1]["function"]["parameters"] == SCHEMA
    assert params["tools"][-1]["function"]["strict"] is True
    assert params["tool_choice"] == "required"
    assert params["parallel_tool_calls"] is False
    several = state("required", HI, output=SCHEMA, sampling={"parallel_tool_calls": True})
    assert TurnWriter().params(several)["parallel_tool_calls"] is True


def test_a_forced_first_call_in_required_turns_is_none_of_the_answers_tool() -> None:
    first = state("required", HI, output=SCHEMA, tool_choice="required")
    assert ANSWER_TOOL not in [t["function"]["name"] for t in TurnWriter().params(first)["tools"]]
    none = state("required", HI, output=SCHEMA, tool_choice="none")
    assert TurnWriter().params(none)["tool_choice"]["function"]["name"] == ANSWER_TOOL


def test_a_guided_turn_constrains_and_offers_nothing() -> None:
    params = TurnWriter().params(state("guided", HI, output=SCHEMA))
    assert "tools" not in params
    calls, final = params["response_format"]["format"]["elements"]
    assert [tag["begin"] for tag in calls["tags"]] == ["[[call f]]", "[[call g]]"]
    assert final["content"] == {"type": "json_schema", "json_schema": SCHEMA}


def test_several_guided_calls_are_capped() -> None:
    several = state(
        "guided", HI, sampling={"parallel_tool_calls": True}, limits=Limits(max_parallel_tools=3)
    )
    params = TurnWriter().params(several)
    assert "parallel_tool_calls" not in params
    assert params["response_format"]["format"]["elements"][0]["elements"][1]["max"] == 2


def test_an_envelope_turn_is_one_object() -> None:
    params = TurnWriter().params(state("envelope", HI, sampling={"parallel_tool_calls": True}))
    forms = params["response_format"]["json_schema"]["schema"]["anyOf"]
    assert [set(form["properties"]) for form in forms] == [
        {"tool", "arguments"},
        {"tool", "arguments"},
        {"final"},
    ]
    assert not {"tools", "parallel_tool_calls"} & set(params)


@pytest.mark.parametrize("mode", ["guided", "envelope"])
def test_choices_of_the_first_turn_shape_the_form(mode: str) -> None:
    def form(choice: Any) -> str:
        return json.dumps(
            TurnWriter().params(state(mode, HI, tool_choice=choice))["response_format"]
        )

    named = form({"type": "function", "function": {"name": "g"}})
    assert "final" not in form("required")
    assert "f" in form("required")
    assert "final" in form("none")
    assert "call" not in form("none")
    assert '"tool"' not in form("none")
    assert "final" not in named
    assert "city" not in named


def test_a_thinking_model_without_a_parser_may_think_first() -> None:
    params = TurnWriter(Traits(think_tags=True)).params(state("guided", HI))
    thought = params["response_format"]["format"]["elements"][0]
    assert thought["type"] == "optional"
    assert thought["content"]["begin"] == "<think>"


def test_asking_again_without_thinking_uses_the_templates_switch_if_there_is_one() -> None:
    again = state("plain", HI, thinking_off=True, sampling={"thinking": True})
    params = TurnWriter(Traits(thinking_switch="enable_thinking")).params(again)
    assert params["chat_template_kwargs"] == {"enable_thinking": False}
    assert "thinking" not in params
    own = {"extra_body": {"chat_template_kwargs": {"x": 1}}}
    params = TurnWriter(Traits(thinking_switch="thinking")).params(
        state("plain", HI, thinking_off=True, sampling=own)
    )
    assert params["extra_body"]["chat_template_kwargs"] == {"x": 1, "thinking": False}
    assert "chat_template_kwargs" not in TurnWriter().params(state("plain", HI, thinking_off=True))


def test_calls_left_in_the_text_are_read_in_the_models_format() -> None:
    writer = TurnWriter(Traits(text_calls="hermes"))
    assert writer.params(state("native", HI))["parse_text_calls"] == "hermes"
    assert "parse_text_calls" not in writer.params(state("guided", HI))
    assert "parse_text_calls" not in TurnWriter().params(state("native", HI))


# ── a last turn without tools ────────────────────────────────────────────────────────────────────

LAST = Limits(max_turns=2, last_turn_without_tools=True)


@pytest.mark.parametrize("mode", ["native", "required", "guided", "envelope"])
@pytest.mark.parametrize("output", [None, SCHEMA])
def test_a_last_turn_without_tools_admits_no_call_and_keeps_the_prompts_beginning(
    mode: str, output: Any
) -> None:
    writer = TurnWriter()
    first = writer.params(state(mode, HI, limits=LAST, output=output))
    last = writer.params(state(mode, *CALLED, limits=LAST, output=output, turn=2))
    assert last.get("tools") == first.get("tools")
    assert sent(last)[: len(first["messages"])] == sent(first)
    if mode == "native":
        assert last["tool_choice"] == "none"
        assert ("response_format" in last) == (output is not None)
    elif mode == "required":
        assert last["tool_choice"]["function"]["name"] == ANSWER_TOOL
    else:
        assert "call" not in json.dumps(last["response_format"])
        assert '"tool"' not in json.dumps(last["response_format"])


def test_an_untyped_answer_of_a_native_run_is_repaired_by_the_grammar() -> None:
    told = [
        HI,
        AssistantMessage([TextBlock("18 degrees")]),
        UserMessage("That is no valid answer."),
    ]
    begun = TurnWriter().params(state("native", HI, output=SCHEMA))
    repair = TurnWriter().params(state("native", *told, output=SCHEMA, turn=2, invalid_in_row=1))
    assert json.dumps(SCHEMA, separators=(",", ":")) in sent(begun)[0]["content"]
    assert "response_format" not in begun
    assert (repair["tool_choice"], repair["tools"]) == ("none", begun["tools"])
    assert repair["response_format"]["json_schema"]["schema"] == SCHEMA


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────

GENERATED = {
    "guided": '[[call f]]{"city":  "Rome"}[[/call]]',
    "envelope": '{"tool": "f", "arguments": {"city":  "Rome"}}',
}


@pytest.mark.feature("A-13")
@pytest.mark.parametrize("mode", MODES)
@given(texts=st.lists(st.text(), max_size=4), roles=st.sampled_from(["off", "merge", "strict"]))
def test_the_bytes_of_a_turn_begin_those_of_the_next(
    mode: str, texts: list[str], roles: Any
) -> None:
    writer = TurnWriter(Traits(roles=roles))
    history: list[Message] = [HI]
    before = writer.params(state(mode, *history, instructions="Be brief."))["messages"]
    for number, text in enumerate(texts):
        if mode == "plain":
            history += [AssistantMessage([TextBlock(text)]), UserMessage("And?")]
        else:
            said = AssistantMessage([call(f"c{number}")], verbatim=GENERATED.get(mode))
            history += [said, ToolMessage(f"c{number}", text)]
        params = writer.params(state(mode, *history, instructions="Be brief.", turn=number + 2))
        after = params["messages"]
        assert [bytes(each) for each in after[: len(before)]] == [bytes(each) for each in before]
        assert all(new is old for new, old in zip(after, before, strict=False))
        assert len(after) > len(before)
        before = after


@pytest.mark.feature("A-13")
def test_a_change_of_the_dialect_writes_all_anew() -> None:
    writer = TurnWriter()
    native = sent(writer.params(state("native", *CALLED)))
    assert [message["role"] for message in native] == ["user", "assistant", "tool"]
    text = sent(writer.params(state("guided", *CALLED)))
    assert text[-2:] == [
        {"role": "assistant", "content": '[[call f]]{"city": "Rome"}[[/call]]'},
        {"role": "user", "content": "[[result f]]18[[/result]]"},
    ]
    assert not any("tool_calls" in message for message in text)
    envelope = sent(writer.params(state("envelope", *CALLED)))
    assert envelope[-2]["content"] == '{"tool": "f", "arguments": {"city": "Rome"}}'
    assert "[[call" not in json.dumps(envelope)


def test_what_one_form_generated_is_not_sent_as_the_others() -> None:
    said = AssistantMessage([call()], verbatim=GENERATED["guided"])
    envelope = sent(TurnWriter().params(state("envelope", HI, said, ToolMessage("c", "18"))))
    assert envelope[-2]["content"] == '{"tool": "f", "arguments": {"city": "Rome"}}'


def test_an_answer_that_was_given_by_a_call_reads_as_an_answer_in_the_text_dialect() -> None:
    answer = AssistantMessage([call("a", ANSWER_TOOL)])
    history = [HI, answer, ToolMessage("a", "Accepted."), UserMessage("And?")]
    text = sent(TurnWriter().params(state("guided", *history, output=SCHEMA)))
    assert text[-2:] == [
        {"role": "assistant", "content": '[[final]]{"city": "Rome"}[[/final]]'},
        {"role": "user", "content": "And?"},
    ]
    wrong = [HI, answer, ToolMessage("a", "That is no valid answer.", is_error=True)]
    text = sent(TurnWriter().params(state("envelope", *wrong, output=SCHEMA)))
    assert [message["content"] for message in text[-2:]] == [
        '{"final": {"city": "Rome"}}',
        "That is no valid answer.",
    ]


def test_a_summary_in_the_place_of_the_history_writes_all_anew() -> None:
    writer = TurnWriter()
    writer.params(state("native", *CALLED))
    summed = writer.params(state("native", UserMessage("Summary"), *CALLED))
    assert [message["role"] for message in sent(summed)] == ["user", "user", "assistant", "tool"]


def test_other_tools_change_the_system_text_alone() -> None:
    writer = TurnWriter()
    before = writer.params(state("guided", *CALLED))["messages"]
    after = writer.params(state("guided", *CALLED, tools=(G,)))["messages"]
    assert "f(" not in json.loads(bytes(after[0]))["content"]
    assert [bytes(each) for each in after[1:]] == [bytes(each) for each in before[1:]]


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("O-07")
def test_a_refused_order_of_roles_is_put_right_once_and_stays_so() -> None:
    writer = TurnWriter()
    said = state("plain", HI, UserMessage("Still there?"))
    assert len(sent(writer.params(said))) == 2
    amended = writer.amended(said, ALTERNATE)
    assert amended is not None
    assert sent(amended) == [{"role": "user", "content": "Hi\n\nStill there?"}]
    assert writer.amended(said, ALTERNATE) is None
    assert sent(writer.params(said)) == sent(amended)


@pytest.mark.feature("O-07")
def test_strict_roles_begin_with_the_user() -> None:
    said = state("plain", AssistantMessage([TextBlock("Welcome.")]), HI, instructions="Be brief.")
    messages = sent(TurnWriter(Traits(roles="strict")).params(said))
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]


@pytest.mark.feature("O-08")
def test_ids_of_nine_characters_are_the_same_in_call_and_result() -> None:
    writer = TurnWriter()
    assert sent(writer.params(state("native", *CALLED)))[1]["tool_calls"][0]["id"] == "c"
    message = "Tool call IDs should be alphanumeric strings with length 9!"
    amended = writer.amended(state("native", *CALLED), message)
    assert amended is not None
    _, asked, result = sent(amended)
    assert len(asked["tool_calls"][0]["id"]) == 9
    assert result["tool_call_id"] == asked["tool_calls"][0]["id"]
    assert writer.amended(state("native", *CALLED), "another error") is None


@pytest.mark.feature("O-08")
@pytest.mark.parametrize("mode", ["native", "guided"])
def test_a_call_that_nobody_answered_is_answered(mode: str) -> None:
    messages = sent(TurnWriter().params(state(mode, HI, AssistantMessage([call()]), HI)))
    assert "not answered" in messages[-2]["content"]
    assert messages[-1]["content"] == "Hi"


@pytest.mark.feature("O-13")
def test_reasoning_goes_back_to_models_that_read_it_only() -> None:
    thought = AssistantMessage([ReasoningBlock("Hm."), TextBlock("Hello.")])
    sends = TurnWriter(Traits(sends_reasoning=True)).params(state("plain", HI, thought, HI))
    assert sent(sends)[1] == {"role": "assistant", "content": "Hello.", "reasoning": "Hm."}
    assert "reasoning" not in sent(TurnWriter().params(state("plain", HI, thought, HI)))[1]


def test_a_picture_among_results_is_shown_in_the_text_dialect_too() -> None:
    picture = ImageBlock.from_url("http://x/a.png")
    result = ToolMessage("c", [TextBlock("A plot."), picture])
    content = sent(TurnWriter().params(state("guided", *CALLED[:2], result)))[-1]["content"]
    assert content == [
        {"type": "text", "text": "[[result f]]A plot.[[/result]]"},
        {"type": "image_url", "image_url": {"url": "http://x/a.png"}},
    ]
