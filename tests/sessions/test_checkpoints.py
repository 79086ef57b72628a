"""Files kept as they are, and brought back byte for byte."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_agent_sdk.errors import CheckpointNotFoundError, StoreError, UsageError
from vllm_agent_sdk.sessions.checkpoints import CheckpointFiles
from vllm_agent_sdk.types.checkpoints import Checkpoints, FileChange

pytestmark = pytest.mark.feature("D-05")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def files(tmp_path: Path, root: Path) -> CheckpointFiles:
    return made(tmp_path, root)


def made(tmp_path: Path, root: Path, **options: object) -> CheckpointFiles:
    folder = str(tmp_path / "kept")
    return CheckpointFiles(Checkpoints(str(root), folder=folder, **options), "s1")  # type: ignore[arg-type]


def actions(changes: list[FileChange]) -> dict[str, str]:
    return {change.path: change.action for change in changes}


def back(files: CheckpointFiles, checkpoint: str, **options: object) -> list[FileChange]:
    changes = files.apply(checkpoint, files.plan(checkpoint, **options))  # type: ignore[arg-type]
    assert [change for change in changes if change.error] == []
    return changes


def test_binary_files_come_back_byte_for_byte_with_their_modes(
    root: Path, files: CheckpointFiles
) -> None:
    content = bytes(range(256)) * 5000
    (root / "a.bin").write_bytes(content)
    (root / "a.bin").chmod(0o751)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "empty").write_bytes(b"")
    files.take("c1")
    (root / "a.bin").write_bytes(content[::-1])
    (root / "a.bin").chmod(0o600)
    (root / "deep" / "er" / "empty").unlink()
    (root / "deep" / "er").rmdir()
    assert actions(back(files, "c1")) == {"a.bin": "restore", "deep/er/empty": "recreate"}
    assert (root / "a.bin").read_bytes() == content
    assert stat.S_IMODE((root / "a.bin").stat().st_mode) == 0o751
    assert (root / "deep" / "er" / "empty").read_bytes() == b""
    assert files.plan("c1") == []


def test_a_changed_mode_alone_is_restored(root: Path, files: CheckpointFiles) -> None:
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    files.take("c1")
    (root / "run.sh").chmod(0o644)
    (change,) = back(files, "c1")
    assert change.reason == "its mode"
    assert stat.S_IMODE((root / "run.sh").stat().st_mode) == 0o755


def test_links_are_kept_as_links_and_never_followed(
    tmp_path: Path, root: Path, files: CheckpointFiles
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("mine")
    (root / "to_folder").symlink_to(outside)
    (root / "to_file").symlink_to("gone")
    manifest = files.take("c1")
    assert {path: entry.link for path, entry in manifest.files.items()} == {
        "to_file": "gone",
        "to_folder": str(outside),
    }
    (root / "to_file").unlink()
    (root / "to_file").write_text("a file now")
    (root / "to_folder").unlink()
    assert actions(back(files, "c1")) == {"to_file": "restore", "to_folder": "recreate"}
    assert os.readlink(root / "to_file") == "gone"
    assert os.readlink(root / "to_folder") == str(outside)
    assert (outside / "secret").read_text() == "mine"


def test_a_file_that_became_a_link_is_replaced_and_its_target_untouched(
    tmp_path: Path, root: Path, files: CheckpointFiles
) -> None:
    (root / "a").write_text("old")
    files.take("c1")
    other = tmp_path / "other"
    other.write_text("not ours")
    (root / "a").unlink()
    (root / "a").symlink_to(other)
    (change,) = back(files, "c1")
    assert change == FileChange("a", "restore", "it is a link now")
    assert ((root / "a").read_text(), (root / "a").is_symlink()) == ("old", False)
    assert other.read_text() == "not ours"


def test_nothing_is_written_through_a_folder_that_became_a_link(
    tmp_path: Path, root: Path, files: CheckpointFiles
) -> None:
    (root / "d").mkdir()
    (root / "d" / "a").write_text("old")
    files.take("c1")
    (root / "d" / "a").unlink()
    (root / "d").rmdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "d").symlink_to(outside)
    changes = files.apply("c1", files.plan("c1"))
    assert changes[1:] == [FileChange("d/a", "skip", "d is a link now")]
    assert list(outside.iterdir()) == []


def test_a_link_that_appears_between_plan_and_rewind_is_not_followed_either(
    tmp_path: Path, root: Path, files: CheckpointFiles
) -> None:
    (root / "d").mkdir()
    (root / "d" / "a").write_text("old")
    files.take("c1")
    (root / "d" / "a").unlink()
    plan = files.plan("c1")
    (root / "d").rmdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "d").symlink_to(outside)
    (change,) = files.apply("c1", plan)
    assert (change.action, change.error) == ("recreate", "d is a link now")
    assert list(outside.iterdir()) == []


def test_new_files_stay_but_those_that_tools_made(root: Path, files: CheckpointFiles) -> None:
    files.take("c1")
    (root / "users").write_text("u")
    (root / "tools").write_text("t")
    assert actions(files.plan("c1", made={"tools"})) == {"tools": "delete", "users": "keep"}
    back(files, "c1", made={"tools"})
    assert [path.name for path in root.iterdir()] == ["users"]
    back(files, "c1", delete_new=True)
    assert list(root.iterdir()) == []


def test_ignored_files_are_neither_kept_nor_touched(tmp_path: Path, root: Path) -> None:
    files = made(tmp_path, root, ignore=("*.log", "!keep.log", "/data/"))
    (root / ".gitignore").write_text("out/\n!\n# a comment\n*.tmp\n")
    for name in ("sub/data/a", "data/a", "x.log", "keep.log", "out/b", "sub/c.tmp", ".git/config"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1")
    (root / "sub" / ".gitignore").write_text("!c.tmp\n")
    kept = files.take("c1").files
    assert sorted(kept) == [
        ".gitignore",
        "keep.log",
        "sub/.gitignore",
        "sub/c.tmp",
        "sub/data/a",
    ]
    (root / "x.log").write_text("2")
    (root / "out" / "new").write_text("2")
    assert files.plan("c1", delete_new=True) == []


def test_large_files_are_left_out_and_say_so(tmp_path: Path, root: Path) -> None:
    files = made(tmp_path, root, max_file_bytes=1000)
    (root / "big").write_bytes(b"x" * 1001)
    (root / "small").write_bytes(b"x" * 1000)
    entries = files.take("c1").files
    assert entries["big"].left_out == "larger than 1,000 bytes"
    assert entries["small"].blob
    assert files.plan("c1") == []
    (root / "big").unlink()
    assert files.plan("c1") == [
        FileChange("big", "skip", "it was not kept: larger than 1,000 bytes")
    ]


def test_the_session_as_a_whole_has_a_cap(tmp_path: Path, root: Path) -> None:
    files = made(tmp_path, root, max_total_bytes=1500)
    (root / "a").write_bytes(b"a" * 1000)
    (root / "b").write_bytes(b"b" * 1000)
    first = files.take("c1").files
    assert (bool(first["a"].blob), first["b"].left_out) == (
        True,
        "the session's checkpoints have 1,500 bytes",
    )
    (root / "c").write_bytes(b"c" * 500)
    (root / "d").write_bytes(b"d")
    opened_again = made(tmp_path, root, max_total_bytes=1500)
    for each in (files, opened_again, opened_again):
        later = each.take("c2").files
        assert [bool(later[name].blob) for name in "abcd"] == [True, False, True, False]


def test_what_is_kept_is_summed_up_once(
    files: CheckpointFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    walk = os.walk

    def counted(top: str, **options: Any) -> Any:
        looked.append(top)
        return walk(top, **options)

    monkeypatch.setattr(os, "walk", counted)
    for number in range(3):
        (root / "a").write_text(f"{number}")
        files.take(f"c{number}")
    assert [top for top in looked if top.endswith("blobs")] == [f"{files.folder}/blobs"]


def test_equal_contents_are_kept_once(tmp_path: Path, root: Path, files: CheckpointFiles) -> None:
    for name in ("a", "b", "c"):
        (root / name).write_bytes(b"same")
    files.take("c1")
    (root / "a").write_bytes(b"more")
    files.take("c2")
    kept = [path for path in (tmp_path / "kept").rglob("blobs/*/*") if path.is_file()]
    assert sorted(path.read_bytes() for path in kept) == [b"more", b"same"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert stat.S_IMODE((tmp_path / "kept" / "s1").stat().st_mode) == 0o700
    assert not list((tmp_path / "kept").rglob("new-*"))


def test_a_file_that_changes_within_its_time_stamp_is_read_again(
    root: Path, files: CheckpointFiles
) -> None:
    (root / "a").write_bytes(b"one")
    files.take("c1")
    status = (root / "a").stat()
    (root / "a").write_bytes(b"two")
    os.utime(root / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert files.take("c2").files["a"].blob != files.manifest("c1").files["a"].blob
    assert actions(files.plan("c1")) == {"a": "restore"}


def test_damaged_contents_are_told_and_the_file_stays_as_it_is(
    tmp_path: Path, root: Path, files: CheckpointFiles
) -> None:
    (root / "a").write_bytes(b"old")
    files.take("c1")
    (blob,) = (path for path in (tmp_path / "kept").rglob("blobs/*/*") if path.is_file())
    blob.write_bytes(b"odd")
    (root / "a").write_bytes(b"new")
    (change,) = files.apply("c1", files.plan("c1"))
    assert change.error == "what was kept of it is damaged"
    assert (root / "a").read_bytes() == b"new"
    assert [path.name for path in root.iterdir()] == ["a"]


def test_a_folder_in_the_place_of_a_file_is_left_alone(root: Path, files: CheckpointFiles) -> None:
    (root / "a").write_text("old")
    files.take("c1")
    (root / "a").unlink()
    (root / "a").mkdir()
    assert files.plan("c1") == [FileChange("a", "skip", "it is ignored now, or no file")]


def test_what_is_no_file_is_left_alone(root: Path, files: CheckpointFiles) -> None:
    os.mkfifo(root / "pipe")
    assert files.take("c1").files == {}


def test_names_that_are_no_utf8_are_left_out_and_say_so(root: Path, files: CheckpointFiles) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).write_text("1")
    (root / "link").symlink_to(os.fsdecode(b"caf\xe9"))
    entries = files.take("c1").files
    assert entries["caf\\udce9"].left_out == "its name is no UTF-8"
    assert entries["link"].left_out == "it points to a name that is no UTF-8"
    assert files.plan("c1")[0].action == "skip"


def test_the_folder_of_the_checkpoints_may_lie_in_the_root(tmp_path: Path, root: Path) -> None:
    files = CheckpointFiles(Checkpoints(str(root), folder=str(root / "kept")), "s1")
    (root / "a").write_text("1")
    assert list(files.take("c1").files) == ["a"]
    assert list(files.take("c2").files) == ["a"]


def test_ids_with_odd_characters_stay_within_the_folder(tmp_path: Path, root: Path) -> None:
    options = Checkpoints(str(root), folder=str(tmp_path / "kept"))
    files = CheckpointFiles(options, "../../out")
    files.take("../c1")
    assert Path(files.folder).parent == tmp_path / "kept"
    assert files.manifest("../c1").id == "../c1"


def test_what_is_not_there_or_damaged_is_a_typed_error(
    tmp_path: Path, root: Path, files: CheckpointFiles
) -> None:
    with pytest.raises(CheckpointNotFoundError, match="'c9' has no files"):
        files.plan("c9")
    files.take("c1")
    (tmp_path / "kept" / "s1" / "manifests" / "c1.json").write_text('{"id"')
    with pytest.raises(StoreError, match="'c1' is damaged"):
        files.plan("c1")
    with pytest.raises(UsageError, match="there is no such folder"):
        CheckpointFiles(Checkpoints(str(tmp_path / "none")), "s1")
    (tmp_path / "file").write_text("")
    broken = CheckpointFiles(Checkpoints(str(root), folder=str(tmp_path / "file")), "s1")
    with pytest.raises(StoreError, match="cannot be kept in"):
        broken.take("c1")


def test_a_checkpoint_of_another_root_is_refused(
    tmp_path: Path, root: Path, files: CheckpointFiles
) -> None:
    files.take("c1")
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UsageError, match=r"is of .*root, and the root is .*other"):
        made(tmp_path, other).plan("c1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"root": ""}, "is empty"),
        ({"root": 3}, "takes a path"),
        ({"root": ".", "when": "never"}, "'tools' or 'turn'"),
        ({"root": ".", "ignore": "*.log"}, "several patterns"),
        ({"root": ".", "max_file_bytes": -1}, "0 or more"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Checkpoints(**options)  # type: ignore[arg-type]


def test_a_pattern_that_cannot_be_one_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(UsageError, match=r"Checkpoints\(ignore=…\) has a pattern"):
        made(tmp_path, root, ignore=("!",))


NAMES = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)
TREES = st.dictionaries(NAMES, st.binary(max_size=20), max_size=6)


def clear_of_conflicts(tree: dict[str, bytes]) -> dict[str, bytes]:
    return {
        path: content
        for path, content in tree.items()
        if not any(other.startswith(f"{path}/") for other in tree)
    }


def write(root: Path, tree: dict[str, bytes]) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    for name, content in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


@settings(max_examples=100, deadline=None)
@given(TREES.map(clear_of_conflicts), TREES.map(clear_of_conflicts))
def test_any_tree_comes_back_or_says_what_does_not(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    tmp_path = tmp_path_factory.mktemp("tree")
    root = tmp_path / "root"
    root.mkdir()
    files = made(tmp_path, root)
    write(root, before)
    files.take("c1")
    write(root, after)
    skipped = {c.path for c in back(files, "c1", delete_new=True) if c.action == "skip"}
    for name, content in before.items():
        if name not in skipped:
            assert (root / name).read_bytes() == content
    there = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
    assert there == set(before) - skipped
