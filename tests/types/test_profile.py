"""Profiles as values: set by hand, told in words, and what a model can do by them."""

from __future__ import annotations

import pytest

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.profile import Known, ServerProfile, model_info
from vllm_agent_sdk.types.server import ModelInfo

BASE = ModelInfo("m", owned_by="vllm", max_model_len=4096)
LORA = ModelInfo("a", parent="m")


@pytest.mark.feature("E-10")
def test_a_fact_set_by_hand_says_so_and_keeps_its_flag() -> None:
    profile = ServerProfile().with_(auto_tools=False, version="0.32.0", model="m")
    assert (profile.auto_tools.value, profile.auto_tools.source) == (False, "set by hand")
    assert profile.auto_tools.flag == ServerProfile().auto_tools.flag
    assert profile.version == Known("0.32.0", "set by hand")
    assert profile.model == "m"
    assert profile.with_(responses=Known(True, "openapi")).responses.source == "openapi"
    with pytest.raises(UsageError, match="no fact 'tools'"):
        profile.with_(tools=True)


@pytest.mark.feature("E-10", "O-05")
def test_what_is_known_is_told_with_source_and_flag() -> None:
    profile = ServerProfile(base_url="http://x/v1", models=(BASE,)).with_(
        model="m", auto_tools=False, token_ids=True, context_length=8, tasks=("generate", "score")
    )
    told = profile.explain().splitlines()
    assert told[0] == "http://x/v1, model m"
    auto = "auto tools: no (set by hand); needs --enable-auto-tool-choice --tool-call-parser NAME"
    assert f"  {auto}" in told
    assert "  token ids: yes (set by hand)" in told
    assert "  context length: 8 (set by hand)" in told
    assert "  tasks: generate, score (set by hand)" in told
    assert "  models: m" in told
    assert "  responses store: unknown; needs VLLM_ENABLE_RESPONSES_API_STORE=1" in told
    assert "probe=True" in told[-1]
    assert "probe=True" not in profile.with_(probed=True).explain()
    assert "no route" in profile.with_(routes=Known(reason="no route")).explain()


@pytest.mark.feature("E-04")
def test_a_models_facts_come_from_its_card_and_the_profile() -> None:
    profile = ServerProfile(models=(BASE, LORA)).with_(
        auto_tools=Known(True, "probe"),
        structured_outputs=Known(True, "openapi"),
        image_output=Known(False, "openapi"),
    )
    facts = model_info(BASE, profile)
    assert facts.max_context_length == Known(4096, "card")
    assert facts.supports_tool_calling == Known(True, "probe")
    assert facts.supports_structured_output == Known(True, "openapi")
    assert facts.supports_image_output == Known(False, "openapi")
    unknown = (facts.supports_reasoning, facts.supports_image_input, facts.supports_web_search)
    assert all((fact.value, fact.source) == (None, "unknown") for fact in unknown)
    assert facts.supports_prompt_caching.value is None
    adapter = model_info(LORA, profile)
    assert (adapter.parent, adapter.max_context_length.value) == ("m", 4096)
    lost = model_info(LORA, ServerProfile().with_(context_length=7))
    assert lost.max_context_length == Known(7, "set by hand")
    assert lost.supports_image_output.value is None
