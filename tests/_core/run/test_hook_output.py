"""What a hook may answer: our classes, the Claude Agent SDK's dicts, and nothing without effect."""

from __future__ import annotations

import datetime as dt
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.run.hook_output import hook_outputs
from vllm_agent_sdk.errors import UnsupportedHookOutputError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.hooks import (
    HOOK_OUTPUTS,
    AddContext,
    Ask,
    Block,
    Continue,
    HookEventName,
    HookOutput,
    Rewrite,
    RewriteOutput,
    Stop,
)
from vllm_agent_sdk.types.permissions import Allow, Defer, Deny

pytestmark = pytest.mark.feature("H-02")

EVENTS: tuple[str, ...] = get_args(HookEventName)
OUTPUTS: dict[type[Any], HookOutput] = {
    Block: Block("no"),
    Rewrite: Rewrite({"prompt": "other"}),
    RewriteOutput: RewriteOutput([1, {"a": None}]),
    AddContext: AddContext("by the way"),
    Ask: Ask("sure?"),
    Stop: Stop("enough"),
    Continue: Continue("go on"),
    Allow: Allow(),
}


# ── our classes ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("event", EVENTS)
def test_an_output_is_taken_where_it_has_an_effect_and_refused_elsewhere(event: str) -> None:
    for kind, output in OUTPUTS.items():
        if kind in HOOK_OUTPUTS[event]:
            assert hook_outputs(output, event) == (output,)
            continue
        with pytest.raises(UnsupportedHookOutputError) as caught:
            hook_outputs(output, event, "audit")
        text = caught.value.message
        assert text.startswith(f"Hook audit at {event} returned {kind.__name__}, which has no effe")
        works = text.rpartition(f"At {event} a hook gives ")[2]
        assert works.startswith("None")
        assert all(allowed.__name__ in works for allowed in HOOK_OUTPUTS[event])
        assert (caught.value.__dict__["hook"], caught.value.__dict__["event"]) == ("audit", event)


@pytest.mark.parametrize("event", EVENTS)
def test_none_and_a_dict_that_says_to_go_on_are_no_output(event: str) -> None:
    assert hook_outputs(None, event) == ()
    assert hook_outputs({}, event) == ()
    assert hook_outputs({"continue": True, "suppressOutput": True, "reason": None}, event) == ()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no", "a value of type str, which has no effect there: return AddContext"),
        (False, "a value of type bool, which has no effect there: return None"),
        (Deny("no"), r"a value of type Deny, which has no effect there: return Block\(reason\)"),
        (Defer(), "a value of type Defer, which has no effect there: a hook cannot answer later"),
        ([Block("no")], "a value of type list"),
        (Block(3), r"Block.reason that is a value of type int: Block.reason is text"),  # type: ignore[arg-type]
        (Rewrite("x"), "another input that is a value of type str: give a dict"),  # type: ignore[arg-type]
        (Rewrite({"a": object()}), "another input that is no JSON"),
        (Rewrite({"a": float("nan")}), r"another input that is no JSON \(\$.a is NaN"),
        (AddContext("\ud800"), "AddContext.text that is no JSON"),
        (Allow(remember="write_file"), "Allow.remember=….: a hook is asked every time"),
    ],
)
def test_what_is_no_output_is_refused_with_what_to_do(value: object, said: str) -> None:
    with pytest.raises(UnsupportedHookOutputError, match=said):
        hook_outputs(value, "pre_tool_use")


@pytest.mark.parametrize("given_", [{}, {"text": "x"}, {"prompt": 3}, {"prompt": "x", "y": 1}])
def test_the_input_of_a_prompt_is_its_text(given_: dict[str, Any]) -> None:
    with pytest.raises(
        UnsupportedHookOutputError,
        match=r'the input of a prompt is \{"prompt"',
    ):
        hook_outputs(Rewrite(given_), "user_prompt_submit")
    assert hook_outputs(Rewrite(given_), "pre_tool_use") == (Rewrite(given_),)


def test_what_an_output_holds_is_json_and_no_longer_the_hooks() -> None:
    given_ = {"when": dt.date(2026, 1, 2), "items": (1, 2)}
    (output,) = hook_outputs(Rewrite(given_), "pre_tool_use")
    given_["items"] = "changed"
    assert output == Rewrite({"when": "2026-01-02", "items": [1, 2]})


# ── the Claude Agent SDK's dicts ─────────────────────────────────────────────────────────────────


def specific(event: str, **fields: Any) -> dict[str, Any]:
    return {"hookSpecificOutput": {"hookEventName": event, **fields}}


