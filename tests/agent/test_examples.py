"""The agents of `examples/` run as they stand, on whatever server `VLLM_BASE_URL` names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk.testing import Reply, Simulator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def start(name: str, server: Simulator) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "VLLM_BASE_URL": server.base_url},
    )


def words(text: str) -> Reply:
    """A reply that takes longer than any test."""
    return Reply.text(chunks=[f"{text} "] * 1000, delay=0.05)


def test_the_weather_is_asked_for_and_told() -> None:
    replies = (Reply.calls(("get_weather", {"city": "Paris"})), Reply.text("It is 21 °C."))
    with Simulator(*replies) as server, start("weather.py", server) as process:
        out, err = process.communicate(timeout=30)
    assert err == ""
    assert out.splitlines()[0] == "It is 21 °C."
    assert out.splitlines()[1].startswith("{'get_weather': 1}")


@pytest.mark.feature("A-16", "A-20")
def test_a_session_is_watched_and_interrupted() -> None:
    def reply(request: Any) -> Reply:
        said = request.json["messages"][-1]["content"]
        return words("waves") if "long story" in said else Reply.text("Goodbye.")

    with Simulator(reply) as server, start("session.py", server) as process:
        out, err = process.communicate(timeout=30)
    assert err == ""
    assert out.startswith("waves ")
    assert "[a run has ended: interrupted]" in out
    assert out.count("Goodbye.") == 2
    assert "[6 messages" in out


@pytest.mark.feature("A-01", "A-08")
@pytest.mark.skipif(os.name == "nt", reason="SIGINT is sent to one process")
def test_the_blocking_example_ends_well_at_ctrl_c() -> None:
    with Simulator(words("waves")) as server, start("blocking.py", server) as process:
        assert process.stdout is not None
        assert process.stdout.read(12) == "waves waves "
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        server.wait_for_sync(lambda: server.running == 0)
    assert err == ""
    assert process.returncode == 0
    assert out.splitlines()[-1].startswith("[interrupted, ")
