"""What must never happen again in an agent's run, whatever the reason was.

1. Text is lost where the same short piece comes twice.
2. A reply that was cut, or that the server ended, counts as a success.
3. An error in the middle of a stream is followed by a success.
4. A tool runs with made-up arguments because the model's could not be parsed.
5. A run ends without a result, or with a conversation that cannot go on.
6. Only the last model call's tokens are counted.
7. Over Responses text or arguments come twice, or the server's store is relied on.
8. Thinking that is split over pieces leaks into the answer, or is lost under its older name.
9. A forced call is forced in each turn, for ever.
10. Calls without an id or an index are merged, or lose their answers.
11. Asking for permission and asking the user exclude each other.
12. What an option does depends on when it was given; one tool hides another of its name.
13. An option is accepted and never sent.
14. A library prints.
15. A file in the working folder widens what an agent may do.
16. A mode, a rule or a folder is accepted and has no effect.
17. A hook can watch only, or its failure ends the run without a result.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    Allow,
    Block,
    HookEvent,
    Hooks,
    Limits,
    Matcher,
    Permissions,
    Question,
    Rewrite,
    RunEnded,
    Sampling,
    TextDelta,
    ToolMessage,
    Usage,
    UsageError,
    tool,
)
from vllm_agent_sdk.testing import Reply, Simulator

ran: list[tuple[str, str]] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@tool(read_only=True, reads_files=("path",))
async def read(path: str) -> str:
    """Read a file."""
    ran.append(("read", path))
    return f"what {path} holds"


@tool(edits_files=("path",), destructive=True)
async def edit(path: str) -> str:
    """Edit a file."""
    ran.append(("edit", path))
    return f"{path} edited"


@tool(destructive=True)
async def wipe(path: str) -> str:
    """Wipe a file."""
    ran.append(("wipe", path))
    return f"{path} wiped"


TOOLS = [read, edit, wipe]


def call(name: str, path: str = "a") -> tuple[str, dict[str, str]]:
    return name, {"path": path}


def sse(*chunks: dict[str, Any]) -> Reply:
    """A stream of exactly these choices."""
    lines = [
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "sim-model",
            "choices": [{"index": 0, "logprobs": None, "finish_reason": None, **chunk}],
        }
        for chunk in chunks
    ]
    text = "".join(f"data: {json.dumps(line)}\n\n" for line in lines)
    return Reply.raw(f"{text}data: [DONE]\n\n".encode())


async def run(
    client: Any, *replies: Reply, sent: list[Any] | None = None, prompt: str = "Go", **agent: Any
) -> Any:
    """Run an agent once; `sent` gets the bodies of its requests."""
    agent.setdefault("tools", TOOLS)
    async with Simulator(*replies) as server:
        result = await Agent(client=client(server), **agent).run(prompt)
    if sent is not None:
        sent.extend(chat.json for chat in server.chats)
    return result


# ── 1 to 3: what was said ────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-06")
async def test_text_is_whole_where_the_same_short_piece_comes_again_and_again(client: Any) -> None:
    pieces = ["a", "a", "aa", "a", " ", " ", "ab", "ab", "a"]
    async with Simulator(Reply.text(chunks=pieces)) as server:
        events = [event async for event in Agent(client=client(server)).stream("Go")]
    assert [event.text for event in events if isinstance(event, TextDelta)] == pieces
    assert events[-1].result.output == "".join(pieces)


@pytest.mark.feature("A-05")
@pytest.mark.parametrize(
    ("reply", "stop_reason"),
    [
        (Reply.text("half an answer", cut_after=500), "error"),
        (Reply.text("half an answer", finish_reason="length"), "length"),
        (Reply.text("half an answer", finish_reason="content_filter"), "refusal"),
        (Reply.text("half an answer", finish_reason="abort"), "aborted"),
        (Reply.raw(b"data: [DONE]\n\n"), "error"),
    ],
)
async def test_what_was_cut_or_ended_by_the_server_is_no_success(
    client: Any, reply: Reply, stop_reason: str
) -> None:
    result = await run(client, reply)
    assert (result.stop_reason, result.is_error) == (stop_reason, True)
    with pytest.raises(Exception):  # noqa: B017, PT011  which one is tested with the exits
        _ = result.output


@pytest.mark.feature("A-05")
async def test_an_error_in_the_stream_is_the_end_and_nothing_comes_after_it(client: Any) -> None:
    async with Simulator(Reply.text("one two three", error_after=3)) as server:
        events = [event async for event in Agent(client=client(server)).stream("Go")]
    ends = [event for event in events if isinstance(event, RunEnded)]
    assert events[-1:] == ends
    assert ends[0].result.stop_reason == "error"
    assert ends[0].result.text == "one two"


# ── 4: arguments ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-04")
@pytest.mark.parametrize("arguments", ['{"path": ', "path=a", "[1]", "null", "", '{"path": "a"}}'])
async def test_arguments_that_cannot_be_parsed_run_nothing_and_are_told_to_the_model(
    client: Any, arguments: str
) -> None:
    sent: list[Any] = []
    replies = (Reply.calls(("wipe", arguments)), Reply.text("Sorry."))
    allowed = Permissions(allow=("wipe",))
    result = await run(client, *replies, sent=sent, permissions=allowed)
    assert ran == []
    answer = result.messages[2]
    assert isinstance(answer, ToolMessage)
    assert answer.is_error
    assert result.tool_calls == {}
    # A template that parses arguments must be able to: the history holds an object.
    (written,) = sent[1]["messages"][1]["tool_calls"]
    assert isinstance(json.loads(written["function"]["arguments"]), dict)


# ── 5: ends ──────────────────────────────────────────────────────────────────────────────────────


def broken(_event: HookEvent) -> None:
    raise ValueError("broken")


def no(_event: HookEvent) -> Block:
    return Block("No.")


@pytest.mark.feature("A-06")
@pytest.mark.parametrize(
    ("replies", "options"),
    [
        ((Reply.calls(call("read")),), {"limits": Limits(max_turns=1)}),
        ((Reply.calls(call("read")), Reply.error(422)), {}),
        ((Reply.calls(call("read")),) * 3, {"hooks": Hooks(pre_tool_use=(Matcher("*", broken),))}),
        ((Reply.calls(call("read")),) * 3, {"hooks": Hooks(pre_tool_use=(Matcher("*", no),))}),
        ((Reply.calls(call("read")),), {"hooks": Hooks(stop=(Matcher("*", broken),))}),
        ((Reply.text("ok"),), {"hooks": Hooks(user_prompt_submit=(Matcher("*", no),))}),
    ],
    ids=["turns", "http", "hook fails", "hook denies", "stop hook fails", "prompt blocked"],
)
async def test_each_end_is_one_result_and_the_conversation_goes_on(
    client: Any, replies: tuple[Reply, ...], options: dict[str, Any]
) -> None:
    async with Simulator(*replies) as server:
        agent = Agent(client=client(server), tools=TOOLS, **options)
        events = [event async for event in agent.stream("Go")]
    assert [isinstance(event, RunEnded) for event in events].count(True) == 1
    result = events[-1].result
    calls = [each.id for message in result.messages for each in _calls(message)]
    answers = [m.call_id for m in result.messages if isinstance(m, ToolMessage)]
    assert answers == calls
    async with Simulator(Reply.text("Fine.")) as server:
        after = await Agent(client=client(server)).run("And now?", history=result.messages)
    assert after.output == "Fine."


def _calls(message: Any) -> list[Any]:
    return list(getattr(message, "tool_calls", ()))


# ── 6: usage ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-06")
async def test_usage_is_of_all_turns_by_turn_and_by_model(client: Any) -> None:
    replies = (
        Reply.calls(call("read"), usage={"prompt_tokens": 10, "completion_tokens": 2}),
        Reply.text("ok", usage={"prompt_tokens": 20, "completion_tokens": 3}),
    )
    result = await run(client, *replies)
    both = Usage(input_tokens=30, output_tokens=5, requests=2)
    assert (result.usage, result.usage_by_model) == (both, {"sim-model": both})
    assert [usage.input_tokens for usage in result.usage_by_turn] == [10, 20]


# ── 7: Responses ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-15")
async def test_over_responses_nothing_comes_twice_and_the_store_is_not_used(client: Any) -> None:
    replies = (Reply.calls(call("read"), text="Let me see."), Reply.text("It is green."))
    async with Simulator(*replies) as server:
        agent = Agent(client=client(server), tools=TOOLS, api="responses")
        events = [event async for event in agent.stream("Go")]
    sent = [each.json for each in server.requests if each.path == "/v1/responses"]
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == "Let me see.It is green."
    assert ran == [("read", "a")]
    assert all("previous_response_id" not in body for body in sent)
    kinds = [item.get("type", "message") for item in sent[1]["input"]]
    assert kinds == ["message", "message", "function_call", "function_call_output"]
    call_item, answer = sent[1]["input"][2:]
    assert json.loads(call_item["arguments"]) == {"path": "a"}
    assert call_item["call_id"] == answer["call_id"]


# ── 8: thinking ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-06")
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_thinking_is_read_under_both_of_its_names(client: Any, name: str) -> None:
    reply = sse(
        {"delta": {"role": "assistant", "content": ""}},
        {"delta": {name: "Hm"}},
        {"delta": {name: ", yes."}},
        {"delta": {"content": "18"}},
        {"delta": {}, "finish_reason": "stop"},
    )
    result = await run(client, reply)
    assert (result.output, result.messages[-1].reasoning) == ("18", "Hm, yes.")


@pytest.mark.feature("O-06")
@pytest.mark.parametrize(
    "pieces",
    [
        ["<think>Hm.</think>[[final]]18[[/final]]"],
        ["<th", "ink>H", "m.</thi", "nk>[[fin", "al]]1", "8[[/fi", "nal]]"],
        list("<think>Hm.</think>[[final]]18[[/final]]"),
    ],
)
async def test_thinking_in_the_text_never_reaches_the_answer_however_it_is_cut(
    client: Any, pieces: list[str]
) -> None:
    async with Simulator(Reply.text(chunks=pieces), model="qwen3", tool_parser=None) as server:
        agent = Agent(client=client(server), tools=TOOLS, turn_mode="guided")
        events = [event async for event in agent.stream("Go")]
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert (text, events[-1].result.output) == ("18", "18")


# ── 9 and 10: calls ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-12")
async def test_a_forced_call_is_forced_in_the_first_turn_only(client: Any) -> None:
    sent: list[Any] = []
    replies = (Reply.calls(call("read")), Reply.text("ok"))
    result = await run(client, *replies, sent=sent, tool_choice="required")
    assert [body.get("tool_choice") for body in sent] == ["required", None]
    assert (result.stop_reason, result.turns) == ("end_turn", 2)


@pytest.mark.feature("A-04")
@pytest.mark.parametrize("ids", [(None, None), ("same", "same"), ("", "")])
async def test_calls_without_an_id_of_their_own_are_told_apart(client: Any, ids: Any) -> None:
    calls = [
        {
            "index": at,
            "id": ids[at],
            "type": "function",
            "function": {"name": "read", "arguments": json.dumps({"path": path})},
        }
        for at, path in enumerate("ab")
    ]
    reply = sse({"delta": {"tool_calls": calls}}, {"delta": {}, "finish_reason": "tool_calls"})
    result = await run(client, reply, Reply.text("ok"))
    assert sorted(ran) == [("read", "a"), ("read", "b")]
    made = [each.id for each in result.messages[1].tool_calls]
    assert len(set(made)) == 2
    assert [message.call_id for message in result.messages[2:4]] == made


@pytest.mark.feature("A-04")
async def test_calls_without_an_index_are_not_merged(client: Any) -> None:
    calls = [
        {
            "id": f"c{path}",
            "type": "function",
            "function": {"name": "read", "arguments": json.dumps({"path": path})},
        }
        for path in "ab"
    ]
    reply = sse({"delta": {"tool_calls": calls}}, {"delta": {}, "finish_reason": "tool_calls"})
    result = await run(client, reply, Reply.text("ok"))
    assert sorted(ran) == [("read", "a"), ("read", "b")]
    assert [message.call_id for message in result.messages[2:4]] == ["ca", "cb"]


# ── 11 and 12: what goes together ────────────────────────────────────────────────────────────────


@pytest.mark.feature("H-04")
@pytest.mark.feature("H-05")
async def test_permission_and_questions_are_asked_in_the_same_turn(client: Any) -> None:
    asked: list[str] = []

    def can_use_tool(each: Any, _ctx: Any) -> Allow:
        asked.append(each.name)
        return Allow()

    def ask_user(questions: list[Question], _ctx: Any) -> dict[str, str]:
        asked.append(questions[0].text)
        return {questions[0].id: "blue"}

    question = ("ask_user_question", {"questions": [{"id": "c", "text": "Which?"}]})
    result = await run(
        client,
        Reply.calls(question, call("wipe")),
        Reply.text("ok"),
        permissions=Permissions(can_use_tool=can_use_tool),
        ask_user=ask_user,
    )
    assert sorted(asked) == ["Which?", "wipe"]
    assert result.tool_calls == {"ask_user_question": 1, "wipe": 1}


@pytest.mark.feature("A-03")
async def test_the_order_of_options_changes_nothing_and_no_tool_hides_another(client: Any) -> None:
    options: dict[str, Any] = {
        "permissions": Permissions(allow=("wipe",)),
        "tools": [read],
        "limits": Limits(max_turns=2),
        "instructions": "Be brief.",
    }
    one, other = Agent(), Agent()
    for name, value in options.items():
        one = one.with_(**{name: value})
    for name, value in reversed(options.items()):
        other = other.with_(**{name: value})
    assert one == other == Agent(**options)

    @tool(name="read")
    async def another(path: str) -> str:
        """Read otherwise."""
        return path

    with pytest.raises(UsageError, match="Two tools are called read"):
        Agent(tools=[read, another])


# ── 13 and 14: options and output ────────────────────────────────────────────────────────────────

SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 7,
    "min_p": 0.1,
    "max_tokens": 9,
    "stop": ["END"],
    "seed": 3,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
    "repetition_penalty": 1.5,
    "logit_bias": {"5": 1.0},
    "parallel_tool_calls": False,
    "extra_body": {"priority": 5},
}


@pytest.mark.feature("A-01")
@pytest.mark.parametrize("turn_mode", ["native", "required"])
async def test_every_sampling_option_reaches_the_wire(client: Any, turn_mode: Any) -> None:
    assert set(SAMPLING) == set(Sampling.__struct_fields__) - {"thinking"}  # tested with thinking
    sent: list[Any] = []
    reply = Reply.calls(("final_answer", {"answer": "ok"}))
    replies = (Reply.text("ok") if turn_mode == "native" else reply,)
    sampling = Sampling(**SAMPLING)
    await run(client, *replies, sent=sent, turn_mode=turn_mode, sampling=sampling)
    expected = {**SAMPLING, **SAMPLING["extra_body"]}
    del expected["extra_body"]
    assert {name: sent[0].get(name) for name in expected} == expected


@pytest.mark.feature("A-01")
async def test_nothing_is_printed(client: Any, capfd: pytest.CaptureFixture[str]) -> None:
    await run(client, Reply.calls(call("read"), ("fly", "{")), Reply.text("x", cut_after=300))
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")


# ── 15 and 16: permissions ───────────────────────────────────────────────────────────────────────

WIDE = {
    "mode": "bypassPermissions",
    "defaultMode": "bypassPermissions",
    "permissions": {"allow": ["*", "wipe"], "defaultMode": "bypassPermissions"},
    "allow": ["*"],
}


@pytest.mark.feature("H-03")
async def test_no_file_and_no_variable_widens_what_an_agent_may_do(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        ".claude/settings.json", ".claude/settings.local.json", ".vllm-agent/settings.json",
        ".vllm-agent/permissions.json", "vllm-agent.json", "permissions.json", "policy.json",
        ".vllm_agent.json",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(WIDE), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VLLM_AGENT_PERMISSION_MODE", "bypassPermissions")
    monkeypatch.setenv("VLLM_AGENT_PERMISSIONS", json.dumps(WIDE))
    result = await run(client, Reply.calls(call("wipe")), Reply.text("ok"))
    assert ran == []
    assert [each.name for each in result.permission_denials] == ["wipe"]


@pytest.mark.feature("H-03")
@pytest.mark.feature("H-06")
@pytest.mark.parametrize(
    ("permissions", "expected"),
    [
        ({}, {"read"}),
        ({"mode": "acceptEdits"}, {"read", "edit"}),
        ({"mode": "plan"}, {"read"}),
        ({"mode": "dontAsk", "allow": ("edit",)}, {"read", "edit"}),
        ({"mode": "bypassPermissions"}, {"read", "edit", "wipe"}),
        ({"mode": "bypassPermissions", "deny": ("wipe(path=a*)",)}, {"read", "edit"}),
        ({"allow": ("wipe(path=b*)",)}, {"read"}),
        ({"allow": ("wipe(path=a*)",)}, {"read", "wipe"}),
        ({"ask": ("re*",)}, set[str]()),
        ({"allow": ("*",), "directories": ("elsewhere",)}, {"wipe"}),
    ],
)
async def test_modes_rules_and_folders_decide_what_runs(
    client: Any, permissions: dict[str, Any], expected: set[str]
) -> None:
    calls = Reply.calls(call("read"), call("edit"), call("wipe"))
    result = await run(client, calls, Reply.text("ok"), permissions=Permissions(**permissions))
    assert {name for name, _ in ran} == expected == set(result.tool_calls)
    denied = {"read", "edit", "wipe"} - expected
    assert {each.name for each in result.permission_denials} == denied


# ── 17: hooks ────────────────────────────────────────────────────────────────────────────────────


def elsewhere(_event: HookEvent) -> Rewrite:
    return Rewrite({"path": "b"})


@pytest.mark.feature("H-02")
@pytest.mark.parametrize(
    ("fn", "options", "expected"),
    [
        (no, {}, []),
        (elsewhere, {}, [("read", "b")]),
        (broken, {}, []),
        (broken, {"on_failure": "continue"}, [("read", "a")]),
    ],
)
async def test_a_hook_blocks_and_rewrites_and_its_failure_is_not_the_runs(
    client: Any, fn: Any, options: dict[str, Any], expected: list[Any]
) -> None:
    hooks = Hooks(pre_tool_use=(Matcher("read", fn, **options),))
    result = await run(client, Reply.calls(call("read")), Reply.text("ok"), hooks=hooks)
    assert result.stop_reason == "end_turn"
    assert ran == expected
