"""The simulator and a real vLLM answer the same requests in the same shapes."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk.testing import Simulator

from ..testing.shapes import mirrored, shape_of  # noqa: TID252 - the same shapes on both sides
from .servers import LiveServer

pytestmark = [pytest.mark.live, pytest.mark.server("A"), pytest.mark.feature("Q-01")]

RECORDED = Path(__file__).resolve().parents[1] / "fixtures" / "recorded"
LONG = "word " * 9000
#: What the simulator leaves out (its fields are null), or lets pass.
NOT_SIMULATED = {
    *("chat_logprobs", "chat_logprobs_stream", "completion_logprobs", "completion_logprobs_stream"),
    *("chat_token_ids", "chat_token_ids_stream", "chat_bad_no_constraint"),
    # This server keeps responses, and has more models.
    *("response_bad_background", "models"),
}
#: Several choices in one stream come in the order in which the engine has them ready.
INTERLEAVED = {"chat_two_stream", "completion_two_prompts_stream"}
Answer = tuple[int, str | None, bytes]


def ask(root: str, entry: dict[str, Any]) -> Answer:
    """The status, the content type and the body."""
    body = entry.get("body")
    data = None if body is None else json.dumps(body).replace("{long}", LONG).encode()
    headers = {} if data is None else {"content-type": "application/json"}
    request = urllib.request.Request(root + entry["path"], data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.headers["content-type"], reply.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.headers["content-type"], refused.read()


def root_of(base_url: str) -> str:
    return base_url.removesuffix("/v1")


def metric_names(body: bytes) -> set[str]:
    """The names of the samples that a client of ours reads of any server."""
    return set(
        re.findall(r"^(vllm:num_requests_\w+|vllm:kv_\w+_perc)\{", body.decode(), re.MULTILINE)
    )


async def test_the_simulators_answers_have_the_shapes_of_the_servers(server: LiveServer) -> None:
    differing: dict[str, Any] = {}
    for entry in json.loads((RECORDED / "requests.json").read_text()):
        if entry["name"] in NOT_SIMULATED:
            continue
        real = await asyncio.to_thread(ask, root_of(server.base_url), entry)
        script = mirrored(real[2], real[0])
        simulator = Simulator(
            script, model=server.model, max_model_len=4096, check_fields=False, store=True
        )
        async with simulator as stand_in:
            got = await asyncio.to_thread(ask, root_of(stand_in.base_url), entry)
        shapes = [shape_of(each[0], each[2]) for each in (got, real)]
        if entry["name"] in INTERLEAVED:
            shapes = [{str(event) for event in shape} for shape in shapes]
        if shapes[0] != shapes[1] or got[1] != real[1]:
            differing[entry["name"]] = (got, real)
    assert not differing


async def test_its_metrics_are_among_the_servers(server: LiveServer) -> None:
    async with Simulator(model=server.model) as stand_in:
        path = {"path": "/metrics"}
        got = await asyncio.to_thread(ask, root_of(stand_in.base_url), path)
        real = await asyncio.to_thread(ask, root_of(server.base_url), path)
    assert metric_names(got[2])
    assert metric_names(got[2]) <= metric_names(real[2])
    assert (got[0], got[1]) == (real[0], real[1])
