"""Models and servers: which model is meant, and what is said when it is not a vLLM server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM, HTTPOptions
from vllm_agent_sdk.errors import (
    AuthenticationError,
    BadRequestError,
    ContextLengthError,
    EngineDeadError,
    InternalServerError,
    ModelNotFoundError,
    ProtocolError,
    ServerOverloadedError,
    TransportError,
    UnsupportedByServerError,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.transport.base import ByteStream, Request

from .support import HI, WAYS, FixedStream, FixedTransport, served

Card = dict[str, Any]


class Routes:
    """A transport that answers by path; any other is vLLM's 404."""

    def __init__(self, **bodies: Any) -> None:
        self.bodies = {f"/{path}": body for path, body in bodies.items()}
        self.paths: list[str] = []
        self.sent: Any = None

    async def send(self, request: Request) -> ByteStream:
        path = request.url.removeprefix("http://fixed").removeprefix("/v1")
        self.paths.append(path)
        self.sent = json.loads(request.body or b"null")
        stream = FixedStream([json.dumps(self.bodies.get(path, {"detail": "Not Found"})).encode()])
        stream.status = 200 if path in self.bodies else 404
        return stream

    async def aclose(self) -> None:
        return None


def serving(*cards: Card, **settings: Any) -> tuple[Routes, AsyncVLLM]:
    transport = Routes(models={"object": "list", "data": list(cards)}, tokenize={"count": 1})
    transport.bodies["/chat/completions"] = {"choices": []}
    return transport, AsyncVLLM("http://fixed", transport=transport, **settings)


BIG: Card = {"id": "big", "root": "/m/big", "max_model_len": 4096}
ALIAS: Card = {"id": "gpt-4", "root": "/m/big"}
ADAPTER: Card = {"id": "style", "root": "/l/style", "parent": "big"}
SMALL: Card = {"id": "small", "root": "/m/small"}

# ── which model ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("C-01")
async def test_without_a_model_the_servers_only_one_is_asked_for_once() -> None:
    transport, vllm = serving(BIG, ALIAS, ADAPTER)
    for _ in range(2):
        await vllm.chat.completions.create(messages=HI)
        assert transport.sent["model"] == "big"
    assert transport.paths == ["/models", "/chat/completions", "/chat/completions"]


@pytest.mark.feature("C-01")
async def test_of_several_models_one_must_be_named_and_they_are_listed() -> None:
    transport, vllm = serving(BIG, ALIAS, ADAPTER, SMALL)
    with pytest.raises(UsageError, match=r"several models \(big, small\); name one with model="):
        await vllm.chat.completions.create(messages=HI)
    assert transport.paths == ["/models"]


@pytest.mark.feature("C-01")
@pytest.mark.parametrize(
    ("settings", "params", "model"),
    [
        ({"model": "a"}, {}, "a"),
        ({"model": "a"}, {"model": "b"}, "b"),
        ({"model": "a", "defaults": {"model": "c"}}, {}, "c"),
        ({"model": "a"}, {"model": None}, "a"),
    ],
)
async def test_a_model_that_is_named_is_not_asked_for(
    settings: dict[str, Any], params: dict[str, Any], model: str
) -> None:
    transport, vllm = serving(**settings)
    await vllm.chat.completions.create(messages=HI, **params)
    assert transport.sent["model"] == model
    assert transport.paths == ["/chat/completions"]


async def test_a_server_without_a_model_says_so() -> None:
    _, vllm = serving(ADAPTER)
    with pytest.raises(ModelNotFoundError, match="serves no model"):
        await vllm.chat.completions.create(messages=HI)


@pytest.mark.feature("E-04")
async def test_one_model_is_found_in_the_list_or_the_known_ones_are_named() -> None:
    _, vllm = serving(BIG, ADAPTER)
    assert (await vllm.models.retrieve("big")).max_model_len == 4096
    assert (await vllm.models.retrieve("style")).parent == "big"
    with pytest.raises(ModelNotFoundError, match=r"huge.*big, style") as caught:
        await vllm.models.retrieve("huge")
    assert caught.value.known == ("big", "style")
    assert b'"data"' in (await vllm.models.list()).raw


# ── other routes ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("C-01")
@pytest.mark.parametrize("way", WAYS)
async def test_routes_outside_v1_use_the_root(way: str) -> None:
    async with served(way=way, max_model_len=99) as (server, vllm):
        assert await vllm.server.health()
        assert await vllm.server.version() == "0.32.0"
        counted = await vllm.tokenize("one two three")
        assert (counted.count, counted.max_model_len) == (3, 99)
        assert (await vllm.detokenize(counted.tokens)).prompt == "one two three"
        assert (await vllm.tokenize(messages=HI)).count > 0
        server.healthy = False
        assert not await vllm.server.health()
        paths = [request.path for request in server.requests]
    assert paths == ["/health", "/version", "/tokenize", "/detokenize", "/tokenize", "/health"]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({}, "either a prompt or messages"),
        ({"prompt": "a", "messages": HI}, "either a prompt or messages"),
        ({"prompt": "a", "tools": []}, "go with messages="),
    ],
)
async def test_tokenize_takes_a_prompt_or_messages(args: dict[str, Any], text: str) -> None:
    _, vllm = serving(BIG)
    with pytest.raises(UsageError, match=text):
        await vllm.tokenize(**args)


async def test_waiting_for_a_server_tells_how_far_it_is_and_gives_up() -> None:
    async with served() as (server, vllm):
        server.healthy = False
        told: list[str] = []

        def progress(_seconds: float, answer: str) -> None:
            told.append(answer)
            server.healthy = len(told) == 2

        await vllm.server.wait_until_ready(interval=0.01, progress=progress)
        assert told == ["its engine is not alive"] * 2
        server.healthy = False
        with pytest.raises(TransportError, match=r"not ready within 0\.03 s: its engine"):
            await vllm.server.wait_until_ready(timeout=0.03, interval=0.01)


