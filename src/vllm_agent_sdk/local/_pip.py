"""pip as a supervised process: its progress, its one known detour, its failures as sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from vllm_agent_sdk.errors import LocalServerError
from vllm_agent_sdk.local._process import Spec, run_logged
from vllm_agent_sdk.local._progress import Progress

__all__ = ["Pip"]

# PyTorch's CPU builds are not on PyPI; some package indexes mirror them, most don't.
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_NO_TORCH = re.compile(
    r"(No matching distribution found for|satisfies the requirement|Could not find.*) torch=="
)
_RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)$")
_PIP_VERSION = re.compile(r"^pip (\d+)\.(\d+)")
_RAW_SINCE = (24, 1)
_UNREACHABLE = "connection broken by"
_NOISE = ("WARNING:", "DEPRECATION:", "[notice]", "hint:")


class Pip:
    """The pip of one environment.

    Args:
        spec: How its command begins, with environment and log.
        progress: Gets a sign of each file and its share.
        extra: Arguments the user wants each installation to have; with any of them the user knows
            better where PyTorch is, and no other index is tried.
    """

    def __init__(self, spec: Spec, progress: Progress, extra: Sequence[str] = ()) -> None:
        self._spec = spec
        self._progress = progress
        self._extra = tuple(extra)
        self._bar = "off"
        self._doing = ""

    async def prepare(self) -> None:
        """Take a pip that can report its progress; an older one works, silently."""
        self._bar = "raw" if await self._reports() else "off"
        if self._bar == "off":
            code, _ = await self._run("install", "--upgrade", "--retries", "1", "pip", *self._extra)
            if code == 0 and await self._reports():
                self._bar = "raw"

    async def install(self, *what: str) -> None:
        """Install packages, PyTorch's CPU build from its own index where there is no other.

        Raises:
            LocalServerError: pip failed; the sentence has its reason.
        """
        code, lines = await self._run("install", *what, *self._extra)
        if code != 0 and not self._extra and any(_NO_TORCH.search(line) for line in lines):
            code, lines = await self._run("install", *what, "--extra-index-url", _TORCH_INDEX)
        if code != 0:
            name = next(w for w in what if not w.startswith("-")).partition("==")[0]
            raise LocalServerError(
                f"Could not install {name}: {_reason(lines, code)}; check the network and pip's "
                f"configuration, or pass --pip-args (log: {self._spec.log_path}).",
                log_path=str(self._spec.log_path),
            )

    async def uninstall(self, *what: str) -> None:
        """Remove packages, whether they are there or not."""
        await self._run("uninstall", "--yes", *what)

    async def _reports(self) -> bool:
        _, lines = await self._run("--version")
        found = next(filter(None, map(_PIP_VERSION.match, lines)), None)
        return found is not None and (int(found[1]), int(found[2])) >= _RAW_SINCE

    async def _run(self, verb: str, *args: str) -> tuple[int | None, list[str]]:
        lines: list[str] = []

        def on_line(line: str) -> None:
            if (found := _RAW_PROGRESS.match(line)) is not None:
                total = int(found[2])
                self._progress("install", self._doing, int(found[1]) / total if total else None)
            elif line.strip():
                lines.append(line.strip())
                if not line.lstrip().startswith(_NOISE):
                    self._say(line.strip())

        command = [*self._spec.command, verb]
        if verb == "install":
            command += ["--progress-bar", self._bar, "--no-input", "--disable-pip-version-check"]
        self._spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        code = await run_logged(replace(self._spec, command=(*command, *args)), on_line)
        return code, lines

    def _say(self, line: str) -> None:
        if line.startswith(("Collecting", "Downloading", "Using cached", "Processing", "Building")):
            # Addresses, paths and who asked for it are long; the file's name and size say enough.
            verb, _, what = line.partition(" (from ")[0].partition(" ")
            path, size, rest = what.partition(" (")
            self._doing = f"{verb} {path.rpartition('/')[2]}{size}{rest}"
            self._progress("install", self._doing)
        elif line.startswith("Installing collected packages:"):
            self._progress("install", f"Installing {line.count(',') + 1} packages")


def _reason(lines: Sequence[str], code: int | None) -> str:
    clean = [line for line in lines if not line.startswith(_NOISE)]
    errors = [line for line in clean if line.startswith("ERROR:")]
    said = (errors or clean or [f"pip ended with exit code {code}"])[-1]
    # Behind a semicolon stand environment markers.
    said = said.removeprefix("ERROR:").partition(";")[0].strip().rstrip(".")
    # Without a network pip says "no matching distribution", as if the package did not exist.
    if "No matching distribution" in said and any(_UNREACHABLE in line for line in lines):
        said += " (a package index could not be reached)"
    return said
