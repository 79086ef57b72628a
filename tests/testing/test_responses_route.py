"""The simulator's Responses have vLLM's shapes, byte for byte, and its store behaves as vLLM's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import openai
import pytest

from vllm_agent_sdk import AsyncVLLM
from vllm_agent_sdk.testing import Reply, Simulator

from .clients import WEATHER

pytestmark = pytest.mark.feature("E-03", "Q-01")

FIXTURES = Path(__file__).parents[1] / "fixtures" / "responses"
WEATHER_TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {"instructions": "Be brief.", "max_output_tokens": 40},
    "call_required": {
        "max_output_tokens": 96,
        "tools": [WEATHER_TOOL],
        "tool_choice": "required",
    },
    "text_and_two_calls": {"max_output_tokens": 200, "tools": [WEATHER_TOOL]},
    "incomplete": {"max_output_tokens": 5},
    "reasoning_only": {"instructions": "Be brief.", "max_output_tokens": 60},
}


def recorded(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def events(name: str) -> list[dict[str, Any]]:
    lines = recorded(f"{name}.sse").split(b"\n")
    return [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]


def script(name: str) -> Reply:
    """The reply that says what the recorded stream said, in the same pieces."""
    said = events(name)
    final = said[-1]["response"]

    def deltas(kind: str, at: int | None = None) -> list[str]:
        own = [e for e in said if e["type"] == f"response.{kind}.delta"]
        return [e["delta"] for e in own if at is None or e["output_index"] == at]

    calls = [
        (item["name"], deltas("function_call_arguments", at))
        for at, item in enumerate(final["output"])
        if item["type"] == "function_call"
    ]
    usage = final["usage"]
    options: Any = {
        "usage": {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "reasoning_tokens": usage["output_tokens_details"]["reasoning_tokens"],
        }
    }
    if final["status"] == "incomplete":
        options["finish_reason"] = "length"
    text, reasoning = deltas("output_text"), deltas("reasoning_text")
    if calls:
        return Reply.calls(*calls, text=text, reasoning=reasoning, **options)
    return Reply.reasoning(reasoning, text, **options)


def normal(body: bytes) -> str:
    """The bytes with ids by their order, and without the time."""
    text = re.sub(r'"created_at":\d+', '"created_at":0', body.decode())
    seen: dict[str, str] = {}
    pattern = r"(?:msg|rs|fc|chatcmpl-tool)[_-][0-9a-f]{16}"
    return re.sub(pattern, lambda m: seen.setdefault(m[0], f"{m[0][:2]}{len(seen)}"), text)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("way", ["sse", "json"])
async def test_the_bytes_are_those_of_the_recorded_server(name: str, way: str) -> None:
    request_id = events(name)[0]["response"]["id"]
    body = {"input": "…", "temperature": 0, "request_id": request_id, **REQUESTS[name]}
    if way == "sse":
        body["stream"] = True
    model = "smollm2-135m"
    async with Simulator(script(name), model=model) as server, AsyncVLLM(server.base_url) as vllm:
        call = vllm._calls.call("/responses", body, {})
        if way == "json":
            answer = (await vllm._calls.fetch(call)).body
        else:
            stream, pieces = await vllm._calls.open(call), []
            while piece := await stream.receive():
                pieces.append(piece)
            await stream.aclose()
            answer = b"".join(pieces)
    assert normal(answer) == normal(recorded(f"{name}.{way}"))


async def test_openais_own_client_reads_it() -> None:
    text = Reply.text("Hello out there.")
    calls = Reply.calls(("get_weather", {"city": "Paris"}))
    async with (
        Simulator(text, calls, text, store=True) as server,
        openai.AsyncOpenAI(base_url=server.base_url, api_key="x") as client,
    ):
        first = await client.responses.create(input="Hi", model="sim-model")
        assert first.output_text == "Hello out there."
        tool: Any = WEATHER_TOOL
        called = await client.responses.create(
            input="Paris?", model="sim-model", tools=[tool], previous_response_id=first.id
        )
        (call,) = called.output
        assert call.type == "function_call"
        assert json.loads(call.arguments) == {"city": "Paris"}
        assert (await client.responses.retrieve(called.id)).output == called.output
        async with client.responses.stream(input="Hi", model="sim-model") as stream:
            kinds = [event.type async for event in stream]
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        assert (await stream.get_final_response()).output_text == "Hello out there."


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "Field required"),
        ({"input": "x", "prompt": {"id": "a"}}, 400, "prompt template is not supported"),
        ({"input": "x", "model": "nope"}, 404, "does not exist"),
        ({"input": "x", "tool_choice": "required"}, 400, "must be specified with 'tools'"),
        ({"input": "x", "tool_choice": {"type": "function", "name": "f"}}, 400, "not found in"),
        ({"input": "x", "background": True}, 400, "VLLM_ENABLE_RESPONSES_API_STORE=1"),
        ({"input": "x", "background": True, "store": False}, 400, "only be used when `store`"),
        ({"input": "x", "previous_response_id": "r"}, 404, "Response with id 'r' not found."),
        ({"input": "a b c d e f g h"}, 400, "maximum context length is 8 tokens"),
    ],
)
async def test_what_the_server_refuses_is_refused_with_its_words(
    body: dict[str, Any], status: int, text: str
) -> None:
    simulator = Simulator(max_model_len=8, check_fields=False)
    async with simulator as server, AsyncVLLM(server.base_url) as vllm:
        with pytest.raises(Exception, match=re.escape(text)) as caught:
            await vllm._calls.fetch(vllm._calls.call("/responses", body, {}))
    assert getattr(caught.value, "status", None) == status


async def test_a_server_without_a_parser_gives_calls_as_text() -> None:
    reply = Reply.calls(("get_weather", {"city": "Paris"}))
    async with Simulator(reply, tool_parser=None) as server, AsyncVLLM(server.base_url) as vllm:
        whole = await vllm.responses.create(input="Hi", tools=[WEATHER])
        streamed = await vllm.responses.stream(input="Hi", tools=[WEATHER]).final()
    assert whole.tool_calls == streamed.tool_calls == []
    assert whole.text == streamed.text
    assert whole.text.startswith("<tool_call>")


async def test_what_a_function_of_the_script_raises_comes_up_at_the_end() -> None:
    def broken(_: object) -> Reply:
        raise ValueError("broken script")

    with pytest.raises(ValueError, match="broken script"):
        async with Simulator(broken) as server, AsyncVLLM(server.base_url) as vllm:
            await vllm.responses.create(input="Hi")
