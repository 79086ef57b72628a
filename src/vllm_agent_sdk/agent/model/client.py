"""What `Agent(client=…)` takes: a client, addresses to make one of, or a stand-in."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import TypeIs

from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.profile import ServerProfile
from vllm_agent_sdk.types.protocols import ChatModel

__all__ = ["address_of", "check_client", "is_address", "stated_profile"]

_APIS = ("chat", "responses")
_NEEDED = ("chat.completions.create", "chat.completions.stream", "resolve_model")


def is_address(client: object) -> TypeIs[str | Sequence[str] | None]:
    """True for what a client is to be made of: an address, several, or none."""
    return client is None or isinstance(client, (str, list, tuple))


def check_client(client: object, api: str) -> None:
    """Refuse a `client=` that no agent can use.

    Raises:
        UsageError: Says what it lacks, and what to give.
    """
    if api not in _APIS:
        raise UsageError(f"api={api!r}: give 'chat' or 'responses'.")
    if isinstance(client, AsyncVLLM):
        return
    if is_address(client):
        if client is not None and not (client and all(isinstance(url, str) for url in client)):
            raise UsageError("client= as a list holds the addresses of servers, one at least.")
        return
    kind = type(client).__name__
    lacking = [name for name in _NEEDED if not callable(_at(client, name))]
    if lacking:
        raise UsageError(
            f"client= takes an AsyncVLLM, a server's address or several, or what fulfils "
            f"ChatModel; {kind} has no {lacking[0]}()."
        )
    if api == "responses":
        raise UsageError(
            f"api='responses' needs an AsyncVLLM or a server's address; {kind} has chat only."
        )
    stated_profile(client)


def address_of(client: ChatModel) -> tuple[str, str | None]:
    """Give under what an agent keeps what it learns: a server's address and model.

    All that is learnt of a stand-in is kept together: an agent has only one.
    """
    if isinstance(client, AsyncVLLM):
        return client.base_url, client.model
    return "", None


def stated_profile(client: object) -> ServerProfile | None:
    """Give what a stand-in says of itself.

    Raises:
        UsageError: It is no profile.
    """
    profile = getattr(client, "profile", None)
    if profile is not None and not isinstance(profile, ServerProfile):
        raise UsageError(
            f"The profile of {type(client).__name__} is a {type(profile).__name__}; as client= of "
            "an agent it has a ServerProfile there, or none."
        )
    return profile


def _at(client: object, path: str) -> object:
    found: object = client
    for name in path.split("."):
        found = getattr(found, name, None)
    return found
