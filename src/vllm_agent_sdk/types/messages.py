"""What is said in a conversation: messages, and the blocks they are made of.

These are the agent's own classes, the same for every dialect of the wire. They are immutable,
JSON both ways (`role` tells messages apart, `type` blocks), and compare by value.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable
from typing import Any, ClassVar, Literal, Self, TypeAlias, TypeVar

import msgspec

from vllm_agent_sdk.errors import ToolArgumentsError, UsageError
from vllm_agent_sdk.types import _codec

__all__ = [
    "AssistantMessage",
    "AudioBlock",
    "ContentBlock",
    "FileBlock",
    "ImageBlock",
    "MediaBlock",
    "Message",
    "Prompt",
    "Prompts",
    "ReasoningBlock",
    "SystemMessage",
    "TextBlock",
    "ToolCall",
    "ToolMessage",
    "UserMessage",
    "VideoBlock",
]

T = TypeVar("T")


class _Block(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of content blocks."""


class TextBlock(_Block, frozen=True, tag="text"):
    """Text."""

    text: str


class ReasoningBlock(_Block, frozen=True, tag="reasoning"):
    """What a reasoning model thought before it answered."""

    text: str


class MediaBlock(_Block, frozen=True):
    """Base of images, audio, video and files: a URL, given or made from data.

    Attributes:
        url: An http(s) or data URL. It is passed on to the server, never fetched here.
        name: The file's name, where one is known.
    """

    url: str
    name: str | None = None

    _kind: ClassVar[str] = ""

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Take an http(s) or data URL as it is. Raises `UsageError` for another scheme."""
        if not url.startswith(("http://", "https://", "data:")):
            raise UsageError(
                f"{url[:60]!r} is no http(s) or data URL; use {cls.__name__}.from_path for a file."
            )
        return cls(url=url)

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str) -> Self:
        """Make a data URL of the bytes.

        Args:
            data: The encoded file (PNG, WAV, …), not pixels or samples.
            media_type: Its type, such as `"image/png"`.
        """
        if cls._kind and not media_type.startswith(f"{cls._kind}/"):
            raise UsageError(
                f"{media_type!r} is no {cls._kind} type: {cls.__name__} cannot hold it."
            )
        if not data:
            raise UsageError(f"{cls.__name__}.from_bytes was given no data.")
        import base64

        return cls(url=f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}")

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file; its type follows from its name. Raises `UsageError` if it cannot be read."""
        import mimetypes  # reads the system's tables
        from pathlib import Path

        file = Path(path)
        media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        try:
            data = file.read_bytes()
        except OSError as cause:
            raise UsageError(f"{file} cannot be read: {cause.strerror or cause}.") from cause
        return msgspec.structs.replace(cls.from_bytes(data, media_type), name=file.name)


class ImageBlock(MediaBlock, frozen=True, tag="image"):
    """An image, for models that see, or from models that draw."""

    _kind: ClassVar[str] = "image"


class AudioBlock(MediaBlock, frozen=True, tag="audio"):
    """A sound, for models that hear."""

    _kind: ClassVar[str] = "audio"


class VideoBlock(MediaBlock, frozen=True, tag="video"):
    """A video, for models that see."""

    _kind: ClassVar[str] = "video"


class FileBlock(MediaBlock, frozen=True, tag="file"):
    """A file with its name."""


