"""Learning what a server can do: by asking, and by probes of a few tokens only if asked to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

from vllm_agent_sdk._core.server.metrics import read_metrics
from vllm_agent_sdk._core.server.profile import (
    THINKING_SWITCHES,
    after_media,
    after_probe,
    after_refusal,
    with_cards,
    with_openapi,
    with_roles,
    with_thinking,
    with_tokens,
    with_version,
)
from vllm_agent_sdk.client.calls import Calls
from vllm_agent_sdk.client.tokens import Tokens
from vllm_agent_sdk.errors import (
    AuthenticationError,
    BadRequestError,
    ProtocolError,
    ServerError,
    UnsupportedByServerError,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.profile import Known, ServerProfile
from vllm_agent_sdk.types.server import decode_models, decode_version

__all__ = ["Profiler"]

#: What a server may answer with instead of what it was asked for; the rest of the profile counts.
_TOLD = (ServerError, ProtocolError)
_USER = {"role": "user", "content": "x"}
_MESSAGES = [{"role": "system", "content": "x"}, _USER]
_FUNCTION = {
    "name": "probe",
    "description": "Tells whether the template shows tools.",
    "parameters": {"type": "object", "properties": {}},
}
_TOOL = {"type": "function", "function": _FUNCTION}
# One pixel; of sound and film nothing: a model that takes none refuses before it looks at them.
_PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)
_MEDIA = {
    "image_input": ("image_url", _PNG),
    "audio_input": ("audio_url", "data:audio/wav;base64,UklGRiQAAABXQVZFZm10IA=="),
    "video_input": ("video_url", "data:video/mp4;base64,AAAAGGZ0eXBtcDQy"),
}


class Profiler:
    """Learns a server's profile once, and keeps it for its client."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._profile: ServerProfile | None = None
        # What calls were refused for: the flags, and the server's words.
        self._refusals: dict[tuple[str, ...], str] = {}
        self._media: dict[str, str] = {}
        # Whoever comes second waits here, and finds what the first has learnt.
        self._learning = asyncio.Lock()

    async def profile(self, *, probe: bool = False, refresh: bool = False) -> ServerProfile:
        """Give what is known, and learn what is missing.

        Raises:
            TransportError: The server cannot be reached.
            AuthenticationError: It wants another key.
        """
        seen = self._profile
        async with self._learning:
            profile = self._profile
            if refresh and profile is seen:
                self._media.clear()
                self._refusals.clear()  # the server may have been started anew
                profile = None
            if profile is None:
                profile = self._keep(await self._learn())
            if probe and not profile.probed:
                profile = self._keep(await self._probe(profile))
            return profile

    def _keep(self, profile: ServerProfile) -> ServerProfile:
        self._profile = self._calls.profile = profile
        return profile

    @property
    def known(self) -> ServerProfile | None:
        """What is known so far."""
        return self._profile

    def set(self, profile: ServerProfile) -> None:
        """Take this profile for what is known."""
        self._keep(profile)

    def refused(self, error: UnsupportedByServerError) -> None:
        """Take note of a call that was refused for want of flags, or for one of its parts."""
        if error.limit == 0:
            self._media[error.feature] = error.message
            if self._profile is not None:
                self._keep(after_media(self._profile, error.feature, error.message))
        elif error.flags:
            self._refusals[error.flags] = error.message
            if self._profile is not None:
                self._keep(after_refusal(self._profile, error.flags, error.message))

    # ── asking ───────────────────────────────────────────────────────────────────────────────────

    async def _learn(self) -> ServerProfile:
        calls = self._calls
        profile = ServerProfile(base_url=calls.base_url)
        # All at once: a run waits for this before its first turn.
        (version, why), told, document, metrics = await _together(
            self._version(), self._cards(), self._get("/openapi.json"), self._get("/metrics")
        )
        profile = with_version(profile, version, why)
        cards, why = told
        own = [card for card in cards if card.parent is None]
        roots = {card.root or card.id for card in own}
        model = calls.config.model or (own[0].id if own and len(roots) == 1 else None)
        profile = with_cards(profile.with_(model=model), cards, why)
        profile = with_openapi(profile, *document)
        profile = await self._with_tokens(profile, model)
        profile = await self._with_thinking(profile, model)
        profile = _with_metrics(profile, *metrics)
        for flags, message in self._refusals.items():
            profile = after_refusal(profile, flags, message)
        for what, message in self._media.items():
            profile = after_media(profile, what, message)
        return profile

    async def _get(self, path: str) -> tuple[bytes | None, str | None]:
        try:
            return await self._calls.get(path, root=True), None
        except _TOLD as error:
            return None, f"{path}: {error.message[:160]}"

    async def _version(self) -> tuple[str | None, str | None]:
        try:
            said = await self._calls.ask("/version", decode_version, root=True)
        except _TOLD as error:
            return None, f"/version: {error.message[:160]}"
        return said.version, None

    async def _cards(self) -> tuple[list[Any], str | None]:
        try:
            return (await self._calls.ask("/models", decode_models)).data, None
        except AuthenticationError:
            raise
        except _TOLD as error:
            return [], f"/v1/models: {error.message[:160]}"

    async def _with_tokens(self, profile: ServerProfile, model: str | None) -> ServerProfile:
        if model is None:
            return with_tokens(profile, None, None, "no model is chosen")
        tokenize = Tokens(self._calls).tokenize
        for messages in (_MESSAGES, [_USER]):
            try:
                without, with_tool = await _together(
                    tokenize(messages=messages, model=model),
                    tokenize(messages=messages, tools=[_TOOL], model=model),
                )
            except BadRequestError as error:
                # A template may refuse a system message: once more without one.
                why = f"/tokenize: {error.message[:160]}"
                profile = with_tokens(profile, None, None, why)
            except _TOLD as error:
                return with_tokens(profile, None, None, f"/tokenize: {error.message[:160]}")
            else:
                counts = (without.count, with_tool.count)
                profile = with_tokens(profile, counts, without.max_model_len, None)
                return with_roles(profile, messages is _MESSAGES, await self._strict(model))
        return profile

    async def _strict(self, model: str) -> bool | None:
        """Tell whether the template refuses two messages of one role."""
        try:
            await Tokens(self._calls).tokenize(messages=[_USER, _USER], model=model)
        except BadRequestError:
            return True
        except _TOLD:
            return None
        return False

    async def _with_thinking(self, profile: ServerProfile, model: str | None) -> ServerProfile:
        if model is None:
            return with_thinking(profile, None, "no model is chosen")
        variables: dict[str, dict[str, Any]] = {
            **{f"{name}+": {name: True} for name in THINKING_SWITCHES},
            **{f"{name}-": {name: False} for name in THINKING_SWITCHES},
            **{effort: {"reasoning_effort": effort} for effort in ("low", "high")},
        }
        tokenize = Tokens(self._calls).tokenize
        prompts: dict[str, tuple[int, ...]] = {}
        for name, each in variables.items():
            try:
                said = await tokenize(messages=_MESSAGES, model=model, chat_template_kwargs=each)
            except _TOLD as error:
                return with_thinking(profile, None, f"/tokenize: {error.message[:160]}")
            prompts[name] = tuple(said.tokens)
        return with_thinking(profile, prompts, None)

    # ── probing ──────────────────────────────────────────────────────────────────────────────────

    async def _probe(self, profile: ServerProfile) -> ServerProfile:
        model = profile.model
        if model is None:
            raise UsageError("A probe needs a model: name one with model= or VLLM_MODEL.")
        for what, body in _probes(model):
            if getattr(profile, what).value is None:
                said = await self._asked("/chat/completions", body)
                profile = after_probe(profile, what, said)
        if profile.responses.value and profile.responses_store.value is None:
            said = await self._asked("/responses", _stored(model))
            profile = after_probe(profile, "responses_store", said)
        return profile.with_(probed=True)

    async def _asked(self, path: str, body: dict[str, Any]) -> dict[str, Any] | VLLMError:
        try:
            whole = await self._calls.fetch(self._calls.call(path, body, {}))
            said = _codec.decode(whole.body)
        except _TOLD as error:
            return error
        return said if isinstance(said, dict) else {}


