"""Feed the library what no server should send, and see that it ends as it is to end.

Whatever the bytes are, they end in events or in a `VLLMError`: never in another exception, never in
two `Finished`, and in one only where the reply was complete: no error frame, and a finish reason
for each choice that was asked for. Streams go through the client's own classes, from the decoder of
server-sent events to `Finished`; whole replies, errors and metrics through what reads them.

    python tools/fuzz.py --cases 1000000 --seed 1
    python tools/fuzz.py --seed 1 --case 4711          that one case, with what becomes of it
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import faulthandler
import json
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz_cases import Case, Corpus, make

from vllm_agent_sdk._core.server.failures import server_error, stream_failure
from vllm_agent_sdk._core.server.metrics import read_metrics
from vllm_agent_sdk._core.stream.chat import ChatAccumulator
from vllm_agent_sdk._core.stream.completions import CompletionAccumulator
from vllm_agent_sdk.client.completions import CompletionChunkStream, CompletionStream
from vllm_agent_sdk.client.responses import ResponseStream
from vllm_agent_sdk.client.streams import ChatChunkStream, ChatStream, Opening, WireStream
from vllm_agent_sdk.errors import IdleTimeoutError, TransportError, VLLMError
from vllm_agent_sdk.types import chat, completions, responses, server
from vllm_agent_sdk.types._codec import decode_or_none
from vllm_agent_sdk.types.events import Finished

#: A case that takes longer is a failure: nothing here is large.
SLOW_S = 5.0
HANGS_S = 60.0
OFFERED = frozenset({"get_weather"})


class BrokenError(Exception):
    """What was promised is not so."""


class _Fixed:
    """An open stream of these pieces."""

    begun = 0.0
    has_data = False

    def __init__(self, case: Case) -> None:
        self._pieces = iter(case.pieces)
        self._end = case.end

    async def receive(self) -> bytes:
        piece = next(self._pieces, None)
        if piece is not None:
            return piece
        if self._end == "lost":
            raise TransportError("The connection was lost.")
        if self._end == "idle":
            raise IdleTimeoutError("The stream stood still.")
        return b""

    def arrived(self) -> None:
        """Hear that something was read."""

    def data_came(self) -> None:
        self.has_data = True

    def abort(self, error: VLLMError) -> None:
        self._pieces = iter(())

    def ended(self, failure: object, completion: object) -> None:
        """Hear how it ended."""

    async def aclose(self) -> None:
        self._pieces = iter(())


def opened(case: Case) -> WireStream[Any, Any]:
    """Give the client's stream of a case."""
    fixed: Any = _Fixed(case)

    async def opening() -> Any:
        return fixed

    flags = case.flags
    offered = OFFERED if flags & 1 else None
    told = Opening(
        opening,
        choices=case.choices,
        offered=offered,
        max_event_bytes=2000 if flags & 6 == 6 else None,
        request_id="id",
    )
    wire = bool(flags & 8)
    if case.kind == "responses stream":
        return ResponseStream(told)
    if case.kind == "completion stream":
        folded = CompletionAccumulator(case.choices, constrained=bool(flags & 16))
        return CompletionChunkStream(told, folded) if wire else CompletionStream(told, folded)
    folding = ChatAccumulator(
        case.choices, offered, constrained=bool(flags & 16), think_tags=bool(flags & 32)
    )
    return ChatChunkStream(told, folding) if wire else ChatStream(told, folding)


async def run_stream(case: Case) -> str:
    """Read a stream to its end; say how it ended."""
    stream = opened(case)
    finished: list[Any] = []
    try:
        async with stream:
            async for event in stream:
                if finished:
                    raise BrokenError(f"{type(event).__name__} came after Finished")
                if isinstance(event, Finished):
                    finished.append(event.completion)
                elif isinstance(event, responses.Finished):
                    finished.append(event.response)
    except VLLMError as error:
        if finished:
            raise BrokenError("an error came after Finished") from error
        look_at_error(error)
        return type(error).__name__
    wire = isinstance(stream, (ChatChunkStream, CompletionChunkStream))
    if len(finished) != (not wire):
        raise BrokenError(f"{len(finished)} Finished")
    if not may_finish(case):
        raise BrokenError("it was taken for whole")
    for reply in finished:
        look_at_reply(reply)
    return "whole"


def may_finish(case: Case) -> bool:
    """Say whether a stream may be whole, by another reading of it than the library's own."""
    finished: set[int] = set()
    for data in data_of(case.body):
        if data == b"[DONE]" and case.kind != "responses stream":
            break
        try:
            # Like the library's, this reading does not mind bad UTF-8 in keys nobody asks for.
            value = json.loads(data.decode("utf-8", "replace"), strict=False)
        except RecursionError:
            return True  # too deep to be judged
        except ValueError:
            continue
        if not isinstance(value, dict):
            continue
        if case.kind == "responses stream":
            if str(value.get("type")) in {"response.completed", "response.incomplete"}:
                return True
            continue
        if value.get("error") is not None:
            return False
        for choice in value.get("choices") or ():
            if isinstance(choice, dict) and choice.get("finish_reason") is not None:
                finished.add(int(choice.get("index") or 0))
    return len(finished) >= case.choices


def data_of(body: bytes) -> list[bytes]:
    """Read events plainly: all at once, line by line."""
    body = body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found: list[bytes] = []
    data: list[bytes] = []
    for line in (*body.split(b"\n"), b""):
        name, _, value = line.partition(b":")
        if not line and data:
            found.append(b"\n".join(data))
            data = []
        elif name == b"data":
            data.append(value.removeprefix(b" "))
    return found


