"""`defaults=`: what the bytes on the wire hold when calls leave something out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vllm_agent_sdk.types.chat import ChatDefaults

from .support import HI, WAYS, served

pytestmark = pytest.mark.feature("C-12")

DEFAULTS: ChatDefaults = {
    "temperature": 0.5,
    "stop": ["END"],
    "chat_template_kwargs": {"enable_thinking": False, "tools": {"a": 1, "b": 2}},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["whole", "events", "chunks"])
async def test_the_call_wins_and_dicts_merge_one_level(way: str, kind: str) -> None:
    mine: dict[str, Any] = {
        "temperature": 0.0,
        "seed": 7,
        "chat_template_kwargs": {"tools": {"c": 3}, "mine": True},
    }
    async with served(way=way, client={"defaults": DEFAULTS}) as (server, vllm):
        for params in (mine, {}):
            if kind == "whole":
                await vllm.chat.completions.create(messages=HI, **params)
            elif kind == "events":
                await vllm.chat.completions.stream(messages=HI, **params).final()
            else:
                chunks = await vllm.chat.completions.create(messages=HI, stream=True, **params)
                assert [chunk async for chunk in chunks]
        bodies = [json.loads(chat.body) for chat in server.chats]
    added: dict[str, Any] = {"messages": HI, "model": "sim-model"}
    if kind != "whole":
        added["stream"] = True
    if kind == "events":
        added["stream_options"] = {"include_usage": True}
    assert bodies == [
        {
            **added,
            "temperature": 0.0,
            "seed": 7,
            "stop": ["END"],
            "chat_template_kwargs": {
                "enable_thinking": False,
                "tools": {"c": 3},
                "mine": True,
            },
        },
        {**added, **DEFAULTS},
    ]


async def test_null_is_sent_and_keeps_the_default_out() -> None:
    async with served(client={"defaults": DEFAULTS}) as (server, vllm):
        await vllm.chat.completions.create(messages=HI, stop=None, chat_template_kwargs=None)
        body = json.loads(server.chats[0].body)
    assert (body["stop"], body["chat_template_kwargs"], body["temperature"]) == (None, None, 0.5)


async def test_a_default_model_is_asked_for_and_the_call_may_name_another() -> None:
    settings: dict[str, Any] = {"model": None, "defaults": {"model": "sim-model"}}
    async with served(client=settings) as (server, vllm):
        await vllm.chat.completions.create(messages=HI)
        assert json.loads(server.chats[0].body)["model"] == "sim-model"
        assert [request.path for request in server.requests] == ["/v1/chat/completions"]
    settings["defaults"] = {"model": "other"}
    async with served(client=settings) as (server, vllm):
        await vllm.chat.completions.create(messages=HI, model="sim-model")
        assert json.loads(server.chats[0].body)["model"] == "sim-model"


async def test_defaults_are_for_chat_only() -> None:
    async with served(client={"defaults": DEFAULTS}) as (server, vllm):
        await vllm.completions.create(prompt="a")
        assert json.loads(server.requests[0].body) == {"model": "sim-model", "prompt": "a"}
