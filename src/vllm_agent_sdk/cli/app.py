"""The table of commands: what each takes, and what its end means.

The one importer of cyclopts. Arguments are parsed here; the work is done by the module that is
called like the command, imported when the command is called.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from vllm_agent_sdk import VLLMError
from vllm_agent_sdk.cli.failure import (
    FAILED,
    INTERRUPTED,
    OUTPUT_CLOSED,
    WRONG_USAGE,
    code_of,
)
from vllm_agent_sdk.cli.options import (
    Common,
    Connection,
    DemoOptions,
    RunOptions,
    SamplingOptions,
    ServeOptions,
)
from vllm_agent_sdk.cli.output import Output

__all__ = ["app", "start"]

_T = TypeVar("_T")
#: A group of options as options of their own.
_Flat = Annotated[_T, Parameter(name="*")]
_RUN, _SAMPLING, _CONNECTION, _COMMON = RunOptions(), SamplingOptions(), Connection(), Common()
_SERVE, _DEMO = ServeOptions(), DemoOptions()
_TEXT_OPTIONS = ("--pip-args", "--instructions")
_PROMPT_HELP = (
    "The prompt. With - or none it is read from stdin; beside a prompt, what is piped in is "
    "appended to it."
)
_MODEL_HELP = "A model's folder, or a name that vLLM resolves. Unset: a small bundled model."


def _version() -> str:
    from vllm_agent_sdk import __version__

    return f"vllm-agent {__version__}"


def _default_text(value: object) -> str | None:
    return str(value) if value else None  # a switch that is off, a list that is empty: no news


app = App(
    name="vllm-agent",
    help="Agents on your own vLLM servers.",
    version=_version,
    help_format="markdown",
    default_parameter=Parameter(negative=(), show_default=_default_text),
)


@app.command(name="demo", usage="Usage: vllm-agent demo [OPTIONS]")
def _demo(*, options: _Flat[DemoOptions] = _DEMO, common: _Flat[Common] = _COMMON) -> int:
    """Show an agent with a tool on a real model, from nothing.

    With VLLM_BASE_URL set, that server is used. Without, a small one is started on this machine's
    processor; the first time, vLLM is installed for it (some minutes, about 4 GB).

    Exit codes: 0 shown; 1 it did not work; 3 the server could not be reached, or refused the key;
    130 Ctrl-C.
    """
    from vllm_agent_sdk.cli.demo import demo

    return demo(options, Output())


@app.command(name="run", usage="Usage: vllm-agent run [PROMPT] [OPTIONS]")
def _run(
    prompt: Annotated[str | None, Parameter(help=_PROMPT_HELP)] = None,
    /,
    *,
    options: _Flat[RunOptions] = _RUN,
    sampling: _Flat[SamplingOptions] = _SAMPLING,
    connection: _Flat[Connection] = _CONNECTION,
    common: _Flat[Common] = _COMMON,
    stdin: Annotated[bool, Parameter(parse=False)] = False,
) -> int:
    """Answer a prompt, with tools if there are any; the answer is streamed to stdout.

    Tool activity, notices and errors go to stderr, and so does what tools print.

    Exit codes: 0 answered; 1 the run ended otherwise; 2 called wrongly; 3 the server could not be
    reached, or refused the key; 130 Ctrl-C, after what had come was printed.
    """
    from vllm_agent_sdk.cli.run import read_prompt, run

    output = Output()
    text = read_prompt(prompt, stdin, output)
    return run(text, options, sampling, connection, output)


@app.command(name="models", usage="Usage: vllm-agent models [OPTIONS]")
def _models(
    *,
    json: Annotated[bool, Parameter(help="Print the server's own answer, as JSON.")] = False,
    connection: _Flat[Connection] = _CONNECTION,
    common: _Flat[Common] = _COMMON,
) -> int:
    """List what the server serves: models, their other names, LoRA adapters.

    Exit codes: 0 listed; 1 the answer was none; 2 called wrongly; 3 the server could not be
    reached, or refused the key.
    """
    from vllm_agent_sdk.cli.models import models

    return models(connection, json, Output())


@app.command(name="serve", usage="Usage: vllm-agent serve [MODEL] [OPTIONS] [-- VLLM-ARGS...]")
def _serve(
    model: Annotated[str | None, Parameter(help=_MODEL_HELP)] = None,
    /,
    *,
    options: _Flat[ServeOptions] = _SERVE,
    common: _Flat[Common] = _COMMON,
    vllm_args: Annotated[tuple[str, ...], Parameter(parse=False)] = (),
) -> int:
    """Run a real vLLM server until Ctrl-C.

    An installed vLLM is used as it is; else its CPU build is installed once into a cache of its
    own (some minutes, about 4 GB). What follows -- is passed on to vLLM.

    Exit codes: 0 ended by Ctrl-C when it was ready; 1 the server could not be started, or died; 2
    called wrongly; 130 Ctrl-C before it was ready.
    """
    from vllm_agent_sdk.cli.serve import serve

    return serve(model, options, vllm_args, Output())


def start(tokens: Sequence[str]) -> int:
    """Run the command that the arguments name; its exit code."""
    debug = False
    try:
        head, more = _taken_out(tokens)
        command, bound, unparsed = app.parse_args(
            head, console=Output().shown, print_error=False, exit_on_error=False
        )
        common = bound.arguments.get("common", _COMMON)
        debug = common.debug
        # `--help` is a command of its own, which takes neither.
        more = {name: value for name, value in more.items() if name in unparsed}
        code = command(*bound.args, **bound.kwargs, **more)
        sys.stdout.flush()
    except CycloptsError as error:
        Output().complain(_wrong(error, tokens))
        return WRONG_USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has gone: nothing is left to say, and Python's own flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED
    except VLLMError as error:
        return _fail(error, debug)
    except Exception as error:  # noqa: BLE001  a bug of ours ends in a sentence, too
        _fail(error, debug)
        return FAILED
    return code if isinstance(code, int) else 0


def _fail(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    Output().complain(error)
    return code_of(error)


def _wrong(error: CycloptsError, tokens: Sequence[str]) -> str:
    command = f" {tokens[0]}" if tokens and tokens[0] in app.resolved_commands() else ""
    text = str(error).strip()
    if isinstance(error, UnusedCliTokensError):
        left = error.unused_tokens or ["?"]
        text = f"{left[0]!r} is one argument too many; a text of several words goes into quotes."
    text += "" if text.endswith((".", "?")) else "."
    return f"{text} See vllm-agent{command} --help."


def _taken_out(tokens: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take out what looks like an option and is none: `-` of `run`, and what `serve` passes on."""
    at = list(tokens).index("--") if "--" in tokens else len(tokens)
    head, rest = _joined(tokens[:at]), list(tokens[at:])
    if head[:1] == ["serve"]:
        return head, {"vllm_args": tuple(rest[1:])}
    if head[:1] == ["run"] and "-" in head:
        return [each for each in head if each != "-"] + rest, {"stdin": True}
    return head + rest, {}


def _joined(tokens: Sequence[str]) -> list[str]:
    """Join options whose text may begin with a hyphen to it: `--pip-args=--index-url URL`."""
    joined: list[str] = []
    for each in tokens:
        if joined and joined[-1] in _TEXT_OPTIONS:
            joined[-1] += f"={each}"
        else:
            joined.append(each)
    return joined
