"""Running the command: in this process, or in one of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vllm_agent_sdk.cli.app import start
from vllm_agent_sdk.testing import Reply, Simulator

OURS = ("VLLM_", "OPENAI_", "FORCE_COLOR", "NO_COLOR")
WEATHER = '''
"""Tools that a user may write."""

print("weather is imported")

LIMIT = 3


def get_weather(city: str) -> dict:
    """Get the current weather of a city."""
    print("asked for", city)
    return {"city": city, "temperature_c": 21}


def generate():
    yield 1
'''


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of the error."""
        lines = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0].removeprefix("Error: ")


Command = Callable[..., Done]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of whoever runs the tests, a folder of its own, no input."""
    for name in os.environ:
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in this process; `piped` is what comes through a pipe."""

    def run(*arguments: str, piped: str | None = None) -> Done:
        with contextlib.ExitStack() as stack:
            if piped is not None:
                end, other = os.pipe()
                stdin = stack.enter_context(open(end, encoding="utf-8"))
                with open(other, "w", encoding="utf-8") as writer:
                    writer.write(piped)
                stack.enter_context(monkeypatch.context()).setattr(sys, "stdin", stdin)
            code = start(arguments)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def process() -> Command:
    """Run a command in a process of its own."""

    def run(*arguments: str, stdin: str | None = None, **env: str) -> Done:
        done = subprocess.run(
            [*PROGRAM, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=30,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


PROGRAM = (sys.executable, "-c", "import sys, vllm_agent_sdk.cli as c; sys.exit(c.main())")


@pytest.fixture
def weather(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module with tools in the current folder."""
    (tmp_path / "weather_tools.py").write_text(WEATHER, encoding="utf-8")
    yield
    sys.modules.pop("weather_tools", None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A server that calls the weather tool and then answers, at VLLM_BASE_URL."""
    replies = (
        Reply.calls(("get_weather", {"city": "Paris"})),
        Reply.text("It is 21 °C in Paris."),
    )
    with Simulator(*replies) as simulator:
        monkeypatch.setenv("VLLM_BASE_URL", simulator.base_url)
        yield simulator
