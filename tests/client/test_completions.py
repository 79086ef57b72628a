"""`vllm.completions`: what is sent, what is refused, what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk.errors import (
    BadRequestError,
    StreamFailedError,
    StreamTruncatedError,
    UsageError,
)
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.types.completions import Completion
from vllm_agent_sdk.types.events import ChoiceFinished, Finished, TextDelta, UsageUpdated

from .support import WAYS, served

SSE = Path(__file__).parents[1] / "fixtures" / "completions" / "sse"
PATH = "/v1/completions"


@pytest.mark.feature("E-02")
@pytest.mark.parametrize("way", WAYS)
async def test_the_stream_and_the_whole_reply_are_the_same(way: str) -> None:
    async with served(Reply.text("three four"), way=way) as (server, vllm):
        whole = await vllm.completions.create(prompt="One, two,", max_tokens=4, request_id="X")
        async with vllm.completions.stream(prompt="One, two,", max_tokens=4) as stream:
            events = [event async for event in stream]
        assert isinstance(stream.completion, Completion)
        assert whole.text == stream.completion.text == "three four"
        assert whole.usage == stream.completion.usage
        assert whole.id == "cmpl-X"
        kinds = [TextDelta, TextDelta, ChoiceFinished, UsageUpdated, Finished]
        assert [type(event) for event in events] == kinds
        last = events[-1]
        assert isinstance(last, Finished)
        assert last.completion is stream.completion
        assert last.timing.first_token_s is not None
        assert [request.path for request in server.requests] == [PATH, PATH]
        assert server.requests[0].json == {
            "prompt": "One, two,", "max_tokens": 4, "model": "sim-model",
        }  # fmt: skip
        assert server.requests[1].json["stream_options"] == {"include_usage": True}


@pytest.mark.feature("E-02")
async def test_lists_of_prompts_and_echo() -> None:
    async with served(Reply.text(" c", finish_reason="length")) as (_, vllm):
        prompts = ["a", "b b"]
        whole = await vllm.completions.create(prompt=prompts, n=2, echo=True)
        assert [choice.text for choice in whole.choices] == ["a c", "a c", "b b c", "b b c"]
        streamed = await vllm.completions.stream(prompt=prompts, n=2, echo=True).final()
        assert [choice.text for choice in streamed.choices] == [c.text for c in whole.choices]
        assert [choice.index for choice in streamed.choices] == [0, 1, 2, 3]
        scored = await vllm.completions.stream(prompt="a", echo=True, max_tokens=0).final()
        assert (scored.text, scored.finish_reason) == ("a", "length")
        ids = await vllm.completions.create(prompt=[[0], [0, 0]])
        assert len(ids.choices) == 2


@pytest.mark.feature("E-02")
async def test_the_wires_chunks_keep_their_bytes() -> None:
    stream = (SSE / "two_choices.sse").read_bytes()
    async with served(Reply.raw(stream)) as (server, vllm):
        chunks = await vllm.completions.create(prompt="a", n=2, stream=True)
        raw = [chunk.raw async for chunk in chunks]
    assert b"".join(b"data: " + each + b"\n\n" for each in raw) + b"data: [DONE]\n\n" == stream
    assert "stream_options" not in server.requests[0].json


@pytest.mark.feature("E-02", "S-06")
async def test_fewer_choices_than_asked_for_are_no_reply() -> None:
    stream = (SSE / "two_choices.sse").read_bytes()
    async with served(Reply.raw(stream)) as (_, vllm):
        with pytest.raises(StreamTruncatedError, match="2 of 4 choices") as caught:
            await vllm.completions.stream(prompt=["a", "b"], n=2).final()
    assert isinstance(caught.value.partial, Completion)
    assert caught.value.partial.choices[1].text == " or four sets"
    assert caught.value.partial.request_id == caught.value.request_id


@pytest.mark.feature("E-02", "S-06")
@pytest.mark.parametrize("name", ["plain", "two_choices", "stop"])
async def test_a_connection_cut_at_every_byte_is_an_error_or_the_whole_reply(name: str) -> None:
    stream = (SSE / f"{name}.sse").read_bytes()
    n = 2 if name == "two_choices" else 1
    cuts = [Reply.raw(stream, cut_after=at) for at in range(0, len(stream), 3)]
    async with served(*cuts, Reply.raw(stream)) as (_, vllm):
        outcomes = []
        for _ in cuts:
            cut = vllm.completions.stream(prompt="a", n=n)
            try:
                reply = await cut.final()
            except StreamTruncatedError:
                outcomes.append(None)
            else:
                outcomes.append(tuple(choice.text for choice in reply.choices))
        whole = await vllm.completions.stream(prompt="a", n=n).final()
    assert {each for each in outcomes if each} == {tuple(c.text for c in whole.choices)}
    assert outcomes[0] is None


@pytest.mark.feature("S-06")
async def test_a_server_that_fails_inside_the_stream() -> None:
    async with served(Reply.text("a b c", error_after=2)) as (_, vllm):
        with pytest.raises(StreamFailedError, match="Internal server error") as caught:
            await vllm.completions.stream(prompt="a").final()
    assert isinstance(caught.value.partial, Completion)
    assert caught.value.partial.text == "a b"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt= is missing"),
    ({"prompt": ""}, "prompt= is empty"),
    ({"prompt": []}, "empty list"),
    ({"prompt": b"a"}, "not bytes"),
    ({"prompt": {"a": 1}}, "not dict"),
    ({"prompt": ["a", [1]]}, "a list of list and str"),
    ({"prompt": [True]}, "a list of bool"),
    ({"prompt": [None]}, "a list of NoneType"),
    ({"prompt": [1.5]}, "a list of float"),
    ({"prompt": [b"a"]}, "a list of bytes"),
    ({"prompt": "a", "temperature": 2.1}, "temperature"),
    ({"prompt": "a", "top_p": 0}, "top_p"),
    ({"prompt": "a", "presence_penalty": 3}, "presence_penalty"),
    ({"prompt": "a", "frequency_penalty": -3}, "frequency_penalty"),
    ({"prompt": "a", "cache_salt": ""}, "cache_salt"),
    ({"prompt": "a", "max_tokens": 0}, "with echo=True"),
    ({"prompt": "a", "max_tokens": -1, "echo": True}, "max_tokens=-1"),
    ({"prompt": "a", "n": 0}, "n=0"),
    ({"prompt": "a", "stream_options": {"include_usage": True}}, "needs a stream"),
    ({"prompt": "a", "structured_outputs": {}}, "exactly one of"),
    ({"prompt": "a", "structured_outputs": {"regex": "a", "choice": ["a"]}}, "regex and choice"),
    (
        {
            "prompt": "a",
            "structured_outputs": {"regex": "a"},
            "response_format": {"type": "json_object"},
        },
        "two kinds",
    ),
    ({"prompt": "a", "max_token": 3}, "Did you mean max_tokens=?"),
    ({"prompt": "a", "top_P": 1}, "Did you mean top_p=?"),
    ({"prompt": "a", "best_of": 2}, "has no field 'best_of'"),
]


@pytest.mark.feature("E-02")
@pytest.mark.parametrize(("params", "words"), REFUSED, ids=[words for _, words in REFUSED])
async def test_what_no_server_takes_is_refused_before_anything_is_sent(
    params: dict[str, Any], words: str
) -> None:
    async with served() as (server, vllm):
        with pytest.raises(UsageError) as caught:
            await vllm.completions.create(**params)
    assert words in str(caught.value)
    assert not server.requests


@pytest.mark.parametrize("field", [{"prompt_logprobs": 1}, {"use_beam_search": True}])
async def test_what_needs_a_whole_reply_is_refused_for_a_stream(field: dict[str, Any]) -> None:
    async with served() as (server, vllm):
        with pytest.raises(UsageError, match="without a stream only"):
            vllm.completions.stream(prompt="a", **field)
    assert not server.requests


async def test_extra_fields_and_nulls_are_sent_as_they_are() -> None:
    async with served(check_fields=False) as (server, vllm):
        await vllm.completions.create(
            prompt=(1, 2), seed=None, extra_body={"later": 1}, extra_headers={"x-a": "b"}
        )
        sent = server.requests[0]
        assert sent.json == {"prompt": [1, 2], "seed": None, "later": 1, "model": "sim-model"}
        assert sent.headers["x-a"] == "b"
        await vllm.completions.create(prompt_embeds="AAAA", extra_body={"prompt": "a"})
        assert server.requests[1].json["prompt_embeds"] == "AAAA"


async def test_a_models_refusal_of_a_suffix_is_a_bad_request() -> None:
    async with served() as (_, vllm):
        with pytest.raises(BadRequestError, match="suffix is only supported") as caught:
            await vllm.completions.create(prompt="a", suffix="b")
    assert caught.value.param == "suffix"
