"""`vllm.server.profile`, `.metrics` and `.load`: asked once, shared, degraded where it must be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM
from vllm_agent_sdk.errors import (
    AuthenticationError,
    ProtocolError,
    TransportError,
    UnsupportedByServerError,
    UsageError,
)
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.transport.base import ByteStream, Request, Transport
from vllm_agent_sdk.types.options import Price
from vllm_agent_sdk.types.profile import Known, ServerProfile

from .support import HI, WEATHER, FixedStream, served

FIXTURES = Path(__file__).parents[1] / "fixtures"
OPENAPI = (FIXTURES / "profile" / "openapi.json").read_bytes()
METRICS = (FIXTURES / "metrics" / "vllm_0_32.txt").read_bytes()


class Also:
    """A simulator's transport with more routes; each is a body (200) or a status."""

    def __init__(self, transport: Transport, routes: dict[str, bytes | int]) -> None:
        self._transport = transport
        self._routes = routes
        self.paths: list[str] = []

    async def send(self, request: Request) -> ByteStream:
        path = "/" + request.url.split("/", 3)[3]
        self.paths.append(path)
        await asyncio.sleep(0)
        said = self._routes.get(path)
        if said is None:
            return await self._transport.send(request)
        stream = FixedStream([said] if isinstance(said, bytes) else [b'{"detail":"Not Found"}'])
        stream.status = said if isinstance(said, int) else 200
        stream.headers = {"content-type": "application/json"}
        return stream

    async def aclose(self) -> None:
        await self._transport.aclose()


def client(server: Simulator, **routes: bytes | int) -> tuple[AsyncVLLM, Also]:
    named = {
        f"/{name.replace('__', '/').replace('_json', '.json')}": v for name, v in routes.items()
    }
    transport = Also(server.transport, named)
    return AsyncVLLM(server.base_url, transport=transport), transport


@pytest.mark.feature("E-10")
async def test_it_is_learnt_once_and_shared() -> None:
    async with Simulator(blind=True) as server:
        vllm, asked = client(server, openapi_json=OPENAPI, metrics=METRICS)
        async with vllm:
            profiles = await asyncio.gather(*(vllm.server.profile() for _ in range(5)))
            assert all(profile is profiles[0] for profile in profiles)
            first = list(asked.paths)
            assert sorted(first) == [
                "/metrics", "/openapi.json", *["/tokenize"] * 9, "/v1/models", "/version",
            ]  # fmt: skip
            assert await vllm.server.profile() is profiles[0]
            assert asked.paths == first
            assert await vllm.server.profile(refresh=True) is not profiles[0]
            assert len(asked.paths) == 2 * len(first)
        profile = profiles[0]
        assert profile.version.value == "0.32.0"
        assert profile.blind_template.value is True
        assert profile.context_length.value == 8192
        assert profile.prefix_caching.value is True
        assert profile.model == "sim-model"
        assert profile.probed is False
        assert not server.chats


@pytest.mark.feature("E-04")
async def test_models_tell_what_is_known_of_them_and_prices_from_a_table_alone() -> None:
    async with Simulator() as server:
        vllm, asked = client(server, openapi_json=OPENAPI, metrics=METRICS)
        async with vllm:
            (card,) = (await vllm.models.list()).data
            assert asked.paths == ["/v1/models"]
            assert card.max_context_length == Known(8192, "card")
            assert (card.supports_tool_calling.value, card.price, card.cost_tier) == (None,) * 3
            await vllm.server.profile()
            price = Price(input=1.0, output=2.0)
            card = await vllm.models.retrieve(
                "sim-model", prices={"sim-model": price}, tiers={"sim-model": "low"}
            )
            assert card.supports_structured_output == Known(True, "openapi")
            assert card.supports_prompt_caching.source == "metrics"
            assert not card.supports_image_output
            assert card.supports_web_search.value is None
            assert (card.price, card.cost_tier) == (price, "low")
            vllm.server.set_profile((await vllm.server.profile()).with_(web_search=True))
            card = await vllm.models.retrieve("sim-model")
            assert (card.supports_web_search.value, card.supports_web_search.source) == (
                True,
                "set by hand",
            )


@pytest.mark.feature("E-10")
@pytest.mark.parametrize(
    ("message", "limit", "known"),
    [
        ("sim-model is not a multimodal model", 0, False),
        ("At most 0 image(s) may be provided in one prompt.", 0, False),
        ("At most 2 image(s) may be provided in one prompt.", 2, None),
    ],
)
async def test_a_refused_image_says_so_and_is_kept(
    message: str, limit: int, known: bool | None
) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    async with Simulator(Reply.error(400, message=message)) as server:
        vllm, _ = client(server, openapi_json=OPENAPI)
        async with vllm:
            with pytest.raises(UnsupportedByServerError) as caught:
                await vllm.chat.completions.create(messages=[{"role": "user", "content": [part]}])
            assert (caught.value.feature, caught.value.limit) == ("image_input", limit)
            assert (await vllm.server.profile()).image_input.value is known


@pytest.mark.feature("E-10")
async def test_an_old_server_gets_what_it_knows_once_it_is_known_to_be_old() -> None:
    chosen = {"choice": ["OK"]}
    async with Simulator(version="0.10.1", check_fields=False) as server:
        vllm = AsyncVLLM(server.base_url, model="sim-model")
        async with vllm:
            await vllm.chat.completions.create(messages=HI, structured_outputs=chosen)
            vllm.server.set_profile(ServerProfile().with_(version="0.10.1"))
            await vllm.chat.completions.create(messages=HI, structured_outputs=chosen)
            first, second = (chat.json for chat in server.chats)
            assert (first["structured_outputs"], "guided_choice" in first) == (chosen, False)
            assert (second["guided_choice"], "structured_outputs" in second) == (["OK"], False)
            with pytest.raises(UnsupportedByServerError, match="return_token_ids"):
                await vllm.chat.completions.create(messages=HI, return_token_ids=True)
            assert len(server.chats) == 2


