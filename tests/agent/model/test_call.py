"""One model call, in every mode, streamed and whole: what it comes to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM, UsageError
from vllm_agent_sdk._core.run.log import Log
from vllm_agent_sdk._core.run.state import ANSWER_TOOL, State
from vllm_agent_sdk._core.schema.output import OutputType
from vllm_agent_sdk.agent.model.call import ModelCall
from vllm_agent_sdk.agent.model.port import endpoint_of
from vllm_agent_sdk.agent.model.turns import Traits, TurnWriter
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.events import (
    ModelEnded,
    ReasoningDelta,
    RunStarted,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
)
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    Message,
    ReasoningBlock,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vllm_agent_sdk.types.tools import ToolSpec

pytestmark = pytest.mark.feature("O-06", "A-07")

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
TYPED = OutputType.of(SCHEMA)
F = ToolSpec(name="f", parameters=SCHEMA)
HI = UserMessage("Hi")
ALTERNATE = "Conversation roles must alternate user/assistant/user/assistant/..."


class Ended:
    """What a call came to, and what was seen of it."""

    def __init__(self, event: ModelEnded, call: ModelCall, seen: list[StreamEvent]) -> None:
        self.event = event
        self.notices = call.notices
        self.error = call.error
        self.seen = seen
        assert event.message is not None
        self.message = event.message
        self.text = "".join(each.text for each in seen if isinstance(each, TextDelta))


async def ended(
    replies: Sequence[Reply],
    mode: str,
    *,
    output: OutputType | None = None,
    history: Sequence[Message] = (HI,),
    traits: Traits | None = None,
    streaming: bool = True,
    **settings: Any,
) -> Ended:
    state = State(
        started=RunStarted(output=None if output is None else output.schema),
        model="sim-model",
        tools=() if mode == "plain" else (F,),
        turn=1,
        turn_mode=mode,
        dialect="text" if mode in {"guided", "envelope"} else "native",
        history=Log([*history]),
    )
    seen: list[StreamEvent] = []
    writer = TurnWriter(traits)
    async with Simulator(*replies, **settings) as server, AsyncVLLM(server.base_url) as client:
        call = ModelCall(
            endpoint_of(client, "chat"),
            writer.params(state),
            state=state,
            writer=writer,
            taken=set(),
            publish=seen.append,
            output=output,
            streaming=streaming,
        )
        event = await call.run()
        sent = [json.loads(request.body) for request in server.requests]
    assert all(bool(body.get("stream")) == call._streaming for body in sent)
    return Ended(event, call, seen)


def facts(event: ModelEnded) -> dict[str, Any]:
    """What does not change from one asking to the next."""
    kept = ("message", "error", "output", "output_error", "finish_reason")
    return {name: getattr(event, name) for name in kept}


CALLS = {
    "native": Reply.calls(("f", {"n": 1}, "call_1_1")),
    "required": Reply.calls(("f", {"n": 1}, "call_1_1")),
    "guided": Reply.text('[[call f]]{"n": 1}[[/call]]'),
    "envelope": Reply.text('{"tool": "f", "arguments": {"n": 1}}'),
}
ANSWERS = {
    "plain": Reply.text('{"n": 7}'),
    "native": Reply.text('{"n": 7}'),
    "required": Reply.calls((ANSWER_TOOL, {"n": 7}, "call_1_1")),
    "guided": Reply.text('[[final]]{"n": 7}[[/final]]'),
    "envelope": Reply.text('{"final": {"n": 7}}'),
}
WRONG = {
    "plain": Reply.text('{"n": "x"}'),
    "native": Reply.text("Seven."),
    "required": Reply.calls((ANSWER_TOOL, {"n": "x"})),
    "guided": Reply.text('[[final]]{"n": "x"}[[/final]]'),
    "envelope": Reply.text('{"final": {"n": "x"}}'),
}


# ── calls and answers ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", CALLS)
async def test_a_call_comes_back_as_a_call(mode: str) -> None:
    came = await ended([CALLS[mode]], mode, output=TYPED)
    assert [(c.id, c.name, c.arguments) for c in came.message.tool_calls] == [
        ("call_1_1", "f", {"n": 1})
    ]
    assert came.event.error is None
    assert (came.event.output, came.event.output_error) == (_codec.NULL, None)
    assert (came.message.verbatim is not None) == (mode in {"guided", "envelope"})
    assert not came.text


@pytest.mark.parametrize("mode", ANSWERS)
async def test_a_typed_answer_comes_back_as_json_that_was_checked(mode: str) -> None:
    came = await ended([ANSWERS[mode]], mode, output=TYPED)
    assert json.loads(bytes(came.event.output)) == {"n": 7}
    assert (came.event.error, came.event.output_error) == (None, None)
    if mode != "required":
        assert came.text == came.message.text == '{"n": 7}'


@pytest.mark.parametrize("mode", WRONG)
async def test_an_answer_that_is_not_of_the_type_is_an_output_error(mode: str) -> None:
    came = await ended([WRONG[mode]], mode, output=TYPED)
    assert came.event.output == _codec.NULL
    assert came.event.error is None
    assert came.event.output_error is not None
    assert came.event.output_error.type == "OutputValidationError"


async def test_an_answer_that_is_no_object_is_taken_out_of_the_call() -> None:
    number = OutputType.of({"type": "integer"})
    came = await ended([Reply.calls((ANSWER_TOOL, {"answer": 7}))], "required", output=number)
    assert bytes(came.event.output) == b"7"


async def test_an_untyped_answer_in_a_required_turn_is_text() -> None:
    came = await ended([Reply.calls((ANSWER_TOOL, {"answer": "Hello."}))], "required")
    assert came.message.text == came.text == "Hello."
    assert came.event.output == _codec.NULL


@pytest.mark.parametrize("mode", ["guided", "envelope"])
async def test_a_text_answer_is_seen_without_its_form(mode: str) -> None:
    reply = {"guided": "[[final]]It is 7.[[/final]]", "envelope": '{"final": "It is 7."}'}[mode]
    came = await ended([Reply.text(reply)], mode)
    assert came.message == AssistantMessage([TextBlock("It is 7.")], verbatim=reply)
    assert came.text == "It is 7."


async def test_an_end_tag_inside_a_typed_answer_does_not_end_it() -> None:
    text = OutputType.of({"type": "string"})
    came = await ended([Reply.text('[[final]]"a [[/final]] b"[[/final]]')], "guided", output=text)
    assert json.loads(bytes(came.event.output)) == "a [[/final]] b"


async def test_reasoning_is_kept_as_a_block() -> None:
    reply = Reply.reasoning("Hm.", "[[final]]Yes.[[/final]]")
    came = await ended([reply], "guided")
    assert came.message.content == [ReasoningBlock("Hm."), TextBlock("Yes.")]
    came = await ended([Reply.text("<think>Hm.</think>[[final]]Yes.[[/final]]")], "guided")
    assert came.message.content == [ReasoningBlock("Hm."), TextBlock("Yes.")]


async def test_a_cut_answer_is_not_sent_back_to_the_letter() -> None:
    came = await ended([Reply.text("[[final]]It is", finish_reason="length")], "guided")
    assert came.message == AssistantMessage([TextBlock("It is")])
    assert came.event.finish_reason == "length"
    assert came.event.error is None


@pytest.mark.feature("A-07")
async def test_a_cut_typed_answer_is_no_output_and_no_error_of_it() -> None:
    came = await ended([Reply.text('{"n": ', finish_reason="length")], "plain", output=TYPED)
    assert (came.event.output, came.event.output_error, came.event.error) == (
        _codec.NULL,
        None,
        None,
    )


# ── constraints and refusals ─────────────────────────────────────────────────────────────────────


async def test_no_json_where_a_schema_was_sent_is_an_ignored_constraint() -> None:
    came = await ended([Reply.text("Seven.")], "plain", output=TYPED)
    assert came.event.error is not None
    assert came.event.error.type == "ConstraintIgnoredError"
    stopped = await ended([Reply.text("Seven.", stop_reason="\n")], "plain", output=TYPED)
    assert stopped.event.error is None
    assert stopped.event.output_error is not None


@pytest.mark.parametrize("mode", ["guided", "envelope"])
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_reply_outside_the_form_is_an_ignored_constraint(
    mode: str, streaming: bool
) -> None:
    came = await ended([Reply.text("Sure, it is 7!")], mode, streaming=streaming)
    assert came.event.error is not None
    assert came.event.error.type == "ConstraintIgnoredError"
    assert came.message.text == "Sure, it is 7!"
    assert came.message.verbatim is None


async def test_a_refusal_for_want_of_flags_names_the_choice_of_tools() -> None:
    came = await ended([Reply.text("x")], "native", tool_parser=None)
    assert came.event.error is not None
    assert came.event.error.type == "UnsupportedByServerError"
    assert came.event.error.facts["feature"] == "tool_choice"


@pytest.mark.parametrize(
    "message",
    [
        "Invalid response_format structural_tag specification. (parameter=response_format)",
        "1 validation error: {'loc': 'body.response_format.type', 'msg': 'Input should be text'}",
    ],
)
async def test_a_server_that_knows_no_structural_tags_is_told_from_other_refusals(
    message: str,
) -> None:
    came = await ended([Reply.error(400, message=message)], "guided")
    assert came.event.error is not None
    assert came.event.error.type == "UnsupportedByServerError"
    assert came.event.error.facts["feature"] == "structural_tag"
    assert message.partition("(")[0] in came.event.error.message
    other = await ended([Reply.error(400, message=message)], "envelope")
    assert other.event.error is not None
    assert other.event.error.type == "BadRequestError"


@pytest.mark.feature("O-07")
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_refused_order_of_roles_is_put_right_and_asked_again_once(streaming: bool) -> None:
    refused = Reply.error(400, message=ALTERNATE)
    traits = Traits()
    twice = [HI, UserMessage("Still there?")]
    came = await ended(
        [refused, Reply.text("Yes.")], "plain", history=twice, traits=traits, streaming=streaming
    )
    assert came.message.text == "Yes."
    assert came.event.error is None
    assert traits.roles == "strict"
    ((code, text),) = came.notices
    assert code == "messages"
    assert "alternate" in text
    came = await ended([refused], "plain", history=twice)
    assert came.event.error is not None
    assert came.event.error.type == "BadRequestError"


@pytest.mark.feature("O-07")
async def test_a_template_that_takes_no_results_of_tools_needs_another_mode() -> None:
    history = [HI, AssistantMessage([ToolCall.from_text("c", "f", "{}")]), ToolMessage("c", "1")]
    came = await ended([Reply.error(400, message=ALTERNATE)], "native", history=history)
    assert came.event.error is not None
    assert came.event.error.type == "UnsupportedByServerError"
    assert came.event.error.facts["feature"] == "tool_choice"


async def test_a_request_that_cannot_work_is_the_callers_mistake() -> None:
    state = State(
        started=RunStarted(sampling={"temperature": 7}), history=Log([HI]), turn=1, model="m"
    )
    async with AsyncVLLM("http://127.0.0.1:9/v1") as client:
        writer = TurnWriter()
        params = writer.params(state)
        seen: list[StreamEvent] = []
        with pytest.raises(UsageError, match="temperature"):
            ModelCall(
                endpoint_of(client, "chat"),
                params,
                state=state,
                writer=writer,
                taken=set(),
                publish=seen.append,
            )


# ── whole replies ────────────────────────────────────────────────────────────────────────────────

BOTH = [(mode, reply) for table in (CALLS, ANSWERS, WRONG) for mode, reply in table.items()]


@pytest.mark.feature("A-18")
@pytest.mark.parametrize(("mode", "reply"), BOTH)
async def test_a_whole_reply_comes_to_the_same_without_deltas(mode: str, reply: Reply) -> None:
    streamed = await ended([reply], mode, output=TYPED)
    whole = await ended([reply], mode, output=TYPED, streaming=False)
    for came in (streamed, whole):
        blocks = [
            ToolCall.from_text("c", block.name, json.dumps(block.arguments))
            if isinstance(block, ToolCall)
            else block
            for block in came.message.content
        ]
        came.message.content[:] = blocks
    assert facts(whole.event) == facts(streamed.event)
    pieces = (TextDelta, ReasoningDelta, ToolCallDelta)
    assert not any(isinstance(event, pieces) for event in whole.seen)
    shown = [type(event) for event in streamed.seen if not isinstance(event, pieces)]
    assert [type(event) for event in whole.seen] == shown
    assert whole.event.ttft_s is None


@pytest.mark.feature("A-18")
async def test_calls_that_do_not_come_in_streams_are_asked_for_whole_and_the_user_is_told() -> None:
    traits = Traits(streams_calls=False)
    came = await ended([CALLS["native"]], "native", traits=traits)
    assert came.message.tool_calls[0].arguments == {"n": 1}
    ((code, text),) = came.notices
    assert code == "streaming"
    assert "whole" in text
    assert (await ended([ANSWERS["guided"]], "guided", traits=traits)).notices == []


@pytest.mark.feature("A-18")
async def test_an_error_of_a_whole_reply_is_in_the_event() -> None:
    came = await ended([Reply.error(404, message="no")], "plain", streaming=False)
    assert came.event.error is not None
    assert came.event.error.facts["status"] == 404
    assert came.message.content == []


# ── calls in the text ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_call_that_was_left_in_the_text_is_a_call(streaming: bool) -> None:
    text = 'Let me see.\n<tool_call>\n{"name": "f", "arguments": {"n": 1}}\n</tool_call>'
    came = await ended(
        [Reply.text(text)], "native", traits=Traits(text_calls="hermes"), streaming=streaming
    )
    assert [(c.name, c.arguments) for c in came.message.tool_calls] == [("f", {"n": 1})]
    assert "<tool_call>" not in came.message.text
    assert "<tool_call>" not in came.text
