"""`AsyncVLLM`: one client of a server, or of several alike: resources, connections, their end."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from vllm_agent_sdk.errors import UnsupportedByServerError, UsageError
from vllm_agent_sdk.telemetry.recorder import Recorder
from vllm_agent_sdk.transport.base import Transport
from vllm_agent_sdk.types.chat import ChatDefaults
from vllm_agent_sdk.types.options import HTTPOptions, RetryPolicy, Timeout

if TYPE_CHECKING:
    from vllm_agent_sdk.client.completions import Completions
    from vllm_agent_sdk.client.responses import Responses
    from vllm_agent_sdk.client.server import Models, Server
    from vllm_agent_sdk.types.profile import ServerProfile

__all__ = ["AsyncVLLM"]


class AsyncVLLM:
    """A client of a vLLM server.

    Use it as `async with AsyncVLLM() as vllm`, or call `aclose()`. It belongs to the event loop of
    its first call.

    Args:
        base_url: The server's address, with or without `/v1`. Unset: `VLLM_BASE_URL`, then
            `VLLM_API_BASE`, then `OPENAI_BASE_URL`, then `http://127.0.0.1:8000/v1`. A list makes a
            pool of servers that serve the same models: calls go to the one with the fewest under
            way (`HTTPOptions.balance`), and past those that fail.
        api_key: The bearer key. Unset: `VLLM_API_KEY` (and `OPENAI_API_KEY` where the address came
            from `OPENAI_BASE_URL`), else none.
        model: For calls that name none. Unset: `VLLM_MODEL`, else the server's only model.
        timeout: The clocks, or seconds in all. Unset: `Timeout()`, with `VLLM_TIMEOUT` as total.
        retry: When a call is sent again. Unset: `RetryPolicy()`.
        headers: Sent with every request; `None` as a value removes one of ours.
        http: How HTTP is spoken.
        defaults: Fields of chat completions for calls that leave them out; the call wins.
        telemetry: Takes facts of all calls as they happen (`telemetry.recorder.Recorder`).
        transport: What carries the requests, instead of HTTP over sockets.

    Raises:
        UsageError: A setting cannot be used; the message names it.
    """

    def __init__(
        self,
        base_url: str | Sequence[str] | None = None,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: Timeout | float | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str | None] | None = None,
        http: HTTPOptions | None = None,
        defaults: ChatDefaults | None = None,
        telemetry: Recorder | None = None,
        transport: Transport | None = None,
    ) -> None:
        # Loaded by the first client: importing the class stays quick.
        from vllm_agent_sdk.client.calls import HTTP_MODULE, Calls
        from vllm_agent_sdk.client.chat import Chat
        from vllm_agent_sdk.client.config import resolve
        from vllm_agent_sdk.client.fields import check_fields
        from vllm_agent_sdk.client.tokens import Tokens
        from vllm_agent_sdk.transport.reports import reporter

        config = resolve(
            base_url=base_url, api_key=api_key, model=model, timeout=timeout, http=http
        )
        if defaults:
            check_fields(defaults, ChatDefaults, "defaults=")
        self._calls = Calls(
            config,
            retry or RetryPolicy(),
            headers or {},
            dict(defaults or {}),
            transport,
            reporter(telemetry),
        )
        self.chat = Chat(self._calls, lambda: self.server, self._known_profile)
        self._calls.refused = self._refused
        tokens = Tokens(self._calls)
        self.tokenize = tokens.tokenize
        self.detokenize = tokens.detokenize
        if transport is None and not _loop_runs():
            importlib.import_module(HTTP_MODULE)  # here it stalls nobody

    # What many programs never use is loaded at its first use: importing the client stays quick.

    @functools.cached_property
    def completions(self) -> Completions:
        """Completions of a plain text (`/v1/completions`)."""
        from vllm_agent_sdk.client.completions import Completions

        return Completions(self._calls)

    @functools.cached_property
    def models(self) -> Models:
        """The models that the server serves."""
        from vllm_agent_sdk.client.server import Models

        return Models(self._calls)

    @functools.cached_property
    def server(self) -> Server:
        """What the server tells of itself: its health, version, load, metrics and profile."""
        from vllm_agent_sdk.client.server import Server

        return Server(self._calls)

    @functools.cached_property
    def responses(self) -> Responses:
        """Responses (`/v1/responses`)."""
        from vllm_agent_sdk.client.responses import Responses

        return Responses(self._calls)

    @property
    def base_url(self) -> str:
        """The address, with `/v1`; of several the first."""
        return self._calls.config.base_url

    @property
    def model(self) -> str | None:
        """The model for calls that name none, or `None`: the server's only one."""
        return self._calls.config.model

    def __repr__(self) -> str:
        return f"AsyncVLLM({self.base_url!r}, model={self.model!r})"

    def __reduce__(self) -> NoReturn:
        raise UsageError("A client cannot be pickled: it holds connections and a key.")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self, drain: float = 0.0) -> None:
        """Take no new calls (`ClientClosedError`), and close the connections. Idempotent.

        Args:
            drain: Seconds that calls and streams under way are given to end by themselves. Then
                calls end in a `ClientClosedError`, and streams in a `StreamTruncatedError` with
                what had come. Closing once more, with a shorter time, cuts the wait short.
        """
        await self._calls.aclose(drain)

    async def resolve_model(self, model: str | None = None) -> str:
        """Give the name of the model that a call would use: `model`, the client's, or the only one.

        Raises:
            UsageError: The server serves several and none is named; they are listed.
        """
        return await self._calls.resolve_model(model)

    def _known_profile(self) -> ServerProfile | None:
        server = vars(self).get("server")  # not loaded for this
        return None if server is None else server.known_profile

    def _refused(self, error: UnsupportedByServerError) -> None:
        self.server.refused(error)


def _loop_runs() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
