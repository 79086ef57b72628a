"""`LocalServer` and its supervisor, with a stand-in for vLLM: whatever happens, all ends."""

# What blocks here are files and processes of the test itself.
# ruff: noqa: ASYNC220, ASYNC240

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from vllm_agent_sdk.errors import LocalServerError, UsageError
from vllm_agent_sdk.local import LocalServer, ProgressEvent, purge
from vllm_agent_sdk.local._cache import Cache
from vllm_agent_sdk.local._command import Address
from vllm_agent_sdk.local._health import check_port, free_port, healthy
from vllm_agent_sdk.local._supervisor import descendants

from .stand_in import alive, eventually

pytestmark = pytest.mark.usefixtures("cache")

# Uses a server until it is told to end: `python -c PROGRAM PYTHON MODEL REUSE ARGS…`.
PROGRAM = """
import asyncio, os, sys
from vllm_agent_sdk.local import LocalServer, _server

_server.GRACE_S = 1.0

async def main():
    python, model, reuse, *args = sys.argv[1:]
    async with LocalServer(model, args, reuse=reuse == "reuse", python=python) as server:
        print(server.pid, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


def program(vllm: Path, model: Path, *args: str, reuse: bool = False) -> subprocess.Popen[bytes]:
    how = "reuse" if reuse else "alone"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(vllm), str(model), how, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


async def started(user: subprocess.Popen[bytes]) -> int:
    """The process id of the server a program uses, once it is ready."""
    assert user.stdout is not None
    return int(await asyncio.to_thread(user.stdout.readline))


async def read_pid(path: Path) -> int:
    assert await eventually(path.exists)
    return int(path.read_text(encoding="utf-8"))


def port_of(server: LocalServer) -> int:
    return int(server.base_url.removesuffix("/v1").rpartition(":")[2])


# ── start, ready, end ────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("X-03")
async def test_it_is_ready_inside_the_block_and_gone_after_it(
    vllm: Path, model: Path, tmp_path: Path
) -> None:
    events: list[ProgressEvent] = []
    worker_file = tmp_path / "worker"
    server = LocalServer(model, ["--worker", str(worker_file)], python=vllm, progress=events.append)
    with pytest.raises(UsageError, match="base_url is known once the server runs"):
        _ = server.base_url
    async with server as entered:
        assert entered is server
        assert server.model == "tiny"
        assert server.api_key is None
        assert await healthy(Address("127.0.0.1", port_of(server)))
        assert "stand-in starting" in server.log_path.read_text(encoding="utf-8")
        worker = await read_pid(worker_file)
        pids = [server.pid, worker]
        assert all(map(alive, pids))
        with pytest.raises(UsageError, match="runs already"):
            await server.__aenter__()
    assert not any(map(alive, pids))
    assert descendants(os.getpid()) == []
    assert [event.step for event in events][:1] == ["start"]
    assert (events[-1].step, events[-1].fraction) == ("ready", 1.0)
    await server.aclose()  # idempotent
    async with server:  # and usable again
        assert alive(server.pid)


async def test_the_servers_end_can_be_waited_for(vllm: Path, model: Path) -> None:
    async with LocalServer(model, python=vllm) as server:
        os.kill(server.pid, signal.SIGKILL)
        assert await server.wait() == -9
    with pytest.raises(UsageError, match="does not run"):
        await server.wait()


async def test_the_environment_reaches_the_server_as_meant(
    vllm: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "inherited")
    monkeypatch.setenv("VLLM_MODEL", "m")
    seen = tmp_path / "environment"
    async with LocalServer(
        model, ["--environment", str(seen)], {"MINE": "1"}, python=vllm, api_key=None
    ):
        pass
    lines = seen.read_text(encoding="utf-8").splitlines()
    assert {"MINE=1", "DO_NOT_TRACK=1", "VLLM_NO_USAGE_STATS=1", "HF_HUB_OFFLINE=1"} <= {*lines}
    assert not [line for line in lines if line.startswith(("VLLM_API_KEY", "VLLM_MODEL"))]


# ── failures ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("X-03")
async def test_a_server_that_dies_while_starting_says_why(vllm: Path, model: Path) -> None:
    with pytest.raises(LocalServerError) as caught:
        async with LocalServer(model, ["--die"], python=vllm):
            pass
    first, *log = caught.value.message.splitlines()
    assert first == (
        "The vLLM server ended while starting (exit code 3): ValueError: no such thing; "
        f"the end of its log {caught.value.log_path}:"
    )
    assert log[-2:] == ["Traceback (most recent call last):", "ValueError: no such thing."]
    assert descendants(os.getpid()) == []


async def test_a_server_that_is_never_ready_is_ended(vllm: Path, model: Path) -> None:
    with pytest.raises(LocalServerError, match=r"not ready within 0\.5 seconds"):
        async with LocalServer(model, ["--hang"], python=vllm, ready_timeout_s=0.5):
            pass
    assert descendants(os.getpid()) == []


@pytest.mark.feature("X-03")
async def test_a_port_that_is_taken_is_said(vllm: Path, model: Path, cache: Cache) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = f"Port {port} of 127.0.0.1 cannot be used .*choose another"
        for options in ({"port": port}, {"args": ["--port", str(port)]}):
            with pytest.raises(LocalServerError, match=said):
                async with LocalServer(model, python=vllm, **options):  # type: ignore[arg-type]
                    pass
    assert not cache.root.exists()
    check_port(Address("127.0.0.1", port))
    check_port(Address("127.0.0.1", free_port()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "/no/such/model"}, "does not exist; check it"),
        ({"python": "/no/python"}, "There is no Python at /no/python"),
        ({"port": 99999}, "Port 99999 .* cannot be used"),
        ({"args": ["--uds", "x"]}, "plain HTTP on a port"),
    ],
)
async def test_settings_that_cannot_work_start_nothing(
    vllm: Path, model: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises((LocalServerError, UsageError), match=said) as caught:
        async with LocalServer(**{"model": model, "python": vllm, **options}):
            pass
    assert "\n" not in caught.value.message
    assert descendants(os.getpid()) == []


def test_options_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match="no option 'prot'"):
        LocalServer(prot=1)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="list of arguments, not one text"):
        LocalServer(args="--port 1")


async def test_a_python_that_cannot_be_executed_is_said(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n", encoding="utf-8")
    broken.chmod(0o755)
    with pytest.raises(LocalServerError, match=r"could not be started: .*No such file"):
        async with LocalServer(model, python=broken):
            pass
    assert descendants(os.getpid()) == []


@pytest.mark.parametrize("how", ["task", "scope"])
async def test_cancelling_ends_a_server_that_is_starting(
    vllm: Path, model: Path, tmp_path: Path, how: str
) -> None:
    worker_file = tmp_path / "worker"
    server = LocalServer(model, ["--hang", "--worker", str(worker_file)], python=vllm)

    async def use() -> None:
        async with server:
            pass

    if how == "task":
        task = asyncio.create_task(use())
        worker = await read_pid(worker_file)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(use)
            worker = await read_pid(worker_file)
            group.cancel_scope.cancel()
    assert not alive(worker)
    assert descendants(os.getpid()) == []


# ── the death of the user ────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("X-03")
@pytest.mark.parametrize(
    ("number", "worker"),
    [
        (signal.SIGKILL, "--stubborn-worker"),
        (signal.SIGTERM, "--worker"),
        (signal.SIGINT, "--worker"),
    ],
)
async def test_nothing_outlives_the_program(
    vllm: Path, model: Path, tmp_path: Path, number: signal.Signals, worker: str
) -> None:
    worker_file = tmp_path / "worker"
    with program(vllm, model, worker, str(worker_file)) as user:
        pids = [await started(user), await read_pid(worker_file), *descendants(user.pid)]
        assert len(set(pids)) == 3  # supervisor, server, worker
        assert os.getsid(pids[0]) != os.getsid(user.pid)  # a terminal's Ctrl-C passes it by
        assert os.getsid(pids[1]) != os.getsid(pids[0])  # the worker left its group
        user.send_signal(number)
        # The grace, and 5 s for a worker that does not care for SIGTERM.
        assert await eventually(lambda: not any(map(alive, pids)), 15)


async def test_nothing_outlives_a_supervisor_that_is_killed(vllm: Path, model: Path) -> None:
    async with LocalServer(model, python=vllm) as server:
        [supervisor] = set(descendants(os.getpid())) - {server.pid}
        os.kill(supervisor, signal.SIGKILL)
        assert await server.wait() is None
        assert await eventually(lambda: not alive(server.pid))


async def test_a_fork_of_the_program_does_not_keep_the_server(vllm: Path, model: Path) -> None:
    # The fork holds a copy of the program's connection, and lives on.
    fork = "os.fork() or __import__('time').sleep(60)\n        "
    forking = PROGRAM.replace("print(server.pid", fork + "print(server.pid")
    command = [sys.executable, "-c", forking, str(vllm), str(model), "alone"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        server = await started(user)
        children = descendants(user.pid)
        user.kill()
        assert await eventually(lambda: not alive(server), 15)
        assert await eventually(lambda: sum(map(alive, children)) == 1)
        [left] = [pid for pid in children if alive(pid)]
        os.kill(left, signal.SIGKILL)


def offers(cache: Cache) -> Iterator[Path]:
    return cache.socket_path("x").parent.glob("*.sock")


# ── reuse ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("X-03")
async def test_two_programs_share_one_server_which_ends_after_the_last(
    vllm: Path, model: Path, tmp_path: Path, cache: Cache
) -> None:
    starts = tmp_path / "starts"
    args = ("--starts", str(starts))
    with (
        program(vllm, model, *args, reuse=True) as one,
        program(vllm, model, *args, reuse=True) as two,
    ):
        pid, same = await asyncio.gather(started(one), started(two))
        assert pid == same
        assert starts.read_text(encoding="utf-8") == "started\n"
        async with LocalServer(model, args, reuse=True, python=vllm) as third:
            assert third.pid == pid
        async with LocalServer(model, args, python=vllm) as alone:
            assert alone.pid != pid  # not asked to share
        with pytest.raises(LocalServerError, match="A server runs from"):
            await asyncio.to_thread(purge)
        one.kill()
        two.stdin.close()  # type: ignore[union-attr]
        await asyncio.to_thread(two.wait)
        assert two.returncode == 0
        assert alive(pid)  # for the grace, in which another may come
        assert await eventually(lambda: not alive(pid), 15)
    assert await eventually(lambda: not list(offers(cache)))
    assert cache.socket_path("x").parent.stat().st_mode & 0o777 == 0o700
    lock = cache.lock("use")
    assert await eventually(lock.try_acquire)
    lock.release()


async def test_a_shared_server_is_left_to_the_others(vllm: Path, model: Path) -> None:
    first = LocalServer(model, reuse=True, python=vllm)
    second = LocalServer(model, reuse=True, python=vllm)
    other = LocalServer(model, ["--x"], reuse=True, python=vllm)
    async with first, second, other:
        assert second.pid == first.pid
        assert second.base_url == first.base_url
        assert second.log_path == first.log_path
        assert other.pid != first.pid
        await first.aclose()
        assert await healthy(Address("127.0.0.1", port_of(second)))
    pids = [second.pid, other.pid]
    assert await eventually(lambda: not any(map(alive, pids)), 15)


async def test_the_socket_of_a_dead_supervisor_is_in_nobodys_way(
    vllm: Path, model: Path, cache: Cache
) -> None:
    async with LocalServer(model, reuse=True, python=vllm) as server:
        stat = Path(f"/proc/{server.pid}/stat").read_text(encoding="utf-8")
        os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
        assert await server.wait() is None
    assert len(list(offers(cache))) == 1
    async with LocalServer(model, reuse=True, python=vllm) as again:
        assert again.pid != server.pid
    assert await eventually(lambda: not alive(again.pid), 15)
    assert await eventually(lambda: not list(offers(cache)))
