"""The key is sent to the server and shown nowhere."""

from __future__ import annotations

import asyncio
import base64
import copy
import gc
import logging
import pickle
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from vllm_agent_sdk import AsyncVLLM, HTTPOptions, Timeout
from vllm_agent_sdk.client.config import Config
from vllm_agent_sdk.errors import ProtocolError, UsageError, VLLMError
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.transport.base import Request
from vllm_agent_sdk.transport.pipeline import Call

from .support import HI, WAYS, FixedTransport, served

pytestmark = pytest.mark.feature("C-11")

KEY = "sk-hunter2-0123456789"
HEADERS = {"authorization": f"Bearer {KEY}"}
SETTINGS: list[dict[str, Any]] = [
    {"api_key": KEY},
    {"headers": {"Authorization": f"Bearer {KEY}"}},
]


def shown(value: object) -> str:
    """Everything that showing a value shows: its texts, its attributes, its pickle."""
    texts = [repr(value), str(value), f"{value}", f"{value!a}"]
    if hasattr(value, "__rich_repr__"):
        texts.append(repr(list(value.__rich_repr__())))
    for each in attributes(value):
        texts += [repr(each), str(each)]
    try:
        texts.append(repr(pickle.dumps(value)))
    except Exception as error:  # noqa: BLE001 - that it can't be pickled is fine
        texts.append(repr(error))
    return "\n".join(texts)


