"""Ports, and the question whether a server is ready; plain sockets, no HTTP library."""

from __future__ import annotations

import asyncio
import socket

from vllm_agent_sdk.errors import LocalServerError
from vllm_agent_sdk.local._command import Address

__all__ = ["check_port", "free_port", "healthy"]

_ANSWER_S = 2.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(address: Address) -> None:
    """Make sure that nobody listens there.

    Raises:
        LocalServerError: The port is taken, or not to be had at all.
    """
    # vLLM sets SO_REUSEPORT: it would share the port of another vLLM in silence.
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except (OSError, OverflowError) as error:
            raise LocalServerError(
                f"Port {address.port} of {address.host} cannot be used ({error}); "
                "stop what uses it, or choose another port (or none, for a free one)."
            ) from error


async def healthy(address: Address) -> bool:
    """Whether `GET /health` is answered with 200."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            try:
                writer.write(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return status.split(b" ")[1:2] == [b"200"]
