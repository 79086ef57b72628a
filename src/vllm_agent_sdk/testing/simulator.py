"""A vLLM server for tests: scripted replies in vLLM 0.32's bytes, on a socket or without one."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from typing_extensions import Unpack

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.testing.chat_route import ChatRoute, Script
from vllm_agent_sdk.testing.completions_route import CompletionsRoute
from vllm_agent_sdk.testing.exchange import Answer, SimulatorRequest, Sink, deliver
from vllm_agent_sdk.testing.fields import FieldCheck
from vllm_agent_sdk.testing.http_server import HTTPServer
from vllm_agent_sdk.testing.in_process import InProcessTransport
from vllm_agent_sdk.testing.reply import Reply
from vllm_agent_sdk.testing.responses_route import PATH, ResponsesRoute
from vllm_agent_sdk.testing.routes import Routes
from vllm_agent_sdk.testing.settings import Settings, SimulatorOptions
from vllm_agent_sdk.testing.tokens import Prompts
from vllm_agent_sdk.transport.base import Transport

__all__ = ["Simulator"]

_CHAT = "/v1/chat/completions"
_GENERATE = (_CHAT, "/v1/completions", PATH)


class Simulator:
    """A server that answers chats, completions and Responses with the given replies, in order.

    ```python
    calls = Reply.calls(("get_weather", {"city": "Paris"}))
    async with Simulator(calls, Reply.text("18 °C")) as server:
        ...  # server.base_url, server.requests
    ```

    The last reply is given again and again; without any, the reply is `"OK"`. A function given as
    a reply is called with the `SimulatorRequest` and decides by itself; what it raises is raised
    again at the end of the block. Plain `with` works too: the server then has its own thread.

    A token is a word, so counts are small numbers that a test can name.

    Attributes:
        requests: All requests so far, in the order they came.
        healthy: What `/health` says: 200 while `True`, 503 while `False`.
        disconnects: How many clients left before their reply had ended.
    """

    def __init__(self, *replies: Script, **options: Unpack[SimulatorOptions]) -> None:
        for reply in replies:
            if not isinstance(reply, Reply) and not callable(reply):
                raise UsageError(f"A reply is a Reply or a function, not {type(reply).__name__}.")
        try:
            self._settings = Settings(**options)
        except TypeError as cause:
            known = ", ".join(sorted(SimulatorOptions.__optional_keys__))
            raise UsageError(f"A Simulator's options are {known}: {cause}.") from None
        self.requests: list[SimulatorRequest] = []
        self.healthy = True
        self.disconnects = 0
        self._changed = threading.Condition()
        self._listeners: set[Callable[[], None]] = set()
        self._active: dict[int, SimulatorRequest] = {}
        prompts = Prompts(blind=self._settings.blind)
        self._fields = FieldCheck(self._settings.check_fields)
        self._chat = ChatRoute(
            self._settings, prompts, self._fields, replies or (Reply.text("OK"),)
        )
        self._chat.died = self._died
        scripted = (self._fields, self._chat.next_reply, self._chat.failed)
        self._routes = Routes(
            self._settings,
            prompts,
            self._fields,
            chat=self._chat.answer,
            completions=CompletionsRoute(self._settings, prompts, *scripted).answer,
            responses=ResponsesRoute(self._settings, prompts, *scripted),
            healthy=lambda: self.healthy,
            running=lambda: sum(each.path in _GENERATE for each in self._active.values()),
        )
        self._http = HTTPServer(self, keepalive_s=self._settings.keepalive_s)
        self._port: int | None = None
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    # ── what a test sees ─────────────────────────────────────────────────────────────────────────

    @property
    def base_url(self) -> str:
        """The URL for clients, `http://127.0.0.1:PORT/v1`; known inside the `with` block."""
        if self._port is None:
            raise UsageError("The simulator has no URL outside its `with` block.")
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def transport(self) -> Transport:
        """A new transport that needs no socket; any URL leads to this server."""
        return InProcessTransport(self)

    @property
    def chats(self) -> list[SimulatorRequest]:
        """The chat requests among `requests`."""
        return [each for each in self.requests if each.path == _CHAT]

    @property
    def running(self) -> int:
        """How many requests are being answered right now."""
        return len(self._active)

    async def wait_for(self, predicate: Callable[[], bool], timeout: float = 5.0) -> None:
        """Wait until `predicate()` holds; it is asked again after each change on the server.

        Raises:
            TimeoutError: It did not within `timeout` seconds.
        """
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def tell() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._changed:
            self._listeners.add(tell)
        try:
            async with asyncio.timeout(timeout):
                while not predicate():
                    await changed.wait()
                    changed.clear()
        finally:
            with self._changed:
                self._listeners.discard(tell)

    def wait_for_sync(self, predicate: Callable[[], bool], timeout: float = 5.0) -> None:
        """Do the same as `wait_for`, blocking: for plain `with`.

        Raises:
            TimeoutError: It did not within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(predicate, timeout):
                raise TimeoutError(f"It did not happen within {timeout} s.")

    # ── its life ─────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        self._port = await self._http.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._port = None
        await self._http.stop()
        self._raise_errors(error)

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(started)), name="simulator", daemon=True
        )
        self._thread.start()
        started.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._thread is not None
        self._port = None
        self._stop()
        self._thread.join()
        self._raise_errors(error)

    async def _run(self, started: threading.Event) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        try:
            self._port = await self._http.start()
        finally:
            started.set()
        await stopped.wait()
        await self._http.stop()

    def _raise_errors(self, error: BaseException | None) -> None:
        # What went wrong in the test's own function explains what the client then ran into; but
        # an interrupt or a cancellation is never replaced.
        failure = self._chat.errors[0] if self._chat.errors else self._fields.failure()
        if failure is not None and (error is None or isinstance(error, Exception)):
            raise failure from error

    # ── requests: the same for the socket and for the transport ──────────────────────────────────

    async def serve(self, request: SimulatorRequest, sink: Sink) -> None:
        """Answer a request; called by the socket and the transport."""

        def finished() -> None:
            if id(request) in self._active:
                self._change(lambda: self._active.pop(id(request)))

        def begin() -> None:
            self.requests.append(request)
            self._active[id(request)] = request

        self._change(begin)
        try:
            answer = await self._answer(request)
            if self._settings.request_id_headers:
                answer = answer.with_headers(("x-request-id", self._request_id(request)))
            await deliver(answer, sink, finished)
        finally:
            finished()

    def _died(self) -> None:
        self.healthy = False

    async def _answer(self, request: SimulatorRequest) -> Answer:
        try:
            answer = self._routes.answer(request)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as error:  # noqa: BLE001 - raised again at the end of the block
            return self._chat.failed(error)

    def _request_id(self, request: SimulatorRequest) -> str:
        made = hashlib.sha256(f"request id {len(self.requests)}".encode()).hexdigest()[:32]
        return request.headers.get("x-request-id", made)

    def client_gone(self, request: SimulatorRequest) -> None:
        """Hear that a client left; called by the socket and the transport."""

        def gone() -> None:
            del self._active[id(request)]
            self.disconnects += 1

        if id(request) in self._active:
            self._change(gone)

    def _change(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()
            listeners = list(self._listeners)
        for tell in listeners:
            tell()
