"""Typed answers of runs: in every way of asking for them, repaired, bounded, beside tools."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from vllm_agent_sdk import (
    Agent,
    ConstraintIgnoredError,
    Limits,
    OutputValidationError,
    RunError,
    SchemaError,
    UserMessage,
    json_schema,
    tool,
)
from vllm_agent_sdk.testing import Reply, Simulator, scripted_run


@dataclass
class Weather:
    """The weather of a place."""

    city: str
    celsius: int


class Typed(TypedDict):
    """The same as a dict."""

    city: str
    celsius: int


class Struct(msgspec.Struct):
    """The same as a struct."""

    city: str
    celsius: int


class Model(pydantic.BaseModel):
    """The same as a model."""

    city: str
    celsius: int


class Colour(Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "celsius": {"type": "integer"}},
    "required": ["city", "celsius"],
}
PARIS = {"city": "Paris", "celsius": 18}


@tool
async def look(city: str) -> str:
    """Look at the weather of a city."""
    return f"18 °C in {city}"


LOOKS = Reply.calls(("look", {"city": "Paris"}))


@pytest.mark.feature("A-07")
@pytest.mark.parametrize(
    ("output", "said", "expected"),
    [
        (Weather, PARIS, Weather("Paris", 18)),
        (Typed, PARIS, PARIS),
        (Struct, PARIS, Struct("Paris", 18)),
        (Model, PARIS, Model(city="Paris", celsius=18)),
        (json_schema(SCHEMA), PARIS, PARIS),
        (Colour, "blue", Colour.BLUE),
        (Literal["red", "blue"], "red", "red"),
        (int, 18, 18),
        (bool, True, True),
        (list[int], [1, 2], [1, 2]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (int | None, None, None),
        (Weather | int, 3, 3),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:30],
)
@pytest.mark.parametrize("with_tools", [False, True])
async def test_an_answer_is_of_the_type_with_and_without_tools(
    client: Any, output: Any, said: Any, expected: Any, with_tools: bool
) -> None:
    given = said if isinstance(said, dict) else {"answer": said}
    reply = Reply.calls(("final_answer", given)) if with_tools else Reply.text(json.dumps(said))
    replies = (LOOKS, reply) if with_tools else (reply,)
    async with Simulator(*replies) as server:
        agent = Agent(client=client(server), output=output, tools=[look] if with_tools else ())
        result = await agent.run("Go")
    assert result.output == expected
    assert type(result.output) is type(expected)
    assert json.loads(result.text) == said
    assert result.tool_calls == ({"look": 1} if with_tools else {})
    asked = server.chats[0].json
    assert ("response_format" in asked) is not with_tools
    assert result.turn_mode == ("required" if with_tools else "plain")


@pytest.mark.feature("A-07")
@pytest.mark.parametrize("mode", ["native", "required", "guided", "envelope"])
async def test_each_turn_mode_gives_a_typed_answer_beside_tools(client: Any, mode: Any) -> None:
    said = {
        "native": (LOOKS, Reply.text(json.dumps(PARIS))),
        "required": (LOOKS, Reply.calls(("final_answer", PARIS))),
        "guided": (
            Reply.text('[[call look]]{"city": "Paris"}[[/call]]'),
            Reply.text(f"[[final]]{json.dumps(PARIS)}[[/final]]"),
        ),
        "envelope": (
            Reply.text('{"tool": "look", "arguments": {"city": "Paris"}}'),
            Reply.text(json.dumps({"final": PARIS})),
        ),
    }
    async with Simulator(*said[mode], tool_parser=None if mode == "guided" else "hermes") as server:
        agent = Agent(client=client(server), output=Weather, tools=[look], turn_mode=mode)
        result = await agent.run("Go")
    assert (result.stop_reason, result.tool_calls) == ("end_turn", {"look": 1})
    assert result.output == Weather("Paris", 18)


@pytest.mark.feature("A-07")
async def test_an_answer_that_breaks_the_type_is_asked_for_again_with_what_was_wrong(
    client: Any,
) -> None:
    replies = (Reply.text('{"city": "Paris", "celsius": "warm"}'), Reply.text(json.dumps(PARIS)))
    async with Simulator(*replies) as server:
        result = await Agent(client=client(server), output=Weather).run("Go")
    assert result.output == Weather("Paris", 18)
    assert result.turns == 2
    repair = server.chats[1].json["messages"][-1]
    assert repair["role"] == "user"
    assert "celsius" in repair["content"]
    assert repair["content"].endswith("Answer again, in the required form.")


@pytest.mark.feature("A-07")
@pytest.mark.parametrize("repairs", [0, 1, 3])
def test_repairs_of_an_answer_are_bounded(repairs: int) -> None:
    wrong = '{"city": 1, "celsius": 2}'
    agent = Agent(output=Weather, limits=Limits(repairs=repairs))
    result = scripted_run(agent, "Go", [wrong] * (repairs + 1)).result
    assert (result.stop_reason, result.turns, result.text) == ("output_invalid", repairs + 1, wrong)
    with pytest.raises(OutputValidationError, match="city"):
        result.raise_for_error()
    with pytest.raises(OutputValidationError):
        _ = result.output


@pytest.mark.feature("A-07")
def test_an_invalid_answer_given_by_a_call_is_answered_as_a_call() -> None:
    wrong = Reply.calls(("final_answer", {"city": "Paris", "celsius": "warm"}))
    agent = Agent(output=Weather, tools=[look])
    run = scripted_run(agent, "Go", [LOOKS, wrong, json.dumps(PARIS)])
    assert run.result.output == Weather("Paris", 18)
    calls = [each.id for m in run.result.messages for each in getattr(m, "tool_calls", ())]
    answers = [m.call_id for m in run.result.messages if hasattr(m, "call_id")]
    assert answers == calls
    assert not any(isinstance(m, UserMessage) for m in run.result.messages[1:])


@pytest.mark.feature("A-07")
def test_an_answer_beside_other_calls_is_refused_and_the_calls_are_made() -> None:
    both = Reply.calls(("look", {"city": "Paris"}), ("final_answer", PARIS))
    agent = Agent(output=Weather, tools=[look])
    result = scripted_run(agent, "Go", [both, json.dumps(PARIS)]).result
    assert result.tool_calls == {"look": 1}
    assert "alone, after the results" in result.messages[3].text
    assert result.output == Weather("Paris", 18)


@pytest.mark.feature("A-07")
async def test_text_that_is_no_json_says_that_the_server_ignored_the_schema(client: Any) -> None:
    async with Simulator(Reply.text("It is warm in Paris.")) as server:
        result = await Agent(client=client(server), output=Weather).run("Go")
    assert result.stop_reason == "error"
    with pytest.raises(ConstraintIgnoredError, match="did not apply the schema"):
        result.raise_for_error()


@pytest.mark.feature("A-07")
@pytest.mark.parametrize("finish_reason", ["length", "content_filter", "abort"])
async def test_a_cut_answer_is_never_of_the_type_even_if_it_looks_so(
    client: Any, finish_reason: str
) -> None:
    async with Simulator(Reply.text("18", finish_reason=finish_reason)) as server:
        result = await Agent(client=client(server), output=int).run("Go")
    assert result.is_error
    assert result.text == "18"
    with pytest.raises(RunError):
        _ = result.output


@pytest.mark.feature("A-07")
@pytest.mark.parametrize("output", [lambda: None, "Weather", 3])
def test_a_type_that_cannot_be_an_output_is_refused_at_once(output: Any) -> None:
    with pytest.raises(SchemaError):
        Agent(output=output)


@pytest.mark.feature("A-07")
def test_the_output_of_a_result_read_from_a_log_is_plain_data() -> None:
    from vllm_agent_sdk.types import _codec
    from vllm_agent_sdk.types.events import RunEnded

    run = scripted_run(Agent(output=Weather), "Go", [json.dumps(PARIS)])
    ended = run.events[-1]
    assert isinstance(ended, RunEnded)
    stored = _codec.decoder(RunEnded)(_codec.encode(ended))
    assert stored.result.output == PARIS
