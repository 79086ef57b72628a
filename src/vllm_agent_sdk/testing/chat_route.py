"""The route that the scripted replies are for: `/v1/chat/completions`."""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.testing import checks, wire
from vllm_agent_sdk.testing.exchange import Answer, SimulatorRequest
from vllm_agent_sdk.testing.fields import FieldCheck
from vllm_agent_sdk.testing.jsontypes import is_object
from vllm_agent_sdk.testing.model_output import ChatFacts
from vllm_agent_sdk.testing.reply import Reply
from vllm_agent_sdk.testing.settings import Settings
from vllm_agent_sdk.testing.tokens import Prompts

__all__ = ["ChatRoute", "Script"]

#: A reply, or a function that gives one for a request (it may be async).
Script: TypeAlias = Reply | Callable[[SimulatorRequest], Reply | Awaitable[Reply]]


class ChatRoute:
    """Answers chat requests with the replies of a script, in order.

    Attributes:
        errors: What the script's own functions raised.
        died: Called when a reply is given with which the engine dies.
    """

    def __init__(
        self,
        settings: Settings,
        prompts: Prompts,
        fields: FieldCheck,
        replies: Sequence[Script],
    ) -> None:
        self._settings = settings
        self._prompts = prompts
        self._fields = fields
        self._replies = replies
        self._given = 0
        self._calls = 0
        # The socket and an in-process transport may run on loops of their own.
        self._lock = threading.Lock()
        self.errors: list[Exception] = []
        self.died: Callable[[], None] = lambda: None

    def answer(self, request: SimulatorRequest) -> Awaitable[Answer]:
        """Give the answer to a request.

        Raises:
            RefusedError: The request is one that vLLM refuses.
        """
        body = checks.read_body(request)
        checks.check_chat(body)
        self._fields.check(request.method, request.path, body)
        checks.check_model(body, self._settings.model)
        checks.check_parser(body, self._settings.tool_parser)
        checks.check_sampling(body)
        prompt = self._prompts.of_chat(body["messages"], body.get("tools"))
        checks.check_length(len(prompt), self._settings.max_model_len)
        return self._reply(request, body, len(prompt))

    async def next_reply(self, request: SimulatorRequest) -> tuple[int, Reply]:
        """Give a request its number and the reply whose turn it is.

        Raises:
            Exception: What the script's function raised.
        """
        with self._lock:
            number = self._given
            self._given += 1
        script = self._replies[min(number, len(self._replies) - 1)]
        reply = script if isinstance(script, Reply) else await _called(script, request)
        if not isinstance(reply, Reply):
            raise UsageError(f"The function gave {type(reply).__name__}, not a Reply.")
        if reply.kills:
            self.died()
        return number, reply

    def failed(self, error: Exception) -> Answer:
        """Keep what the script raised, and tell the client."""
        self.errors.append(error)
        told = wire.error_body(500, f"{type(error).__name__}: {error}", "InternalServerError")
        return wire.error_answer(500, told)

    async def _reply(
        self, request: SimulatorRequest, body: dict[str, Any], prompt_tokens: int
    ) -> Answer:
        try:
            number, reply = await self.next_reply(request)
            calls = len(getattr(reply.body, "calls", ())) * _choices(body)
            with self._lock:
                first_call = self._calls
                self._calls += calls
            return wire.answer(
                reply, self._facts(request, body, (number, first_call, prompt_tokens))
            )
        except Exception as error:  # noqa: BLE001 - raised again at the end of the block
            return self.failed(error)

    def _facts(
        self, request: SimulatorRequest, body: dict[str, Any], counts: tuple[int, int, int]
    ) -> ChatFacts:
        number, first_call, prompt_tokens = counts
        stream_options: dict[str, Any] = body.get("stream_options") or {}
        include_usage = bool(stream_options.get("include_usage"))
        random_id = hashlib.sha256(f"request {number}".encode()).hexdigest()[:16]
        request_id = request.headers.get("x-request-id") or body.get("request_id") or random_id
        choice = checks.tool_choice(body)
        return ChatFacts(
            id=f"chatcmpl-{request_id}",
            model=self._settings.model,
            version=self._settings.version,
            prompt_tokens=prompt_tokens,
            first_call=first_call,
            stream=bool(body.get("stream")),
            include_usage=include_usage,
            continuous_usage=include_usage and bool(stream_options.get("continuous_usage_stats")),
            n=_choices(body),
            tool_choice="named" if is_object(choice) else choice or "auto",
            parse_calls=self._settings.tool_parser is not None and choice != "none",
            has_parser=self._settings.tool_parser is not None,
            parallel_calls=body.get("parallel_tool_calls") is not False,
            include_reasoning=body.get("include_reasoning") is not False,
        )


async def _called(
    script: Callable[[SimulatorRequest], object], request: SimulatorRequest
) -> object:
    given = script(request)
    return await given if inspect.isawaitable(given) else given


def _choices(body: dict[str, Any]) -> int:
    n = body.get("n")
    return n if isinstance(n, int) and n > 0 else 1
