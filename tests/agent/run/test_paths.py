"""Which paths of a call lie outside the permitted folders; on real trees, links included."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk.agent.run.paths import outside
from vllm_agent_sdk.types.tools import ToolSpec

pytestmark = pytest.mark.feature("H-06")

SPEC = ToolSpec(name="t", reads_files=("path",), edits_files=("target", "path"))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`in/` (permitted, also the working directory) and `out/`, with links between them."""
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "out/deep").mkdir(parents=True)
    (tmp_path / "inside").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "in/file").write_text("x")
    (tmp_path / "out/file").write_text("x")
    (tmp_path / "in/leaving").symlink_to("../out/deep")
    (tmp_path / "in/dangling").symlink_to(tmp_path / "out/not-there")
    (tmp_path / "in/staying").symlink_to("sub")
    (tmp_path / "out/entering").symlink_to("../in")
    (tmp_path / "in/loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path / "in")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def is_outside(tree: Path, path: Any) -> bool:
    return bool(outside(SPEC, {"path": path}, [str(tree / "in")]))


@pytest.mark.parametrize(
    "path",
    [
        "file",
        "./file",
        "sub/../file",
        "sub/",
        "sub//",
        "",
        ".",
        "not/there/yet",
        "staying/new",
        "{tree}/in",
        "{tree}/in/",
        "{tree}/in/file",
        "{tree}/out/../in/file",
        "{tree}//in//file",
        "a\nb",
        "[a]",
        '["file", ["sub/x"]]',
        "a~",
        "file\\..\\..",
    ],
)
def test_what_lies_within_is_no_question(tree: Path, path: str) -> None:
    assert not is_outside(tree, path.replace("{tree}", str(tree)))


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../out/file",
        "sub/../../out",
        "{tree}",
        "{tree}/out",
        "{tree}/inside",
        "{tree}/in/../inside",
        "/",
        "/etc/passwd",
        "leaving",
        "leaving/",
        "leaving/new/file",
        "leaving/../file",
        "dangling",
        "dangling/x",
        "not/there/../../../out",
        "{tree}/IN/file",
        "~",
        "~/x",
        "~root/x",
        "file\0",
        "\0",
        "\ud800",
        '["file", "../out/file"]',
        ' ["/etc/passwd"]',
        "[[3]]",
    ],
)
def test_what_lies_elsewhere_or_cannot_be_told_is_outside(tree: Path, path: str) -> None:
    assert is_outside(tree, path.replace("{tree}", str(tree)))


def test_a_way_in_through_a_link_is_inside_only_by_the_links(tree: Path) -> None:
    assert not is_outside(tree, str(tree / "out/entering/file"))
    assert is_outside(tree, f"{tree}/out/entering/../out/file")
    # The links lead back in; a tool that takes `..` by the text alone would go elsewhere.
    assert (tree / "out/entering/../in/file").resolve() == tree / "in/file"
    assert is_outside(tree, f"{tree}/out/entering/../in/file")


@pytest.mark.parametrize("value", [3, True, 1.5, {"path": "file"}, [3], ["file", {"a": 1}]])
def test_what_is_no_text_is_outside(tree: Path, value: Any) -> None:
    assert is_outside(tree, value)


@pytest.mark.parametrize("value", [None, [], [None], ["file", "sub/x"], [["file"]]])
def test_what_names_no_path_or_only_paths_within_is_not(tree: Path, value: Any) -> None:
    assert not is_outside(tree, value)


def test_the_paths_are_given_as_they_stand_each_once_in_their_order(tree: Path) -> None:
    arguments = {
        "target": "../b",
        "path": ["/etc/a", "file", "/etc/a", 3, "../b", "x\0y", "\ud800"],
        "other": "/etc/z",
    }
    found = outside(SPEC, arguments, [str(tree / "in")])
    assert found == ("/etc/a", "3", "../b", "x\0y", "\\ud800")


def test_without_folders_there_is_no_limit(tree: Path) -> None:
    assert outside(SPEC, {"path": ["/etc/passwd", "\0", 3]}, ()) == ()


def test_without_declared_arguments_nothing_is_a_path(tree: Path) -> None:
    assert outside(ToolSpec(name="t"), {"path": "/etc/passwd"}, [str(tree / "in")]) == ()


