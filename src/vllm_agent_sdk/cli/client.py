"""The client of the server that a command is told of."""

from __future__ import annotations

from vllm_agent_sdk import AsyncVLLM
from vllm_agent_sdk.cli.options import Connection

__all__ = ["client_of"]


def client_of(connection: Connection, model: str | None = None) -> AsyncVLLM:
    """Make the client of the server that is meant."""
    return AsyncVLLM(
        connection.base_url,
        api_key=connection.api_key,
        model=model,
        timeout=connection.timeout,
    )
