"""What is known of a server and of a model, and from where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeAlias

import msgspec
from typing_extensions import TypeVar

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.options import Price
from vllm_agent_sdk.types.server import ModelInfo

__all__ = ["Known", "ModelFacts", "ServerProfile", "Source", "model_info"]

#: Where a fact comes from. `unknown` goes with the value `None`.
Source: TypeAlias = Literal[
    "openapi",
    "card",
    "version",
    "tokenize",
    "probe",
    "refusal",
    "metrics",
    "name",
    "set by hand",
    "unknown",
]

V = TypeVar("V", default=bool)


class Known(_codec.Fact, Generic[V], frozen=True):
    """A fact, and where it comes from. True in an `if` only where its value is.

    Attributes:
        value: The fact; `None` for unknown.
        source: Where it comes from.
        flag: How the server must be started for it to be true, or `None`.
        reason: Why it is unknown or untrue, where there is more to say.
    """

    value: V | None = None
    source: Source = "unknown"
    flag: str | None = None
    reason: str | None = None

    def __bool__(self) -> bool:
        return bool(self.value)


TOOL_FLAGS = "--enable-auto-tool-choice --tool-call-parser NAME"
PARSER_FLAG = "--tool-call-parser NAME"
DEV_FLAG = "VLLM_SERVER_DEV_MODE=1"
LORA_FLAG = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora"
STORE_FLAG = "VLLM_ENABLE_RESPONSES_API_STORE=1"


class ServerProfile(_codec.Record, frozen=True):
    """What is known of a server. `explain()` says it in words.

    Attributes:
        base_url: The server's address.
        model: The model that the facts about templates and tools are about, or `None`.
        version: Such as `"0.32.0"`.
        is_vllm: Whether it is a vLLM server.
        tasks: Of `generate`, `embed`, `score`, `rerank`, `classify`, `pooling`, `transcribe`.
        routes: The paths it has.
        fields: For each path, the fields that its requests may have.
        models: The cards of its models.
        context_length: Tokens of the model's context.
        blind_template: Whether the chat template leaves tools out of the prompt.
        system_role: Whether the template takes a system message.
        strict_roles: Whether it refuses roles that do not alternate.
        auto_tools: Whether `tool_choice="auto"` is taken.
        required_tools: Whether `tool_choice="required"` is taken.
        named_tools: Whether a named tool is taken as `tool_choice`.
        strict_tools: Whether tools may be `strict`.
        structured_outputs: Whether `structured_outputs` is known.
        structural_tags: Whether structural tags are.
        reasoning_field: `"reasoning"` or `"reasoning_content"`.
        reasoning_parser: Whether reasoning is split from the text.
        thinking_switch: The chat template's variable that switches thinking, `""` for none.
        thinking_efforts: Whether the chat template knows a `reasoning_effort`.
        think_tags: Whether `<think>…</think>` at the beginning of a text is reasoning; it is split
            off here then. Never learnt: set it by hand for a thinking model without a parser.
        call_format: How the model writes calls where no parser reads them: `hermes`, `qwen_xml`,
            `llama_json` or `pythonic`.
        responses: Whether there is a Responses route.
        responses_store: Whether it keeps responses.
        token_ids: Whether replies can tell their token ids.
        image_input: Whether the model sees images.
        audio_input: Whether it hears.
        video_input: Whether it sees videos.
        image_output: Whether the server makes images.
        web_search: Whether it searches the web for the model. No server tells: set it by hand.
        prefix_caching: Whether the prefix cache is on.
        dev_mode: Whether the routes of development (sleep, reset, …) are there.
        runtime_lora: Whether LoRA adapters can be loaded while it runs.
        max_stop_strings: How many `stop` texts a request may have.
        probed: Whether probes of a few tokens were made.
    """

    base_url: str = ""
    model: str | None = None
    version: Known[str] = Known()
    is_vllm: Known = Known()
    tasks: Known[tuple[str, ...]] = Known()
    routes: Known[tuple[str, ...]] = Known()
    fields: Known[dict[str, tuple[str, ...]]] = Known()
    models: tuple[ModelInfo, ...] = ()
    context_length: Known[int] = Known()
    blind_template: Known = Known()
    system_role: Known = Known()
    strict_roles: Known = Known()
    auto_tools: Known = Known(flag=TOOL_FLAGS)
    required_tools: Known = Known(flag=PARSER_FLAG)
    named_tools: Known = Known(flag=PARSER_FLAG)
    strict_tools: Known = Known()
    structured_outputs: Known = Known()
    structural_tags: Known = Known()
    reasoning_field: Known[str] = Known()
    reasoning_parser: Known = Known(flag="--reasoning-parser NAME")
    thinking_switch: Known[str] = Known(flag="--chat-template FILE")
    thinking_efforts: Known = Known()
    think_tags: Known = Known()
    call_format: Known[str] = Known()
    responses: Known = Known()
    responses_store: Known = Known(flag=STORE_FLAG)
    token_ids: Known = Known()
    image_input: Known = Known()
    audio_input: Known = Known()
    video_input: Known = Known()
    image_output: Known = Known()
    web_search: Known = Known()
    prefix_caching: Known = Known(flag="--enable-prefix-caching")
    dev_mode: Known = Known(flag=DEV_FLAG)
    runtime_lora: Known = Known(flag=LORA_FLAG)
    max_stop_strings: Known[int] = Known()
    probed: bool = False

    def with_(self, **facts: Any) -> ServerProfile:
        """Give a changed copy; plain values are facts that were set by hand.

        Raises:
            UsageError: There is no such fact.
        """
        changes: dict[str, Any] = {}
        for name, value in facts.items():
            if name not in self.__struct_fields__:
                known = ", ".join(sorted(self.__struct_fields__))
                raise UsageError(f"A profile has no fact {name!r}; it has {known}.")
            old = getattr(self, name)
            if isinstance(old, Known) and not isinstance(value, Known):
                value = Known(value, "set by hand", old.flag)
            changes[name] = value
        return msgspec.structs.replace(self, **changes)

    def knows_field(self, path: str, field: str) -> bool | None:
        """Tell whether requests to a path have this field; `None` for unknown."""
        fields = (self.fields.value or {}).get(path)
        return None if fields is None else field in fields

    def explain(self) -> str:
        """Say what is known, from where, and what would turn on what is missing."""
        lines = [f"{self.base_url}, model {self.model or '(none chosen)'}"]
        for name in self.__struct_fields__:
            fact = getattr(self, name)
            if isinstance(fact, Known) and name not in {"routes", "fields"}:
                lines.append(f"  {name.replace('_', ' ')}: {_told(fact)}")
        count = len(self.routes.value or ())
        lines.append(f"  routes: {count or _told(self.routes)}")
        lines.append(f"  models: {', '.join(card.id for card in self.models) or 'none known'}")
        if not self.probed:
            lines.append("  What is unknown may be learnt by profile(probe=True): a few tokens.")
        return "\n".join(lines)


def _told(fact: Known[Any]) -> str:
    value = fact.value
    if value is None:
        text = "unknown"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, tuple):
        text = ", ".join(value) or "none"
    else:
        text = str(value)
    source = "" if value is None else f" ({fact.source})"
    why = f": {fact.reason}" if fact.reason else ""
    how = f"; needs {fact.flag}" if fact.flag and not value else ""
    return f"{text}{source}{why}{how}"


class ModelFacts(_codec.Record, frozen=True):
    """What a model can do: each fact is `True`, `False` or `None` (unknown), with its `source`.

    Attributes:
        id: The model's name.
        parent: The base model of a LoRA adapter.
        price: From the table that was given, else `None`.
        cost_tier: From the table that was given, else `None`.
        max_context_length: Tokens.
        supports_tool_calling: Whether calls of tools are told as such.
        supports_structured_output: Whether replies can be constrained.
        supports_reasoning: Whether reasoning is split from the text.
        supports_image_input: Whether it sees images.
        supports_image_output: Whether it makes them.
        supports_web_search: Whether the server searches the web for it.
        supports_prompt_caching: Whether the beginning of a prompt is kept for the next one.
    """

    id: str
    parent: str | None = None
    price: Price | None = None
    cost_tier: str | None = None
    max_context_length: Known[int] = Known()
    supports_tool_calling: Known = Known()
    supports_structured_output: Known = Known()
    supports_reasoning: Known = Known()
    supports_image_input: Known = Known()
    supports_image_output: Known = Known()
    supports_web_search: Known = Known()
    supports_prompt_caching: Known = Known()


def model_info(
    card: ModelInfo,
    profile: ServerProfile,
    price: Price | None = None,
    tier: str | None = None,
) -> ModelFacts:
    """Tell what a model can do, by its card and the server's profile."""
    length: Known[int] = Known(card.max_model_len, "card")
    if card.max_model_len is None:
        # A LoRA card does not say: its base model's counts.
        base = {other.id: other.max_model_len for other in profile.models}
        length = Known(base.get(card.parent or ""), "card")
        if length.value is None:
            length = profile.context_length
    # What depends on the model is known of one, and of what shares its weights.
    about = profile if _same_weights(card, profile) else _OF_ANOTHER
    return ModelFacts(
        id=card.id,
        parent=card.parent,
        price=price,
        cost_tier=tier,
        max_context_length=length,
        supports_tool_calling=about.auto_tools,
        supports_structured_output=profile.structured_outputs,
        supports_reasoning=about.reasoning_parser,
        supports_image_input=about.image_input,
        supports_image_output=profile.image_output,
        supports_web_search=profile.web_search,
        supports_prompt_caching=profile.prefix_caching,
    )


