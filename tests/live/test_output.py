"""Typed output and constraints on a real server."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from vllm_agent_sdk import AsyncVLLM, OutputValidationError

from .servers import LiveServer

pytestmark = [pytest.mark.live, pytest.mark.server("A")]

ASK: Any = [{"role": "user", "content": "Which colour has the sky? How many suns does it have?"}]
COLD: Any = {"messages": ASK, "temperature": 0, "max_tokens": 96}


@dataclass
class Sky:
    colour: Literal["blue", "green"]
    day: bool


class Colour(enum.Enum):
    BLUE = "blue"
    GREEN = "green"


class Struct(msgspec.Struct):
    colour: Colour


class Keys(TypedDict):
    colour: Colour


class Suns(pydantic.BaseModel):
    suns: Literal[1, 2]


@pytest.fixture
async def vllm(server: LiveServer) -> AsyncIterator[AsyncVLLM]:
    async with AsyncVLLM(server.base_url, api_key=server.api_key) as client:
        yield client


@pytest.mark.feature("O-02")
async def test_objects_of_classes_come_back_whole_and_streamed(vllm: AsyncVLLM) -> None:
    sky = (await vllm.chat.completions.create(**COLD, response_type=Sky)).parsed
    assert isinstance(sky, Sky)
    assert sky.colour in {"blue", "green"}
    streamed = await vllm.chat.completions.stream(**COLD, response_type=Suns).final()
    assert isinstance(streamed.parsed, Suns)
    assert streamed.parsed.suns in {1, 2}


@pytest.mark.feature("O-02")
async def test_types_that_are_no_objects_work_at_the_top(vllm: AsyncVLLM) -> None:
    create = vllm.chat.completions.create
    assert (await create(**COLD, response_type=Literal["blue", "green"])).parsed in {
        "blue",
        "green",
    }
    assert isinstance((await create(**COLD, response_type=bool)).parsed, bool)
    either = (await create(**COLD, response_type=Sky | Suns)).parsed
    assert isinstance(either, (Sky, Suns))
    schema = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 2}
    listed = (await create(**COLD, response_type=schema)).parsed
    assert listed is not None
    assert [item in {1, 2} for item in listed] == [True, True]


@pytest.mark.feature("O-02")
async def test_a_reply_that_is_cut_is_no_value(vllm: AsyncVLLM) -> None:
    long = Annotated[str, pydantic.Field(min_length=400)]
    with pytest.raises(OutputValidationError) as caught:
        await vllm.chat.completions.create(**{**COLD, "max_tokens": 8}, response_type=long)
    assert caught.value.finish_reason == "length"
    assert caught.value.partial.text.startswith('"')


@pytest.mark.feature("O-01")
async def test_all_forms_of_constraints_are_kept(vllm: AsyncVLLM) -> None:
    create = vllm.chat.completions.create

    async def said(**constraint: Any) -> str:
        return (await create(**COLD, **constraint)).text

    assert await said(structured_outputs={"choice": ["red", "blue"]}) in {"red", "blue"}
    pattern = r"\d{3}-[a-f]{2}"
    assert re.fullmatch(pattern, await said(structured_outputs={"regex": pattern}))
    grammar = 'root ::= "the sky is " ("red" | "blue")'
    assert (await said(structured_outputs={"grammar": grammar})).startswith("the sky is ")
    schema = {
        "type": "object",
        "properties": {"sky": {"enum": ["red", "blue"]}},
        "required": ["sky"],
        "additionalProperties": False,
    }
    assert set(json.loads(await said(structured_outputs={"json": schema}))) == {"sky"}
    form = {"type": "json_schema", "json_schema": {"name": "sky", "schema": schema}}
    assert set(json.loads(await said(response_format=form))) == {"sky"}
    for free in (
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"json_object": True}},
    ):
        assert (await said(**free)).lstrip().startswith("{")
    part = {"type": "json_schema", "json_schema": schema}
    tag = {"type": "tag", "begin": "<sky>", "content": part, "end": "</sky>"}
    tagged = await said(response_format={"type": "structural_tag", "format": tag})
    assert re.fullmatch(r"<sky>\s*\{.*\}\s*</sky>", tagged, re.DOTALL)
    text = json.dumps({"type": "structural_tag", "format": tag})
    assert (await said(structured_outputs={"structural_tag": text})).startswith("<sky>")


@pytest.mark.feature("O-02")
async def test_enums_structs_and_keys_are_read(vllm: AsyncVLLM) -> None:
    create = vllm.chat.completions.create
    assert (await create(**COLD, response_type=Colour)).parsed in Colour
    struct = (await create(**COLD, response_type=Struct)).parsed
    assert isinstance(struct, Struct)
    assert struct.colour in Colour
    keys = (await create(**COLD, response_type=Keys)).parsed
    assert keys is not None
    assert keys["colour"] in Colour


@pytest.mark.feature("O-02")
async def test_what_the_server_takes_and_does_not_enforce_is_named(vllm: AsyncVLLM) -> None:
    schema = {"enum": [1], "not": {"enum": [1]}}
    with pytest.raises(OutputValidationError) as caught:
        await vllm.chat.completions.create(**COLD, response_type=schema)
    assert caught.value.unenforced == ("not",)
    assert caught.value.partial.text == "1"
