"""`vllm-agent run`: one prompt, answered as it is generated."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import stat
import sys
import threading
from typing import Any, cast

from vllm_agent_sdk import (
    Agent,
    Limits,
    MessageAdded,
    ModelStarted,
    Notice,
    ReasoningDelta,
    RefusalDelta,
    Run,
    RunEvent,
    RunStarted,
    Sampling,
    SettingsChanged,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolEnded,
    ToolProgress,
    ToolStarted,
    UsageError,
)
from vllm_agent_sdk.cli.client import client_of
from vllm_agent_sdk.cli.failure import FAILED, OK
from vllm_agent_sdk.cli.loop import Interrupts, run_loop
from vllm_agent_sdk.cli.options import Connection, RunOptions, SamplingOptions
from vllm_agent_sdk.cli.output import Output
from vllm_agent_sdk.cli.tool_import import import_tool
from vllm_agent_sdk.types.events import encode_event

__all__ = ["call_text", "read_prompt", "run", "short"]

_STDIN_NOTE_S = 2.0
_SHOWN_CHARS = 400


def run(
    prompt: str,
    options: RunOptions,
    sampling: SamplingOptions,
    connection: Connection,
    output: Output,
) -> int:
    """Run the command; its exit code.

    Raises:
        VLLMError: The run could not begin, or ended in an error.
    """
    with output.kept_clean():
        agent = Agent(
            instructions=options.instructions,
            tools=[import_tool(name) for name in options.tool],
            model=options.model,
            sampling=Sampling(temperature=sampling.temperature, max_tokens=sampling.max_tokens),
            limits=Limits(max_turns=options.max_turns),
            turn_mode=cast("Any", options.turn_mode),  # the agent names the ones it knows
        )

        async def main(interrupts: Interrupts) -> int:
            async with client_of(connection) as client:
                agent_here = agent.with_(client=client)
                output.wait(f"Asking {client.base_url}")
                async with agent_here.stream(prompt) as answer:
                    return await _follow(answer, _View(output, options.json), interrupts)

        return run_loop(main, output)


async def _follow(run: Run[str], view: _View, interrupts: Interrupts) -> int:
    stopping: list[asyncio.Task[None]] = []
    with contextlib.ExitStack() as stack:
        async for event in run:
            if isinstance(event, RunStarted):
                # From here on there is something to end in order; before, nothing has begun.
                stack.enter_context(
                    interrupts.doing(lambda: stopping.append(asyncio.create_task(run.interrupt())))
                )
            view.show(event)
    await asyncio.gather(*stopping)
    view.output.settle()
    view.output.end_answer()
    result = run.result
    result.raise_for_error()
    if result.stop_reason == "end_turn":
        return OK
    if result.stop_reason == "interrupted":
        view.output.say("Interrupted.", "yellow")
        return interrupts.code
    view.output.complain(f"The run ended with {result.stop_reason!r}.")
    return FAILED


class _View:
    """Shows a run's events: the answer, or JSON lines, and on stderr what the tools do."""

    def __init__(self, output: Output, as_json: bool) -> None:
        self.output = output
        self._json = as_json

    def show(self, event: RunEvent) -> None:
        output = self.output
        if self._json:
            output.answer(encode_event(event).decode() + "\n")
        match event:
            case TextDelta(text=text) | RefusalDelta(text=text) if not (
                self._json or event.of_subagent
            ):
                output.answer(text)
            case ReasoningDelta(text=text):
                output.think(text)
            case ModelStarted():
                output.settle()
                output.end_answer()
                output.wait("Waiting for the model")
            case ToolCallDelta(name=str() as name):
                output.wait(f"The model is writing a call of {name}")
            case ToolStarted(call=call):
                output.say(f"→ {call_text(call)}", "cyan")
                output.wait(f"{call.name} is running")
            case ToolProgress(message=message):
                output.say(f"  {short(message)}", "dim")
            case ToolEnded(name=name, message=message):
                style = "red" if message.is_error else "dim"
                output.say(f"← {name}: {short(message.text)}", style)
            case MessageAdded(when="repair"):
                output.say("The model's reply was not usable; it is asked to correct it.", "dim")
            case SettingsChanged(what=what, new=new, reason=reason):
                output.say(f"{what} is now {new}: {reason}", "yellow")
            case Notice(text=text):
                output.say(text, "yellow")


def call_text(call: ToolCall) -> str:
    """A call as one would write it: `get_weather(city="Paris")`."""
    if call.arguments is None:
        return short(f"{call.name}({call.arguments_json})")
    arguments = (
        f"{name}={json.dumps(value, ensure_ascii=False, default=str)}"
        for name, value in call.arguments.items()
    )
    return short(f"{call.name}({', '.join(arguments)})")


def short(text: str) -> str:
    """A text as one line that is not too long to be read."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}…"


# ── the prompt ───────────────────────────────────────────────────────────────────────────────────


def read_prompt(prompt: str | None, from_stdin: bool, output: Output) -> str:
    """The prompt: as given, from stdin (asked for, or none given), or both.

    Raises:
        UsageError: There is none.
    """
    piped = ""
    if from_stdin or (prompt is None and not _is_terminal()) or _holds_text():
        piped = _read_stdin(output)
    text = "\n\n".join(part for part in (prompt, piped) if part and part.strip())
    if not text:
        raise UsageError(
            'There is no prompt: give one (vllm-agent run "Say hello"), or pipe it in.'
        )
    return text


def _is_terminal() -> bool:
    return sys.stdin is None or sys.stdin.isatty()


def _holds_text() -> bool:
    """Whether stdin is a pipe or a file, which a caller means to be read beside the prompt."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError, io.UnsupportedOperation):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _read_stdin(output: Output) -> str:
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        output.say("Type the prompt; Ctrl-D on a line of its own ends it.", "dim")
    note = threading.Timer(
        _STDIN_NOTE_S,
        output.say,
        ("Waiting for standard input to end; without any, add </dev/null.", "dim"),
    )
    note.daemon = True
    if not sys.stdin.isatty():
        note.start()
    try:
        return sys.stdin.buffer.read().decode("utf-8", "replace").rstrip("\n")
    finally:
        note.cancel()
