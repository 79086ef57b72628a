"""The routes under `/v1/responses`: the script's replies in Responses' shapes, and the store."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from vllm_agent_sdk.testing import checks, wire
from vllm_agent_sdk.testing.exchange import Answer, Pacing, SimulatorRequest, json_answer
from vllm_agent_sdk.testing.fields import FieldCheck
from vllm_agent_sdk.testing.jsontypes import is_object
from vllm_agent_sdk.testing.model_output import ChatFacts
from vllm_agent_sdk.testing.reply import Fixed, Reply
from vllm_agent_sdk.testing.responses_prompt import chat_messages, chat_tools
from vllm_agent_sdk.testing.responses_wire import (
    ResponseFacts,
    frames_of,
    response_object,
    whole_output,
)
from vllm_agent_sdk.testing.settings import Settings
from vllm_agent_sdk.testing.tokens import Prompts

__all__ = ["PATH", "ResponsesRoute"]

PATH = "/v1/responses"
#: Gives a request's number and the reply whose turn it is.
Next: TypeAlias = Callable[[SimulatorRequest], Awaitable[tuple[int, Reply]]]
#: The first of our calls' numbers, so that no call of a chat has the same id.
_FIRST_CALL = 1_000_000

_SSE = (("content-type", "text/event-stream; charset=utf-8"),)
_NO_STORE = (
    "This vLLM engine does not support `store=True` and therefore does not support the background "
    "mode. To enable these features, set the environment variable "
    "`VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server."
)


@dataclass
class _Kept:
    """A response that is kept.

    Attributes:
        response: As it is once it is done.
        queued: As it is before, for one that is made in the background.
        ready_at: When it is done, on the clock of `time.monotonic`.
        frames: The events of one that was made in the background as a stream.
        cancelled: Whether it was ended before it was done.
    """

    response: dict[str, Any]
    queued: dict[str, Any] | None = None
    ready_at: float = 0.0
    frames: tuple[bytes, ...] | None = None
    cancelled: bool = False

    @property
    def runs(self) -> bool:
        """Whether it is still being made."""
        return self.queued is not None and not self.cancelled and time.monotonic() < self.ready_at

    @property
    def now(self) -> dict[str, Any]:
        """The response as it is now; one in the background is `queued` until it is done."""
        if self.cancelled:
            return {**(self.queued or {}), "status": "cancelled"}
        return self.queued if self.queued is not None and self.runs else self.response


class ResponsesRoute:
    """Answers what is asked under `/v1/responses`.

    Args:
        settings: How the server was started.
        prompts: How it counts.
        fields: What requests are held against.
        next_reply: What gives the replies, in order.
        failed: Called with what a function of the script raises; gives the answer.
    """

    def __init__(
        self,
        settings: Settings,
        prompts: Prompts,
        fields: FieldCheck,
        next_reply: Next,
        failed: Callable[[Exception], Answer],
    ) -> None:
        self._settings = settings
        self._prompts = prompts
        self._fields = fields
        self._next = next_reply
        self._failed = failed
        self._calls = itertools.count(_FIRST_CALL)
        self._kept: dict[str, _Kept] = {}

    def answer(self, request: SimulatorRequest) -> Awaitable[Answer]:
        """Give the answer to a request for a response.

        Raises:
            RefusedError: The request is one that vLLM refuses.
        """
        body = checks.read_body(request)
        _check(body)
        self._fields.check(request.method, request.path, body)
        checks.check_model(body, self._settings.model)
        stores = self._settings.store and body.get("store") is not False
        if body.get("background") and not stores:
            raise _refused(_NO_STORE, "background")
        previous = body.get("previous_response_id")
        if previous is not None and previous not in self._kept:
            raise _not_found(previous)
        messages = chat_messages(body)
        if previous is not None:
            messages = [{"content": str(self._kept[previous].response["output"])}, *messages]
        tokens = len(self._prompts.of_chat(messages, chat_tools(body)))
        limit = self._settings.max_model_len
        if tokens > limit:
            checks.check_length(tokens, limit)
        if tokens == limit:
            raise _refused(
                f"The engine prompt length {tokens} exceeds the max_model_len {limit}. "
                "Please reduce prompt.",
                "input",
            )
        return self._reply(request, body, tokens, stores)

    async def _reply(
        self, request: SimulatorRequest, body: dict[str, Any], tokens: int, stores: bool
    ) -> Answer:
        try:
            number, reply = await self._next(request)
            first_call = next(self._calls)
            for _ in getattr(reply.body, "calls", ())[1:]:
                next(self._calls)
            facts = self._facts(body, (number, first_call, tokens))
            return self._written(reply, facts, stores)
        except Exception as error:  # noqa: BLE001 - raised again at the end of the block
            return self._failed(error)

    def about(
        self, path: str
    ) -> dict[str, Callable[[SimulatorRequest], Answer | Awaitable[Answer]]] | None:
        """Give what answers requests for a kept response; `None` if the path is none of its."""
        if not path.startswith(f"{PATH}/"):
            return None
        id_, _, action = path.removeprefix(f"{PATH}/").partition("/")
        if action == "cancel":
            return {"POST": lambda _: self._cancel(id_)}
        return None if action else {"GET": lambda request: self._retrieve(id_, request)}

    def _cancel(self, id_: str) -> Answer:
        kept = self._find(id_)
        if not kept.runs:
            raise _refused("Cannot cancel a synchronous response.", "response_id")
        kept.cancelled = True
        return json_answer(200, kept.now)

    def _retrieve(self, id_: str, request: SimulatorRequest) -> Answer:
        kept = self._find(id_)
        query = parse_qs(request.query)
        if query.get("stream") != ["true"]:
            return json_answer(200, kept.now)
        if kept.frames is None:
            # As the server: the head is sent, then the connection is lost.
            return _streamed((), cut=True)
        after = int(query.get("starting_after", ["-1"])[0])
        return _streamed(kept.frames[after + 1 :])

    def _find(self, id_: str) -> _Kept:
        kept = self._kept.get(id_)
        if kept is None:
            raise _not_found(id_)
        return kept

    def _facts(self, body: dict[str, Any], counts: tuple[int, int, int]) -> ResponseFacts:
        number, first_call, prompt_tokens = counts
        random_id = hashlib.sha256(f"request {number}".encode()).hexdigest()[:16]
        choice = checks.tool_choice(body)
        facts = ChatFacts(
            id=body.get("request_id") or f"resp_{random_id}",
            model=self._settings.model,
            version=self._settings.version,
            prompt_tokens=prompt_tokens,
            first_call=first_call,
            stream=bool(body.get("stream")),
            tool_choice="named" if is_object(choice) else choice or "auto",
            parse_calls=self._settings.tool_parser is not None and choice != "none",
            parallel_calls=body.get("parallel_tool_calls") is not False,
            include_reasoning=body.get("include_reasoning") is not False,
        )
        return ResponseFacts(facts, body, self._settings.max_model_len)

    def _written(self, reply: Reply, facts: ResponseFacts, stores: bool) -> Answer:
        if isinstance(reply.body, Fixed):
            return wire.answer(reply, facts.chat)
        streams, background = facts.chat.stream, bool(facts.body.get("background"))
        error_after = reply.options.get("error_after")
        if error_after is not None and not streams:
            return wire.answer(reply, facts.chat)  # the error with its status
        frames, response = frames_of(reply.body, reply, facts)
        if not streams:
            response = whole_output(reply.body, reply, facts)
        kept = _Kept(response)
        if background:
            kept.queued = response_object(facts, "queued", [])
            kept.ready_at = time.monotonic() + reply.pacing.delay
            kept.frames = tuple(frames) if streams else None
        if stores and error_after is None:
            self._kept[facts.chat.id] = kept
        if streams:
            cut = error_after is not None
            pieces = tuple(frames[:error_after] if cut else frames)
            return _streamed(pieces, reply, cut=cut)
        answer = json_answer(200, kept.now, reply.headers)
        return answer if background else dataclasses.replace(answer, pacing=reply.pacing)


def _streamed(
    frames: tuple[bytes, ...], reply: Reply | None = None, *, cut: bool = False
) -> Answer:
    """Answer with events; a failure in the middle is the loss of the connection, as in vLLM."""
    pacing = Pacing() if reply is None else reply.pacing
    if cut and pacing.cut_after is None:
        pacing = dataclasses.replace(pacing, cut_after=sum(len(frame) for frame in frames))
    headers = () if reply is None else reply.headers
    return Answer(200, (*_SSE, *headers), frames, streamed=True, pacing=pacing)


def _check(body: dict[str, Any]) -> None:
    if body.get("prompt") is not None:
        raise _parameter("prompt template is not supported", "prompt")
    if body.get("background") and not body.get("store", True):
        raise _parameter("background can only be used when `store` is true", "background")
    choice = body.get("tool_choice", "auto")
    names = [tool.get("name") for tool in body.get("tools") or () if is_object(tool)]
    if choice == "required" and not names:
        raise _parameter(
            "Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice"
        )
    if is_object(choice) and choice.get("name") not in names:
        raise _parameter("Tool choice 'function' not found in 'tools' parameter.", "tool_choice")


def _parameter(message: str, parameter: str) -> checks.RefusedError:
    return checks.RefusedError(f"{message} (parameter={parameter})", param=parameter)


def _refused(message: str, parameter: str) -> checks.RefusedError:
    return checks.RefusedError(message, type="invalid_request_error", param=parameter)


def _not_found(id_: object) -> checks.RefusedError:
    return checks.RefusedError(
        f"Response with id '{id_}' not found.",
        status=404,
        type="invalid_request_error",
        param="response_id",
    )
