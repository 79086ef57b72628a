"""Cases for the fuzzer: what servers send, recorded, and then spoilt.

A case follows from the seed and its number alone, so that any can be made again. Most are spoilt in
their structure (frames and the JSON in them), the others in their bytes.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

__all__ = ["KINDS", "Case", "Corpus", "make"]

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
#: Kinds of cases, and how many of a hundred are of each.
KINDS = {
    "chat stream": 34,
    "completion stream": 12,
    "responses stream": 18,
    "chat reply": 9,
    "completion reply": 4,
    "response": 6,
    "error": 9,
    "error frame": 3,
    "metrics": 3,
    "server": 2,
}
_STATUSES = (
    200,
    301,
    400,
    401,
    403,
    404,
    408,
    409,
    418,
    422,
    429,
    499,
    500,
    501,
    502,
    503,
    504,
    599,
)
_NESTED = "@@nested@@"
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 10**30, -(2**63), 1.5, 1e308, float("nan"), float("inf")),
    *(
        "",
        " ",
        "a",
        "0",
        "1",
        "stop",
        "length",
        "null",
        "\u0000",
        "\ud800",
        "\udfff\ud800",
        "\N{GRINNING FACE}",
        "é",
    ),
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "{", '{"a": 1', '{"a": 1}', "\n" * 70),
    *([], {}, [None], [[]], [{}], {"": None}, {"error": "x"}, {"message": None}, ["a", 1, None]),
    *(_NESTED, "x" * 3000, "\u2028\r\n", "[DONE]", "data: {}"),
)


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        kind: One of `KINDS`.
        pieces: The body, as it comes.
        end: How it ends: `"end"`, `"lost"` or `"idle"`.
        choices: How many choices were asked for.
        status: Of the HTTP reply.
        flags: Switches of what reads it.
    """

    kind: str
    pieces: tuple[bytes, ...]
    end: str = "end"
    choices: int = 1
    status: int = 200
    flags: int = 0

    @property
    def body(self) -> bytes:
        """All of the body."""
        return b"".join(self.pieces)


class Corpus:
    """What was recorded."""

    def __init__(self) -> None:
        def read(pattern: str) -> list[bytes]:
            return [path.read_bytes() for path in sorted(FIXTURES.glob(pattern))]

        recorded = {path: path.read_bytes() for path in sorted(FIXTURES.glob("recorded/*.*"))}

        def among(kind: str, suffix: str) -> list[bytes]:
            return [
                body
                for path, body in recorded.items()
                if path.name.startswith(f"{kind}_") and path.suffix == suffix
                if ("_bad_" in path.name) is (kind == "chat_bad")
            ]

        self.streams = {
            "chat stream": read("sse/*.sse") + among("chat", ".sse"),
            "completion stream": read("completions/sse/*.sse") + among("completion", ".sse"),
            "responses stream": read("responses/*.sse") + among("response", ".sse"),
        }
        self.replies = {
            "chat reply": read("full/*.json") + among("chat", ".json"),
            "completion reply": read("completions/full/*.json") + among("completion", ".json"),
            "response": read("responses/*.json") + among("response", ".json"),
            "server": list(_SERVER),
        }
        self.frames = {
            kind: [[_frame(each) for each in body.split(b"\n\n") if each] for body in bodies]
            for kind, bodies in self.streams.items()
        }
        self.values = {
            kind: [json.loads(body) for body in bodies] for kind, bodies in self.replies.items()
        }
        self.errors = [each.encode() for each in _ERRORS] + among("chat_bad", ".json")
        self.error_values = [json.loads(each) for each in self.errors if each[:1] == b"{"]
        self.metrics = [
            (FIXTURES / "metrics" / "vllm_0_32.txt").read_bytes().splitlines(keepends=True)
        ]


_CARD = {
    "id": "m",
    "object": "model",
    "created": 1,
    "owned_by": "vllm",
    "root": "m",
    "parent": None,
}
_SERVER = (
    json.dumps({"object": "list", "data": [{**_CARD, "max_model_len": 4096}]}).encode(),
    b'{"count":2,"max_model_len":4096,"tokens":[1,2],"token_strs":null}',
    b'{"prompt":"one two"}',
    b'{"version":"0.32.0"}',
    b'{"server_load":0}',
)
_LONG = (
    "This model's maximum context length is 8192 tokens. However, your prompt contains at least "
    "8193 input tokens"
)
_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
_FLAGS = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'


