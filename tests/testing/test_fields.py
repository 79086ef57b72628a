"""A request that vLLM has no field for, or with one of another type, fails the test it is in."""

from __future__ import annotations

import importlib.util
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk import AsyncVLLM
from vllm_agent_sdk.errors import BadRequestError, UsageError
from vllm_agent_sdk.testing import Reply, Simulator
from vllm_agent_sdk.testing.fields import table

from .clients import CHAT, WEATHER, Socket, ask, chat

pytestmark = pytest.mark.feature("Q-01")

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "src" / "vllm_agent_sdk" / "testing" / "fields.json"
RESPONSES = "/v1/responses"
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


async def failure_of(path: str, body: Any, *, fails: bool = True) -> tuple[Any, str]:
    """What the server answers, and the words with which the block ends."""
    answer: list[Any] = []

    async def use() -> None:
        async with Simulator() as server:
            answer.append(await ask(server, path, body))

    if not fails:
        await use()
        return answer[0], ""
    with pytest.raises(UsageError) as caught:
        await use()
    return answer[0], caught.value.message


# path, body, what the test's error says, whether the server refuses it
WRONG: dict[str, tuple[str, Any, str, bool]] = {
    "unknown": (
        CHAT,
        chat(temprature=1),
        f"POST {CHAT}: temprature is no field that the table knows there; did you mean temper",
        False,
    ),
    "unknown in a message": (
        CHAT,
        {"messages": [{"role": "user", "content": "Hi", "nmae": "a"}]},
        "messages[0].nmae is no field that the table knows there; did you mean name?",
        False,
    ),
    "unknown in a part": (
        CHAT,
        {"messages": [{"role": "user", "content": [{**IMAGE, "detail": "low"}]}]},
        "messages[0].content[0].detail is no field",
        False,
    ),
    "unknown in a tool": (
        CHAT,
        chat(tools=[{"type": "function", "function": {"name": "f", "strickt": True}}]),
        "tools[0].function.strickt is no field that the table knows there; did you mean strict?",
        False,
    ),
    "unknown in stream_options": (
        CHAT,
        chat(stream=True, stream_options={"usage": True}),
        "stream_options.usage is no field",
        False,
    ),
    "unknown of completions": (
        "/v1/completions",
        {"prompt": "a", "messages": []},
        "POST /v1/completions: messages is no field",
        False,
    ),
    "unknown of responses": (
        RESPONSES,
        {"input": "a", "max_tokens": 5},
        "max_tokens is no field that the table knows there; did you mean max_output_tokens?",
        False,
    ),
    "unknown of tokenize": (
        "/tokenize",
        {"prompt": "a", "add_special_token": True},
        "add_special_token is no field",
        False,
    ),
    "text for a number": (
        CHAT,
        chat(temperature="hot"),
        'temperature is "hot"; the table expects number | null',
        True,
    ),
    "text that vLLM makes a number of": (
        CHAT,
        chat(max_tokens="5"),
        'max_tokens is "5"; the table expects integer',
        False,
    ),
    "a fraction for an integer": (CHAT, chat(n=1.5), "n is 1.5; the table expects integer", True),
    "a truth for an integer": (CHAT, chat(n=True), "n is true; the table expects integer", False),
    "null where there is none": (
        CHAT,
        chat(skip_special_tokens=None),
        "skip_special_tokens is null; the table expects boolean",
        True,
    ),
    "a kind of its own": (
        CHAT,
        chat(response_format={"type": "xml"}),
        'response_format.type is "xml"; the table expects "text" | "json_object" | "json_schema"',
        True,
    ),
    "too many": (CHAT, chat(stop=["a"] * 5), "stop is [", True),
    "missing": (
        CHAT,
        chat(tools=[{"type": "function", "function": {}}]),
        "tools[0].function.name is missing; the table expects string",
        True,
    ),
    "an image without its address": (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].image_url.url is missing",
        False,
    ),
    "an input of another type": (
        RESPONSES,
        {"input": 5},
        "input is 5; the table expects string | list of object",
        True,
    ),
    "a part of an input": (
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_text", "txt": "a"}]}]},
        "input[0].content[0].text is missing",
        True,
    ),
    "tokens that are none": (
        "/detokenize",
        {"tokens": ["a"]},
        'POST /detokenize: tokens[0] is "a"; the table expects integer',
        True,
    ),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_vllm_has_no_field_for_fails_the_test(what: str) -> None:
    path, body, words, refused = WRONG[what]
    answer, said = await failure_of(path, body)
    assert words in said
    assert "Simulator(check_fields=False)" in said
    assert (answer.status == 400) is refused
    if refused:
        error = answer.json["error"]
        assert (error["type"], error["code"]) == ("Bad Request", 400)
        assert error["param"].startswith("body.")
        assert "validation error" in error["message"]


