"""What a server has told to its profile: pure, so that every mutation of a document can be tried.

Nothing here fails for what a server says: what cannot be read is unknown, with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from vllm_agent_sdk._core.dialect.model_family import call_format_of
from vllm_agent_sdk.errors import ProtocolError, UnsupportedByServerError, VLLMError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.profile import (
    DEV_FLAG,
    LORA_FLAG,
    PARSER_FLAG,
    STORE_FLAG,
    TOOL_FLAGS,
    Known,
    OpenAPI,
    ServerProfile,
    decode_openapi,
    decode_reference,
    decode_request_body,
)
from vllm_agent_sdk.types.server import ModelInfo

__all__ = [
    "THINKING_SWITCHES",
    "after_media",
    "after_probe",
    "after_refusal",
    "with_cards",
    "with_openapi",
    "with_roles",
    "with_thinking",
    "with_tokens",
    "with_version",
]

#: Variables of chat templates that switch thinking: Qwen's and GLM's, DeepSeek's and Granite's.
THINKING_SWITCHES = ("enable_thinking", "thinking")
_CHAT = "/v1/chat/completions"
_TASKS = {
    "generate": (_CHAT, "/v1/completions"),
    "embed": ("/v1/embeddings",),
    "score": ("/score", "/v1/score"),
    "rerank": ("/rerank", "/v1/rerank"),
    "classify": ("/classify",),
    "pooling": ("/pooling",),
    "transcribe": ("/v1/audio/transcriptions",),
}
_MULTIMODAL = re.compile(
    r"is not a multimodal model|At most 0 |does not support (?:image|audio|video)"
)


def with_version(profile: ServerProfile, version: str | None, why: str | None) -> ServerProfile:
    """Add what `/version` said, or why it said nothing."""
    if not version:
        return profile.with_(version=Known(reason=why))
    profile = profile.with_(version=Known(version, "version"))
    if profile.is_vllm.value is None:
        profile = profile.with_(is_vllm=Known(True, "version"))
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is not None:
        field = "reasoning" if (int(found[1]), int(found[2])) >= (0, 16) else "reasoning_content"
        profile = profile.with_(reasoning_field=Known(field, "version"))
    return profile


def with_cards(
    profile: ServerProfile, cards: Iterable[ModelInfo], why: str | None
) -> ServerProfile:
    """Add what `/v1/models` said."""
    profile = profile.with_(models=tuple(cards))
    if why is not None:
        return profile.with_(context_length=Known(reason=why))
    names = [profile.model, *(card.root for card in profile.models if card.id == profile.model)]
    if (form := call_format_of(name for name in names if name)) is not None:
        profile = profile.with_(call_format=Known(form, "card"))
    by_vllm = any(card.owned_by == "vllm" for card in profile.models)
    if by_vllm or (profile.is_vllm.value is None and profile.models):
        profile = profile.with_(is_vllm=Known(by_vllm, "card"))
    for card in profile.models:
        if card.id == profile.model and card.max_model_len is not None:
            profile = profile.with_(context_length=Known(card.max_model_len, "card"))
    return profile


def with_openapi(profile: ServerProfile, body: bytes | None, why: str | None) -> ServerProfile:
    """Add what `/openapi.json` said; `body` is `None` where there is none, for the reason `why`."""
    if body is not None:
        try:
            return _with_document(profile, decode_openapi(body))
        except ProtocolError as error:
            why = f"/openapi.json cannot be read: {error.message[:120]}"
    unknown: Known[Any] = Known(reason=why or "the server has no /openapi.json")
    names = (
        "routes", "tasks", "fields", "structured_outputs", "structural_tags", "responses",
        "token_ids", "strict_tools", "max_stop_strings",
    )  # fmt: skip
    facts: dict[str, Any] = dict.fromkeys(names, unknown)
    facts["dev_mode"] = Known(flag=DEV_FLAG, reason=unknown.reason)
    facts["runtime_lora"] = Known(flag=LORA_FLAG, reason=unknown.reason)
    return profile.with_(**facts)


def _with_document(profile: ServerProfile, document: OpenAPI) -> ServerProfile:
    paths = document.paths
    tasks = [task for task, own in _TASKS.items() if any(path in paths for path in own)]
    fields = _fields(document)
    profile = profile.with_(
        routes=Known(tuple(sorted(paths)), "openapi"),
        tasks=Known(tuple(tasks), "openapi"),
        fields=Known(fields, "openapi"),
        responses=Known("/v1/responses" in paths, "openapi"),
        image_output=Known("/v1/images/generations" in paths, "openapi"),
        dev_mode=Known("/server_info" in paths or "/sleep" in paths, "openapi", DEV_FLAG),
        runtime_lora=Known("/v1/load_lora_adapter" in paths, "openapi", LORA_FLAG),
    )
    if profile.responses.value is False:
        none = Known(False, "openapi", reason="there is no Responses route")
        profile = profile.with_(responses_store=none)
    chat = fields.get(_CHAT)
    if chat is None:
        why = Known(reason=f"/openapi.json does not describe {_CHAT}")
        names = ("structured_outputs", "structural_tags", "token_ids", "strict_tools")
        return profile.with_(max_stop_strings=why, **dict.fromkeys(names, why))
    schemas = document.components.schemas
    constraint = schemas.get("StructuredOutputsParams")
    tags = "StructuralTagResponseFormat" in schemas or (
        constraint is not None and "structural_tag" in constraint.properties
    )
    functions = [
        each
        for name, each in schemas.items()
        if name.endswith("FunctionDefinition") and not name.startswith("openai")
    ]
    strict = any("strict" in each.properties for each in functions)
    return profile.with_(
        structured_outputs=Known(
            "structured_outputs" in chat,
            "openapi",
            reason=None if "structured_outputs" in chat else "this version knows other fields",
        ),
        structural_tags=Known(tags, "openapi"),
        token_ids=Known("return_token_ids" in chat, "openapi"),
        strict_tools=Known(strict, "openapi") if functions else Known(),
        max_stop_strings=_stop_limit(document),
    )


def _fields(document: OpenAPI) -> dict[str, tuple[str, ...]]:
    """The fields of each path's requests, those of alternatives together."""
    schemas = document.components.schemas
    fields: dict[str, tuple[str, ...]] = {}
    for path, item in document.paths.items():
        names: dict[str, None] = {}
        for reference in _references(item.post.request_body if item.post else _codec.Raw(b"null")):
            schema = schemas.get(reference)
            names.update(dict.fromkeys(schema.properties if schema else ()))
        if names:
            fields[path] = tuple(names)
    return fields