@pytest.mark.parametrize(
    ("event", "value", "expected"),
    [
        ("pre_tool_use", {"decision": "block", "reason": "no"}, (Block("no"),)),
        ("pre_tool_use", {"decision": "block"}, (Block("Hook audit forbids it."),)),
        ("pre_tool_use", {"decision": "approve", "reason": "fine"}, (Allow(),)),
        ("stop", {"decision": "block", "reason": "test first"}, (Block("test first"),)),
        ("stop", {"continue": False, "stopReason": "done"}, (Stop("done"),)),
        ("stop", {"continue_": False}, (Stop("Hook audit ended the run."),)),
        ("post_tool_use", {"systemMessage": "look"}, (AddContext("look"),)),
        (
            "pre_tool_use",
            specific("PreToolUse", permissionDecision="deny", permissionDecisionReason="no"),
            (Block("no"),),
        ),
        (
            "pre_tool_use",
            specific("PreToolUse", permissionDecision="allow", permissionDecisionReason="ok"),
            (Allow(),),
        ),
        (
            "pre_tool_use",
            specific("PreToolUse", permissionDecision="allow", updatedInput={"a": 1}),
            (Allow({"a": 1}),),
        ),
        (
            "pre_tool_use",
            specific("PreToolUse", permissionDecision="ask", updatedInput={"a": 1}),
            (Rewrite({"a": 1}), Ask("Hook audit wants it asked for.")),
        ),
        (
            "pre_tool_use",
            specific("PreToolUse", updatedInput={"a": 1}, additionalContext="note"),
            (Rewrite({"a": 1}), AddContext("note")),
        ),
        (
            "post_tool_use",
            specific("PostToolUse", updatedToolOutput={"a": 1}, additionalContext="note"),
            (RewriteOutput({"a": 1}), AddContext("note")),
        ),
        (
            "post_tool_use_failure",
            specific("PostToolUseFailure", updatedMCPToolOutput="x"),
            (RewriteOutput("x"),),
        ),
        ("session_start", specific("SessionStart", additionalContext="hi"), (AddContext("hi"),)),
        (
            "user_prompt_submit",
            {
                "systemMessage": "look",
                "hookSpecificOutput": {"updatedInput": {"prompt": "other"}},
            },
            (Rewrite({"prompt": "other"}), AddContext("look")),
        ),
        (
            "permission_request",
            specific("PermissionRequest", decision={"behavior": "allow"}),
            (Allow(),),
        ),
        (
            "permission_request",
            specific("PermissionRequest", decision={"behavior": "allow", "updatedInput": {"a": 1}}),
            (Allow({"a": 1}),),
        ),
        (
            "permission_request",
            specific(
                "PermissionRequest",
                decision={"behavior": "deny", "message": "no", "interrupt": True},
            ),
            (Block("no"), Stop("no")),
        ),
        (
            "pre_tool_use",
            {
                "continue": False,
                "stopReason": "over",
                "decision": "block",
                "reason": "no",
                "systemMessage": "look",
                **specific("PreToolUse", updatedInput={"a": 1}, additionalContext="note"),
            },
            (
                Rewrite({"a": 1}),
                AddContext("look"),
                AddContext("note"),
                Block("no"),
                Stop("over"),
            ),
        ),
        (
            "pre_tool_use",
            {"decision": "approve", **specific("PreToolUse", permissionDecision="deny")},
            (Allow(), Block("Hook audit forbids it.")),
        ),
        (
            "pre_tool_use",
            {
                "hook_specific_output": {
                    "hook_event_name": "pre_tool_use",
                    "permission_decision": "ask",
                    "permission_decision_reason": "sure?",
                    "updated_input": {"a": 1},
                    "additional_context": "note",
                },
                "system_message": "look",
                "suppress_output": False,
            },
            (Rewrite({"a": 1}), AddContext("look"), AddContext("note"), Ask("sure?")),
        ),
    ],
)
def test_a_dict_becomes_all_the_outputs_it_says_a_no_after_a_yes_and_the_end_last(
    event: str, value: dict[str, Any], expected: tuple[HookOutput, ...]
) -> None:
    assert hook_outputs(value, event, "audit") == expected


