"""Which turn mode a run takes, and what was learnt about a server to decide it."""

from __future__ import annotations

from dataclasses import dataclass, field

from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.errors import UnsupportedByServerError, VLLMError
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["Choice", "Learnt", "choose_mode"]

_PROBE = [{"role": "user", "content": "x"}]
_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "Tells whether the template shows tools.",
        "parameters": {"type": "object", "properties": {}},
    },
}


@dataclass(slots=True)
class Learnt:
    """What an agent has learnt about its servers.

    Attributes:
        blind: By address and model, whether the chat template leaves tools out.
        without_flags: Addresses of servers that refused native tools, and why.
    """

    blind: dict[tuple[str, str], bool] = field(default_factory=dict)
    without_flags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """A turn mode, why it was taken, and what the user should know about that."""

    mode: str
    reason: str
    notice: str | None = None

    @property
    def dialect(self) -> str:
        """How the history is written in this mode."""
        return "text" if self.mode in {"guided", "envelope"} else "native"


async def choose_mode(
    asked: str, tools: list[ToolSpec], client: AsyncVLLM, model: str, learnt: Learnt
) -> Choice:
    """Choose the turn mode of a run.

    Args:
        asked: `Agent.turn_mode`.
        tools: What can be called.
        client: The server.
        model: The served model's name.
        learnt: What is known; it is added to.

    Raises:
        TransportError: The server cannot be reached.
    """
    if not tools:
        return Choice("plain", "there are no tools")
    if asked != "auto":
        return Choice(asked, "asked for")
    refused = learnt.without_flags.get(client.base_url)
    if refused is not None:
        return Choice("guided", f"the server refused native tools before: {refused}")
    key = (client.base_url, model)
    if key not in learnt.blind:
        try:
            learnt.blind[key] = await _is_blind(client, model)
        except UnsupportedByServerError as error:
            return Choice(
                "native",
                "whether the chat template shows tools is unknown",
                f"The server has no /tokenize ({error.status}): whether its chat template shows "
                "tools to the model could not be learnt. Native tool calls are used; if the model "
                "never calls a tool, set turn_mode='guided'.",
            )
    if learnt.blind[key]:
        return Choice("guided", "the chat template shows no tools to the model")
    return Choice("native", "the chat template shows tools to the model")


async def _is_blind(client: AsyncVLLM, model: str) -> bool:
    """Ask whether a tool makes the rendered prompt longer."""
    try:
        without = await client.tokenize(messages=_PROBE, model=model)
        with_tool = await client.tokenize(messages=_PROBE, tools=[_PROBE_TOOL], model=model)
    except UnsupportedByServerError:
        raise
    except VLLMError as error:
        if error.retryable or getattr(error, "status", None) != 400:
            raise
        # A template that cannot even render this is strict about roles: it gets the text dialect.
        return True
    return with_tool.count == without.count
