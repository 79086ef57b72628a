"""The blocking twins: the same as the async ones, from a thread that has no loop, or one."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from vllm_agent_sdk import (
    Agent,
    Allow,
    Interrupted,
    Limits,
    ModelStarted,
    Permissions,
    RunEnded,
    RunStarted,
    Session,
    SessionLockedError,
    SessionNotFoundError,
    TextDelta,
    ToolEnded,
    ToolMessage,
    UnsupportedControlError,
    UsageError,
    tool,
)
from vllm_agent_sdk.agent.run.blocking import BlockingRun
from vllm_agent_sdk.agent.run.run import Run
from vllm_agent_sdk.agent.session.blocking import BlockingSession
from vllm_agent_sdk.sessions import MemoryStore
from vllm_agent_sdk.testing import Reply, Simulator

PARIS = Reply.calls(("get_weather", {"city": "Paris"}))


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"18 °C in {city}"


@tool(destructive=True)
def wipe(path: str) -> str:
    """Delete a file."""
    return f"{path} is gone"


@tool(deferred=True)
def order(item: str) -> str:
    """Order something; people do it."""
    raise AssertionError("a deferred tool is not run here")


def words(text: str, count: int = 500) -> Reply:
    """A reply that takes longer than any test."""
    return Reply.text(chunks=[f"{text} "] * count, delay=0.05)


# ── the same names, the same parameters ──────────────────────────────────────────────────────────

#: What is called otherwise where nothing can be awaited.
NAMES = {"aclose": "close"}
RUN_ONLY = {"stop", "batch", "closed", "ignore"}


def public(cls: type) -> dict[str, Any]:
    return {
        name: getattr(cls, name)
        for each in reversed(cls.__mro__[:-1])
        for name in vars(each)
        if not name.startswith("_")
    }


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.feature("A-01")
@pytest.mark.parametrize(
    ("twin", "original", "own"),
    [(BlockingRun, Run, {"wait"}), (BlockingSession, Session, set())],
)
def test_a_twin_has_what_the_original_has(twin: type, original: type, own: set[str]) -> None:
    there = {NAMES.get(name, name) for name in public(original)} - RUN_ONLY
    attributes = {"id"} if original is Session else set()
    assert set(public(twin)) == there | own | attributes


@pytest.mark.feature("A-01")
@pytest.mark.parametrize(("twin", "original"), [(BlockingRun, Run), (BlockingSession, Session)])
def test_a_twin_takes_and_says_what_the_original_does(twin: type, original: type) -> None:
    for name, method in public(original).items():
        if name in RUN_ONLY:
            continue
        blocking = public(twin)[NAMES.get(name, name)]
        assert not inspect.iscoroutinefunction(blocking), name
        if isinstance(method, property):
            assert isinstance(blocking, property), name
        else:
            assert parameters(blocking) == parameters(method), name
        assert blocking.__doc__, name


@pytest.mark.feature("A-01")
@pytest.mark.parametrize("name", ["run", "stream", "session"])
def test_the_agents_twins_take_what_the_originals_take(name: str) -> None:
    assert parameters(getattr(Agent, f"{name}_sync")) == parameters(getattr(Agent, name))
    assert not inspect.iscoroutinefunction(getattr(Agent, f"{name}_sync"))


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-01")
def test_the_events_are_those_of_an_async_run() -> None:
    with Simulator(PARIS, Reply.text("It is 18 °C."), PARIS, Reply.text("It is 18 °C.")) as server:
        agent = Agent(client=server.base_url, tools=[get_weather])
        with agent.stream_sync("go") as run:
            events = list(run)
            assert next(run, None) is None

        async def watch() -> list[Any]:
            return [event async for event in agent.stream("go")]

        again = asyncio.run(watch())
    assert [type(event) for event in events] == [type(event) for event in again]
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)
    assert run.result == run.wait() == run.partial
    assert run.result.text == "It is 18 °C."


@pytest.mark.feature("A-01")
def test_text_comes_while_the_model_still_speaks() -> None:
    with Simulator(words("la")) as server:
        with Agent(client=server.base_url).stream_sync("sing") as run:
            deltas = run.text_deltas()
            assert [next(deltas), next(deltas)] == ["la ", "la "]
            assert server.running == 1
            with pytest.raises(UsageError, match="no result yet"):
                _ = run.result
            assert run.partial.text.startswith("la ")
            run.interrupt()
            rest = list(run)
        assert isinstance(rest[-1], RunEnded)
        assert run.result.stop_reason == "interrupted"
        server.wait_for_sync(lambda: server.running == 0)


@pytest.mark.feature("A-01")
async def test_twins_work_where_a_loop_runs() -> None:
    with Simulator(Reply.text("one"), Reply.text("two"), Reply.text("three")) as server:
        agent = Agent(client=server.base_url)
        assert agent.run_sync("a").text == "one"
        assert "".join(agent.stream_sync("b").text_deltas()) == "two"
        with agent.session_sync() as session:
            assert session.run("c").text == "three"


@pytest.mark.feature("A-01")
def test_many_threads_run_agents_at_the_same_time() -> None:
    barrier = threading.Barrier(8, timeout=10)

    @tool
    def meet() -> str:
        """Wait for the others."""
        barrier.wait()
        return "met"

    def reply(request: Any) -> Reply:
        last = request.json["messages"][-1]
        return Reply.calls(("meet", {})) if last["role"] == "user" else Reply.text("Hello.")

    with Simulator(reply) as server:
        agent = Agent(client=server.base_url, tools=[meet])
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(agent.run_sync, map(str, range(8))))
    assert {result.text for result in results} == {"Hello."}
    assert [result.messages[0].text for result in results] == [str(n) for n in range(8)]


@pytest.mark.feature("A-01")
def test_threads_that_share_a_run_share_its_events() -> None:
    pieces = [f"{number} " for number in range(400)]
    with Simulator(Reply.text(chunks=pieces)) as server:
        with Agent(client=server.base_url).stream_sync("go") as run, ThreadPoolExecutor(4) as pool:
            shares = list(pool.map(list, [run] * 4))
    events = [event for share in shares for event in share]
    stored = [event.seq for event in events if event.seq is not None]
    assert sorted(stored) == list(range(1, len(stored) + 1))
    for share in shares:
        numbers = [event.seq for event in share if event.seq is not None]
        assert numbers == sorted(numbers)
    text = [event.text for event in events if isinstance(event, TextDelta)]
    assert sorted("".join(text).split()) == sorted("".join(pieces).split())


@pytest.mark.feature("A-01", "C-09")
def test_breaking_out_and_closing_frees_the_server() -> None:
    with Simulator(words("la")) as server:
        with Agent(client=server.base_url).stream_sync("sing") as run:
            for event in run:
                if isinstance(event, TextDelta):
                    break
            assert server.running == 1
        server.wait_for_sync(lambda: server.running == 0)
        run.close()
        assert run.partial.stop_reason == "interrupted"
        with pytest.raises(UsageError, match="closed before its end"):
            run.wait()


@pytest.mark.feature("A-01", "C-09")
def test_a_run_that_is_dropped_frees_the_server_and_warns_once() -> None:
    with Simulator(words("la")) as server:
        run = Agent(client=server.base_url).stream_sync("sing")
        for event in run:
            if isinstance(event, TextDelta):
                break
        with pytest.warns(ResourceWarning, match="A run was dropped") as warned:  # noqa: PT031
            del run
            gc.collect()
        assert len(warned) == 1
        server.wait_for_sync(lambda: server.running == 0)


@pytest.mark.feature("A-01")
def test_a_run_that_another_thread_closes_ends_for_who_waits() -> None:
    with Simulator(words("la")) as server:
        run = Agent(client=server.base_url).stream_sync("sing")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(run.wait)
            server.wait_for_sync(lambda: server.running == 1)
            run.close()
            with pytest.raises(UsageError, match="closed before its end"):
                waiting.result(timeout=10)
        server.wait_for_sync(lambda: server.running == 0)


@pytest.mark.feature("A-01")
def test_a_run_that_was_never_read_asks_nothing_and_warns_of_nothing() -> None:
    with Simulator(Reply.text("ok")) as server:
        run = Agent(client=server.base_url).stream_sync("go")
        run.interrupt()
        run.close()
        with pytest.raises(UsageError, match="closed"):
            list(run)
        assert server.requests == []


@pytest.mark.feature("A-01")
def test_the_callers_mistakes_are_raised_and_the_servers_are_not() -> None:
    with Simulator(Reply.error(400, message="bad luck")) as server:
        agent = Agent(client=server.base_url)
        result = agent.run_sync("x")
        assert (result.stop_reason, result.is_error) == ("error", True)
        with pytest.raises(UsageError, match="history="):
            agent.run_sync("x", history=["hello"])  # type: ignore[list-item]
        with pytest.raises(UsageError):
            agent.stream_sync(3)  # type: ignore[call-overload]
        events = list(agent.stream_sync("x"))
        assert isinstance(events[-1], RunEnded)
        assert events[-1].result.stop_reason == "error"


@pytest.mark.feature("A-01")
def test_a_tool_that_calls_a_twin_is_told_what_to_do() -> None:
    agents: list[Agent] = []

    @tool
    async def ask() -> str:
        """Ask another agent, the wrong way."""
        return agents[0].run_sync("inner").text

    @tool
    def ask_from_thread() -> str:
        """Ask another agent, from a thread."""
        return agents[0].run_sync("inner").text

    def reply(request: Any) -> Reply:
        said = [message["content"] for message in request.json["messages"]]
        if said == ["inner"]:
            return Reply.text("inner answer")
        if len(said) == 1:
            return Reply.calls(("ask", {}), ("ask_from_thread", {}))
        return Reply.text("done")

    with Simulator(reply) as server:
        agents.append(Agent(client=server.base_url))
        result = Agent(client=server.base_url, tools=[ask, ask_from_thread]).run_sync("outer")
    wrong, right = (message.text for message in result.messages if isinstance(message, ToolMessage))
    assert "await the async method" in wrong
    assert right == "inner answer"
    assert result.text == "done"


# ── Ctrl-C ───────────────────────────────────────────────────────────────────────────────────────

PROGRAM = """
import sys
from vllm_agent_sdk import Agent, Sampling

