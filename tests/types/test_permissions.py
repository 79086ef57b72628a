"""Permission rules as text, what they match, and what is refused as a permission."""

from __future__ import annotations

import glob
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.messages import ToolCall
from vllm_agent_sdk.types.permissions import PermissionRule, PermissionRules, Permissions
from vllm_agent_sdk.types.tools import ToolSpec

pytestmark = pytest.mark.feature("H-03")

TEXT = ToolSpec(
    name="note", parameters={"properties": {"text": {"type": "string"}, "tag": {"default": "x"}}}
)
FILES = ToolSpec(
    name="edit",
    parameters={"properties": {"path": {"type": "string"}, "others": {"type": "array"}}},
    edits_files=("path",),
    reads_files=("others",),
)


def matches(rule: str, arguments: dict[str, Any], spec: ToolSpec = TEXT, **how: bool) -> bool:
    call = ToolCall("c1", spec.name, arguments)
    return PermissionRule.of(rule).matches(spec, call, **how)


# ── text ─────────────────────────────────────────────────────────────────────────────────────────

NAMES = st.text("abcXYZ019_*?.-", min_size=1, max_size=12)
ARGUMENTS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}", fullmatch=True)
PATTERNS = st.text(max_size=20)


@given(NAMES, ARGUMENTS | st.none(), PATTERNS | st.none())
@example("x", None, "a)b(c")
@example("x", "a", "b=c\n)")
def test_a_rule_is_the_same_after_it_was_written_and_read(
    name: str, argument: str | None, pattern: str | None
) -> None:
    inside = pattern if argument is None else f"{argument}={pattern or ''}"
    assume(inside != "")
    text = name if inside is None else f"{name}({inside})"
    rule = PermissionRule.of(text)
    assert str(rule) == text
    assert PermissionRule.of(str(rule)) == rule
    if argument is not None:
        assert (rule.argument, rule.pattern) == (argument, pattern or "")


@pytest.mark.parametrize("text", ["", " ", "a b", "name(", "name()", "(x)", "näme", "a,b", None, 3])
def test_what_is_no_rule_is_refused_with_the_forms_there_are(text: Any) -> None:
    with pytest.raises(UsageError, match=r"no permission rule: write 'tool', 'tool\(pattern\)'"):
        PermissionRule.of(text)


# ── what a rule is about ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rule", "name", "is_about"),
    [
        ("note", "note", True),
        ("note", "Note", False),
        ("no*", "note", True),
        ("n?te", "note", True),
        ("n[op]te", "note", True),
        ("not", "note", False),
        ("*", "mcp__s__x", True),
        ("mcp__sdk__note", "note", True),
        ("mcp__sdk__*", "note", True),
        ("mcp__sdk__other", "note", False),
        ("mcp__*", "note", False),
        ("mcp__*", "mcp__s__x", True),
    ],
)
def test_a_rule_names_tools_by_shell_patterns_and_python_tools_as_the_claude_sdk_does(
    rule: str, name: str, is_about: bool
) -> None:
    kind: Any = "mcp" if name.startswith("mcp__") else "function"
    spec = ToolSpec(name=name, kind=kind)
    assert PermissionRule.of(rule).matches(spec, ToolCall("c", name, {})) is is_about


def test_a_rule_about_python_tools_is_not_about_those_of_mcp_servers() -> None:
    spec = ToolSpec(name="mcp__web__fetch", kind="mcp")
    call = ToolCall("c", spec.name, {})
    assert not PermissionRule.of("mcp__sdk__*").matches(spec, call)


@pytest.mark.parametrize(
    ("rule", "arguments", "is_about"),
    [
        ("note(hello*)", {"text": "hello world"}, True),
        ("note(hello*)", {"text": "say hello"}, False),
        ("note(hello)", {"text": "Hello"}, False),
        ("note(rm *)", {"text": "rm -r\n/"}, True),
        ("note(*secret*)", {"text": "a\nsecret\nb"}, True),
        ("note(hello)", {"text": "hello\n"}, False),
        ("note(tag=a)", {"text": "b", "tag": "a"}, True),
        ("note(tag=x)", {"text": "b"}, True),
        ("note(tag=x)", {"text": "b", "tag": "y"}, False),
        ("note(text=*)", {}, False),
        ("note(n=3)", {"n": 3}, True),
        ("note(n=true)", {"n": True}, True),
        ('note(n={"a":1,"b":2})', {"n": {"b": 2, "a": 1}}, True),
        ("note(FOO=1 make*)", {"text": "FOO=1 make all"}, True),
        ("note(FOO=1 make*)", {"text": "make all"}, False),
    ],
)
def test_a_pattern_is_about_one_argument(
    rule: str, arguments: dict[str, Any], is_about: bool
) -> None:
    assert matches(rule, arguments) is is_about