def _error(message: str, code: int, param: str | None = None) -> str:
    type_ = "InternalServerError" if code == 500 else "BadRequestError"
    error = {"message": message, "type": type_, "param": param, "code": code}
    return json.dumps({"error": error})


_ERRORS = (
    _error("m", 400),
    _error(_LONG, 400, "input_tokens"),
    _error(_DEAD, 500),
    _error("The model `x` does not exist.", 404, "model"),
    _error(_FLAGS, 400),
    '{"error":"Unauthorized"}',
    '{"detail":"Not Found"}',
    '{"type":"error","error":{"type":"invalid_request_error","message":"m"}}',
    '{"object":"error","message":"m","type":"BadRequestError","param":null,"code":400}',
    "Internal Server Error",
    "",
    "<html><head><title>502 Bad Gateway</title></head></html>",
)


def _frame(raw: bytes) -> tuple[bytes, Any]:
    """Take a frame apart: the lines before its data, and its JSON (or its bytes)."""
    head, _, data = raw.rpartition(b"data: ")
    try:
        return head, json.loads(data)
    except ValueError:
        return head, data


def make(corpus: Corpus, seed: int, number: int) -> Case:
    """Make a case."""
    chance = Random(seed * 1_000_003 + number)  # noqa: S311 - no secret
    kind = chance.choices(tuple(KINDS), tuple(KINDS.values()))[0]
    if kind in corpus.frames:
        return _stream(corpus, kind, chance)
    if kind == "metrics":
        return Case(kind, (_metrics(corpus, chance),))
    if kind in {"error", "error frame"}:
        if chance.random() < 0.4:
            body = _spoilt(chance.choice(corpus.errors), chance)
        else:
            body = _written(_mutated(chance.choice(corpus.error_values), chance), chance)
        return Case(kind, (body,), status=chance.choice(_STATUSES), flags=chance.getrandbits(8))
    if chance.random() < 0.25:
        body = _spoilt(chance.choice(corpus.replies[kind]), chance)
    else:
        body = _written(_mutated(chance.choice(corpus.values[kind]), chance), chance)
    return Case(kind, (body,), flags=chance.getrandbits(8))


# ── streams ──────────────────────────────────────────────────────────────────────────────────────


def _stream(corpus: Corpus, kind: str, chance: Random) -> Case:
    if chance.random() < 0.25:
        body = _spoilt(chance.choice(corpus.streams[kind]), chance)
    else:
        frames = list(chance.choice(corpus.frames[kind]))
        for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 5))):
            _spoil_frames(corpus, frames, chance)
        body = b"".join(_framed(head, value, chance) for head, value in frames)
        if chance.random() < 0.08:
            body = body.replace(b"\n", chance.choice((b"\r", b"\r\n")))
        if chance.random() < 0.03:
            body = b"\xef\xbb\xbf" + body
        if chance.random() < 0.25:
            body = body[: chance.randrange(len(body) + 1)]
    return Case(
        kind,
        _pieces(body, chance),
        end=chance.choice(("end", "end", "end", "lost", "idle")),
        choices=chance.choice((1, 1, 1, 2, 3)),
        flags=chance.getrandbits(8),
    )


def _spoil_frames(corpus: Corpus, frames: list[tuple[bytes, Any]], chance: Random) -> None:
    at = chance.randrange(len(frames)) if frames else 0
    what = chance.randrange(14)
    if not frames or what == 0:
        frames.insert(at, chance.choice(chance.choice(tuple(corpus.frames.values()))[0]))
    elif what == 1:
        del frames[at]
    elif what == 2:
        frames[at:at] = [frames[at]] * chance.choice((1, 1, 2, 40))
    elif what == 3:
        other = chance.randrange(len(frames))
        frames[at], frames[other] = frames[other], frames[at]
    elif what == 4:
        del frames[at:]
    elif what == 5:
        frames.insert(at, (b"", b"[DONE]"))
    elif what == 6:
        frames.insert(at, (b"", chance.choice(corpus.error_values)))
    elif what == 7:
        frames.insert(at, (chance.choice((b": keep-alive\n\n", b"event: x\n", b"id: 1\n")), {}))
    elif what == 8:
        chance.shuffle(frames)
    else:
        head, value = frames[at]
        frames[at] = head, _mutated(value, chance)


