"""`response_type=` and constraints through the client, whole and streamed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from vllm_agent_sdk import (
    AsyncVLLM,
    ChatCompletion,
    ConstraintIgnoredError,
    Finished,
    OutputStalledError,
    OutputValidationError,
    SchemaError,
    UsageError,
)
from vllm_agent_sdk.client.streams import ChatStream
from vllm_agent_sdk.testing import Reply

from .support import HI, WAYS, WEATHER, FixedTransport, served

ROME = '{"name": "Rome", "people": 3}'
CHOICE: Any = {"choice": ["red", "green"]}


@dataclass
class City:
    name: str
    people: int


@pytest.mark.feature("O-02")
@pytest.mark.parametrize("way", WAYS)
async def test_a_reply_is_parsed_and_keeps_its_shape(way: str) -> None:
    async with served(Reply.text(ROME), way=way) as (server, vllm):
        reply = await vllm.chat.completions.create(messages=HI, response_type=City)
        stream = vllm.chat.completions.stream(messages=HI, response_type=City)
        last = await stream.final()
    assert reply.parsed == last.parsed == stream.completion.parsed == City("Rome", 3)
    assert reply.text == last.text == ROME
    assert reply.raw
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
        "required": ["name", "people"],
        "additionalProperties": False,
    }
    form = {"name": "City", "schema": schema, "strict": True}
    for request in server.requests:
        assert request.json["response_format"] == {"type": "json_schema", "json_schema": form}


@pytest.mark.feature("O-02")
async def test_finished_holds_the_value_and_partial_does_not() -> None:
    async with served(Reply.text(ROME, split=7)) as (_, vllm):
        async with vllm.chat.completions.stream(messages=HI, response_type=City) as stream:
            async for event in stream:
                if isinstance(event, Finished):
                    assert event.completion.parsed == City("Rome", 3)
                    break
                assert stream.partial.parsed is None


@pytest.mark.feature("O-02")
async def test_without_a_type_and_on_calls_nothing_is_parsed() -> None:
    calls = Reply.calls(("get_weather", {}))
    async with served(Reply.text(ROME), calls) as (_, vllm):
        plain: ChatCompletion[Any] = await vllm.chat.completions.create(messages=HI)
        assert plain.parsed is None
        called = await vllm.chat.completions.create(
            messages=HI, tools=[WEATHER], response_type=City
        )
    assert called.parsed is None
    assert called.tool_calls[0].name == "get_weather"


@pytest.mark.feature("O-02")
@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply.text('{"name": "Ro', finish_reason="length"), OutputValidationError),
        (Reply.text('{"name": "Rome"}'), OutputValidationError),
        (Reply.text("It is Rome."), ConstraintIgnoredError),
    ],
)
async def test_what_is_wrong_is_raised_with_the_reply(
    reply: Any, error: type[OutputValidationError | ConstraintIgnoredError]
) -> None:
    async with served(reply) as (server, vllm):
        with pytest.raises(error) as whole:
            await vllm.chat.completions.create(messages=HI, response_type=City)
        with pytest.raises(error) as streamed:
            await vllm.chat.completions.stream(messages=HI, response_type=City).final()
    assert whole.value.partial.text == streamed.value.partial.text != ""
    assert whole.value.partial.parsed is None
    assert [whole.value.request_id, streamed.value.request_id] == [
        request.headers["x-request-id"] for request in server.requests
    ]


@pytest.mark.feature("O-01", "O-02")
@pytest.mark.parametrize(
    "given",
    [
        {"response_type": City, "response_format": {"type": "json_object"}},
        {"response_type": City, "structured_outputs": CHOICE},
        {"response_type": City, "extra_body": {"structured_outputs": CHOICE}},
        {"response_type": City, "include_reasoning": False},
        {"response_type": City, "stream": True},
        {"response_type": complex},
        {"structured_outputs": CHOICE, "response_format": {"type": "json_object"}},
        {"structured_outputs": CHOICE, "include_reasoning": False},
        {"cache_salt": "a@b"},
    ],
)
async def test_what_cannot_work_is_refused_before_anything_is_sent(given: dict[str, Any]) -> None:
    async with served(Reply.text(ROME)) as (server, vllm):
        with pytest.raises(UsageError):
            await vllm.chat.completions.create(messages=HI, **given)
        assert server.requests == []


@pytest.mark.feature("O-02")
@pytest.mark.parametrize("wrong", [object(), {"type": "sky"}], ids=["no type", "no schema"])
async def test_what_is_no_type_is_told_before_anything_is_sent(wrong: Any) -> None:
    async with served(Reply.text(ROME)) as (server, vllm):
        with pytest.raises(SchemaError):
            await vllm.chat.completions.create(messages=HI, response_type=wrong)
        stream = vllm.chat.completions.stream(messages=HI, response_type=wrong)
        with pytest.raises(SchemaError):
            await stream.opened()
        assert not server.requests


@pytest.mark.feature("O-02")
async def test_a_type_wins_over_the_clients_default_constraint() -> None:
    defaults = {"structured_outputs": CHOICE, "seed": 1}
    async with served(Reply.text('"a"'), client={"defaults": defaults}) as (server, vllm):
        reply = await vllm.chat.completions.create(messages=HI, response_type=Literal["a", "b"])
    assert reply.parsed == "a"
    assert server.requests[0].json["seed"] == 1
    assert "structured_outputs" not in server.requests[0].json


@pytest.mark.feature("O-01")
async def test_a_choice_that_is_not_met_is_an_error_whole_and_streamed() -> None:
    async with served(Reply.text("blue")) as (_, vllm):
        with pytest.raises(ConstraintIgnoredError) as whole:
            await vllm.chat.completions.create(messages=HI, structured_outputs=CHOICE)
        with pytest.raises(ConstraintIgnoredError) as streamed:
            await vllm.chat.completions.stream(messages=HI, structured_outputs=CHOICE).final()
    assert whole.value.partial.text == streamed.value.partial.text == "blue"
    async with served(Reply.text("red")) as (_, vllm):
        kept = await vllm.chat.completions.create(messages=HI, structured_outputs=CHOICE)
    assert kept.text == "red"


def sse(*texts: str) -> list[bytes]:
    """One event a text, unfinished."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    return [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]


