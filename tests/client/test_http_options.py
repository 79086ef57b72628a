"""Every field of `HTTPOptions` has an effect that a test shows."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from vllm_agent_sdk import AsyncVLLM, Breaker, RetryPolicy, Timeout
from vllm_agent_sdk.errors import (
    CircuitOpenError,
    ServerOverloadedError,
    TransportError,
    UsageError,
)
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.types.options import HTTPOptions

from .support import HI, served

pytestmark = pytest.mark.feature("C-13")

TESTS = Path(__file__).parents[1]
#: Field: file of tests, and the test that shows its effect.
EFFECTS = {
    "max_connections": (
        "client/test_http_options.py",
        "test_no_more_connections_are_open_than_allowed",
    ),
    "max_connections_per_server": (
        "client/test_http_options.py",
        "test_each_server_has_its_own_limit_of_connections",
    ),
    "keepalive_s": ("client/test_life.py", "test_an_idle_connection_goes_after_its_seconds"),
    "verify": ("transport/test_tls.py", "test_the_check_is_off_only_by_verify_false"),
    "ca": ("transport/test_tls.py", "test_an_authority_of_ones_own_is_trusted"),
    "client_cert": (
        "transport/test_tls.py",
        "test_a_server_that_demands_a_certificate_gets_it",
    ),
    "proxy": ("transport/test_ways.py", "test_a_proxy_is_asked_for_the_whole_address"),
    "trust_env": (
        "transport/test_ways.py",
        "test_the_environments_proxy_is_used_only_when_asked_for",
    ),
    "unix_socket": ("transport/test_ways.py", "test_a_unix_socket_leads_to_the_server"),
    "root_url": ("client/test_http_options.py", "test_routes_outside_v1_go_to_the_root_url"),
    "max_request_bytes": (
        "client/test_resilience.py",
        "test_a_body_over_the_limit_is_refused_before_it_is_sent",
    ),
    "max_response_bytes": (
        "client/test_servers.py",
        "test_a_reply_over_the_limit_is_refused",
    ),
    "max_concurrency": (
        "client/test_resilience.py",
        "test_no_more_calls_are_under_way_than_allowed_streams_included",
    ),
    "requests_per_s": (
        "client/test_resilience.py",
        "test_requests_go_out_no_faster_than_the_rate",
    ),
    "tokens_per_min": (
        "client/test_resilience.py",
        "test_tokens_a_minute_hold_a_call_back_and_what_was_not_used_is_given_back",
    ),
    "balance": ("client/test_pool.py", "test_each_server_has_its_turn"),
    "breaker": ("client/test_http_options.py", "test_the_breaker_can_be_switched_off"),
}


def test_every_field_has_a_test_of_its_effect() -> None:
    assert set(EFFECTS) == set(HTTPOptions.__struct_fields__)
    for field, (file, name) in EFFECTS.items():
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        found = [
            ast.unparse(node)
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name
        ]
        assert found, f"{field}: there is no {name} in {file}"
        assert f"{field}=" in found[0], f"{field}: {name} does not set it"


def test_what_is_not_given_is_the_documented_default() -> None:
    page = (TESTS.parent / "docs" / "http.md").read_text(encoding="utf-8")
    for name in HTTPOptions.__struct_fields__:
        default = getattr(HTTPOptions(), name)
        shown = (
            "Breaker()"
            if name == "breaker"
            else f"{default:g}"
            if name == "keepalive_s"
            else (str(default))
        )
        assert f"| `{name}` | `{shown}` |" in page


# ── connections ──────────────────────────────────────────────────────────────────────────────────


async def test_no_more_connections_are_open_than_allowed() -> None:
    settings: dict[str, Any] = {
        "http": HTTPOptions(max_connections=1),
        # Waiting for a free connection is not connecting: this limit is not for it.
        "timeout": Timeout(connect=0.1),
    }
    most = 0

    async def watched(_: Any) -> Reply:
        nonlocal most
        most = max(most, server.running)
        return Reply.text("ok", first_delay=0.1)

    async with served(watched, way="socket", client=settings) as (server, vllm):
        calls = [vllm.chat.completions.create(messages=HI) for _ in range(4)]
        replies = await asyncio.gather(*calls)
        assert [reply.text for reply in replies] == ["ok"] * 4
        assert most == 1
        assert len(server._http._connections) == 1


async def test_waiting_for_a_connection_counts_for_the_total_time() -> None:
    settings = {"http": HTTPOptions(max_connections=1)}
    async with served(Reply.text("a", first_delay=10), way="socket", client=settings) as (_, vllm):
        async with vllm.chat.completions.stream(messages=HI):
            with pytest.raises(TimeoutError):
                await vllm.chat.completions.create(messages=HI, timeout=0.1)


async def test_each_server_has_its_own_limit_of_connections() -> None:
    slow = Reply.text("a", first_delay=60)
    async with Simulator(slow) as one, Simulator() as other:
        root = other.base_url.removesuffix("/v1")
        http = HTTPOptions(max_connections_per_server=1, root_url=root)
        async with AsyncVLLM(one.base_url, model="sim-model", http=http) as vllm:
            async with vllm.chat.completions.stream(messages=HI):
                assert await vllm.server.health() is True
                with pytest.raises(TimeoutError):
                    await vllm.chat.completions.create(messages=HI, timeout=0.1)
                assert len(one.chats) == 1


async def test_a_connection_that_was_closed_meanwhile_is_asked_again_by_the_policy_alone() -> None:
    seen = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        body = b'{"object": "list", "data": []}'
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        await reader.readuntil(b"\r\n\r\n")
        seen += 1
        writer.write(head + body)
        await reader.readuntil(b"\r\n\r\n")  # the next request finds a closed connection
        seen += 1
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        async with AsyncVLLM(url, retry=RetryPolicy(max_attempts=1)) as once:
            await once.models.list()
            with pytest.raises(TransportError) as caught:
                await once.models.list()
            assert (seen, caught.value.attempts) == (2, 1)
        async with AsyncVLLM(url, retry=RetryPolicy(base_s=0.001)) as again:
            await again.models.list()
            await again.models.list()
            assert seen == 5


# ── other fields ─────────────────────────────────────────────────────────────────────────────────


async def test_routes_outside_v1_go_to_the_root_url() -> None:
    async with Simulator() as one, Simulator() as other:
        root = other.base_url.replace("/v1", "")
        async with AsyncVLLM(one.base_url, http=HTTPOptions(root_url=f"{root}/")) as vllm:
            await vllm.models.list()
            assert await vllm.server.health() is True
        assert [request.path for request in one.requests] == ["/v1/models"]
        assert [request.path for request in other.requests] == ["/health"]


async def test_the_breaker_can_be_switched_off() -> None:
    for http, expected in (
        (HTTPOptions(breaker=None), ServerOverloadedError),
        (HTTPOptions(breaker=Breaker(failures=1)), CircuitOpenError),
    ):
        async with served(Reply.error(503), client={"http": http}) as (_, vllm):
            with pytest.raises(ServerOverloadedError):
                await vllm.chat.completions.create(messages=HI)
            with pytest.raises(expected):
                await vllm.chat.completions.create(messages=HI)


@pytest.mark.parametrize("name", ["max_connections", "max_connections_per_server"])
def test_limits_below_one_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        HTTPOptions(**{name: 0})


def test_options_are_compared_by_value_and_can_be_sent_to_another_process() -> None:
    import pickle

    options = HTTPOptions(proxy="http://p:1", max_connections=3)
    assert pickle.loads(pickle.dumps(options)) == options
    assert hash(options) == hash(HTTPOptions(proxy="http://p:1", max_connections=3))
    assert urlsplit(options.proxy or "").port == 1
