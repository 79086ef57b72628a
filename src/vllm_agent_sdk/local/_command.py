"""What a server is started with: arguments, environment, and the digest by which it is shared.

Pure but for looking at the file system; the law is that the user's arguments come last and win, and
that what they set (port, host, key, name) is what the `LocalServer` then says of itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm_agent_sdk.errors import LocalServerError, UsageError
from vllm_agent_sdk.local._vllm import VLLM

__all__ = [
    "BUNDLED_NAME",
    "Address",
    "Model",
    "address",
    "child_environment",
    "digest",
    "option",
    "resolve_model",
    "server_command",
]

BUNDLED_NAME = "smollm2-135m"
_BUNDLED_ARGS = (
    "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "16", "--max-model-len", "4096",
)  # fmt: skip
_OURS = frozenset({"VLLM_API_BASE", "VLLM_API_KEY", "VLLM_BASE_URL", "VLLM_MODEL", "VLLM_TIMEOUT"})
_REFUSED = ("--uds", "--ssl-keyfile", "--ssl-certfile", "--headless")
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - not bound here


@dataclass(frozen=True, slots=True)
class Model:
    """What is served: the bundled model (both `None`), a folder, or a name."""

    folder: Path | None = None
    name: str | None = None

    @property
    def bundled(self) -> bool:
        """Whether it is the bundled model."""
        return self.folder is None and self.name is None

    @property
    def identity(self) -> str:
        """Tells models apart."""
        return str(self.folder or self.name or BUNDLED_NAME)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens, and where it is reached."""

    host: str
    port: int

    @property
    def base_url(self) -> str:
        """The URL for a client, with `/v1`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"


def resolve_model(model: str | os.PathLike[str] | None) -> Model:
    """Tell a folder from a name, and check a folder.

    A `PathLike` is a folder; so is a text that names an existing one, begins with `.`, `/` or `~`,
    or has more than one `/` (names have at most one).

    Raises:
        LocalServerError: The folder does not exist or holds no model.
    """
    if model is None:
        return Model()
    text = os.fspath(model)
    if not text.strip():
        raise UsageError("model is empty; give a folder, a name, or None for the bundled model.")
    folder = Path(text).expanduser()
    by_name = isinstance(model, str) and not text.startswith((".", "/", "~"))
    if by_name and text.count("/") <= 1 and not folder.is_dir():
        return Model(name=text)
    if not folder.is_dir():
        what = "is a file, not a model's folder" if folder.exists() else "does not exist"
        raise LocalServerError(f"The model path {folder} {what}; check it.")
    if not (folder / "config.json").is_file():
        raise LocalServerError(
            f"The model path {folder} holds no config.json; give the folder of a model in Hugging "
            "Face format (config.json, tokenizer, safetensors)."
        )
    return Model(folder=folder.resolve())


def option(args: Sequence[str], name: str) -> str | None:
    """The value that counts of an option among arguments (the last one), if it is there."""
    value: str | None = None
    # vLLM takes `--max_num_seqs` for `--max-num-seqs` too.
    for position, arg in enumerate(args):
        flag, is_pair, rest = arg.partition("=")
        if not flag.startswith("--") or flag.replace("_", "-") != name:
            continue
        following = args[position + 1] if position + 1 < len(args) else ""
        value = rest if is_pair else following
    return value


def address(args: Sequence[str], port: int) -> Address:
    """Where the server will be reached; the user's `--host` and `--port` win.

    Raises:
        UsageError: The arguments make the server unreachable for a plain HTTP client.
    """
    for refused in _REFUSED:
        if option(args, refused) is not None:
            raise UsageError(
                f"LocalServer reaches its server by plain HTTP on a port, which {refused} rules "
                "out; start such a server yourself and use its base_url."
            )
    host = option(args, "--host")
    text = option(args, "--port")
    try:
        chosen = port if text is None else int(text)
    except ValueError:
        raise UsageError(f"--port {text} is not a number.") from None
    return Address("127.0.0.1" if host is None else _ANYWHERE.get(host, host), chosen)


def server_command(
    vllm: VLLM, model: Model, weights: Path | None, port: int, args: Sequence[str]
) -> tuple[list[str], str]:
    """The whole command, and the name the model is served under.

    Args:
        vllm: The vLLM to start.
        model: What is served.
        weights: The bundled model's folder, where that is served.
        port: The port to listen on.
        args: The user's arguments.
    """
    target = str(weights) if model.bundled else model.identity
    name = BUNDLED_NAME if model.bundled else model.folder.name if model.folder else None
    command = list(vllm.command)
    # `vllm serve` wants the model as its first argument, the module as an option.
    command += [target] if vllm.python is None else ["--model", target]
    if name is not None:
        command += ["--served-model-name", name]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    if model.bundled:
        command += _BUNDLED_ARGS
    command += args
    return command, option(args, "--served-model-name") or name or target


def child_environment(
    inherited: Mapping[str, str],
    model: Model,
    vllm: VLLM,
    *,
    extra: Mapping[str, str],
    key: str | None,
) -> dict[str, str]:
    """The server's environment: ours without what is meant for a client, and what is asked.

    Args:
        inherited: This process's environment.
        model: What is served.
        vllm: The vLLM that is started.
        extra: The user's variables; they win over what is set here, but for the reports to the
            outside, which stay off.
        key: The API key the server is to demand; `None`: none, whatever is inherited.
    """
    env = {
        name: value
        for name, value in inherited.items()
        if name not in _OURS and not name.startswith("VLLM_AGENT_")
    }
    env["PYTHONUNBUFFERED"] = "1"  # the log is read while it is written
    if vllm.own and vllm.python is not None:
        for name in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"):
            env.pop(name, None)
        env["PATH"] = os.path.dirname(vllm.python) + os.pathsep + env.get("PATH", os.defpath)
    if model.bundled:
        env["VLLM_CPU_KVCACHE_SPACE"] = "1"
    if model.name is None:
        env["HF_HUB_OFFLINE"] = "1"
    if key is not None:
        env["VLLM_API_KEY"] = key
    return {**env, **extra, "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}


def digest(
    vllm: VLLM,
    model: Model,
    *,
    args: Sequence[str],
    env: Mapping[str, str],
    port: int | None,
    key: str | None,
) -> str:
    """Names the settings: servers are shared between processes that have the same digest."""
    # A file that is named relative to the working folder is another one elsewhere.
    named = [os.path.abspath(arg) if os.path.exists(arg) else arg for arg in args]
    settings = [vllm.command, model.identity, named, sorted(env.items()), port, key]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:20]
