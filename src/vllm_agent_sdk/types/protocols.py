"""The seams that others may fill: tools."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from typing_extensions import TypeVar

from vllm_agent_sdk.types.tools import RunContext, ToolOutput, ToolSpec

__all__ = ["Tool"]

Deps = TypeVar("Deps", default=None)


@runtime_checkable
class Tool(Protocol[Deps]):
    """Something the model can call."""

    @property
    def spec(self) -> ToolSpec:
        """What the model and the runtime know of it."""
        ...

    async def invoke(self, arguments: dict[str, Any], ctx: RunContext[Deps]) -> ToolOutput:
        """Validate the arguments and run.

        Args:
            arguments: The parsed object, as the model wrote it.
            ctx: Where the call comes from.

        Returns:
            What the model is told. Invalid arguments are an output too (`executed=False`,
            `is_error=True`), and so is an exception of the tool's own code.
        """
        ...
