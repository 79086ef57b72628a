"""`vllm-agent run`: what stands on stdout, what on stderr, and how it ends."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace

import msgspec
import pytest

from vllm_agent_sdk import Agent, RunEnded, RunStarted, TextDelta, ToolEnded, ToolStarted
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.types.events import decode_event

from .conftest import Command

TOOL = ("--tool", "weather_tools:get_weather")


@pytest.mark.feature("X-01")
@pytest.mark.usefixtures("weather")
def test_the_answer_and_nothing_else_is_on_stdout(cli: Command, server: Simulator) -> None:
    done = cli("run", "What is the weather?", *TOOL)
    assert done.code == 0
    assert done.out == "It is 21 °C in Paris.\n"
    assert '→ get_weather(city="Paris")' in done.err
    assert '← get_weather: {"city":"Paris","temperature_c":21}' in done.err
    # What the user's module and tool print is no part of the answer.
    assert "weather is imported" in done.err
    assert "asked for Paris" in done.err
    assert "\x1b" not in done.out + done.err
    assert server.chats[0].json["messages"] == [{"role": "user", "content": "What is the weather?"}]


@pytest.mark.feature("A-11")
def test_what_a_subagent_says_is_no_part_of_the_answer(
    cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers = SimpleNamespace(helper=Agent(name="helper").as_tool())
    monkeypatch.setitem(sys.modules, "helpers", helpers)  # type: ignore[arg-type]
    replies = (Reply.calls(("helper", {"prompt": "x"})), Reply.text("inner"), Reply.text("outer"))
    with Simulator(*replies) as server:
        done = cli("run", "Hi", "--tool", "helpers:helper", "--base-url", server.base_url)
    assert (done.code, done.out) == (0, "outer\n")
    assert "← helper: inner" in done.err


@pytest.mark.feature("X-01")
@pytest.mark.usefixtures("weather", "server")
def test_json_lines_are_the_events_of_the_run(cli: Command) -> None:
    done = cli("run", "What is the weather?", *TOOL, "--json")
    assert done.code == 0
    events = [decode_event(line.encode()) for line in done.out.splitlines()]
    kinds = [type(event) for event in events]
    assert kinds[0] is RunStarted
    assert {TextDelta, ToolStarted, ToolEnded} <= set(kinds)
    last = events[-1]
    assert isinstance(last, RunEnded)
    assert last.result.text == "It is 21 °C in Paris."
    assert last.result.tool_calls == {"get_weather": 1}
    numbers = [event.seq for event in events if event.seq is not None]
    assert numbers == list(range(1, len(numbers) + 1))
    # The very lines that a log of these events has.
    for line, event in zip(done.out.splitlines(), events, strict=True):
        assert json.loads(line) == json.loads(msgspec.json.encode(event))


@pytest.mark.feature("X-01")
def test_options_reach_the_server(cli: Command, server: Simulator) -> None:
    done = cli(
        *("run", "Hi", "--model", "sim-model", "--instructions", "Be brief."),
        *("--temperature", "0.5", "--max-tokens", "7", "--base-url", server.base_url),
    )
    assert done.code != 2, done.err
    body = server.chats[0].json
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["max_tokens"], body["model"]) == (0.5, 7, "sim-model")


# ── the prompt ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("X-01")
@pytest.mark.parametrize(
    ("arguments", "piped", "prompt"),
    [
        (["-"], "from stdin\n", "from stdin"),
        ([], "from stdin\n", "from stdin"),
        (["Summarise:"], "line 1\nline 2\n", "Summarise:\n\nline 1\nline 2"),
        (["Summarise:", "-"], "text", "Summarise:\n\ntext"),
        (["--", "-5 degrees?"], "", "-5 degrees?"),
    ],
)
def test_the_prompt_comes_from_the_command_line_stdin_or_both(
    cli: Command, arguments: list[str], piped: str, prompt: str
) -> None:
    with Simulator(Reply.text("ok")) as server:
        done = cli("run", "--base-url", server.base_url, *arguments, piped=piped)
        assert (done.code, done.out) == (0, "ok\n")
        assert server.chats[0].json["messages"] == [{"role": "user", "content": prompt}]


@pytest.mark.feature("X-01")
def test_a_prompt_is_piped_into_the_command(process: Command) -> None:
    with Simulator(Reply.text("ok")) as server:
        done = process("run", "Summarise:", stdin="line 1\n", VLLM_BASE_URL=server.base_url)
        assert (done.code, done.out) == (0, "ok\n")
        said = server.chats[0].json["messages"]
    assert said == [{"role": "user", "content": "Summarise:\n\nline 1"}]


def test_input_that_is_neither_pipe_nor_file_is_not_waited_for(
    cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(io.BytesIO):
        def read(self, *_: object) -> bytes:
            pytest.fail("stdin was read")

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Endless(), isatty=lambda: False))
    with Simulator(Reply.text("ok")) as server:
        assert cli("run", "Hi", "--base-url", server.base_url).out == "ok\n"


@pytest.mark.feature("X-01")
@pytest.mark.parametrize("arguments", [[], ["-"], [""], ["  "]])
def test_no_prompt_is_wrong_usage(cli: Command, arguments: list[str]) -> None:
    done = cli("run", *arguments, piped="")
    assert done.code == 2
    assert done.error.startswith("There is no prompt: give one")


# ── exit codes and errors ────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("X-01")
def test_a_run_that_ends_otherwise_prints_what_came_and_why(cli: Command) -> None:
    with Simulator(Reply.text("As far as", finish_reason="length")) as server:
        done = cli("run", "Hi", "--base-url", server.base_url)
    assert (done.code, done.out) == (1, "As far as\n")
    assert "'length'" in done.error
    assert "max_tokens" in done.error


@pytest.mark.feature("X-01")
def test_a_limit_is_named_by_its_flag(cli: Command, server: Simulator, weather: None) -> None:
    done = cli("run", "What is the weather?", *TOOL, "--max-turns", "1")
    assert done.code == 1
    assert "--max-turns" in done.error
    assert len(server.chats) == 1


@pytest.mark.feature("X-01")
def test_a_server_that_cannot_be_reached(cli: Command) -> None:
    with Simulator() as gone:
        url = gone.base_url
    done = cli("run", "Hi", "--base-url", url)
    assert (done.code, done.out) == (3, "")
    assert url.removesuffix("/v1") in done.error


@pytest.mark.feature("X-01")
@pytest.mark.parametrize("key", [[], ["--api-key", "wrong"]])
def test_a_key_that_is_refused(cli: Command, key: list[str]) -> None:
    with Simulator(api_key="right") as server:
        done = cli("run", "Hi", "--base-url", server.base_url, *key)
    assert done.code == 3
    assert "--api-key" in done.error
    assert "api_key=" not in done.error
    assert "wrong" not in done.error


@pytest.mark.feature("X-01")
def test_a_model_that_is_not_served(cli: Command, server: Simulator) -> None:
    done = cli("run", "Hi", "--model", "no-such-model")
    assert done.code == 1
    assert "no-such-model" in done.error
    assert server.base_url


@pytest.mark.feature("X-01")
def test_a_server_that_is_not_vllm(cli: Command) -> None:
    page = Reply.error(404, body="<html>Not here</html>")
    with Simulator(page) as server:
        done = cli("run", "Hi", "--base-url", f"{server.base_url}/somewhere", "--model", "m")
    assert done.code == 1
    assert "is not that of a vLLM server" in done.error


@pytest.mark.feature("X-01")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Hi", "--base-url", "localhost:8000"], "http://localhost:8000"),
        (["Hi", "--base-url", "ftp://host"], "--base-url"),
        (["Hi", "--timeout", "0"], "--timeout 0.0: give a number above 0."),
        (["Hi", "--max-turns", "0"], "--max-turns 0: give a number above 0."),
        (["Hi", "--turn-mode", "magic"], "guided"),
        (["Hi", "--temperature", "warm"], "--temperature"),
        (["Hi", "there"], "'there' is one argument too many"),
        (["Hi", "--tol", "x:y"], "--tol"),
    ],
)
def test_wrong_usage_ends_with_a_sentence(cli: Command, arguments: list[str], said: str) -> None:
    done = cli("run", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.error


@pytest.mark.feature("X-01")
@pytest.mark.usefixtures("weather")
@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("weather_tools", "write it as module:function"),
        ("weather_tools.py:get_weather", "weather_tools:get_weather"),
        ("no_such_module:fn", "there is no module 'no_such_module'"),
        ("weather_tools.inner:fn", "there is no module 'weather_tools.inner'"),
        ("weather_tools:get_wether", "did you mean 'get_weather'?"),
        ("weather_tools:LIMIT", "LIMIT is int, no function"),
        ("weather_tools:generate", "generator"),
    ],
)
def test_a_tool_that_cannot_be_used(cli: Command, tool: str, said: str) -> None:
    done = cli("run", "Hi", "--tool", tool, "--base-url", "http://127.0.0.1:9")
    assert (done.code, done.out) == (2, "")
    assert said in done.error


@pytest.mark.feature("X-01")
@pytest.mark.parametrize("body", ["1 / 0", "import no_such_thing", "raise SystemExit(3)", "def ("])
def test_a_module_that_fails_while_it_is_imported(
    cli: Command, tmp_path: object, body: str
) -> None:
    with open("broken_tools.py", "w", encoding="utf-8") as file:
        file.write(body)
    done = cli("run", "Hi", "--tool", "broken_tools:fn", "--base-url", "http://127.0.0.1:9")
    assert done.code == 2
    assert "broken_tools could not be imported" in done.error


def test_debug_shows_the_traceback(cli: Command) -> None:
    with Simulator(api_key="right") as server:
        done = cli("run", "Hi", "--base-url", server.base_url, "--debug")
    assert done.code == 3
    assert "Traceback" in done.err
    assert "AuthenticationError" in done.err
