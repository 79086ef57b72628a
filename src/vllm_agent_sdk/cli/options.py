"""The options of the commands, grouped; their texts are what `--help` shows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Common", "Connection", "DemoOptions", "RunOptions", "SamplingOptions", "ServeOptions"]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes.

    Attributes:
        debug: Show the traceback of an error.
    """

    debug: bool = False


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where the server is.

    Attributes:
        base_url: The server's address, with or without /v1. Unset: VLLM_BASE_URL, then
            VLLM_API_BASE, OPENAI_BASE_URL, http://127.0.0.1:8000/v1.
        api_key: The server's key. Others on this machine can see it here: prefer VLLM_API_KEY.
        timeout: Seconds for each request to the server, its whole answer included. Unset:
            VLLM_TIMEOUT, else no limit.
    """

    base_url: str | None = None
    api_key: str | None = None
    timeout: float | None = None


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How tokens are chosen.

    Attributes:
        temperature: 0 (always the likeliest token) to 2. Unset: the server's default.
        max_tokens: Tokens of one turn at most. Unset: the server's default.
    """

    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What `run` takes.

    Attributes:
        tool: A Python function the model can call, as module:function, from the current folder
            too; it needs no decorator. Repeatable.
        model: The served model's name. Unset: VLLM_MODEL, else the server's only one.
        instructions: The system text.
        turn_mode: How tools are offered: auto (decided by the server), native (the server's own
            tool calling), guided (each turn constrained to valid calls or the answer; works with
            any model) or plain (no tools).
        max_turns: Model calls of the run at most.
        json: Print the run's events instead of the answer, one JSON object a line, last
            run_ended.
    """

    tool: tuple[str, ...] = ()
    model: str | None = None
    instructions: str | None = None
    turn_mode: str = "auto"
    max_turns: int = 20
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What `serve` takes.

    Attributes:
        port: The port to listen on. Unset: a free one.
        reuse: Take the server that another `serve --reuse` with the same settings runs, or start
            one that others may take; it ends with its last user.
        api_key: The key the server is to demand. Unset: none.
        pip_args: Arguments for pip when vLLM is installed, as one text: "--index-url URL".
        ready_timeout: Seconds from the server's start until it must be ready.
        purge: Remove the vLLM that was installed, the model and the logs, and end.
    """

    port: int | None = None
    reuse: bool = False
    api_key: str | None = None
    pip_args: str = ""
    ready_timeout: float = 600.0
    purge: bool = False


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What `demo` takes.

    Attributes:
        real: End with an error where no real server can run, instead of showing a simulated one.
        model: The served model's name on the server at VLLM_BASE_URL; without one, the model's
            folder or name to serve. Unset: the server's only one, or a small bundled model.
        pip_args: Arguments for pip when vLLM is installed, as one text: "--index-url URL".
    """

    real: bool = False
    model: str | None = None
    pip_args: str = ""