@pytest.mark.parametrize(
    ("event", "value", "said"),
    [
        ("stop", {"block": True}, "the unknown key block: known are continue, stopReason"),
        ("stop", {3: True}, "the unknown key 3"),
        ("stop", {"async": True}, r"an asynchronous output \('async'\)"),
        ("stop", {"async_": True, "asyncTimeout": 5}, r"an asynchronous output \('async_'\)"),
        ("stop", {"decision": "deny"}, "decision='deny': decision is one of block, approve"),
        ("stop", {"decision": "approve"}, r"decision \(that is Allow\), which has no effect"),
        ("stop", {"reason": "x"}, "reason without a decision"),
        ("stop", {"stopReason": "x"}, "stopReason without continue=False"),
        ("stop", {"continue": "no"}, "continue that is a value of type str"),
        ("stop", {"suppressOutput": 1}, "suppressOutput that is a value of type int"),
        ("stop", {"systemMessage": 1}, "systemMessage that is a value of type int"),
        ("stop", {"stopReason": "a", "stop_reason": "b"}, "stopReason in two spellings"),
        ("stop", {"hookSpecificOutput": []}, "hookSpecificOutput that is a value of type list"),
        ("session_end", {"systemMessage": "x"}, r"systemMessage \(that is AddContext\), which"),
        ("notification", {"continue": False}, r"continue \(that is Stop\), which has no effect"),
        ("pre_tool_use", specific("Stop"), "an output for Stop"),
        (
            "pre_tool_use",
            specific("PreToolUse", permissionDecision="defer"),
            "permissionDecision='defer': permissionDecision is one of allow, deny, ask",
        ),
        (
            "pre_tool_use",
            specific("PreToolUse", permissionDecisionReason="x"),
            "permissionDecisionReason without permissionDecision",
        ),
        (
            "pre_tool_use",
            specific("PreToolUse", updatedInput=[1]),
            "another input that is a value of type list",
        ),
        (
            "pre_tool_use",
            specific("PreToolUse", updatedToolOutput="x"),
            r"updatedToolOutput \(that is RewriteOutput\), which has no effect there",
        ),
        (
            "post_tool_use",
            specific("PostToolUse", updatedToolOutput="x", updatedMCPToolOutput="y"),
            "updatedToolOutput and updatedMCPToolOutput",
        ),
        (
            "user_prompt_submit",
            specific("UserPromptSubmit", sessionTitle="x"),
            "the unknown key hookSpecificOutput.sessionTitle",
        ),
        (
            "permission_request",
            specific("PermissionRequest", decision={}),
            "a decision without behavior",
        ),
        (
            "permission_request",
            specific("PermissionRequest", decision={"behavior": "allow", "message": "x"}),
            "message or interrupt with a yes",
        ),
        (
            "permission_request",
            specific("PermissionRequest", decision={"behavior": "deny", "updatedInput": {}}),
            "updatedInput with a no",
        ),
        (
            "permission_request",
            specific("PermissionRequest", decision={"behavior": "allow", "updatedPermissions": []}),
            "the unknown key hookSpecificOutput.decision.updatedPermissions",
        ),
        (
            "pre_tool_use",
            specific("PreToolUse", decision={"behavior": "deny", "interrupt": "x"}),
            "interrupt that is a value of type str",
        ),
    ],
)
def test_what_has_no_effect_is_refused_by_its_key(
    event: str, value: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnsupportedHookOutputError, match=f"^Hook audit at {event} returned {said}"):
        hook_outputs(value, event, "audit")


TEXTS = st.text(max_size=5) | st.none()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
SPECIFIC = st.fixed_dictionaries(
    {},
    optional={
        "permissionDecision": st.sampled_from(["allow", "deny", "ask", "defer", None]),
        "permissionDecisionReason": TEXTS,
        "updatedInput": st.dictionaries(st.text(max_size=3), JSON, max_size=2) | JSON,
        "additionalContext": TEXTS,
        "updatedToolOutput": JSON,
        "decision": st.dictionaries(
            st.sampled_from(["behavior", "message", "interrupt"]), JSON, max_size=3
        ),
    },
)
DICTS = st.fixed_dictionaries(
    {},
    optional={
        "continue": st.booleans() | st.none(),
        "stopReason": TEXTS,
        "decision": st.sampled_from(["block", "approve", None]),
        "reason": TEXTS,
        "systemMessage": TEXTS,
        "hookSpecificOutput": SPECIFIC,
    },
)


@given(st.sampled_from(EVENTS), DICTS | JSON)
def test_any_answer_gives_outputs_with_an_effect_that_can_be_stored_or_the_typed_error(
    event: str, value: Any
) -> None:
    try:
        outputs = hook_outputs(value, event)
    except UnsupportedHookOutputError:
        return
    for output in outputs:
        assert type(output) in HOOK_OUTPUTS[event]
        assert _codec.decoder(type(output))(_codec.encode(output)) == output
    said = value or {}
    inner = said.get("hookSpecificOutput") or {}
    assert (said.get("continue") is False) <= any(isinstance(each, Stop) for each in outputs)
    assert (said.get("decision") == "block") <= any(isinstance(each, Block) for each in outputs)
    contexts = [each.text for each in outputs if isinstance(each, AddContext)]
    told = [said.get("systemMessage"), inner.get("additionalContext")]
    assert contexts == [text for text in told if text is not None]
    if inner.get("updatedInput") is not None:
        held = [each.input for each in outputs if isinstance(each, (Rewrite, Allow))]
        assert inner["updatedInput"] in held
