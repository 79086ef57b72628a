"""Every fault a server can have, on every route that generates, and what our client makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM
from vllm_agent_sdk.errors import (
    AuthenticationError,
    BadRequestError,
    ContextLengthError,
    EngineDeadError,
    FirstTokenTimeoutError,
    IdleTimeoutError,
    InternalServerError,
    NotImplementedByModelError,
    ProtocolError,
    RateLimitError,
    ServerError,
    ServerOverloadedError,
    StreamFailedError,
    StreamTruncatedError,
    TransportError,
    UnprocessableEntityError,
    UnsupportedByServerError,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.types.options import Breaker, HTTPOptions, RetryPolicy, Timeout

from .clients import Socket, ask, chat

pytestmark = pytest.mark.feature("Q-01")

ROUTES = ("chat", "completions", "responses")
WAYS = ("socket", "in process")
TEXT = "One two thrée, four."


@asynccontextmanager
async def served(
    *replies: Any, way: str, **options: Any
) -> AsyncIterator[tuple[Simulator, AsyncVLLM]]:
    async with Simulator(*replies) as server:
        settings = {"model": "sim-model", "retry": RetryPolicy(max_attempts=1), **options}
        if way == "in process":
            settings["transport"] = server.transport
        async with AsyncVLLM(server.base_url, **settings) as vllm:
            yield server, vllm


async def ask_for(vllm: AsyncVLLM, route: str, streamed: bool) -> Any:
    if route == "chat":
        messages = [{"role": "user", "content": "Hi"}]
        if streamed:
            return await vllm.chat.completions.stream(messages=messages).final()
        return await vllm.chat.completions.create(messages=messages)
    if route == "completions":
        if streamed:
            return await vllm.completions.stream(prompt="Hi").final()
        return await vllm.completions.create(prompt="Hi")
    if streamed:
        return await vllm.responses.stream(input="Hi").final()
    return await vllm.responses.create(input="Hi")


async def outcome(vllm: AsyncVLLM, route: str, streamed: bool) -> Any:
    """The reply, or the error."""
    try:
        return await ask_for(vllm, route, streamed)
    except VLLMError as error:
        return error


async def failure(vllm: AsyncVLLM, route: str, streamed: bool) -> VLLMError:
    with pytest.raises(VLLMError) as caught:
        await ask_for(vllm, route, streamed)
    return caught.value


# ── what is said instead of a reply ──────────────────────────────────────────────────────────────

# the reply, the error, its facts
REFUSALS: dict[str, tuple[Reply, type[VLLMError], dict[str, Any]]] = {
    "vllm's own": (
        Reply.error(400, message="bad", param="x"),
        BadRequestError,
        {"status": 400, "message": "bad", "param": "x", "type": "BadRequestError", "code": 400},
    ),
    "a string": (Reply.error(401), AuthenticationError, {"status": 401}),
    "a string, scaling": (
        Reply.error(503, shape="string", message="The model is currently scaling."),
        ServerOverloadedError,
        {"status": 503, "retryable": True},
    ),
    "a detail": (
        Reply.error(404, shape="detail", message="Not Found"),
        UnsupportedByServerError,
        {"status": 404},
    ),
    "anthropic's": (
        Reply.error(400, shape="anthropic", message="m", type="invalid_request_error"),
        BadRequestError,
        {"message": "m", "type": "invalid_request_error"},
    ),
    "flat": (
        Reply.error(400, shape="flat", message="old", param="n"),
        BadRequestError,
        {"message": "old", "param": "n", "code": 400},
    ),
    "plain text": (
        Reply.error(500, shape="text", message="Internal Server Error"),
        InternalServerError,
        {"status": 500},
    ),
    "nothing": (Reply.error(503, shape="empty"), ServerOverloadedError, {"status": 503}),
    "a proxy's page": (
        Reply.error(502, shape="html"),
        ServerOverloadedError,
        {"status": 502, "retryable": True},
    ),
    "an empty message": (
        Reply.error(500, message=""),
        InternalServerError,
        {"message": "HTTP 500 without a message"},
    ),
    "context overflow": (
        Reply.context_overflow(4096, 5000),
        ContextLengthError,
        {"status": 400, "max": 4096, "got": 5000, "param": "input_tokens"},
    ),
    "overload": (
        Reply.error(503, headers={"Retry-After": "3"}),
        ServerOverloadedError,
        {"status": 503, "type": "Service Unavailable", "retry_after": 3.0, "retryable": True},
    ),
    "a proxy's limit": (
        Reply.error(429, headers={"Retry-After": "2"}),
        RateLimitError,
        {"status": 429, "retry_after": 2.0},
    ),
    "media": (Reply.error(422), UnprocessableEntityError, {"status": 422}),
    "another model": (Reply.error(501), NotImplementedByModelError, {"status": 501}),
    "any other": (Reply.error(418), ServerError, {"status": 418}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("what", REFUSALS)
async def test_each_refusal_is_one_typed_error_with_its_facts(
    what: str, route: str, streamed: bool, way: str
) -> None:
    reply, kind, facts = REFUSALS[what]
    async with served(reply, way=way) as (server, vllm):
        error = await failure(vllm, route, streamed)
        assert len(server.requests) == 1
    assert type(error) is kind
    assert {name: getattr(error, name) for name in facts} == facts
    assert error.request_id


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_dead_engine_is_an_error_of_its_own_and_the_server_is_ill(
    route: str, streamed: bool, way: str
) -> None:
    async with served(Reply.dead_engine(), way=way) as (server, vllm):
        error = await failure(vllm, route, streamed)
        assert isinstance(error, EngineDeadError)
        assert error.status == 500
        assert (await ask(server, "/health")).status == 503
        server.healthy = True
        assert (await ask(server, "/health")).status == 200


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_page_with_status_200_is_a_protocol_error(
    route: str, streamed: bool, way: str
) -> None:
    page = Reply.raw(b"<html>Sign in</html>", content_type="text/html")
    async with served(page, way=way) as (_, vllm):
        error = await failure(vllm, route, streamed)
    assert isinstance(error, ProtocolError)
    assert "Sign in" in error.message


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_connection_lost_before_the_first_byte_is_a_transport_error(
    route: str, streamed: bool, way: str, reset: bool
) -> None:
    lost = Reply.text(TEXT, cut_after=-1, reset=reset)
    async with served(Reply.text(TEXT), lost, way=way) as (server, vllm):
        # The second request is sent on a connection that was used before.
        assert (await ask_for(vllm, route, streamed)).text == TEXT
        error = await failure(vllm, route, streamed)
        assert len(server.requests) == 2
    assert isinstance(error, TransportError)


# ── in the middle of a reply ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("route", ROUTES)
async def test_overload_inside_a_stream_keeps_what_had_come(route: str, way: str) -> None:
    # A response has events of its own before the text; a failing one loses its connection.
    after = 6 if route == "responses" else 3
    reply = Reply.text(TEXT, error_after=after, error={"code": 503})
    async with served(reply, way=way) as (_, vllm):
        error = await failure(vllm, route, streamed=True)
    assert TEXT.startswith(error.partial.text)
    assert error.partial.text
    if route == "responses":
        assert isinstance(error, StreamTruncatedError)
    else:
        assert isinstance(error, StreamFailedError)
        assert (error.status, error.type, error.retryable) == (503, "Service Unavailable", True)
        assert "currently busy" in error.message


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("route", ROUTES)
async def test_an_engine_that_dies_inside_a_stream_keeps_what_had_come(
    route: str, way: str
) -> None:
    async with served(Reply.dead_engine(text="One two"), way=way) as (server, vllm):
        error = await failure(vllm, route, streamed=True)
        assert not server.healthy
    if route == "responses":
        assert isinstance(error, StreamTruncatedError)
    else:
        assert isinstance(error, StreamFailedError)
        assert "engine has died" in error.message
        assert "One two".startswith(error.partial.text)
        assert error.partial.text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("route", ROUTES)
async def test_a_whole_reply_that_fails_in_the_middle_is_its_status(route: str, way: str) -> None:
    reply = Reply.text(TEXT, error_after=2, error={"code": 503})
    async with served(reply, way=way) as (_, vllm):
        error = await failure(vllm, route, streamed=False)
    assert type(error) is ServerOverloadedError


@pytest.mark.parametrize("keep_alive", [None, 0.02])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("route", ROUTES)
async def test_a_slow_first_token_ends_by_its_timeout_comments_or_not(
    route: str, way: str, keep_alive: float | None
) -> None:
    options: dict[str, Any] = {} if keep_alive is None else {"keep_alive": keep_alive}
    reply = Reply.text(TEXT, first_delay=60, **options)
    async with served(reply, way=way, timeout=Timeout(first_token=0.1)) as (server, vllm):
        error = await failure(vllm, route, streamed=True)
        await server.wait_for(lambda: server.running == 0)
        assert server.disconnects == 1
    assert isinstance(error, FirstTokenTimeoutError)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("route", ROUTES)
async def test_a_stall_in_the_middle_ends_by_the_idle_timeout_with_the_partial(
    route: str, way: str
) -> None:
    after = 6 if route == "responses" else 2
    reply = Reply.text(TEXT, stall_after=after)
    async with served(reply, way=way, timeout=Timeout(idle=0.1)) as (server, vllm):
        error = await failure(vllm, route, streamed=True)
        await server.wait_for(lambda: server.running == 0)
        assert server.disconnects == 1
    assert isinstance(error, IdleTimeoutError)
    assert error.partial.text
    assert TEXT.startswith(error.partial.text)


@pytest.mark.parametrize("way", WAYS)
async def test_comments_keep_a_slow_stream_alive(way: str) -> None:
    reply = Reply.text("one two", delay=0.3, first_delay=0, keep_alive=0.05)
    async with served(reply, way=way, timeout=Timeout(idle=0.2)) as (_, vllm):
        assert (await ask_for(vllm, "chat", streamed=True)).text == "one two"


async def test_comments_are_vllms() -> None:
    reply = Reply.text("one", first_delay=0.05, keep_alive=0.02)
    async with Simulator(reply) as server, Socket(server) as client:
        client.send("/v1/chat/completions", chat(stream=True))
        head = await client.head()
        assert head.status == 200
        assert await client.chunk() == b": keep-alive\n\n"


# ── at any byte ──────────────────────────────────────────────────────────────────────────────────


def bytes_to_try(size: int, way: str) -> list[int]:
    """Every place without a socket, some thirty with one."""
    step = 1 if way == "in process" and size < 2500 else max(1, size // 30)
    return list(range(0, size, step))


async def size_of(route: str, streamed: bool) -> int:
    """How many bytes the body of the plain reply has."""
    paths: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
        "chat": ("/v1/chat/completions", chat),
        "completions": ("/v1/completions", lambda: {"prompt": "Hi"}),
        "responses": ("/v1/responses", lambda: {"input": "Hi"}),
    }
    path, body = paths[route]
    async with Simulator(Reply.text(TEXT)) as server:
        return len((await ask(server, path, {**body(), "stream": streamed})).body)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_cut_at_any_byte_is_a_typed_error_or_the_whole_reply(
    route: str, streamed: bool, way: str
) -> None:
    places = bytes_to_try(await size_of(route, streamed), way)
    replies = [Reply.text(TEXT, cut_after=at) for at in places]
    whole = 0
    patient = HTTPOptions(breaker=Breaker(failures=10_000))
    async with served(*replies, way=way, http=patient) as (server, vllm):
        for _ in places:
            said = await outcome(vllm, route, streamed)
            if isinstance(said, VLLMError):
                assert isinstance(said, StreamTruncatedError if streamed else TransportError)
                assert not streamed or TEXT.startswith(said.partial.text)
            else:
                assert streamed
                assert said.text == TEXT
                whole += 1
        assert len(server.requests) == len(places)
    assert whole < len(places)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_body_in_pieces_of_any_size_is_the_same_reply(
    route: str, streamed: bool, way: str
) -> None:
    sizes = [1, 2, 3, 5, 7, 11, 64, 100, 1000]
    replies = [Reply.text(TEXT, split=size) for size in sizes]
    async with served(*replies, way=way) as (_, vllm):
        for _ in sizes:
            assert (await ask_for(vllm, route, streamed)).text == TEXT


# ── settings and mistakes ────────────────────────────────────────────────────────────────────────


async def test_request_ids_come_back_when_the_server_was_started_so() -> None:
    async with Simulator(Reply.error(400), request_id_headers=True) as server:
        given = await ask(server, "/v1/models", x_request_id="mine")
        made = [await ask(server, "/version") for _ in range(2)]
        refused = await ask(server, "/v1/chat/completions", chat(), x_request_id="again")
    assert given.headers["x-request-id"] == "mine"
    assert refused.headers["x-request-id"] == "again"
    ids = {each.headers["x-request-id"] for each in made}
    assert len(ids) == 2
    assert {len(each) for each in ids} == {32}


async def test_load_counts_what_is_being_generated() -> None:
    async with Simulator(Reply.text("a", first_delay=60)) as server, Socket(server) as client:
        assert (await ask(server, "/load")).json == {"server_load": 0}
        client.send("/v1/chat/completions", chat())
        await server.wait_for(lambda: server.running == 1)
        assert (await ask(server, "/load")).json == {"server_load": 1}


def test_mistakes_are_named_at_once() -> None:
    with pytest.raises(UsageError, match="no shape 'xml'"):
        Reply.error(500, shape="xml")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="keep_alive is a number of seconds above 0"):
        Reply.text("a", keep_alive=0)


async def test_a_stall_ends_with_the_block() -> None:
    async with asyncio.timeout(5):
        async with Simulator(Reply.text(TEXT, stall_after=1)) as server, Socket(server) as client:
            client.send("/v1/chat/completions", chat(stream=True))
            await client.head()
            assert await client.chunk()
