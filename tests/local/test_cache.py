"""The cache: where it is, its logs, its locks, its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vllm_agent_sdk.errors import LocalServerError
from vllm_agent_sdk.local import purge
from vllm_agent_sdk.local._cache import Cache, private_folder


def test_it_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert Cache.default().root == tmp_path / ".cache" / "vllm-agent"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/x")
    assert Cache.default().root == Path("/var/x/vllm-agent")


def test_the_newest_20_logs_are_kept(cache: Cache) -> None:
    paths = []
    for age in range(25):
        path = cache.new_log("vllm")
        os.utime(path, (1000 + age, 1000 + age))
        paths.append(path)
    newest = cache.new_log("vllm")
    kept = set(cache.logs.iterdir())
    assert len(kept) == 20
    assert kept == {newest, *paths[-19:]}
    assert newest.stat().st_mode & 0o077 == 0


def test_locks_are_shared_or_exclusive(cache: Cache) -> None:
    one, two = cache.lock("use", shared=True), cache.lock("use", shared=True)
    alone = cache.lock("use")
    assert one.try_acquire()
    assert two.try_acquire()
    assert not alone.try_acquire()
    one.release()
    assert not alone.try_acquire()
    two.release()
    two.release()
    assert alone.try_acquire()
    assert not one.try_acquire()
    alone.release()


def test_a_lock_whose_file_was_removed_locks_nothing(cache: Cache) -> None:
    one, two = cache.lock("x"), cache.lock("x")
    assert one.try_acquire()
    one.path.unlink()
    assert two.try_acquire()  # on the file that is there now
    one.release()
    assert not cache.lock("x").try_acquire()
    two.release()


def test_purge_removes_everything_and_counts_it(cache: Cache) -> None:
    assert purge() == 0
    folder = cache.root / "models" / "m"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"x" * 1000)
    os.link(folder / "weights", folder / "again")  # one file, counted once
    cache.new_log("vllm")
    assert purge() == 1000
    assert list(cache.root.parent.iterdir()) == []


def test_purge_follows_a_cache_that_is_a_link(cache: Cache, tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk" / "big"
    elsewhere.mkdir(parents=True)
    (elsewhere / "file").write_bytes(b"12345")
    cache.root.parent.mkdir()
    cache.root.symlink_to(elsewhere)
    assert purge() == 5
    assert not elsewhere.exists()


def test_purge_refuses_while_the_cache_is_in_use(cache: Cache) -> None:
    use = cache.lock("use", shared=True)
    assert use.try_acquire()
    with pytest.raises(LocalServerError, match=r"A server runs from .* stop it first"):
        purge()
    assert cache.root.is_dir()
    use.release()
    purge()
    assert not cache.root.exists()


def test_a_folder_for_sockets_is_private(tmp_path: Path) -> None:
    open_one = tmp_path / "open"
    open_one.mkdir()
    open_one.chmod(0o755)
    assert private_folder(open_one).stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(open_one)
    with pytest.raises(LocalServerError, match="belongs to somebody else"):
        private_folder(tmp_path / "link")


def test_sockets_lie_in_the_runtime_folder_else_in_the_cache_else_in_a_short_place(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = os.environ["XDG_RUNTIME_DIR"]
    assert cache.socket_path("n") == Path(runtime, "vllm-agent", "n.sock")
    for unusable in ("", "relative", "/no/such/folder"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", unusable)
        near = Cache(Path(runtime, "cache"))
        assert near.socket_path("n") == near.root / "run" / "n.sock"
    far = Cache(tmp_path / ("x" * 90))
    monkeypatch.setattr("tempfile.tempdir", runtime)
    path = far.socket_path("n")
    assert path.parent == Path(runtime, f"vllm-agent-{os.geteuid()}")
    assert path.parent.stat().st_mode & 0o777 == 0o700
