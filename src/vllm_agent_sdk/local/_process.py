"""Our side of a supervisor: start one or join one, watch it, stop it.

Law: every process that `local` starts, vLLM and pip alike, is a supervisor's, so that none outlives
its users, however they end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from vllm_agent_sdk.errors import LocalServerError

__all__ = ["Spec", "Supervised", "last_lines", "run_logged"]

_HELLO_S = 20.0
_GIVE_UP_S = 25.0
_TAIL_POLL_S = 0.2
_TAIL_BYTES = 64 * 1024
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SUPERVISOR = Path(__file__).with_name("_supervisor.py")


@dataclass(frozen=True, slots=True)
class Spec:
    """A command to be supervised.

    Attributes:
        command: Program and arguments.
        env: The whole environment.
        log_path: Where its output goes (appended).
        grace_s: Seconds between the loss of the last user and the end of the command.
        stop_s: Seconds between SIGTERM and SIGKILL.
        socket_path: Where others may join; `None`: nobody may.
        held_fd: A descriptor the supervisor keeps open, such as that of a lock.
        hello: Facts that those who join are told.
    """

    command: Sequence[str]
    env: Mapping[str, str]
    log_path: Path
    grace_s: float = 5.0
    stop_s: float = 5.0
    socket_path: str | None = None
    held_fd: int | None = None
    hello: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Supervised:
    """One connection to a supervisor, and what it has told us."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._popen: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        loop = asyncio.get_running_loop()
        self._hello: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._exited: asyncio.Future[int | None] = loop.create_future()
        self._ended = False
        self._lost = False
        self._task = loop.create_task(self._read(reader))

    @classmethod
    async def start(cls, spec: Spec) -> Self:
        """Start the command; returns when its process exists.

        Raises:
            LocalServerError: The command, or Python itself, cannot be executed.
        """
        ours, popen = _spawn(spec)
        try:
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()  # the supervisor ends by itself once its only user is gone
            raise
        process = cls(reader, writer)
        process._popen = popen
        try:
            await process._wait_hello()
        except BaseException:
            await process.leave()
            raise
        return process

    @classmethod
    async def join(cls, socket_path: str) -> Self | None:
        """Become a user of a command that another process started; `None` if there is none."""
        try:
            reader, writer = await asyncio.open_unix_connection(socket_path)
        except OSError:
            return None
        process = cls(reader, writer)
        try:
            await process._wait_hello()
        except LocalServerError:
            await process.leave()
            return None
        except BaseException:
            await process.leave()
            raise
        return process

    @property
    def hello(self) -> dict[str, Any]:
        """What the supervisor said first: `pid` and the facts of its `Spec`."""
        return self._hello.result()

    @property
    def pid(self) -> int:
        """The command's process id, and that of its group."""
        return int(self.hello["pid"])

    @property
    def done(self) -> bool:
        """Whether the command has ended."""
        return self._exited.done()

    async def wait(self) -> int | None:
        """Wait for the command's end; its exit code, `None` if the supervisor vanished."""
        return await asyncio.shield(self._exited)

    async def ended_within(self, seconds: float) -> bool:
        """Wait for the command's end, at most so long; whether it has ended."""
        await asyncio.wait({self._exited}, timeout=seconds)
        return self._exited.done()

    async def stop(self) -> None:
        """End the command's processes and wait until none is left (a few seconds)."""
        if os.getpid() != self._owner:
            return  # after a fork the server is the parent's
        if not self._task.done():
            # Who cannot be told any more is ending already.
            with contextlib.suppress(OSError):
                self._writer.write(b"stop\n")
                await self._writer.drain()
            await asyncio.wait({self._task}, timeout=_GIVE_UP_S)
        await self.leave()

    async def leave(self) -> None:
        """Close the connection; the supervisor does the rest when it was the last one."""
        if os.getpid() != self._owner:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        if self._lost:
            self._kill_group()
        if self._popen is not None:
            await asyncio.to_thread(_reap, self._popen)
            self._popen = None

    def _kill_group(self) -> None:
        # Only after the supervisor was killed: there is nobody else to do it.
        if self._hello.done() and not self._hello.exception():
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _wait_hello(self) -> None:
        try:
            async with asyncio.timeout(_HELLO_S):
                await asyncio.shield(self._hello)
        except TimeoutError:
            raise LocalServerError(
                f"The supervisor did not answer within {_HELLO_S:.0f} seconds; try again."
            ) from None

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            # A reset says what the end of the stream says.
            with contextlib.suppress(OSError):
                while line := await reader.readline():
                    self._hear(json.loads(line))
            self._lost = not self._ended
        finally:
            if not self._exited.done():
                self._exited.set_result(None)
            if not self._hello.done():
                self._hello.set_exception(LocalServerError("The supervisor ended at once."))
                self._hello.exception()  # read: it may be that nobody waits for it

    def _hear(self, said: dict[str, Any]) -> None:
        match said.pop("event"):
            case "hello":
                self._hello.set_result(said)
            case "failed":
                reason = f"The server could not be started: {said['reason']}."
                self._hello.set_exception(LocalServerError(reason))
            case "exited":
                self._exited.set_result(said["code"])
            case "ended":
                self._ended = True
                if not self._exited.done():
                    self._exited.set_result(said["code"])
            case _:
                pass  # a supervisor of a newer release may say more