_ANOTHER: Known = Known(reason="the profile is of another model")
_OF_ANOTHER = ServerProfile(auto_tools=_ANOTHER, reasoning_parser=_ANOTHER, image_input=_ANOTHER)


def _same_weights(card: ModelInfo, profile: ServerProfile) -> bool:
    """Whether a card is the profile's model, a name of the same weights, or an adapter of it."""
    names = {profile.model}
    for other in profile.models:
        if other.id == profile.model:
            names |= {each.id for each in profile.models if each.root == other.root}
    return profile.model is None or card.id in names or card.parent in names


# ── what is read of /openapi.json (hundreds of kilobytes, of which little is decoded) ────────────


class Operation(msgspec.Struct, rename={"request_body": "requestBody"}):
    """What a path's POST takes."""

    request_body: msgspec.Raw = msgspec.Raw(b"null")


class PathItem(msgspec.Struct):
    """One path."""

    post: Operation | None = None


class Schema(msgspec.Struct):
    """One schema: the names of its fields, their own schemas undecoded."""

    properties: Mapping[str, msgspec.Raw] = {}


class Components(msgspec.Struct):
    """The schemas."""

    schemas: Mapping[str, Schema] = {}


class OpenAPI(msgspec.Struct):
    """The document, as far as it is needed."""

    paths: Mapping[str, PathItem]
    components: Components = msgspec.field(default_factory=Components)


class Reference(msgspec.Struct, rename={"ref": "$ref", "any_of": "anyOf", "max_items": "maxItems"}):
    """A schema inside another: a reference, alternatives, or the length of a list."""

    ref: str | None = None
    any_of: list[Reference] = []
    max_items: int | None = None


class MediaType(msgspec.Struct, rename={"schema_": "schema"}):
    """The schema of a body's media type."""

    schema_: Reference | None = None


class RequestBody(msgspec.Struct):
    """The body of a request, by media type."""

    content: Mapping[str, MediaType] = {}


decode_openapi = _codec.decoder(OpenAPI)
decode_reference = _codec.decoder(Reference)
decode_request_body = _codec.decoder(RequestBody)
