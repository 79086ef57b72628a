"""`vllm-agent demo`: from nothing to an agent with a tool on a real model."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from typing import Any

from vllm_agent_sdk import (
    Agent,
    AsyncVLLM,
    Limits,
    LocalServerError,
    ModelEnded,
    ModelStarted,
    RunEnded,
    RunResult,
    RunStarted,
    Sampling,
    TextDelta,
    ToolCallDelta,
    ToolEnded,
    ToolStarted,
    VLLMError,
    tool,
)
from vllm_agent_sdk.cli.failure import OK
from vllm_agent_sdk.cli.loop import Interrupts, run_loop
from vllm_agent_sdk.cli.options import DemoOptions
from vllm_agent_sdk.cli.output import Output
from vllm_agent_sdk.cli.provisioning import Provisioning, split_args
from vllm_agent_sdk.cli.run import call_text, short
from vllm_agent_sdk.local import LocalServer, gather_facts, problem
from vllm_agent_sdk.testing import Reply, Simulator

__all__ = ["demo"]

PROMPT = "What is the temperature in Paris?"
TEMPERATURE = 21
_SIMULATED_DELAY_S = 0.05
_URL_VARIABLES = ("VLLM_BASE_URL", "VLLM_API_BASE")


def demo(options: DemoOptions, output: Output) -> int:
    """Run the command; its exit code.

    Raises:
        VLLMError: A real server did not do what it should.
    """
    pip_args = split_args(options.pip_args)

    async def main(_interrupts: Interrupts) -> int:
        if any(os.environ.get(name, "").strip() for name in _URL_VARIABLES):
            async with AsyncVLLM(model=options.model) as client:
                output.wait(f"Asking {client.base_url}")
                await _converse(client, output)
            return OK
        async with AsyncExitStack() as stack:
            showing = Provisioning(output)
            server = LocalServer(options.model, progress=showing, pip_args=pip_args)
            try:
                async with showing:
                    await stack.enter_async_context(server)
            except LocalServerError as error:
                if options.real or not _cannot_run(showing):
                    raise
                return await _simulated(error, output)
            async with AsyncVLLM(server.base_url, model=server.model) as client:
                await _converse(client, output)
            output.wait("Ending the server")
        output.say(
            "The server has ended. `vllm-agent serve` runs one for longer, `vllm-agent run PROMPT` "
            "asks it.",
            "dim",
        )
        return OK

    return run_loop(main, output)


def _cannot_run(showing: Provisioning) -> bool:
    """Whether a real server cannot run here at all: the machine, the disk, or no network.

    A server that was installed and then fails, or a model that is not there, is another thing: it
    has a reason that can be mended.
    """
    if showing.steps and showing.steps[-1] in {"environment", "install"}:
        return True
    begun = any(step != "waiting" for step in showing.steps)
    return not begun and (os.name != "posix" or problem(gather_facts()) is not None)


async def _simulated(why: LocalServerError, output: Output) -> int:
    reason = short(why.message).rstrip(".")
    output.line(f"SIMULATED: a real vLLM server cannot run here. {reason}.")
    output.line("The same agent, against a simulated server with scripted replies:")
    replies = (
        Reply.calls(("get_weather", {"city": "Paris"}), delay=_SIMULATED_DELAY_S),
        Reply.text(f"It is {TEMPERATURE} °C in Paris.", delay=_SIMULATED_DELAY_S),
    )
    async with (
        Simulator(*replies, model="simulated") as server,
        AsyncVLLM(server.base_url, model="simulated") as client,
    ):
        await _converse(client, output)
    output.line(
        "SIMULATED: no model has answered. With a vLLM server elsewhere: "
        "VLLM_BASE_URL=http://HOST:8000/v1 vllm-agent demo"
    )
    return OK


# ── the agent ────────────────────────────────────────────────────────────────────────────────────


async def _converse(client: AsyncVLLM, output: Output) -> None:
    """Let the agent answer, show it, and check that it did what it shows."""
    calls: list[str] = []

    @tool
    def get_weather(city: str) -> dict[str, Any]:
        """Get the current weather of a city."""
        calls.append(city)
        return {"city": city, "temperature_c": TEMPERATURE}

    agent = Agent(
        tools=[get_weather],
        client=client,
        sampling=Sampling(temperature=0, max_tokens=1024),
        limits=Limits(max_turns=6),
    )
    show = _Show(client.base_url, output)
    async with agent.stream(PROMPT) as run:
        async for event in run:
            show.event(event)
    run.result.raise_for_error()
    if len(calls) != 1:
        times = "without calling the tool" if not calls else f"after {len(calls)} calls of the tool"
        raise VLLMError(
            f"The model {run.result.model} answered {times}, where one call was expected; try "
            "another model."
        )
    if str(TEMPERATURE) not in run.result.text:
        raise VLLMError(
            f"The model {run.result.model} called the tool, but its answer lacks the temperature "
            "that the tool gave; try another model."
        )


class _Show:
    """Shows a run as a conversation with labels, and at its end what it took."""

    def __init__(self, base_url: str, output: Output) -> None:
        self._base_url = base_url
        self._output = output
        self._answering = False
        self._generating_s = 0.0

    def event(self, event: object) -> None:
        """Show one event."""
        output = self._output
        match event:
            case RunStarted(model=str() as model, turn_mode=mode, turn_mode_reason=reason):
                output.line(f"{self._base_url}, model {model}", "Server")
                output.line(f"get_weather(city), {mode} turns: {reason}", "Tools")
                output.line(PROMPT, "Prompt")
            case ModelStarted():
                output.wait("Waiting for the model")
            case ToolCallDelta(name=str() as name):
                output.wait(f"The model is writing a call of {name}")
            case ToolStarted(call=call):
                output.line(call_text(call), "Call")
            case ToolEnded(message=message):
                content = message.content if isinstance(message.content, str) else "…"
                output.line(short(content), "Result")
            case TextDelta(text=text):
                if not self._answering:
                    output.label("Answer")
                self._answering = True
                output.answer(text)
            case ModelEnded(duration_s=seconds, ttft_s=first):
                output.settle()
                output.end_answer()
                self._answering = False
                self._generating_s += seconds - (first or 0.0)
            case RunEnded(result=result) if not result.is_error:
                output.line(self._account(result))

    def _account(self, result: RunResult[Any]) -> str:
        usage = result.usage
        # The first token of each turn is there when its clock begins.
        generated = usage.output_tokens - usage.requests
        speed = f"{generated / self._generating_s:.0f}" if self._generating_s > 0 else "?"
        first = "?" if result.ttft_s is None else f"{result.ttft_s:.2f}"
        return (
            f"{usage.input_tokens} tokens in, {usage.output_tokens} out · {result.turns} turns · "
            f"first token {first} s · total {result.duration_s:.2f} s · {speed} tok/s"
        )
