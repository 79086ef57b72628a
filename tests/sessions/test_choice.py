"""Which store is used where none was given."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import UsageError
from vllm_agent_sdk.sessions import (
    MemoryStore,
    SQLiteStore,
    choose_store,
    list_sessions,
    user_folder,
)

VARIABLE = "VLLM_AGENT_SESSION_STORE_PATH"

pytestmark = pytest.mark.feature("D-07")


def path_of(store: object) -> str:
    assert isinstance(store, SQLiteStore)
    return store.path


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_sessions_are_in_memory(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert isinstance(choose_store(), MemoryStore)


def test_the_variable_names_a_file_or_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path.resolve()
    for value, path in [
        (root, root / "sessions.db"),
        (root / "agents.db", root / "agents.db"),
        (f"{root}/new/", root / "new" / "sessions.db"),
    ]:
        monkeypatch.setenv(VARIABLE, str(value))
        assert path_of(choose_store()) == str(path)
    assert stat.S_IMODE(os.stat(root / "new").st_mode) == 0o700
    assert not (root / "agents.db").exists(), "nothing is opened before it is needed"


def test_a_folder_that_cannot_be_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, f"{tmp_path}/file/folder/")
    with pytest.raises(UsageError, match="cannot be made"):
        choose_store()


def test_the_command_line_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path.resolve()))
    path = tmp_path.resolve() / "vllm-agent" / "sessions.db"
    assert path_of(choose_store(user_folder())) == str(path)
    assert stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine.db"))
    assert path_of(choose_store(user_folder())) == str(tmp_path.resolve() / "mine.db")


async def test_a_session_is_kept_where_the_variable_says_unless_a_store_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: Any
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    one = await agent()
    async with one.session("kept") as session:
        await session.run("hi")
    async with one.session("elsewhere", store=MemoryStore()) as session:
        await session.run("hi")
    store = SQLiteStore(tmp_path / "sessions.db")
    assert [info.id for info in (await list_sessions(store)).sessions] == ["kept"]
    async with one.session("kept") as session:
        assert len(session.messages) == 2
    await store.aclose()