# ── errors of a server ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply.error(400), BadRequestError),
        (Reply.error(500), InternalServerError),
        (Reply.error(503, headers={"retry-after": "2"}), ServerOverloadedError),
        (Reply.error(502, body=b"<html>Bad gateway</html>"), ServerOverloadedError),
        (Reply.error(500, message="EngineCore encountered an issue."), EngineDeadError),
    ],
)
async def test_an_error_status_is_its_error_with_the_requests_id(
    way: str, stream: bool, reply: Reply, kind: type[VLLMError]
) -> None:
    async with served(reply, way=way) as (server, vllm):
        with pytest.raises(kind) as caught:
            await vllm.chat.completions.create(messages=HI, stream=stream)
        assert caught.value.request_id == server.chats[-1].headers["x-request-id"]
        assert server.running == 0
        if kind is ServerOverloadedError and reply.headers:
            assert caught.value.retry_after == 2.0  # type: ignore[attr-defined]


async def test_a_prompt_that_is_too_long_names_both_numbers() -> None:
    async with served(max_model_len=3) as (_, vllm):
        with pytest.raises(ContextLengthError) as caught:
            await vllm.chat.completions.create(messages=[{"role": "user", "content": "a " * 9}])
    assert caught.value.max == 3
    assert caught.value.got is not None
    assert caught.value.got > 3


@pytest.mark.feature("C-02")
@pytest.mark.parametrize("key", [None, "wrong"])
async def test_a_missing_and_a_wrong_key_are_told_apart(key: str | None) -> None:
    async with served(api_key="right", client={"api_key": key}) as (_, vllm):
        with pytest.raises(AuthenticationError) as caught:
            await vllm.chat.completions.create(messages=HI)
    assert ("wants a key" if key is None else "refused the key") in caught.value.message
    assert caught.value.status == 401
    async with served(api_key="right", client={"api_key": "right"}) as (_, vllm):
        assert (await vllm.chat.completions.create(messages=HI)).text == "OK"


async def test_an_unknown_model_is_named() -> None:
    async with served() as (_, vllm):
        with pytest.raises(ModelNotFoundError, match="`huge` does not exist"):
            await vllm.chat.completions.create(messages=HI, model="huge")


# ── what is not a vLLM server ────────────────────────────────────────────────────────────────────

PAGE = b"<!doctype html><html><body>It works!" + b" " * 5000 + b"</body></html>"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_page_with_404_names_the_address(way: str, stream: bool) -> None:
    reply = Reply.raw(PAGE, content_type="text/html", status=404)
    async with served(reply, way=way) as (_, vllm):
        with pytest.raises(UnsupportedByServerError, match="base_url is not that of a vLLM") as e:
            await vllm.chat.completions.create(messages=HI, stream=stream)
    assert f"{vllm.base_url}/chat/completions" in e.value.message


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_page_with_200_is_shown(way: str, stream: bool) -> None:
    reply = Reply.raw(PAGE, content_type="text/html; charset=utf-8")
    async with served(reply, way=way) as (_, vllm):
        with pytest.raises(ProtocolError, match="It works!") as caught:
            await vllm.chat.completions.create(messages=HI, stream=stream)
    assert caught.value.request_id
    assert len(caught.value.message) < 600


async def test_a_page_that_never_ends_is_shown_as_far_as_it_has_come() -> None:
    reply = Reply.raw(b"data: hello\n\ndata: more\n\n", content_type="text/event-strea")
    async with served(reply, way="socket") as (_, vllm):
        with pytest.raises(ProtocolError, match=r"'text/event-strea', not an event stream"):
            await vllm.chat.completions.stream(messages=HI).final()


async def test_the_content_type_of_a_stream_may_be_written_in_any_case() -> None:
    reply = Reply.raw(
        b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n',
        content_type="Text/Event-Stream",
    )
    async with served(reply) as (_, vllm):
        assert await vllm.chat.completions.stream(messages=HI).text() == "a"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_redirect_is_not_followed(way: str, stream: bool) -> None:
    to = {"location": "http://127.0.0.1:1/login"}
    async with served(Reply.error(302, headers=to), way=way) as (server, vllm):
        with pytest.raises(ProtocolError, match=r"127\.0\.0\.1:1/login; redirects are not"):
            await vllm.chat.completions.create(messages=HI, stream=stream)
        assert len(server.requests) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_reply_over_the_limit_is_refused(way: str) -> None:
    settings = {"http": HTTPOptions(max_response_bytes=300)}
    big = Reply.text("x" * 1000)
    async with served(big, way=way, client=settings) as (server, vllm):
        with pytest.raises(ProtocolError, match=r"larger than 300 bytes.*max_response_bytes"):
            await vllm.chat.completions.create(messages=HI)
        with pytest.raises(ProtocolError, match=r"more than 300 bytes.*max_response_bytes"):
            await vllm.chat.completions.stream(messages=HI).final()
        await server.wait_for(lambda: server.running == 0)


async def test_a_whole_reply_keeps_its_bytes_and_unknown_keys() -> None:
    body = b'{"id": "c", "choices": [{"message": {"content": "a", "mood": 1}}], "new": [2]}'
    async with AsyncVLLM("http://fixed", model="m", transport=FixedTransport(body)) as vllm:
        reply = await vllm.chat.completions.create(messages=HI)
    assert (reply.text, reply.raw) == ("a", body)
    assert reply.extra == {"choices": [{"message": {"mood": 1}}], "new": [2]}
