"""A call that a model wrote as a JSON object in its text."""

from __future__ import annotations

import msgspec

from vllm_agent_sdk.types import _codec

__all__ = ["CallText", "decode_call_text"]


class CallText(msgspec.Struct):
    """The object; its arguments stay the JSON that was written, under either of two names."""

    name: str
    arguments: _codec.Raw = _codec.Raw(b"")
    parameters: _codec.Raw = _codec.Raw(b"")


decode_call_text = _codec.decoder(CallText)
