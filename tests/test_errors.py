"""The error tree: facts survive pickling, timeouts are builtin timeouts, names are our own."""

from __future__ import annotations

import builtins
import copy
import inspect
import pickle
from typing import Any

import pytest

from vllm_agent_sdk import errors
from vllm_agent_sdk.errors import VLLMError

CLASSES: list[type[VLLMError]] = [getattr(errors, name) for name in errors.__all__]
SAMPLES: dict[str, Any] = {
    "retryable": True,
    "attempts": 3,
    "request_id": "req-1",
    "partial": {"text": "half"},
    "control": "rewind",
    "reason": "no checkpoints",
    "retry_after": 1.5,
    "status": 418,
    "type": "BadRequestError",
    "code": 418,
    "param": "messages",
    "body": '{"error": {}}',
    "max": 4096,
    "got": 5000,
    "feature": "tools",
    "flags": ("--enable-auto-tool-choice",),
    "limit": 2,
    "known": ("a", "b"),
    "finish_reason": "length",
    "unenforced": ("not",),
    "tool": "get_weather",
    "arguments_json": "{",
    "stop_reason": "max_turns",
    "result": ["anything"],
    "log_path": "vllm.log",
    "holder": "another process",
}


def facts_of(cls: type[VLLMError]) -> dict[str, Any]:
    """A value for every keyword that the class and its parents take."""
    names: set[str] = set()
    for parent in cls.__mro__:
        if issubclass(parent, VLLMError) and "__init__" in vars(parent):
            names |= {
                name
                for name, parameter in inspect.signature(parent.__init__).parameters.items()
                if parameter.kind is parameter.KEYWORD_ONLY
            }
    return {name: SAMPLES[name] for name in sorted(names)}


def caught(error: VLLMError) -> VLLMError:
    """The error as raised from another library's exception."""
    try:
        raise error from ValueError("another library's")
    except VLLMError as raised:
        return raised


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_pickles_with_all_its_facts(cls: type[VLLMError]) -> None:
    facts = facts_of(cls)
    error = pickle.loads(pickle.dumps(cls("What happened.", **facts)))
    assert type(error) is cls
    assert str(error) == error.message == "What happened."
    assert {name: getattr(error, name) for name in facts} == facts


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_pickles_by_every_protocol_without_its_cause(
    cls: type[VLLMError], protocol: int
) -> None:
    raised = caught(cls("What happened."))
    error = pickle.loads(pickle.dumps(raised, protocol))
    assert isinstance(raised.__cause__, ValueError)
    assert error.__cause__ is None
    assert error.__traceback__ is None
    assert vars(error) == vars(raised)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_can_be_copied(cls: type[VLLMError]) -> None:
    error = cls("What happened.", **facts_of(cls))
    twin = copy.copy(error)
    assert type(twin) is cls
    assert vars(twin) == vars(error)
    assert twin.args == error.args


@pytest.mark.parametrize("cls", CLASSES)
def test_a_fact_that_is_added_later_is_kept(cls: type[VLLMError]) -> None:
    error = cls("What happened.").with_facts(partial="half", request_id="req-2")
    loaded = pickle.loads(pickle.dumps(error))
    assert (loaded.partial, loaded.request_id) == ("half", "req-2")


@pytest.mark.parametrize("cls", CLASSES)
def test_the_facts_common_to_all_errors_have_defaults(cls: type[VLLMError]) -> None:
    error = cls("What happened.")
    assert isinstance(error.retryable, bool)
    assert (error.attempts, error.request_id, error.partial) == (1, None, None)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_in_the_one_tree_and_named_as_an_error(cls: type[VLLMError]) -> None:
    assert issubclass(cls, VLLMError)
    assert cls.__name__.endswith("Error")
    assert not hasattr(builtins, cls.__name__)
    assert cls.__module__ == "vllm_agent_sdk.errors"
    assert cls.__doc__


def test_every_timeout_is_a_builtin_timeout_and_nothing_else_is() -> None:
    timeouts = {cls.__name__ for cls in CLASSES if issubclass(cls, TimeoutError)}
    assert timeouts == {
        "ConnectTimeoutError",
        "FirstTokenTimeoutError",
        "IdleTimeoutError",
        "TotalTimeoutError",
    }


def test_every_error_of_the_module_is_listed() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException)
    }
    assert defined == set(errors.__all__)
    assert list(errors.__all__) == sorted(errors.__all__)


def test_the_tree_that_is_drawn_is_the_tree_that_is_there() -> None:
    drawing = (errors.__doc__ or "").partition("```text")[2].partition("```")[0]
    missing = [name for name in errors.__all__ if name not in drawing]
    assert not missing


def test_only_what_may_succeed_later_says_it_is_retryable() -> None:
    retryable = {cls.__name__ for cls in CLASSES if cls.retryable}
    assert retryable == {
        "CircuitOpenError",
        "ConnectError",
        "ConnectTimeoutError",
        "RateLimitError",
        "ServerOverloadedError",
        "StreamTruncatedError",
        "TransportError",
    }
