"""The simulator answers in the shapes of what was recorded of vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk.testing import Simulator

from .clients import Socket
from .shapes import mirrored, shape_of

pytestmark = pytest.mark.feature("Q-01")

RECORDED = Path(__file__).resolve().parents[1] / "fixtures" / "recorded"
REQUESTS = {each["name"]: each for each in json.loads((RECORDED / "requests.json").read_text())}
ANSWERS: dict[str, Any] = json.loads((RECORDED / "answers.json").read_text())
LONG = "word " * 9000
#: What the simulator leaves out (its fields are null), or lets pass.
NOT_SIMULATED = {
    *("chat_logprobs", "chat_logprobs_stream", "completion_logprobs", "completion_logprobs_stream"),
    *("chat_token_ids", "chat_token_ids_stream", "chat_bad_no_constraint"),
}


def body_of(request: dict[str, Any]) -> bytes | None:
    if "body" not in request:
        return None
    return json.dumps(request["body"]).replace("{long}", LONG).encode()


@pytest.mark.parametrize("name", sorted(REQUESTS.keys() - NOT_SIMULATED))
async def test_an_answer_has_the_shape_of_the_recorded_one(name: str) -> None:
    answer, request = ANSWERS[name], REQUESTS[name]
    kind = "sse" if (answer["content-type"] or "").startswith("text/event-stream") else "json"
    body = (RECORDED / f"{name}.{kind}").read_bytes()
    simulator = Simulator(
        mirrored(body, answer["status"]),
        model="smollm2-135m",
        max_model_len=4096,
        check_fields=False,
    )
    async with simulator as server, Socket(server) as client:
        client.send(request["path"], body_of(request))
        got = await client.reply()
    assert shape_of(got.status, got.body) == shape_of(answer["status"], body)
    assert got.headers.get("content-type") == answer["content-type"]
    assert ("transfer-encoding" in got.headers) is (answer["framing"] == "chunked")
