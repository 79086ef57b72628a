"""The context window: how full it is, and older messages made into a summary."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vllm_agent_sdk._core.dialect.roles import ordered
from vllm_agent_sdk._core.run.log import Log
from vllm_agent_sdk._core.run.state import State, replace
from vllm_agent_sdk.agent.model.port import Endpoint
from vllm_agent_sdk.agent.model.reading import reader_of
from vllm_agent_sdk.agent.model.turns import Traits, TurnWriter
from vllm_agent_sdk.client.vllm import AsyncVLLM
from vllm_agent_sdk.errors import ContextLengthError, VLLMError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.chat import ChatCompletion
from vllm_agent_sdk.types.context import ContextUsage
from vllm_agent_sdk.types.events import Compacted
from vllm_agent_sdk.types.messages import MediaBlock, Message, ToolMessage, UserMessage
from vllm_agent_sdk.types.protocols import ChatModel
from vllm_agent_sdk.types.results import ErrorInfo, Usage

__all__ = [
    "COUNT_FROM",
    "ContextMeter",
    "Measured",
    "context_usage",
    "learn_window",
    "summarise",
]

#: The server counts exactly once the estimate has passed this part of the window.
COUNT_FROM = 0.7
#: Bytes of text for a token, at least: an estimate that is rather too high.
BYTES_PER_TOKEN = 3
#: What an image, a sound or a file counts for in an estimate, whatever its bytes.
_MEDIA_BYTES = 1000 * BYTES_PER_TOKEN
#: A request of so many tokens makes it worth asking how large the window is.
_LEARN_FROM = 1000
#: The part of the window that a summary may have, and the tokens it may have in any case.
_SUMMARY_PART, _SUMMARY_LEAST = 8, 256

INSTRUCTION = (
    "Summarise the conversation so far for yourself: the task, what was found out (tool results "
    "with their numbers and names), what was decided, and what is still to be done. Write only the "
    "summary."
)
#: What of a call changes its prompt, and is known to `/tokenize` too.
_COUNTED = ("chat_template", "chat_template_kwargs", "media_io_kwargs", "mm_processor_kwargs")


@dataclass(frozen=True, slots=True)
class Measured:
    """How full the window is before a turn.

    Attributes:
        tokens: Tokens of the request; `None` far from the window, where nobody counts.
        exact: False if they are estimated.
        window: Tokens the model can read and write in one call, as far as known.
    """

    tokens: int | None = None
    exact: bool = True
    window: int | None = None


class ContextMeter:
    """Knows how many tokens the next request has: estimated, and exactly where it gets close."""

    def __init__(self, client: ChatModel) -> None:
        self._client = client
        self._counted: dict[bytes, int | None] = {}
        self._asked: set[str | None] = set()

    def estimate(self, state: State) -> int:
        """Give the tokens of the next request: those of the last call, and what came since."""
        fresh = state.history.since(state.measured)
        size = sum(map(_message_size, fresh))
        if not state.last_tokens:
            size += len((state.started.instructions or "").encode("utf-8", "replace"))
            size += len(_codec.encode(list(state.tools)))
        return state.last_tokens + size // BYTES_PER_TOKEN

    def is_close(self, state: State, traits: Traits) -> bool:
        """True if the next request may fill so much of the window that somebody is to be asked."""
        window = state.window or traits.window
        if window is not None:
            return state.window is None or self.estimate(state) > COUNT_FROM * window
        return state.model not in self._asked and self.estimate(state) > _LEARN_FROM

    async def measure(self, writer: TurnWriter, state: State) -> Measured:
        """Count the next request's tokens where it comes close to the window.

        A window that is not known is asked for, once for each model; what the server cannot count
        is estimated.
        """
        window = state.window or writer.traits.window
        if window is None:
            self._asked.add(state.model)
            window = writer.traits.window = await learn_window(self._client, state.model)
        estimate = self.estimate(state)
        if window is None or estimate <= COUNT_FROM * window:
            return Measured(window=window)
        asked = _asked(writer.params(state), state.model)
        digest = hashlib.sha256(_codec.encode(asked)).digest()
        if digest not in self._counted:
            self._counted[digest] = await count_tokens(self._client, asked)
        counted = self._counted[digest]
        return Measured(estimate if counted is None else counted, counted is not None, window)

    def clamped(self, state: State, params: dict[str, Any]) -> dict[str, Any]:
        """Bound `max_tokens` by what is left of the window, or by all of it where nobody counted.

        A server refuses more than its window and bounds the rest by itself (vLLM 0.32); by an
        estimate answers would be cut that are not too long.
        """
        window, asked = state.window, params.get("max_tokens")
        if window is None:
            return params
        if state.context_tokens is None or not state.exact:
            return params if asked is None or asked <= window else {**params, "max_tokens": window}
        left = max(1, window - state.context_tokens)
        return params if asked is not None and asked <= left else {**params, "max_tokens": left}


def _has_media(message: Message) -> bool:
    content = message.content
    return not isinstance(content, str) and any(isinstance(each, MediaBlock) for each in content)


def _message_size(message: Message) -> int:
    if not _has_media(message):
        return len(_codec.encode(message))
    return sum(
        _MEDIA_BYTES if isinstance(each, MediaBlock) else len(_codec.encode(each))
        for each in message.content
    )


async def learn_window(client: ChatModel, model: str | None) -> int | None:
    """Ask the server for a model's window; `None` where its card does not tell."""
    if not isinstance(client, AsyncVLLM):
        return None
    try:
        cards = (await client.models.list()).data
    except VLLMError:
        return None
    found = next((card for card in cards if card.id == model), None)
    return None if found is None else found.max_context_length.value


