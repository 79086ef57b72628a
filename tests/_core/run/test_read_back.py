"""Results that are cut: nothing is lost, whatever is read on in whichever steps."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.run.read_back import (
    READ_TOOL,
    Whole,
    cut,
    cut_notification,
    notification,
    read_on,
)
from vllm_agent_sdk.errors import ToolError
from vllm_agent_sdk.types.messages import ContentBlock, ImageBlock, TextBlock, text_of

pytestmark = pytest.mark.feature("A-02")

PICTURE = ImageBlock.from_bytes(b"x", "image/png")
_NOTE = r"\n\[\d+ of \d+ characters are left\. To read on: .*offset=(\d+)\)\]$"
_NEXT = re.compile(_NOTE, re.DOTALL)


@given(st.text(min_size=2), st.data())
def test_the_beginning_and_what_is_read_on_are_the_whole(text: str, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(text) - 1))
    shown, whole = cut(text, size, "c1")
    assert isinstance(shown, str)
    assert shown.startswith(text[:size])
    read = text[:size]
    found = _NEXT.search(shown)
    while found is not None:
        part = read_on([whole], "c1", int(found[1]))
        found = _NEXT.search(part) if len(read) + size < len(text) else None
        read += part[: found.start()] if found is not None else part
    assert read == text


@given(st.lists(st.one_of(st.text().map(TextBlock), st.just(PICTURE))), st.data())
def test_blocks_that_are_no_text_all_stay(blocks: list[ContentBlock], data: st.DataObject) -> None:
    text = text_of(blocks)
    size = data.draw(st.integers(0, max(0, len(text) - 1)))
    shown, whole = cut(blocks, size, "c1")
    assert whole == Whole("c1", text, size)
    assert isinstance(shown, list)
    assert shown.count(PICTURE) == blocks.count(PICTURE)
    *kept, note = shown
    assert isinstance(note, TextBlock)
    assert READ_TOOL in note.text
    assert text_of(kept) == text[:size]


@pytest.mark.parametrize(
    ("key", "offset", "message"),
    [
        ("c9", 0, "No result of call 'c9' was cut. Those that were: c1."),
        ("c1", -1, "offset is 0 or more."),
        ("c1", 4, "The result has 4 characters: there are no more."),
    ],
)
def test_what_cannot_be_read_is_told_to_the_model(key: str, offset: int, message: str) -> None:
    with pytest.raises(ToolError, match=re.escape(message)):
        read_on([Whole("c1", "abcd", 2)], key, offset)


def test_the_last_part_says_nothing_of_more() -> None:
    assert read_on([Whole("c1", "abcd", 2)], "c1", 2) == "cd"


@given(st.text(), st.integers(0, 20))
def test_a_notification_is_cut_after_what_it_is_about(text: str, size: int) -> None:
    message = notification("task_1", "crawl", text)
    shown, whole = cut_notification(message, size, "task_1", "crawl")
    head = "[The background task task_1 of crawl has ended.]\n"
    assert shown.text.startswith(head + text[:size])
    if len(text) <= size:
        assert (shown, whole) == (message, None)
    else:
        assert whole == Whole("task_1", text, size)


def test_a_notification_with_a_picture_keeps_it() -> None:
    message = notification("task_1", "crawl", [TextBlock("abcdef"), PICTURE])
    shown, whole = cut_notification(message, 2, "task_1", "crawl")
    assert whole == Whole("task_1", "abcdef", 2)
    assert isinstance(shown.content, list)
    assert shown.content[1:3] == [TextBlock("ab"), PICTURE]
