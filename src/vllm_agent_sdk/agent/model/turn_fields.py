"""Single fields of a turn's request: made of the run's definition, and of nothing else."""

from __future__ import annotations

from typing import Any

from vllm_agent_sdk._core.run.state import State
from vllm_agent_sdk._core.schema.grammar import response_schema
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.tools import ToolSpec

__all__ = ["named", "native_system", "native_tool", "switch_off", "typed"]


def native_system(state: State) -> str | None:
    """Give the system text; where nothing else shows a typed answer's schema, it does."""
    instructions, output = state.started.instructions, state.started.output
    if output is None or state.turn_mode != "native" or not state.tools:
        return instructions
    schema = _codec.encode(output).decode()
    asked = f"Give the final answer as JSON that matches this schema, and nothing else: {schema}"
    return f"{instructions}\n\n{asked}" if instructions else asked


def named(choice: dict[str, Any]) -> str:
    """Give the name in a `tool_choice` that names a tool; `""` for none."""
    function = choice.get("function")
    return str(function.get("name")) if isinstance(function, dict) else ""


def typed(output: dict[str, Any]) -> dict[str, Any]:
    """Give the `response_format` of a typed answer."""
    schema = response_schema(output, "The output's schema")
    form = {"name": "output", "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": form}


def switch_off(params: dict[str, Any], switch: str) -> None:
    """Tell the template to leave thinking out."""
    extra = params.get("extra_body") or {}
    if "chat_template_kwargs" in extra:
        kwargs = {**extra["chat_template_kwargs"], switch: False}
        params["extra_body"] = {**extra, "chat_template_kwargs": kwargs}
    else:
        kwargs = params.get("chat_template_kwargs") or {}
        params["chat_template_kwargs"] = {**kwargs, switch: False}
    params.pop("thinking", None)
    params.pop("reasoning_effort", None)
    params.pop("thinking_token_budget", None)


def native_tool(tool: ToolSpec) -> dict[str, Any]:
    """Give a tool in the wire's shape."""
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}
