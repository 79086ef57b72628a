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

#: What only a program that waits for something needs: asyncio, and what that brings.
WAITING = {"asyncio", "concurrent.futures", "logging", "selectors", "socket", "ssl", "subprocess"}
#: Comes with asyncio or a file's path and with nothing that a definition needs.
WAITING |= {"ipaddress", "pathlib", "threading", "urllib.parse"}

#: What the three names of most programs are made of, besides `types`.
DEFINITIONS = {
    "agent",
    "agent.definition",
    "agent.model",
    "agent.model.client",
    "agent.tools",
    "agent.tools.tool",
    "agent.tools.toolset",
    "client",
    "client.vllm",
    "errors",
    "telemetry",
    "telemetry.recorder",
    "transport",
    "transport.base",
    "types",
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
    heavy = sorted(loaded & (HEAVY | WAITING))
    assert not heavy, listing(
        heavy, f"`from vllm_agent_sdk import {names}` loads these: import them inside a function."
    )


def test_the_names_every_program_imports_load_values_and_definitions_only() -> None:
    loaded = loaded_by("from vllm_agent_sdk import AsyncVLLM, Agent, tool")
    ours = {name.removeprefix("vllm_agent_sdk.") for name in loaded if "vllm_agent_sdk." in name}
    others = sorted(name for name in ours - DEFINITIONS if not name.startswith("types."))
    assert not others, listing(
        others,
        "`AsyncVLLM, Agent, tool` load these. A client, an agent and a tool load what they need "
        "when they are made, a run when it begins: import them inside these functions.",
    )
    assert ours >= {"agent.definition", "agent.tools.tool", "client.vllm"}


def test_a_definition_of_an_agent_is_no_run() -> None:
    loaded = loaded_by("from vllm_agent_sdk import Agent; Agent(instructions='Be brief.')")
    running = sorted(name for name in loaded if name.startswith("vllm_agent_sdk.agent.run"))
    running += sorted(loaded & WAITING)
    assert not running, listing(running, "Defining an agent loads these; only running it may.")
