"""Which tools of toolsets the model has, from turn to turn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vllm_agent_sdk.agent.run.guarded import called, time_limit
from vllm_agent_sdk.agent.tools.results import error_text
from vllm_agent_sdk.agent.tools.toolset import Offered, Toolset, check_tools, offered_tools
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.tools import RunContext

__all__ = ["hidden"]


async def hidden(
    tools: Iterable[Offered], ctx: RunContext[Any], limit: float | None
) -> tuple[set[str], list[str]]:
    """Ask the toolsets, each once, what the model is not to have in the coming turn.

    Args:
        tools: The tools.
        ctx: Given to `visible`.
        limit: Seconds that each may take, or `None`.

    Returns:
        The names of the hidden tools, and what went wrong: such a set is hidden.
    """
    answers: dict[int, Any] = {}
    wrong: list[str] = []
    away: set[str] = set()
    for each in tools:
        for toolset, name in each.conditions:
            if id(toolset) not in answers:
                try:
                    answers[id(toolset)] = await _answer(toolset, ctx, limit)
                except Exception as error:  # noqa: BLE001 - what a callback raises ends no run
                    answers[id(toolset)] = False
                    wrong.append(_problem(toolset, error))
            answer = answers[id(toolset)]
            if answer is False or (answer is not True and name not in answer):
                away.add(each.tool.spec.name)
    return away, wrong


async def _answer(
    toolset: Toolset, ctx: RunContext[Any], limit: float | None
) -> bool | frozenset[str]:
    visible = toolset.visible
    if visible is None:
        return True
    async with time_limit(limit):
        answer = await called(visible, ctx, name="visible")
    if isinstance(answer, bool):
        return answer
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        raise UsageError(f"visible() gave {answer!r:.80}; it gives True, False or names of tools.")
    names = frozenset(answer)
    known = offered_tools(toolset.tools)
    if unknown := sorted(str(name) for name in names if name not in known):
        raise UsageError(f"visible() gave {unknown[0]!r}; the tools are {', '.join(known)}.")
    return names


def _problem(toolset: Toolset, error: Exception) -> str:
    names = ", ".join(check_tools([toolset]))
    text = error_text(error).encode("utf-8", "replace").decode()
    return f"visible() of the toolset with {names} failed, so it is hidden this turn: {text}"
