"""A scripted run is what a real run over a simulated server is: the same events and result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vllm_agent_sdk import (
    AddContext,
    Agent,
    Allow,
    AsyncVLLM,
    Compacted,
    Context,
    ContextLengthError,
    Continue,
    Defer,
    Deny,
    HookEvent,
    Hooks,
    Limits,
    Matcher,
    Permissions,
    Price,
    RateLimitError,
    Rewrite,
    RewriteOutput,
    RunContext,
    ToolDeniedError,
    ToolMessage,
    Toolset,
    UnprocessableEntityError,
    UsageError,
    tool,
)
from vllm_agent_sdk._core.run.run import evolve
from vllm_agent_sdk._core.run.state import State
from vllm_agent_sdk.testing import AgentScript, Reply, ScriptAnswer, Simulator, scripted_run
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.events import Notice, StoredEvent, decode_event, encode_event
from vllm_agent_sdk.types.results import RunResult


@tool
async def look(at: str, times: int = 1) -> str:
    """Look at something."""
    return f"{at} is green" * times


@tool
async def fail(at: str) -> str:
    """Fail."""
    raise ValueError(f"{at} is gone")


@tool(destructive=True)
async def wipe(at: str) -> str:
    """Wipe something."""
    return f"{at} is wiped"


@tool(serial=True)
async def alone(at: str) -> str:
    """Work alone."""
    return f"{at} alone"


@tool(deferred=True)
async def elsewhere(at: str) -> str:
    """Be executed elsewhere."""
    raise AssertionError(at)


@tool(max_output=5)
async def long() -> str:
    """Say much."""
    return "123456789"


async def later(ctx: RunContext[Any]) -> bool:
    return ctx.turn > 1


@dataclass
class Answer:
    """What is asked for where the output is typed."""

    celsius: int


@dataclass
class Scene:
    """A run.

    Attributes:
        replies: What the server says, and the script where `answers` is unset.
        agent: What the agent is made with.
        answers: The script, where the server says it in other words, or another agent says some.
        results: What tools give in the scripted run.
        stop_reason: How it ends.
    """

    replies: Sequence[Reply]
    agent: dict[str, Any] = field(default_factory=dict)
    answers: Sequence[ScriptAnswer] | None = None
    results: dict[str, Any] | None = None
    stop_reason: str = "end_turn"


_ids = iter(range(10**6))


def calls(*which: tuple[str, Any], text: str = "", tokens: int = 5) -> Reply:
    named = [(name, arguments, f"c{next(_ids)}") for name, arguments in which]
    usage: Any = {"prompt_tokens": 10, "completion_tokens": tokens}
    return Reply.calls(*named, text=text, usage=usage)


def says(text: str, **options: Any) -> Reply:
    return Reply.text(text, usage={"prompt_tokens": 10, "completion_tokens": 3}, **options)


def ask(**decides: Any) -> dict[str, Any]:
    async def can_use_tool(call: Any, _ctx: Any) -> Any:
        return decides[call.name]

    return {"permissions": Permissions(can_use_tool=can_use_tool)}


def hooked(event: str, *answers: Any, pattern: str = "*", **options: Any) -> dict[str, Any]:
    given = iter(answers)

    async def hook(_event: HookEvent) -> Any:
        answer = next(given, None)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return {"hooks": Hooks(**{event: (Matcher(pattern, hook, **options),)})}


async def blue(questions: Any, _ctx: Any) -> Any:
    return {question.id: "blue" for question in questions}


TOOLS = {"tools": [look, fail, wipe, alone, elsewhere]}
QUESTION = ("ask_user_question", {"questions": [{"id": "colour", "text": "Which?"}]})


#: Made anew for each run: hooks count how often they were asked.
def under(helper: dict[str, Any], *said: Reply, **agent: Any) -> Scene:
    """A subagent that says this."""
    asks, answer = calls(("helper", {"prompt": "Look."})), says("So it is.")
    tools = [Agent(description="Helps.", **helper).as_tool("helper")]
    return Scene(
        [asks, *said, answer],
        {"tools": tools, **agent},
        answers=[asks, answer],
        results={"helper": AgentScript(said)},
    )


SCENES: dict[str, Callable[[], Scene]] = {
    "text": lambda: Scene([says("Hello.")]),
    "reasoning": lambda: Scene(
        [
            Reply.reasoning(
                "Hm.",
                "Yes.",
                usage={"prompt_tokens": 9, "completion_tokens": 4, "reasoning_tokens": 1},
            )
        ]
    ),
    "a subagent": lambda: under({"tools": [look]}, calls(("look", {"at": "a"})), says("Green.")),
    "a subagent that has no turn left": lambda: under(
        {"tools": [look], "limits": Limits(max_turns=1)}, calls(("look", {"at": "a"}))
    ),
    "a subagent under its caller's rules": lambda: under(
        {"tools": [wipe, look]},
        calls(("wipe", {"at": "a"}), ("look", {"at": "b"})),
        says("No."),
        permissions=Permissions(allow=("wipe",), deny=("wipe(at=a)",)),
        hooks=Hooks(pre_tool_use=(Matcher("look", lambda event: Rewrite({"at": "c"})),)),
    ),
    "a subagent with a typed answer": lambda: under({"output": Answer}, says('{"celsius": 1}')),
    "parallel tools": lambda: Scene(
        [calls(("look", {"at": "a"}), ("look", {"at": "b"}), text="Now"), says("Green.")], TOOLS
    ),
    "a serial tool": lambda: Scene(
        [calls(("look", {"at": "a"}), ("alone", {"at": "b"}), ("look", {"at": "c"})), says("Ok")],
        TOOLS,
    ),
    "a tool that fails": lambda: Scene([calls(("fail", {"at": "a"})), says("Pity.")], TOOLS),
    "repaired arguments": lambda: Scene(
        [calls(("look", {"at": "a", "times": "2"})), says("Ok")], TOOLS
    ),
    "invalid arguments": lambda: Scene(
        [calls(("look", {"at": 1.5, "times": "x"})), calls(("look", '{"at": ')), says("Ok")], TOOLS
    ),
    "no valid call": lambda: Scene(
        [calls(("fly", {})), calls(("look", '{"at": '))],
        {**TOOLS, "limits": Limits(repairs=1)},
        stop_reason="invalid_tool_call",
    ),
    "a rule denies": lambda: Scene(
        [calls(("look", {"at": "a"}), ("fail", {"at": "b"})), says("Ok")],
        {**TOOLS, "permissions": Permissions(deny=("look(at=a*)",))},
    ),
    "nobody answers": lambda: Scene([calls(("wipe", {"at": "a"})), says("Ok")], TOOLS),
    "allowed with another input": lambda: Scene(
        [calls(("wipe", {"at": "a"})), calls(("wipe", {"at": "c"})), says("Ok")],
        {**TOOLS, **ask(wipe=Allow({"at": "b"}, remember="wipe"))},
    ),
    "denied": lambda: Scene(
        [calls(("look", {"at": "a"}), ("wipe", {"at": "b"}))],
        {**TOOLS, **ask(wipe=Deny("No.", interrupt=True))},
        stop_reason="denied",
    ),
    "deferred": lambda: Scene(
        [calls(("look", {"at": "a"}), ("wipe", {"at": "b"}))],
        {**TOOLS, **ask(wipe=Defer()), **hooked("notification", None)},
        stop_reason="suspended",
    ),
    "executed elsewhere": lambda: Scene(
        [calls(("elsewhere", {"at": "a"}), ("look", {"at": "b"}))], TOOLS, stop_reason="suspended"
    ),
    "a hook rewrites": lambda: Scene(
        [calls(("look", {"at": "a"})), says("Ok")],
        {**TOOLS, **hooked("pre_tool_use", Rewrite({"at": "z"}), pattern="l*")},
    ),
    "a hook rewrites the output": lambda: Scene(
        [calls(("look", {"at": "a"})), says("Ok")],
        {**TOOLS, **hooked("post_tool_use", (RewriteOutput("blue"), AddContext("Mind it.")))},
    ),
    "a hook fails": lambda: Scene(
        [calls(("look", {"at": "a"})), calls(("look", {"at": "b"})), says("Ok")],
        {**TOOLS, **hooked("pre_tool_use", ValueError("broken"))},
    ),
    "a hook goes on": lambda: Scene(
        [says("Done."), says("Really.")], hooked("stop", Continue("Are you sure?"))
    ),
    "a prompt gets context": lambda: Scene(
        [says("Ok")], hooked("user_prompt_submit", AddContext("It is noon."))
    ),
    "a question": lambda: Scene(
        [calls(QUESTION), calls(("ask_user_question", {"questions": []})), says("Ok")],
        {**TOOLS, "ask_user": blue},
    ),
    "typed": lambda: Scene(
        [says('{"celsius": "warm"}'), says('{"celsius": 18}')], {"output": Answer}
    ),
    "typed, and never valid": lambda: Scene(
        [says('{"celsius": "warm"}'), says("{}")],
        {"output": Answer, "limits": Limits(repairs=1)},
        stop_reason="output_invalid",
    ),
    "typed, with tools": lambda: Scene(
        [
            calls(("look", {"at": "a"})),
            calls(("final_answer", {"celsius": "x"})),
            calls(("final_answer", {"celsius": 18})),
        ],
        {**TOOLS, "output": Answer},
    ),
    "every turn a call": lambda: Scene(
        [calls(("look", {"at": "a"})), calls(("final_answer", {"answer": "Green."}))],
        {**TOOLS, "turn_mode": "required"},
    ),
    "max_turns": lambda: Scene(
        [calls(("look", {"at": "a"})), calls(("look", {"at": "b"}))],
        {**TOOLS, "limits": Limits(max_turns=2)},
        stop_reason="max_turns",
    ),
    "a last turn without tools": lambda: Scene(
        [calls(("look", {"at": "a"})), says("Green.")],
        {**TOOLS, "limits": Limits(max_turns=2, last_turn_without_tools=True)},
    ),
    "max_tool_calls": lambda: Scene(
        [calls(*(("look", {"at": each}) for each in "abc"))],
        {**TOOLS, "limits": Limits(max_tool_calls=2)},
        stop_reason="max_tool_calls",
    ),
    "max_total_tokens": lambda: Scene(
        [calls(("look", {"at": "a"}), tokens=90)],
        {**TOOLS, "limits": Limits(max_total_tokens=50)},
        stop_reason="max_total_tokens",
    ),
    "max_cost": lambda: Scene(
        [calls(("look", {"at": "a"}), tokens=90)],
        {**TOOLS, "limits": Limits(max_cost=0.5), "prices": Price(output=10_000)},
        stop_reason="max_cost",
    ),
    "repeated": lambda: Scene(
        [calls(("look", {"at": "a"})) for _ in range(3)], TOOLS, stop_reason="repeated_call"
    ),
    "empty": lambda: Scene([says(""), says("")], stop_reason="empty_reply"),
    "cut": lambda: Scene([says("half", finish_reason="length")], stop_reason="length"),
    "an error": lambda: Scene(
        [calls(("look", {"at": "a"})), Reply.error(422, message="Refused.")],
        TOOLS,
        [calls(("look", {"at": "a"})), UnprocessableEntityError("Refused.", status=422)],
        stop_reason="error",
    ),
    "a set of tools": lambda: Scene(
        [calls(("my_look", {"at": "a", "times": "2"})), calls(("wipe", {"at": "a"})), says("Ok")],
        {"tools": [Toolset([look], prefix="my_"), Toolset([wipe], visible=later)]},
    ),
    "a long result": lambda: Scene(
        [
            Reply.calls(("long", {}, "c"), usage={"prompt_tokens": 9, "completion_tokens": 4}),
            calls(("read_output", {"call_id": "c", "offset": 5})),
            says("Ok"),
        ],
        {"tools": [long]},
    ),
}

#: Of servers and clocks, or by chance.
_APART = {
    "run_id", "seq", "time", "duration_s", "model_time_s", "ttft_s", "request_id", "window",
    "turn_mode_reason", "request", "prefix", "cache_by_turn", "context_tokens",
}  # fmt: skip


def told(value: Any) -> Any:
    """Give what both kinds of run have to agree on."""
    if isinstance(value, dict):
        kept = {key: told(each) for key, each in value.items() if key not in _APART}
        if kept.get("type") == "UnprocessableEntityError":
            return "the server refused"
        return kept
    if isinstance(value, list):
        return [told(each) for each in value]
    return value


def renamed(lines: list[Any]) -> list[Any]:
    """Give the calls names by their order."""
    text = _codec.encode(lines).decode()
    seen: dict[str, None] = {}
    for line in lines:
        if line["type"] == "model_ended":
            for block in (line.get("message") or {}).get("content", ()):
                if block["type"] == "tool_call":
                    seen[block["id"]] = None
    for at, each in enumerate(seen):
        text = text.replace(f'"{each}"', f'"call {at}"').replace(f':{each}"', f':call {at}"')
    named: list[Any] = json.loads(text)
    return named


def lines_of(events: Sequence[Any]) -> list[Any]:
    kept = [each for each in events if isinstance(each, StoredEvent) and each.seq is not None]
    return renamed([told(json.loads(_codec.encode(e))) for e in kept if not isinstance(e, Notice)])


@pytest.mark.feature("Q-02")
@pytest.mark.parametrize("name", SCENES)
async def test_a_scripted_run_has_the_events_and_the_result_of_a_real_one(name: str) -> None:
    scene = SCENES[name]()
    async with (
        Simulator(*scene.replies) as server,
        AsyncVLLM("http://sim", transport=server.transport) as client,
    ):
        agent = Agent(client=client, model="sim-model", **scene.agent)
        async with agent.stream("Go") as run:
            events = [event async for event in run]
        real = run.result
        assert len(server.chats) == len(scene.replies)

    scene = SCENES[name]()
    agent = Agent(model="sim-model", **scene.agent)
    answers = scene.replies if scene.answers is None else scene.answers
    scripted = scripted_run(agent, "Go", answers, results=scene.results)
    assert scripted.result.stop_reason == real.stop_reason == scene.stop_reason
    assert lines_of(scripted.events) == lines_of(events)
    assert facts(scripted.result) == facts(real)


def facts(result: RunResult[Any]) -> dict[str, Any]:
    """What is not in the events: it is made from them."""
    ended = result.stop_reason == "end_turn"
    return {
        "output": result.output if ended else None,
        "error": type(result.error),
        "usage": result.usage,
        "tools": result.tool_calls,
        "cost": result.cost,
        "pending": [pending.kind for pending in result.pending],
    }


# ── the script ───────────────────────────────────────────────────────────────────────────────────


@tool
def slow_look(at: str) -> str:
    """Look, not async."""
    return f"{at} is green"


@pytest.mark.feature("Q-02")
def test_a_script_is_played_without_an_event_loop() -> None:
    agent = Agent(tools=[slow_look, look])
    both = Reply.calls(("slow_look", {"at": "a"}), ("look", {"at": "b"}))
    run = scripted_run(agent, "Go", [both, "Green."])
    assert run.result.output == "Green."
    assert run.result.tool_calls == {"slow_look": 1, "look": 1}
    assert [event.seq for event in run.events] == list(range(1, len(run.events) + 1))


@pytest.mark.feature("Q-02")
async def test_a_script_is_played_where_a_loop_runs_too() -> None:
    assert scripted_run(Agent(), "Go", ["Green."]).result.output == "Green."


@pytest.mark.feature("Q-02")
def test_two_plays_of_a_script_are_equal() -> None:
    agent = Agent(tools=[look, fail])
    script = [Reply.calls(("look", {"at": "a"}), ("fail", {"at": "b"})), "Ok"]
    assert scripted_run(agent, "Go", script) == scripted_run(agent, "Go", script)


@pytest.mark.feature("Q-02")
@pytest.mark.parametrize("name", SCENES)
def test_the_events_of_a_script_are_a_log_that_can_be_stored_and_folded(name: str) -> None:
    scene = SCENES[name]()
    script = scene.replies if scene.answers is None else scene.answers
    events = scripted_run(Agent(**scene.agent), "Go", script, results=scene.results).events
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    state = State()
    for event in events:
        read = decode_event(encode_event(event))
        assert json.loads(encode_event(read)) == json.loads(encode_event(event))
        state = evolve(state, read)  # type: ignore[arg-type]
    assert state.phase == ("suspended" if scene.stop_reason == "suspended" else "done")


@pytest.mark.feature("Q-02")
def test_results_stand_in_for_tools() -> None:
    agent = Agent(tools=[look, fail, wipe], permissions=Permissions(allow=("wipe",)))
    script = [
        Reply.calls(("look", {"at": "a"}), ("fail", {"at": "b"}), ("wipe", {"at": "c"})),
        "Ok",
    ]
    results = {"look": {"colour": "red"}, "fail": ValueError("lost"), "wipe": lambda at: at * 2}
    said = scripted_run(agent, "Go", script, results=results).result.messages[2:5]
    assert [message.text for message in said] == [
        '{"colour":"red"}',
        "ValueError: lost",
        "cc",
    ]


@pytest.mark.feature("Q-02")
def test_history_and_deps_are_the_callers() -> None:
    before = scripted_run(Agent(), "Hi", ["Hello."]).result.messages
    seen: list[Any] = []

    def note(event: HookEvent) -> None:
        seen.append(event.deps)

    agent = Agent(hooks=Hooks(user_prompt_submit=(Matcher("*", note),)))
    run = scripted_run(agent, "And now?", ["Fine."], history=before, deps="deps")
    assert [message.text for message in run.result.messages] == [
        "Hi", "Hello.", "And now?", "Fine.",
    ]  # fmt: skip
    assert seen == ["deps"]


@pytest.mark.feature("Q-02")
@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([], "asked once more in turn 1"),
        (["One.", "Two."], "1 answer too many: the run ended with 'end_turn' in turn 1"),
        ("One.", "answers= is a list"),
        ([1], "Answer 1 is a int"),
        ([Reply.error(500)], "Answer 1 is what a server sends"),
        ([Reply.text("a", delay=1)], "delay= is for a Simulator"),
    ],
)
def test_a_script_that_does_not_fit_says_so(answers: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        scripted_run(Agent(), "Go", answers)


@tool
async def sleeper() -> str:
    """Wait."""
    await asyncio.sleep(0.01)
    return "awake"


@tool
async def yielder() -> str:
    """Let others go first."""
    await asyncio.sleep(0)
    return "first"


async def waiting(_event: HookEvent) -> None:
    await asyncio.sleep(0)


@pytest.mark.feature("Q-02")
@pytest.mark.parametrize(
    ("agent", "who"),
    [
        (Agent(tools=[sleeper]), "The tool sleeper"),
        (Agent(tools=[yielder]), "The tool yielder"),
        (Agent(hooks=Hooks(stop=(Matcher("*", waiting),))), "The hook waiting"),
    ],
)
def test_what_waits_is_named(agent: Agent[Any, Any], who: str) -> None:
    names = [each.spec.name for each in agent.tools]  # type: ignore[union-attr]
    first = [Reply.calls((names[0], {}))] if names else ["Hi"]
    with pytest.raises(UsageError, match=f"{who} waits for something"):
        scripted_run(agent, "Go", first)


@pytest.mark.feature("Q-02")
def test_results_for_no_tool_or_no_json_are_refused() -> None:
    with pytest.raises(UsageError, match="results= names 'fly'; the agent's tools are: look"):
        scripted_run(Agent(tools=[look]), "Go", ["Ok"], results={"fly": 1})
    script = [Reply.calls(("look", {"at": "a"}))]
    with pytest.raises(UsageError, match=r"results\['look'\] gives no JSON"):
        scripted_run(Agent(tools=[look]), "Go", script, results={"look": object()})


@pytest.mark.feature("Q-02")
def test_what_a_subagent_gives_is_said_by_the_script() -> None:
    agent = Agent(tools=[Agent(description="Helps.").as_tool("helper")])
    script = [Reply.calls(("helper", {"prompt": "Help."})), "Ok"]
    with pytest.raises(
        UsageError, match=r"helper is an agent: results=\{'helper': …\}.* AgentScript"
    ):
        scripted_run(agent, "Go", script)
    run = scripted_run(agent, "Go", script, results={"helper": "helped"})
    assert run.result.messages[2].text == "helped"


def seen_by(events: Sequence[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


@pytest.mark.feature("Q-02")
def test_a_subagent_is_played_by_a_script_of_its_own() -> None:
    helper = Agent(name="helper", description="Helps.", tools=[look, fail])
    agent = Agent(name="boss", tools=[helper.as_tool()])
    asks = [Reply.calls(("helper", {"prompt": f"Look {at}."})) for at in ("up", "down")]
    own = [Reply.calls(("look", {"at": "up"}), ("fail", {"at": "x"})), "Blue.", "Brown."]
    script = AgentScript(own, results={"fail": "it works"})
    run = scripted_run(agent, "Go", [*asks, "Both."], results={"helper": script})
    assert run.result.text == "Both."
    assert [each.text for each in run.result.messages if isinstance(each, ToolMessage)] == [
        "Blue.",
        "Brown.",
    ]
    first, second = run.subagents
    assert [first.result.turns, second.result.turns] == [2, 1]
    assert [each.text for each in first.result.messages] == [
        "Look up.",
        "",
        "up is green",
        "it works",
        "Blue.",
    ]
    assert {event.agent_id for event in first.events} == {"boss/helper:call_1"}
    assert run.result.usage.requests == 6
    kinds = seen_by(run.events)
    assert (
        kinds.index("ToolStarted") < kinds.index("SubagentStarted") < kinds.index("SubagentEnded")
    )
    assert kinds.index("SubagentEnded") < kinds.index("ToolEnded")


@pytest.mark.feature("Q-02")
def test_a_subagent_of_a_subagent_has_a_script_within_the_other() -> None:
    inner = Agent(description="Looks.", output=Answer).as_tool("inner")
    outer = Agent(description="Asks.", tools=[inner]).as_tool("outer")
    scripts = {
        "outer": AgentScript(
            [Reply.calls(("inner", {"prompt": "How warm?"})), "Warm."],
            results={"inner": AgentScript(['{"celsius": 18}'])},
        )
    }
    first = Reply.calls(("outer", {"prompt": "Go."}))
    run = scripted_run(Agent(tools=[outer]), "Go", [first, "Done."], results=scripts)
    (played,) = run.subagents
    assert played.result.messages[2].text == '{"celsius": 18}'
    assert played.subagents[0].result.output == Answer(18)


@pytest.mark.feature("Q-02")
@pytest.mark.parametrize(
    ("script", "said"),
    [
        (AgentScript(["One."]), "The script of helper has 1 answer, and the model is asked once"),
        (AgentScript(["One.", "Two.", "Three."]), "The script of helper has 1 answer too many"),
        (AgentScript("One."), "answers= is a list"),
        (AgentScript([Reply.calls(("wait", {}))]), "The tool wait waits for something"),
        (AgentScript(["One.", "Two."], results={"fly": 1}), "results= names 'fly'"),
    ],
)
def test_a_script_that_does_not_fit_a_subagent_is_refused(script: AgentScript, said: str) -> None:
    @tool
    async def wait() -> None:
        """Wait."""
        await asyncio.sleep(1)

    agent = Agent(tools=[Agent(description="Helps.", tools=[wait]).as_tool("helper")])
    asks = [Reply.calls(("helper", {"prompt": at})) for at in ("a", "b")]
    with pytest.raises(UsageError, match=said):
        scripted_run(agent, "Go", [*asks, "Ok"], results={"helper": script})


@pytest.mark.feature("Q-02")
def test_a_script_is_for_an_agent_that_is_called() -> None:
    agent = Agent(tools=[look, Agent(description="Helps.").as_tool("helper")])
    with pytest.raises(UsageError, match=r"results\['helper'\] is a script, and helper was not"):
        scripted_run(agent, "Go", ["Ok"], results={"helper": AgentScript([])})
    with pytest.raises(UsageError, match="is a script for an agent, and look is none"):
        scripted_run(agent, "Go", ["Ok"], results={"look": AgentScript(["Red."])})


@pytest.mark.feature("Q-02")
def test_folders_are_looked_at(tmp_path: Path) -> None:
    @tool(reads_files=("path",))
    def read(path: str) -> str:
        """Read a file."""
        return path

    agent = Agent(tools=[read], permissions=Permissions(directories=(tmp_path,)))
    script = [Reply.calls(("read", {"path": str(tmp_path / "a")}), ("read", {"path": "/x"})), "Ok"]
    result = scripted_run(agent, "Go", script).result
    assert result.tool_calls == {"read": 1}
    assert "outside the permitted folders" in result.messages[3].text


@pytest.mark.feature("Q-02")
def test_a_summary_is_an_answer_of_the_script() -> None:
    agent = Agent(context=Context(keep_last=1))
    before = scripted_run(Agent(), "Hi", ["Hello."]).result.messages * 2
    full = ContextLengthError("It is full.", max=100, got=120)
    run = scripted_run(agent, "Go", [full, "They greeted.", "Gone."], history=before)
    assert run.result.output == "Gone."
    summary = next(event for event in run.events if isinstance(event, Compacted))
    assert (summary.messages, summary.error) == (4, None)
    assert run.result.messages[0].text.endswith("They greeted.")


@pytest.mark.feature("Q-02")
def test_the_exception_of_a_script_is_the_results() -> None:
    error = UnprocessableEntityError("Refused.", status=422)
    result = scripted_run(Agent(), "Go", [error]).result
    assert result.error is error
    with pytest.raises(UnprocessableEntityError):
        result.raise_for_error()
    fallback = Agent(model="a", fallback_model="b", tools=[wipe], **_never())
    script = [RateLimitError("Busy."), Reply.calls(("wipe", {"at": "a"}))]
    assert type(scripted_run(fallback, "Go", script).result.error) is ToolDeniedError


def _never() -> dict[str, Any]:
    return ask(wipe=Deny("No.", interrupt=True))
