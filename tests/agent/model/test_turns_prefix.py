"""How each request begins, next to the one before it: seen by its bytes, and the cause named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.run.log import Log
from vllm_agent_sdk._core.run.model import compacted_between
from vllm_agent_sdk._core.run.state import State, replace
from vllm_agent_sdk._core.schema.grammar import strict_tool
from vllm_agent_sdk.agent.model.turns import Traits, TurnWriter
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.context import Prefix
from vllm_agent_sdk.types.events import Compacted, RunStarted
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    Message,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vllm_agent_sdk.types.tools import ToolSpec

pytestmark = pytest.mark.feature("A-13", "Q-05")

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
F = ToolSpec(name="f", description="Do it", parameters=SCHEMA)
G = ToolSpec(name="g", parameters={"type": "object"}, strict=False)
MODES = ["plain", "native", "required", "guided", "envelope"]
HI = UserMessage("Hi")


def begun(mode: str, *history: Message, tools: tuple[ToolSpec, ...] = (F, G), **more: Any) -> State:
    return State(
        started=RunStarted(model="m", tools=list(tools), **more),
        model="m",
        tools=() if mode == "plain" else tools,
        turn=1,
        turn_mode=mode,
        dialect="text" if mode in {"guided", "envelope"} else "native",
        history=Log[Message]([*history]),
    )


def said(number: int, *, call: bool, text: str = "ok") -> list[Message]:
    """What a turn adds: an answer and the next prompt, or a call and its result."""
    if not call:
        return [AssistantMessage([TextBlock(text)]), UserMessage("And?")]
    made = ToolCall.from_text(f"c{number}", "f", '{"city": "Rome"}')
    return [AssistantMessage([made]), ToolMessage(f"c{number}", text)]


def grown(state: State, *messages: Message, **changes: Any) -> State:
    return replace(state, history=state.history.appended(*messages), **changes)


def written(params: dict[str, Any]) -> bytes:
    """The prompt's parts as they go out: the tools, then the messages."""
    tools = params.get("tools")
    head = _codec.encode([strict_tool(tool) for tool in tools]) if tools else b""
    return head + b"".join(bytes(message) for message in params["messages"])


