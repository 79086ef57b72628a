"""Law 7: nothing heavy is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .source import listing

HEAVY = {
    "PIL",
    "aiohttp",
    "anyio",
    "cyclopts",
    "httpx",
    "jsonschema_rs",
    "mcp",
    "openai",
    "opentelemetry",
    "prometheus_client",
    "prompt_toolkit",
    "psycopg",
    "pydantic",
    "rich",
    "sqlite3",
}


def loaded_by(statement: str) -> set[str]:
    """The modules that a statement loads, beyond what this Python loads at its start."""
    program = f"""
import sys
before = set(sys.modules)
{statement}
print(*(set(sys.modules) - before), sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_package_alone_loads_neither_asyncio_nor_msgspec() -> None:
    loaded = loaded_by("import vllm_agent_sdk")
    heavy = sorted(loaded & (HEAVY | {"asyncio", "msgspec", "inspect", "dataclasses"}))
    assert not heavy, listing(heavy, "Give the names by `__getattr__`; import inside functions.")
    assert "vllm_agent_sdk" in loaded


@pytest.mark.parametrize(
    "names", ["AsyncVLLM, Agent, tool", "VLLMError, RunEnded, RunResult, ImageBlock"]
)
def test_the_names_every_program_imports_load_nothing_heavy(names: str) -> None:
    loaded = loaded_by(f"from vllm_agent_sdk import {names}")
    heavy = sorted(loaded & HEAVY)
    assert not heavy, listing(
        heavy, f"`from vllm_agent_sdk import {names}` loads these: import them inside a function."
    )
