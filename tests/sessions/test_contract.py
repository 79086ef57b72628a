"""Every store passes the suite that is exported for users' own, and a broken one does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_agent_sdk.sessions import MemoryStore
from vllm_agent_sdk.sessions.sqlite import SQLiteStore
from vllm_agent_sdk.testing.store_contract import CHECKS, Check, Place


async def check_store(check: Check, place: Place) -> None:
    """A check raises what it found."""
    await check(place)


each = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


@each
@pytest.mark.feature("D-01")
async def test_the_memory_store_keeps_the_contract(check: Check) -> None:
    store = MemoryStore()
    await check_store(check, lambda: store)


@each
@pytest.mark.feature("D-01")
async def test_the_sqlite_store_keeps_the_contract(check: Check, tmp_path: Path) -> None:
    await check_store(check, lambda: SQLiteStore(tmp_path / "sessions.db"))
    await SQLiteStore(tmp_path / "sessions.db").aclose()