# What vLLM 0.32 says of these, word for word (recorded).
SAID: list[tuple[Any, str, str]] = [
    (
        chat(max_tokens="x"),
        "body.max_tokens",
        (
            "1 validation error:\n  {'type': 'int_parsing', 'loc': 'body.max_tokens', 'msg': "
            "'Input should be a valid integer, unable to parse string as an integer', "
            "'input': 'x'}"
        ),
    ),
    (
        chat(temperature="hot", stream="maybe", stop=5, logit_bias=[1], n=1.5),
        "body.logit_bias",
        (
            "6 validation errors:\n  {'type': 'dict_type', 'loc': 'body.logit_bias', 'msg': 'Input "
            "should be a valid dictionary', 'input': '<list of 1 items>'}\n  {'type': "
            "'int_from_float', 'loc': 'body.n', 'msg': 'Input should be a valid integer, got a "
            "number with a fractional part', 'input': '1.5'}\n  {'type': 'string_type', 'loc': "
            "'body.stop', 'msg': 'Input should be a valid string', 'input': '5'}\n  {'type': "
            "'list_type', 'loc': 'body.stop', 'msg': 'Input should be a valid list', 'input': '5'}"
            "\n  {'type': 'bool_parsing', 'loc': 'body.stream', 'msg': 'Input should be a valid "
            "boolean, unable to interpret input', 'input': 'maybe'}\n  {'type': 'float_parsing', "
            "'loc': 'body.temperature', 'msg': 'Input should be a valid number, unable to parse "
            "string as a number', 'input': 'hot'}"
        ),
    ),
    (
        chat(response_format=5),
        "body.response_format",
        "3 validation errors:"
        + 3
        * (
            "\n  {'type': 'model_attributes_type', 'loc': 'body.response_format', 'msg': 'Input "
            "should be a valid dictionary or object to extract fields from', 'input': '5'}"
        ),
    ),
    (
        chat(tools=[{"type": "function", "function": {}}]),
        "body.tools.0.function.name",
        (
            "1 validation error:\n  {'type': 'missing', 'loc': 'body.tools.0.function.name', "
            "'msg': 'Field required', 'input': '<dict of 0 items>'}"
        ),
    ),
]


@pytest.mark.parametrize(("body", "param", "message"), SAID)
async def test_wrong_types_are_refused_in_vllms_words(body: Any, param: str, message: str) -> None:
    async with Simulator(check_fields=False) as server:
        got = await ask(server, CHAT, body)
    error = {"message": message, "type": "Bad Request", "param": param, "code": 400}
    assert (got.status, got.json) == (400, {"error": error})


RIGHT: dict[str, tuple[str, Any]] = {
    "many fields": (
        CHAT,
        chat(
            temperature=1,
            top_p=0.5,
            top_k=5,
            seed=3,
            stop=["a"],
            user=None,
            logit_bias={"5": 1.5},
            chat_template_kwargs={"enable_thinking": False},
            vllm_xargs={"a": 1, "b": ["c"]},
            structured_outputs={"json": {"type": "object"}},
            max_tokens=5.0,
        ),
    ),
    "tools": (CHAT, chat(tools=[WEATHER], tool_choice="auto", parallel_tool_calls=False)),
    "history": (
        CHAT,
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]},
                {
                    "role": "assistant",
                    "content": None,
                    "reasoning": "b",
                    "tool_calls": [
                        {
                            "id": "1",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "c"},
            ]
        },
    ),
    "schema": (
        CHAT,
        chat(
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
            }
        ),
    ),
    "prompts of tokens": ("/v1/completions", {"prompt": [[1, 2], [3]], "echo": True}),
    "items": (
        RESPONSES,
        {
            "input": [
                {"type": "message", "role": "user", "content": "a"},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "b"},
            ],
            "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": False}],
            "reasoning": {"effort": "low"},
            "text": {"format": {"type": "text"}},
        },
    ),
}


