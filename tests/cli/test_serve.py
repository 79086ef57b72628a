"""`vllm-agent serve`, with a stand-in for the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_agent_sdk import LocalServerError
from vllm_agent_sdk.cli import serve as command

from .conftest import Command
from .local_servers import STEPS, FakeServer, Local, interrupt

pytestmark = pytest.mark.feature("X-03")


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Local:
    """Say which server `LocalServer` gives."""

    def be(server: FakeServer) -> FakeServer:
        monkeypatch.setattr(command, "LocalServer", server)
        return server

    return be


def test_it_says_where_the_server_is_and_ends_it_on_ctrl_c(
    cli: Command, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_BASE_URL", "http://127.0.0.1:9/elsewhere")
    fake = local(FakeServer(when_ready=lambda: None))
    urls: list[str] = []

    async def until_stopped(server: FakeServer, *rest: object) -> None:
        urls.append(server.base_url)
        interrupt()
        await original(server, *rest)

    original = command._until_stopped
    monkeypatch.setattr(command, "_until_stopped", until_stopped)
    done = cli("serve", "some-model", "--port", "8123", "--", "--max-model-len", "2048")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert f"export VLLM_BASE_URL={urls[0]}" in lines
    assert "  model     sim-model" in lines
    assert "  log       server.log" in lines
    assert done.err.endswith("The server has ended.\n")
    assert fake.closed
    assert fake.args == ("--max-model-len", "2048")
    assert fake.options["port"] == 8123


def test_all_options_reach_the_server(cli: Command, local: Local) -> None:
    fake = local(FakeServer(STEPS[:4], LocalServerError("Stop here.")))
    done = cli(
        *("serve", "--reuse", "--api-key", "secret", "--ready-timeout", "7"),
        *("--pip-args", "--index-url http://mirror"),
    )
    assert (done.code, done.out) == (1, "")
    assert done.error == "Stop here."
    options = fake.options
    assert (options["reuse"], options["api_key"], options["ready_timeout_s"]) == (True, "secret", 7)
    assert options["pip_args"] == ["--index-url", "http://mirror"]
    assert options["port"] is None
    assert "Loading" in done.err or "Converting" in done.err


def test_the_key_is_never_printed(cli: Command, local: Local) -> None:
    local(FakeServer(dies=1))
    done = cli("serve", "--api-key", "top-secret")
    assert "top-secret" not in done.out + done.err
    assert "VLLM_API_KEY" in done.err


def test_ctrl_c_before_it_is_ready(cli: Command, local: Local) -> None:
    fake = local(FakeServer(when_ready=interrupt))
    done = cli("serve")
    assert done.code in {0, 130}  # the signal and readiness come together
    assert fake.closed


def test_a_server_that_dies_is_told_with_the_end_of_its_log(cli: Command, local: Local) -> None:
    Path("server.log").write_text("".join(f"line {n}\n" for n in range(100)), encoding="utf-8")
    fake = local(FakeServer(dies=-9))
    done = cli("serve")
    assert done.code == 1
    assert "has died (exit code -9)" in done.error
    assert "line 99\n" in done.err
    assert "line 80\n" in done.err
    assert "line 79\n" not in done.err
    assert "has ended." not in done.err
    assert fake.closed


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--port", "0"], 2, "--port 0"),
        (["--port", "http"], 2, "--port"),
        (["--ready-timeout", "0"], 2, "--ready-timeout"),
        (["--pip-args", "'open"], 2, "open quote"),
        (["./no-such-folder"], 1, "no-such-folder does not exist"),
        (["--", "--uds", "socket"], 2, "--uds"),
    ],
)
def test_wrong_usage_ends_with_a_sentence(
    cli: Command, arguments: list[str], code: int, said: str
) -> None:
    done = cli("serve", *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.error


def test_purge_says_how_much_was_freed(cli: Command, tmp_path: Path) -> None:
    assert cli("serve", "--purge").out == "There was nothing to remove.\n"
    cache = tmp_path / "cache" / "vllm-agent" / "models"
    cache.mkdir(parents=True)
    (cache / "weights").write_bytes(b"x" * 1_234_567)
    done = cli("serve", "--purge")
    assert done.code == 0
    assert done.out.startswith("Freed 1,2")
    assert not cache.exists()
