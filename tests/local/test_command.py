"""Arguments, environment and digest of a server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vllm_agent_sdk.errors import LocalServerError, UsageError
from vllm_agent_sdk.local import LocalServer
from vllm_agent_sdk.local._command import (
    Model,
    address,
    child_environment,
    digest,
    option,
    resolve_model,
    server_command,
)
from vllm_agent_sdk.local._vllm import VLLM, find_vllm, python_of

from .stand_in import model_folder, script

OURS = python_of("/cache/env/bin/python", own=True)
FOUND = python_of("/usr/bin/python3")


# ── the model ────────────────────────────────────────────────────────────────────────────────────


def test_a_model_is_bundled_a_name_or_a_folder(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    assert resolve_model(None).bundled
    assert resolve_model("Qwen/Qwen3-0.6B") == Model(name="Qwen/Qwen3-0.6B")
    assert resolve_model("gpt2") == Model(name="gpt2")
    for way in (model, str(model), "./tiny", "tiny"):
        assert resolve_model(way) == Model(folder=model)


@pytest.mark.feature("X-03")
@pytest.mark.parametrize("path", ["./nowhere", "/no/such/model", "a/b/c", "~nobody/x"])
def test_a_path_that_is_wrong_is_said(path: str) -> None:
    with pytest.raises(LocalServerError, match="does not exist; check it"):
        resolve_model(path)


def test_a_folder_without_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(LocalServerError, match=r"holds no config\.json; give the folder"):
        resolve_model(tmp_path)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(LocalServerError, match="is a file, not a model's folder"):
        resolve_model(tmp_path / "model.gguf")
    with pytest.raises(UsageError, match="model is empty"):
        resolve_model("")


# ── arguments ────────────────────────────────────────────────────────────────────────────────────


def test_the_bundled_model_is_served_small_and_exact() -> None:
    command, name = server_command(OURS, Model(), Path("/w"), 8123, ["--max-num-seqs", "4"])
    assert name == "smollm2-135m"
    assert command[:3] == [*OURS.command]
    text = " ".join(command)
    assert "--model /w --served-model-name smollm2-135m --host 127.0.0.1 --port 8123" in text
    assert "--dtype float32 --enforce-eager" in text
    assert "--max-model-len 4096" in text
    assert command[-2:] == ["--max-num-seqs", "4"]  # the user's come last and win


def test_other_models_get_no_settings_of_ours(model: Path) -> None:
    command, name = server_command(OURS, Model(folder=model), None, 1, [])
    assert name == "tiny"
    assert "--dtype" not in command
    command, name = server_command(OURS, Model(name="org/x"), None, 1, [])
    assert name == "org/x"
    assert "--served-model-name" not in command
    _, name = server_command(OURS, Model(name="x"), None, 1, ["--served_model_name=mine"])
    assert name == "mine"


def test_the_command_of_an_unknown_python_takes_the_model_first() -> None:
    command, _ = server_command(VLLM(("/bin/vllm", "serve"), None), Model(name="m"), None, 1, [])
    assert command[:3] == ["/bin/vllm", "serve", "m"]


def test_the_last_value_of_an_option_counts() -> None:
    args = ["--port", "1", "--port=2", "--api_key", "k"]
    assert option(args, "--port") == "2"
    assert option(args, "--api-key") == "k"
    assert option(args, "--host") is None
    assert option(["--port"], "--port") == ""


def test_host_and_port_among_the_arguments_are_where_the_server_is_reached() -> None:
    assert address([], 5).base_url == "http://127.0.0.1:5/v1"
    assert address(["--port", "6", "--host", "0.0.0.0"], 5).base_url == "http://127.0.0.1:6/v1"
    assert address(["--host=::1"], 5).base_url == "http://[::1]:5/v1"
    with pytest.raises(UsageError, match="--port x is not a number"):
        address(["--port", "x"], 5)
    with pytest.raises(UsageError, match="plain HTTP on a port, which --ssl-keyfile rules out"):
        address(["--ssl-keyfile", "k"], 5)


# ── environment ──────────────────────────────────────────────────────────────────────────────────

INHERITED = {
    "PATH": "/bin",
    "HOME": "/home/u",
    "HF_HOME": "/hf",
    "VLLM_LOGGING_LEVEL": "DEBUG",
    "VLLM_BASE_URL": "http://elsewhere",
    "VLLM_API_BASE": "http://elsewhere",
    "VLLM_MODEL": "m",
    "VLLM_TIMEOUT": "5",
    "VLLM_API_KEY": "inherited",
    "VLLM_AGENT_SESSION_STORE_PATH": "/s",
    "VLLM_AGENT_ANYTHING": "1",
    "PYTHONPATH": "/mine",
    "VIRTUAL_ENV": "/v",
    "DO_NOT_TRACK": "0",
}


def test_what_is_meant_for_a_client_does_not_reach_the_server() -> None:
    env = child_environment(INHERITED, Model(name="m"), FOUND, extra={}, key=None)
    gone = INHERITED.keys() - env.keys()
    assert gone == {
        "VLLM_BASE_URL",
        "VLLM_API_BASE",
        "VLLM_MODEL",
        "VLLM_TIMEOUT",
        "VLLM_API_KEY",
        "VLLM_AGENT_SESSION_STORE_PATH",
        "VLLM_AGENT_ANYTHING",
    }
    assert env["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert env["PYTHONPATH"] == "/mine"
    assert "HF_HUB_OFFLINE" not in env
    assert "VLLM_CPU_KVCACHE_SPACE" not in env


def test_a_key_that_is_meant_reaches_it() -> None:
    assert child_environment({}, Model(), OURS, extra={}, key="k")["VLLM_API_KEY"] == "k"
    env = child_environment(INHERITED, Model(), OURS, extra={"VLLM_API_KEY": "e"}, key=None)
    assert env["VLLM_API_KEY"] == "e"
    assert LocalServer(api_key="k").api_key == "k"
    assert LocalServer(env={"VLLM_API_KEY": "e"}).api_key == "e"
    assert LocalServer(args=["--api-key", "a"], api_key="k").api_key == "a"


def test_nothing_is_reported_to_the_outside_whatever_is_set() -> None:
    extra = {"VLLM_NO_USAGE_STATS": "0", "DO_NOT_TRACK": "0"}
    env = child_environment(INHERITED, Model(name="m"), FOUND, extra=extra, key=None)
    assert (env["VLLM_NO_USAGE_STATS"], env["DO_NOT_TRACK"]) == ("1", "1")


def test_the_provisioned_environment_is_apart_from_the_users(model: Path) -> None:
    env = child_environment(INHERITED, Model(), OURS, extra={}, key=None)
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & env.keys()
    assert env["PATH"] == "/cache/env/bin:/bin"
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert env["HF_HUB_OFFLINE"] == "1"
    env = child_environment({}, Model(folder=model), OURS, extra={"HF_HUB_OFFLINE": "0"}, key=None)
    assert env["HF_HUB_OFFLINE"] == "0"  # the user's win


# ── digest ───────────────────────────────────────────────────────────────────────────────────────


def test_equal_settings_share_and_others_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(
        args: list[str] = [],  # noqa: B006
        env: dict[str, str] = {},  # noqa: B006
        key: str | None = None,
        port: int | None = None,
        model: str = "m",
        vllm: VLLM = OURS,
    ) -> str:
        return digest(vllm, Model(name=model), args=args, env=env, port=port, key=key)

    same = of(args=["--a"], env={"A": "1", "B": "2"})
    assert of(args=["--a"], env={"B": "2", "A": "1"}) == same
    others = [
        of(args=["--b"], env={"A": "1", "B": "2"}),
        of(args=["--a"], env={"A": "1"}),
        of(args=["--a"], env={"A": "1", "B": "2"}, key="k"),
        of(args=["--a"], env={"A": "1", "B": "2"}, port=1),
        of(args=["--a"], env={"A": "1", "B": "2"}, model="n"),
        of(args=["--a"], env={"A": "1", "B": "2"}, vllm=FOUND),
    ]
    assert len({same, *others}) == 7
    # A file named relative to the working folder is another one elsewhere.
    digests = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.jinja").touch()
        monkeypatch.chdir(tmp_path / name)
        digests.add(of(args=["--chat-template", "t.jinja"]))
    assert len(digests) == 2


# ── which vLLM ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("X-03")
def test_an_installed_vllm_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_vllm() is None
    # on PATH: by the interpreter its first line names
    (tmp_path / "bin").mkdir()
    command = script(tmp_path / "bin" / "vllm", "")
    assert find_vllm() == python_of(sys.executable)
    # on PATH, and no Python script
    command.write_text("#!/bin/sh\n", encoding="utf-8")
    assert find_vllm() == VLLM((str(command), "serve"), None)
    # importable here
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert find_vllm() == python_of(sys.executable)


def test_a_folder_called_vllm_is_not_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    model_folder(tmp_path / "vllm")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_vllm() is None


def test_a_python_that_is_named_and_missing_is_said() -> None:
    with pytest.raises(LocalServerError, match="There is no Python at /no/python; name"):
        find_vllm("/no/python")
