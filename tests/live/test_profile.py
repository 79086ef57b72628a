"""What real servers tell of themselves: their profile, their metrics."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator

import pytest

from vllm_agent_sdk import AsyncVLLM, ModelNotFoundError, TextDelta, UnsupportedByServerError
from vllm_agent_sdk.types.profile import model_info

from .servers import LiveServer

pytestmark = pytest.mark.live


@pytest.fixture
async def vllm(server: LiveServer) -> AsyncIterator[AsyncVLLM]:
    async with AsyncVLLM(server.base_url, api_key=server.api_key) as client:
        yield client


@pytest.mark.server("A")
@pytest.mark.feature("E-10", "E-04")
async def test_the_full_server_tells_what_it_can_do(vllm: AsyncVLLM) -> None:
    profile = await vllm.server.profile()
    assert re.match(r"\d+\.\d+", profile.version.value or "")
    assert profile.is_vllm.value is True
    assert "generate" in (profile.tasks.value or ())
    assert (profile.context_length.value, profile.context_length.source) == (4096, "card")
    assert (profile.blind_template.value, profile.blind_template.source) == (True, "tokenize")
    assert profile.structured_outputs.value is profile.structural_tags.value is True
    assert profile.dev_mode.value is profile.runtime_lora.value is profile.responses.value is True
    assert profile.max_stop_strings.value == 4
    assert profile.knows_field("/v1/chat/completions", "structured_outputs") is True
    assert profile.required_tools.value is None

    probed = await vllm.server.profile(probe=True)
    for fact in (probed.auto_tools, probed.required_tools, probed.named_tools):
        assert (fact.value, fact.source) == (True, "probe")
    assert probed.strict_tools.value is True
    assert probed.responses_store.value is True
    assert probed.reasoning_parser.value is False
    assert (probed.image_input.value, probed.image_input.source) == (False, "refusal")
    assert probed.version is profile.version  # what was known was not asked again

    assert (probed.system_role.value, probed.strict_roles.value) == (True, False)
    card = await vllm.models.retrieve(probed.model or "")
    assert card.facts == (facts := model_info(card, probed))
    assert facts.max_context_length.value == 4096
    assert facts.supports_tool_calling.value is True
    assert facts.supports_structured_output.source == "openapi"
    assert facts.supports_image_input.value is False
    assert facts.supports_prompt_caching.source == "metrics"
    assert facts.supports_web_search.value is None


@pytest.mark.server("A")
@pytest.mark.feature("E-04")
async def test_an_unknown_model_is_an_error_with_the_known_ids(vllm: AsyncVLLM) -> None:
    models = await vllm.models.list()
    assert models.raw
    with pytest.raises(ModelNotFoundError) as caught:
        await vllm.models.retrieve("no-such-model")
    assert caught.value.known == tuple(card.id for card in models.data)


@pytest.mark.server("A")
@pytest.mark.feature("E-10")
async def test_a_refused_image_is_unsupported_with_its_limit(vllm: AsyncVLLM) -> None:
    url = "data:image/png;base64,iVBORw0KGgo="
    content = [{"type": "image_url", "image_url": {"url": url}}]
    with pytest.raises(UnsupportedByServerError) as caught:
        await vllm.chat.completions.create(messages=[{"role": "user", "content": content}])
    assert (caught.value.feature, caught.value.limit) == ("image_input", 0)


@pytest.mark.server("A")
@pytest.mark.feature("C-08")
async def test_a_pool_goes_past_a_server_that_is_not_there(server: LiveServer) -> None:
    with socket.socket() as held:  # bound and not listening: nobody can be there
        held.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{held.getsockname()[1]}"
        urls = [gone, server.base_url]
        async with AsyncVLLM(urls, api_key=server.api_key) as pool:
            for _ in range(2):
                hi = [{"role": "user", "content": "Hi"}]
                reply = await pool.chat.completions.stream(messages=hi, max_tokens=2).final()
                assert reply.usage is not None


@pytest.mark.server("B")
@pytest.mark.feature("E-10", "O-05")
async def test_the_bare_server_names_its_missing_flags(vllm: AsyncVLLM) -> None:
    profile = await vllm.server.profile(probe=True)
    assert (profile.auto_tools.value, profile.auto_tools.source) == (False, "refusal")
    assert (profile.required_tools.value, profile.named_tools.value) == (False, False)
    assert profile.reasoning_parser.value is True
    assert profile.dev_mode.value is profile.responses_store.value is False
    assert profile.blind_template.value is True
    told = profile.explain()
    assert "--enable-auto-tool-choice" in told
    assert "--tool-call-parser" in told
    assert "VLLM_ENABLE_RESPONSES_API_STORE=1" in told


@pytest.mark.server("A")
@pytest.mark.feature("E-08")
async def test_metrics_follow_what_the_server_does(vllm: AsyncVLLM) -> None:
    before = await vllm.server.metrics()
    hi = [{"role": "user", "content": "Say hello."}]
    stream = vllm.chat.completions.stream(messages=hi, max_tokens=2000, ignore_eos=True)
    async with stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
        busy = await vllm.server.metrics()
        assert busy.running is not None
        assert busy.running >= 1
    await vllm.chat.completions.create(messages=hi, max_tokens=4, ignore_eos=True)
    after = await vllm.server.metrics()
    assert after.prompt_tokens is not None
    assert before.prompt_tokens is not None
    assert after.prompt_tokens > before.prompt_tokens
    assert after.time_to_first_token is not None
    assert after.time_to_first_token.count >= 2
    assert after.sleep_state == "awake"
    assert after.kv_cache_usage is not None
    assert 0 <= after.kv_cache_usage <= 1
    assert await vllm.server.load() == 0  # it is not tracked without a flag