def common(one: bytes, other: bytes) -> int:
    """How many bytes two requests begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


class Asked:
    """A writer whose requests are compared by their bytes, beside what it says of them."""

    def __init__(self, traits: Traits | None = None) -> None:
        self.writer = TurnWriter(traits)
        self.before: bytes | None = None

    def __call__(self, state: State) -> Prefix:
        params = self.writer.params(state)
        prefix = self.writer.prefix(state, params)
        now = written(params)
        messages = params["messages"]
        assert bytes(messages.joined) == b",".join(bytes(each) for each in messages)
        assert prefix.sent_bytes == len(now)
        assert prefix.previous_bytes == (None if self.before is None else len(self.before))
        if self.before is None:
            assert (prefix.kept_bytes, prefix.cause) == (None, None)
        else:
            elsewhere = prefix.cause in {"model changed", "template options changed"}
            assert prefix.kept_bytes == (0 if elsewhere else common(self.before, now))
            assert (prefix.cause is None) == (not elsewhere and now.startswith(self.before))
        self.before = now
        return prefix


# ── the causes ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", MODES)
def test_a_conversation_that_grows_keeps_all_of_its_bytes(mode: str) -> None:
    ask, state = Asked(), begun(mode, HI, instructions="Be brief.")
    assert ask(state).previous_bytes is None
    for number in range(4):
        state = grown(state, *said(number, call=mode != "plain"), turn=number + 2)
        prefix = ask(state)
        assert prefix.cause is None
        assert prefix.kept_bytes == prefix.previous_bytes


@pytest.mark.parametrize("mode", ["native", "guided", "envelope"])
def test_other_tools_are_named_wherever_the_model_is_told_of_them(mode: str) -> None:
    ask, state = Asked(), begun(mode, HI)
    ask(state)
    prefix = ask(grown(state, *said(0, call=True), tools=(G,)))
    assert prefix.cause == "tools changed"
    assert 0 < (prefix.kept_bytes or 0) < (prefix.previous_bytes or 0)


@pytest.mark.parametrize("mode", ["plain", "native", "guided"])
def test_another_system_text_is_named(mode: str) -> None:
    ask, state = Asked(), begun(mode, HI, instructions="Be brief.")
    ask(state)
    # As in the next run of a session whose agent was changed.
    prefix = ask(replace(state, started=begun(mode, instructions="Be long.").started))
    assert prefix.cause == "system text changed"


def test_another_dialect_is_named() -> None:
    ask, state = Asked(), begun("native", HI, instructions="Be brief.")
    ask(state)
    guided = grown(state, *said(0, call=True), turn_mode="guided", dialect="text")
    assert ask(guided).cause == "dialect changed"
    assert ask(replace(guided, turn_mode="envelope")).cause == "dialect changed"


def test_a_summary_is_named() -> None:
    ask, state = Asked(), begun("native", HI, *said(0, call=True), UserMessage("And?"))
    ask(state)
    summed = compacted_between(state, Compacted(messages=3, summary="Hi was said."))
    assert ask(summed).cause == "compacted"
    assert ask(grown(summed, *said(1, call=True))).cause is None


@pytest.mark.parametrize("kept", [1, 2])
def test_a_history_that_is_another_is_named_even_where_its_last_message_is_equal(kept: int) -> None:
    history = [HI, *said(0, call=False), *said(1, call=False)]
    ask, state = Asked(), begun("plain", *history)
    ask(state)
    other = [*history[:kept], UserMessage("What?"), AssistantMessage([TextBlock("No")])]
    other += [UserMessage("And?")] * (5 - len(other))
    prefix = ask(replace(state, history=Log[Message](other)))
    assert prefix.cause == "history rewritten"


def test_another_model_and_other_template_options_find_nothing() -> None:
    ask = Asked(Traits(thinking_switch="enable_thinking"))
    state = begun("plain", HI)
    ask(state)
    other = ask(replace(state, model="lora"))
    assert (other.cause, other.kept_bytes) == ("model changed", 0)
    off = ask(replace(state, model="lora", thinking_off=True))
    assert (off.cause, off.kept_bytes) == ("template options changed", 0)


def test_what_the_server_refused_was_never_read() -> None:
    writer, state = TurnWriter(), begun("plain", HI, UserMessage("Still there?"))
    writer.prefix(state, writer.params(state))
    amended = writer.amended(state, "Conversation roles must alternate user/assistant")
    assert amended is not None
    after = grown(state, *said(0, call=False))
    prefix = writer.prefix(after, writer.params(after))
    assert prefix.cause is None
    assert prefix.previous_bytes == len(written(amended))


def test_an_answer_that_never_came_lets_strict_roles_rewrite_the_last_message() -> None:
    ask, state = Asked(Traits(roles="strict")), begun("plain", HI)
    ask(state)
    prefix = ask(grown(state, UserMessage("Still there?")))
    assert prefix.cause == "history rewritten"
    assert prefix.kept_bytes == (prefix.previous_bytes or 0) - len(b'"}')


def test_the_ids_of_calls_are_those_of_the_conversation_as_it_stands() -> None:
    writer, history = TurnWriter(), Log[Message]([HI, *said(0, call=True)])
    assert writer.call_ids(history) == {"c0"}
    longer = history.appended(*said(1, call=True))
    assert writer.call_ids(longer) == {"c0", "c1"}
    assert writer.call_ids(history.appended(*said(2, call=True))) == {"c0", "c2"}


# ── any conversation ─────────────────────────────────────────────────────────────────────────────

STEPS = st.lists(
    st.sampled_from(
        ["turn", "turn", "turn", "tools", "system", "mode", "model", "summary", "rewind", "again"]
    ),
    max_size=12,
)


@given(
    mode=st.sampled_from(MODES),
    steps=STEPS,
    roles=st.sampled_from(["off", "merge", "strict"]),
    text=st.text(max_size=5),
)
def test_what_is_said_of_the_prefix_is_so_whatever_happens(
    mode: str, steps: list[str], roles: Any, text: str
) -> None:
    ask, state = Asked(Traits(roles=roles)), begun(mode, HI, instructions="Be brief.")
    ask(state)
    for number, step in enumerate(steps):
        calls = state.turn_mode != "plain"
        match step:
            case "turn":
                state = grown(state, *said(number, call=calls, text=text), turn=number + 2)
            case "tools" if calls:
                state = replace(state, tools=(G,) if len(state.tools) > 1 else (F, G))
            case "system":
                state = replace(state, started=RunStarted(instructions=f"Be brief {number % 2}."))
            case "mode" if calls:
                to = MODES[1 + (number % 4)]
                dialect = "text" if to in {"guided", "envelope"} else "native"
                state = replace(state, turn_mode=to, dialect=dialect)
            case "model":
                state = replace(state, model="m2" if state.model == "m" else "m")
            case "summary" if len(state.history) > 3:
                state = compacted_between(state, Compacted(messages=3, summary=text))
            case "rewind":
                state = replace(state, history=Log(state.history.since(0)[:1]))
        prefix = ask(state)
        if step in {"turn", "again"}:
            assert prefix.cause in {None, "tools changed"}  # the answer's tool, from turn 2 on
