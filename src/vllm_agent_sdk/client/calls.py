"""What every resource of a client is made of: calls that go out with the client's settings.

It owns the connections, and is owned by the client whose resources share it.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from vllm_agent_sdk.client.config import Config, as_timeout
from vllm_agent_sdk.client.headers import Headers
from vllm_agent_sdk.errors import (
    ClientClosedError,
    ModelNotFoundError,
    UnsupportedByServerError,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.transport.base import Transport
from vllm_agent_sdk.transport.guard import Booking, Guard
from vllm_agent_sdk.transport.pipeline import Call, OpenStream, Pipeline, Whole, mask_of
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.options import RetryPolicy, Timeout
from vllm_agent_sdk.types.server import decode_models

if TYPE_CHECKING:
    from vllm_agent_sdk.telemetry.recorder import ServerFact
    from vllm_agent_sdk.types.profile import ServerProfile

__all__ = ["HTTP_MODULE", "Calls"]

T = TypeVar("T")

#: Seconds that a server is given to say how it is.
_HEALTH_S = 5.0
HTTP_MODULE = "vllm_agent_sdk.transport.http"


class Calls:
    """Makes a client's calls and sends them.

    Args:
        config: The client's settings.
        retry: When a call is sent again.
        headers: Sent with every request; `None` as a value removes one of ours.
        defaults: Fields of chat completions for calls that leave them out.
        transport: What carries the requests, instead of HTTP over sockets.
        report: Takes facts of all calls, if anybody wants them.

    Attributes:
        request_id: Gives a call's `X-Request-Id` from its keywords (`Headers.request_id`).
        refused: Told of each thing that the server turns out not to support.
        profile: What is known of the server, once that was asked for or set by hand.
    """

    def __init__(
        self,
        config: Config,
        retry: RetryPolicy,
        headers: Mapping[str, str | None],
        defaults: Mapping[str, Any],
        transport: Transport | None,
        report: Callable[[ServerFact], None] | None = None,
    ) -> None:
        self.config = config
        self.defaults = defaults
        self.profile: ServerProfile | None = None
        self._report = report
        self.refused: Callable[[UnsupportedByServerError], None] = _not_told
        self._retry = retry
        self._headers = Headers(config, headers)
        self.request_id = self._headers.request_id
        self._given = transport
        self._transport: Transport | None = None
        self._pipeline: Pipeline | None = None
        self._guard: Guard | None = None
        self._opening: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._only_model: str | None = None
        # The routes of which the server of a profile is known to lack nothing.
        self._current_for: ServerProfile | None = None
        self._current: set[str] = set()

    @property
    def base_url(self) -> str:
        """The address, with `/v1`; of several the first."""
        return self.config.base_url

    async def aclose(self, drain: float) -> None:
        """Take no new calls and close the connections, after `drain` seconds at most."""
        if not drain >= 0:
            raise UsageError(f"aclose(drain={drain!r}): give seconds, 0 or more.")
        self._closed = True
        pipeline = self._pipeline
        try:
            if pipeline is not None:
                await pipeline.aclose(drain)
        finally:
            self._pipeline = None
            transport, self._transport = self._transport, None
            if transport is not None and self._given is None:
                await transport.aclose()

    async def chat_call(self, body: dict[str, Any], params: Mapping[str, Any]) -> Call:
        """Make the call of a chat completion; the model is the only one where none is named."""
        if body.get("model") is None:
            known = self.config.model or self._only_model
            body["model"] = known or await self.resolve_model(None)
        return self.call("/chat/completions", body, params)

    async def resolve_model(self, model: str | None) -> str:
        """Give the model's name: the one named, the client's, or the server's only one.

        Raises:
            UsageError: The server serves several and none is named; they are listed.
        """
        named = model or self.config.model or self._only_model
        if named is None:
            own = (await self.ask("/models", decode_models)).own_models()
            if not own:
                raise ModelNotFoundError(f"The server at {self.base_url} serves no model.")
            if len(own) > 1:
                names = ", ".join(card.id for card in own)
                raise UsageError(
                    f"The server at {self.base_url} serves several models ({names}); name one with "
                    "model= or VLLM_MODEL."
                )
            named = self._only_model = own[0].id
        return named

    async def get(
        self,
        path: str,
        *,
        root: bool = False,
        probe: bool = False,
        timeout: Timeout | float | None = None,
    ) -> bytes:
        """Get a path's body; `root` for routes outside `/v1`, `probe` to ask once, regardless."""
        call = self.call(path, None, {"timeout": timeout}, root=root, probe=probe)
        return (await self.fetch(call)).body

    async def read(self, call: Call, decode: Callable[[bytes], T]) -> tuple[Whole, T]:
        """Get a call's whole reply, and what its body says.

        Raises:
            ProtocolError: It cannot be read; the key is hidden in what is shown of it.
        """
        whole = await self.fetch(call)
        try:
            return whole, decode(whole.body)
        except VLLMError as error:
            failure = error
        mask = mask_of(call)
        try:
            decode(mask.data(whole.body))  # what is shown is cut: half a key must not be seen
        except VLLMError as error:
            failure = error
        mask.error(failure)
        raise failure.with_facts(request_id=call.request_id) from failure.__cause__

    async def ask(
        self,
        path: str,
        decode: Callable[[bytes], T],
        *,
        body: Mapping[str, Any] | None = None,
        root: bool = False,
        timeout: Timeout | float | None = None,
    ) -> T:
        """Get what a path says, or what it answers to a body; `root` for routes outside `/v1`."""
        call = self.call(path, body, {"timeout": timeout}, root=root)
        return (await self.read(call, decode))[1]

    async def fetch(self, call: Call) -> Whole:
        """Get a call's whole reply."""
        pipeline = await self._connected()
        try:
            return await pipeline.fetch(call)
        except UnsupportedByServerError as error:
            self.refused(error)
            raise

    async def open(self, call: Call) -> OpenStream:
        """Open a call's stream."""
        pipeline = await self._connected()
        try:
            return await pipeline.open(call)
        except UnsupportedByServerError as error:
            self.refused(error)
            raise

    def call(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        params: Mapping[str, Any],
        *,
        root: bool = False,
        probe: bool = False,
        stores: bool = False,
    ) -> Call:
        """Make a call; `root` for routes outside `/v1`, `GET` where there is no body.

        `stores` for what changes something on the server: it is not sent again.
        """
        request_id = self.request_id(params)
        timeout = params.get("timeout")
        url, *elsewhere = self.config.urls(path, root=root)
        if body is not None:
            body = self.suited(path, body)
        headers = self._headers.of(request_id, params.get("extra_headers"))
        return Call(
            method="GET" if body is None else "POST",
            url=url,
            elsewhere=tuple(elsewhere),
            headers=headers,
            body=self._encoded(body),
            timeout=self.config.timeout if timeout is None else as_timeout(timeout),
            request_id=request_id,
            has_key="authorization" in headers,
            booking=self._booking(body, stores=stores, probe=probe),
            max_response_bytes=self.config.http.max_response_bytes,
        )

    def suited(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write a body as the server knows it, if it is known to be an older one.

        Raises:
            UnsupportedByServerError: It is too old for something that is asked.
        """
        profile = self.profile
        if profile is None:
            return body
        if self._current_for is not profile:
            self._current_for, self._current = profile, set()
        if path in self._current:
            return body
        from vllm_agent_sdk._core.server.drift import lacks, suited

        if not lacks(path, profile):
            self._current.add(path)
        return suited(path, body, profile)

    def _encoded(self, body: Mapping[str, Any] | None) -> bytes | None:
        if body is None:
            return None
        encoded = _codec.encode_body(body)
        limit = self.config.http.max_request_bytes
        if limit is not None and len(encoded) > limit:
            raise UsageError(
                f"The request has {len(encoded)} bytes, more than "
                f"HTTPOptions(max_request_bytes={limit}) allows."
            )
        return encoded

    def _booking(self, body: Mapping[str, Any] | None, *, stores: bool, probe: bool) -> Booking:
        limited = self.config.http.tokens_per_min is not None
        if not (stores or probe or limited):
            return _BOOKING
        return Booking(stores=stores, tokens=self._tokens(body), probe=probe)

    def _tokens(self, body: Mapping[str, Any] | None) -> int:
        """Estimate the tokens a call may need: four bytes of prompt each, and what it may write."""
        if body is None or self.config.http.tokens_per_min is None:
            return 0
        limits = ("max_completion_tokens", "max_tokens", "max_output_tokens")
        most = next((body[name] for name in limits if body.get(name)), 0)
        prompt = body.get("messages") or body.get("prompt") or body.get("input") or ""
        return len(_codec.encode(prompt)) // 4 + int(most) * int(body.get("n") or 1)

    def used(self, call: Call, tokens: int | None) -> None:
        """Tell the rate limit how many tokens a call used (`None`: the server did not say)."""
        if tokens is not None and self._guard is not None:
            self._guard.used(call.booking.tokens, tokens)

    async def _connected(self) -> Pipeline:
        """Give the pipeline, made by the first call inside its loop."""
        loop = asyncio.get_running_loop()
        if self._pipeline is not None and self._loop is loop and not self._closed:
            return self._pipeline
        if self._closed:
            raise ClientClosedError("The client is closed; make a new one.")
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise UsageError(
                "The client belongs to the event loop of its first call and was used from another; "
                "make one client for each loop."
            )
        if self._pipeline is None:
            if self._opening is None:
                # One for all who wait, and all go on at once; it goes on without who began it.
                self._opening = loop.create_task(self._open())
            await asyncio.shield(self._opening)
        if self._pipeline is None:
            raise ClientClosedError("The client was closed while a call was on its way.")
        return self._pipeline

    async def _open(self) -> None:
        """Make the transport and the pipeline."""
        try:
            transport = self._given or await _http(self.config)
            if self._closed:
                await transport.aclose()
                raise ClientClosedError("The client was closed while a call began.")
        finally:
            self._opening = None
        self._transport = transport
        servers = (self.config.base_url, *self.config.others)
        http = self.config.http
        self._guard = Guard(self._retry, http, servers, self._healthy, self._report)
        self._pipeline = Pipeline(transport, self._guard, servers, self._report)

    async def _healthy(self, server: int) -> bool:
        """Ask one of the servers whether its engine lives."""
        pipeline = self._pipeline
        if pipeline is None:
            return False
        url, *elsewhere = self.config.urls("/health", root=True)
        call = Call(
            method="GET",
            url=url,
            elsewhere=tuple(elsewhere),
            headers=self._headers.of(None),
            timeout=Timeout(connect=_HEALTH_S, total=_HEALTH_S),
            booking=Booking(probe=True, server=server),
        )
        try:
            await pipeline.fetch(call)
        except VLLMError:
            return False
        return True


#: Of a call that nobody limits.
_BOOKING = Booking()


def _not_told(_error: UnsupportedByServerError) -> None:
    return None


async def _http(config: Config) -> Transport:
    # aiohttp takes long to import: not on the loop.
    module = await asyncio.to_thread(importlib.import_module, HTTP_MODULE)
    tls = await asyncio.to_thread(module.tls_context, config.http)
    transport: Transport = module.AiohttpTransport(config.http, tls, config.proxy_for)
    return transport