def _references(raw: _codec.Raw) -> list[str]:
    try:
        body = decode_request_body(bytes(raw))
    except ProtocolError:
        return []
    found: list[str] = []
    for media in body.content.values():
        if media.schema_ is not None:
            each = [media.schema_, *media.schema_.any_of]
            found += [one.ref.rpartition("/")[2] for one in each if one.ref]
    return found


def _stop_limit(document: OpenAPI) -> Known[int]:
    schema = document.components.schemas.get("ChatCompletionRequest")
    stop = schema.properties.get("stop") if schema is not None else None
    if stop is None:
        return Known(reason="/openapi.json does not describe stop")
    try:
        told = decode_reference(bytes(stop))
    except ProtocolError:
        return Known(reason="/openapi.json does not describe stop")
    limits = [each.max_items for each in (told, *told.any_of) if each.max_items is not None]
    return Known(limits[0], "openapi") if limits else Known(reason="no limit is told")


def with_tokens(
    profile: ServerProfile, counts: tuple[int, int] | None, length: int | None, why: str | None
) -> ServerProfile:
    """Add what two `/tokenize` calls said: the counts without and with a tool, the context."""
    if counts is None:
        return profile.with_(blind_template=Known(reason=why))
    profile = profile.with_(blind_template=Known(counts[0] == counts[1], "tokenize"))
    if profile.context_length.value is None and length is not None:
        profile = profile.with_(context_length=Known(length, "tokenize"))
    return profile


