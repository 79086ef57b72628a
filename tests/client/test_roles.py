"""`roles=`: the order of roles in the messages that are sent."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk import SystemMessage, UsageError, UserMessage
from vllm_agent_sdk.testing import Reply

from .support import served

MESSAGES: list[Any] = [
    UserMessage("One."),
    {"role": "user", "content": "Two."},
    SystemMessage("Be brief."),
]


@pytest.mark.feature("O-07")
@pytest.mark.parametrize(
    ("roles", "sent"),
    [
        (None, ["One.", "Two.", "Be brief."]),
        ("off", ["One.", "Two.", "Be brief."]),
        ("merge", ["One.\n\nTwo.", "Be brief."]),
        ("strict", ["Be brief.", "One.\n\nTwo."]),
    ],
)
async def test_roles_are_ordered_as_asked_and_off_unless_asked(roles: Any, sent: list[str]) -> None:
    asked: dict[str, Any] = {} if roles is None else {"roles": roles}
    async with served(Reply.text("Hi")) as (server, vllm):
        await vllm.chat.completions.create(messages=MESSAGES, **asked)
        await vllm.chat.completions.stream(messages=MESSAGES, **asked).final()
    for request in server.chats:
        assert [message["content"] for message in request.json["messages"]] == sent
        assert "roles" not in request.json


@pytest.mark.feature("O-07")
async def test_another_order_of_roles_is_refused() -> None:
    async with served(Reply.text("Hi")) as (server, vllm):
        with pytest.raises(UsageError, match="roles="):
            await vllm.chat.completions.create(messages=MESSAGES, roles="sorted")  # type: ignore[arg-type]
        assert not server.chats
