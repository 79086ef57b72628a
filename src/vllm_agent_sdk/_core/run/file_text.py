"""Files among a tool's results, as text: no server takes files in a conversation (vLLM 0.32)."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from vllm_agent_sdk.types.messages import ContentBlock, FileBlock, TextBlock

__all__ = ["readable"]

_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^,;]*)*),(.*)", re.DOTALL)
_TEXT = re.compile(r"(?i)text/.*|application/(.*\+)?(json|xml|yaml|x-yaml|toml|javascript|sql)")


def readable(content: str | list[ContentBlock]) -> str | list[ContentBlock]:
    """Give a result with its files as text: what is text is shown, all else is named."""
    if isinstance(content, str) or not any(isinstance(block, FileBlock) for block in content):
        return content
    blocks: list[ContentBlock] = [
        _as_text(block) if isinstance(block, FileBlock) else block for block in content
    ]
    if len(blocks) == 1 and isinstance(blocks[0], TextBlock):
        return blocks[0].text
    return blocks


def _as_text(block: FileBlock) -> TextBlock:
    name = f"file {block.name}" if block.name else "file"
    found = _DATA_URL.fullmatch(block.url)
    if found is None:
        return TextBlock(f"[{name} at {block.url}]")
    kind, data = found[1] or "text/plain", _data(found[2], found[3])
    if data is None:
        return TextBlock(f"[{name}, {kind}: its data is broken]")
    if _TEXT.fullmatch(kind):
        try:
            return TextBlock(f"[{name}, {kind}]\n{data.decode()}")
        except UnicodeDecodeError:
            pass  # it is named, as other bytes are
    return TextBlock(f"[{name}, {kind}, {len(data)} bytes: it cannot be shown as text]")


def _data(options: str, text: str) -> bytes | None:
    if not options.endswith(";base64"):
        return unquote_to_bytes(text)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