class ToolCall(_Block, frozen=True, tag="tool_call"):
    """A call of a tool, as the model wrote it.

    Attributes:
        id: The call's id, as the server gave it (opaque), or ours where it gave none.
        name: The tool's name.
        arguments: The parsed object, or `None` if the text is no JSON object.
        arguments_json: The text as the model wrote it.
        error: Why the arguments could not be parsed, in one sentence, or `None`.
        unexpected: True if no tool of this name was offered, or calls were forbidden.
            Such a call is never executed.
    """

    id: str
    name: str
    arguments: dict[str, Any] | None = None
    arguments_json: str = ""
    error: str | None = None
    unexpected: bool = False

    @classmethod
    def from_text(
        cls, id: str, name: str, arguments_json: str, *, unexpected: bool = False
    ) -> Self:
        """Parse a call's arguments once; a failure is data (`error`), not an exception.

        No text at all means no arguments: some of vLLM's parsers send none for such calls.
        """
        arguments: dict[str, Any] | None = None
        error: str | None = None
        if not arguments_json.strip():
            arguments = {}
        else:
            try:
                value = msgspec.json.decode(arguments_json)
            except (msgspec.DecodeError, RecursionError, UnicodeError) as cause:
                error = f"The arguments are not valid JSON: {cause}."
            else:
                if isinstance(value, dict):
                    arguments = value
                else:
                    kind = {list: "an array", str: "a string", type(None): "null"}
                    error = (
                        "The arguments must be a JSON object, not "
                        f"{kind.get(type(value), 'a ' + type(value).__name__)}."
                    )
        return cls(id, name, arguments, arguments_json, error, unexpected)

    def unwrapped(self) -> ToolCall | None:
        """Give the call with the object that its arguments hold as a JSON string, if they do.

        Some models encode their arguments twice; nothing is lost by decoding them twice.
        """
        try:
            inner = msgspec.json.decode(msgspec.json.decode(self.arguments_json, type=str))
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return None
        if not isinstance(inner, dict):
            return None
        return msgspec.structs.replace(self, arguments=inner, error=None)

    def with_id(self, id: str) -> ToolCall:
        """Give the same call under another id."""
        return self if id == self.id else msgspec.structs.replace(self, id=id)

    def parse(self, type_: type[T]) -> T:
        """Decode the arguments as a type msgspec knows (struct, dataclass, TypedDict, …).

        Raises:
            ToolArgumentsError: They don't parse, or don't match the type.
        """
        if self.arguments is None:
            raise ToolArgumentsError(
                self.error or "The call has no arguments.",
                tool=self.name,
                arguments_json=self.arguments_json,
            )
        try:
            return msgspec.convert(self.arguments, type_)
        except msgspec.ValidationError as cause:
            raise ToolArgumentsError(
                f"The arguments of {self.name} don't match {type_}: {cause}.",
                tool=self.name,
                arguments_json=self.arguments_json,
            ) from cause

    def result(self, value: Any, is_error: bool = False) -> ToolMessage:
        """Make the message that answers this call: text as it is, anything else as JSON."""
        content = value if isinstance(value, str) else _codec.encode_checked(value).decode()
        return ToolMessage(call_id=self.id, content=content, is_error=is_error)


ContentBlock: TypeAlias = (
    TextBlock | ReasoningBlock | ToolCall | ImageBlock | AudioBlock | VideoBlock | FileBlock
)


class _Message(msgspec.Struct, frozen=True, tag_field="role", omit_defaults=True):
    """Base of messages."""


class SystemMessage(_Message, frozen=True, tag="system"):
    """Instructions."""

    content: str

    @property
    def text(self) -> str:
        """The content."""
        return self.content


class UserMessage(_Message, frozen=True, tag="user"):
    """What the user says: text, or blocks of text and media."""

    content: str | list[ContentBlock]

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return text_of(self.content)


class AssistantMessage(_Message, frozen=True, tag="assistant"):
    """What the model said.

    Attributes:
        content: Reasoning, text and calls, in the order they came.
        verbatim: In guided and envelope turns, the text as it was generated, tags included.
            It is sent back as it was, so that the server's prefix cache holds.
    """

    content: list[ContentBlock] = []
    verbatim: str | None = None

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return text_of(self.content)

    @property
    def reasoning(self) -> str | None:
        """The reasoning blocks, joined, or `None`."""
        parts = [block.text for block in self.content if isinstance(block, ReasoningBlock)]
        return "".join(parts) if parts else None

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls, in order."""
        return [block for block in self.content if isinstance(block, ToolCall)]


class ToolMessage(_Message, frozen=True, tag="tool"):
    """The result of one call.

    Attributes:
        call_id: The call it answers.
        content: Text, or blocks of text and media.
        is_error: True if the tool failed, was refused, or was not run.
    """

    call_id: str
    content: str | list[ContentBlock]
    is_error: bool = False

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return text_of(self.content)


Message: TypeAlias = SystemMessage | UserMessage | AssistantMessage | ToolMessage

#: What a run can be started with.
Prompt: TypeAlias = str | ContentBlock | list[str | ContentBlock] | UserMessage

#: An async iterator of prompts.
Prompts: TypeAlias = AsyncIterable[Prompt]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


def text_of(content: str | list[ContentBlock]) -> str:
    """Join the text of a message's content."""
    if isinstance(content, str):
        return content
    return "".join(block.text for block in content if isinstance(block, TextBlock))


def as_user_message(prompt: Prompt) -> UserMessage:
    """Make the user's message of a prompt.

    Raises:
        UsageError: The prompt is empty or of a type that cannot be one.
    """
    if isinstance(prompt, UserMessage):
        message = prompt
    elif isinstance(prompt, str):
        message = UserMessage(prompt)
    elif isinstance(prompt, (TextBlock, MediaBlock)):
        message = UserMessage([prompt])
    elif isinstance(prompt, list):
        blocks = [TextBlock(item) if isinstance(item, str) else item for item in prompt]
        for block in blocks:
            if not isinstance(block, (TextBlock, MediaBlock)):
                raise UsageError(f"A prompt holds text and media, not {type(block).__name__}.")
        message = UserMessage(blocks)
    else:
        raise UsageError(
            f"A prompt is text, a content block, a list of these or a UserMessage, "
            f"not {type(prompt).__name__}."
        )
    if not message.content:
        raise UsageError("The prompt is empty.")
    return message
