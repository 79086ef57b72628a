"""Which vLLM is used: one that is installed, as it is; else the provisioned one.

Looking costs nothing: vLLM is found by its files, never imported.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from vllm_agent_sdk.errors import LocalServerError

__all__ = ["VLLM", "find_vllm", "python_of"]

_MODULE = "vllm.entrypoints.openai.api_server"


@dataclass(frozen=True, slots=True)
class VLLM:
    """A vLLM that can be started.

    Attributes:
        command: Program and first arguments; the server's arguments follow.
        python: Its interpreter, or `None` where only the command is known.
        own: Whether it is the provisioned one.
    """

    command: tuple[str, ...]
    python: str | None
    own: bool = False


def python_of(python: str, *, own: bool = False) -> VLLM:
    """The vLLM of an interpreter."""
    # As a module: the `vllm` command of the CPU build ends with PackageNotFoundError.
    return VLLM((python, "-m", _MODULE), python, own)


def find_vllm(python: str | os.PathLike[str] | None = None) -> VLLM | None:
    """Find an installed vLLM: of the interpreter that is named, of this one, or on `PATH`.

    Raises:
        LocalServerError: The interpreter that is named does not exist.
    """
    if python is not None:
        found = shutil.which(os.fspath(python))
        if found is None:
            raise LocalServerError(
                f"There is no Python at {os.fspath(python)}; name an interpreter that has vLLM "
                "installed, or none to use the CPU build."
            )
        return python_of(os.path.abspath(found))
    if sys.executable and _importable():
        return python_of(sys.executable)
    command = shutil.which("vllm")
    if command is None:
        return None
    interpreter = _interpreter(Path(command))
    return VLLM((command, "serve"), None) if interpreter is None else python_of(interpreter)


def _importable() -> bool:
    try:
        spec = importlib.util.find_spec("vllm")
    except (ImportError, ValueError):
        return False
    # A folder called vllm somewhere on the path is a package without a file: not vLLM.
    return spec is not None and spec.origin is not None


def _interpreter(script: Path) -> str | None:
    """The interpreter a console script names in its first line, if it is a Python."""
    try:
        with script.open("rb") as file:
            first = file.readline(512).decode("utf-8", "replace").strip()
    except OSError:
        return None
    path = first.removeprefix("#!").strip()
    if not first.startswith("#!") or "python" not in Path(path).name:
        return None
    return path if os.access(path, os.X_OK) else None
