"""The lines of a log, of this version and of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk._core.run.run import evolve
from vllm_agent_sdk._core.run.state import State
from vllm_agent_sdk.errors import StoreError
from vllm_agent_sdk.types import event_lines
from vllm_agent_sdk.types.event_lines import kept, read_line, write_line
from vllm_agent_sdk.types.events import Notice, RunEnded, TextDelta, encode_event
from vllm_agent_sdk.types.messages import UserMessage
from vllm_agent_sdk.types.results import RunResult

LOGS = Path(__file__).parents[1] / "fixtures" / "logs"
EXPECTED: list[dict[str, Any]] = json.loads((LOGS / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.feature("D-01")
@pytest.mark.parametrize("expected", EXPECTED, ids=lambda each: each["log"])
def test_a_log_of_an_earlier_release_is_read_and_leads_where_it_led(
    expected: dict[str, Any],
) -> None:
    """These files were written once, and are never written anew."""
    state = State()
    for line in (LOGS / expected["log"]).read_bytes().splitlines():
        state = evolve(state, read_line(line))
    assert state.phase == expected["phase"]
    assert [message.text for message in state.history] == expected["messages"]


def test_an_older_form_is_brought_up_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    old = b'{"type":"remark","text":"x","v":-1}'
    steps = {
        -1: lambda event: {**event, "type": "notice"},
        0: lambda event: {**event, "code": "old"},
    }
    with pytest.raises(StoreError, match="no event"):
        read_line(b'{"type":"remark","text":"x","v":1}')
    monkeypatch.setattr(event_lines, "UPCASTERS", steps)
    assert read_line(old) == Notice("old", "x")
    assert read_line(b'{"type":"notice","text":"x","v":0}') == Notice("old", "x")


@pytest.mark.parametrize("line", [b'{"type":"notice","code":"c","text":"x","v":2}',
                                  b'{"type":"brand_new","v":7}'])  # fmt: skip
def test_a_newer_form_is_refused(line: bytes) -> None:
    with pytest.raises(StoreError, match="newer vllm-agent-sdk"):
        read_line(line)


@pytest.mark.parametrize("line", [b"", b"{", b"null", b"[]", b"\xff", b'{"type":"notice"}',
                                  b'{"type":"nothing"}', b"[" * 100_000])  # fmt: skip
def test_what_is_no_event_is_a_store_error(line: bytes) -> None:
    with pytest.raises(StoreError, match="no event"):
        read_line(line)


def test_a_delta_is_never_stored() -> None:
    with pytest.raises(StoreError, match="never stored"):
        read_line(encode_event(TextDelta("x")))


def test_a_result_is_kept_without_its_messages() -> None:
    result: RunResult[Any] = RunResult(text="x", messages=[UserMessage("hi")])
    event = RunEnded(result=result, seq=3, run_id="r")
    assert read_line(write_line(event)) == kept(event)
    assert kept(event) == RunEnded(result=RunResult(text="x"), seq=3, run_id="r")
    assert result.messages, "what is shown to others stays as it is"