def _spawn(spec: Spec) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    if not sys.executable:
        raise LocalServerError(
            "This program does not know its Python interpreter (sys.executable is empty), "
            "so no server can be started from it; use a server started otherwise (base_url=)."
        )
    ours, theirs = socket.socketpair()
    options = {
        "fd": theirs.fileno(),
        "socket": spec.socket_path,
        "detach": spec.socket_path is not None,
        "grace_s": spec.grace_s,
        "stop_s": spec.stop_s,
        "hello": dict(spec.hello),
    }
    start = [sys.executable, "-I", "-S", str(_SUPERVISOR), json.dumps(options)]
    kept = [theirs.fileno()] + ([] if spec.held_fd is None else [spec.held_fd])
    try:
        with spec.log_path.open("ab") as log:
            popen = subprocess.Popen(  # noqa: S603 - the caller's own command
                [*start, *spec.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(spec.env),
                pass_fds=kept,
                # A session of its own: Ctrl-C in the user's terminal is not for the server.
                start_new_session=True,
            )
    except OSError as error:
        ours.close()
        raise LocalServerError(f"The supervisor could not be started: {error}.") from error
    finally:
        theirs.close()
    return ours, popen


def _reap(popen: subprocess.Popen[bytes]) -> None:
    try:
        popen.wait(_GIVE_UP_S)
    except subprocess.TimeoutExpired:
        popen.kill()  # never seen; without it the caller would wait for ever
        popen.wait()


async def run_logged(spec: Spec, on_line: Callable[[str], None]) -> int | None:
    """Run a command to its end; `on_line` gets each line it writes. Cancelling ends the command.

    Returns:
        Its exit code, `None` if its supervisor was killed.
    """
    tail = _Tail(spec.log_path)
    process = await Supervised.start(spec)
    try:
        ended = False
        while not ended:
            ended = await process.ended_within(_TAIL_POLL_S)
            for line in tail.lines():
                on_line(line)
        return await process.wait()
    finally:
        await process.stop()


class _Tail:
    """Reads what is appended to a file, by whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size
        self._rest = ""

    def lines(self) -> list[str]:
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        self._position += len(data)
        # A carriage return ends a line too: progress bars are drawn over each other with it.
        text = self._rest + data.decode("utf-8", "replace").replace("\r", "\n")
        *whole, self._rest = text.split("\n")
        return whole


def last_lines(path: Path, count: int = 15) -> list[str]:
    """The last lines of a log that say something, without colours."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [_ANSI.sub("", line).rstrip() for line in re.split(r"[\r\n]+", text)]
    return [line for line in lines if line.strip()][-count:]
