"""Random runs: legal answers to every effect, interrupts, controls, crashes, several runs a log."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from vllm_agent_sdk._core.run.effects import (
    Answer,
    AskPermission,
    AskUser,
    BeginTurn,
    CallModel,
    ChangeSetting,
    Compact,
    Finish,
    RunHook,
    RunTool,
    Say,
    Suspend,
    TakeCheckpoint,
    compactable,
    effects,
)
from vllm_agent_sdk._core.run.log import Log
from vllm_agent_sdk._core.run.run import evolve
from vllm_agent_sdk._core.run.state import ANSWER_TOOL, CallStatus, Phase, State
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.events import (
    Checkpointed,
    Compacted,
    HookRan,
    Interrupted,
    MessageAdded,
    ModelEnded,
    ModelStarted,
    Notice,
    PermissionAsked,
    PermissionDecided,
    Rewound,
    RunEnded,
    RunResumed,
    RunStarted,
    RunSuspended,
    SettingsChanged,
    StoredEvent,
    SubagentEnded,
    SubagentStarted,
    ToolEnded,
    ToolStarted,
    TurnStarted,
    UserAnswered,
    UserAsked,
)
from vllm_agent_sdk.types.hooks import (
    HOOK_OUTPUTS,
    AddContext,
    Ask,
    Block,
    Continue,
    HookSpec,
    Rewrite,
    RewriteOutput,
    Stop,
)
from vllm_agent_sdk.types.messages import (
    AssistantMessage,
    ReasoningBlock,
    TextBlock,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vllm_agent_sdk.types.options import Context, Limits, Price
from vllm_agent_sdk.types.permissions import Allow, PermissionRule, PermissionRules
from vllm_agent_sdk.types.results import ErrorInfo, Pending, Usage
from vllm_agent_sdk.types.tools import ToolSpec

from .play import Play, call, said

SPECS = [
    ToolSpec(name="get", edits_files=("path",), max_output=3),
    ToolSpec(name="look", read_only=True, max_output=3),
    ToolSpec(name="alone", serial=True),
    ToolSpec(name="wipe", destructive=True),
    ToolSpec(name="later", deferred=True),
    ToolSpec(name="slow", background=True),
    ToolSpec(name="sub", kind="agent"),
    ToolSpec(name="remote", kind="mcp"),
    ToolSpec(name="ask_user_question", kind="question"),
]
NAMES = [spec.name for spec in SPECS] + ["unknown", ANSWER_TOOL]
ARGUMENTS = ["{}", '{"a":1}', '{"a":2}', '{"a":', "[1]", "3", ""]
ERRORS = [
    ErrorInfo("InternalServerError", "x"),
    ErrorInfo("ContextLengthError", "long"),
    ErrorInfo("ConstraintIgnoredError", "ignored"),
    ErrorInfo("UnsupportedByServerError", "flags", {"feature": "tool_choice"}),
    ErrorInfo("StreamTruncatedError", "cut"),
    ErrorInfo("AuthenticationError", "key"),
]
OUTPUTS: dict[type[Any], Callable[[], Any]] = {
    Block: lambda: Block("no"),
    Rewrite: lambda: Rewrite({"prompt": "else", "a": 3}),
    RewriteOutput: lambda: RewriteOutput({"x": 1}),
    AddContext: lambda: AddContext("by the way"),
    Ask: lambda: Ask("really?"),
    Stop: lambda: Stop("enough"),
    Continue: lambda: Continue("go on"),
    Allow: lambda: Allow({"a": 9}),
}


def start(pick: random.Random, number: int) -> RunStarted:
    """A run with whatever options there are."""
    hooks = [
        HookSpec(event=event, name=f"h{n}", pattern=pick.choice(["*", "get|wipe", "sub"]))
        for n, event in enumerate(pick.choices(sorted(HOOK_OUTPUTS), k=pick.choice([0, 0, 3, 6])))
    ]
    mode = pick.choice(["native", "guided", "required", "plain", "envelope"])
    return RunStarted(
        model="m",
        tools=SPECS,
        limits=Limits(
            max_turns=pick.randint(1, 6),
            max_tool_calls=pick.choice([None, None, 1, 3]),
            max_total_tokens=pick.choice([None, None, 60]),
            max_parallel_tools=pick.randint(1, 3),
            max_cost=pick.choice([None, 0.00004]),
            repairs=pick.randint(0, 2),
            last_turn_without_tools=pick.random() < 0.3,
        ),
        tool_choice=pick.choice([None, None, "required"]) if number == 0 else None,
        turn_mode_asked=pick.choice(["auto", "auto", mode]),
        turn_mode=mode,
        dialect="text" if mode in {"guided", "envelope"} else "native",
        session_id=pick.choice([None, "s"]),
        fallback_model=pick.choice([None, "m2"]),
        output=pick.choice([None, {"type": "object"}]),
        permissions=PermissionRules(
            mode=pick.choice(["default", "default", "plan", "acceptEdits", "dontAsk"]),
            deny=pick.choice([(), (PermissionRule.of("look"),)]),
            ask=pick.choice([(), (PermissionRule.of("get"),)]),
        ),
        hooks=hooks,
        context=Context(keep_last=pick.randint(0, 3), strategy=pick.choice(["summarise", "off"])),
        window=pick.choice([None, 100]),
        prices=pick.choice([{}, {"*": Price(input=1, output=1)}]),
        checkpoints=pick.choice([None, "tools", "turn"]),
    )


def reply(pick: random.Random, turn: int, attempt: int) -> ModelEnded:
    """Whatever a model may answer."""
    blocks: list[ToolCall | str] = [
        call(pick.choice(NAMES), pick.choice(ARGUMENTS), f"t{turn}a{attempt}c{number}")
        for number in range(pick.choice([0, 0, 1, 1, 2, 4]))
    ]
    if pick.random() < 0.4:
        blocks.insert(0, "text")
    facts: dict[str, Any] = {
        "finish_reason": pick.choices(
            ["stop", "length", "tool_calls", "abort", None], [9, 1, 9, 1, 1]
        )[0],
        "usage": Usage(pick.choice([0, 10, 80]), 5, requests=1),
    }
    if pick.random() < 0.15:
        facts["error"] = pick.choice(ERRORS)
    if pick.random() < 0.3:
        facts["output_error"] = ErrorInfo("OutputValidationError", "bad")
    elif pick.random() < 0.5:
        facts["output"] = _codec.Raw(b"{}")
    ended = said(*blocks, **facts)
    if pick.random() < 0.1 and not blocks:
        thought = AssistantMessage([ReasoningBlock("hm")])
        return ModelEnded(turn, message=thought, **facts)
    return ended


class RandomPlay(Play):
    """A session of up to three runs, played at random."""

    def __init__(self, seed: int, check: Callable[[RandomPlay], None] | None = None) -> None:
        self.pick = random.Random(seed)
        self.check = check
        self.log: list[StoredEvent] = []
        self.state = State()
        self.background: dict[str, ToolCall] = {}
        self.runs = 0
        self.said: list[str] = []
        self.between()
        self.begin()

    def add(self, *events: StoredEvent) -> Play:
        for event in events:
            super().add(event)
            if self.check is not None:
                self.check(self)
        return self

    def say(self, when: str) -> None:
        """Say something while a run is active, or before it."""
        text = f"word {len(self.said)}"
        self.said.append(text)
        self.add(MessageAdded(UserMessage(text), when=when))

    def begin(self) -> None:
        """Begin the next run, with what has waited for it."""
        self.runs += 1
        self.add(start(self.pick, self.runs - 1))
        if self.state.queue:
            self.add(MessageAdded(self.state.queue[0], queued=True))
        else:
            self.say("prompt")

    def play(self) -> RandomPlay:
        """Play to the end."""
        for _ in range(600):
            if self.state.phase is Phase.DONE:
                failed = self.state.stop is not None and self.state.stop.reason == "error"
                if failed and self.pick.random() < 0.3:
                    self.add(RunResumed(reason="retry"))
                elif self.runs < 3 and (self.state.queue or self.pick.random() < 0.3):
                    self.begin()
                else:
                    self.between()
                    return self
            self.step()
        raise AssertionError("the run does not end")

    def step(self) -> None:
        """Do one legal thing of those that the effects and the world allow."""
        pick = self.pick
        if self.state.phase is Phase.SUSPENDED:
            self.resume()
            return
        if self.state.phase is Phase.DONE:
            return
        wanted = effects(self.state)
        ends = wanted == (Finish(),)
        if pick.random() < 0.08:
            self.from_outside(ends)
            return
        if not wanted:
            assert self.background, f"nothing to do and nothing to wait for in {self.state.phase}"
            self.end_background()
            return
        self.perform(pick.choice(wanted))

    def from_outside(self, ends: bool) -> None:
        """What nobody has to wait for."""
        pick = self.pick
        kinds = ["steer", "after", "interrupt", "notice", "model", "mode", "tools"]
        kind = pick.choice([*kinds, "task", "crash", "sub"])
        if kind == "sub" and not ends:
            usage = Usage(1, 1, requests=1)
            self.add(SubagentEnded("x", "end_turn", usage, {"m": usage}))
        elif kind in {"steer", "after"}:
            self.say(kind)
        elif kind == "notice":
            self.add(Notice("x", "y"))
        elif kind == "model":
            self.add(SettingsChanged("model", "m", "m3"))
        elif kind == "mode":
            self.add(
                SettingsChanged("permission_mode", "default", pick.choice(["plan", "default"]))
            )
        elif kind == "tools":
            shown = pick.sample(SPECS, pick.randint(0, len(SPECS)))
            self.add(SettingsChanged("tools", new=[spec.name for spec in shown], tools=shown))
        elif kind == "task" and self.background:
            self.end_background()
        elif kind == "crash":
            self.background.clear()
            self.add(RunResumed(reason="restart", unknown=pick.choice(["ask", "skip"])))
            if pick.random() < 0.3:
                changed = _codec.replace(self.state.started, context=start(pick, 1).context)
                self.add(SettingsChanged("options", options=changed))
        elif kind == "interrupt" and not ends:
            partial = AssistantMessage([TextBlock("par"), call(arguments="{")])
            in_model = self.state.phase is Phase.MODEL and self.state.ending is None
            self.add(Interrupted(partial=pick.choice([None, partial]) if in_model else None))

    def between(self) -> None:
        """What may come while nothing is under way."""
        pick = self.pick
        if pick.random() < 0.1:
            self.say("after")
        if pick.random() < 0.1:
            self.add(HookRan("h", "session_start", outputs=(AddContext("it is Monday"),)))
        if self.state.phase is not Phase.IDLE and pick.random() < 0.1:
            self.add(SettingsChanged("model", "m", "m4"))
            self.add(SubagentEnded("x", "end_turn", Usage(1, 1, requests=1)))
        messages = compactable(self.state)
        if self.state.phase is Phase.DONE and messages and pick.random() < 0.3:
            error = pick.choice([None, ErrorInfo("OutputError", "cut")])
            self.add(Compacted(0 if error else messages, "sum", Usage(3, 3, requests=1), error))
        if self.state.phase is Phase.DONE and len(self.state.checkpoints) and pick.random() < 0.3:
            self.rewind()

    def rewind(self) -> None:
        """Go back to a checkpoint, having taken another."""
        pick = self.pick
        self.add(Checkpointed("undo", "s", 3))
        to = pick.choice(self.state.checkpoints.since(0)).event.checkpoint
        self.add(Rewound(to, conversation=pick.random() < 0.7))

    def end_background(self) -> None:
        """A background task ends."""
        task = self.pick.choice(sorted(self.background))
        del self.background[task]
        text = f"word {len(self.said)}"
        self.said.append(text)
        self.add(MessageAdded(UserMessage(text), when="notification", task=task))

    def resume(self) -> None:
        """Take a suspended run up again."""
        pick = self.pick
        self.between()
        if pick.random() < 0.1:
            self.add(Interrupted())
            return
        self.add(RunResumed(reason=pick.choice(["answered", "restart"])))
        if self.state.phase is Phase.SUSPENDED or self.state.stop is not None:
            return
        for entry in self.state.calls:
            if entry.status is not CallStatus.WAITING or pick.random() < 0.2:
                continue
            made = entry.call
            match entry.waits_for:
                case "approval" | "decision":
                    self.decide(made, pick.choice(["allow", "deny"]))
                case "question":
                    self.add(UserAnswered(made.id, {"q": ["a"]}))
                case "tool_result":
                    self.add(ToolEnded(made.name, ToolMessage(made.id, "sent")))
            if self.state.stop is not None or self.state.phase not in {Phase.GATING, Phase.TOOLS}:
                return

    def decide(self, made: ToolCall, decision: str) -> None:
        """Answer a permission."""
        pick = self.pick
        self.add(
            PermissionDecided(
                made.id,
                decision,
                "because",
                input=pick.choice([None, {"b": 1}]) if decision == "allow" else None,
                remember=pick.choice([(), (made.name,)]) if decision == "allow" else (),
                interrupt=decision == "deny" and pick.random() < 0.1,
            )
        )

    def perform(self, effect: object) -> None:
        """Give an effect one of its legal answers."""
        pick = self.pick
        match effect:
            case BeginTurn(turn=turn):
                tokens, exact = pick.choice([None, None, 50, 90, 120]), pick.random() < 0.8
                window = pick.choice([None, None, 100])
                self.add(TurnStarted(turn, context_tokens=tokens, exact=exact, window=window))
            case CallModel(turn=turn, attempt=attempt):
                self.add(ModelStarted(turn))
                if self.state.stop is None:
                    self.add(reply(pick, turn, attempt))
            case Compact(messages=messages):
                if pick.random() < 0.2:
                    usage = Usage(1, 1, requests=1)
                    self.add(SubagentEnded("x", "end_turn", usage, {"m": usage}))
                fails = pick.random() < 0.3
                error = ErrorInfo("OutputError", "cut") if fails else None
                self.add(Compacted(0 if fails else messages, "sum", Usage(3, 3, requests=1), error))
            case RunHook(event=event, number=number, call=entry):
                made = HOOK_OUTPUTS[event]
                outputs = tuple(OUTPUTS[pick.choice(made)]() for _ in range(pick.choice([0, 1, 2])))
                call_id = None if entry is None else entry.call.id
                name = self.state.hook_spec(number).name
                self.add(HookRan(name, event, call_id, outputs if made else ()))
            case AskPermission(call=asked):
                self.add(PermissionAsked(asked))
                self.decide(asked, pick.choice(["allow", "allow", "deny", "defer"]))
            case AskUser(call=asked):
                self.add(UserAsked(asked.id))
                if pick.random() < 0.3:
                    self.add(UserAnswered(asked.id, deferred=True))
                elif pick.random() < 0.2:
                    self.add(ToolEnded(asked.name, ToolMessage(asked.id, "failed", is_error=True)))
                else:
                    self.add(UserAnswered(asked.id, {"q": ["a"]}))
            case _:
                self.perform_at_once(effect)

    def perform_at_once(self, effect: object) -> None:
        """Those of them that are nothing but an event, and tools."""
        match effect:
            case RunTool(call=made, spec=spec):
                self.run_one(made, spec)
            case TakeCheckpoint():
                error = self.pick.choice([None, None, ErrorInfo("StoreError", "full")])
                name = f"c{len(self.state.checkpoints)}"
                self.add(Checkpointed(name, "s", 0 if error else 3, {}, error))
            case Answer(call=made, message=message):
                self.add(ToolEnded(made.name, message, executed=False))
            case Say(message=message, when=when):
                self.add(MessageAdded(message, when=when))
            case ChangeSetting(change=change):
                self.add(SettingsChanged(change.what, None, change.new, change.reason))
            case Suspend(waiting=waiting):
                pending = [Pending(entry.waits_for or "", entry.call) for entry in waiting]
                self.add(RunSuspended(pending))
            case Finish():
                self.add(RunEnded(result=self.result()))

    def run_one(self, made: ToolCall, spec: ToolSpec) -> None:
        """Start a tool, or end one that runs."""
        pick = self.pick
        entry = self.state.call(made.id)
        assert entry is not None
        if entry.status is not CallStatus.RUNNING:
            self.add(ToolStarted(made))
            return
        task = f"task_{made.id}" if spec.background else None
        if task is not None:
            self.background[task] = made
        if spec.kind == "agent":
            usage = Usage(5, 5, requests=1)
            self.add(SubagentStarted(made.id, "sub"))
            self.add(SubagentEnded(made.id, "end_turn", usage, {"m": usage}, cost=0.0))
        executed = task is not None or pick.random() < 0.8
        message = ToolMessage(made.id, "a result", is_error=not executed or pick.random() < 0.2)
        self.add(ToolEnded(made.name, message, executed=executed, task=task))


def check_transcript(messages: Iterable[object]) -> None:
    """Every call has exactly one result, right after its turn, in order."""
    open_ids: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            assert open_ids, "a result without a call"
            assert open_ids.pop(0) == message.call_id
        else:
            assert not open_ids, "a call without a result"
        if isinstance(message, AssistantMessage):
            open_ids = [made.id for made in message.tool_calls]
    assert not open_ids


def replayed(log: list[StoredEvent]) -> State:
    """Fold a log from scratch."""
    state = State()
    for event in log:
        state = evolve(state, event)
    return state


def states_of(log: Iterable[StoredEvent]) -> list[State]:
    """The state before a log, and after each of its events."""
    states = [State()]
    for event in log:
        states.append(evolve(states[-1], event))
    return states


def logs_of(state: State) -> list[Log[Any]]:
    """The logs of a state, those of its checkpoints too."""
    fields = [getattr(state, name) for name in state.__struct_fields__]
    histories = [moment.history for moment in state.checkpoints]
    return [each for each in (*fields, *histories) if isinstance(each, Log)]


def shared_by(state: State) -> list[tuple[int, list[int]]]:
    """For each log that is not empty, which list it shares, and which objects are in it.

    Lists and objects are numbered as they come.
    """
    lists: dict[int, int] = {}
    objects: dict[int, int] = {}
    return [
        (
            lists.setdefault(id(log.shared), len(lists)),
            [objects.setdefault(id(each), len(objects)) for each in log.shared[: len(log)]],
        )
        for log in logs_of(state)
        if len(log) and not isinstance(log.shared[0], str)  # two texts may be one object
    ]
