"""Hooks as values: whom a matcher is for, and what is refused as a hook."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.hooks import (
    HOOK_OUTPUTS,
    HookEvent,
    HookEventName,
    Hooks,
    HookSpec,
    Matcher,
)

pytestmark = pytest.mark.feature("H-01")


def quiet(event: HookEvent) -> None:
    assert event.event


@pytest.mark.parametrize(
    ("pattern", "subject", "is_for"),
    [
        ("*", "anything", True),
        ("*", "", True),
        ("write_file", "write_file", True),
        ("write_file", "write_files", False),
        ("mcp__*", "mcp__web__fetch", True),
        ("mcp__*", "fetch", False),
        ("read|write", "write", True),
        ("read|write", "readwrite", False),
        ("re?d", "read", True),
        ("READ", "read", False),
        (re.compile("read|write"), "write", True),
        (re.compile("read"), "read_file", False),
        (re.compile("READ", re.IGNORECASE), "read", True),
        (re.compile("(?i)READ"), "read", True),
    ],
)
def test_a_hook_is_for_what_its_pattern_matches(pattern: Any, subject: str, is_for: bool) -> None:
    spec = Matcher(pattern, quiet).spec("pre_tool_use")
    assert spec.matches(subject) is is_for
    stored = _codec.decoder(HookSpec)(_codec.encode(spec))
    assert stored == spec
    assert stored.matches(subject) is is_for


def test_a_spec_says_what_is_data_of_a_matcher() -> None:
    assert Matcher("a*", quiet).spec("stop") == HookSpec(
        event="stop", name="quiet", pattern="a*", timeout=5, on_failure="block"
    )
    assert Matcher("*", quiet, timeout=None, on_failure="continue").spec("stop").timeout is None


def test_hooks_are_listed_by_event_and_then_in_their_order() -> None:
    first, second, third = (Matcher("*", quiet) for _ in range(3))
    hooks = Hooks(stop=(third,), pre_tool_use=(first, second))
    assert [matcher for _, matcher in hooks.matchers()] == [first, second, third]
    assert [spec.event for spec, _ in hooks.matchers()] == ["pre_tool_use", "pre_tool_use", "stop"]


def test_every_event_has_a_field_and_says_which_outputs_have_an_effect() -> None:
    events = get_args(HookEventName)
    assert len(events) == 12
    assert set(HOOK_OUTPUTS) == set(events) == set(Hooks.__struct_fields__)


class Callback:
    def __call__(self, event: HookEvent) -> None:
        quiet(event)


@pytest.mark.parametrize("fn", [quiet, Callback(), Callback().__call__, lambda event: None, repr])
def test_whatever_takes_one_event_is_a_hook(fn: Any) -> None:
    assert Matcher("*", fn).fn is fn


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((None, quiet), "the pattern is text"),
        (("", quiet), "the pattern is text"),
        ((re.compile(b"x"), quiet), "the pattern is text"),
        (("*", None), "fn is a function of one HookEvent"),
        (("*", lambda: None), "fn is a function of one HookEvent"),
        (("*", lambda given, call_id, context: None), "fn is a function of one HookEvent"),
        (("*", quiet, 0), "give a number above 0, or None"),
        (("*", quiet, "5"), "give a number above 0, or None"),
        (("*", quiet, float("nan")), "give a number above 0, or None"),
        (("*", quiet, True), "give a number above 0, or None"),
        (("*", quiet, 5, "ignore"), "'block' or 'continue'"),
    ],
)
def test_what_is_no_matcher_is_refused(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Matcher(*arguments)


@pytest.mark.parametrize("given", [Matcher("*", quiet), [Matcher("*", quiet)], (quiet,)])
def test_an_event_takes_a_tuple_of_matchers(given: Any) -> None:
    with pytest.raises(UsageError, match=r"Hooks\(stop=…\) takes a tuple of Matcher"):
        Hooks(stop=given)


@pytest.mark.parametrize(
    "event", ["user_prompt_submit", "stop", "pre_compact", "session_start", "session_end"]
)
def test_a_pattern_where_there_is_no_name_to_match_is_refused(event: str) -> None:
    with pytest.raises(UsageError, match=rf"Hooks\({event}=…\): 'write_\*' would never match"):
        Hooks(**{event: (Matcher("write_*", quiet),)})
    assert getattr(Hooks(**{event: (Matcher(re.compile(".*"), quiet),)}), event)
