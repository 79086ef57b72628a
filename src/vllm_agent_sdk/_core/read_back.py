"""Results that are too long to be shown at once: their beginning, and what comes after."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vllm_agent_sdk.errors import ToolError
from vllm_agent_sdk.types.messages import ContentBlock, TextBlock, text_of

__all__ = ["READ_TOOL", "Whole", "cut", "read_on"]

#: The tool that reads on.
READ_TOOL = "read_output"


@dataclass(frozen=True, slots=True)
class Whole:
    """The whole text of a result that was cut.

    Attributes:
        key: The call's id, or the background task's: what it is asked for by.
        text: The text.
        size: Characters that are shown at once.
    """

    key: str
    text: str
    size: int


def cut(
    content: str | list[ContentBlock], size: int, key: str
) -> tuple[str | list[ContentBlock], Whole]:
    """Give the beginning of a result, and its whole text. Blocks that are no text all stay.

    Args:
        content: The result; it has more text than `size`.
        size: Characters to keep.
        key: What the rest can be asked for by.
    """
    whole = Whole(key, text_of(content), size)
    note = _note(whole, size)
    if isinstance(content, str):
        return f"{content[:size]}\n{note}", whole
    blocks: list[ContentBlock] = []
    for block in content:
        if not isinstance(block, TextBlock):
            blocks.append(block)
            continue
        if size > 0 and block.text:
            blocks.append(TextBlock(block.text[:size]))
        size -= len(block.text)
    return [*blocks, TextBlock(note)], whole


def read_on(outputs: Iterable[Whole], key: str, offset: int) -> str:
    """Give the next part of a result that was cut.

    Args:
        outputs: The results that were cut.
        key: Which one.
        offset: How many characters to skip.

    Raises:
        ToolError: There is no such result, or nothing more of it; the message is for the model.
    """
    known = {whole.key: whole for whole in outputs}
    if offset < 0:
        raise ToolError("offset is 0 or more.")
    if key not in known:
        ids = ", ".join(known) or "none"
        raise ToolError(f"No result of call {key!r} was cut. Those that were: {ids}.")
    whole = known[key]
    if offset >= len(whole.text):
        raise ToolError(f"The result has {len(whole.text)} characters: there are no more.")
    end = offset + whole.size
    part = whole.text[offset:end]
    return part if end >= len(whole.text) else f"{part}\n{_note(whole, end)}"


def _note(whole: Whole, end: int) -> str:
    total = len(whole.text)
    return (
        f"[{total - end} of {total} characters are left. To read on: "
        f'{READ_TOOL}(call_id="{whole.key}", offset={end})]'
    )
