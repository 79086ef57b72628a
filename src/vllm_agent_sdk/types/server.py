"""What a server tells of itself: models, versions, tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.reply import WireReply

if TYPE_CHECKING:
    from vllm_agent_sdk.types.options import Price
    from vllm_agent_sdk.types.profile import Known, ModelFacts

__all__ = ["DetokenizeReply", "ModelInfo", "ModelList", "TokenizeReply"]


class ModelInfo(msgspec.Struct, omit_defaults=True, dict=True):
    """A model that a server serves.

    Beside the card's own fields, `max_context_length`, `supports_tool_calling` and its like say
    what is known of the model: `Known` facts with `value` (True, False or None for unknown) and
    `source`. They hold what the client knew when the models were listed; after
    `vllm.server.profile()` that is more.

    Attributes:
        id: The name to ask for.
        root: The path or repository it was loaded from.
        parent: The base model of a LoRA adapter.
        max_model_len: Tokens of context, or `None` (LoRA cards don't say).
        owned_by: `"vllm"` on a vLLM server.
        aliases: Other names of the same model.
    """

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str | None = None
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None
    permission: list[Any] | None = None
    aliases: list[str] = []

    @property
    def facts(self) -> ModelFacts:
        """All that is known of the model."""
        found: ModelFacts | None = vars(self).get("known")
        if found is None:
            from vllm_agent_sdk.types.profile import ServerProfile, model_info

            found = vars(self)["known"] = model_info(self, ServerProfile())
        return found

    @property
    def price(self) -> Price | None:
        """Its price in the table that was given, or `None`."""
        return self.facts.price

    @property
    def cost_tier(self) -> str | None:
        """Its tier in the table that was given, or `None`."""
        return self.facts.cost_tier

    @property
    def max_context_length(self) -> Known[int]:
        """Tokens of context; of a LoRA adapter those of its base model."""
        return self.facts.max_context_length

    @property
    def supports_tool_calling(self) -> Known:
        """Whether calls of tools are told as such."""
        return self.facts.supports_tool_calling

    @property
    def supports_structured_output(self) -> Known:
        """Whether replies can be constrained."""
        return self.facts.supports_structured_output

    @property
    def supports_reasoning(self) -> Known:
        """Whether reasoning is split from the text."""
        return self.facts.supports_reasoning

    @property
    def supports_image_input(self) -> Known:
        """Whether it sees images."""
        return self.facts.supports_image_input

    @property
    def supports_image_output(self) -> Known:
        """Whether it makes them."""
        return self.facts.supports_image_output

    @property
    def supports_web_search(self) -> Known:
        """Whether the server searches the web for it."""
        return self.facts.supports_web_search

    @property
    def supports_prompt_caching(self) -> Known:
        """Whether the beginning of a prompt is kept for the next one."""
        return self.facts.supports_prompt_caching


class ModelList(WireReply, dict=True):
    """The models of a server."""

    data: list[ModelInfo] = msgspec.field(default_factory=list[ModelInfo])
    object: str = "list"

    def own_models(self) -> list[ModelInfo]:
        """Give the models without LoRA adapters, one for all names of the same weights."""
        own: dict[str, ModelInfo] = {}
        for card in self.data:
            if card.parent is None:
                first = own.setdefault(card.root or card.id, card)
                if first is not card and card.id not in first.aliases:
                    first.aliases.append(card.id)
        return list(own.values())


class TokenizeReply(msgspec.Struct):
    """How many tokens a text or a conversation is.

    Attributes:
        count: The number of tokens.
        max_model_len: The model's context.
        tokens: The token ids.
        token_strs: Their texts, with `return_token_strs=True`.
    """

    count: int = 0
    max_model_len: int | None = None
    tokens: list[int] = []
    token_strs: list[str] | None = None


class DetokenizeReply(msgspec.Struct):
    """The text of token ids."""

    prompt: str = ""


class Version(msgspec.Struct):
    """What `/version` answers."""

    version: str = ""


decode_models = _codec.decoder(ModelList)
decode_tokens = _codec.decoder(TokenizeReply)
decode_text = _codec.decoder(DetokenizeReply)
decode_version = _codec.decoder(Version)
