"""`vllm.completions`: text in, text out, without a chat template; whole replies and streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeGuard, Unpack, overload

from vllm_agent_sdk._core.schema.constraints import (
    check_constraints,
    constrains_text,
    ended_by_itself,
    ignored,
    matcher_of,
)
from vllm_agent_sdk._core.server.limits import check_generation, check_ranges
from vllm_agent_sdk._core.stream.completions import CompletionAccumulator
from vllm_agent_sdk.client.calls import Calls
from vllm_agent_sdk.client.fields import check_fields
from vllm_agent_sdk.client.requests import LOAD_REPORT, merge_extra_body, with_headers
from vllm_agent_sdk.client.streams import EventStream, Opening, WireStream
from vllm_agent_sdk.errors import OutputError, UsageError
from vllm_agent_sdk.transport.pipeline import Call
from vllm_agent_sdk.types.completions import (
    Completion,
    CompletionChunk,
    CompletionParams,
    CompletionPrompt,
    decode_chunk,
    decode_completion,
    prompt_count,
)
from vllm_agent_sdk.types.events import ChoiceFinished, TextDelta, UsageUpdated
from vllm_agent_sdk.types.request_fields import CALL_KEYWORDS

__all__ = ["CompletionChunkStream", "CompletionStream", "Completions"]


class Completions:
    """Legacy completions (`/v1/completions`)."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @overload
    async def create(
        self,
        *,
        prompt: CompletionPrompt | None = None,
        stream: Literal[False] = False,
        **params: Unpack[CompletionParams],
    ) -> Completion: ...

    @overload
    async def create(
        self,
        *,
        prompt: CompletionPrompt | None = None,
        stream: Literal[True],
        **params: Unpack[CompletionParams],
    ) -> CompletionChunkStream: ...

    async def create(
        self,
        *,
        prompt: CompletionPrompt | None = None,
        stream: bool = False,
        **params: Unpack[CompletionParams],
    ) -> Completion | CompletionChunkStream:
        """Get a whole reply; with `stream=True` an async iterator of the wire's chunks.

        The body holds what was asked and nothing else; the client's `defaults` are for chats.
        vLLM's own default for `max_tokens` is 16.

        Args:
            prompt: A text, several texts, token ids, or several lists of them. The choice of
                prompt `p` and place `i` has the index `p * n + i`.
            stream: Give the wire's chunks, as in the OpenAI SDK.
            params: The request's fields (`CompletionParams`), and `extra_body`, `extra_headers`,
                `timeout`, `request_id`.

        Raises:
            UsageError: A keyword cannot work; nothing was sent.
            TransportError: The request or the reply was lost on the way.
            ServerError: The server answered with an error.
            ConstraintIgnoredError: The reply is none of the `choice`, or does not match the
                `regex`; `partial` has it.
        """
        if stream:
            return await CompletionChunkStream(*self._opening(prompt, params)).opened()
        body = completion_body(prompt, params, stream=False)
        call = await self._call(body, with_headers(params, stream=False))
        whole, reply = await self._calls.read(call, decode_completion)
        self._calls.used(call, reply.usage.total_tokens if reply.usage else None)
        reply.attach(whole.body, call.request_id)
        if params.get("load_metrics"):
            reply.attach_load(whole.headers.get(LOAD_REPORT))
        if (check := _reply_check(body)) is not None:
            try:
                check(reply)
            except OutputError as error:
                error.with_facts(request_id=call.request_id, partial=reply)
                raise
        return reply

    def stream(
        self,
        *,
        prompt: CompletionPrompt | None = None,
        **params: Unpack[CompletionParams],
    ) -> CompletionStream:
        """Get a reply as chat's events; the usage is asked for unless `stream_options` says not to.

        Nothing is sent before the stream is entered or iterated. Takes what `create` takes.

        Raises:
            UsageError: A keyword cannot work; nothing was sent.
        """
        return CompletionStream(*self._opening(prompt, params, {"include_usage": True}))

    async def _call(self, body: dict[str, Any], params: Mapping[str, Any]) -> Call:
        if body.get("model") is None:
            body["model"] = await self._calls.resolve_model(None)
        return self._calls.call("/completions", body, params)

    def _opening(
        self,
        prompt: CompletionPrompt | None,
        params: CompletionParams,
        options: dict[str, Any] | None = None,
    ) -> tuple[Opening, CompletionAccumulator]:
        calls = self._calls
        body = completion_body(prompt, params, stream=True)
        if options is not None and "stream_options" not in body:
            body["stream_options"] = options
        headed = with_headers(params, stream=True)
        request_id = calls.request_id(params)

        async def open_stream() -> Any:
            call = await self._call(body, {**headed, "request_id": request_id})
            return await calls.open(call)

        prompts = prompt_count(body.get("prompt")) + prompt_count(body.get("prompt_embeds"))
        choices = prompts * (body.get("n") or 1)
        opening = Opening(
            open_stream,
            choices=choices,
            offered=frozenset(),
            max_event_bytes=calls.config.http.max_response_bytes,
            request_id=request_id,
        )
        return opening, CompletionAccumulator(choices, _reply_check(body), constrains_text(body))


