"""Record anew what the package and its tests know of vLLM: from a running server.

    VLLM_BASE_URL=http://… python tools/record.py      that server
    python tools/record.py                             one that it starts, with LocalServer

- `src/vllm_agent_sdk/testing/fields.json`: the simulator's table of request fields, from
  `/openapi.json`.
- `tests/fixtures/recorded/`: what the server answers to the requests of `requests.json` there, at
  temperature 0: `<name>.sse` or `<name>.json`, and `answers.json` with statuses and headers.
- `tests/fixtures/recorded/metrics.txt`: `/metrics`.

Ids, times and fingerprints are replaced, so that a second recording of the same server differs in
nothing else. The server should be started with a parser for calls (hermes), `--max-model-len 4096`
and `--enable-prompt-tokens-details`; one that is started here is.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from record_fields import fields_table, written

from vllm_agent_sdk.local import LocalServer

__all__ = ["main", "request_body"]

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "src" / "vllm_agent_sdk" / "testing" / "fields.json"
RECORDED = ROOT / "tests" / "fixtures" / "recorded"
ARGUMENTS = (
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    *("--enable-prompt-tokens-details", "--max-model-len", "4096"),
)
TIMEOUT_S = 120.0
#: Longer than any context of these servers.
LONG = "word " * 9000
_REPLACED = (
    (
        re.compile(
            rb"\b((?:chatcmpl-tool|chatcmpl|cmpl|resp|msg|rs|fc|call|modelperm)[-_])[0-9a-f]{8,}"
        ),
        rb"\1X",
    ),
    (re.compile(rb'("created(?:_at)?": ?)[0-9.]+'), rb"\g<1>1795232869"),
    (re.compile(rb"(vllm-[0-9.]+-)[0-9a-f]{8}"), rb"\1deadbeef"),
    (re.compile(rb'("root": ?)"[^"]*"'), rb'\1"model"'),
)


def request_body(entry: dict[str, Any]) -> bytes | None:
    """Give the bytes of a request's body; `{long}` stands for a text that is too long."""
    if "body" not in entry:
        return None
    return json.dumps(entry["body"]).replace("{long}", LONG).encode()


def _ask(root: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    headers = {} if body is None else {"content-type": "application/json"}
    request = urllib.request.Request(root + path, body, headers)  # noqa: S310 - the user's own
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310
            try:
                return reply.status, dict(reply.headers), reply.read()
            except http.client.IncompleteRead as cut:
                return reply.status, {**dict(reply.headers), "cut": "yes"}, cut.partial
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, dict(refused.headers), refused.read()


def _anonymous(body: bytes) -> bytes:
    for pattern, replacement in _REPLACED:
        body = pattern.sub(replacement, body)
    return body


def record(root: str) -> None:
    """Record everything from the server at this URL (without `/v1`)."""
    version = str(json.loads(_ask(root, "/version")[2])["version"])
    table = fields_table(json.loads(_ask(root, "/openapi.json")[2]), version)
    TABLE.write_text(written(table), encoding="utf-8")
    print(f"{TABLE.relative_to(ROOT)}: {TABLE.stat().st_size} bytes")
    answers: dict[str, Any] = {}
    for old in (*RECORDED.glob("*.sse"), *RECORDED.glob("*.json")):
        if old.name != "requests.json":
            old.unlink()
    requests = json.loads((RECORDED / "requests.json").read_text(encoding="utf-8"))
    for entry in requests:
        status, headers, body = _ask(root, entry["path"], request_body(entry))
        names = {name.lower(): value for name, value in headers.items()}
        kind = names.get("content-type", "")
        streamed = kind.startswith("text/event-stream")
        answers[entry["name"]] = {
            "status": status,
            "content-type": kind or None,
            "framing": "chunked" if "transfer-encoding" in names else "content-length",
            "cut": "cut" in names,
        }
        file = RECORDED / f"{entry['name']}.{'sse' if streamed else 'json'}"
        file.write_bytes(_anonymous(body))
    lines = (f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in answers.items())
    (RECORDED / "answers.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    (RECORDED / "metrics.txt").write_bytes(_ask(root, "/metrics")[2])
    print(f"{RECORDED.relative_to(ROOT)}: {len(answers)} answers of vLLM {version}, and /metrics")


async def _record_own() -> None:
    async with LocalServer(args=ARGUMENTS) as server:
        await asyncio.to_thread(record, server.base_url.removesuffix("/v1"))


def main() -> int:
    """Record from the server of `VLLM_BASE_URL`, or from one that is started for it."""
    url = os.environ.get("VLLM_BASE_URL")
    if url:
        record(url.rstrip("/").removesuffix("/v1"))
    else:
        asyncio.run(_record_own())
    return 0


if __name__ == "__main__":
    sys.exit(main())
