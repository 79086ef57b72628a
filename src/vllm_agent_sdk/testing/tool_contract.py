"""What every `Tool` must do: the suite that `@tool` functions pass, for tools of your own making.

```python
import pytest
from vllm_agent_sdk.testing import tool_contract

CASE = tool_contract.Case(MyTool(), {"city": "Paris"})

@pytest.mark.parametrize("check", tool_contract.CHECKS, ids=lambda check: check.__name__)
async def test_my_tool(check):
    await check(CASE)
```

The tool is called several times, each time with arguments of the case. A check that finds
something raises `AssertionError`, saying what.
"""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from vllm_agent_sdk import RunContext, Tool, ToolCall, ToolOutput, ToolSpec, UsageError
from vllm_agent_sdk._core.schema.check import Validator
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.messages import MediaBlock, TextBlock

__all__ = ["CHECKS", "Case", "Check"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: Seconds within which a call that is cancelled, or refused, has to end.
_SOON_S = 5.0


@dataclass(frozen=True)
class Case:
    """A tool, and how it is called.

    Attributes:
        tool: The tool.
        arguments: Arguments with which it works.
        invalid: Arguments that break its schema. Unset: those above without what is required, or
            of another type.
        failing: Arguments of its schema with which its own code fails, if there are any.
        deps: What it gets as `ctx.deps`.
    """

    tool: Tool[Any]
    arguments: Mapping[str, Any]
    invalid: Sequence[Mapping[str, Any]] | None = None
    failing: Mapping[str, Any] | None = None
    deps: Any = None


Check: TypeAlias = Callable[[Case], Awaitable[None]]


async def _called(case: Case, arguments: Mapping[str, Any]) -> ToolOutput:
    given = copy.deepcopy(dict(arguments))
    text = _codec.encode(given).decode()
    call = ToolCall("call_1", case.tool.spec.name, given, text)
    ctx: RunContext[Any] = RunContext(deps=case.deps, call=call)
    try:
        output: object = await case.tool.invoke(given, ctx)
    except Exception as error:
        raise AssertionError(
            f"invoke({text}) raised {type(error).__name__}: {error}. What goes wrong is an output "
            "too: ToolOutput(…, is_error=True)."
        ) from error
    assert isinstance(output, ToolOutput), (
        f"invoke({text}) gave a {type(output).__name__}, not a ToolOutput."
    )
    _check_content(output)
    assert given == arguments, f"invoke() changed its arguments: {given!r} were {arguments!r}."
    return output


def _check_content(output: ToolOutput) -> None:
    content: object = output.content
    if isinstance(content, str):
        content.encode()  # a lone surrogate cannot be sent
        return
    assert isinstance(content, list), f"content is text or a list of blocks, not {content!r:.100}."
    for block in content:
        assert isinstance(block, (TextBlock, MediaBlock)), (
            f"A result holds text and media, not a {type(block).__name__}."
        )


async def its_specification_is_whole_and_stays(case: Case) -> None:
    """Name, JSON Schema of an object, and the same at each look."""
    spec: object = case.tool.spec
    assert isinstance(spec, ToolSpec), f"spec is a {type(spec).__name__}, not a ToolSpec."
    assert _NAME.fullmatch(spec.name), f"{spec.name!r}: a name is 1 to 64 of A-Z a-z 0-9 _ -."
    assert case.tool.spec == spec, "spec is another one at the second look: make it once."
    parameters = spec.parameters
    assert parameters.get("type") == "object", (
        f"parameters is the JSON Schema of an object, not of {parameters.get('type')!r}."
    )
    try:
        Validator(parameters).check()
        _codec.encode_checked(parameters)
    except UsageError as error:
        raise AssertionError(f"parameters is no JSON Schema that works: {error}") from error


async def the_case_fits_its_schema(case: Case) -> None:
    """The arguments are valid, and those that are to be invalid are not."""
    validator = Validator(case.tool.spec.parameters)
    for arguments in (case.arguments, *(() if case.failing is None else (case.failing,))):
        wrong = validator.errors(dict(arguments))
        assert not wrong, f"{arguments!r} are no valid arguments: {'; '.join(wrong)}"
    for arguments in _invalid(case):
        assert not validator.is_valid(dict(arguments)), f"{arguments!r} are valid arguments."


async def a_call_gives_an_output(case: Case) -> None:
    """With valid arguments it runs, and tells the model something of use."""
    output = await _called(case, case.arguments)
    assert output.executed, "A call with valid arguments is executed."
    assert not output.is_error, f"A call with valid arguments failed: {output.content!r:.300}"


async def invalid_arguments_are_answered_and_never_executed(case: Case) -> None:
    """The model is told what is wrong, so that it can call again."""
    for arguments in _invalid(case):
        async with asyncio.timeout(_SOON_S):
            output = await _called(case, arguments)
        what = f"A call with {arguments!r}"
        assert not output.executed, f"{what} is not executed: executed=False."
        assert output.is_error, f"{what} is an error: is_error=True."
        assert output.content, f"{what} is told what is wrong with them."


async def a_failure_is_an_output(case: Case) -> None:
    """An exception of the tool's own code is for the model to read, not for the run to end by."""
    if case.failing is not None:
        output = await _called(case, case.failing)
        assert output.is_error, "A failure is an error: is_error=True."
        assert output.content, "A failure says what went wrong."


async def two_calls_run_beside_each_other(case: Case) -> None:
    """Read-only tools are called at the same time, unless their specification says `serial`."""
    spec = case.tool.spec
    if spec.read_only and not spec.serial:
        outputs = await asyncio.gather(*(_called(case, case.arguments) for _ in range(2)))
        assert not any(output.is_error for output in outputs), "One of two calls at a time failed."


async def a_cancelled_call_ends(case: Case) -> None:
    """An interrupt or a timeout cancels: the call ends soon, whatever its code does."""
    task = asyncio.create_task(_called(case, case.arguments))
    await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=_SOON_S)
    assert done, f"A call that was cancelled has not ended after {_SOON_S} s."
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


def _invalid(case: Case) -> Sequence[Mapping[str, Any]]:
    if case.invalid is not None:
        return case.invalid
    parameters = case.tool.spec.parameters
    validator = Validator(parameters)
    tried: list[Mapping[str, Any]] = [
        {name: value for name, value in case.arguments.items() if name != required}
        for required in parameters.get("required", ())
    ]
    # A tool may repair what loses nothing ("3" for 3): this can be no number and no text.
    tried += [{**case.arguments, name: [[None]]} for name in parameters.get("properties", {})]
    return [arguments for arguments in tried if not validator.is_valid(dict(arguments))]


#: All checks.
CHECKS: tuple[Check, ...] = (
    its_specification_is_whole_and_stays,
    the_case_fits_its_schema,
    a_call_gives_an_output,
    invalid_arguments_are_answered_and_never_executed,
    a_failure_is_an_output,
    two_calls_run_beside_each_other,
    a_cancelled_call_ends,
)