def _framed(head: bytes, value: Any, chance: Random) -> bytes:
    data = value if isinstance(value, bytes) else _written(value, chance)
    if chance.random() < 0.02:
        data = data.replace(b",", b",\ndata: ")
    if chance.random() < 0.02:
        return head + b"data:" + data + b"\n\n"
    return head + b"data: " + data + b"\n\n"


def _pieces(body: bytes, chance: Random) -> tuple[bytes, ...]:
    how = chance.random()
    if how < 0.4 or len(body) < 2:
        return (body,) if body else ()
    if how < 0.5 and len(body) < 3000:
        size = chance.randrange(1, 5)
        return tuple(body[at : at + size] for at in range(0, len(body), size))
    cuts = sorted(chance.randrange(1, len(body)) for _ in range(chance.randrange(1, 9)))
    edges = (0, *cuts, len(body))
    return tuple(body[a:b] for a, b in itertools.pairwise(edges) if a < b)


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────


def _mutated(value: Any, chance: Random) -> Any:
    """Give a value with one to three places spoilt; what is not on their way is shared."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        value = _spoil(value, chance, 0)
    return value


def _spoil(value: Any, chance: Random, depth: int) -> Any:
    stop = chance.random() < 0.12 * depth
    if isinstance(value, dict) and value and not stop:
        copy = dict(value)
        key = chance.choice(tuple(copy))
        what = chance.randrange(12)
        if what == 0:
            del copy[key]
        elif what == 1:
            copy[chance.choice(("error", "index", "choices", "type", "usage", "x"))] = _any(chance)
        elif what == 2:
            other = chance.choice(tuple(copy))
            copy[key], copy[other] = copy[other], copy[key]
        else:
            copy[key] = _spoil(copy[key], chance, depth + 1)
        return copy
    if isinstance(value, list) and value and not stop:
        items = list(value)
        at = chance.randrange(len(items))
        what = chance.randrange(8)
        if what == 0:
            del items[at]
        elif what == 1:
            items[at:at] = [items[at]] * chance.choice((1, 2, 30))
        elif what == 2:
            items.append(_any(chance))
        else:
            items[at] = _spoil(items[at], chance, depth + 1)
        return items
    return _any(chance)


def _any(chance: Random) -> Any:
    return chance.choice(_VALUES)


def _written(value: Any, chance: Random) -> bytes:
    """Write JSON, with all that Python's writer lets pass: NaN, lone surrogates, deep nesting."""
    text = json.dumps(value, ensure_ascii=chance.random() < 0.7, separators=(",", ":"))
    if _NESTED in text:
        depth = chance.choice((3, 30, 400, 3000))
        begin, end = chance.choice((("[", "]"), ('{"a":', "}"), ('{"content":[', "]}")))
        text = text.replace(f'"{_NESTED}"', begin * depth + "1" + end * depth)
    if chance.random() < 0.02:
        key = chance.choice(
            ('"index":0,', '"choices":[],', '"error":null,', '"finish_reason":"stop",')
        )
        text = text.replace("{", "{" + key, 1)
    return text.encode("utf-8", "surrogatepass")


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────


def _spoilt(body: bytes, chance: Random) -> bytes:
    data = bytearray(body)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(data) + 1)
        what = chance.randrange(7)
        if what == 0:
            data[at : at + 1] = bytes([chance.getrandbits(8)])
        elif what == 1:
            data[at:at] = chance.choice(
                (
                    b"\n",
                    b"\r",
                    b"\n\n",
                    b"\x00",
                    b"\xff",
                    b"\xef\xbb\xbf",
                    b"data: ",
                    b":",
                    b'"',
                    b"{",
                    b"]",
                )
            )
        elif what == 2:
            del data[at : at + chance.randrange(1, 40)]
        elif what == 3:
            start = chance.randrange(len(data) + 1)
            data[at:at] = data[start : start + chance.randrange(1, 200)]
        elif what == 4 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif what == 5:
            data[at:at] = chance.randbytes(chance.randrange(1, 20))
        else:
            del data[at:]
    return bytes(data)


def _metrics(corpus: Corpus, chance: Random) -> bytes:
    lines = list(chance.choice(corpus.metrics))
    start = chance.randrange(len(lines))
    lines = lines[start : start + chance.randrange(1, 30)]
    chance.shuffle(lines)
    body = b"".join(lines)
    return body if chance.random() < 0.1 else _spoilt(body, chance)
