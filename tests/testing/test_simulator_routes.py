"""The simulator's routes, and what it refuses with vLLM's own words."""

from __future__ import annotations

import re
from typing import Any

import pytest

from vllm_agent_sdk.testing import Reply, Simulator

from .clients import CHAT, WEATHER, Socket, ask, chat

pytestmark = pytest.mark.feature("Q-01")

OTHER_TOOL = {"type": "function", "function": {"name": "other"}}


async def test_models_lists_the_one_that_is_served() -> None:
    async with Simulator(model="qwen", max_model_len=512) as server:
        got = (await ask(server, "/v1/models")).json
    (card,) = got["data"]
    assert got["object"] == "list"
    assert (card["id"], card["max_model_len"], card["owned_by"]) == ("qwen", 512, "vllm")
    assert card["parent"] is None


async def test_tokenize_counts_words_and_detokenize_gives_them_back() -> None:
    async with Simulator(max_model_len=99) as server:
        text = "two words,  and spaces"
        got = (await ask(server, "/tokenize", {"prompt": text, "return_token_strs": True})).json
        back = (await ask(server, "/detokenize", {"tokens": got["tokens"]})).json
    assert list(got) == ["count", "max_model_len", "tokens", "token_strs"]
    assert (got["count"], got["max_model_len"]) == (4, 99)
    assert got["token_strs"] == ["two", " words,", "  and", " spaces"]
    assert back == {"prompt": text}


@pytest.mark.parametrize("blind", [False, True])
async def test_tools_add_tokens_unless_the_template_is_blind(blind: bool) -> None:
    async with Simulator(blind=blind) as server:
        plain = (await ask(server, "/tokenize", chat())).json
        tooled = (await ask(server, "/tokenize", chat(tools=[WEATHER]))).json
    assert (tooled["count"] == plain["count"]) is blind
    assert plain["token_strs"] is None


async def test_usage_counts_what_tokenize_counts() -> None:
    async with Simulator(Reply.text("one two three")) as server:
        body = chat("some words here", tools=[WEATHER])
        count = (await ask(server, "/tokenize", body)).json["count"]
        usage = (await ask(server, CHAT, body)).json["usage"]
    assert usage["prompt_tokens"] == count
    assert (usage["completion_tokens"], usage["total_tokens"]) == (3, count + 3)


async def test_version_and_health() -> None:
    async with Simulator(version="0.11.0") as server:
        assert (await ask(server, "/version")).json == {"version": "0.11.0"}
        healthy = await ask(server, "/health")
        server.healthy = False
        ill = await ask(server, "/health")
        fingerprint = (await ask(server, CHAT, chat())).json["system_fingerprint"]
    assert [(each.status, each.body) for each in (healthy, ill)] == [(200, b""), (503, b"")]
    assert fingerprint.startswith("vllm-0.11.0-")