def _asked(params: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """Give a call's keywords as `/tokenize` takes them."""
    given = {**params, **(params.get("extra_body") or {})}
    asked: dict[str, Any] = {"messages": params["messages"], "model": model}
    if params.get("tools"):
        asked["tools"] = params["tools"]
    asked.update((name, given[name]) for name in _COUNTED if given.get(name) is not None)
    return asked


async def count_tokens(client: ChatModel, asked: Mapping[str, Any]) -> int | None:
    """Let the server count; `None` where it does not."""
    if not isinstance(client, AsyncVLLM):
        return None
    try:
        return (await client.tokenize(**asked)).count
    except VLLMError:
        return None


# ── what fills it ────────────────────────────────────────────────────────────────────────────────


async def context_usage(client: ChatModel, traits: Traits, state: State) -> ContextUsage:
    """Say what the next request of a conversation would hold.

    The server counts it whole, and then with one part after the other left out.
    """
    params, head = TurnWriter(traits).parts(state)
    messages = [_codec.decode(bytes(message)) for message in params["messages"]]
    first, rest = messages[:head], messages[head:]
    untold = first
    if state.dialect == "text" and state.tools:
        instructions = state.started.instructions
        told = [{"role": "system", "content": instructions}] if instructions else []
        untold = told + first[1:]  # the tools stand in the system message
    roles = [role for role in ("tool", "assistant") if any(m["role"] == role for m in rest)]
    stages = [untold + rest, rest]
    for role in roles:
        stages.append([m for m in stages[-1] if m["role"] != role])
    asked = [{**_asked(params, state.model), "messages": messages}]
    bare = {name: value for name, value in asked[0].items() if name != "tools"}
    asked += [{**bare, "messages": ordered(stage, traits.roles)} for stage in stages]
    counts, exact = await _counts(client, asked)
    left_out = [before - after for before, after in pairwise(counts)]
    by_role = dict(zip(roles, left_out[2:], strict=True))
    if rest:
        by_role = {"user": counts[-1], **by_role}
    window = state.window or traits.window or await learn_window(client, state.model)
    return ContextUsage(
        system=left_out[1] + (0 if rest else counts[-1]),
        tools=left_out[0],
        messages=by_role,
        total=counts[0],
        window=window,
        free=None if window is None else max(0, window - counts[0]),
        exact=exact,
    )


async def _counts(client: ChatModel, asked: list[dict[str, Any]]) -> tuple[list[int], bool]:
    """Count requests of which each holds less than the one before it, and tell whether exactly.

    What the server does not count is its part, by bytes, of what it does.
    """
    found = [await count_tokens(client, each) if each["messages"] else 0 for each in asked]
    sizes = [_size_of(each) for each in asked]
    whole = found[0]
    if whole is None:
        return [size // BYTES_PER_TOKEN for size in sizes], False
    counts: list[int] = []
    for count, size in zip(found, sizes, strict=True):
        known = whole * size // max(1, sizes[0]) if count is None else count
        # A template may write more where there is less: a system text of its own, say.
        counts.append(min([known, *counts[-1:]]))
    return counts, None not in found


def _has_parts(message: Mapping[str, Any]) -> bool:
    """True for a message with more than text."""
    content = message.get("content")
    return isinstance(content, list) and any(part.get("type") != "text" for part in content)


def _size_of(asked: Mapping[str, Any]) -> int:
    size = len(_codec.encode(asked["tools"])) if "tools" in asked else 0
    for message in asked["messages"]:
        if not _has_parts(message):
            size += len(_codec.encode(message))
            continue
        for part in message["content"]:
            size += len(_codec.encode(part)) if part.get("type") == "text" else _MEDIA_BYTES
    return size


# ── summaries ────────────────────────────────────────────────────────────────────────────────────


async def summarise(endpoint: Endpoint, traits: Traits, state: State, count: int) -> Compacted:
    """Ask for a summary of the first messages, on the prefix that the server has cached.

    The request is the next turn's as far as the summary goes, and one message that asks for it.
    Where that alone is too long, half as many messages are summarised, and so on. A summary that
    fails, is cut or says nothing leaves the messages as they are.
    """
    while True:
        try:
            request = endpoint.request(_request(traits, state, count), stream=False)
            reply = await request.whole()
        except ContextLengthError as error:
            fewer = _fewer(state, count)
            if not fewer:
                return Compacted(error=ErrorInfo.of(error))
            count = fewer
        except VLLMError as error:
            return Compacted(error=ErrorInfo.of(error))
        else:
            return _compacted(state, reply, count)


def _compacted(state: State, reply: ChatCompletion[Any], count: int) -> Compacted:
    usage, text = Usage.of(reply.usage), _text(state, reply).strip()
    if reply.finish_reason != "stop" or not text:
        why = "was cut" if text else "is empty"
        said = f"The summary {why} (finish_reason {reply.finish_reason!r})."
        return Compacted(usage=usage, error=ErrorInfo("OutputError", said))
    summary = f"Summary of the conversation so far:\n{text}"
    return Compacted(messages=count, summary=summary, usage=usage)


def _fewer(state: State, count: int) -> int:
    """Give about half as many messages, calls and their results together; 0 for too few."""
    history, cut = state.history.since(0), count // 2
    while cut > 0 and isinstance(history[cut], ToolMessage):
        cut -= 1
    return cut if cut > 1 else 0


def _request(traits: Traits, state: State, count: int) -> dict[str, Any]:
    """Give the request of a summary."""
    instruction = state.started.context.instruction or INSTRUCTION
    if state.instruction:
        instruction = f"{instruction}\n{state.instruction}"
    said = Log[Message]([*state.history.since(0)[:count], UserMessage(instruction)])
    params = TurnWriter(traits).params(replace(state, history=said))
    # They shape the agent's answers, and would cut or bend a summary.
    for name in ("max_tokens", "response_format", "stop", "parse_text_calls"):
        params.pop(name, None)
    if "tools" in params:
        params["tool_choice"] = "none"
    if state.window is not None:
        params["max_tokens"] = max(_SUMMARY_LEAST, state.window // _SUMMARY_PART)
    return params


def _text(state: State, reply: ChatCompletion[Any]) -> str:
    """Give the summary's text, out of the turn mode's own form where the model kept to it."""
    reader = reader_of(state)
    reader.push(reply.text)
    reader.finish()
    return reply.text if reader.ignored else reader.message(reply).text
