"""The simulator's completions have vLLM's bytes and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.testing import Reply, Simulator

from .clients import ask

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "completions"
PATH = "/v1/completions"
CACHED = {"prompt_tokens": 4, "cached_tokens": 0}

# name: the reply's pieces, its options, the request's fields
SCRIPTED: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]] = {
    "plain": ([" or", " three", "-", "digit", " numbers"], {"finish_reason": "length"}, {}),
    "stop": (["three", " ", "four"], {}, {}),
    "echo": ([" or", " three", "-"], {"finish_reason": "length"}, {"echo": True}),
    "continuous_usage": ([" or", " three", "-"], {"finish_reason": "length"}, {}),
    "echo_only": ([" or"], {}, {"echo": True, "max_tokens": 0}),
}


def known(body: bytes) -> bytes:
    """Recorded bytes, with the token ids that a simulator's vocabulary gives instead."""
    return body.replace(b"[2705,28,827,28]", b"[0,1]")


@pytest.mark.parametrize("name", SCRIPTED)
async def test_streams_have_the_recorded_bytes(name: str) -> None:
    pieces, options, fields = SCRIPTED[name]
    recorded = (FIXTURES / "sse" / f"{name}.sse").read_bytes()
    stream_options: dict[str, Any] = {}
    if b'"usage"' in recorded:
        stream_options["include_usage"] = True
    if name == "continuous_usage":
        stream_options["continuous_usage_stats"] = True
    reply = Reply.text(chunks=pieces, usage=CACHED, **options)
    async with Simulator(reply, model="m") as server:
        body = {"prompt": "One, two,", "stream": True, **fields}
        if stream_options:
            body["stream_options"] = stream_options
        said = await ask(server, PATH, body, x_request_id="X")
    if name == "continuous_usage":
        # Only the last chunk tells what was cached.
        told = said.body.replace(b',"prompt_tokens_details":{"cached_tokens":0}', b"")
        recorded = recorded.replace(b',"prompt_tokens_details":{"cached_tokens":0}', b"")
        assert told == recorded
    else:
        assert said.body == known(recorded)


@pytest.mark.parametrize("name", ["plain", "stop", "echo", "echo_only"])
async def test_whole_replies_have_the_recorded_bytes(name: str) -> None:
    pieces, options, fields = SCRIPTED[name]
    reply = Reply.text(chunks=pieces, usage=CACHED, **options)
    async with Simulator(reply, model="m") as server:
        said = await ask(server, PATH, {"prompt": "One, two,", **fields}, x_request_id="X")
    assert said.body == (FIXTURES / "full" / f"{name}.json").read_bytes()


async def test_choices_come_interleaved_by_prompt_and_place() -> None:
    async with Simulator(Reply.text("a b", finish_reason="length")) as server:
        body = {"prompt": ["x", "y"], "n": 2, "stream": True}
        said = await ask(server, PATH, body)
    indices = [event["choices"][0]["index"] for event in said.events]
    assert indices == [0, 1, 2, 3, 0, 1, 2, 3]
    ends = [event["choices"][0]["finish_reason"] for event in said.events]
    assert ends == [None] * 4 + ["length"] * 4


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"),
        ({"prompt": ""}, "Either prompt or prompt_embeds must be provided and non-empty."),
        ({"prompt": []}, "You must pass at least one prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix is only supported for models with FIM"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens must be at least 1, got 0."),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, "Stream options can only be"),
        ({"prompt": "a", "model": "nope"}, "The model `nope` does not exist."),
        ({"prompt": [0] * 9000}, "This model's maximum context length is 8192 tokens."),
    ],
)
async def test_what_vllm_refuses_is_refused(body: dict[str, Any], text: str) -> None:
    async with Simulator() as server:
        said = await ask(server, PATH, body)
    assert said.status == (404 if "nope" in text else 400)
    assert said.json["error"]["message"].startswith(text)


async def test_the_script_is_one_for_chats_and_completions() -> None:
    async with Simulator(Reply.text("one"), Reply.error(503), Reply.text("three")) as server:
        first = await ask(server, PATH, {"prompt": "a"})
        second = await ask(server, PATH, {"prompt": "a"})
        chat = {"messages": [{"role": "user", "content": "a"}]}
        third = await ask(server, "/v1/chat/completions", chat)
    assert first.json["choices"][0]["text"] == "one"
    assert second.status == 503
    assert third.json["choices"][0]["message"]["content"] == "three"
    assert json.loads(server.requests[0].body) == {"prompt": "a"}


async def test_a_reply_with_calls_makes_no_sense_here() -> None:
    with pytest.raises(UsageError, match="text only"):  # noqa: PT012
        async with Simulator(Reply.calls(("f", {}))) as server:
            said = await ask(server, PATH, {"prompt": "a"})
            assert said.status == 500
