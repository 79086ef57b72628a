"""Scripted replies are, byte for byte, what vLLM 0.32 was recorded to send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vllm_agent_sdk.testing import Reply, Simulator

from .clients import CHAT, FIXTURES, WEATHER, ask, chat, recorded, stream

pytestmark = pytest.mark.feature("Q-01")

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "cached_tokens": 2}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
WITH_USAGE = {"stream_options": {"include_usage": True}}
HELLO = Reply.text(chunks=["Hel", "lo"], usage=USAGE)


def paris(id_: str, arguments: Any = None) -> tuple[str, Any, str]:
    return ("get_weather", {"city": "Paris"} if arguments is None else arguments, id_)


def failing(**error: Any) -> Reply:
    return Reply.text(chunks=["Hel", "lo"], error_after=2, error=error)


def two_calls(first: str, second: str, **options: Any) -> Reply:
    rome = ("get_weather", {"city": "Rome"}, second)
    return Reply.calls(paris(first), rome, text=["I will", " check."], **options)


STREAMS = {
    "plain_usage": (HELLO, WITH_USAGE),
    "plain_length": (Reply.text(chunks=["Hel", "lo"], finish_reason="length"), {}),
    "error_generation_midstream": (failing(), {}),
    "error_value_midstream": (failing(message="boom", type="BadRequestError", code=400), {}),
    "error_engine_dead_midstream": (
        failing(
            message="EngineCore encountered an issue. See stack trace (above) for the root cause."
        ),
        {},
    ),
    "hermes_auto_two_calls": (
        two_calls(
            "chatcmpl-tool-98135f5abf5b7dae",
            "chatcmpl-tool-bb7b669407944570",
            usage={"prompt_tokens": 3, "completion_tokens": 131, "cached_tokens": 2},
        ),
        {"tools": [WEATHER], **WITH_USAGE},
    ),
    "hermes_parallel_false": (
        two_calls("chatcmpl-tool-8aa434f2efdf308c", "chatcmpl-tool-0"),
        {"tools": [WEATHER], "parallel_tool_calls": False},
    ),
    "hermes_malformed": (
        Reply.calls(paris("chatcmpl-tool-80cd7d63c925e7d9", ['{"city": }', "}"])),
        {"tools": [WEATHER]},
    ),
    "hermes_truncated": (
        Reply.calls(
            paris("chatcmpl-tool-bf19724a5c939bb1", ['{"city": "Pa']), finish_reason="length"
        ),
        {"tools": [WEATHER]},
    ),
    "hermes_no_args": (
        Reply.calls(paris("chatcmpl-tool-a9ca30319b1ccc5b", {})),
        {"tools": [WEATHER]},
    ),
    "hermes_required": (
        Reply.calls(paris("chatcmpl-tool-b2eaa83f87a95157")),
        {"tools": [WEATHER], "tool_choice": "required"},
    ),
    "hermes_named": (
        Reply.calls(paris("chatcmpl-tool-855ac689703908d7")),
        {"tools": [WEATHER], "tool_choice": NAMED},
    ),
    "qwen3_truncated_in_thinking": (
        Reply.reasoning(["I should", " think"], finish_reason="length"),
        {},
    ),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_has_the_bytes_that_were_recorded(name: str) -> None:
    reply, fields = STREAMS[name]
    # Recorded of a server without a parser where no tools are asked for.
    parser = None if name.startswith("plain") else "hermes"
    async with Simulator(reply, model="m", tool_parser=parser) as server:
        got = await stream(server, **fields)
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert got.body.decode() == recorded(name).decode()


@pytest.mark.parametrize("name", sorted(path.stem for path in (FIXTURES / "sse").glob("*.sse")))
async def test_a_recorded_stream_can_be_played_as_it_is(name: str) -> None:
    async with Simulator(Reply.raw(recorded(name))) as server:
        got = await stream(server)
    assert got.body == recorded(name)
    assert all(chunk.endswith(b"\n\n") for chunk in got.chunks)


WHOLE = {
    "hermes_auto_two_calls": (
        Reply.calls(
            paris("chatcmpl-tool-b115b18c5f8eea72"),
            ("get_weather", '{"city":"Rome"}', "chatcmpl-tool-a74030ea9837ff15"),
            text="I will check.",
            usage={"prompt_tokens": 3, "completion_tokens": 173, "cached_tokens": 2},
        ),
        {"tools": [WEATHER]},
    ),
    "hermes_malformed": (
        Reply.calls(
            ("get_weather", '{"city": }'),
            usage={"prompt_tokens": 3, "completion_tokens": 73, "cached_tokens": 2},
        ),
        {"tools": [WEATHER]},
    ),
    "hermes_named": (
        Reply.calls(
            paris("chatcmpl-tool-a6165bef6900bcdb"),
            usage={"prompt_tokens": 3, "completion_tokens": 80, "cached_tokens": 2},
        ),
        {"tools": [WEATHER], "tool_choice": NAMED},
    ),
    "qwen3_coder_reasoning": (
        Reply.calls(
            ("get_weather", {"city": "Paris", "n": 5}, "chatcmpl-tool-ae6139dff8b7a8ee"),
            text="OK",
            reasoning="I should think",
            usage={
                "prompt_tokens": 3,
                "completion_tokens": 158,
                "cached_tokens": 2,
                "reasoning_tokens": 158,
            },
        ),
        {"tools": [WEATHER]},
    ),
    "qwen3_truncated_in_thinking": (
        Reply.reasoning(
            "I should think for",
            finish_reason="length",
            usage={
                "prompt_tokens": 3,
                "completion_tokens": 25,
                "cached_tokens": 2,
                "reasoning_tokens": 25,
            },
        ),
        {},
    ),
    "no_reasoning_parser": (
        Reply.text(
            "<think>hmm</think>answer",
            stop_reason="X",
            usage={"prompt_tokens": 3, "completion_tokens": 24, "cached_tokens": 2},
        ),
        {},
    ),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_whole_reply_has_the_keys_that_were_recorded(name: str) -> None:
    reply, fields = WHOLE[name]
    async with Simulator(reply, model="m") as server:
        got = await ask(server, CHAT, chat(**fields), x_request_id="X")
    expected = json.loads((FIXTURES / "full" / f"{name}.json").read_text())
    # Compared as text: the order of keys counts. The socket's JSON has no spaces.
    assert got.body.decode() == json.dumps(expected, separators=(",", ":"))


async def test_choices_are_interleaved_and_end_one_by_one() -> None:
    async with Simulator(Reply.calls(("f", {}), text="a b")) as server:
        got = await stream(server, n=2, **WITH_USAGE)
    *chunks, usage = got.events
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1] * 5
    assert [len(chunk["choices"]) for chunk in chunks] == [1] * 10
    ends = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert ends == [None] * 8 + ["tool_calls"] * 2
    ids = {chunk["choices"][0]["delta"]["tool_calls"][0]["id"] for chunk in chunks[6:8]}
    assert len(ids) == 2
    assert usage["usage"]["completion_tokens"] == 8


async def test_every_choice_of_a_whole_reply_is_the_same() -> None:
    async with Simulator(Reply.text("a b")) as server:
        got = (await ask(server, CHAT, chat(n=3))).json
    assert [(each["index"], each["message"]["content"]) for each in got["choices"]] == [
        (0, "a b"),
        (1, "a b"),
        (2, "a b"),
    ]


async def test_usage_comes_with_each_chunk_when_asked_for() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with Simulator(Reply.text("a b", usage={"prompt_tokens": 3})) as server:
        got = await stream(server, stream_options=options)
    keys = recorded("plain_continuous_usage").split(b"\n\n")
    assert [list(event) for event in got.events] == [
        list(json.loads(keys[at].removeprefix(b"data: "))) for at in (0, 1, 1, 1, 3)
    ]
    counts = [event["usage"]["completion_tokens"] for event in got.events]
    assert counts == [0, 1, 2, 2, 2]


async def test_text_comes_word_by_word_and_whole() -> None:
    text = " Two  spaces,\na line, ünïcode 🦊 "
    async with Simulator(Reply.text(text)) as server:
        got = await stream(server)
    pieces = [delta.get("content", "") for delta in got.deltas]
    assert pieces[1:5] == [" Two", "  spaces,", "\na", " line,"]
    assert "".join(pieces) == text


async def test_reasoning_that_is_not_wanted_is_left_out_and_said_to_be_null() -> None:
    reply = Reply.calls(("f", {"a": 1}), text="So", reasoning="I think")
    async with Simulator(reply) as server:
        got = await stream(server, tools=[WEATHER], include_reasoning=False)
        whole = (await ask(server, CHAT, chat(include_reasoning=False))).json
    shown = [list(delta) for delta in got.deltas[1:-1]]
    assert shown == [["content", "reasoning"]] + [["content", "reasoning", "tool_calls"]] * 3
    assert whole["choices"][0]["message"]["reasoning"] is None


async def test_ids_of_calls_differ_between_replies() -> None:
    async with Simulator(Reply.calls(("f", {}))) as server:
        got = [(await ask(server, CHAT, chat())).json for _ in range(2)]
    ids = [each["choices"][0]["message"]["tool_calls"][0]["id"] for each in got]
    assert len(set(ids)) == 2
    assert all(len(id_) == len("chatcmpl-tool-") + 16 for id_ in ids)


@pytest.mark.parametrize(("parser", "fields"), [(None, {}), ("hermes", {"tool_choice": "none"})])
async def test_without_a_parser_at_work_calls_come_as_text(
    parser: str | None, fields: dict[str, Any]
) -> None:
    text = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    async with Simulator(Reply.calls(("f", {"a": 1})), tool_parser=parser) as server:
        got = await stream(server, **fields)
        whole = (await ask(server, CHAT, chat(**fields))).json["choices"][0]
    assert "".join(delta.get("content") or "" for delta in got.deltas) == text
    assert got.events[-1]["choices"][0]["finish_reason"] == "stop"
    assert (whole["message"]["content"], whole["finish_reason"]) == (text, "stop")
    assert "tool_calls" not in whole["message"]


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        (Reply.error(401), 401, {"error": "Unauthorized"}),
        (
            Reply.error(500),
            500,
            {
                "error": {
                    "message": "Internal server error",
                    "type": "InternalServerError",
                    "param": None,
                    "code": 500,
                }
            },
        ),
        (
            Reply.error(429, message="Slow down", type="RateLimit", param="model"),
            429,
            {
                "error": {
                    "message": "Slow down",
                    "type": "RateLimit",
                    "param": "model",
                    "code": 429,
                }
            },
        ),
        (Reply.error(502, body='{"detail":"x"}'), 502, {"detail": "x"}),
        (
            Reply.text("a", error_after=1, error={"code": 503, "message": "busy"}),
            503,
            {
                "error": {
                    "message": "busy",
                    "type": "Service Unavailable",
                    "param": None,
                    "code": 503,
                }
            },
        ),
    ],
)
async def test_errors_have_their_status_and_vllms_body(
    reply: Reply, status: int, body: Any
) -> None:
    async with Simulator(reply) as server:
        got = await ask(server, CHAT, chat())
    assert (got.status, got.json) == (status, body)


async def test_a_proxys_page_can_be_sent_with_its_headers() -> None:
    page = Reply.error(503, body="<h1>busy</h1>", headers={"Retry-After": "7"})
    async with Simulator(page) as server:
        got = await stream(server)
    assert (got.status, got.body) == (503, b"<h1>busy</h1>")
    assert got.headers["retry-after"] == "7"
    assert got.headers["content-type"] == "text/plain; charset=utf-8"
