"""`vllm.completions`: text in, text out, without a chat template; whole replies and streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard, Unpack, overload

from vllm_agent_sdk._core.completion_stream import CompletionAccumulator
from vllm_agent_sdk.client.calls import Calls
from vllm_agent_sdk.client.requests import check_keywords, check_sampling
from vllm_agent_sdk.client.streams import EventStream, Opening, WireStream
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.transport.pipeline import Call
from vllm_agent_sdk.types.completions import (
    COMPLETION_FIELDS,
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
        """
        if stream:
            return await CompletionChunkStream(self._opening(prompt, params)).opened()
        body = completion_body(prompt, params, stream=False)
        call = await self._call(body, params)
        whole = await self._calls.fetch(call)
        reply = decode_completion(whole.body)
        reply.attach(whole.body, call.request_id)
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
        return CompletionStream(self._opening(prompt, params, {"include_usage": True}))

    async def _call(self, body: dict[str, Any], params: Mapping[str, Any]) -> Call:
        if body.get("model") is None:
            body["model"] = await self._calls.resolve_model(None)
        return self._calls.call("/completions", body, params)

    def _opening(
        self,
        prompt: CompletionPrompt | None,
        params: CompletionParams,
        options: dict[str, Any] | None = None,
    ) -> Opening:
        calls = self._calls
        body = completion_body(prompt, params, stream=True)
        if options is not None and "stream_options" not in body:
            body["stream_options"] = options
        request_id = calls.request_id(params)

        async def open_stream() -> Any:
            call = await self._call(body, {**params, "request_id": request_id})
            return await calls.open(call)

        prompts = prompt_count(body.get("prompt")) + prompt_count(body.get("prompt_embeds"))
        return Opening(
            open_stream,
            choices=prompts * (body.get("n") or 1),
            offered=frozenset(),
            max_event_bytes=calls.config.http.max_response_bytes,
            request_id=request_id,
        )


def completion_body(
    prompt: CompletionPrompt | None, params: Mapping[str, Any], *, stream: bool
) -> dict[str, Any]:
    """Build the body of a completion, without `model` where the call names none.

    Raises:
        UsageError: An unknown keyword (the nearest known one is named), or what no server takes.
    """
    check_keywords(params, COMPLETION_FIELDS | CALL_KEYWORDS, "completions")
    body: dict[str, Any] = {}
    if prompt is not None:
        body["prompt"] = _prompt(prompt)
    body.update((name, value) for name, value in params.items() if name not in CALL_KEYWORDS)
    extra = params.get("extra_body") or {}
    if body.get("prompt_embeds") is None and "prompt" not in body and not extra:
        raise UsageError("prompt= is missing: a completion needs one (or prompt_embeds=).")
    _check(body, stream=stream)
    if stream:
        body["stream"] = True
    body.update(extra)
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
    check_sampling(body, stream=stream)
    max_tokens = body.get("max_tokens")
    if isinstance(max_tokens, int) and max_tokens < 1 and not (body.get("echo") and not max_tokens):
        raise UsageError(
            f"max_tokens={max_tokens}: give 1 or more (0 together with echo=True, to score a "
            "prompt)."
        )
    if stream and body.get("use_beam_search"):
        raise UsageError("use_beam_search= works without a stream only: use create().")
    n = body.get("n")
    if isinstance(n, int) and n < 1:
        raise UsageError(f"n={n}: give 1 or more.")


class CompletionStream(EventStream[TextDelta | ChoiceFinished | UsageUpdated, Completion]):
    """The events of one completion, in order, `Finished` last.

    Use it as `async with … as stream: async for event in stream`. Nothing is sent before it is
    entered or iterated.
    """

    def __init__(self, opening: Opening) -> None:
        folded = CompletionAccumulator(opening.choices)
        super().__init__(opening, folded, lambda data: folded.push(decode_chunk(data)))


class CompletionChunkStream(WireStream[CompletionChunk, Completion]):
    """The wire's chunks of one completion (`create(stream=True)`), each with `.raw`."""

    def __init__(self, opening: Opening) -> None:
        folded = CompletionAccumulator(opening.choices)

        def items_of(data: bytes) -> list[CompletionChunk]:
            chunk = decode_chunk(data).with_raw(data)
            folded.push(chunk)
            return [chunk]

        super().__init__(opening, folded, items_of)
