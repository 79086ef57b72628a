"""Messages, blocks and calls as values."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk.errors import ToolArgumentsError, UsageError
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    AudioBlock,
    FileBlock,
    ImageBlock,
    Message,
    ReasoningBlock,
    SystemMessage,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
    VideoBlock,
    as_user_message,
)

MESSAGES: list[Message] = [
    SystemMessage("s"),
    UserMessage("u"),
    UserMessage([TextBlock("a"), ImageBlock("http://x/a.png", "a.png")]),
    AssistantMessage([ReasoningBlock("r"), TextBlock("t"), ToolCall("c", "f", {"a": 1}, "{}")]),
    AssistantMessage(verbatim="[[final]]x[[/final]]"),
    ToolMessage("c", "done", is_error=True),
    ToolMessage("c", [AudioBlock("data:audio/wav;base64,AA==")]),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_json_both_ways(message: Message) -> None:
    assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message


@pytest.mark.parametrize(
    ("text", "arguments", "error"),
    [
        ("", {}, None),
        (" \n", {}, None),
        ('{"a": 1}', {"a": 1}, None),
        ('{"a": ', None, "not valid JSON"),
        ("[1]", None, "not an array"),
        ('"a"', None, "not a string"),
        ("null", None, "not null"),
        ("7", None, "not a int"),
        ('{"a": NaN}', None, "not valid JSON"),
        ('{"a": 1e999}', None, "not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", None, "not valid JSON"),
        ('{"a":' * 5000, None, "not valid JSON"),
        ('{"a": "\ud800"}', None, "not valid JSON"),
    ],
)
def test_arguments_are_parsed_once_and_a_failure_is_data(
    text: str, arguments: dict[str, Any] | None, error: str | None
) -> None:
    call = ToolCall.from_text("c", "f", text)
    assert (call.arguments, call.arguments_json) == (arguments, text)
    assert (call.error is None) == (error is None)
    assert (error or "") in (call.error or "")


@given(text=st.text())
def test_any_arguments_are_data(text: str) -> None:
    call = ToolCall.from_text("c", "f", text)
    assert (call.arguments is None) == (call.error is not None)


class Weather(TypedDict):
    city: str


def test_arguments_decode_as_a_type() -> None:
    assert ToolCall.from_text("c", "f", '{"city": "Rome"}').parse(Weather) == {"city": "Rome"}
    for text in ('{"city": 7}', "{}", "{"):
        with pytest.raises(ToolArgumentsError) as caught:
            ToolCall.from_text("c", "f", text).parse(Weather)
        assert (caught.value.tool, caught.value.arguments_json) == ("f", text)


def test_a_call_makes_its_result() -> None:
    call = ToolCall("c", "f")
    assert call.result("18 °C") == ToolMessage("c", "18 °C")
    assert call.result({"t": 18}, is_error=True) == ToolMessage("c", '{"t":18}', True)
    with pytest.raises(UsageError, match="NaN"):
        call.result({"t": float("nan")})


def test_a_call_under_another_id_is_the_same_call() -> None:
    call = ToolCall("c", "f", {}, "{}", None, True)
    assert call.with_id("c") is call
    assert call.with_id("d") == ToolCall("d", "f", {}, "{}", None, True)


def test_the_text_of_a_message_is_its_text_blocks() -> None:
    assert [message.text for message in MESSAGES] == ["s", "u", "a", "t", "", "done", ""]
    assert MESSAGES[3].reasoning == "r"  # type: ignore[union-attr]
    assert AssistantMessage().reasoning is None


# ── media ────────────────────────────────────────────────────────────────────────────────────────


def test_media_from_a_file_know_their_type_and_name(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"png")
    url = f"data:image/png;base64,{base64.b64encode(b'png').decode()}"
    assert ImageBlock.from_path(file) == ImageBlock(url, "a.png")
    assert FileBlock.from_path(file) == FileBlock(url, "a.png")
    with pytest.raises(UsageError, match="AudioBlock cannot hold it"):
        AudioBlock.from_path(file)
    with pytest.raises(UsageError, match=r"cannot be read: No such file"):
        VideoBlock.from_path(tmp_path / "b.mp4")


def test_media_from_bytes_are_data_urls() -> None:
    assert AudioBlock.from_bytes(b"\x00", "audio/wav").url == "data:audio/wav;base64,AA=="
    with pytest.raises(UsageError, match="no data"):
        ImageBlock.from_bytes(b"", "image/png")
    with pytest.raises(UsageError, match="no video type"):
        VideoBlock.from_bytes(b"x", "image/png")


@pytest.mark.parametrize("url", ["http://x/a.png", "https://x/a.png", "data:image/png;base64,AA=="])
def test_urls_are_taken_as_they_are(url: str) -> None:
    assert ImageBlock.from_url(url).url == url


@pytest.mark.parametrize("url", ["a.png", "file:///etc/passwd", "ftp://x/a"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no http"):
        ImageBlock.from_url(url)


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────

IMAGE = ImageBlock("http://x/a.png")


@pytest.mark.parametrize(
    ("prompt", "content"),
    [
        ("Hi", "Hi"),
        (UserMessage("Hi"), "Hi"),
        (IMAGE, [IMAGE]),
        (["What?", IMAGE], [TextBlock("What?"), IMAGE]),
    ],
)
def test_a_prompt_is_a_message_of_the_user(prompt: Any, content: Any) -> None:
    assert as_user_message(prompt) == UserMessage(content)


@pytest.mark.parametrize("prompt", ["", [], UserMessage(""), None, 7, [7], [ToolCall("c", "f")]])
def test_what_is_no_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(UsageError, match=r"prompt"):
        as_user_message(prompt)