def look_at_reply(reply: Any) -> None:
    """Use a reply as its readers do."""
    seen = [reply.text, reply.raw, reply.extra, reply.request_id, reply.usage, repr(reply)]
    names = ("tool_calls", "reasoning", "finish_reason", "output", "status")
    seen += [getattr(reply, name, None) for name in names]
    if hasattr(reply, "assistant_message"):
        seen.append(reply.assistant_message())


def look_at_error(error: VLLMError) -> None:
    """Use an error as its readers do."""
    seen = [str(error), repr(error), error.retryable, error.request_id]
    if error.partial is not None:
        seen += [error.partial.text, repr(error.partial)]
    if len(str(error)) > 5000:
        raise BrokenError(f"a message of {len(str(error))} characters")
    if len(str(error)) % 16 == 0:  # it costs more than all the rest
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        if str(again) != str(error):
            raise BrokenError("the error changes when it is pickled")


def _reply(decode: Callable[[bytes], Any]) -> Callable[[Case], str]:
    def run(case: Case) -> str:
        reply = decode(case.body)
        reply.attach(case.body, "id", OFFERED if case.flags & 1 else None)
        look_at_reply(reply)
        return "whole"

    return run


def _error(case: Case) -> str:
    headers = (
        {"retry-after": "1"} if case.flags & 1 else {"retry-after": case.body[:9].decode("latin-1")}
    )
    error = server_error(
        case.status, headers, case.body, url="http://h/v1/x", has_key=bool(case.flags & 2)
    )
    look_at_error(error)
    return type(error).__name__


def _error_frame(case: Case) -> str:
    error = stream_failure(decode_or_none(case.body))
    look_at_error(error)
    return type(error).__name__


def _metrics(case: Case) -> str:
    read_metrics(case.body.decode("utf-8", "replace"))
    return "read"


def _server(case: Case) -> str:
    for decode in (server.decode_models, server.decode_tokens, server.decode_text):
        try:
            repr(decode(case.body))
        except VLLMError as error:
            look_at_error(error)
    return "read"


WHOLE: dict[str, Callable[[Case], str]] = {
    "chat reply": _reply(chat.decode_completion),
    "completion reply": _reply(completions.decode_completion),
    "response": _reply(responses.decode_response),
    "error": _error,
    "error frame": _error_frame,
    "metrics": _metrics,
    "server": _server,
}


async def run(case: Case) -> str:
    """Run a case; say how it ended. Raises what no user is to see."""
    if case.kind not in WHOLE:
        return await run_stream(case)
    try:
        return WHOLE[case.kind](case)
    except VLLMError as error:
        look_at_error(error)
        return type(error).__name__


def where(error: BaseException) -> str:
    """Name a failure by its type and the innermost line of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "vllm_agent_sdk" in frame.filename]
    last = (ours or list(frames))[-1]
    told = str(error)[:80] if isinstance(error, BrokenError) else ""
    return f"{type(error).__name__} {told} in {Path(last.filename).name}:{last.lineno}"


async def fuzz(seed: int, cases: range) -> int:
    """Run cases; print how they ended; give the number of kinds of failures."""
    corpus = Corpus()
    ended: collections.Counter[str] = collections.Counter()
    failures: dict[str, list[int]] = {}
    slowest = (0.0, -1)
    begun = time.perf_counter()
    for number in cases:
        if number % 1000 == 0:
            faulthandler.dump_traceback_later(HANGS_S, exit=True)
            # The loop turns: what was called soon is called.
            await asyncio.sleep(0)
        case = make(corpus, seed, number)
        started = time.perf_counter()
        try:
            outcome = await run(case)
            if time.perf_counter() - started > SLOW_S:
                raise BrokenError(f"it took more than {SLOW_S} s")
            ended[f"{case.kind}: {outcome}"] += 1
        except Exception as error:  # noqa: BLE001 - any is a finding
            found = failures.setdefault(f"{case.kind}: {where(error)}", [])
            if not found:
                print(f"case {number}: {case.kind}: {where(error)}", flush=True)
            found.append(number)
        slowest = max(slowest, (time.perf_counter() - started, number))
        if number and number % 100_000 == 0:
            print(f"{number} cases, {len(failures)} kinds of failure", flush=True)
    faulthandler.cancel_dump_traceback_later()
    seconds = time.perf_counter() - begun
    for outcome, count in sorted(ended.items()):
        print(f"{count:9} {outcome}")
    for failure, found in failures.items():
        print(f"{len(found):9} FAILED {failure}: --seed {seed} --case {min(found, key=int)}")
    print(
        f"{len(cases)} cases, seed {seed}, {seconds:.0f} s; the slowest took "
        f"{slowest[0] * 1000:.0f} ms (case {slowest[1]}); {len(failures)} kinds of failure"
    )
    return len(failures)


async def show(seed: int, number: int) -> int:
    """Run one case and show it."""
    case = make(Corpus(), seed, number)
    print(json.dumps({"kind": case.kind, "end": case.end, "choices": case.choices}), case.status)
    for piece in case.pieces:
        print(repr(piece))
    try:
        print(await run(case))
    except Exception:  # noqa: BLE001 - shown
        traceback.print_exc()
        return 1
    return 0


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Feed the library what no server should send.")
    parser.add_argument("--cases", type=int, default=100_000, help="how many (default 100000)")
    parser.add_argument("--seed", type=int, default=1, help="which (default 1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--case", type=int, help="run only this case, and show it")
    given = parser.parse_args()
    if given.case is not None:
        return asyncio.run(show(given.seed, given.case))
    cases = range(given.first, given.first + given.cases)
    return 1 if asyncio.run(fuzz(given.seed, cases)) else 0


if __name__ == "__main__":
    sys.exit(main())
