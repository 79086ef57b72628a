"""How a hook is run: awaited or in a thread, within its time, its failures counted as it says."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any

from vllm_agent_sdk._core.run.hook_output import hook_outputs
from vllm_agent_sdk.agent.run.guarded import called, time_limit
from vllm_agent_sdk.errors import HookError, UnsupportedHookOutputError
from vllm_agent_sdk.types.hooks import HOOK_OUTPUTS, Block, HookEvent, HookOutput, HookSpec, Matcher
from vllm_agent_sdk.types.hooks import Stop as StopOutput
from vllm_agent_sdk.types.results import ErrorInfo

__all__ = ["hook_gone", "run_hook"]

_log = logging.getLogger("vllm_agent_sdk.hooks")


async def run_hook(
    matcher: Matcher, spec: HookSpec, event: HookEvent
) -> tuple[tuple[HookOutput, ...], ErrorInfo | None]:
    """Run a hook once.

    An async hook is awaited, a sync one runs in a thread of its own; one that is still running
    after its time is cancelled (a thread goes on, and is not heard).

    Args:
        matcher: The hook.
        spec: What is data of it.
        event: What it is told; it gets copies of `input` and `output`.

    Returns:
        Its outputs in the order in which they have their effect, and why it failed, if it did. A
        failure under `on_failure="block"` gives a `Block` where that has an effect, and at `stop`
        a `Stop`: a `Block` there would make the run go on.

    Raises:
        asyncio.CancelledError: The caller was cancelled.
    """
    told = replace(event, input=copy.deepcopy(event.input), output=copy.deepcopy(event.output))
    try:
        return hook_outputs(await _answer(matcher, spec, told), event.event, spec.name), None
    except UnsupportedHookOutputError as error:
        return _failed(spec, event.event, error)
    except HookError as error:
        _log.debug("%s", error, exc_info=error.__cause__)
        return _failed(spec, event.event, error)


def hook_gone(spec: HookSpec) -> tuple[tuple[HookOutput, ...], ErrorInfo | None]:
    """Give what comes of a hook that the agent had when the run began, and has no more."""
    error = HookError(f"Hook {spec.name} at {spec.event} is not among the agent's hooks any more.")
    return _failed(spec, spec.event, error.with_facts(hook=spec.name, event=spec.event))


async def _answer(matcher: Matcher, spec: HookSpec, event: HookEvent) -> Any:
    """Give what the hook returned; whatever else becomes of it is a `HookError`."""
    scope = time_limit(spec.timeout)
    try:
        async with scope:
            answer = await called(matcher.fn, event, name=f"hook-{spec.name}")
    except Exception as cause:
        if isinstance(cause, TimeoutError) and scope.expired():
            raise _late(spec, event) from None
        raise _error(spec, event, f"failed: {_described(cause)}") from cause
    if scope.expired():  # it kept the cancellation to itself
        raise _late(spec, event)
    return answer


def _error(spec: HookSpec, event: HookEvent, what: str) -> HookError:
    error = HookError(f"Hook {spec.name} at {event.event} {what}.")
    return error.with_facts(hook=spec.name, event=event.event)


def _late(spec: HookSpec, event: HookEvent) -> HookError:
    return _error(spec, event, f"did not answer within {spec.timeout:g} s (its timeout)")


def _described(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  a broken __str__ must not hide what happened
        text = "(no message)"
    text = text.encode("utf-8", "backslashreplace").decode()  # it is stored as JSON
    return f"{type(error).__name__}: {text}".rstrip(": .")


def _failed(
    spec: HookSpec, event: str, error: HookError
) -> tuple[tuple[HookOutput, ...], ErrorInfo]:
    info = ErrorInfo.of(error)
    if spec.on_failure == "continue" or Block not in HOOK_OUTPUTS[event]:
        return (), info
    return ((StopOutput if event == "stop" else Block)(error.message),), info
