"""What a server tells of itself: `vllm.models`, `vllm.server`, tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from vllm_agent_sdk._core.server.metrics import read_metrics
from vllm_agent_sdk.client.calls import Calls
from vllm_agent_sdk.client.profile import Profiler
from vllm_agent_sdk.errors import (
    ModelNotFoundError,
    ServerError,
    TransportError,
    UnsupportedByServerError,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.types.metrics import ServerMetrics, decode_load
from vllm_agent_sdk.types.options import Price, Timeout
from vllm_agent_sdk.types.profile import ServerProfile, model_info
from vllm_agent_sdk.types.server import (
    ModelInfo,
    ModelList,
    decode_models,
    decode_version,
)

__all__ = ["Models", "Server"]


def _metrics(body: bytes) -> ServerMetrics:
    return read_metrics(body.decode("utf-8", "replace"))


class Models:
    """The models that the server serves (`/v1/models`)."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(
        self,
        *,
        prices: Mapping[str, Price] | None = None,
        tiers: Mapping[str, str] | None = None,
        timeout: Timeout | float | None = None,
    ) -> ModelList:
        """List the models, LoRA adapters among them, with what is known of each.

        Nothing else is asked: what the card does not tell is known after `server.profile()`.

        Args:
            prices: By model id; no server tells its prices.
            tiers: Cost tiers as you call them, by model id.
            timeout: The clocks, or seconds in all.
        """
        call = self._calls.call("/models", None, {"timeout": timeout})
        whole, models = await self._calls.read(call, decode_models)
        models.attach(whole.body, call.request_id)
        profile = self._calls.profile or ServerProfile()
        profile = profile.with_(models=tuple(models.data))
        for card in models.data:
            price, tier = (prices or {}).get(card.id), (tiers or {}).get(card.id)
            vars(card)["known"] = model_info(card, profile, price, tier)
        return models

    async def retrieve(
        self,
        id: str,
        *,
        prices: Mapping[str, Price] | None = None,
        tiers: Mapping[str, str] | None = None,
        timeout: Timeout | float | None = None,
    ) -> ModelInfo:
        """Give one model's card (vLLM has no route for one: the list is filtered).

        Takes what `list` takes.

        Raises:
            ModelNotFoundError: There is none of this name; `known` holds the names there are.
        """
        cards = (await self.list(prices=prices, tiers=tiers, timeout=timeout)).data
        for card in cards:
            if card.id == id:
                return card
        known = tuple(card.id for card in cards)
        raise ModelNotFoundError(
            f"The server does not serve {id!r}; it serves {', '.join(known) or 'nothing'}.",
            status=404,
            known=known,
        )


class Server:
    """The server itself."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._profiler = Profiler(calls)

    async def health(self, *, timeout: Timeout | float | None = None) -> bool:
        """Tell whether `/health` says yes: the engine lives. It does not test generation.

        Raises:
            TransportError: Nobody answers.
        """
        try:
            await self._calls.get("/health", root=True, probe=True, timeout=timeout)
        except ServerError as error:
            if error.status == 503:
                return False
            raise
        return True

    async def wait_until_ready(
        self,
        *,
        timeout: float = 600.0,
        interval: float = 0.5,
        progress: Callable[[float, str], None] | None = None,
    ) -> None:
        """Wait until `/health` says yes.

        Args:
            timeout: Seconds until it gives up.
            interval: Seconds between two questions.
            progress: Called after each question with the seconds so far and the last answer.

        Raises:
            TransportError: It did not say yes in time; the cause is the last answer.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            said: VLLMError | None = None
            try:
                if await self.health(timeout=min(10.0, timeout)):
                    return
                answer = "its engine is not alive"
            except VLLMError as error:
                if isinstance(error, UsageError):
                    raise
                said, answer = error, str(error)
            waited = loop.time() - begun
            if progress is not None:
                progress(waited, answer)
            if waited + interval > timeout:
                raise TransportError(
                    f"The server at {self._calls.base_url} was not ready within {timeout} s: "
                    f"{answer}"
                ) from said
            await asyncio.sleep(interval)

    async def version(self, *, timeout: Timeout | float | None = None) -> str:
        """Give the server's version, such as `"0.32.0"`."""
        return (
            await self._calls.ask("/version", decode_version, root=True, timeout=timeout)
        ).version

    async def metrics(self, *, timeout: Timeout | float | None = None) -> ServerMetrics:
        """Give what `/metrics` says as typed values, under one name for all versions of vLLM.

        Raises:
            ProtocolError: It is not in Prometheus' text form.
        """
        return await self._calls.ask("/metrics", _metrics, root=True, timeout=timeout)

    async def load(self, *, timeout: Timeout | float | None = None) -> int:
        """Give the requests that the server is answering.

        It is always 0 without `--enable-server-load-tracking`, and one process's number where
        there are several.
        """
        load = await self._calls.ask("/load", decode_load, root=True, timeout=timeout)
        return load.server_load

    async def profile(self, *, probe: bool = False, refresh: bool = False) -> ServerProfile:
        """Give what is known of the server; learnt at the first call and kept for this client.

        Concurrent callers share one learning. What the server does not tell is unknown, with a
        reason; `profile.explain()` says it all in words.

        Args:
            probe: Learn also what only requests of a few tokens tell (tools, reasoning parser,
                modalities, the Responses store).
            refresh: Learn it anew.

        Raises:
            TransportError: The server cannot be reached.
            AuthenticationError: It wants another key.
        """
        return await self._profiler.profile(probe=probe, refresh=refresh)

    @property
    def known_profile(self) -> ServerProfile | None:
        """What has been learnt or set so far; nothing is asked."""
        return self._profiler.known

    def set_profile(self, profile: ServerProfile) -> None:
        """Take this profile for what is known; nothing is asked then."""
        self._profiler.set(profile)

    def refused(self, error: UnsupportedByServerError) -> None:
        """Take note, in the profile, of a call that was refused for want of flags."""
        self._profiler.refused(error)