agent = Agent(client=sys.argv[1])
try:
    {body}
except KeyboardInterrupt:
    print("interrupted", flush=True)
    {after}
"""

BODIES = {
    "run_sync": ('agent.run_sync("sing")', "pass"),
    "wait": (
        'run = agent.stream_sync("sing"); run.wait()',
        "print(run.result.stop_reason, bool(run.result.text))",
    ),
    "iterate": (
        'run = agent.stream_sync("sing")\n    for event in run: pass',
        "print(run.result.stop_reason, bool(run.result.text))",
    ),
    "session": (
        'session = agent.session_sync().__enter__(); session.run("sing")',
        'print(session.run("again").text); session.close()',
    ),
}


def program(server: Simulator, body: str) -> subprocess.Popen[str]:
    (lines, after), url = BODIES[body], server.base_url
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(body=lines, after=after), url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


@pytest.mark.feature("A-01", "A-08")
@pytest.mark.skipif(os.name == "nt", reason="SIGINT is sent to one process")
@pytest.mark.parametrize("body", list(BODIES))
def test_ctrl_c_interrupts_the_run_and_is_raised(body: str) -> None:
    with Simulator(words("la"), Reply.text("again")) as server:
        with program(server, body) as process:
            server.wait_for_sync(lambda: server.running == 1, timeout=20)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        server.wait_for_sync(lambda: server.running == 0)
    assert err == ""
    assert process.returncode == 0
    assert out.splitlines()[0] == "interrupted"
    if body == "session":
        assert out.splitlines()[1:] == ["again"]
    elif body != "run_sync":
        assert out.splitlines()[1].startswith("interrupted")


@pytest.mark.feature("A-08")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="timers are signals of POSIX")
def test_what_another_signals_handler_raises_ends_the_run_too() -> None:
    def late(_signal: int, _frame: object) -> None:
        raise LookupError("too late")

    before = signal.signal(signal.SIGUSR1, late)
    try:
        with Simulator(words("la")) as server:
            agent = Agent(client=server.base_url)

            def send() -> None:
                server.wait_for_sync(lambda: server.running == 1)
                os.kill(os.getpid(), signal.SIGUSR1)

            thread = threading.Thread(target=send)
            thread.start()
            with pytest.raises(LookupError, match="too late"):
                agent.run_sync("sing")
            thread.join()
            server.wait_for_sync(lambda: server.running == 0)
    finally:
        signal.signal(signal.SIGUSR1, before)


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("A-01")
def test_a_session_remembers_and_is_watched() -> None:
    store = MemoryStore()
    with Simulator(Reply.text("Hello."), Reply.text("Ada.")) as server:
        agent = Agent(client=server.base_url)
        with agent.session_sync("s", store=store) as session:
            watching = session.events(until="close")
            assert session.id == "s"
            session.run("I am Ada.")
            assert session.run("Who am I?").text == "Ada."
            assert [m.text for m in session.messages] == [
                "I am Ada.",
                "Hello.",
                "Who am I?",
                "Ada.",
            ]
            replay = list(session.events(after=0))
            with pytest.raises(SessionLockedError), agent.session_sync("s", store=store):
                raise AssertionError
        events = list(watching)
        with agent.session_sync(store=store, latest=True) as again:
            assert again.id == "s"
            assert len(again.messages) == 4
        with pytest.raises(SessionNotFoundError):
            with agent.session_sync("nobody", store=store, create=False):
                raise AssertionError
    assert [type(e) for e in events].count(RunEnded) == 2
    assert replay[-1] == next(e for e in events if isinstance(e, RunEnded))
    with pytest.raises(UsageError, match="not open"):
        session.run("too late")


@pytest.mark.feature("A-01", "A-16")
def test_breaking_out_of_a_sessions_events_cancels_nothing() -> None:
    with Simulator(Reply.text("one two three")) as server:
        with Agent(client=server.base_url).session_sync() as session:
            run = session.send("go")
            for event in session.events(after=0):
                if isinstance(event, ModelStarted):
                    break
            feed = session.events()
            feed.close()
            assert list(feed) == []
            assert run.wait().text == "one two three"


@pytest.mark.feature("A-01", "A-20")
def test_a_session_is_spoken_to_by_several_threads() -> None:
    def echo(request: Any) -> Reply:
        return Reply.text(f"You said {request.json['messages'][-1]['content']}.")

    with Simulator(echo) as server:
        with Agent(client=server.base_url).session_sync() as session:
            with ThreadPoolExecutor(6) as pool:
                results = list(pool.map(session.run, map(str, range(6))))
            assert len(session.messages) == 12
    assert [result.text for result in results] == [f"You said {n}." for n in range(6)]


@pytest.mark.feature("A-01", "A-20")
def test_a_run_under_way_is_steered_and_interrupted_from_another_thread() -> None:
    begun, go_on = threading.Event(), threading.Event()

    @tool
    def work() -> str:
        """Work."""
        begun.set()
        assert go_on.wait(10)
        return "worked"

    with Simulator(Reply.calls(("work", {})), words("la")) as server:
        with Agent(client=server.base_url, tools=[work]).session_sync() as session:
            run = session.send("go")
            assert begun.wait(10)
            assert session.send("Sing.", when="steer") is run
            go_on.set()
            server.wait_for_sync(lambda: len(server.chats) == 2)
            waiting: list[Any] = []
            thread = threading.Thread(target=lambda: waiting.append(run.wait()))
            thread.start()
            session.interrupt()
            thread.join(10)
            assert waiting[0].stop_reason == "interrupted"
            assert any(isinstance(event, Interrupted) for event in run)
    assert server.chats[1].json["messages"][-1]["content"] == "Sing."


@pytest.mark.feature("A-01", "A-14")
@pytest.mark.parametrize("answer", ["approval", "result"])
def test_what_a_session_waits_for_is_answered(answer: str) -> None:
    name = "wipe" if answer == "approval" else "order"
    given = {"path": "x"} if answer == "approval" else {"item": "x"}
    with Simulator(Reply.calls((name, given)), Reply.text("Done.")) as server:
        agent = Agent(
            client=server.base_url,
            tools=[wipe, order],
            permissions=Permissions(unanswered="suspend"),
        )
        with agent.session_sync() as session:
            assert session.resume() is None
            assert session.run("go").stop_reason == "suspended"
            (waiting,) = session.pending
            with pytest.raises(UnsupportedControlError, match="does not wait"):
                session.resolve("c99", Allow())
            if answer == "approval":
                run = session.resolve(waiting.call.id, Allow())
            else:
                run = session.send_tool_result(waiting.call.id, "ordered")
            ended = [event.message.text for event in run if isinstance(event, ToolEnded)]
            assert run.result.text == "Done."
    assert ended == ["x is gone" if answer == "approval" else "ordered"]


@pytest.mark.feature("A-01")
def test_retry_and_the_settings_have_their_twins() -> None:
    replies = (Reply.error(400, message="bad luck"), Reply.text("ok"), Reply.text("ok"))
    with Simulator(*replies, model="sim") as server:
        agent = Agent(client=server.base_url, limits=Limits(max_turns=2))
        with agent.session_sync() as session:
            assert session.run("go").stop_reason == "error"
            assert session.retry().wait().text == "ok"
            with pytest.raises(UnsupportedControlError, match="retry"):
                session.retry()
            session.set_model("other")
            session.set_permission_mode("plan")
            session.add_directory("/tmp")
            with pytest.raises(UnsupportedControlError):
                session.remove_directory("/elsewhere")
            with pytest.raises(UnsupportedControlError):
                session.stop_task("t9")
            session.interrupt()
            assert session.run("go on").model == "other"


@pytest.mark.feature("A-01", "C-09")
def test_closing_a_session_cancels_its_run_and_frees_the_server() -> None:
    with Simulator(words("la")) as server:
        with Agent(client=server.base_url).session_sync() as session:
            run = session.send("sing")
            for event in run:
                if isinstance(event, TextDelta):
                    break
        server.wait_for_sync(lambda: server.running == 0)
        session.close()
        with pytest.raises(UsageError, match="closed before its end"):
            run.wait()


@pytest.mark.feature("A-01")
def test_an_async_client_is_refused_by_name() -> None:
    from vllm_agent_sdk import AsyncVLLM

    agent = Agent(client=AsyncVLLM("http://127.0.0.1:9"))
    methods: list[Callable[..., Any]] = [agent.run_sync, agent.stream_sync, agent.session_sync]
    for method in methods:
        with pytest.raises(UsageError, match=method.__name__):
            method("x")


FORKED = textwrap.dedent(
    """
    import os, sys
    from vllm_agent_sdk import Agent, UsageError

    agent = Agent(client=sys.argv[1])
    agent.run_sync("parent")
    run = agent.stream_sync("sing")
    next(run)
    if os.fork() == 0:
        try:
            run.wait()
        except UsageError as error:
            print("forked" in str(error), flush=True)
        print(agent.run_sync("child").text, flush=True)
        os._exit(0)
    os.wait()
    print(run.wait().text, flush=True)
    """
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_a_loop_of_its_own_and_is_told_whose_a_run_is() -> None:
    with Simulator(Reply.text("ok")) as server:
        done = subprocess.run(
            [sys.executable, "-c", FORKED, server.base_url],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert done.stdout.split() == ["True", "ok", "ok"], done.stderr
