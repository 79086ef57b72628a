"""The command as a process: streaming, signals, closed pipes, a missing extra."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vllm_agent_sdk.testing import Reply, Simulator

from .conftest import PROGRAM, Command

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
import vllm_agent_sdk.cli
sys.argv = ["vllm-agent", "--help"]
sys.exit(vllm_agent_sdk.cli.main())
"""


@contextmanager
def running(*arguments: str, url: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "VLLM_BASE_URL": url},
        text=True,
        encoding="utf-8",
    ) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.feature("X-01")
def test_the_answer_is_streamed_and_ctrl_c_keeps_what_came() -> None:
    # The whole of it takes much longer than the test: what is read came while it was generated.
    slow = Reply.text(chunks=["The beginning", *[" more"] * 100], delay=0.8)
    with Simulator(slow) as server, running("run", "Hi", url=server.base_url) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.read(len("The beginning")) == "The beginning"
        child.send_signal(signal.SIGINT)
        rest, said = child.stdout.read(), child.stderr.read()
        assert child.wait(10) == 130
        server.wait_for_sync(lambda: server.disconnects == 1)
    assert rest.replace(" more", "") == "\n"
    assert said == "Interrupted.\n"


@pytest.mark.feature("X-01")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_anything_came(number: signal.Signals, code: int) -> None:
    with (
        Simulator(Reply.text("late", first_delay=20)) as server,
        running("demo", url=server.base_url) as child,
    ):
        server.wait_for_sync(lambda: len(server.chats) == 1, timeout=20)
        child.send_signal(number)
        _, said = child.communicate(timeout=10)
        assert child.returncode == code
    assert "Traceback" not in said


@pytest.mark.feature("X-01")
def test_a_reader_that_leaves_ends_the_run_quietly() -> None:
    words = " ".join(["word"] * 20_000)
    with Simulator(Reply.text(words)) as server, running("run", "Hi", url=server.base_url) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(10)
        child.stdout.close()
        said = child.stderr.read()
        assert child.wait(10) == 141
    assert said == ""


@pytest.mark.feature("X-01")
@pytest.mark.parametrize("name", ["cyclopts", "rich"])
def test_without_the_extra_it_says_how_to_install_it(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HIDE.format(name=name)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"vllm-agent needs {name}, which comes with the extra [cli]: "
        "pip install 'vllm-agent-sdk[cli]'\n"
    )


@pytest.mark.feature("X-01")
def test_colours_are_for_terminals_only(process: Command) -> None:
    with Simulator(api_key="right") as server:
        done = process("run", "Hi", VLLM_BASE_URL=server.base_url, FORCE_COLOR="1")
    assert done.code == 3
    assert "\x1b" not in done.err + done.out


def test_the_whole_command_is_there(process: Command) -> None:
    done = process("--help")
    assert done.code == 0
    for name in ("demo", "models", "run", "serve"):
        assert name in done.out
        text = process(name, "--help").out
        assert "Exit codes" in text
    assert process("--version").out.startswith("vllm-agent ")
