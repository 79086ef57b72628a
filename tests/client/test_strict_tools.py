"""Strict tools on the wire: acceptable to the grammars, or refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import SchemaError, tool
from vllm_agent_sdk.testing import Reply

from .support import HI, served


def wire(parameters: Any, *, strict: bool) -> dict[str, Any]:
    function = {"name": "plan", "parameters": parameters, "strict": strict}
    return {"type": "function", "function": function}


TUPLE: Any = {
    "type": "object",
    "properties": {"at": {"type": "array", "items": [{"type": "number"}, {"type": "number"}]}},
}
LOOPING: Any = {
    "type": "object",
    "properties": {"code": {"type": "string", "pattern": r"^(a|b)\1$"}},
}


@pytest.mark.feature("O-03")
async def test_a_strict_tool_is_rewritten_and_any_other_is_sent_as_it_is() -> None:
    async with served(Reply.text("Hi")) as (server, vllm):
        for strict in (True, False):
            tools = [wire(TUPLE, strict=strict)]
            await vllm.chat.completions.create(messages=HI, tools=tools)
    sent = [request.json["tools"][0]["function"]["parameters"] for request in server.chats]
    assert sent[0]["properties"]["at"] == {
        "type": "array",
        "prefixItems": [{"type": "number"}, {"type": "number"}],
    }
    assert sent[1] == TUPLE


@pytest.mark.feature("O-03")
async def test_a_strict_tool_without_a_grammar_is_refused_before_anything_is_sent() -> None:
    async with served(Reply.text("Hi")) as (server, vllm):
        for call in (vllm.chat.completions.create, vllm.chat.completions.stream):
            with pytest.raises(SchemaError, match=r"'plan'.*'pattern' at properties\.code"):
                await call(messages=HI, tools=[wire(LOOPING, strict=True)])  # type: ignore[misc]
        assert not server.chats
        await vllm.chat.completions.create(messages=HI, tools=[wire(LOOPING, strict=False)])
        assert len(server.chats) == 1


@pytest.mark.feature("O-03")
async def test_a_tool_function_is_strict_only_where_the_agent_makes_it_so() -> None:
    @tool
    async def plan(days: int) -> str:
        """Plan some days."""
        return str(days)

    async with served(Reply.text("Hi")) as (server, vllm):
        await vllm.chat.completions.create(messages=HI, tools=[plan])
    assert "strict" not in server.chats[0].json["tools"][0]["function"]
