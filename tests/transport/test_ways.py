"""Ways around the direct one: a forward proxy, the environment's proxies, a Unix socket."""

from __future__ import annotations

import base64
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from vllm_agent_sdk import AsyncVLLM, HTTPOptions, RetryPolicy
from vllm_agent_sdk.client.config import resolve
from vllm_agent_sdk.errors import ConnectError, UsageError, VLLMError
from vllm_agent_sdk.testing import Simulator

from .support import Authority, forward_proxy, front

pytestmark = pytest.mark.feature("C-03", "C-13")

PASSWORD = "hunter2/@"
USER = "http://me:hunter2%2F%40@"
BASIC = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
#: A name that only the proxy knows.
PLAIN, SECURE = "http://vllm.example:8000/v1", "https://vllm.example:8443/v1"


def client(url: str, **options: Any) -> AsyncVLLM:
    return AsyncVLLM(
        url,
        model="sim-model",
        retry=RetryPolicy(max_attempts=1),
        http=HTTPOptions(**options),
    )


async def ask(url: str, **options: Any) -> str:
    async with client(url, **options) as vllm:
        reply = await vllm.chat.completions.create(messages=[{"role": "user", "content": "a"}])
        return reply.text


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


async def test_a_proxy_is_asked_for_the_whole_address() -> None:
    async with Simulator() as server, forward_proxy(port_of(server.base_url)) as (proxy, at):
        assert await ask(PLAIN, proxy=f"http://{at}") == "OK"
        assert proxy.lines == [f"POST {PLAIN}/chat/completions HTTP/1.1"]
        assert "proxy-authorization" not in server.chats[0].headers


