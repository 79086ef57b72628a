"""`thinking=` as the fields that a server and its model know."""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk._core.dialect.model_family import is_gpt_oss, switch_of
from vllm_agent_sdk.errors import UnsupportedByServerError, UsageError
from vllm_agent_sdk.types.profile import ServerProfile

__all__ = ["EFFORTS", "merge_fields", "model_names", "thinking_fields"]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_BUDGET_FLAGS = ("--reasoning-parser NAME", "--reasoning-config JSON")


def thinking_fields(value: Any, profile: ServerProfile, model: str | None = None) -> dict[str, Any]:
    """Give the request's fields that switch thinking, set its effort, or limit it (vLLM 0.32).

    Args:
        value: True or False; an effort, one of `EFFORTS`; or the most tokens to think, 0 or more.
        profile: What is known of the server.
        model: The model that is asked; unset: the profile's.

    Raises:
        UsageError: The value is none of these.
        UnsupportedByServerError: The model or the server cannot do it; nothing was sent.
    """
    if isinstance(value, str):
        if value not in EFFORTS:
            raise UsageError(
                f"thinking={value!r}: it is True, False, a number of tokens or one of "
                f"{', '.join(EFFORTS)}."
            )
        if value == "none":
            value = False
    elif not isinstance(value, int) or (value < 0 and not isinstance(value, bool)):
        raise UsageError(f"thinking={value!r}: give True, False, an effort, or tokens, 0 or more.")
    names = model_names(profile, model)
    if is_gpt_oss(names):
        return _gpt_oss(value, profile)
    switch = profile.thinking_switch.value
    if switch is None:
        switch = switch_of(names)
    if isinstance(value, bool):
        if not switch:
            raise _unsupported(value, profile, names)
        return {"chat_template_kwargs": {switch: value}}
    if isinstance(value, str):
        if not profile.thinking_efforts.value:
            raise _unsupported(value, profile, names)
        fields: dict[str, Any] = {"reasoning_effort": value}
        if switch == "thinking":  # vLLM sets only `enable_thinking` by itself
            fields["chat_template_kwargs"] = {switch: True}
        return fields
    return _budget(value, switch or None, profile, names)


def _gpt_oss(value: bool | str | int, profile: ServerProfile) -> dict[str, Any]:
    if value is True:
        return {}
    if value is False:
        raise UnsupportedByServerError(
            "gpt-oss always thinks; thinking='low' is the least.", feature="thinking=False"
        )
    if isinstance(value, str):
        return {"reasoning_effort": value}
    return _budget(value, None, profile, ["gpt-oss"])


def _budget(
    tokens: int, switch: str | None, profile: ServerProfile, names: list[str]
) -> dict[str, Any]:
    parser = profile.reasoning_parser.value
    if parser is False or (parser is None and switch is None and not is_gpt_oss(names)):
        raise UnsupportedByServerError(
            f"The server cannot limit thinking to {tokens} tokens: that takes one of the flags "
            f"{' or '.join(_BUDGET_FLAGS)}, with a model that thinks.",
            feature=f"thinking={tokens}",
            flags=_BUDGET_FLAGS,
        )
    fields: dict[str, Any] = {"thinking_token_budget": tokens}
    if switch:
        fields["chat_template_kwargs"] = {switch: True}
    return fields


def model_names(profile: ServerProfile | None, model: str | None) -> list[str]:
    """Give all names of a model: what it is called here, and what it was loaded from."""
    if profile is None:
        return [model] if model else []
    name = model or profile.model
    cards = [card for card in profile.models if card.id == name or name is None]
    return [each for each in (name, *(card.root for card in cards)) if each]


def _unsupported(
    value: bool | str, profile: ServerProfile, names: list[str]
) -> UnsupportedByServerError:
    model = names[0] if names else "the model"
    if profile.thinking_switch.value is None:
        why = (
            "whether its chat template has a switch for it could not be learnt "
            f"({profile.thinking_switch.reason or 'it was not asked'}). If it has one, give it "
            "in chat_template_kwargs=, or set the profile's thinking_switch by hand"
        )
    elif isinstance(value, str) and profile.thinking_switch.value:
        why = "its chat template knows thinking on and off, and no effort; use thinking=True"
    else:
        why = "its chat template has no switch for it. Use a model that thinks, or leave it out"
    return UnsupportedByServerError(
        f"thinking={value!r} has no effect on {model}: {why}.",
        feature=f"thinking={value!r}",
        flags=("--chat-template FILE",),
    )


def merge_fields(body: dict[str, Any], fields: dict[str, Any]) -> None:
    """Put fields into a body; what the call itself said of the template's variables wins."""
    for name, value in fields.items():
        said = body.get(name)
        if isinstance(value, dict) and isinstance(said, dict):
            body[name] = {**value, **said}
        elif said is None:
            body[name] = value
