"""Results that are too long to be shown at once: their beginning, and what comes after."""

from __future__ import annotations

from collections.abc import Iterable

from vllm_agent_sdk.errors import ToolError
from vllm_agent_sdk.types._codec import Fact
from vllm_agent_sdk.types.messages import ContentBlock, TextBlock, UserMessage, text_of

__all__ = ["READ_TOOL", "Whole", "cut", "cut_notification", "notification", "read_on"]

#: The tool that reads on.
READ_TOOL = "read_output"


class Whole(Fact, frozen=True, gc=False):
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


def notification(task: str, tool: str, result: str | list[ContentBlock]) -> UserMessage:
    """Give the message that tells of a background task's end, and its result."""
    head = _head(task, tool)
    if isinstance(result, str):
        return UserMessage(head + result)
    return UserMessage([TextBlock(head), *result])


def cut_notification(
    message: UserMessage, size: int, task: str, tool: str
) -> tuple[UserMessage, Whole | None]:
    """Cut the result in a notification, if it is longer; what it is about stays."""
    content = message.content
    result: str | list[ContentBlock]
    if isinstance(content, str):
        result = content.removeprefix(_head(task, tool))
    else:
        result = [block for block in content if block != TextBlock(_head(task, tool))]
    if len(text_of(result)) <= size:
        return message, None
    shown, whole = cut(result, size, task)
    return notification(task, tool, shown), whole


def _head(task: str, tool: str) -> str:
    return f"[The background task {task} of {tool} has ended.]\n"


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
