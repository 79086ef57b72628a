"""Files among results: shown where they are text, named where they are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.run.file_text import readable
from vllm_agent_sdk.types.messages import ContentBlock, FileBlock, ImageBlock, TextBlock

pytestmark = pytest.mark.feature("A-02")

PICTURE = ImageBlock.from_bytes(b"x", "image/png")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (FileBlock.from_bytes(b"a,b", "text/csv"), "[file, text/csv]\na,b"),
        (FileBlock(FileBlock.from_bytes(b"{}", "application/json").url, "x.json"),
         "[file x.json, application/json]\n{}"),
        (FileBlock("data:,a%20b"), "[file, text/plain]\na b"),
        (FileBlock.from_bytes(b"<a/>", "image/svg+xml"),
         "[file, image/svg+xml, 4 bytes: it cannot be shown as text]"),
        (FileBlock.from_bytes(b"%PDF", "application/pdf"),
         "[file, application/pdf, 4 bytes: it cannot be shown as text]"),
        (FileBlock.from_bytes(b"\xff", "text/plain"),
         "[file, text/plain, 1 bytes: it cannot be shown as text]"),
        (FileBlock("data:text/plain;base64,%%"), "[file, text/plain: its data is broken]"),
        (FileBlock("https://x/y.pdf", "y.pdf"), "[file y.pdf at https://x/y.pdf]"),
    ],
)  # fmt: skip
def test_a_file_is_shown_or_named(file: FileBlock, text: str) -> None:
    assert readable([file]) == text
    assert readable([PICTURE, file]) == [PICTURE, TextBlock(text)]


@given(st.text())
def test_text_comes_through_a_file_as_it_is(text: str) -> None:
    data = text.encode() or b" "
    shown = readable([FileBlock.from_bytes(data, "text/plain;charset=utf-8")])
    assert shown == f"[file, text/plain]\n{data.decode()}"


@given(st.text())
def test_whatever_the_url_holds_it_becomes_text(rest: str) -> None:
    assert isinstance(readable([FileBlock(f"data:{rest}")]), str)


def test_what_holds_no_file_stays_the_same_object() -> None:
    blocks: list[ContentBlock] = [TextBlock("a"), PICTURE]
    assert readable(blocks) is blocks
    assert readable("a") == "a"
