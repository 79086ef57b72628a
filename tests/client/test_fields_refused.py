"""What is refused before anything is sent: wrong types, pairs that cannot be, hidden or not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vllm_agent_sdk.errors import ConstraintIgnoredError, OutputStalledError, UsageError
from vllm_agent_sdk.testing import Reply
from vllm_agent_sdk.types.completions import Completion
from vllm_agent_sdk.types.reply import ServerLoad
from vllm_agent_sdk.types.responses import Response

from .support import HI, WEATHER, FixedTransport, served
from .test_fields import ENDPOINTS, call
from .test_requests import client

NAMED = {"type": "function", "function": {"name": "get_weather"}}
CHOICE = {"choice": ["a", "b"]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}


# ── types ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("E-01")
@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"temperature": "hot"}, "temperature= takes a number, not str."),
        ({"top_k": 1.5}, "top_k= takes a whole number, not float."),
        ({"seed": True}, "seed= takes a whole number, not bool."),
        ({"ignore_eos": 1}, "ignore_eos= takes True or False, not int."),
        ({"user": 7}, "user= takes text, not int."),
        ({"stop": 7}, "stop= takes text or a list of texts, not int."),
        ({"stop": ["a", 7]}, "stop= takes text or a list of texts, not list of int and str."),
        ({"stop_token_ids": ["1"]}, "stop_token_ids= takes a list of whole numbers, not list"),
        ({"stop_token_ids": {1, 2}}, "stop_token_ids= takes a list of whole numbers, not set"),
        ({"logit_bias": {"1": "x"}}, "logit_bias= takes a dict of numbers, not dict of str."),
        ({"structured_outputs": "json"}, "structured_outputs= takes a dict, not str."),
        ({"extra_body": [1]}, "extra_body= takes a dict, not list"),
        ({"extra_headers": "x"}, "extra_headers= takes a dict, not str."),
        ({"request_id": 7}, "request_id= takes text, not int."),
        ({"model": 7}, "model= takes text, not int."),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
async def test_a_value_of_a_wrong_type_names_the_field_and_what_it_takes(
    path: str, params: dict[str, Any], text: str
) -> None:
    async with served() as (server, vllm):
        with pytest.raises(UsageError) as caught:
            await call(vllm, path, "", params)
    assert text in caught.value.message
    assert server.requests == []


@pytest.mark.feature("E-01")
@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"bad_words": "bad"}, "bad_words= takes a list of texts, not str."),
        ({"truncation_side": 1}, "truncation_side= takes 'left' or 'right', not int."),
        ({"tools": "f"}, "tools= takes a list, not str."),
        ({"tools": WEATHER}, "tools= takes a list, not dict"),
        ({"tool_choice": 1}, "tool_choice= takes 'none' or 'auto' or 'required' or a dict, not"),
        ({"logprobs": 5}, "logprobs= takes True or False, not int."),
        ({"documents": [1]}, "documents= takes a list of dicts, not list of int."),
        ({"stream_options": True}, "stream_options= takes a dict, not bool."),
        ({"data_parallel_rank": "0"}, "data_parallel_rank= takes a whole number, not str."),
        ({"load_metrics": "JSON"}, "load_metrics= takes True or False, not str."),
    ],
)
async def test_the_same_of_the_fields_of_chats(params: dict[str, Any], text: str) -> None:
    transport, vllm = client()
    for make in (vllm.chat.completions.stream, vllm.chat.completions.create):
        with pytest.raises(UsageError) as caught:
            await make(messages=HI, **params)  # type: ignore[misc]
        assert text in caught.value.message
    assert transport.requests == []


@pytest.mark.feature("E-01")
async def test_a_misspelt_option_of_a_stream_is_named() -> None:
    _, vllm = client()
    options: Any = {"include_usge": True}
    with pytest.raises(UsageError, match=r"stream_options= has no field 'include_usge'.*usage="):
        vllm.chat.completions.stream(messages=HI, stream_options=options)


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_an_unknown_keyword_names_the_nearest(path: str) -> None:
    async with served() as (server, vllm):
        with pytest.raises(UsageError, match=r"no field 'modle'. Did you mean model="):
            await call(vllm, path, "", {"modle": "m"})
    assert server.requests == []


async def test_tuples_numbers_as_keys_and_nulls_are_taken() -> None:
    async with served() as (server, vllm):
        await vllm.chat.completions.create(
            messages=HI, stop=("a", "b"), user="u", seed=None, logit_bias={5: 1}
        )
        sent = server.requests[0].json
    assert (sent["stop"], sent["user"], sent["seed"]) == (["a", "b"], "u", None)
    assert sent["logit_bias"] == {"5": 1}


# ── ranges and pairs, in the keywords and hidden in extra_body ───────────────────────────────────


@pytest.mark.feature("E-01")
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"temperature": 2.5}, "temperature=2.5: give a number from 0 to 2"),
        ({"top_p": 0}, "top_p=0: give a number above 0"),
        ({"min_p": 1.1}, "min_p=1.1"),
        ({"top_k": -2}, "top_k=-2"),
        ({"repetition_penalty": 0}, "repetition_penalty=0"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"max_completion_tokens": -1}, "max_completion_tokens=-1"),
        ({"n": 0}, "n=0"),
        ({"n": 2, "temperature": 0}, "n=2 at temperature=0"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens=5 is more than the 4"),
        ({"seed": 2**63}, "64 bits"),
        ({"stop": [""]}, "stop= holds an empty text"),
        ({"stop": ""}, "stop= holds an empty text"),
        ({"bad_words": ["a", ""]}, "bad_words= holds an empty text"),
        ({"allowed_token_ids": []}, "allowed_token_ids= is empty"),
        ({"prompt_logprobs": -2}, "prompt_logprobs=-2"),
        ({"top_logprobs": 2}, "top_logprobs= needs logprobs=True"),
        ({"logprob_token_ids": [1]}, "logprob_token_ids= needs logprobs="),
        (
            {"logprob_token_ids": [1], "logprobs": True, "use_beam_search": True},
            "cannot go with use_beam_search=",
        ),
        ({"stream_options": {"include_usage": True}}, "needs a stream"),
        ({"tools": []}, "tools= is empty"),
        ({"tool_choice": "auto"}, "tool_choice= needs tools="),
        ({"tool_choice": NAMED}, "tool_choice= needs tools="),
        ({"tool_choice": {"type": "function"}, "tools": [WEATHER]}, "names a tool as"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": [WEATHER]},
            r"names 'x', which is not among tools= \(get_weather\)",
        ),
        ({"cache_salt": "a/b"}, "cache_salt="),
        ({"structured_outputs": {}}, "none given"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "regex and choice given"),
        ({"structured_outputs": CHOICE, "response_format": SCHEMA}, "two kinds of constraint"),
        ({"response_format": {"type": "json_schema"}}, 'needs "json_schema"'),
        ({"response_format": SCHEMA, "include_reasoning": False}, "include_reasoning=False"),
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            "give one of them",
        ),
    ],
)
async def test_what_no_server_takes_is_refused_wherever_it_stands(
    params: dict[str, Any], text: str, hidden: bool
) -> None:
    transport, vllm = client()
    if hidden:
        params = {"extra_body": params}
    with pytest.raises(UsageError, match=text):
        await vllm.chat.completions.create(messages=HI, **params)
    assert transport.requests == []


async def test_two_constraints_in_two_places_are_found() -> None:
    transport, vllm = client()
    with pytest.raises(UsageError, match="two kinds of constraint"):
        await vllm.chat.completions.create(
            messages=HI, structured_outputs=CHOICE, extra_body={"response_format": SCHEMA}
        )
    with pytest.raises(UsageError, match=r"text=\{'format'"):
        await vllm.responses.create(
            input="Hi",
            structured_outputs=CHOICE,
            extra_body={"text": {"format": {"type": "json_object"}}},
        )
    with pytest.raises(UsageError, match="two kinds of constraint"):
        await vllm.completions.create(
            prompt="a", response_format=SCHEMA, extra_body={"structured_outputs": CHOICE}
        )
    assert transport.requests == []


async def test_a_choice_of_tools_in_the_extra_body_is_sent() -> None:
    async with served() as (server, vllm):
        await vllm.chat.completions.create(
            messages=HI, tool_choice="required", extra_body={"tools": [WEATHER]}
        )
    assert server.requests[0].json["tools"] == [WEATHER]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
async def test_whether_it_is_a_stream_is_not_for_the_extra_body(path: str) -> None:
    async with served() as (server, vllm):
        with pytest.raises(UsageError, match="cannot set stream"):
            await call(vllm, path, "", {"extra_body": {"stream": True}})
    assert server.requests == []


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"max_tokens": 0}, "together with echo=True"),
        ({"max_tokens": -1}, "max_tokens=-1"),
        ({"logprobs": -2}, "logprobs=-2"),
        ({"n": 2, "temperature": 0.0}, "n=2 at temperature=0"),
        (
            {"max_tokens": 0, "echo": True, "logprobs": 1, "logprob_token_ids": [1]},
            "needs tokens of a reply",
        ),
        ({"extra_body": {"cache_salt": "@"}}, "cache_salt="),
    ],
)
async def test_what_no_server_takes_of_a_completion(params: dict[str, Any], text: str) -> None:
    async with served() as (server, vllm):
        with pytest.raises(UsageError, match=text):
            await vllm.completions.create(prompt="a", **params)
        with pytest.raises(UsageError, match=text):
            vllm.completions.stream(prompt="a", **params)
    assert server.requests == []


async def test_what_a_beam_search_cannot_go_with() -> None:
    async with served() as (server, vllm):
        with pytest.raises(UsageError, match="echo= and logprobs="):
            await vllm.completions.create(prompt="a", use_beam_search=True, echo=True, logprobs=1)
    assert server.requests == []


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"max_output_tokens": 0}, "max_output_tokens=0"),
        ({"structured_outputs": {"regex": "a", "json": {}}}, "json and regex given"),
        ({"extra_body": {"temperature": 3}}, "temperature=3"),
        ({"extra_body": {"prompt": {"id": "p"}}}, "prompt templates"),
        ({"tool_choice": {"type": "function"}, "tools": [WEATHER]}, "names a tool as"),
        (
            {"tool_choice": {"type": "function", "name": "x"}, "tools": [WEATHER]},
            "names 'x', which is not among",
        ),
        ({"load_metrics": True}, "load_metrics= is for chat.completions and completions"),
        ({"data_parallel_rank": 0}, "data_parallel_rank= is for chat.completions"),
    ],
)
async def test_what_no_server_takes_of_a_response(params: dict[str, Any], text: str) -> None:
    async with served() as (server, vllm):
        with pytest.raises(UsageError, match=text):
            await vllm.responses.create(input="Hi", **params)
        with pytest.raises(UsageError, match=text):
            vllm.responses.stream(input="Hi", **params)
    assert server.requests == []


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"chat_template": "x"}, "chat_template= can only go with messages="),
        ({"return_token_strs": 1}, "return_token_strs= takes True or False"),
    ],
)
async def test_what_tokenize_does_not_take(args: dict[str, Any], text: str) -> None:
    async with served() as (server, vllm):
        with pytest.raises(UsageError, match=text):
            await vllm.tokenize("a", **args)
        with pytest.raises(UsageError, match="takes token ids"):
            await vllm.detokenize([1, -1])
    assert server.requests == []


# ── the two headers ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("E-01")
async def test_ranks_and_load_are_refused_where_they_make_no_sense() -> None:
    transport, vllm = client()
    for make in (vllm.chat.completions, vllm.completions):
        given: Any = {"messages": HI} if make is vllm.chat.completions else {"prompt": "a"}
        with pytest.raises(UsageError, match="works without a stream only"):
            make.stream(**given, load_metrics=True)
        with pytest.raises(UsageError, match="data_parallel_rank=-1: give 0 or more"):
            await make.create(**given, data_parallel_rank=-1)
        with pytest.raises(UsageError, match="beside the keyword"):
            await make.create(
                **given, data_parallel_rank=1, extra_headers={"X-Data-Parallel-Rank": "2"}
            )
    assert transport.requests == []


@pytest.mark.feature("E-01")
@pytest.mark.parametrize(
    ("header", "load"),
    [
        (
            'JSON {"named_metrics": {"num_requests_waiting": 3.0, "kv_cache_usage_perc": 0.5}}',
            ServerLoad(0.5, 3.0),
        ),
        ('JSON {"named_metrics": {}}', ServerLoad()),
        ("JSON {}", None),
        ("JSON {", None),
        ("TEXT named_metrics.kv_cache_usage_perc=0.5", None),
        (None, None),
    ],
)
async def test_the_load_is_read_from_the_head_of_the_reply(
    header: str | None, load: ServerLoad | None
) -> None:
    class Loaded(FixedTransport):
        async def send(self, request: Any) -> Any:
            stream: Any = await super().send(request)
            if header is not None:
                stream.headers["endpoint-load-metrics"] = header
            return stream

    from vllm_agent_sdk import AsyncVLLM

    vllm = AsyncVLLM("http://fixed", model="m", transport=Loaded(b'{"choices": []}'))
    said = await vllm.chat.completions.create(messages=HI, load_metrics=True)
    text = await vllm.completions.create(prompt="a", load_metrics=True)
    assert said.server_load == text.server_load == load
    assert (await vllm.completions.create(prompt="a")).server_load is None


# ── constraints that were passed over, and white space without end ───────────────────────────────


@pytest.mark.feature("O-01")
async def test_a_completion_that_is_none_of_the_choices_is_an_error() -> None:
    async with served(Reply.text("c")) as (_, vllm):
        for ask in (
            vllm.completions.create(prompt="a", structured_outputs=CHOICE),
            vllm.completions.stream(prompt="a", structured_outputs={"regex": "[ab]"}).final(),
        ):
            with pytest.raises(ConstraintIgnoredError, match="does not match: 'c'") as caught:
                await ask
            assert isinstance(caught.value.partial, Completion)
            assert caught.value.partial.text == "c"
            assert caught.value.request_id
    async with served(Reply.text("b")) as (_, vllm):
        await vllm.completions.create(prompt="a", structured_outputs=CHOICE)
        await vllm.completions.create(prompt="a", structured_outputs={"regex": "x"}, echo=True)
    async with served(Reply.text("c", finish_reason="length")) as (_, vllm):
        await vllm.completions.create(prompt="a", structured_outputs=CHOICE)


@pytest.mark.feature("O-01")
async def test_a_response_that_is_none_of_the_choices_is_an_error() -> None:
    async with served(Reply.text("c")) as (_, vllm):
        for ask in (
            vllm.responses.create(input="Hi", structured_outputs=CHOICE),
            vllm.responses.stream(input="Hi", structured_outputs=CHOICE).final(),
        ):
            with pytest.raises(ConstraintIgnoredError, match="choice") as caught:
                await ask
            assert isinstance(caught.value.partial, Response)
            assert caught.value.partial.text == "c"
        await vllm.responses.create(input="Hi", structured_outputs=CHOICE, stop="x")
    async with served(Reply.text("a")) as (_, vllm):
        await vllm.responses.stream(input="Hi", structured_outputs=CHOICE).final()


@pytest.mark.feature("S-06")
async def test_white_space_without_end_is_cut_in_completions_and_responses() -> None:
    object_ = {"json_object": True}
    stalled = Reply.text('{"a":' + " " * 80, split=8)
    async with served(stalled) as (_, vllm):
        with pytest.raises(OutputStalledError) as caught:
            await vllm.completions.stream(prompt="a", structured_outputs=object_).final()
        assert caught.value.partial.text.startswith('{"a":')
        for constraint in (
            {"structured_outputs": object_},
            {"text": {"format": {"type": "json_object"}}},
        ):
            with pytest.raises(OutputStalledError) as caught:
                await vllm.responses.stream(input="Hi", **constraint).final()  # type: ignore[arg-type]
            assert caught.value.partial.text.startswith('{"a":')
        assert (await vllm.completions.stream(prompt="a").final()).text.endswith(" ")
        assert (await vllm.responses.stream(input="Hi").final()).text.endswith(" ")


def arguments_in_pieces(*pieces: str) -> bytes:
    """A stream of one call whose arguments come in these pieces."""
    chunks: list[dict[str, Any]] = [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "get_weather"}}]}
    ]
    chunks += [{"tool_calls": [{"index": 0, "function": {"arguments": each}}]} for each in pieces]
    events = [{"choices": [{"index": 0, "delta": delta}]} for delta in chunks]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


@pytest.mark.feature("S-06")
@pytest.mark.parametrize(
    ("choice", "strict", "cut"),
    [("required", None, True), (NAMED, None, True), (None, True, True), (None, False, False)],
)
async def test_white_space_without_end_in_constrained_arguments_is_cut(
    choice: Any, strict: bool | None, cut: bool
) -> None:
    tool = {"type": "function", "function": {**WEATHER["function"], "strict": strict}}  # type: ignore[dict-item]
    asked: dict[str, Any] = {"tools": [tool]} | ({"tool_choice": choice} if choice else {})
    stalled = arguments_in_pieces('{"city":', *[" " * 8] * 8, '"Paris"}')
    inside = arguments_in_pieces('{"city":"', " " * 80, 'Paris"}')
    _, vllm = client(stalled)
    if cut:
        with pytest.raises(OutputStalledError) as caught:
            await vllm.chat.completions.stream(messages=HI, **asked).final()
        assert caught.value.partial.tool_calls[0].arguments_json.startswith('{"city": ')
    else:
        said = await vllm.chat.completions.stream(messages=HI, **asked).final()
        assert said.tool_calls[0].arguments == {"city": "Paris"}
    _, vllm = client(inside)
    said = await vllm.chat.completions.stream(messages=HI, **asked).final()
    assert said.tool_calls[0].arguments == {"city": " " * 80 + "Paris"}