async def test_metrics_tell_how_many_requests_are_running() -> None:
    async with Simulator(Reply.text("a", first_delay=60)) as server, Socket(server) as client:
        client.send(CHAT, chat())
        await server.wait_for(lambda: server.running == 1)
        got = await ask(server, "/metrics")
    assert got.headers["content-type"].startswith("text/plain; version=1.0.0")
    lines = got.body.decode().splitlines()
    assert 'vllm:num_requests_running{engine="0",model_name="sim-model"} 1.0' in lines
    assert 'vllm:num_requests_waiting{engine="0",model_name="sim-model"} 0.0' in lines
    sample = re.compile(r'[a-z_:]+\{([a-z_]+="[^"]*",?)+\} [0-9.]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)


async def test_what_is_no_route_is_404_and_a_wrong_method_405() -> None:
    async with Simulator() as server:
        missing = await ask(server, "/v1/embeddings", {})
        wrong = await ask(server, CHAT)
    assert (missing.status, missing.json) == (404, {"detail": "Not Found"})
    assert (wrong.status, wrong.json) == (405, {"detail": "Method Not Allowed"})
    assert wrong.headers["allow"] == "POST"


async def test_a_key_guards_what_vllm_guards() -> None:
    async with Simulator(api_key="secret") as server:
        for path in ("/v1/models", "/v1/nothing", "/v2/embed", "/inference/x", "/cohere/x"):
            for sent in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
                got = await ask(server, path, **sent)
                assert (got.status, got.json) == (401, {"error": "Unauthorized"})
        assert (await ask(server, "/v1/models", authorization="bearer secret")).status == 200
        for path in ("/health", "/version", "/metrics"):
            assert (await ask(server, path)).status == 200
        assert (await ask(server, "/tokenize", {"prompt": "a"})).status == 200


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


REFUSED: dict[str, tuple[Any, int, str, str | None, str]] = {
    "unknown model": (
        chat(model="x"),
        404,
        "NotFoundError",
        "model",
        "The model `x` does not exist. Valid aliases: sim-model.",
    ),
    "empty tools": (
        chat(tools=[]),
        400,
        "BadRequestError",
        "tools",
        (
            "`tools` must not be an empty array. Either provide at least one tool or omit the "
            "field entirely. (parameter=tools)"
        ),
    ),
    "stream options alone": (
        chat(stream_options={"include_usage": True}),
        400,
        "BadRequestError",
        "stream_options",
        "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
    ),
    "choice without tools": (
        chat(tool_choice="auto"),
        400,
        "BadRequestError",
        "tool_choice",
        "When using `tool_choice`, `tools` must be set. (parameter=tool_choice)",
    ),
    "unknown choice": (
        chat(tools=[WEATHER], tool_choice="any"),
        400,
        "BadRequestError",
        "tool_choice",
        (
            'Invalid value for `tool_choice`: any! Only named tools, "none", "auto" or "required" '
            "are supported. (parameter=tool_choice)"
        ),
    ),
    "choice of another tool": (
        chat(tools=[OTHER_TOOL], tool_choice=named("get_weather")),
        400,
        "BadRequestError",
        "tool_choice",
        (
            "The tool specified in `tool_choice` does not match any of the specified `tools` "
            "(parameter=tool_choice)"
        ),
    ),
    "choice without a name": (
        chat(tools=[WEATHER], tool_choice={"type": "function", "function": {}}),
        400,
        "BadRequestError",
        "tool_choice.function.name",
        (
            "Expected field `name` in `function` in `tool_choice`! Correct usage: "
            '`{"type": "function", "function": {"name": "my_function"}}` '
            "(parameter=tool_choice.function.name)"
        ),
    ),
    "messages of another type": (
        {"messages": "Hi"},
        400,
        "Bad Request",
        "body.messages",
        (
            "1 validation error:\n  {'type': 'list_type', 'loc': 'body.messages', "
            "'msg': 'Input should be a valid list', 'input': 'Hi'}"
        ),
    ),
    "no messages": (
        {"model": "sim-model"},
        400,
        "Bad Request",
        "body.messages",
        (
            "1 validation error:\n  {'type': 'missing', 'loc': 'body.messages', "
            "'msg': 'Field required', 'input': '<dict of 1 items>'}"
        ),
    ),
    "bad JSON": (
        b'{"messages": }',
        400,
        "Bad Request",
        "body.13",
        (
            "1 validation error:\n  {'type': 'json_invalid', 'loc': 'body.13', 'msg': 'JSON decode "
            "error', 'input': '<dict of 0 items>', 'ctx': {'error': 'Expecting value'}}"
        ),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_requests_are_refused_in_vllms_words(what: str) -> None:
    body, status, type_, param, message = REFUSED[what]
    async with Simulator(check_fields=False) as server:
        got = await ask(server, CHAT, body)
    assert got.status == status
    assert got.json == {
        "error": {"message": message, "type": type_, "param": param, "code": status}
    }


async def test_a_body_that_is_not_declared_as_json_is_refused() -> None:
    async with Simulator() as server:
        got = await ask(server, CHAT, chat(), content_type="text/plain")
    assert got.status == 400
    assert "Only 'application/json' is allowed" in got.json["error"]["message"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            None,
            (
                '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser '
                "to be set"
            ),
        ),
        ("required", 'tool_choice="required" requires --tool-call-parser to be set'),
        (
            named("get_weather"),
            'tool_choice=function "get_weather" requires --tool-call-parser to be set',
        ),
    ],
)
async def test_without_a_tool_parser_calls_cannot_be_asked_for(choice: Any, message: str) -> None:
    fields = {} if choice is None else {"tool_choice": choice}
    async with Simulator(tool_parser=None) as server:
        got = await ask(server, CHAT, chat(tools=[WEATHER], **fields))
        none = await ask(server, CHAT, chat(tools=[WEATHER], tool_choice="none"))
    assert (got.status, got.json["error"]["message"]) == (400, message)
    assert none.status == 200


@pytest.mark.parametrize(
    ("room", "status", "param", "message"),
    [
        (1, 200, None, ""),
        (0, 400, "max_tokens", "max_tokens must be at least 1, got 0."),
        (
            -5,
            400,
            "input_tokens",
            "This model's maximum context length is {n} tokens. However, your",
        ),
    ],
)
async def test_a_prompt_must_leave_room_for_an_answer(
    room: int, status: int, param: str | None, message: str
) -> None:
    async with Simulator() as counting:
        count = (await ask(counting, "/tokenize", chat("word " * 20))).json["count"]
    async with Simulator(max_model_len=count + room) as server:
        got = await ask(server, CHAT, chat("word " * 20))
    assert got.status == status
    if param is not None:
        assert got.json["error"]["param"] == param
        assert got.json["error"]["message"].startswith(message.format(n=count + room))
