"""Fields of requests and of replies, and how tools are chosen, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from vllm_agent_sdk import AsyncVLLM, BadRequestError, UserMessage
from vllm_agent_sdk.types.chat import ChatParams

from .servers import LiveServer

pytestmark = [pytest.mark.live, pytest.mark.server("A")]

HI = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]
NUMBER: ChatParams = {
    "structured_outputs": {"regex": "(one|two)( (one|two)){3,6}"},
    "temperature": 0,
    "max_tokens": 24,
}


def function(name: str, property: str) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {property: {"type": "string", "maxLength": 12}},
        "required": [property],
        "additionalProperties": False,
    }
    described: dict[str, Any] = {
        "name": name,
        "description": f"Tell the {property}.",
        "parameters": parameters,
    }
    described["strict"] = True
    return {"type": "function", "function": described}


TEMPLATE = """\
{%- for tool in tools or [] -%}{{ tool | tojson }}
{% endfor -%}
{%- for message in messages -%}
{{ message.role }}: {{ message.content or '' }}{{ message.tool_calls or '' }}
{% endfor -%}
{%- if add_generation_prompt -%}assistant:{%- endif -%}
"""
TOOLS = [function("get_weather", "city"), function("get_time", "zone")]
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture
async def vllm(server: LiveServer) -> AsyncIterator[AsyncVLLM]:
    async with AsyncVLLM(server.base_url, api_key=server.api_key) as client:
        yield client


# ── chat completions ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("E-01")
async def test_log_probabilities_and_token_ids_are_typed_whole_and_streamed(
    vllm: AsyncVLLM,
) -> None:
    asked: ChatParams = {
        **NUMBER, "logprobs": True, "top_logprobs": 2, "return_token_ids": True,
        "return_prompt_text": True,
    }  # fmt: skip
    whole = await vllm.chat.completions.create(messages=HI, prompt_logprobs=1, **asked)
    streamed = await vllm.chat.completions.stream(messages=HI, **asked).final()
    for reply in (whole, streamed):
        (choice,) = reply.choices
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert choice.token_ids is not None
        assert reply.usage is not None
        tokens = choice.logprobs.content
        assert len(tokens) == len(choice.token_ids) == reply.usage.completion_tokens
        assert "".join(token.token for token in tokens).startswith(reply.text)
        assert all(token.logprob <= 0 for token in tokens)
        assert all(len(token.top_logprobs or ()) >= 2 for token in tokens)
        assert bytes(tokens[0].bytes or ()).decode() == tokens[0].token
        assert reply.prompt_token_ids is not None
        assert len(reply.prompt_token_ids) == reply.usage.prompt_tokens
        assert "Say hello." in (reply.prompt_text or "")
    assert whole.text == streamed.text
    assert whole.prompt_logprobs is not None
    assert whole.prompt_token_ids is not None
    first, *others = whole.prompt_logprobs
    assert first is None
    for token_id, likely in zip(whole.prompt_token_ids[1:], others, strict=True):
        assert likely is not None
        said = likely[str(token_id)]
        assert said.logprob <= 0
        assert (said.rank or 0) >= 1
        assert said.decoded_token is not None
    assert whole.extra == {}


@pytest.mark.feature("E-01")
async def test_several_choices_each_have_what_was_asked_for(vllm: AsyncVLLM) -> None:
    said = await vllm.chat.completions.create(
        messages=HI, n=3, temperature=1.0, seed=3, max_tokens=4, logprobs=True, data_parallel_rank=0
    )
    assert [choice.index for choice in said.choices] == [0, 1, 2]
    assert all(choice.logprobs and choice.logprobs.content for choice in said.choices)
    assert said.usage is not None
    beams = vllm.chat.completions.stream(messages=HI, n=2, use_beam_search=True, max_tokens=3)
    assert [choice.index for choice in (await beams.final()).choices] == [0, 1]


@pytest.mark.feature("E-01")
async def test_the_load_of_the_server_is_told(vllm: AsyncVLLM) -> None:
    said = await vllm.chat.completions.create(messages=HI, max_tokens=1, load_metrics=True)
    text = await vllm.completions.create(prompt="One", max_tokens=1, load_metrics=True)
    for load in (said.server_load, text.server_load):
        assert load is not None
        assert load.kv_cache_usage_perc is not None
        assert 0 <= load.kv_cache_usage_perc <= 1
        assert load.num_requests_waiting is not None
    assert (await vllm.chat.completions.create(messages=HI, max_tokens=1)).server_load is None


@pytest.mark.feature("E-01")
@pytest.mark.parametrize(
    "refused",
    [
        {"max_tokens": 0},
        {"n": 2, "temperature": 0},
        {"top_k": -2},
        {"min_p": 2},
        {"repetition_penalty": 0},
        {"min_tokens": 3, "max_tokens": 2},
        {"stop": [""]},
        {"bad_words": [""]},
        {"top_logprobs": 1},
        {"prompt_logprobs": -2},
        {"logprob_token_ids": [1]},
        {"continue_final_message": True, "add_generation_prompt": True},
        {"response_format": {"type": "json_schema"}},
        {"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": TOOLS},
        {"stream_interval": 0},
    ],
    ids=str,
)
async def test_what_is_refused_here_is_refused_by_the_server(
    vllm: AsyncVLLM, refused: dict[str, Any]
) -> None:
    calls = vllm._calls
    body = {"messages": HI, "max_tokens": 4, "model": await vllm.resolve_model(), **refused}
    with pytest.raises(BadRequestError):
        await calls.fetch(calls.call("/chat/completions", body, {}))


# ── counting ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("E-05")
async def test_a_conversation_with_tools_is_counted_to_the_token(vllm: AsyncVLLM) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    messages: list[Any] = [
        *HI,
        UserMessage("What is the weather in Paris?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees, light rain"},
    ]
    # The bundled model's own template passes over tools; this one shows them.
    for template in (None, TEMPLATE):
        counts = []
        for tools in (None, TOOLS[:1], TOOLS):
            shown: dict[str, Any] = {"messages": messages}
            shown |= {"tools": tools} if tools else {}
            shown |= {"chat_template": template} if template else {}
            counted = await vllm.tokenize(**shown, return_token_strs=True)
            said = await vllm.chat.completions.create(**shown, max_tokens=1)
            assert said.usage is not None
            assert counted.count == said.usage.prompt_tokens == len(counted.tokens)
            assert counted.token_strs is not None
            assert len(counted.token_strs) == counted.count
            counts.append(counted.count)
        assert len(set(counts)) == (1 if template is None else 3)


@pytest.mark.feature("E-05")
async def test_tokens_become_the_text_again(vllm: AsyncVLLM) -> None:
    text = "Größe: 18 °C, 漢字, 🌦"
    plain = await vllm.tokenize(text, add_special_tokens=False)
    assert (await vllm.detokenize(plain.tokens)).prompt == text
    going_on = await vllm.tokenize(
        messages=[*HI, {"role": "assistant", "content": "Hel"}],
        continue_final_message=True,
        add_generation_prompt=False,
    )
    assert (await vllm.detokenize(going_on.tokens)).prompt.endswith("Hel")


# ── how tools are chosen ─────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("O-04")
async def test_auto_leaves_the_choice_and_calls_are_judged_by_what_is_there(
    vllm: AsyncVLLM,
) -> None:
    said = await vllm.chat.completions.create(
        messages=ASK, tools=TOOLS, tool_choice="auto", temperature=0, max_tokens=64
    )
    assert bool(said.tool_calls) is bool(said.choices[0].message.tool_calls)
    assert said.text or said.tool_calls
    assert {call.name for call in said.tool_calls} <= {"get_weather", "get_time"}


@pytest.mark.feature("O-04")
async def test_none_offers_nothing(vllm: AsyncVLLM) -> None:
    said = await vllm.chat.completions.create(
        messages=ASK, tools=TOOLS, tool_choice="none", temperature=0, max_tokens=24
    )
    assert said.text
    assert [call for call in said.tool_calls if not call.unexpected] == []


@pytest.mark.feature("O-04")
async def test_required_gives_a_call_of_one_of_the_tools(vllm: AsyncVLLM) -> None:
    asked: ChatParams = {
        "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False,
        "temperature": 0, "max_tokens": 64,
    }  # fmt: skip
    whole = await vllm.chat.completions.create(messages=ASK, **asked)
    streamed = await vllm.chat.completions.stream(messages=ASK, **asked).final()
    for reply in (whole, streamed):
        (call,) = reply.tool_calls
        assert call.name in {"get_weather", "get_time"}
        assert not call.unexpected
        assert call.error is None
        assert call.arguments is not None
        # vLLM says `stop` for these: the calls count, not the reason.
        assert reply.finish_reason in {"stop", "tool_calls"}


@pytest.mark.feature("O-04")
async def test_a_named_tool_is_the_one_that_is_called(vllm: AsyncVLLM) -> None:
    for tool in TOOLS:
        name = tool["function"]["name"]
        choice = {"type": "function", "function": {"name": name}}
        asked: ChatParams = {"tools": TOOLS, "tool_choice": choice, "max_tokens": 64}
        whole = await vllm.chat.completions.create(messages=ASK, temperature=0, **asked)
        streamed = await vllm.chat.completions.stream(messages=ASK, temperature=0, **asked).final()
        for reply in (whole, streamed):
            assert [call.name for call in reply.tool_calls] == [name]
            arguments = reply.tool_calls[0].arguments
            assert arguments is not None
            assert list(arguments) == tool["function"]["parameters"]["required"]
