"""A Python function that the model can call."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

from vllm_agent_sdk._core.schema.check import is_loaded, load
from vllm_agent_sdk._core.schema.schema import MismatchError, Parameters, Validator
from vllm_agent_sdk.agent.tools.results import error_text, failure, output_of
from vllm_agent_sdk.types.tools import RunContext, ToolOutput, ToolSpec

__all__ = [
    "MOST_LEFT",
    "FunctionTool",
    "in_thread",
    "is_async",
    "left_threads",
    "running_loop",
]

_log = logging.getLogger("vllm_agent_sdk.tools")

Deps = TypeVar("Deps")
P = ParamSpec("P")
R = TypeVar("R")

#: How many threads of interrupted or late calls may go on before no sync tool is run any more.
MOST_LEFT = 64

# A thread cannot be cancelled, and threads are the process's: they are counted for all of it.
_left: set[threading.Thread] = set()


class FunctionTool(Generic[Deps, P, R]):
    """A Python function that the model can call; made by `@tool`.

    It stays callable as the function it was. `spec`, `name` and `description` say what the model
    sees, `is_async` whether it is awaited (else it runs in a thread of its own).
    """

    def __init__(
        self, fn: Callable[P, R], spec: ToolSpec, parameters: Parameters, contexts: tuple[str, ...]
    ) -> None:
        functools.update_wrapper(cast("Any", self), fn)
        self._fn = fn
        self._spec = spec
        self._parameters = parameters
        self._contexts = contexts
        self._validator = Validator(spec.parameters, f"The schema of tool {spec.name}")
        self.is_async = is_async(fn)

    @property
    def spec(self) -> ToolSpec:
        """What the model and the runtime know of it."""
        return self._spec

    @property
    def name(self) -> str:
        """Its name, as the model calls it."""
        return self._spec.name

    @property
    def description(self) -> str:
        """What the model reads about it."""
        return self._spec.description

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself: nothing is validated, repaired or converted."""
        return self._fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name}({', '.join(self.spec.parameters.get('properties', {}))})>"

    def renamed(self, name: str) -> FunctionTool[Deps, P, R]:
        """Give the same tool under another name."""
        return self.specified(self._spec.renamed(name))

    def specified(self, spec: ToolSpec) -> FunctionTool[Deps, P, R]:
        """Give the same tool with another specification; its parameters stay."""
        other = copy.copy(self)
        other._spec = spec
        return other

    def coerced(self, arguments: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Repair arguments where nothing is lost, as before a call is judged.

        Args:
            arguments: The parsed object; it is not changed.

        Returns:
            The arguments to use, and each repair as text; none with `coerce=False`.
        """
        if not self._spec.coerce:
            return arguments, ()
        return self._validator.coerce(arguments)

    async def invoke(self, arguments: dict[str, Any], ctx: RunContext[Any]) -> ToolOutput:
        """Repair and validate the arguments, and run the function.

        Args:
            arguments: The parsed object, as the model wrote it; it is not changed.
            ctx: Given to the parameter annotated `RunContext`, if there is one.

        Returns:
            What the model is told. Invalid arguments give `executed=False, is_error=True`; an
            exception of the function gives `is_error=True` and its type and message, a `ToolError`
            exactly its message.
        """
        if not is_loaded():
            await asyncio.to_thread(load)
        arguments, repairs = self.coerced(arguments)
        wrong = self._validator.errors(arguments)
        if wrong:
            return self._invalid(wrong)
        try:
            given = dict.fromkeys(self._contexts, ctx)
            args, kwargs = self._parameters.bind(arguments, given)
        except MismatchError as mismatch:
            return self._invalid([str(mismatch)])
        except Exception as error:  # noqa: BLE001  a class of the user's may raise anything
            return self._failed(error, executed=False)
        if not self.is_async and left_threads() >= MOST_LEFT:
            return failure(
                f"{self.name} was not run: {MOST_LEFT} calls that were interrupted or timed out "
                "are still running.",
                executed=False,
            )
        try:
            output = output_of(await self._run(args, kwargs), self.name)
        except Exception as error:  # noqa: BLE001  what a tool raises is for the model to read
            output = self._failed(error, executed=True)
        if repairs:
            output = ToolOutput(
                output.content, output.is_error, (*repairs, *output.repairs), output.executed
            )
        return output

    async def _run(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        call = functools.partial(cast("Callable[..., Any]", self._fn), *args, **kwargs)
        result = call() if self.is_async else await in_thread(call, f"tool-{self.name}", _left.add)
        while inspect.isawaitable(result):
            result = await result
        return result

    def _invalid(self, wrong: list[str]) -> ToolOutput:
        return failure(
            f"Invalid arguments for {self.name}: {'; '.join(wrong)}. "
            "Call it again with corrected arguments.",
            executed=False,
        )

    def _failed(self, error: Exception, *, executed: bool) -> ToolOutput:
        _log.debug("Tool %s raised %s", self.name, type(error).__name__, exc_info=error)
        return failure(error_text(error), executed=executed)


def left_threads() -> int:
    """Give how many threads of sync tools go on whose calls were interrupted or timed out."""
    for thread in list(_left):
        if not thread.is_alive():
            _left.discard(thread)
    return len(_left)


async def in_thread(
    call: Callable[[], Any], name: str, left: Callable[[threading.Thread], object] | None = None
) -> Any:
    """Run a blocking call in a thread of its own, with the caller's context variables.

    Not in asyncio's executor, which tools that hang would exhaust for everyone else, and as a
    daemon, so that such a thread does not keep the program from ending. Where no event loop runs
    (a scripted run) nobody is held up, and it is called as it is.

    Args:
        call: What is run.
        name: The thread's name.
        left: Told of the thread if it goes on after its caller was cancelled.

    Raises:
        RuntimeError: It raised what is no `Exception` (`SystemExit`, `KeyboardInterrupt`): in a
            thread of ours that ends no program.
    """
    loop = running_loop()
    if loop is None:
        return call()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.done():  # the waiter was cancelled; nobody asks any more
            return
        if error is not None and (
            not isinstance(error, Exception) or isinstance(error, StopIteration)
        ):
            # The one would end the loop, the other is refused by a future.
            error = RuntimeError(f"it raised {_shown(error)}")
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = context.run(call)
        except BaseException as raised:  # noqa: BLE001  it is raised again where it is awaited
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:  # the loop was closed meanwhile
            _log.debug("%s ended after its event loop was closed", name)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        return await done
    except asyncio.CancelledError:
        if left is not None:
            left(thread)
        raise


def _shown(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:  # noqa: BLE001  a broken __repr__ must not leave who waits waiting
        return type(error).__name__


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Give the event loop that runs here; a scripted run has none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def is_async(fn: Any) -> bool:
    """True for a coroutine function, or an object whose call is one."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004  the method itself is meant
    )
