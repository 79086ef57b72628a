"""`vllm-agent models`: a table for people, the server's own answer for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Self

import pytest

from vllm_agent_sdk import ModelInfo, ModelList
from vllm_agent_sdk.cli import models as command
from vllm_agent_sdk.testing import Simulator

from .conftest import Command

CARDS = [
    ModelInfo(id="big", root="org/big", max_model_len=32768),
    ModelInfo(id="big-alias", root="org/big", max_model_len=32768),
    ModelInfo(id="sql", root="adapters/sql", parent="big"),
]


class Client:
    """A client of a server with an alias and a LoRA adapter."""

    base_url = "http://127.0.0.1:8000/v1"

    def __init__(self, cards: Sequence[ModelInfo]) -> None:
        self.models = self
        self._cards = cards

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def list(self) -> ModelList:
        return ModelList(data=list(self._cards))


@pytest.mark.feature("X-06")
@pytest.mark.usefixtures("server")
def test_a_table_of_what_is_served(cli: Command) -> None:
    done = cli("models")
    assert done.code == 0
    head, row = done.out.splitlines()
    assert head.split() == ["MODEL", "CONTEXT", "KIND", "ROOT"]
    assert row.split()[:3] == ["sim-model", "8192", "model"]
    assert done.err == ""


@pytest.mark.feature("X-06")
def test_aliases_and_adapters_are_told_apart(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "client_of", lambda _: Client(CARDS))
    rows = [" ".join(line.split()) for line in cli("models").out.splitlines()[1:]]
    assert rows == [
        "big 32768 model org/big",
        "big-alias 32768 alias of big org/big",
        "sql LoRA of big adapters/sql",
    ]


@pytest.mark.feature("X-06")
def test_a_server_without_models(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "client_of", lambda _: Client([]))
    done = cli("models")
    assert (done.code, done.out) == (1, "")
    assert "serves no model" in done.error


@pytest.mark.feature("X-06")
@pytest.mark.usefixtures("server")
def test_json_is_the_servers_own_answer(cli: Command) -> None:
    done = cli("models", "--json")
    assert done.code == 0
    assert [card["id"] for card in json.loads(done.out)["data"]] == ["sim-model"]
    assert done.out.count("\n") == 1


@pytest.mark.feature("X-06")
def test_a_key_that_is_refused_and_a_server_that_is_gone(cli: Command) -> None:
    with Simulator(api_key="right") as server:
        done = cli("models", "--base-url", server.base_url)
        assert done.code == 3
        assert "wants a key" in done.error
        assert cli("models", "--base-url", server.base_url, "--api-key", "right").code == 0
    assert cli("models", "--base-url", server_url(server)).code == 3


def server_url(server: Simulator) -> str:
    """The URL of a server that has ended, from a request it had."""
    return f"http://{server.requests[0].headers['host']}"
