"""Whole completions: every field is kept, nothing in one is no exception; prompts are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from vllm_agent_sdk.types.completions import decode_completion, prompt_count

FULL = sorted((Path(__file__).parents[1] / "fixtures" / "completions" / "full").glob("*.json"))


@pytest.mark.feature("E-02")
@pytest.mark.parametrize("path", FULL, ids=lambda path: path.stem)
def test_a_whole_reply_keeps_every_field(path: Path) -> None:
    raw = path.read_bytes()
    said = decode_completion(raw)
    said.attach(raw, "r-1")
    assert said.extra == {}
    assert (said.raw, said.request_id) == (raw, "r-1")

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            inner = {key: kept(item) for key, item in value.items()}
            return {key: item for key, item in inner.items() if item not in (None, 0, [], "")}
        return [kept(item) for item in value] if isinstance(value, list) else value

    ours = kept(msgspec.to_builtins(said))
    sent = kept(msgspec.json.decode(raw))
    assert sent.pop("object") == said.object  # our default is not written
    ours.pop("object", None)
    assert ours == sent


@pytest.mark.feature("E-02")
@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"choices":[]}',
        b'{"choices":null}',
        b'{"choices":[{}]}',
        b'{"choices":[{"text":null}]}',
    ],
)
def test_a_reply_with_nothing_in_it_is_returned(body: bytes) -> None:
    said = decode_completion(body)
    assert (said.text, said.finish_reason, said.usage, said.raw) == ("", None, None, b"")


def test_what_is_unknown_is_kept_at_any_level() -> None:
    raw = b'{"new":1,"choices":[{"text":"a","later":2}]}'
    said = decode_completion(raw)
    said.attach(raw, None)
    assert said.extra == {"new": 1, "choices": [{"later": 2}]}


def test_prompts_are_counted_as_the_server_counts_them() -> None:
    one: list[Any] = ["a", "", [1, 2, 3], ["a"], [[1, 2]]]
    assert [prompt_count(prompt) for prompt in one] == [1, 1, 1, 1, 1]
    assert [prompt_count(p) for p in (["a", "b"], [[1], [2], [3]], None)] == [2, 3, 0]
