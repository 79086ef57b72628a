"""What of a chat call depends on the server's profile: thinking, and how its text is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vllm_agent_sdk._core.dialect.model_family import sends_reasoning
from vllm_agent_sdk._core.dialect.roles import ordered
from vllm_agent_sdk._core.dialect.thinking import merge_fields, model_names, thinking_fields
from vllm_agent_sdk._core.dialect.transcript import wire_messages
from vllm_agent_sdk._core.text_calls.text_calls import FAMILIES, TextCalls
from vllm_agent_sdk.client.calls import Calls
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types._codec import Fact
from vllm_agent_sdk.types.messages import AssistantMessage
from vllm_agent_sdk.types.profile import ServerProfile

if TYPE_CHECKING:
    from vllm_agent_sdk.client.server import Server

__all__ = ["Known", "Reading", "TextReading", "schemas_of"]

Known = Callable[[], ServerProfile | None]


class Reading(Fact, frozen=True, gc=True):
    """How the text of a reply is read.

    Attributes:
        think_tags: `<think>…</think>` at its beginning is reasoning.
        text_calls: How calls are found in it, or `None` for not at all.
    """

    think_tags: bool = False
    text_calls: TextCalls | None = None


_AS_IT_IS = Reading()
_WITH_TAGS = Reading(think_tags=True)


class TextReading:
    """Asks the profile only for calls that need it: it costs requests of its own, once.

    Args:
        calls: Tells the model of calls that name none.
        server: Gives what learns the profile.
        known: Gives the profile if it has been learnt or set.
    """

    def __init__(self, calls: Calls, server: Callable[[], Server], known: Known) -> None:
        self._calls = calls
        self._server = server
        self._known = known

    async def prepare(
        self, body: dict[str, Any], params: Mapping[str, Any], messages: Iterable[Any]
    ) -> Reading:
        """Add what the model decides to a body, and say how the reply's text is read.

        That is the fields of `thinking=`, the reasoning of earlier turns, and the order of roles.

        Raises:
            UsageError: A keyword cannot work, or the format of calls in the text is unknown.
            UnsupportedByServerError: The model or the server cannot think so.
        """
        calls, known = params.get("parse_text_calls"), self._known()
        if params.get("thinking") is not None:
            known = await self._server().profile()
            self.think(body, params)
        if AssistantMessage in set(map(type, messages)) and any(
            isinstance(each, AssistantMessage) and each.reasoning for each in messages
        ):
            await self._send_reasoning(body, messages, known)
        roles: Any = params.get("roles") or "off"
        if roles not in {"off", "merge", "strict"}:
            raise UsageError(f"roles={roles!r}: it is 'off', 'merge' or 'strict'.")
        if roles != "off":
            body["messages"] = ordered(body["messages"], roles)
        tags = known is not None and known.think_tags.value is True
        if not calls or not body.get("tools") or body.get("tool_choice") == "none":
            return _WITH_TAGS if tags else _AS_IT_IS
        family = calls
        if not isinstance(calls, str):
            family = _named(await self._server().profile())
        return Reading(tags, TextCalls(str(family), schemas_of(body["tools"])))

    def think(self, body: dict[str, Any], params: Mapping[str, Any]) -> None:
        """Add the fields of `thinking=` to a body, if the profile is known.

        Raises:
            UsageError: The value cannot work.
            UnsupportedByServerError: The model or the server cannot think so.
        """
        known, thinking = self._known(), params.get("thinking")
        if known is not None and thinking is not None:
            merge_fields(body, thinking_fields(thinking, known, body.get("model")))

    async def _send_reasoning(
        self, body: dict[str, Any], messages: Iterable[Any], known: ServerProfile | None
    ) -> None:
        """Write the messages with the reasoning they hold, where the model is to get it back."""
        if body.get("model") is None:
            body["model"] = await self._calls.resolve_model(None)
        if sends_reasoning(model_names(known, body["model"])):
            body["messages"] = wire_messages(messages, reasoning=True)


def _named(profile: ServerProfile) -> str:
    """Give the format that the profile names."""
    family = profile.call_format.value
    if family is None:
        raise UsageError(
            f"parse_text_calls=True: in which format {profile.model or 'the model'} writes calls "
            f"is unknown. Name it: parse_text_calls= one of {', '.join(FAMILIES)}."
        )
    return family


def schemas_of(tools: Any) -> dict[str, Mapping[str, Any]]:
    """Give the schemas of the arguments of a body's tools, by name."""
    schemas: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            schemas[function["name"]] = parameters if isinstance(parameters, Mapping) else {}
    return schemas
