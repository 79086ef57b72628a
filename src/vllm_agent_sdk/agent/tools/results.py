"""What a tool returned, as the model will read it."""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk._core.schema.values import encode_json, to_json
from vllm_agent_sdk.errors import ToolError, UsageError
from vllm_agent_sdk.types.messages import (
    AudioBlock,
    ContentBlock,
    FileBlock,
    ImageBlock,
    MediaBlock,
    TextBlock,
    VideoBlock,
)
from vllm_agent_sdk.types.tools import ToolOutput

__all__ = ["NO_OUTPUT", "checked", "error_text", "failure", "output_of"]

#: What the model reads where a tool returned nothing.
NO_OUTPUT = "(no output)"

_BLOCKS = (TextBlock, MediaBlock)
_CLAUDE_KEYS = {"content", "is_error", "isError", "structuredContent", "_meta"}
_CLAUDE_TYPES = {"text", "image", "audio", "resource", "resource_link"}
_MEDIA: dict[str, type[MediaBlock]] = {
    "image": ImageBlock,
    "audio": AudioBlock,
    "video": VideoBlock,
}


def failure(text: str, *, executed: bool = True) -> ToolOutput:
    """Make an error result. What UTF-8 cannot write is replaced: an error must reach the model."""
    clean = text.encode("utf-8", "replace").decode()
    return ToolOutput(content=clean, is_error=True, executed=executed)


def error_text(error: BaseException) -> str:
    """Say what was raised: its type and its message, of a `ToolError` its message alone."""
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  a broken __str__ must not hide what happened
        text = "(no message)"
    if isinstance(error, ToolError):
        return text or kind
    return f"{kind}: {text}" if text else kind


def checked(output: Any, tool: str) -> ToolOutput:
    """Give the output back, or an error output where it is none that can be kept and sent.

    Args:
        output: What `invoke` of a tool gave; of one of another's making that may be anything.
        tool: The tool's name, for the error.
    """
    if not isinstance(output, ToolOutput):
        return failure(f"{tool} gave {type(output).__name__}, no ToolOutput.")
    content: Any = output.content
    if not isinstance(content, str) and not (
        isinstance(content, list) and all(isinstance(block, _BLOCKS) for block in content)
    ):
        return failure(f"{tool} ran, but its output holds neither text nor a list of blocks.")
    try:
        encode_json(content)
    except UsageError as error:
        return failure(f"{tool} ran, but its output cannot be shown: {error}")
    return output


def output_of(value: Any, tool: str) -> ToolOutput:
    """Turn what a tool returned into its output.

    Text stays text; `None` and empty text become `(no output)`; content blocks, and lists with at
    least one of them, stay blocks; the Claude SDK's `{"content": […], "is_error": …}` is read;
    anything else becomes compact JSON.

    Args:
        value: What the tool returned.
        tool: The tool's name, for the error.

    Returns:
        The output; an error output (`executed=True`) where the value has no form the model can
        read: bytes, objects of unknown classes, NaN.
    """
    if isinstance(value, ToolOutput):
        return value
    try:
        if _is_claude(value):
            failed = bool(value.get("is_error", value.get("isError", False)))
            blocks = [_claude_block(item) for item in value["content"]]
            return ToolOutput(content=_joined(blocks), is_error=failed)
        return ToolOutput(content=_content(value))
    except UsageError as error:
        return failure(
            f"{tool} ran, but its result ({type(value).__name__}) cannot be shown: {error}"
        )


def _content(value: Any) -> str | list[ContentBlock]:
    if value is None:
        return NO_OUTPUT
    if isinstance(value, str):
        encode_json(value)  # refuses lone surrogates, which nothing later could write
        return str(value) or NO_OUTPUT
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise UsageError(
            "bytes mean nothing to the model. Return text, or a block such as "
            'ImageBlock.from_bytes(data, "image/png").'
        )
    if isinstance(value, _BLOCKS):
        return _joined([value])
    if isinstance(value, (list, tuple)) and any(isinstance(item, _BLOCKS) for item in value):
        return _joined([_block(item) for item in value])
    data = encode_json(value)
    # Dates, paths and enums of text are text; only what holds more is JSON.
    return (to_json(value) or NO_OUTPUT) if data.startswith(b'"') else data.decode()


def _block(item: Any) -> Any:
    if isinstance(item, str):
        return TextBlock(item)
    if isinstance(item, _BLOCKS):
        return item
    raise UsageError(f"A list with blocks holds text and blocks only, not {type(item).__name__}.")


def _joined(blocks: list[Any]) -> str | list[ContentBlock]:
    """Give text where there is nothing but one text; every server takes that."""
    for block in blocks:
        encode_json(block)
    if not blocks:
        return NO_OUTPUT
    if len(blocks) == 1 and isinstance(blocks[0], TextBlock):
        return blocks[0].text or NO_OUTPUT
    return blocks


def _is_claude(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("content"), list)
        and set(value) <= _CLAUDE_KEYS
        and all(isinstance(i, dict) and i.get("type") in _CLAUDE_TYPES for i in value["content"])
    )


def _claude_block(item: dict[str, Any]) -> Any:
    kind = item["type"]
    try:
        if kind == "text":
            return TextBlock(_text(item["text"]))
        if kind == "resource_link":
            return TextBlock(_text(item["uri"]))
        if kind == "resource":
            resource = item["resource"]
            if "text" in resource:
                return TextBlock(_text(resource["text"]))
            media_type = resource.get("mimeType") or "application/octet-stream"
            return _data_block(FileBlock, media_type, resource["blob"])
        return _data_block(_MEDIA[kind], item["mimeType"], item["data"])
    except KeyError as cause:
        raise UsageError(f"A content item of type {kind!r} lacks {cause}.") from cause


def _data_block(kind: type[MediaBlock], media_type: Any, data: Any) -> MediaBlock:
    return kind.from_url(f"data:{_text(media_type)};base64,{_text(data)}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"A content item holds {type(value).__name__} where text belongs.")
    return value