@pytest.mark.parametrize("what", RIGHT)
async def test_what_vllm_takes_passes(what: str) -> None:
    answer, _ = await failure_of(*RIGHT[what], fails=False)
    assert answer.status == 200


async def test_one_failure_names_all_that_was_wrong_once() -> None:
    async def use() -> None:
        async with Simulator() as server:
            for _ in range(2):
                await ask(server, CHAT, chat(first=1))
            await ask(server, "/tokenize", {"prompt": "a", "second": 1})

    with pytest.raises(UsageError) as caught:
        await use()
    assert caught.value.message.count("\n- ") == 2
    assert f"POST {CHAT}: first is no field" in caught.value.message
    assert "POST /tokenize: second is no field" in caught.value.message


async def test_check_fields_off_ignores_unknown_fields_and_still_refuses_wrong_types() -> None:
    async with Simulator(check_fields=False) as server, AsyncVLLM(server.base_url) as vllm:
        messages = [{"role": "user", "content": "Hi"}]
        reply = await vllm.chat.completions.create(messages=messages, extra_body={"new": 1})
        assert reply.text == "OK"
        with pytest.raises(BadRequestError) as caught:
            await vllm.chat.completions.create(messages=messages, extra_body={"user": 1})
    assert caught.value.param == "body.user"


def test_plain_with_fails_as_well_and_the_clients_own_error_is_its_cause() -> None:
    def use() -> None:
        with Simulator() as server:
            data = json.dumps(chat(user=1)).encode()
            headers = {"content-type": "application/json"}
            urllib.request.urlopen(
                urllib.request.Request(f"{server.base_url}/chat/completions", data, headers)
            )

    with pytest.raises(UsageError, match="user is 1; the table expects string") as caught:
        use()
    cause = caught.value.__cause__
    assert isinstance(cause, urllib.error.HTTPError)
    assert cause.code == 400
    cause.close()


async def test_a_refused_request_uses_up_no_reply() -> None:
    async with Simulator(Reply.text("a"), check_fields=False) as server, Socket(server) as client:
        client.send(CHAT, chat(user=1))
        assert (await client.reply()).status == 400
        client.send(CHAT, chat())
        assert (await client.reply()).json["choices"][0]["message"]["content"] == "a"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["role", "content", "type", "text", "tools", "messages", "input", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(sorted(table().endpoints)),
    st.sampled_from(["messages", "tools", "stop", "n", "input", "prompt", "tool_choice", "text"]),
)
def test_any_value_anywhere_is_right_or_wrong_and_nothing_else(
    value: Any, path: str, field: str
) -> None:
    for problem in table().problems(path, {field: value}):
        assert problem.path
        assert problem.what
        assert all(error["loc"].startswith("body") for error in problem.errors)


# ── the table itself ─────────────────────────────────────────────────────────────────────────────


def test_the_table_is_small_and_closed() -> None:
    assert TABLE.stat().st_size < 60_000
    written = json.loads(TABLE.read_text())
    assert written["vllm"] == "0.32.0"

    def references(value: Any) -> set[str]:
        if isinstance(value, str):
            return {value[1:]} if value.startswith("#") else set()
        if isinstance(value, dict):
            value = [each for key, each in value.items() if key not in ("max", "one of")]
        return set().union(*(references(each) for each in value))

    named = {key: [each.get("fields", {})] for key, each in written["types"].items()}
    found = references(list(named.values())) | references(written["endpoints"])
    assert found == set(written["types"])


def record_fields() -> Any:
    spec = importlib.util.spec_from_file_location(
        "record_fields", ROOT / "tools" / "record_fields.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_simulators_openapi_document_gives_the_same_table_again() -> None:
    async with Simulator() as server:
        document = (await ask(server, "/openapi.json")).json
    tool = record_fields()
    assert set(tool.PATHS) == set(table().endpoints)
    again = tool.fields_table(document, "0.32.0")
    assert json.loads(tool.written(again)) == json.loads(TABLE.read_text())
