"""A server's answers to its profile; every mutation of a document is a profile, too."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk._core.server.profile import (
    after_probe,
    after_refusal,
    with_cards,
    with_openapi,
    with_tokens,
    with_version,
)
from vllm_agent_sdk.errors import BadRequestError, InternalServerError, UnsupportedByServerError
from vllm_agent_sdk.types.profile import Known, ServerProfile
from vllm_agent_sdk.types.server import ModelInfo

RAW = (Path(__file__).parents[2] / "fixtures" / "profile" / "openapi.json").read_bytes()
CHAT = "/v1/chat/completions"
EMPTY = ServerProfile(base_url="http://x/v1", model="m")
pytestmark = pytest.mark.feature("E-10")


def told(document: Any) -> ServerProfile:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return with_openapi(EMPTY, body, None)


def changed(*path: str, to: Any = None) -> Any:
    """The document with one place changed, or taken out."""
    document = json.loads(RAW)
    place = document
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return document


def test_a_recorded_document_tells_what_the_server_can_do() -> None:
    profile = told(RAW)
    assert profile.tasks == Known(("generate",), "openapi")
    assert CHAT in (profile.routes.value or ())
    yes = Known(True, "openapi")
    assert profile.structured_outputs == profile.structural_tags == profile.token_ids == yes
    assert profile.strict_tools == profile.responses == yes
    assert profile.max_stop_strings == Known(4, "openapi")
    assert (profile.dev_mode.value, profile.dev_mode.flag) == (False, "VLLM_SERVER_DEV_MODE=1")
    assert profile.runtime_lora.value is False
    assert profile.auto_tools.value is None
    assert profile.knows_field(CHAT, "structured_outputs") is True
    assert profile.knows_field(CHAT, "guided_json") is False
    assert profile.knows_field("/tokenize", "tools") is True  # one of two alternatives
    assert profile.knows_field("/v1/completions", "suffix") is True
    assert profile.knows_field("/nope", "x") is None


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b"null", b'{"paths":[]}', b'{"paths":null}', RAW[:-1], b"\xff"],
)
def test_what_is_no_such_document_is_unknown_with_a_reason(body: bytes) -> None:
    profile = told(body)
    assert profile.tasks.value is profile.structured_outputs.value is None
    assert "/openapi.json cannot be read" in str(profile.tasks.reason)
    assert "/openapi.json cannot be read" in profile.explain()


def test_a_server_without_the_document_is_unknown_with_a_reason() -> None:
    profile = with_openapi(EMPTY, None, "/openapi.json: There is no route (404).")
    for name in ("routes", "tasks", "structured_outputs", "responses", "dev_mode", "runtime_lora"):
        fact = getattr(profile, name)
        assert (fact.value, fact.source) == (None, "unknown")
        assert "no route" in fact.reason
    assert profile.runtime_lora.flag
    assert with_openapi(EMPTY, None, None).tasks.reason == "the server has no /openapi.json"


def test_a_pooling_server_has_no_chat() -> None:
    profile = told({"paths": {"/v1/embeddings": {"post": {}}, "/rerank": {}, "/score": {}}})
    assert profile.tasks.value == ("embed", "score", "rerank")
    assert profile.structured_outputs.value is None
    assert "does not describe /v1/chat/completions" in str(profile.structured_outputs.reason)
    assert profile.responses.value is False
    assert profile.responses_store == Known(False, "openapi", reason="there is no Responses route")


def test_an_old_server_knows_neither_constraints_nor_tags() -> None:
    document = json.loads(RAW)
    schemas = document["components"]["schemas"]
    del schemas["ChatCompletionRequest"]["properties"]["structured_outputs"]
    del schemas["ChatCompletionRequest"]["properties"]["return_token_ids"]
    del schemas["StructuredOutputsParams"]["properties"]["structural_tag"]
    schemas.pop("StructuralTagResponseFormat", None)
    profile = told(document)
    assert profile.structured_outputs.value is profile.structural_tags.value is False
    assert profile.token_ids.value is False


def test_development_routes_and_loading_adapters_are_seen() -> None:
    document = json.loads(RAW)
    document["paths"].update({"/sleep": {"post": {}}, "/v1/load_lora_adapter": {"post": {}}})
    profile = told(document)
    assert profile.dev_mode.value is profile.runtime_lora.value is True


@pytest.mark.parametrize("stop", [{}, {"anyOf": [{"type": "string"}]}, 7, {"maxItems": "many"}, []])
def test_no_limit_of_stop_strings_is_unknown(stop: Any) -> None:
    path = ("components", "schemas", "ChatCompletionRequest", "properties", "stop")
    assert told(changed(*path, to=stop)).max_stop_strings.value is None
    assert told(changed(*path)).max_stop_strings.value is None


@pytest.mark.parametrize(
    "path",
    [
        ("components",),
        ("components", "schemas"),
        ("components", "schemas", "ChatCompletionRequest"),
        ("components", "schemas", "ChatCompletionRequest", "properties"),
        ("components", "schemas", "StructuredOutputsParams"),
        ("paths", CHAT),
        ("paths", CHAT, "post"),
        ("paths", CHAT, "post", "requestBody"),
        ("paths", CHAT, "post", "requestBody", "content"),
    ],
    ids="/".join,
)
def test_what_is_missing_is_unknown_and_the_rest_is_told(path: tuple[str, ...]) -> None:
    profile = told(changed(*path))
    assert profile.tasks.value == ("generate",)
    assert "/v1/responses" in (profile.routes.value or ())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        found += [each for key, item in value.items() for each in places(item, (*path, key))]
    if isinstance(value, list):
        found += [each for key, item in enumerate(value) for each in places(item, (*path, key))]
    return found


def test_any_place_may_hold_anything() -> None:
    document = json.loads(RAW)
    dice = random.Random(1)
    everywhere = [path for path in places(document) if path]
    for path in dice.sample(everywhere, 400):
        other = copy.deepcopy(document)
        place = other
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = dice.choice([None, 1, "x", [], {}, [{}], {"x": None}, True])
        profile = told(other)
        assert profile.tasks.value == ("generate",) or profile.tasks.reason or path[0] == "paths"
        assert profile.explain()


# ── version, cards, tokens ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("version", "field"),
    [
        ("0.32.0", "reasoning"), ("0.16.0rc1", "reasoning"), ("1.0", "reasoning"),
        ("0.11.0", "reasoning_content"), ("0.9.2+cpu", "reasoning_content"), ("dev", None),
    ],
)  # fmt: skip
def test_the_version_tells_the_name_of_reasoning(version: str, field: str | None) -> None:
    profile = with_version(EMPTY, version, None)
    assert profile.version == Known(version, "version")
    assert profile.reasoning_field.value == field
    assert profile.is_vllm == Known(True, "version")


def test_no_version_has_a_reason() -> None:
    assert with_version(EMPTY, None, "/version: 404").version.reason == "/version: 404"


def test_cards_tell_the_context_and_who_serves() -> None:
    card = ModelInfo("m", owned_by="vllm", max_model_len=4096)
    profile = with_cards(EMPTY, [card], None)
    assert profile.context_length == Known(4096, "card")
    assert profile.is_vllm == Known(True, "card")
    other = with_cards(EMPTY, [ModelInfo("m", owned_by="someone")], None)
    assert (other.is_vllm.value, other.context_length.value) == (False, None)
    assert with_cards(EMPTY, [], "/v1/models: 404").context_length.reason == "/v1/models: 404"


@pytest.mark.parametrize(("counts", "blind"), [((5, 5), True), ((27, 73), False)])
def test_equal_counts_mean_a_blind_template(counts: tuple[int, int], blind: bool) -> None:
    profile = with_tokens(EMPTY, counts, 2048, None)
    assert profile.blind_template == Known(blind, "tokenize")
    assert profile.context_length == Known(2048, "tokenize")
    by_card = EMPTY.with_(context_length=Known(4096, "card"))
    assert with_tokens(by_card, counts, 2048, None).context_length.value == 4096


# ── refusals and probes ──────────────────────────────────────────────────────────────────────────


def lacks(*flags: str) -> UnsupportedByServerError:
    return UnsupportedByServerError("It needs flags. Start it so.", flags=flags, status=400)


@pytest.mark.feature("O-05")
def test_a_refusal_tells_which_flags_are_missing() -> None:
    said = "It needs flags. Start it so."
    auto = after_refusal(EMPTY, ("--enable-auto-tool-choice", "--tool-call-parser"), said)
    assert (auto.auto_tools.value, auto.auto_tools.source) == (False, "refusal")
    assert auto.required_tools.value is None
    assert "auto tools: no (refusal): It needs flags; needs --enable-auto-tool" in auto.explain()
    required = after_refusal(EMPTY, ("--tool-call-parser",), said)
    for fact in (required.auto_tools, required.required_tools, required.named_tools):
        assert (fact.value, fact.source) == (False, "refusal")
    assert after_refusal(EMPTY, ("--other",), said) is EMPTY


def test_probes_tell_yes_no_or_nothing() -> None:
    def probed(what: str, said: Any) -> Known[Any]:
        fact: Known[Any] = getattr(after_probe(EMPTY, what, said), what)
        return fact

    assert probed("required_tools", {"id": "x"}).value is True
    assert probed("required_tools", lacks("--tool-call-parser")).source == "refusal"
    assert probed("required_tools", lacks("--tool-call-parser")).value is False
    failed = probed("required_tools", InternalServerError("boom", status=500))
    assert (failed.value, failed.source, failed.flag) == (
        None,
        "unknown",
        "--tool-call-parser NAME",
    )
    assert "boom" in str(failed.reason)
    blind = BadRequestError("m is not a multimodal model", status=400)
    assert probed("image_input", blind) == Known(False, "refusal", reason=blind.message)
    assert probed("image_input", BadRequestError("bad PNG", status=400)).value is None
    store = BadRequestError("set `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching", status=400)
    assert probed("responses_store", store).value is False
    details = {"usage": {"completion_tokens_details": {"reasoning_tokens": 0}}}
    assert probed("reasoning_parser", details).value is True
    for said in ({"usage": {"completion_tokens_details": None}}, {"usage": {}}, {}):
        assert probed("reasoning_parser", said).value is False