def with_thinking(
    profile: ServerProfile, prompts: Mapping[str, tuple[int, ...]] | None, why: str | None
) -> ServerProfile:
    """Add what `/tokenize` said of a conversation with the template's variables for thinking.

    Args:
        profile: What is known.
        prompts: The tokens of the conversation with `enable_thinking` and `thinking` on (`+`) and
            off (`-`), and with the efforts `low` and `high`.
        why: Why there are none.
    """
    flag = profile.thinking_switch.flag
    if prompts is None:
        return profile.with_(
            thinking_switch=Known(flag=flag, reason=why), thinking_efforts=Known(reason=why)
        )
    switch = next(
        (name for name in THINKING_SWITCHES if prompts[f"{name}+"] != prompts[f"{name}-"]), ""
    )
    # vLLM takes any effort for `enable_thinking` too: both efforts switch it on alike.
    return profile.with_(
        thinking_switch=Known(switch, "tokenize", flag),
        thinking_efforts=Known(prompts["low"] != prompts["high"], "tokenize"),
    )


def with_roles(profile: ServerProfile, system: bool, strict: bool | None) -> ServerProfile:
    """Add what `/tokenize` said of roles: whether a system message is taken, and two of one."""
    profile = profile.with_(system_role=Known(system, "tokenize"))
    return profile if strict is None else profile.with_(strict_roles=Known(strict, "tokenize"))


def after_media(profile: ServerProfile, what: str, message: str) -> ServerProfile:
    """Add that a part of a request was refused: the model takes none of its kind."""
    if what not in {"image_input", "audio_input", "video_input"}:
        return profile
    return profile.with_(**{what: Known(False, "refusal", reason=message.partition(". ")[0])})


def after_refusal(profile: ServerProfile, flags: tuple[str, ...], message: str) -> ServerProfile:
    """Add what a server's refusal tells: it lacks these flags."""
    refused = message.partition(". ")[0]
    no_parser = Known(False, "refusal", PARSER_FLAG, refused)
    if "--tool-call-parser" not in flags:
        return profile
    if "--enable-auto-tool-choice" in flags:
        # Said of "auto" alone: a server may have a parser without the other flag.
        return profile.with_(auto_tools=Known(False, "refusal", TOOL_FLAGS, refused))
    return profile.with_(
        required_tools=no_parser,
        named_tools=no_parser,
        auto_tools=Known(False, "refusal", TOOL_FLAGS, refused),
    )


def after_probe(
    profile: ServerProfile, what: str, said: Mapping[str, Any] | VLLMError
) -> ServerProfile:
    """Add what a probe came to: the body of its reply, or the error it ended in.

    Args:
        profile: What is known.
        what: The name of the fact that was asked for.
        said: The reply's JSON, or the error.
    """
    flag = getattr(profile, what).flag
    if isinstance(said, UnsupportedByServerError) and (said.flags or said.limit == 0):
        refused = said.message.partition(". ")[0]
        return profile.with_(**{what: Known(False, "refusal", flag, refused)})
    if isinstance(said, VLLMError):
        status = getattr(said, "status", None)
        if status == 400 and (_MULTIMODAL.search(said.message) or STORE_FLAG in said.message):
            return profile.with_(**{what: Known(False, "refusal", flag, said.message)})
        why = f"the probe ended in an error: {said.message[:120]}"
        return profile.with_(**{what: Known(flag=flag, reason=why)})
    if what == "reasoning_parser":
        usage = said.get("usage")
        details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
        return profile.with_(reasoning_parser=Known(details is not None, "probe", flag))
    return profile.with_(**{what: Known(True, "probe", flag)})
