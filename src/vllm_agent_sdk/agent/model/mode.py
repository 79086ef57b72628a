"""Which turn mode a run takes, and what was learnt about a server to decide it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from vllm_agent_sdk._core.dialect.model_family import call_format_of, sends_reasoning, switch_of
from vllm_agent_sdk._core.dialect.thinking import model_names
from vllm_agent_sdk.agent.model.client import address_of, stated_profile
from vllm_agent_sdk.agent.model.turns import Traits
from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.types._codec import Fact
from vllm_agent_sdk.types.profile import Known, ServerProfile, model_info
from vllm_agent_sdk.types.protocols import ChatModel
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["Choice", "Learnt", "choose_mode"]

# By the names of models: vLLM tells neither its parser nor its template.
_MISTRAL = re.compile(r"(?i)mi[sx]tral|(?:code|dev|mini|magi)stral|pixtral|mathstral")
_NOT_STREAMED = re.compile(r"(?i)phi-?4-mini")


class Choice(Fact, frozen=True, gc=False):
    """A turn mode, and what else is known of the model it is for.

    Attributes:
        mode: The mode.
        reason: Why this one, in words.
        notice: What the user should know about that.
        window: Tokens the model can read and write in one call; `None` for unknown.
    """

    mode: str
    reason: str
    notice: str | None = None
    window: int | None = None

    @property
    def dialect(self) -> str:
        """How the history is written in this mode."""
        return "text" if self.mode in {"guided", "envelope"} else "native"


@dataclass(slots=True)
class Learnt:
    """What an agent has learnt about its servers; it outlives the agent's clients.

    Attributes:
        profiles: By the client's address and model.
        moves: By address, the mode that a run had to move to, and why.
    """

    profiles: dict[tuple[str, str | None], ServerProfile] = field(
        default_factory=dict[tuple[str, str | None], ServerProfile]
    )
    moves: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    _traits: dict[tuple[str, str | None], Traits] = field(
        default_factory=dict[tuple[str, str | None], Traits]
    )
    _windows: dict[str, tuple[ServerProfile, int | None]] = field(
        default_factory=dict[str, tuple[ServerProfile, int | None]]
    )

    def window(self, profile: ServerProfile | None, model: str) -> int | None:
        """Give the tokens that a model can read and write in one call, as its profile says."""
        if profile is None:
            return None
        known = self._windows.get(model)
        if known is None or known[0] is not profile:
            known = self._windows[model] = (profile, _window(profile, model))
        return known[1]

    def moved(self, client: ChatModel, mode: str, reason: str) -> None:
        """Remember that a server does not keep to the modes before this one."""
        self.moves[address_of(client)[0]] = (mode, reason)

    def give(self, client: AsyncVLLM) -> None:
        """Tell a fresh client what is known of its server, so that it asks nothing."""
        profile = self.known(client)
        if profile is not None:
            client.server.set_profile(profile)

    def known(self, client: ChatModel) -> ServerProfile | None:
        """Give what is known of a client's server; nothing is asked."""
        if isinstance(client, AsyncVLLM):
            return self.profiles.get(address_of(client))
        return stated_profile(client)

    async def profile(self, client: ChatModel) -> ServerProfile | None:
        """Give the profile of a client's server, and keep it; `None` for a model without one.

        Raises:
            TransportError: The server cannot be reached.
            AuthenticationError: It wants another key.
        """
        known = self.known(client)
        if known is None and isinstance(client, AsyncVLLM):
            known = self.profiles[address_of(client)] = await client.server.profile()
        return known

    def traits(self, client: ChatModel, model: str | None) -> Traits:
        """Give how requests for a model are written and its replies are read.

        The same object each time: what one run learns counts for the next.
        """
        key = (address_of(client)[0], model)
        if key not in self._traits:
            self._traits[key] = _traits(self.known(client), model)
        return self._traits[key]


async def choose_mode(
    asked: str,
    tools: list[ToolSpec],
    client: ChatModel,
    model: str,
    learnt: Learnt,
    typed: bool = False,
) -> Choice:
    """Choose the turn mode of a run.

    Nothing is asked of the server for a run without tools.

    Args:
        asked: `Agent.turn_mode`.
        tools: What can be called.
        client: The model, or its server.
        model: The served model's name.
        learnt: What is known; it is added to.
        typed: Whether the output is.

    Raises:
        TransportError: The server cannot be reached.
        AuthenticationError: It wants another key.
    """
    if not tools or asked == "plain":
        reason = "asked for" if asked == "plain" else "there are no tools"
        return Choice("plain", reason, window=learnt.window(learnt.known(client), model))
    profile = await learnt.profile(client)
    window = learnt.window(profile, model)
    if asked != "auto":
        return Choice(asked, "asked for", window=window)
    move = learnt.moves.get(address_of(client)[0])
    if move is not None:
        mode, why = move
        return Choice(mode, f"an earlier run had to move to it: {why}", window=window)
    if profile is None:
        return Choice("native", "the model has no profile: calls are its own")
    mode, reason, notice = _chosen(profile, typed)
    return Choice(mode, reason, notice, window)


def _chosen(profile: ServerProfile, typed: bool) -> tuple[str, str, str | None]:
    blind = profile.blind_template
    if blind.value:
        return _by_grammar(profile, "the chat template shows no tools to the model")
    needed = profile.required_tools if typed else profile.auto_tools
    if needed.value is False:
        return _by_grammar(profile, f"the server lacks flags for tools ({_why(needed)})")
    if blind.value is None and typed:
        reason = f"whether the chat template shows tools is unknown ({_why(blind)})"
        return _by_grammar(profile, reason)
    if blind.value is None:
        notice = (
            f"Whether the chat template shows tools to the model could not be learnt "
            f"({_why(blind)}). Native tool calls are used; if the model never calls a tool, set "
            "turn_mode='guided'."
        )
        return "native", "whether the chat template shows tools is unknown", notice
    shows = "the chat template shows tools to the model"
    if typed:
        return "required", f"{shows}, and the output is typed: it is given by a call too", None
    return "native", shows, None


def _by_grammar(profile: ServerProfile, reason: str) -> tuple[str, str, str | None]:
    if profile.structural_tags.value is False:
        return "envelope", f"{reason}, and this server knows no structural tags", None
    return "guided", reason, None


def _why(fact: Known[Any]) -> str:
    return fact.reason or fact.flag or "it says nothing of it"


def _window(profile: ServerProfile, model: str) -> int | None:
    card = next((card for card in profile.models if card.id == model), None)
    if card is None:
        return profile.context_length.value
    return model_info(card, profile).max_context_length.value


def _traits(profile: ServerProfile | None, model: str | None) -> Traits:
    names = model_names(profile, model)
    parents = () if profile is None else profile.models
    for card in parents:
        if card.id == model and card.parent is not None:
            names += model_names(profile, card.parent)
    known = ServerProfile() if profile is None else profile
    switch = known.thinking_switch.value
    return Traits(
        nine_ids=any(_MISTRAL.search(name) for name in names),
        think_tags=known.think_tags.value is True,
        thinking_switch=switch if switch is not None else switch_of(names),
        sends_reasoning=sends_reasoning(names),
        text_calls=known.call_format.value or call_format_of(names),
        streams_calls=not any(_NOT_STREAMED.search(name) for name in names),
    )