async def _together(*asked: Coroutine[Any, Any, Any]) -> list[Any]:
    """Wait for all; the first failure ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in asked]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _with_metrics(profile: ServerProfile, body: bytes | None, why: str | None) -> ServerProfile:
    flag = profile.prefix_caching.flag
    on = None
    if body is not None:
        try:
            on = read_metrics(body.decode("utf-8", "replace")).prefix_caching
        except ProtocolError as error:
            why = error.message[:160]
    if on is None:
        return profile.with_(prefix_caching=Known(flag=flag, reason=why))
    return profile.with_(prefix_caching=Known(on, "metrics", flag))


def _probes(model: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Chats of one token each, by the fact they tell."""
    common = {"model": model, "messages": _MESSAGES, "max_tokens": 1}
    yield "reasoning_parser", common
    named = {"type": "function", "function": {"name": "probe"}}
    choices = {"auto_tools": "auto", "required_tools": "required", "named_tools": named}
    for what, choice in choices.items():
        yield what, {**common, "tools": [_TOOL], "tool_choice": choice}
    strict = {"type": "function", "function": {**_FUNCTION, "strict": True}}
    yield "strict_tools", {**common, "tools": [strict], "tool_choice": "required"}
    for what, (kind, url) in _MEDIA.items():
        part = {"type": kind, kind: {"url": url}}
        content = [{"type": "text", "text": "x"}, part]
        yield what, {**common, "messages": [_MESSAGES[0], {"role": "user", "content": content}]}


def _stored(model: str) -> dict[str, Any]:
    """A response of one token; in the background, because a server without a store refuses that."""
    asked: dict[str, Any] = {"model": model, "instructions": "x", "input": "x"}
    return {**asked, "max_output_tokens": 1, "store": True, "background": True}