async def test_tls_goes_through_a_proxy_from_end_to_end(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.server("vllm.example")
    async with Simulator() as server, front(server.base_url, tls=tls) as port:
        async with forward_proxy(port) as (proxy, at):
            assert await ask(SECURE, proxy=f"{USER}{at}", ca=authority.ca) == "OK"
            with pytest.raises(ConnectError, match="cannot be trusted"):
                await ask(SECURE, proxy=f"http://{at}")
            assert proxy.lines == ["CONNECT vllm.example:8443 HTTP/1.1"] * 2
            assert f"Proxy-Authorization: {BASIC}" in proxy.heads[0]
            assert "proxy-authorization" not in server.chats[0].headers


async def test_a_proxys_user_and_password_are_sent_to_it() -> None:
    async with Simulator() as server, forward_proxy(port_of(server.base_url)) as (proxy, at):
        assert await ask(PLAIN, proxy=f"{USER}{at}") == "OK"
        assert f"Proxy-Authorization: {BASIC}" in proxy.heads[0]


async def test_no_error_shows_a_proxys_password(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.server("vllm.example")
    failures: list[VLLMError] = []
    async with Simulator() as server, front(server.base_url, tls=tls) as port:
        async with forward_proxy(port) as (proxy, at):
            for url, address, refuse in (
                (SECURE, at, "407 Proxy Authentication Required"),
                (PLAIN, at, "407 Proxy Authentication Required"),
                (SECURE, at, "503 Busy"),
                (SECURE, at, None),
                (SECURE, "127.0.0.1:9", None),
                (PLAIN, "127.0.0.1:9", None),
                (PLAIN, "no.such.proxy.invalid:1", None),
            ):
                proxy.refuse = refuse
                with pytest.raises(VLLMError) as caught:
                    await ask(url, proxy=f"{USER}{address}")
                failures.append(caught.value)
    hidden = (PASSWORD, "hunter2", BASIC.removeprefix("Basic "))
    for error in failures:
        each: BaseException | None = error
        shown = "".join(traceback.format_exception(error))
        while each is not None:
            shown += f"{each}{each!r}{each.args!r}{vars(each)!r}"
            each = each.__cause__
        assert not any(secret in shown for secret in hidden)
    messages = [error.message for error in failures]
    assert "by the proxy http://127.0.0.1" in messages[0]
    assert "the proxy answered 407" in messages[0]
    assert [error.retryable for error in failures[:4]] == [False, False, True, False]
    assert "HTTPOptions(proxy=…)" in messages[-1]


def test_options_show_no_password() -> None:
    options = HTTPOptions(proxy=f"{USER}proxy.example:3128")
    shown = f"{options!r}{options}{options.__rich_repr__()!r}"
    assert "hunter2" not in shown
    assert "proxy='http://***@proxy.example:3128'" in shown
    assert repr(HTTPOptions(proxy="http://p:1")).count("proxy='http://p:1'") == 1


@pytest.mark.parametrize(
    "proxy", ["proxy:3128", "socks5://me:hunter2@h:1", "http://", "http://h:x", "http://[", 7]
)
def test_what_is_no_proxy_is_refused(proxy: Any) -> None:
    with pytest.raises(UsageError, match=r"HTTPOptions\(proxy=…\)") as caught:
        HTTPOptions(proxy=proxy)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


# ── the environment ──────────────────────────────────────────────────────────────────────────────


async def test_the_environments_proxy_is_used_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Simulator() as server, forward_proxy(port_of(server.base_url)) as (proxy, at):
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("http_proxy", f"{USER}{at}")
        assert await ask(server.base_url) == "OK"
        assert proxy.lines == []
        assert await ask(PLAIN, trust_env=True) == "OK"
        assert f"Proxy-Authorization: {BASIC}" in proxy.heads[0]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await ask(server.base_url, trust_env=True) == "OK"
        assert len(proxy.lines) == 1


@pytest.mark.parametrize(
    ("env", "url", "proxy"),
    [
        ({"HTTP_PROXY": "http://p:1"}, "http://h/v1", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "http_proxy": "http://q:1"}, "http://h/v1", "http://q:1"),
        ({"HTTP_PROXY": "http://p:1"}, "https://h/v1", None),
        ({"https_proxy": "p:1"}, "https://h/v1", "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, "https://h/v1", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "https_proxy": "http://q"}, "https://h/v1", "http://q"),
        ({"http_proxy": "http://p", "no_proxy": "x, h"}, "http://h/v1", None),
        ({"http_proxy": "http://p", "no_proxy": ".b.c"}, "http://A.b.c/v1", None),
        ({"http_proxy": "http://p", "no_proxy": "b.c"}, "http://ab.c/v1", "http://p"),
        ({"http_proxy": "http://p", "NO_PROXY": "h:80"}, "http://h:80/v1", None),
        ({"http_proxy": "http://p", "NO_PROXY": "h:80"}, "http://h:81/v1", "http://p"),
        ({"http_proxy": "http://p", "no_proxy": "*"}, "http://h/v1", None),
        ({"http_proxy": "http://p", "no_proxy": ","}, "http://h/v1", "http://p"),
        ({"HTTP_PROXY": "http://p", "REQUEST_METHOD": "GET"}, "http://h/v1", None),
        ({"http_proxy": " "}, "http://h/v1", None),
    ],
)
def test_which_proxy_the_environment_names(
    env: dict[str, str], url: str, proxy: str | None
) -> None:
    config = resolve(env=env, base_url=url, http=HTTPOptions(trust_env=True))
    assert config.proxy_for(url) == proxy
    assert resolve(env=env, base_url=url).proxy_for(url) is None
    mine = HTTPOptions(trust_env=True, proxy="http://mine:1")
    assert resolve(env=env, base_url=url, http=mine).proxy_for(url) == "http://mine:1"


def test_a_variable_that_is_no_proxy_is_named_without_its_value() -> None:
    env = {"HTTPS_PROXY": "socks5://me:hunter2@h:1"}
    with pytest.raises(UsageError, match="HTTPS_PROXY is no address") as caught:
        resolve(env=env, http=HTTPOptions(trust_env=True))
    assert "hunter2" not in caught.value.message


# ── a Unix socket ────────────────────────────────────────────────────────────────────────────────


async def test_a_unix_socket_leads_to_the_server(tmp_path: Path) -> None:
    path = tmp_path / "vllm.sock"
    async with Simulator() as server, front(server.base_url, path=path):
        assert await ask("http://vllm/v1", unix_socket=path) == "OK"
        assert server.chats[0].headers["host"] == "vllm"


async def test_a_socket_without_a_server_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    with pytest.raises(ConnectError, match=r"Unix socket '.*none\.sock'.*No such file"):
        await ask("http://vllm/v1", unix_socket=str(path))


@pytest.mark.parametrize(
    "options",
    [
        {"proxy": "http://p:1"},
        {"trust_env": True},
        {"ca": __file__},
        {"client_cert": __file__},
        {"verify": False},
    ],
)
def test_there_is_no_proxy_and_no_tls_on_a_unix_socket(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="on a Unix socket"):
        HTTPOptions(unix_socket="/tmp/x.sock", **options)


@pytest.mark.parametrize("options", [{}, {"root_url": "https://h"}])
def test_an_https_address_has_no_unix_socket(options: dict[str, Any]) -> None:
    url = "http://h" if options else "https://h"
    with pytest.raises(UsageError, match="write the address with http://"):
        client(url, unix_socket="/tmp/x.sock", **options)
