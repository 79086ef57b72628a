"""The command line against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vllm_agent_sdk.types.events import RunEnded, TextDelta, ToolEnded, decode_event

from .servers import LiveServer

pytestmark = [pytest.mark.live, pytest.mark.server("A")]

PROGRAM = (sys.executable, "-c", "import sys, vllm_agent_sdk.cli as c; sys.exit(c.main())")
WEATHER = '''
def get_weather(city: str) -> dict:
    """Get the current weather of a city."""
    return {"city": city, "temperature_c": 21}
'''


def command(server: LiveServer, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with `VLLM_BASE_URL` at the server."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    return subprocess.run(
        [*PROGRAM, *arguments],
        env={**own, "VLLM_BASE_URL": server.base_url},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.mark.feature("X-04")
def test_demo_shows_an_agent_with_a_tool_within_seconds(server: LiveServer, tmp_path: Path) -> None:
    begun = time.monotonic()
    done = command(server, "demo", folder=tmp_path)
    took = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" not in done.stdout
    assert 'Call     get_weather(city="Paris")' in done.stdout
    assert 'Result   {"city":"Paris","temperature_c":21}' in done.stdout
    answer = next(line for line in done.stdout.splitlines() if line.startswith("Answer "))
    assert "21" in answer
    assert "tok/s" in done.stdout.splitlines()[-1]
    assert took < 10


@pytest.mark.feature("X-01")
def test_run_with_a_tool_streams_an_answer(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "live_tools.py").write_text(WEATHER, encoding="utf-8")
    asked = ("run", "What is the weather in Paris?", "--tool", "live_tools:get_weather")
    done = command(server, *asked, "--temperature", "0", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "21" in done.stdout
    assert '→ get_weather(city="Paris")' in done.stderr
    lines = command(server, *asked, "--temperature", "0", "--json", folder=tmp_path).stdout
    events = [decode_event(line.encode()) for line in lines.splitlines()]
    pieces = [event.text for event in events if isinstance(event, TextDelta)]
    assert len(pieces) > 3
    assert any(isinstance(event, ToolEnded) and event.executed for event in events)
    last = events[-1]
    assert isinstance(last, RunEnded)
    assert last.result.text == "".join(pieces)
    assert last.result.text.strip() == done.stdout.strip()


@pytest.mark.feature("X-06")
def test_models_lists_what_is_served(server: LiveServer, tmp_path: Path) -> None:
    done = command(server, "models", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["MODEL", "CONTEXT", "KIND", "ROOT"]
    assert server.model in [row.split()[0] for row in rows]