@pytest.mark.feature("O-15")
@pytest.mark.parametrize(
    "constraint",
    [
        {"response_type": City},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"json": {}}},
    ],
)
async def test_endless_white_space_is_cut_and_the_socket_closed(constraint: dict[str, Any]) -> None:
    transport = FixedTransport(*sse('{"name":', *[" " * 10] * 20))
    async with AsyncVLLM("http://fixed", model="m", transport=transport) as vllm:
        stream = vllm.chat.completions.stream(messages=HI, **constraint)
        with pytest.raises(OutputStalledError) as caught:
            await stream.final()
        (sent,) = transport.streams
        assert sent.closed == 1
        assert await sent.receive()  # the rest was not read
    assert caught.value.partial.text == '{"name":' + " " * 70
    assert caught.value.request_id is not None


@pytest.mark.feature("O-15")
async def test_white_space_is_kept_in_whole_and_in_free_replies() -> None:
    spaces = "{" + " " * 100 + "}"
    async with served(Reply.text(spaces), way="socket") as (_, vllm):
        form: Any = {"messages": HI, "response_format": {"type": "json_object"}}
        whole = await vllm.chat.completions.create(**form)
        free = await vllm.chat.completions.stream(messages=HI).final()
    assert whole.text == free.text == spaces


@pytest.mark.feature("O-02")
async def test_a_typed_stream_shows_its_value_as_it_grows_unvalidated() -> None:
    whole = {"name": "Rome on the old river", "people": "many"}
    seen: list[Any] = []

    async def read(stream: ChatStream[City]) -> None:
        assert stream.partial_parsed is None
        async for _ in stream:
            seen.extend([stream.partial_parsed])

    async with served(Reply.text(json.dumps(whole))) as (_, vllm):
        stream = vllm.chat.completions.stream(messages=HI, response_type=City)
        with pytest.raises(OutputValidationError):
            await read(stream)
        assert stream.partial_parsed == whole
    names = [value["name"] for value in seen if value]
    assert {} in seen
    assert len(set(names)) > 1, "the text grows"
    assert all(whole["name"].startswith(name) for name in names)
    assert {"name": whole["name"]} in seen
