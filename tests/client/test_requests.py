"""What is sent: what was asked and nothing else; what is refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM, SystemMessage, UserMessage, tool
from vllm_agent_sdk.errors import UsageError

from .support import HI, WAYS, WEATHER, FixedTransport, recorded, served

EMPTY = b'{"choices": []}'


def client(*body: bytes, **settings: Any) -> tuple[FixedTransport, AsyncVLLM]:
    transport = FixedTransport(*(body or (EMPTY,)))
    settings.setdefault("model", "m")
    return transport, AsyncVLLM("http://fixed", transport=transport, **settings)


async def sent(
    params: dict[str, Any], defaults: dict[str, Any] | None = None, *, stream: bool = False
) -> dict[str, Any]:
    """The body of a call, without messages and model."""
    transport, vllm = client(recorded("plain_usage") if stream else EMPTY, defaults=defaults)
    async with vllm:
        if stream:
            await vllm.chat.completions.stream(messages=HI, **params).final()
        else:
            await vllm.chat.completions.create(messages=HI, **params)
    body: dict[str, Any] = transport.sent
    assert body.pop("messages") == HI
    assert body.pop("model") == params.get("model", "m")
    return body


# ── the body ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("E-01")
@pytest.mark.parametrize("way", WAYS)
async def test_a_bare_call_sends_messages_and_model_and_nothing_else(way: str) -> None:
    async with served(way=way) as (server, vllm):
        await vllm.chat.completions.create(messages=HI)
        await vllm.chat.completions.stream(messages=HI).final()
        whole, streamed = server.requests
    assert whole.json == {"messages": HI, "model": "sim-model"}
    assert streamed.json == {
        "messages": HI,
        "stream": True,
        "stream_options": {"include_usage": True},
        "model": "sim-model",
    }
    assert (whole.method, whole.path, whole.query) == ("POST", "/v1/chat/completions", "")


@pytest.mark.feature("E-01")
async def test_what_was_asked_is_sent_and_none_is_null() -> None:
    params: dict[str, Any] = {
        "temperature": 0.5, "top_k": 50, "stop": ["x"], "n": 2, "seed": None,
        "logit_bias": {"1": 2.0},
        "structured_outputs": {"choice": ["a", "b"]}, "chat_template_kwargs": {"x": None},
    }  # fmt: skip
    assert await sent(params) == params


@pytest.mark.feature("E-01")
async def test_anything_else_goes_by_extra_body_which_wins() -> None:
    assert await sent({"seed": 1, "extra_body": {"seed": 2, "new_field": [1]}}) == {
        "seed": 2,
        "new_field": [1],
    }


async def test_messages_of_ours_and_wire_dicts_may_be_mixed() -> None:
    transport, vllm = client()
    await vllm.chat.completions.create(messages=iter([SystemMessage("s"), HI[0], UserMessage("u")]))
    assert transport.sent["messages"] == [
        {"role": "system", "content": "s"},
        HI[0],
        {"role": "user", "content": "u"},
    ]


async def test_tools_of_ours_and_wire_dicts_may_be_mixed() -> None:
    @tool
    def add(a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    mine, theirs = (await sent({"tools": [add, WEATHER]}))["tools"]
    assert theirs == WEATHER
    assert mine["type"] == "function"
    assert (mine["function"]["name"], mine["function"]["description"]) == (
        "add",
        "Add two numbers.",
    )
    assert mine["function"]["parameters"]["required"] == ["a"]


@pytest.mark.feature("S-07")
@pytest.mark.parametrize(
    ("params", "options"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": {"include_usage": False}}, {"include_usage": False}),
        ({"stream_options": {}}, {}),
        ({"stream_options": None}, None),
    ],
)
async def test_usage_is_asked_for_unless_stream_options_say_otherwise(
    params: dict[str, Any], options: Any
) -> None:
    body = await sent(params, stream=True)
    assert body == {"stream": True, "stream_options": options}


async def test_wire_chunks_ask_for_nothing_that_was_not_asked_for() -> None:
    transport, vllm = client(recorded("plain_usage"))
    async with vllm:
        chunks = await vllm.chat.completions.create(messages=HI, stream=True)
        assert [chunk async for chunk in chunks]
    assert transport.sent == {"messages": HI, "stream": True, "model": "m"}


# ── defaults ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("C-12")
@pytest.mark.parametrize(
    ("defaults", "params", "body"),
    [
        ({"top_k": 5, "seed": 1}, {"seed": 2}, {"top_k": 5, "seed": 2}),
        ({"seed": 1}, {"seed": None}, {"seed": None}),
        ({"seed": None}, {}, {"seed": None}),
        (
            {"chat_template_kwargs": {"a": 1, "b": {"x": 1}}},
            {"chat_template_kwargs": {"b": {"y": 2}, "c": 3}},
            {"chat_template_kwargs": {"a": 1, "b": {"y": 2}, "c": 3}},
        ),
        ({"stop": ["a"]}, {"stop": ["b"]}, {"stop": ["b"]}),
        ({"vllm_xargs": {"a": 1}}, {"vllm_xargs": None}, {"vllm_xargs": None}),
        ({"stream_options": {"include_usage": True}}, {}, {}),
    ],
)
async def test_defaults_fill_what_a_call_leaves_out(
    defaults: dict[str, Any], params: dict[str, Any], body: dict[str, Any]
) -> None:
    assert await sent(params, defaults) == body


@pytest.mark.feature("C-12")
async def test_default_stream_options_count_for_streams() -> None:
    defaults = {"stream_options": {"continuous_usage_stats": True}}
    assert (await sent({}, defaults, stream=True))["stream_options"] == defaults["stream_options"]


@pytest.mark.feature("C-12")
async def test_defaults_are_not_changed_by_calls() -> None:
    defaults: dict[str, Any] = {"vllm_xargs": {"a": 1}}
    _, vllm = client(defaults=defaults)
    await vllm.chat.completions.create(messages=HI, vllm_xargs={"b": 2})
    assert vllm._calls.defaults == defaults == {"vllm_xargs": {"a": 1}}


@pytest.mark.feature("C-12")
@pytest.mark.parametrize(
    ("defaults", "text"),
    [
        ({"temperature": "hot"}, "temperature= takes a number, not str"),
        ({"load_metrics": True}, "defaults= has no field 'load_metrics'"),
        ({"stream_options": {"usage": True}}, "stream_options= has no field 'usage'"),
    ],
)
def test_defaults_that_cannot_work_are_refused_by_the_client(
    defaults: dict[str, Any], text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        AsyncVLLM("http://x", defaults=defaults)  # type: ignore[arg-type]


@pytest.mark.feature("C-12")
async def test_a_default_out_of_its_range_is_refused_by_the_call() -> None:
    transport, vllm = client(defaults={"temperature": 3.0})
    with pytest.raises(UsageError, match=r"temperature=3\.0"):
        await vllm.chat.completions.create(messages=HI)
    assert transport.requests == []


# ── refused before anything is sent ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "near"),
    [("tempersture", "temperature"), ("max_token", "max_tokens"), ("stops", "stop"), ("zzz", None)],
)
async def test_an_unknown_keyword_names_the_nearest(name: str, near: str | None) -> None:
    transport, vllm = client()
    unknown: dict[str, Any] = {name: 1}
    with pytest.raises(UsageError, match=f"no field '{name}'") as caught:
        await vllm.chat.completions.create(messages=HI, **unknown)
    assert (f"Did you mean {near}=?" if near else "extra_body") in caught.value.message
    with pytest.raises(UsageError, match=f"no field '{name}'"):
        vllm.chat.completions.stream(messages=HI, **unknown)
    with pytest.raises(UsageError, match=f"defaults= has no field '{name}'"):
        AsyncVLLM("http://x", defaults={name: 1})  # type: ignore[misc]
    assert transport.requests == []


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"temperature": 2.1}, r"temperature=2\.1: give a number from 0 to 2"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "takes a number, not str"),
        ({"temperature": True}, "takes a number, not bool"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"top_p": 0}, "top_p=0"),
        ({"top_p": 1.5}, "top_p"),
        ({"tools": []}, "tools= is empty"),
        ({"tools": ["f"]}, "@tool"),
        ({"tool_choice": "auto"}, "tool_choice= needs tools="),
        ({"stream_options": {"include_usage": True}}, "needs a stream"),
        ({"messages": []}, "messages= is empty"),
        ({"messages": "Hi"}, "takes a list of messages"),
        ({"length_penalty": float("inf")}, r"\$\.length_penalty is NaN or infinite"),
        ({"user": "\ud800"}, "lone surrogate"),
        ({"extra_body": {"a": object()}}, "cannot be written as JSON"),
        ({"timeout": "soon"}, "timeout= takes seconds"),
        ({"extra_headers": {"x": 1}}, "takes text, not int"),
        ({"extra_headers": {"x": "a\r\nb: c"}}, "line break"),
        ({"extra_headers": {"a b": "c"}}, "no name of a header"),
        ({"request_id": "a\nb"}, "'x-request-id' holds a line break"),
    ],
)
async def test_what_no_server_can_take_is_refused_before_anything_is_sent(
    params: dict[str, Any], text: str
) -> None:
    transport, vllm = client()
    with pytest.raises(UsageError, match=text):
        await vllm.chat.completions.create(**{"messages": HI, **params})
    assert transport.requests == []


async def test_prompt_logprobs_with_a_stream_are_refused() -> None:
    transport, vllm = client()
    with pytest.raises(UsageError, match="without a stream only"):
        vllm.chat.completions.stream(messages=HI, prompt_logprobs=1)
    assert transport.requests == []


async def test_limits_that_a_server_can_raise_are_left_to_it() -> None:
    params = {"stop": list("abcdefg"), "n": 20_000, "logprobs": True, "top_logprobs": 99}
    assert await sent(params) == params


# ── headers and ids ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("C-02")
@pytest.mark.parametrize("way", WAYS)
async def test_the_headers_of_a_request(way: str) -> None:
    mine = {"client": {"api_key": "k", "headers": {"X-Team": "a", "X-Both": "client"}}}
    async with served(way=way, **mine) as (server, vllm):
        extra = {"x-both": "call", "X-One": "1", "User-Agent": "mine"}
        reply = await vllm.chat.completions.create(messages=HI, extra_headers=extra)
        await vllm.chat.completions.create(messages=HI)
        first, second = (request.headers for request in server.requests)
    assert first["authorization"] == "Bearer k"
    assert first["content-type"] == "application/json"
    assert (first["x-team"], first["x-both"], first["x-one"]) == ("a", "call", "1")
    assert first["user-agent"] == "mine"
    assert second["user-agent"].startswith("vllm-agent-sdk/")
    assert second["x-both"] == "client"
    assert first["x-request-id"] == reply.request_id != second["x-request-id"]
    assert len(second["x-request-id"]) == 32


@pytest.mark.feature("C-02")
async def test_without_a_key_there_is_no_authorization(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    async with served() as (server, vllm):
        await vllm.models.list()
        assert "authorization" not in server.requests[0].headers


@pytest.mark.feature("C-02")
@pytest.mark.parametrize(
    ("settings", "params", "id"),
    [
        ({}, {"request_id": "mine"}, "mine"),
        ({}, {"extra_headers": {"X-Request-ID": "mine"}}, "mine"),
        ({"headers": {"X-Request-Id": "client"}}, {}, "client"),
        ({"headers": {"X-Request-Id": "client"}}, {"request_id": "mine"}, "mine"),
        ({"headers": {"X-Request-Id": None}}, {}, None),
        ({"headers": {"X-Request-Id": None}}, {"request_id": "mine"}, "mine"),
        ({}, {"extra_headers": {"x-request-id": None}}, None),
    ],
)
async def test_the_id_that_is_sent_is_the_one_reported(
    settings: dict[str, Any], params: dict[str, Any], id: str | None
) -> None:
    async with served(client=settings) as (server, vllm):
        whole = await vllm.chat.completions.create(messages=HI, **params)
        stream = vllm.chat.completions.stream(messages=HI, **params)
        streamed = await stream.final()
        chunks = await vllm.chat.completions.create(messages=HI, stream=True, **params)
        await chunks.aclose()
        for request in server.requests:
            assert request.headers.get("x-request-id") == id
    assert whole.request_id == streamed.request_id == stream.request_id == chunks.request_id == id


@pytest.mark.feature("C-02")
async def test_a_header_of_ours_can_be_removed() -> None:
    settings: dict[str, Any] = {"api_key": "k", "headers": {"Authorization": None}}
    async with served(client=settings) as (server, vllm):
        await vllm.chat.completions.create(messages=HI, extra_headers={"User-Agent": None})
        headers = server.requests[0].headers
    assert "authorization" not in headers
    assert not headers.get("user-agent", "").startswith("vllm")
