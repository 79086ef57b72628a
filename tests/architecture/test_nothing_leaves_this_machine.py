"""Law 7: nothing is ever sent anywhere but to the servers the user named."""

from __future__ import annotations

import asyncio
import socket

import pytest


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80)])
def test_a_test_cannot_connect_to_another_machine(
    address: tuple[str, int], blocked_connections: list[str]
) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as sock, pytest.raises(PermissionError, match="may not reach"):
        sock.connect(address)
    assert blocked_connections == [f"connect to {address!r}"]
    blocked_connections.clear()


async def test_an_event_loop_cannot_connect_to_another_machine(
    blocked_connections: list[str],
) -> None:
    with pytest.raises(PermissionError, match="may not reach"):
        await asyncio.open_connection("192.0.2.1", 80)
    assert len(blocked_connections) == 1
    blocked_connections.clear()


def test_no_name_server_is_asked() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("example.com", 80)


async def test_loopback_stays_open() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "localhost", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        assert writer.get_extra_info("peername") == ("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
