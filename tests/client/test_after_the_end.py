"""What a server sends after it has said that a stream is over does not count."""

from __future__ import annotations

import json

import pytest

from vllm_agent_sdk import AsyncVLLM
from vllm_agent_sdk.errors import StreamTruncatedError

from .support import ONCE, FixedTransport

pytestmark = pytest.mark.feature("S-06")

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}'
COMPLETED = {"type": "response.completed", "response": {"id": "r", "status": "completed"}}


async def test_a_chunk_after_done_is_not_taken_even_where_the_end_cuts_it() -> None:
    transport = FixedTransport(b"data: [DONE]\n\n" + CHUNK)
    async with AsyncVLLM("http://h", model="m", retry=ONCE, transport=transport) as vllm:
        messages = [{"role": "user", "content": "Hi"}]
        with pytest.raises(StreamTruncatedError):
            await vllm.chat.completions.stream(messages=messages).final()


async def test_an_error_after_the_completed_response_does_not_spoil_it() -> None:
    body = b"data: " + json.dumps(COMPLETED).encode() + b'\n\ndata: {"error":"late"}'
    transport = FixedTransport(body)
    async with AsyncVLLM("http://h", model="m", retry=ONCE, transport=transport) as vllm:
        response = await vllm.responses.stream(input="Hi").final()
    assert response.status == "completed"
