"""`vllm-agent serve`: a real vLLM until Ctrl-C."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from vllm_agent_sdk import LocalServerError, UsageError
from vllm_agent_sdk.cli.failure import OK
from vllm_agent_sdk.cli.loop import Interrupts, run_loop
from vllm_agent_sdk.cli.options import ServeOptions
from vllm_agent_sdk.cli.output import Output
from vllm_agent_sdk.cli.provisioning import Provisioning, split_args
from vllm_agent_sdk.local import LocalServer, purge

__all__ = ["serve"]

_TAIL_LINES = 20


def serve(
    model: str | None, options: ServeOptions, vllm_args: Sequence[str], output: Output
) -> int:
    """Run the command; its exit code.

    Raises:
        UsageError: An option cannot be used.
        LocalServerError: The server could not be started, or died.
    """
    if options.purge:
        freed = purge()
        output.line(f"Freed {freed:,} bytes." if freed else "There was nothing to remove.")
        return OK
    if options.ready_timeout <= 0:
        raise UsageError("--ready-timeout takes seconds above 0.")
    if options.port is not None and not 0 < options.port < 65536:
        raise UsageError(f"--port {options.port}: give a number from 1 to 65535.")
    pip_args = split_args(options.pip_args)

    async def main(interrupts: Interrupts) -> int:
        showing = Provisioning(output)
        server = LocalServer(
            model,
            vllm_args,
            reuse=options.reuse,
            port=options.port,
            api_key=options.api_key,
            pip_args=pip_args,
            ready_timeout_s=options.ready_timeout,
            progress=showing,
        )
        async with showing:
            await server.__aenter__()
        try:
            _announce(server, output)
            await _until_stopped(server, interrupts, output)
        finally:
            await server.aclose()
        output.say(
            "Left the shared server; it ends 5 s after its last user."
            if options.reuse
            else "The server has ended."
        )
        return OK

    return run_loop(main, output)


def _announce(server: LocalServer, output: Output) -> None:
    output.line("vLLM is ready.")
    output.line(f"  base URL  {server.base_url}")
    output.line(f"  model     {server.model}")
    output.line(f"  log       {server.log_path}")
    output.line("Elsewhere:")
    output.line(f"export VLLM_BASE_URL={server.base_url}")
    if server.api_key is not None:
        output.say("Set VLLM_API_KEY to the key you gave it, too.")
    output.say("Ctrl-C ends it.", "dim")


async def _until_stopped(server: LocalServer, interrupts: Interrupts, output: Output) -> None:
    stopped = asyncio.Event()
    died = asyncio.ensure_future(server.wait())
    stop = asyncio.ensure_future(stopped.wait())
    try:
        with interrupts.doing(stopped.set):
            await asyncio.wait({died, stop}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.is_set():
            output.wait("Ending the server")
            return
        code = died.result()
        how = "its supervisor was killed" if code is None else f"exit code {code}"
        tail = "\n".join(_last_lines(server.log_path))
        raise LocalServerError(
            f"The vLLM server has died ({how}); the end of its log {server.log_path}:\n{tail}",
            log_path=str(server.log_path),
        )
    finally:
        died.cancel()
        stop.cancel()
        await asyncio.wait({died, stop})


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip() for line in deque(file, _TAIL_LINES)]
    except OSError:
        return []
