"""What an older vLLM calls things and what it lacks: a table, for servers known to be old.

The versions are those of vLLM's releases. What `/openapi.json` says counts more than a version: a
field that it lists is there. A version that tells no release (a build from source is often
`0.1.dev…`) tells nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vllm_agent_sdk.errors import UnsupportedByServerError
from vllm_agent_sdk.types.profile import ServerProfile

__all__ = ["TABLE", "Drift", "lacks", "release", "suited"]

Release = tuple[int, int, int]
Body = dict[str, Any]

#: The fields of `structured_outputs`, and what they were before.
_GUIDED = {
    "json": "guided_json",
    "regex": "guided_regex",
    "choice": "guided_choice",
    "grammar": "guided_grammar",
    "whitespace_pattern": "guided_whitespace_pattern",
}
_ALL = ("/chat/completions", "/completions", "/responses")


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that came with a version.

    Attributes:
        what: The field or route, as it is now.
        since: The first version that has it.
        paths: Where it counts, below `/v1`.
        asked: Whether a body asks for it.
        older: Writes it as it was before; `None`: there was nothing like it.
    """

    what: str
    since: Release
    paths: tuple[str, ...]
    asked: Callable[[Body], bool]
    older: Callable[[Body], Body] | None = None


def _has(field: str) -> Callable[[Body], bool]:
    return lambda body: body.get(field) is not None


def _guided(body: Body) -> Body:
    told = {name: each for name, each in body["structured_outputs"].items() if each is not None}
    older = {name: value for name, value in body.items() if name != "structured_outputs"}
    for name, value in told.items():
        if name == "json_object":
            if value:
                older["response_format"] = {"type": "json_object"}
        elif name in _GUIDED:
            older[_GUIDED[name]] = value
        elif value is not False:
            raise KeyError(f"structured_outputs.{name}")
    return older


def _max_tokens(body: Body) -> Body:
    older = {name: value for name, value in body.items() if name != "max_completion_tokens"}
    older.setdefault("max_tokens", body["max_completion_tokens"])
    return older


def _reasoned(body: Body) -> bool:
    return any(isinstance(each, Mapping) and "reasoning" in each for each in body["messages"])


def _reasoning_content(body: Body) -> Body:
    def renamed(message: Any) -> Any:
        if not isinstance(message, Mapping) or "reasoning" not in message:
            return message
        left = {name: value for name, value in message.items() if name != "reasoning"}
        return {**left, "reasoning_content": message["reasoning"]}

    return {**body, "messages": [renamed(message) for message in body["messages"]]}


#: Oldest first. A server's refusals tell the rest (4xx): this is what would be ignored in silence,
#: or refused without saying why.
TABLE: tuple[Drift, ...] = (
    Drift("max_completion_tokens", (0, 6, 4), _ALL[:1], _has("max_completion_tokens"), _max_tokens),
    Drift(
        'tool_choice="required"',
        (0, 8, 3),
        _ALL[:1],
        lambda body: body.get("tool_choice") == "required",
    ),
    Drift("/v1/responses", (0, 10, 0), _ALL[2:], lambda _body: True),
    Drift("stream", (0, 10, 1), _ALL[2:], lambda body: bool(body.get("stream"))),
    Drift(
        "return_token_ids", (0, 10, 2), _ALL[:2], lambda body: bool(body.get("return_token_ids"))
    ),
    Drift("structured_outputs", (0, 11, 0), _ALL, _has("structured_outputs"), _guided),
    Drift(
        "reasoning",
        (0, 16, 0),
        _ALL[:1],
        lambda body: bool(body.get("messages")) and _reasoned(body),
        _reasoning_content,
    ),
)


@functools.lru_cache(maxsize=64)
def release(version: str | None) -> Release | None:
    """Read a version; `None` for one that tells no release."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?!\.?dev)", version or "")
    if found is None:
        return None
    numbers = (int(found[1]), int(found[2]), int(found[3] or 0))
    return None if numbers < (0, 2, 0) else numbers


def suited(path: str, body: Mapping[str, Any], profile: ServerProfile) -> Mapping[str, Any]:
    """Write a body as the server knows it; one that is not known to be old gets it unchanged.

    Args:
        path: The route, below `/v1`.
        body: As it is for the newest version; it is not changed.
        profile: What is known of the server.

    Raises:
        UnsupportedByServerError: The server is too old for something that is asked.
    """
    lacking = lacks(path, profile)
    if not lacking:
        return body
    fitted: Body = dict(body)
    for drift in lacking:
        if drift.asked(fitted):
            fitted = _older(drift, fitted, profile)
    return fitted


def lacks(path: str, profile: ServerProfile) -> tuple[Drift, ...]:
    """Give what the server lacks of a route, as far as is known.

    Args:
        path: The route, below `/v1`.
        profile: What is known of the server.
    """
    version = release(profile.version.value)
    fields = (profile.fields.value or {}).get(f"/v1{path}")
    return () if version is None and fields is None else _lacking(path, version, fields)


@functools.lru_cache(maxsize=64)
def _lacking(
    path: str, version: Release | None, fields: tuple[str, ...] | None
) -> tuple[Drift, ...]:
    """Give what a server does not know of a route."""
    return tuple(drift for drift in TABLE if path in drift.paths and _lacks(drift, version, fields))


def _lacks(drift: Drift, version: Release | None, fields: tuple[str, ...] | None) -> bool:
    if fields is not None and drift.what in fields:
        return False
    if version is not None:
        return version < drift.since
    # Without a version: a constraint that the document does not list would be ignored in silence.
    return drift.what == "structured_outputs"


def _older(drift: Drift, body: Body, profile: ServerProfile) -> Body:
    what = drift.what
    if drift.older is not None:
        try:
            return drift.older(body)
        except KeyError as unknown:
            what = unknown.args[0]
    since = ".".join(map(str, drift.since))
    raise UnsupportedByServerError(
        f"The server (vLLM {profile.version.value or 'of an unknown version'}) has no {what}; it "
        f"came with {since}. Nothing was sent.",
        feature=what,
    )