def test_any_of_the_folders_is_enough_and_each_may_be_relative_linked_or_at_home(
    tree: Path,
) -> None:
    (tree / "alias").symlink_to("out")
    for folders in (["../out"], [str(tree / "alias")], ["sub", "../out/"]):
        assert outside(SPEC, {"path": str(tree / "out/file")}, folders) == ()
        assert outside(SPEC, {"path": "file"}, folders) == ("file",)
    assert outside(SPEC, {"path": str(tree / "home/x")}, ["~"]) == ()
    assert outside(SPEC, {"path": "/anything"}, ["/"]) == ()


def test_a_path_with_a_tilde_must_be_inside_at_home_and_here(tree: Path) -> None:
    assert outside(SPEC, {"path": "~/x"}, ["~"]) == ("~/x",)
    assert outside(SPEC, {"path": "~/x"}, ["~", "."]) == ()


def test_nested_arguments_are_named_with_a_dot(tree: Path) -> None:
    spec = ToolSpec(name="t", edits_files=("edits.path", "a.b.c", "plain.name"))
    arguments = {
        "edits": [{"path": "file"}, {"path": "../out/x"}, {}, 3],
        "a": {"b": [{"c": ["/etc/y"]}]},
        "plain.name": "/etc/z",
    }
    found = outside(spec, arguments, [str(tree / "in")])
    assert found == ("../out/x", "3", "/etc/y", "/etc/z")
    assert outside(spec, {"edits": None}, [str(tree / "in")]) == ()


def test_an_argument_that_was_left_out_counts_with_its_default(tree: Path) -> None:
    schema = {"properties": {"path": {"default": "/etc/x"}, "target": True}}
    spec = ToolSpec(name="t", parameters=schema, reads_files=("path", "target"))
    assert outside(spec, {}, [str(tree / "in")]) == ("/etc/x",)
    assert outside(spec, {"path": "file"}, [str(tree / "in")]) == ()


# ── properties ───────────────────────────────────────────────────────────────────────────────────

PARTS = st.lists(
    st.sampled_from(["a", "b", "gone", ".", "..", "to_a", "to_out", "to_up", ""]), max_size=7
)


@pytest.fixture(scope="module")
def maze() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for name in ("in/a/b", "in/b", "out/a", "out/b"):
            (root / name).mkdir(parents=True)
        for place in ("in", "in/a", "in/b", "out", "out/a"):
            (root / place / "to_a").symlink_to(root / "in/a")
            (root / place / "to_out").symlink_to(root / "out")
            (root / place / "to_up").symlink_to("..")
        yield root


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="asks Linux where it is")
@given(parts=PARTS)
def test_a_file_that_can_be_opened_outside_is_never_called_inside(
    maze: Path, parts: list[str]
) -> None:
    path = os.path.join(maze / "in", *[part or "." for part in parts])
    said = outside(SPEC, {"path": path}, [str(maze / "in")])
    # Walk there as the kernel does, one step after the other.
    here = os.open(maze / "in", os.O_RDONLY)
    try:
        for part in parts:
            there = os.open(part or ".", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = there
        reached = os.path.realpath(f"/proc/self/fd/{here}")
    except OSError:
        return
    finally:
        os.close(here)
    within = reached == str(maze / "in") or reached.startswith(f"{maze}/in/")
    assert said == (path,) or within


@given(parts=PARTS)
def test_a_plain_path_below_a_folder_is_inside_and_a_wider_folder_never_narrows(
    maze: Path, parts: list[str]
) -> None:
    path = os.path.join(maze / "in", *[part or "." for part in parts])
    narrow = outside(SPEC, {"path": path}, [str(maze / "in")])
    assert set(outside(SPEC, {"path": path}, [str(maze / "in"), str(maze / "out")])) <= set(narrow)
    assert outside(SPEC, {"path": path}, ["/"]) == ()
    if not {"..", "to_out", "to_up"} & set(parts):
        assert narrow == ()


@given(st.text(max_size=30) | st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_whatever_the_model_writes_gives_an_answer_that_can_be_stored(
    maze: Path, value: Any
) -> None:
    for text in outside(SPEC, {"path": value}, [str(maze / "in")]):
        assert text.encode().decode() == text
