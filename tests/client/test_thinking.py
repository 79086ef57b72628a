"""`thinking=` through the client, seen in the bytes sent; think tags split by the profile."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import UnsupportedByServerError, UsageError
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.types.profile import ServerProfile
from vllm_agent_sdk.types.server import ModelInfo

from .support import HI, served


def profile(**facts: Any) -> ServerProfile:
    return ServerProfile(model="sim-model").with_(**facts)


QWEN = profile(thinking_switch="enable_thinking", thinking_efforts=False, reasoning_parser=True)
DEEPSEEK = profile(thinking_switch="thinking", thinking_efforts=True)


def loaded_from(root: str) -> ServerProfile:
    return profile(models=(ModelInfo(id="sim-model", root=root),))


PLAIN = profile(thinking_switch="", thinking_efforts=False, reasoning_parser=False)


@pytest.mark.feature("O-10")
@pytest.mark.parametrize(
    ("known", "value", "fields"),
    [
        (QWEN, True, {"chat_template_kwargs": {"enable_thinking": True}}),
        (QWEN, False, {"chat_template_kwargs": {"enable_thinking": False}}),
        (QWEN, "none", {"chat_template_kwargs": {"enable_thinking": False}}),
        (
            QWEN,
            512,
            {"thinking_token_budget": 512, "chat_template_kwargs": {"enable_thinking": True}},
        ),
        (DEEPSEEK, True, {"chat_template_kwargs": {"thinking": True}}),
        (
            DEEPSEEK,
            "low",
            {"reasoning_effort": "low", "chat_template_kwargs": {"thinking": True}},
        ),
        (loaded_from("openai/gpt-oss-20b"), "high", {"reasoning_effort": "high"}),
        (loaded_from("openai/gpt-oss-20b"), True, {}),
        (loaded_from("Qwen/Qwen3-8B"), True, {"chat_template_kwargs": {"enable_thinking": True}}),
    ],
)
async def test_thinking_becomes_the_fields_of_the_model(
    known: ServerProfile, value: Any, fields: dict[str, Any]
) -> None:
    async with served(Reply.text("Hi")) as (server, vllm):
        vllm.server.set_profile(known)
        await vllm.chat.completions.create(messages=HI, thinking=value)
        await vllm.chat.completions.stream(messages=HI, thinking=value).final()
    for request in server.requests:
        body = request.json
        sent = {
            name: body[name]
            for name in ("chat_template_kwargs", "reasoning_effort", "thinking_token_budget")
            if name in body
        }
        assert sent == fields
        assert "thinking" not in body


@pytest.mark.feature("O-10")
@pytest.mark.parametrize(
    ("known", "value", "says"),
    [
        (PLAIN, True, "no switch"),
        (PLAIN, "high", "no switch"),
        (PLAIN, 100, "--reasoning-parser"),
        (QWEN, "high", "no effort"),
        (profile(), True, "could not be learnt"),
        (loaded_from("openai/gpt-oss-20b"), False, "always thinks"),
    ],
)
async def test_what_the_model_cannot_is_an_error_before_the_request(
    known: ServerProfile, value: Any, says: str
) -> None:
    async with served(Reply.text("Hi")) as (server, vllm):
        vllm.server.set_profile(known)
        call: Any = {"messages": HI, "thinking": value}
        with pytest.raises(UnsupportedByServerError, match=says) as caught:
            await vllm.chat.completions.create(**call)
        with pytest.raises(UnsupportedByServerError, match=says):
            await vllm.chat.completions.stream(**call).final()
        assert caught.value.feature == f"thinking={value!r}"
        assert caught.value.status is None
        assert not server.chats


@pytest.mark.feature("O-10")
@pytest.mark.parametrize("value", [-1, "much", 1.5])
async def test_what_is_no_way_of_thinking_is_refused(value: Any) -> None:
    async with served(Reply.text("Hi")) as (server, vllm):
        vllm.server.set_profile(QWEN)
        with pytest.raises(UsageError, match="thinking="):
            await vllm.chat.completions.create(messages=HI, thinking=value)
        assert not server.chats


@pytest.mark.feature("O-10")
async def test_variables_and_fields_of_the_call_itself_win() -> None:
    async with served(Reply.text("Hi")) as (server, vllm):
        vllm.server.set_profile(QWEN)
        await vllm.chat.completions.create(
            messages=HI,
            thinking=True,
            chat_template_kwargs={"enable_thinking": False, "tone": "dry"},
        )
    sent = server.requests[-1].json["chat_template_kwargs"]
    assert sent == {"enable_thinking": False, "tone": "dry"}


@pytest.mark.feature("S-04")
@pytest.mark.parametrize("split", [1, 2, 5, 100])
async def test_think_tags_are_split_off_where_the_profile_says_so(split: int) -> None:
    text = "<think>Hm, <b>.</think>\n\nParis"
    async with served(Reply.text(text, split=split)) as (_, vllm):
        untouched = await vllm.chat.completions.create(messages=HI)
        vllm.server.set_profile(profile(think_tags=True))
        whole = await vllm.chat.completions.create(messages=HI)
        last = await vllm.chat.completions.stream(messages=HI).final()
    assert (untouched.text, untouched.reasoning) == (text, None)
    for reply in (whole, last):
        assert reply.reasoning == "Hm, <b>."
        assert reply.text.strip() == "Paris"
        assert "think" not in reply.text


@pytest.mark.feature("S-04")
@pytest.mark.parametrize(
    ("model", "sent"), [("Qwen/Qwen3-8B", False), ("openai/gpt-oss-20b", True)]
)
@pytest.mark.parametrize("once", [False, True])
async def test_reasoning_goes_back_to_the_models_that_read_it(
    model: str, sent: bool, once: bool
) -> None:
    said = Reply.reasoning("Let me see.", text="Paris")
    async with served(said, model=model, client={"model": None}) as (server, vllm):
        first = await vllm.chat.completions.create(messages=HI)
        conversation: list[Any] = [*HI, first.assistant_message(), *HI]
        for call in (vllm.chat.completions.create, vllm.chat.completions.stream):
            made: Any = call(messages=iter(conversation) if once else conversation)
            await (made.final() if hasattr(made, "final") else made)
    for request in server.chats[1:]:
        message = request.json["messages"][1]
        assert message["content"] == "Paris"
        assert message.get("reasoning") == ("Let me see." if sent else None)
