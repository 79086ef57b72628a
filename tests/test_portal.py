"""The background loop: one for a process, whatever ends it, whoever waits."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vllm_agent_sdk._portal import call, run_there
from vllm_agent_sdk.errors import UsageError


async def loop_id() -> int:
    return id(asyncio.get_running_loop())


async def thread_id() -> int:
    return threading.get_ident()


def test_all_threads_share_one_loop_on_a_thread_of_its_own() -> None:
    with ThreadPoolExecutor(8) as pool:
        loops = set(pool.map(lambda _: call(loop_id), range(32)))
    assert loops == {call(loop_id)}
    assert call(thread_id) != threading.get_ident()


async def test_it_works_where_a_loop_runs_and_is_another_one() -> None:
    assert call(loop_id) != id(asyncio.get_running_loop())


def test_what_is_raised_there_is_raised_here() -> None:
    async def fail() -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        call(fail)
    assert run_there(threading.get_ident) == call(thread_id)


def test_a_call_from_the_loop_itself_is_refused_instead_of_waiting_for_itself() -> None:
    async def nested() -> int:
        return call(loop_id)

    with pytest.raises(UsageError, match="await the async method"):
        call(nested)


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_loop_is_raised_where_a_call_waits_and_the_next_call_begins_anew(
    raised: type[BaseException],
) -> None:
    async def leave() -> None:
        async def end() -> None:
            raise raised("bye")

        task = asyncio.create_task(end())
        await asyncio.Event().wait()
        await task

    with pytest.raises(raised, match="bye"):
        call(leave)
    assert call(loop_id) == call(loop_id)


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_child_of_a_fork_starts_its_own_and_both_end_by_themselves() -> None:
    said = run(
        """
        import asyncio, os, sys, threading
        from vllm_agent_sdk._portal import call

        async def where():
            await asyncio.sleep(0)
            return threading.current_thread().name

        print(call(where), flush=True)
        if os.fork() == 0:
            print(call(where), call(where), flush=True)
            sys.exit()
        os.wait()
        print(call(where), flush=True)
        """
    )
    assert said == ["vllm-agent-sdk"] * 4


def test_what_still_runs_at_the_end_of_the_program_is_cancelled() -> None:
    said = run(
        """
        import asyncio, threading
        from vllm_agent_sdk._portal import call

        async def hang():
            try:
                await asyncio.Event().wait()
            finally:
                print("cancelled", flush=True)

        async def begin():
            global task
            task = asyncio.create_task(hang())
            await asyncio.sleep(0)

        call(begin)
        print("end", flush=True)
        """
    )
    assert said == ["end", "cancelled"]
