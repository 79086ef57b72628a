"""What a server tells of itself: models, versions, tokens."""

from __future__ import annotations

from typing import Any

import msgspec

from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.reply import WireReply

__all__ = ["DetokenizeReply", "ModelInfo", "ModelList", "TokenizeReply"]


class ModelInfo(msgspec.Struct, omit_defaults=True):
    """A model that a server serves.

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
