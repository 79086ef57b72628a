"""What every `ChatModel` must do: the suite that `AsyncVLLM` passes, for models of your own.

```python
import pytest
from vllm_agent_sdk.testing import chat_model_contract

@pytest.mark.parametrize("check", chat_model_contract.CHECKS, ids=lambda check: check.__name__)
async def test_my_model(check):
    await check(MyModel())
```

`CHECKS` take a model that answers; `FAILURES` one whose every request fails, be it at once or in
the middle of a stream. A check that finds something raises `AssertionError`, saying what.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from vllm_agent_sdk import (
    Agent,
    ChatCompletion,
    ChatModel,
    Finished,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallReady,
    UsageError,
    VLLMError,
)
from vllm_agent_sdk.types import _codec

__all__ = ["CHECKS", "FAILURES", "Check"]

Check: TypeAlias = Callable[[ChatModel], Awaitable[None]]

_HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Say hello."}]
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
_CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'},
}
_CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "What is the weather in Paris?"},
    {"role": "assistant", "content": None, "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "18 °C"},
]


async def an_agent_can_be_made_of_it(model: ChatModel) -> None:
    """It has the shape of a model."""
    try:
        Agent(client=model)
    except UsageError as error:
        raise AssertionError(str(error)) from error


async def it_names_the_model_that_is_asked(model: ChatModel) -> None:
    """`resolve_model` gives the name that was asked for, or the one there is."""
    name: object = await model.resolve_model()
    assert isinstance(name, str), f"resolve_model() gave {name!r}, not a model's name."
    assert name, "resolve_model() gave an empty name."
    other = await model.resolve_model("other")
    assert other == "other", f"resolve_model('other') gave {other!r}."


async def a_whole_reply_is_one(model: ChatModel) -> None:
    """`create` gives a `ChatCompletion` with its finish reason."""
    await _whole(model, _HELLO)


async def a_stream_tells_the_whole_reply(model: ChatModel) -> None:
    """Text, thought and calls of the events are those of the reply that `Finished` has."""
    reply, events = await _streamed(model, _HELLO)
    for kind, said in ((TextDelta, reply.text), (ReasoningDelta, reply.reasoning or "")):
        told = "".join(event.text for event in events if isinstance(event, kind))
        assert told == said, f"The {kind.__name__}s say {told!r}, the reply {said!r}."
    calls = [event.call for event in events if isinstance(event, ToolCallReady)]
    assert calls == reply.tool_calls, f"ToolCallReady told {calls!r}, not {reply.tool_calls!r}."


async def a_conversation_with_calls_is_taken(model: ChatModel) -> None:
    """System text, calls and results, with tools that may be called; nothing of it is changed."""
    await _whole(model, _CONVERSATION, tools=[_TOOL])
    await _streamed(model, _CONVERSATION, tools=[_TOOL])


async def a_stream_can_be_left_early(model: ChatModel) -> None:
    """What had come is in `partial`, and the next request works as if nothing had been."""
    events = model.chat.completions.stream(messages=_HELLO, model=await model.resolve_model())
    said = ""
    async with events:
        async for event in events:
            if isinstance(event, TextDelta):
                said = event.text
                break
    assert events.partial.text.startswith(said), (
        f"partial.text is {events.partial.text!r}, and {said!r} had come."
    )
    await _whole(model, _HELLO)


async def two_replies_come_beside_each_other(model: ChatModel) -> None:
    """One stream is read in the middle of another."""
    name = await model.resolve_model()
    first = model.chat.completions.stream(messages=_HELLO, model=name)
    async with first:
        begun = await anext(first)
        await _streamed(model, _HELLO)
        rest = [event async for event in first]
    ended = [event for event in (begun, *rest) if isinstance(event, Finished)]
    assert len(ended) == 1, "A stream that waited for another one did not come to its end."


async def an_agent_runs_on_it(model: ChatModel) -> None:
    """Streaming or not, a run does not end by an error."""
    for streaming in (True, False):
        result = await Agent(client=model, streaming=streaming).run("Say hello.")
        assert result.stop_reason != "error", f"A run ended by an error: {result.error!r}"


# ── models that fail ─────────────────────────────────────────────────────────────────────────────


async def a_reply_that_fails_raises_an_error_of_ours(model: ChatModel) -> None:
    """`create` raises a `VLLMError`."""
    try:
        await model.chat.completions.create(messages=_HELLO, model="m")
    except VLLMError:
        return
    except Exception as error:
        raise AssertionError(f"create() raised a {type(error).__name__}: {error}") from error
    raise AssertionError("create() gave a reply, though the request fails.")


async def a_stream_that_fails_never_finishes(model: ChatModel) -> None:
    """It raises a `VLLMError`, be it when it is entered or later, and gives no `Finished`."""
    seen: list[StreamEvent] = []
    events = model.chat.completions.stream(messages=_HELLO, model="m")
    try:
        async with events:
            async for event in events:
                seen.append(event)  # noqa: PERF401  what comes before a failure counts
    except VLLMError:
        finished = any(isinstance(event, Finished) for event in seen)
        assert not finished, "A stream that fails must not give Finished first."
        told = "".join(event.text for event in seen if isinstance(event, TextDelta))
        assert events.partial.text == told, f"partial.text is {events.partial.text!r}, not {told!r}"
        return
    except Exception as error:
        raise AssertionError(f"The stream raised a {type(error).__name__}: {error}") from error
    raise AssertionError("The stream ended as if it were whole, though the request fails.")


async def a_run_ends_by_its_error(model: ChatModel) -> None:
    """An agent says `stop_reason="error"`, and has the error."""
    for streaming in (True, False):
        result = await Agent(client=model, model="m", streaming=streaming).run("Say hello.")
        assert result.stop_reason == "error", f"The run ended by {result.stop_reason!r}."
        assert isinstance(result.error, VLLMError), f"Its error is {result.error!r}."


# ── what these are made of ───────────────────────────────────────────────────────────────────────


async def _whole(
    model: ChatModel, messages: Sequence[dict[str, Any]], **params: Any
) -> ChatCompletion[Any]:
    given = copy.deepcopy(list(messages))
    name = await model.resolve_model()
    reply: object = await model.chat.completions.create(messages=given, model=name, **params)
    assert given == messages, "create() changed its messages."
    _check_reply(reply, "create()")
    assert isinstance(reply, ChatCompletion)
    return reply


def _check_reply(reply: object, what: str) -> None:
    assert isinstance(reply, ChatCompletion), (
        f"{what} gave a {type(reply).__name__}, not a ChatCompletion."
    )
    assert reply.choices, f"{what} gave a reply without a choice."
    assert reply.finish_reason, f"{what} gave a reply without a finish_reason: a cut one raises."
    _codec.encode(reply)  # it is what it says, down to its fields


async def _streamed(
    model: ChatModel, messages: Sequence[dict[str, Any]], **params: Any
) -> tuple[ChatCompletion[Any], list[StreamEvent]]:
    given = copy.deepcopy(list(messages))
    name = await model.resolve_model()
    events = model.chat.completions.stream(messages=given, model=name, **params)
    before = events.partial
    assert not before.text, f"partial.text is {before.text!r} before anything has come."
    async with events:
        seen = [event async for event in events]
    assert given == messages, "stream() changed its messages."
    finished = [event for event in seen if isinstance(event, Finished)]
    assert len(finished) == 1, f"The stream gave {len(finished)} times Finished, not once."
    assert isinstance(seen[-1], Finished), f"{type(seen[-1]).__name__} came after Finished."
    reply: ChatCompletion[Any] = finished[0].completion
    _check_reply(reply, "The stream")
    assert events.partial.text == reply.text, "partial at the end is the whole reply."
    return reply, seen


#: All checks of a model that answers.
CHECKS: tuple[Check, ...] = (
    an_agent_can_be_made_of_it,
    it_names_the_model_that_is_asked,
    a_whole_reply_is_one,
    a_stream_tells_the_whole_reply,
    a_conversation_with_calls_is_taken,
    a_stream_can_be_left_early,
    two_replies_come_beside_each_other,
    an_agent_runs_on_it,
)
#: All checks of a model whose requests fail.
FAILURES: tuple[Check, ...] = (
    a_reply_that_fails_raises_an_error_of_ours,
    a_stream_that_fails_never_finishes,
    a_run_ends_by_its_error,
)
