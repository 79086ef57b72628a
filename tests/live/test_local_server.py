"""`LocalServer` with the real vLLM: it answers, it fails in words, it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_agent_sdk.errors import LocalServerError
from vllm_agent_sdk.local import LocalServer, ProgressEvent, purge
from vllm_agent_sdk.local._supervisor import descendants

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("real_vllm")]

PROGRAM = """
import asyncio
from vllm_agent_sdk.local import LocalServer

async def main():
    async with LocalServer() as server:
        print(server.pid, flush=True)
        await server.wait()

asyncio.run(main())
"""


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def gone_within(seconds: float, pids: list[int]) -> bool:
    return eventually(seconds, lambda: not any(map(alive, pids)))


def eventually(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.feature("X-03")
async def test_it_serves_the_bundled_model_and_leaves_nothing() -> None:
    events: list[ProgressEvent] = []
    async with LocalServer(progress=events.append) as server:
        with await asyncio.to_thread(urllib.request.urlopen, f"{server.base_url}/models") as reply:
            cards = json.load(reply)["data"]
        pids = descendants(os.getpid())
        with pytest.raises(LocalServerError, match="A server runs from"):
            purge()
    assert [card["id"] for card in cards] == [server.model] == ["smollm2-135m"]
    assert server.pid in pids
    assert not any(map(alive, set(pids) - set(descendants(os.getpid()))))
    assert not alive(server.pid)
    assert server.log_path.stat().st_size > 0
    assert next(event.step for event in events if event.step != "waiting") == "start"
    assert events[-1].step == "ready"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(server.base_url.split(":")[2][:-3]))) != 0


@pytest.mark.feature("X-03")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_program_that_is_killed_leaves_no_process(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as program:
        assert program.stdout is not None
        server = int(program.stdout.readline())
        pids = [program.pid, *descendants(program.pid)]
        assert server in pids
        assert len(pids) >= 4  # program, supervisor, API server, engine, worker
        program.send_signal(number)
        program.wait(30)
    assert gone_within(15, pids)


@pytest.mark.feature("X-03")
async def test_a_server_that_dies_while_starting_says_why() -> None:
    with pytest.raises(LocalServerError) as caught:
        async with LocalServer(args=["--no-such-flag"]):
            pass
    message, *log = caught.value.message.splitlines()
    assert "ended while starting (exit code 2)" in message
    assert "unrecognized arguments: --no-such-flag" in message
    assert log
    assert caught.value.log_path is not None
    text = await asyncio.to_thread(Path(caught.value.log_path).read_text, encoding="utf-8")
    assert "--no-such-flag" in text
