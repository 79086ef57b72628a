"""Strict tools on a real server, and the loop by hand."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM
from vllm_agent_sdk._core.schema.grammar import grammar_schema
from vllm_agent_sdk._core.schema.schema import Validator

from .servers import LiveServer

pytestmark = [pytest.mark.live, pytest.mark.server("A")]

EXAMPLE = Path(__file__).parents[2] / "examples" / "tool_loop.py"
ASK: Any = [{"role": "user", "content": "Plan two days in Paris with the tool."}]
#: Each keyword here is refused by the grammar compiler, or makes it forbid what is valid.
DOUBTFUL: Any = {
    "type": "object",
    "properties": {
        "days": {"type": "integer", "minimum": 0.5, "maximum": 7.5},
        "pace": {"allOf": [{"type": "integer"}, {"minimum": 1}, {"maximum": 3}]},
        "mode": {"enum": ["car", "bike"]},
    },
    "required": ["days", "pace", "mode", "extra"],
}


@pytest.mark.feature("O-03")
@pytest.mark.parametrize("choice", ["required", "named"])
async def test_doubtful_schemas_compile_and_hold(server: LiveServer, choice: str) -> None:
    named: Any = {"type": "function", "function": {"name": "plan"}}
    function: Any = {"name": "plan", "strict": True, "parameters": DOUBTFUL}
    # Of any JSON for `extra`, a small model makes text without end.
    function["parameters"] = {
        **DOUBTFUL,
        "additionalProperties": {"enum": ["none"]},
    }
    async with AsyncVLLM(server.base_url, api_key=server.api_key) as vllm:
        reply = await vllm.chat.completions.create(
            messages=ASK,
            tools=[{"type": "function", "function": function}],
            tool_choice="required" if choice == "required" else named,
            temperature=0,
            max_tokens=200,
        )
    call = reply.tool_calls[0]
    assert call.arguments is not None
    assert Validator(function["parameters"]).errors(call.arguments) == []
    assert call.arguments["extra"] == "none"
    assert grammar_schema(function["parameters"], "It") != function["parameters"]


@pytest.mark.feature("O-13")
async def test_the_loop_by_hand_runs_as_it_stands(server: LiveServer) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        env={**os.environ, "VLLM_BASE_URL": server.base_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out.decode().strip()