def completion_body(
    prompt: CompletionPrompt | None, params: Mapping[str, Any], *, stream: bool
) -> dict[str, Any]:
    """Build the body of a completion, without `model` where the call names none.

    Raises:
        UsageError: An unknown keyword (the nearest known one is named), a value of a wrong type,
            or what no server takes.
    """
    check_fields(params, CompletionParams, "completions")
    body: dict[str, Any] = {}
    if prompt is not None:
        body["prompt"] = _prompt(prompt)
    body.update((name, value) for name, value in params.items() if name not in CALL_KEYWORDS)
    if stream:
        body["stream"] = True
    merge_extra_body(body, params)
    if body.get("prompt_embeds") is None and body.get("prompt") is None:
        raise UsageError("prompt= is missing: a completion needs one (or prompt_embeds=).")
    _check(body, stream=stream)
    return body


def _prompt(prompt: CompletionPrompt) -> CompletionPrompt:
    """Give a prompt that JSON has a form for, and that the server can tell apart."""
    if isinstance(prompt, str):
        if not prompt:
            raise UsageError("prompt= is empty: vLLM refuses that.")
        return prompt
    if isinstance(prompt, (bytes, Mapping)) or not isinstance(prompt, Sequence):
        raise UsageError(f"prompt= takes text, token ids or lists of them, not {_name(prompt)}.")
    items = [list(item) if _is_list(item) else item for item in prompt]
    if not items:
        raise UsageError("prompt= is an empty list: give at least one prompt.")
    kinds = {type(item) for item in items}
    if len(kinds) > 1 or not kinds <= {str, int, list}:
        names = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise UsageError(
            f"prompt= is a list of {names}: give texts, or token ids, or lists of ids."
        )
    return items  # type: ignore[return-value]


def _is_list(value: object) -> TypeGuard[Sequence[int]]:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _name(value: object) -> str:
    return type(value).__name__


def _check(body: Mapping[str, Any], *, stream: bool) -> None:
    # No token at all is asked for to score a prompt.
    check_ranges({**body, "max_tokens": None} if _scores(body) else body)
    check_generation(body, stream=stream)
    check_constraints(body)
    if body.get("use_beam_search"):
        if stream:
            raise UsageError("use_beam_search= works without a stream only: use create().")
        if body.get("echo") and body.get("logprobs") is not None:
            raise UsageError("use_beam_search= cannot go with echo= and logprobs=.")


def _scores(body: Mapping[str, Any]) -> bool:
    if body.get("max_tokens") != 0:
        return False
    if not body.get("echo"):
        raise UsageError("max_tokens=0: give 1 or more (0 together with echo=True, to score).")
    if body.get("logprob_token_ids"):
        raise UsageError("logprob_token_ids= needs tokens of a reply: give max_tokens=1 or more.")
    return True


def _reply_check(body: Mapping[str, Any]) -> Callable[[Completion], None] | None:
    """Give what checks the replies to a body with a `choice` or `regex`."""
    found = matcher_of(body)
    if found is None:
        return None
    kind, matches = found

    def check(reply: Completion) -> None:
        for choice in reply.choices:
            if ended_by_itself(choice, body) and not matches(choice.text):
                raise ignored(kind, choice.text)

    return check


class CompletionStream(EventStream[TextDelta | ChoiceFinished | UsageUpdated, Completion]):
    """The events of one completion, in order, `Finished` last.

    Use it as `async with … as stream: async for event in stream`. Nothing is sent before it is
    entered or iterated.
    """

    def __init__(self, opening: Opening, folded: CompletionAccumulator) -> None:
        super().__init__(opening, folded, lambda data: folded.push(decode_chunk(data)))


class CompletionChunkStream(WireStream[CompletionChunk, Completion]):
    """The wire's chunks of one completion (`create(stream=True)`), each with `.raw`."""

    def __init__(self, opening: Opening, folded: CompletionAccumulator) -> None:

        def items_of(data: bytes) -> list[CompletionChunk]:
            chunk = decode_chunk(data).with_raw(data)
            folded.push(chunk)
            return [chunk]

        super().__init__(opening, folded, items_of)