@pytest.mark.feature("E-10")
async def test_a_learning_that_was_cancelled_is_taken_up_by_the_next() -> None:
    async with Simulator() as server:
        vllm, _ = client(server, openapi_json=OPENAPI)
        async with vllm:
            first = asyncio.ensure_future(vllm.server.profile())
            second = asyncio.ensure_future(vllm.server.profile())
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert (await second).tasks.value == ("generate",)


@pytest.mark.feature("E-10")
async def test_a_proxy_without_those_routes_is_unknown_with_reasons() -> None:
    async with Simulator() as server:
        vllm, _ = client(server, openapi_json=404, version=404, tokenize=404, metrics=404)
        async with vllm:
            profile = await vllm.server.profile()
        for fact in (
            profile.version,
            profile.tasks,
            profile.blind_template,
            profile.prefix_caching,
        ):
            assert fact.value is None
            assert "There is no route" in str(fact.reason)
        assert profile.context_length.value == 8192
        assert profile.is_vllm.value is True
        assert "unknown: /version: There is no route" in profile.explain()


@pytest.mark.feature("E-10")
async def test_what_is_no_json_degrades_too() -> None:
    page = b"<html>"
    async with Simulator() as server:
        vllm, _ = client(server, openapi_json=page, version=page, v1__models=page, metrics=page)
        async with vllm:
            profile = await vllm.server.profile()
        assert profile.model is None
        assert profile.models == ()
        assert profile.blind_template.reason == "no model is chosen"
        assert "cannot be read" in str(profile.tasks.reason)
        assert "cannot be read" in str(profile.prefix_caching.reason)


@pytest.mark.feature("E-10", "O-05")
async def test_probes_tell_which_flags_are_missing() -> None:
    async with Simulator(tool_parser=None) as server:
        vllm, _ = client(server, openapi_json=404)
        async with vllm:
            before = await vllm.server.profile()
            assert before.auto_tools.value is None
            profile = await vllm.server.profile(probe=True)
            asked = len(server.chats)
            assert await vllm.server.profile(probe=True) is profile
            assert len(server.chats) == asked
        for fact in (profile.auto_tools, profile.required_tools, profile.named_tools):
            assert (fact.value, fact.source) == (False, "refusal")
        assert "needs --enable-auto-tool-choice --tool-call-parser" in profile.explain()
        assert all(request.json["max_tokens"] == 1 for request in server.chats)


@pytest.mark.feature("E-10", "O-05")
@pytest.mark.parametrize("before", [True, False])
async def test_a_refused_call_tells_it_without_a_probe(before: bool) -> None:
    async with Simulator(tool_parser=None) as server:
        vllm, _ = client(server, openapi_json=404)
        async with vllm:
            if before:
                assert (await vllm.server.profile()).auto_tools.value is None
            ask = vllm.chat.completions.stream(messages=HI, tools=[WEATHER])
            with pytest.raises(UnsupportedByServerError):
                await ask.final()
            assert (await vllm.server.profile()).auto_tools.source == "refusal"
            anew = await vllm.server.profile(refresh=True)
            assert anew.auto_tools.value is None


@pytest.mark.feature("E-10")
async def test_probes_tell_what_works() -> None:
    async with Simulator(Reply.reasoning("hm", "a")) as server:
        vllm, _ = client(server, openapi_json=404)
        async with vllm:
            profile = await vllm.server.profile(probe=True)
        for fact in (profile.auto_tools, profile.required_tools, profile.reasoning_parser):
            assert (fact.value, fact.source) == (True, "probe")


@pytest.mark.feature("E-10")
async def test_a_profile_set_by_hand_asks_nothing() -> None:
    async with served() as (server, vllm):
        mine = ServerProfile(base_url=vllm.base_url).with_(auto_tools=True)
        vllm.server.set_profile(mine)
        assert await vllm.server.profile() is mine
        with pytest.raises(UsageError, match="A probe needs a model"):
            await vllm.server.profile(probe=True)
    assert not server.requests


async def test_a_server_that_cannot_be_reached_or_wants_a_key_is_an_error() -> None:
    async with AsyncVLLM("http://127.0.0.1:1/v1") as vllm:
        with pytest.raises(TransportError):
            await vllm.server.profile()
    async with Simulator(api_key="k") as server:
        vllm, _ = client(server)
        async with vllm:
            with pytest.raises(AuthenticationError, match="wants a key"):
                await vllm.server.profile()


@pytest.mark.feature("E-08")
async def test_metrics_and_load_are_values() -> None:
    async with Simulator() as server:
        vllm, _ = client(server, load=b'{"server_load":3}')
        async with vllm:
            metrics = await vllm.server.metrics()
            assert (metrics.running, metrics.waiting, metrics.kv_cache_usage) == (0, 0, 0)
            assert metrics.prompt_tokens is None
            assert await vllm.server.load() == 3
    page: dict[str, Any] = {"metrics": b"<html>", "load": 404}
    async with Simulator() as server:
        vllm, _ = client(server, **page)
        async with vllm:
            with pytest.raises(ProtocolError, match="cannot be read"):
                await vllm.server.metrics()
            with pytest.raises(UnsupportedByServerError):
                await vllm.server.load()