def attributes(value: object, depth: int = 4, seen: set[int] | None = None) -> Iterator[object]:
    """What can be reached from a value by `vars`, slots and containers of our own."""
    seen = set() if seen is None else seen
    if depth == 0 or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        found = list(value.values())
    elif isinstance(value, (list, tuple, set)):
        found = list(value)
    elif type(value).__module__.startswith("vllm_agent_sdk.testing"):
        found = []  # the server's side knows its key
    elif type(value).__module__.startswith("vllm_agent_sdk"):
        found = list(getattr(value, "__dict__", {}).values())
        slots = [slot for kind in type(value).__mro__ for slot in getattr(kind, "__slots__", ())]
        if not isinstance(value, msgspec.Struct):
            found += [getattr(value, slot) for slot in slots if hasattr(value, slot)]
    else:
        found = []
    for each in found:
        yield each
        yield from attributes(each, depth - 1, seen)


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes and its contexts."""
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is not None and each not in seen:
            seen.append(each)
            todo += [each.__cause__, each.__context__]
    yield from seen


def check_hidden(error: BaseException) -> None:
    for each in chain(error):
        assert KEY not in shown(each)
        assert KEY not in repr(vars(each))
        assert KEY not in repr(each.args)
    assert KEY not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("settings", SETTINGS, ids=["api_key", "headers"])
@pytest.mark.parametrize("way", WAYS)
async def test_neither_the_client_nor_what_hangs_on_it_shows_the_key(
    settings: dict[str, Any], way: str
) -> None:
    async with served(way=way, api_key=KEY, client=settings) as (_, vllm):
        assert (await vllm.chat.completions.create(messages=HI)).text == "OK"
        async with vllm.chat.completions.stream(messages=HI) as stream:
            await anext(stream)
            for each in (vllm, vllm.chat.completions, vllm.models, stream, stream.partial):
                assert KEY not in shown(each)
                assert KEY not in repr(getattr(each, "__dict__", {}))


def test_the_client_has_no_key_to_read() -> None:
    vllm = AsyncVLLM("http://x", api_key=KEY)
    assert not hasattr(vllm, "api_key")
    assert KEY not in repr([getattr(vllm, name) for name in dir(vllm)])


@pytest.mark.parametrize(
    "value",
    [
        Config("http://x/v1", KEY, None, Timeout(), HTTPOptions()),
        Request(method="POST", url="http://x", headers=HEADERS, body=b"{}"),
        Call(url="http://x", headers=HEADERS, timeout=Timeout(), has_key=True),
    ],
    ids=["Config", "Request", "Call"],
)
def test_what_holds_the_key_does_not_show_it(value: object) -> None:
    assert KEY not in shown(value)
    assert KEY not in shown([value])
    assert KEY not in shown({"value": value})
    with pytest.raises(Exception, match=r"(?i)pickle"):
        pickle.dumps(value)


def test_a_request_can_still_be_copied() -> None:
    request = Request(method="POST", url="http://x", headers=HEADERS)
    assert copy.copy(request) == request
    assert msgspec.structs.replace(request, body=b"1").headers == HEADERS


# ── errors ───────────────────────────────────────────────────────────────────────────────────────

ECHO = f"Incorrect API key provided: {KEY}".encode()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "reply",
    [
        Reply.error(401),
        Reply.error(401, body=ECHO),
        Reply.error(400, message=ECHO.decode()),
        Reply.error(500, body=ECHO),
        Reply.text("a", cut_after=-1),
        Reply.text("a", cut_after=10),
        Reply.text("a", error_after=1),
    ],
)
async def test_no_error_shows_the_key(reply: Reply, stream: bool, way: str) -> None:
    async with served(reply, way=way, client={"api_key": KEY}) as (_, vllm):
        with pytest.raises(VLLMError) as caught:
            await ask(vllm, stream)
    check_hidden(caught.value)


async def ask(vllm: AsyncVLLM, stream: bool) -> None:
    if stream:
        await vllm.chat.completions.stream(messages=HI).final()
    else:
        await vllm.chat.completions.create(messages=HI)


async def test_a_reply_that_is_no_stream_and_repeats_the_key_does_not_show_it() -> None:
    reply = Reply.raw(ECHO, content_type="text/html")
    async with served(reply, client={"api_key": KEY}) as (_, vllm):
        with pytest.raises(ProtocolError, match=r"provided: \*\*\*") as caught:
            await ask(vllm, True)
    check_hidden(caught.value)


BASIC = base64.b64encode(f"user:{KEY}".encode()).decode()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "reply",
    [
        Reply.raw(ECHO, content_type="application/json"),
        Reply.raw(b'{"choices": "' + ECHO + b'"}', content_type="application/json"),
        Reply.raw(b'{"choices": "' + b"x" * 160 + ECHO + b'"}', content_type="application/json"),
        Reply.raw(b"\xff\xfe" + ECHO, content_type="application/json"),
        Reply.raw(b'data: {"error": {"message": "' + ECHO + b'", "code": 400}}\n\n'),
        Reply.raw(b'data: {"error": {"message": "' + BASIC.encode() + b'", "code": 503}}\n\n'),
        Reply.raw(b"data: " + ECHO + b"\n\n"),
        Reply.error(307, headers={"location": f"http://x/?key={KEY}"}),
        Reply.error(503, message=quote(KEY), headers={"retry-after": KEY}),
        Reply.error(500, message=BASIC),
    ],
    ids=[
        "no JSON", "another shape", "cut in the key", "no text", "error frame", "base64 in a frame",
        "an event that is none", "location", "percent", "base64",
    ],
)  # fmt: skip
async def test_wherever_a_server_repeats_the_key_it_is_hidden(reply: Reply, stream: bool) -> None:
    async with served(reply, client={"api_key": KEY}) as (_, vllm):
        with pytest.raises(VLLMError) as caught:
            await ask(vllm, stream)
    check_hidden(caught.value)
    assert BASIC not in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "head",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 999999 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
        b"",
    ],
    ids=["garbage", "status", "long header", "nothing"],
)
async def test_what_is_not_http_is_a_typed_error_without_the_key(head: bytes, stream: bool) -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AsyncVLLM(f"http://127.0.0.1:{port}", model="m", api_key=KEY) as vllm:
        with pytest.raises(VLLMError) as caught:
            await ask(vllm, stream)
    assert not isinstance(caught.value, UsageError)
    check_hidden(caught.value)


async def test_no_connection_shows_no_key() -> None:
    async with Simulator() as server:
        url = server.base_url
    async with AsyncVLLM(url, model="m", api_key=KEY) as vllm:
        with pytest.raises(VLLMError) as caught:
            await ask(vllm, False)
    check_hidden(caught.value)


async def test_a_header_that_cannot_be_sent_is_not_shown() -> None:
    async with AsyncVLLM("http://x", model="m", transport=FixedTransport()) as vllm:
        with pytest.raises(UsageError, match="'authorization' holds a line break") as caught:
            await vllm.chat.completions.create(
                messages=HI, extra_headers={"Authorization": f"Bearer {KEY}\n"}
            )
    check_hidden(caught.value)


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
async def test_no_log_shows_the_key(caplog: pytest.LogCaptureFixture, stream: bool) -> None:
    caplog.set_level(logging.DEBUG)
    replies = [Reply.text("a"), Reply.error(500), Reply.text("a", cut_after=5)]
    async with served(*replies, way="socket", client={"api_key": KEY}) as (server, vllm):
        await ask(vllm, stream)
        for _ in range(2):
            with pytest.raises(VLLMError):
                await ask(vllm, stream)
        assert all(each.headers["authorization"] == f"Bearer {KEY}" for each in server.requests)
    gc.collect()
    assert KEY not in caplog.text
    assert KEY not in repr([vars(record) for record in caplog.records])