@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
@example("*", "anything")
@example("[a]", "a")
@example("a\nb", "a\nb")
def test_an_escaped_value_is_about_itself_alone(value: str, other: str) -> None:
    rule = f"note(text={glob.escape(value)})"
    assert matches(rule, {"text": value})
    assert matches(rule, {"text": other}) is (value == other)


@given(st.text(min_size=1, max_size=20))
def test_glob_characters_in_a_value_mean_nothing(value: str) -> None:
    assert matches("note(text=abc)", {"text": value}) is (value == "abc")


# ── paths ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rule", "path", "is_about"),
    [
        ("edit(/tmp/*)", "/tmp/a", True),
        ("edit(/tmp/*)", "/tmp/../etc/passwd", False),
        ("edit(/etc/*)", "/tmp/../etc/passwd", True),
        ("edit(/etc/*)", "//etc//./passwd", True),
        ("edit(src/*)", "./src/a.py", True),
        ("edit(./src/*)", "src/a.py", True),
        ("edit(src/*)", "src/../../etc/passwd", False),
        ("edit(/tmp/)", "/tmp", True),
        ("edit(../*)", "../a", True),
    ],
)
def test_a_declared_path_is_compared_in_its_plain_form(
    rule: str, path: str, is_about: bool
) -> None:
    assert matches(rule, {"path": path}, FILES) is is_about


def test_an_argument_that_is_no_path_stays_as_it_is() -> None:
    assert matches("note(/tmp/*)", {"text": "/tmp/../etc"})


def test_what_forbids_finds_one_item_of_a_list_and_what_allows_must_cover_all() -> None:
    mixed = {"path": "a", "others": ["/tmp/a", "/etc/b"]}
    assert matches("edit(others=/etc/*)", mixed, FILES)
    assert not matches("edit(others=/tmp/*)", mixed, FILES, whole=True)
    assert matches("edit(others=/tmp/*)", {"others": ["/tmp/a", "/tmp/b"]}, FILES, whole=True)
    assert not matches("edit(others=*)", {"others": []}, FILES, whole=True)


# ── permissions ──────────────────────────────────────────────────────────────────────────────────


def test_permissions_give_their_rules_as_data() -> None:
    given_ = Permissions(
        mode="plan",
        allow=("a",),
        deny=("b(x*)",),
        ask=("c(d=e)",),
        directories=("src", PurePosixPath("/tmp")),
        unanswered="suspend",
    )
    assert given_.rules() == PermissionRules(
        mode="plan",
        allow=(PermissionRule(tool="a"),),
        deny=(PermissionRule(tool="b", pattern="x*"),),
        ask=(PermissionRule(tool="c", argument="d", pattern="e"),),
        directories=("src", "/tmp"),
        unanswered="suspend",
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mode": "yolo"}, "no permission mode; the modes are default, acceptEdits, plan"),
        ({"unanswered": "allow"}, "'deny' or 'suspend'"),
        ({"allow": "note"}, r"takes a tuple of rules: \('note',\)"),
        ({"deny": ("note()",)}, "no permission rule"),
        ({"ask": (None,)}, "no permission rule"),
        ({"can_use_tool": "yes"}, "takes a function"),
        ({"directories": "/tmp"}, r"takes a tuple of folders: \('/tmp',\)"),
        ({"directories": ("",)}, "is no folder; '.' is this one"),
        ({"directories": ("a\0b",)}, "is no folder"),
        ({"directories": (b"/tmp",)}, "is no folder"),
        ({"directories": (None,)}, "is no folder"),
    ],
)
def test_what_is_no_permission_is_refused_before_anything_runs(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Permissions(**fields)
