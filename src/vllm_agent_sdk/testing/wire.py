"""Chat replies in the very bytes of vLLM 0.32: key order, spacing, and what is in which chunk.

The shapes are those of the recorded replies in `tests/fixtures`. Nothing here is random and nothing
reads a clock: the same script and the same request give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vllm_agent_sdk.testing.error_bodies import error_object
from vllm_agent_sdk.testing.exchange import Answer, json_answer
from vllm_agent_sdk.testing.model_output import (
    ChatFacts,
    calls_of,
    dumps,
    finish_reason,
    steps_of,
)
from vllm_agent_sdk.testing.reply import Chat, Fixed, Reply
from vllm_agent_sdk.types import _codec

__all__ = [
    "CREATED",
    "answer",
    "error_answer",
    "error_body",
    "fixed_answer",
    "stream_answer",
    "whole_answer",
]

#: The time of every reply, so that replies can be compared.
CREATED = 1795232869

_SSE = (("content-type", "text/event-stream; charset=utf-8"),)
_DONE = b"data: [DONE]\n\n"


def answer(reply: Reply, facts: ChatFacts) -> Answer:
    """Give the answer to a chat request: its bytes, and how they are sent."""
    if isinstance(reply.body, Fixed):
        return fixed_answer(reply, reply.body)
    if facts.stream:
        return stream_answer(_chunks(reply.body, reply, facts), reply)
    return whole_answer(_whole(reply.body, reply, facts), reply)


def stream_answer(chunks: Iterator[bytes], reply: Reply) -> Answer:
    """Answer with chunks, as far as the script lets them come, and their end."""
    frames = tuple(_stream(chunks, reply))
    return Answer(200, (*_SSE, *reply.headers), frames, streamed=True, pacing=reply.pacing)


def whole_answer(body: Mapping[str, Any], reply: Reply) -> Answer:
    """Answer with a whole reply, or with the error that the script has for the middle of one."""
    if "error_after" in reply.options:
        error = _failure(reply)
        failed = error_answer(int(error["code"]), error, reply.headers)
        return _paced(failed, reply)
    return _paced(json_answer(200, body, reply.headers), reply)


def error_body(
    status: int, message: str, type: str = "BadRequestError", param: str | None = None
) -> dict[str, Any]:
    """Make the error object of a status."""
    return {"message": message, "type": type, "param": param, "code": status}


def error_answer(
    status: int, error: Mapping[str, Any], headers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    """Answer with an error object."""
    return json_answer(status, {"error": dict(error)}, headers)


def _failure(reply: Reply) -> dict[str, Any]:
    """Give the error in the middle of a reply."""
    scripted = reply.options.get("error", {})
    code = scripted.get("code", 500)
    return {**error_object(code if isinstance(code, int) else 500), **scripted}


def _paced(plain: Answer, reply: Reply) -> Answer:
    return Answer(plain.status, plain.headers, plain.pieces, pacing=reply.pacing)


def fixed_answer(reply: Reply, body: Fixed) -> Answer:
    """Answer with what does not depend on the request."""
    data = body.body
    headers = (("content-type", body.content_type), *reply.headers)
    if not body.content_type.startswith("text/event-stream"):
        return Answer(body.status, headers, (data,) if data else (), pacing=reply.pacing)
    events = tuple(event + b"\n\n" for event in data.split(b"\n\n"))
    # What follows the last blank line has none of its own.
    events = tuple(event for event in (*events[:-1], events[-1][:-2]) if event)
    return Answer(body.status, headers, events, streamed=True, pacing=reply.pacing)


# ── streamed ─────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Counts:
    """The tokens so far, over all choices."""

    completion: int = 0
    reasoning: int = 0


def _stream(frames: Iterator[bytes], reply: Reply) -> Iterator[bytes]:
    error_after = reply.options.get("error_after")
    if error_after is None:
        yield from frames
        yield _DONE
        return
    for _, frame in zip(range(error_after), frames, strict=False):
        yield frame
    error = _failure(reply)
    # Python's own spacing, unlike chunks: this one frame is not written by pydantic.
    yield f"data: {json.dumps({'error': error})}\n\n".encode()
    yield _DONE


def _chunks(chat: Chat, reply: Reply, facts: ChatFacts) -> Iterator[bytes]:
    all_steps = [steps_of(chat, facts, choice) for choice in range(facts.n)]
    counts = _Counts()
    for choice in range(facts.n):
        role = {"role": "assistant", "content": ""}
        begin = {"index": choice, "delta": role, "logprobs": None, "finish_reason": None}
        tail = {"prompt_token_ids": None, "prompt_text": None}
        yield _chunk(facts, [begin], {**_usage_so_far(reply, facts, chat, counts), **tail})
    reason = finish_reason(chat, reply, facts, bool(chat.calls) and facts.parse_calls)
    rides = reason == "length"
    for at in range(len(all_steps[0])):
        for choice, steps in enumerate(all_steps):
            step = steps[at]
            counts.completion += step.tokens
            counts.reasoning += step.reasoning_tokens
            ends = rides and at == len(steps) - 1
            yield _step_chunk(chat, reply, facts, (choice, step.delta, counts, ends))
    if not rides or not all_steps[0]:
        # A parser leaves out text that is empty, but where a stop string has cut it.
        nothing = facts.has_parser and reply.options.get("stop_reason") is None
        nothing = nothing or bool(chat.calls or chat.reasoning)
        last: dict[str, Any] = {} if nothing else {"content": ""}
        for choice in range(facts.n):
            yield _step_chunk(chat, reply, facts, (choice, last, counts, True))
    if facts.include_usage:
        usage = _usage(reply, facts, chat, counts, whole=False)
        yield _chunk(facts, [], {"usage": usage, "system_fingerprint": facts.fingerprint})


def _step_chunk(
    chat: Chat, reply: Reply, facts: ChatFacts, step: tuple[int, dict[str, Any], _Counts, bool]
) -> bytes:
    index, delta, counts, ends = step
    choice: dict[str, Any] = {"index": index, "delta": delta, "logprobs": None}
    choice["finish_reason"] = None
    tail = _usage_so_far(reply, facts, chat, counts)
    if ends:
        has_calls = bool(chat.calls) and facts.parse_calls
        choice["finish_reason"] = finish_reason(chat, reply, facts, has_calls)
        choice["stop_reason"] = reply.options.get("stop_reason")
        if not facts.include_usage:
            tail["system_fingerprint"] = facts.fingerprint
    choice["token_ids"] = None
    return _chunk(facts, [choice], tail)


def _chunk(facts: ChatFacts, choices: list[dict[str, Any]], tail: Mapping[str, Any]) -> bytes:
    chunk = {
        "id": facts.id,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": facts.model,
        "choices": choices,
        **tail,
    }
    return b"data: " + _codec.encode(chunk) + b"\n\n"


def _usage_so_far(reply: Reply, facts: ChatFacts, chat: Chat, counts: _Counts) -> dict[str, Any]:
    if not facts.continuous_usage:
        return {}
    prompt_tokens = reply.options.get("usage", {}).get("prompt_tokens", facts.prompt_tokens)
    details = {"reasoning_tokens": counts.reasoning} if chat.reasoning else None
    usage = {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + counts.completion,
        "completion_tokens": counts.completion,
        "completion_tokens_details": details,
    }
    return {"usage": usage}


# ── whole ────────────────────────────────────────────────────────────────────────────────────────


def _whole(chat: Chat, reply: Reply, facts: ChatFacts) -> dict[str, Any]:
    counts = _Counts()
    choices: list[dict[str, Any]] = []
    for index in range(facts.n):
        for step in steps_of(chat, facts, index):
            counts.completion += step.tokens
            counts.reasoning += step.reasoning_tokens
        choices.append(_whole_choice(chat, reply, facts, index))
    nothing = ("prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params")
    return {
        "id": facts.id,
        "object": "chat.completion",
        "created": CREATED,
        "model": facts.model,
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": facts.fingerprint,
        "usage": _usage(reply, facts, chat, counts, whole=True),
        **dict.fromkeys((*nothing, "ec_transfer_params", "metrics")),
    }


def _whole_choice(chat: Chat, reply: Reply, facts: ChatFacts, index: int) -> dict[str, Any]:
    calls = calls_of(chat, facts, index)
    text = "".join(chat.text)
    # Unlike a stream, a whole reply with a call that cannot be parsed has no calls at all: what the
    # model wrote comes back as text.
    parsed = facts.parse_calls and all(call.is_json for call in calls)
    if not parsed:
        text += "".join(call.as_text for call in calls)
        calls = []
    if not facts.parallel_calls:
        calls = calls[:1]
    under_grammar = facts.tool_choice in ("required", "named")
    content = text if text or under_grammar or not (chat.calls or chat.reasoning) else None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    message.update(annotations=None, audio=None, function_call=None)
    if calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                # Read and written anew by the parser; a stream has the model's own spacing.
                "function": {"name": call.name, "arguments": dumps(json.loads(call.arguments))},
            }
            for call in calls
        ]
    reasoning = "".join(chat.reasoning) if facts.include_reasoning else ""
    message["reasoning"] = reasoning or None
    return {
        "index": index,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(chat, reply, facts, bool(calls)),
        "stop_reason": reply.options.get("stop_reason"),
        "token_ids": None,
        "routed_experts": None,
    }


def _usage(
    reply: Reply, facts: ChatFacts, chat: Chat, counts: _Counts, *, whole: bool
) -> dict[str, Any]:
    scripted = reply.options.get("usage", {})
    prompt_tokens = scripted.get("prompt_tokens", facts.prompt_tokens)
    completion_tokens = scripted.get("completion_tokens", counts.completion)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }
    prompt_details: dict[str, Any] | None = None
    if "cached_tokens" in scripted:
        prompt_details = {"cached_tokens": scripted["cached_tokens"]}
        if whole or "created_cache_tokens" in scripted:
            prompt_details["created_cache_tokens"] = scripted.get("created_cache_tokens")
        if whole:
            prompt_details["multimodal_tokens"] = None
    completion_details = None
    if chat.reasoning or "reasoning_tokens" in scripted:
        reasoning_tokens = scripted.get("reasoning_tokens", counts.reasoning)
        completion_details = {"reasoning_tokens": reasoning_tokens}
    details = {
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": completion_details,
    }
    # A whole reply has the keys always, the usage chunk of a stream only what is known.
    usage.update({key: value for key, value in details.items() if whole or value is not None})
    return usage
