"""How a request begins, next to the one before it: by the bytes of its prompt's parts.

A server finds in its prefix cache what a request and an earlier one begin with alike. Requests
that only grow are known to do so without looking: the bytes are compared where something that was
sent before has been written anew, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types._codec import Fact
from vllm_agent_sdk.types.context import Prefix, PrefixBreak
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["Parts", "common_bytes", "prefix_of", "template_options"]

#: The fields of a request that change what the chat template writes.
_TEMPLATE = (
    "add_generation_prompt",
    "add_special_tokens",
    "chat_template",
    "chat_template_kwargs",
    "continue_final_message",
    "documents",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "reasoning_effort",
    "thinking",
)


_NAMES = frozenset(_TEMPLATE)


class Parts(Fact, frozen=True, gc=False):
    """What the prompt of a request is made of.

    Attributes:
        model: The model it goes to.
        options: What else the chat template gets.
        form: How the history is written; `None` for native.
        specs: The tools the model is told of, wherever that is.
        tools: The request's `tools`, as bytes.
        messages: Its messages, as bytes.
        head: How many of them stand before the conversation.
        size: Bytes of all messages.
        edition: Counts the changes of messages that were written before.
        summaries: How often older messages had been summarised.
    """

    model: str | None
    options: bytes
    form: str | None
    specs: Sequence[ToolSpec]
    tools: bytes
    messages: Sequence[_codec.Raw]
    head: int
    size: int
    edition: int
    summaries: int

    @property
    def bytes(self) -> int:
        """All bytes of the prompt's parts."""
        return len(self.tools) + self.size


def template_options(params: Mapping[str, Any]) -> bytes:
    """Give what of a call's keywords, `extra_body` among them, the chat template gets."""
    extra = params.get("extra_body")
    if not extra and _NAMES.isdisjoint(params):
        return b""
    given = {**params, **(extra or {})}
    found = {name: given[name] for name in _TEMPLATE if given.get(name) is not None}
    return _codec.canonical(found) if found else b""


def prefix_of(before: Parts | None, now: Parts) -> Prefix:
    """Compare a request with the one before it (`None`: that is not known)."""
    if before is None:
        return Prefix(sent_bytes=now.bytes)
    kept, cause = _compared(before, now)
    return Prefix(now.bytes, before.bytes, kept, cause)


def _compared(before: Parts, now: Parts) -> tuple[int, PrefixBreak | None]:
    # What another model has cached, or the same text in another template, is of no use.
    if before.model != now.model:
        return 0, "model changed"
    if before.options != now.options:
        return 0, "template options changed"
    if before.tools != now.tools:
        named = before.form == now.form
        cause: PrefixBreak = "tools changed" if named else "dialect changed"
        return common_bytes([before.tools], [now.tools]), cause
    if before.edition == now.edition:
        return before.bytes, None
    kept = len(now.tools) + common_bytes(before.messages, now.messages)
    return kept, None if kept == before.bytes else _cause(before, now, kept)


def _cause(before: Parts, now: Parts, kept: int) -> PrefixBreak:
    if before.form != now.form:
        return "dialect changed"
    if kept < len(now.tools) + sum(map(len, map(bytes, before.messages[: before.head]))):
        return "tools changed" if list(before.specs) != list(now.specs) else "system text changed"
    return "compacted" if before.summaries != now.summaries else "history rewritten"


def common_bytes(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Give how many bytes two rows of JSON values begin with alike."""
    kept = 0
    for one, other in zip(first, second, strict=False):
        if one is other:
            kept += len(bytes(one))
            continue
        one, other = bytes(one), bytes(other)
        if one != other:
            return kept + _common(one, other)
        kept += len(one)
    return kept


def _common(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low
