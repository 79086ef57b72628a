"""The decision about a call: modes, rules, grants, annotations and folders."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.run.policy import Verdict, decide, denied
from vllm_agent_sdk.types.messages import ToolCall
from vllm_agent_sdk.types.permissions import PermissionMode, PermissionRule, PermissionRules
from vllm_agent_sdk.types.tools import ToolSpec

pytestmark = pytest.mark.feature("H-03")

MODES: tuple[PermissionMode, ...] = get_args(PermissionMode)
PARAMETERS = {"properties": {"path": {"type": "string"}}}
CALL = ToolCall("c1", "t", {"path": "/tmp/a"})

PLAIN = ToolSpec(name="t", parameters=PARAMETERS)
READING = ToolSpec(name="t", parameters=PARAMETERS, read_only=True)
DESTRUCTIVE = ToolSpec(name="t", parameters=PARAMETERS, destructive=True)
EDITING = ToolSpec(name="t", parameters=PARAMETERS, destructive=True, edits_files=("path",))
MCP = ToolSpec(name="t", parameters=PARAMETERS, kind="mcp")
MCP_READING = ToolSpec(name="t", parameters=PARAMETERS, kind="mcp", read_only=True)
MCP_CONTRADICTORY = ToolSpec(
    name="t", parameters=PARAMETERS, kind="mcp", read_only=True, destructive=True
)
SUBAGENT = ToolSpec(name="t", parameters=PARAMETERS, kind="agent")
SPECS = (PLAIN, READING, DESTRUCTIVE, EDITING, MCP, MCP_READING, MCP_CONTRADICTORY, SUBAGENT)


def rules(mode: str = "default", **texts: tuple[str, ...]) -> PermissionRules:
    read = {name: tuple(map(PermissionRule.of, given_)) for name, given_ in texts.items()}
    fields: dict[str, Any] = {"mode": mode, **read}
    return PermissionRules(**fields)


def answer(mode: str, spec: ToolSpec, **more: Any) -> str:
    return decide(rules(mode), (), spec, CALL, **more).answer


# ── modes and annotations ────────────────────────────────────────────────────────────────────────

#: By tool, what each mode of `MODES` says when no rule does.
TABLE: dict[str, tuple[ToolSpec, tuple[str, ...]]] = {
    "plain": (PLAIN, ("allow", "allow", "deny", "allow", "allow")),
    "reading": (READING, ("allow", "allow", "allow", "allow", "allow")),
    "destructive": (DESTRUCTIVE, ("ask", "ask", "deny", "deny", "allow")),
    "editing": (EDITING, ("ask", "allow", "deny", "deny", "allow")),
    "mcp": (MCP, ("ask", "ask", "deny", "deny", "allow")),
    "mcp reading": (MCP_READING, ("allow", "allow", "allow", "allow", "allow")),
    "mcp contradictory": (MCP_CONTRADICTORY, ("ask", "ask", "ask", "deny", "allow")),
    "subagent": (SUBAGENT, ("allow", "allow", "deny", "allow", "allow")),
}


@pytest.mark.parametrize("name", TABLE)
def test_without_rules_mode_and_annotations_decide(name: str) -> None:
    spec, expected = TABLE[name]
    assert dict(zip(MODES, expected, strict=True)) == {mode: answer(mode, spec) for mode in MODES}


@pytest.mark.feature("H-06")
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("default", "ask"),
        ("acceptEdits", "ask"),
        ("plan", "ask"),
        ("dontAsk", "deny"),
        ("bypassPermissions", "allow"),
    ],
)
def test_outside_the_folders_asks_even_for_what_only_reads(mode: str, expected: str) -> None:
    verdict = decide(rules(mode), (), READING, CALL, outside=("/etc/x",))
    assert verdict.answer == expected
    if expected != "allow":
        assert "t would touch /etc/x, outside the permitted folders." in verdict.reason


@pytest.mark.feature("H-06")
def test_a_rule_or_grant_that_allows_does_not_open_a_folder() -> None:
    allowed = rules(allow=("t",))
    grant = (PermissionRule.of("t"),)
    assert decide(allowed, grant, READING, CALL, outside=("/etc/x",)).answer == "ask"


@pytest.mark.parametrize("mode", MODES)
def test_a_hooks_ask_is_beaten_by_no_and_beats_yes(mode: str) -> None:
    asked = decide(rules(mode, allow=("t",)), (), READING, CALL, ask="Really?")
    expected = "deny" if mode == "dontAsk" else "ask"
    assert asked.answer == expected
    assert asked.reason.startswith("Really?")
    assert decide(rules(mode, deny=("t",)), (), READING, CALL, ask="Really?").answer == "deny"


# ── rules ────────────────────────────────────────────────────────────────────────────────────────


def test_deny_beats_ask_beats_allow() -> None:
    for spec, mode in itertools.product(SPECS, MODES):
        every = rules(mode, allow=("t",), ask=("t",), deny=("t",))
        assert decide(every, every.allow, spec, CALL).answer == "deny"
        both = rules(mode, allow=("t",), ask=("t",))
        plan = mode == "plan" and not spec.read_only
        expected = "deny" if plan or mode == "dontAsk" else "ask"
        assert decide(both, both.allow, spec, CALL).answer == expected


@pytest.mark.parametrize("mode", ["default", "acceptEdits", "dontAsk", "bypassPermissions"])
def test_a_rule_that_allows_spares_the_question(mode: str) -> None:
    for spec in SPECS:
        assert decide(rules(mode, allow=("t(/tmp/*)",)), (), spec, CALL).answer == "allow"


def test_a_rule_of_another_argument_spares_nothing() -> None:
    assert decide(rules(allow=("t(/home/*)",)), (), DESTRUCTIVE, CALL).answer == "ask"


def test_a_grant_counts_for_its_argument_pattern_and_no_other() -> None:
    grants = (PermissionRule.of("t(path=/tmp/*)"),)
    other = ToolCall("c2", "t", {"path": "/home/a"})
    assert decide(rules(), grants, EDITING, CALL) == Verdict("allow")
    assert decide(rules(), grants, EDITING, other).answer == "ask"


def test_a_grant_covers_a_list_only_as_a_whole_and_a_deny_finds_one_item() -> None:
    spec = ToolSpec(name="t", parameters=PARAMETERS, destructive=True, edits_files=("path",))
    call = ToolCall("c1", "t", {"path": ["/tmp/a", "/etc/b"]})
    assert decide(rules(), (PermissionRule.of("t(/tmp/*)"),), spec, call).answer == "ask"
    assert decide(rules(deny=("t(/etc/*)",)), (), spec, call).answer == "deny"


def test_a_rule_of_the_claude_sdks_name_is_about_the_python_tool() -> None:
    assert decide(rules(deny=("mcp__sdk__t",)), (), PLAIN, CALL).answer == "deny"
    assert decide(rules(allow=("mcp__sdk__*",)), (), MCP, CALL).answer == "ask"


def test_a_no_says_which_kind_of_no_it_is() -> None:
    assert decide(rules(deny=("t",)), (), PLAIN, CALL).reason == "A rule denies t."
    assert "mode 'plan'" in decide(rules("plan"), (), PLAIN, CALL).reason
    assert "Nothing is asked for" in decide(rules("dontAsk"), (), DESTRUCTIVE, CALL).reason


# ── properties ───────────────────────────────────────────────────────────────────────────────────

RULES = st.lists(
    st.sampled_from(
        ["t", "*", "other", "mcp__sdk__t", "t(/tmp/*)", "t(path=/tmp/a)", "t(/etc/*)", "t(q=*)"]
    ),
    max_size=3,
).map(tuple)
SPEC = st.builds(
    ToolSpec,
    name=st.just("t"),
    parameters=st.just(PARAMETERS),
    read_only=st.booleans(),
    destructive=st.booleans(),
    edits_files=st.sampled_from([(), ("path",)]),
    kind=st.sampled_from(["function", "mcp", "agent", "question"]),
)
CASES = st.fixed_dictionaries(
    {
        "rules": st.builds(rules, st.sampled_from(MODES), allow=RULES, deny=RULES, ask=RULES),
        "grants": RULES.map(lambda texts: tuple(map(PermissionRule.of, texts))),
        "spec": SPEC,
        "call": st.sampled_from(["/tmp/a", "/etc/a", "a\nb"]).map(
            lambda path: ToolCall("c", "t", {"path": path})
        ),
        "ask": st.none() | st.just("Why."),
        "outside": st.sampled_from([(), ("/x",)]),
    }
)


def matching(texts: tuple[PermissionRule, ...], case: dict[str, Any]) -> bool:
    return any(rule.matches(case["spec"], case["call"]) for rule in texts)


@given(CASES)
def test_what_a_rule_denies_never_runs_and_what_a_rule_asks_about_never_runs_unasked(
    case: dict[str, Any],
) -> None:
    verdict = decide(**case)
    if matching(case["rules"].deny, case):
        assert verdict.answer == "deny"
    elif matching(case["rules"].ask, case) or case["ask"] is not None:
        assert verdict.answer in {"deny", "ask"}


@given(CASES)
def test_planning_never_allows_what_is_not_read_only(case: dict[str, Any]) -> None:
    if case["rules"].mode == "plan" and not case["spec"].read_only:
        assert decide(**case).answer == "deny"


@given(CASES, RULES)
def test_one_more_rule_that_allows_undoes_no_no_and_no_rules_question(
    case: dict[str, Any], more: tuple[str, ...]
) -> None:
    before = decide(**case)
    own = case["rules"]
    wider = PermissionRules(
        mode=own.mode,
        allow=(*own.allow, *map(PermissionRule.of, more)),
        deny=own.deny,
        ask=own.ask,
    )
    after = decide(**{**case, "rules": wider})
    settled = denied(own, case["spec"], case["call"]) or matching(own.ask, case) or case["ask"]
    if settled or (case["outside"] and own.mode != "bypassPermissions"):
        assert after == before
    if before.answer == "allow":
        assert after.answer == "allow"


@given(CASES)
def test_nothing_is_asked_in_mode_dont_ask_and_a_grant_is_a_rule_that_allows(
    case: dict[str, Any],
) -> None:
    verdict = decide(**case)
    own = case["rules"]
    assert verdict.answer != "ask" or own.mode != "dontAsk"
    moved = PermissionRules(
        mode=own.mode, allow=(*own.allow, *case["grants"]), deny=own.deny, ask=own.ask
    )
    assert decide(**{**case, "rules": moved, "grants": ()}) == verdict


@given(CASES)
def test_an_unchangeable_no_is_a_no(case: dict[str, Any]) -> None:
    no = denied(case["rules"], case["spec"], case["call"])
    if no is not None:
        assert decide(**case) == no
