"""What is said of an error, and the exit code it ends with.

| code | meaning |
| --- | --- |
| 0 | the command did what it was asked |
| 1 | it failed: the run ended otherwise than with an answer, a server died |
| 2 | it was called wrongly; nothing was sent |
| 3 | the server could not be reached, or refused the key |
| 130 | Ctrl-C |
| 141 | nobody reads the output any more |
"""

from __future__ import annotations

import re

from vllm_agent_sdk import (
    AuthenticationError,
    PermissionDeniedError,
    TransportError,
    UsageError,
    VLLMError,
)

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "OK",
    "OUTPUT_CLOSED",
    "UNREACHABLE",
    "WRONG_USAGE",
    "code_of",
    "sentence_of",
]

OK, FAILED, WRONG_USAGE, UNREACHABLE, INTERRUPTED, OUTPUT_CLOSED = 0, 1, 2, 3, 130, 141

# The library names its arguments; here people know them by their flags.
_FLAGS = {
    "api_key=": "--api-key",
    "base_url=": "--base-url",
    "base_url": "--base-url",
    "model=": "--model",
    "Limits.max_turns": "--max-turns",
    "ready_timeout_s": "--ready-timeout",
    "Timeout.total": "--timeout",
    "timeout=": "--timeout",
}
_ARGUMENT = re.compile(r"(?<![\w.])(" + "|".join(map(re.escape, _FLAGS)) + r")(?!\w)")
_GROUPS = {"Limits(max_turns=": "--max-turns ", "Timeout(total=": "--timeout "}
_FIELD = re.compile("(" + "|".join(map(re.escape, _GROUPS)) + r")(\S+?)\)")
_NONE = ", or None for none"
_TURN_MODE = re.compile(r"(?<!\w)turn_mode='(\w+)'")


def code_of(error: BaseException) -> int:
    """The exit code an error ends a command with."""
    if isinstance(error, UsageError):
        return WRONG_USAGE
    if isinstance(error, (TransportError, AuthenticationError, PermissionDeniedError)):
        return UNREACHABLE
    return FAILED


def sentence_of(error: BaseException) -> str:
    """What is said of an error: its sentence, with the names that the command line has."""
    if not isinstance(error, VLLMError):
        return (
            f"Internal error ({type(error).__name__}: {error}); --debug shows where it comes from."
        )
    text = _FIELD.sub(lambda found: _GROUPS[found[1]] + found[2], error.message.replace(_NONE, ""))
    text = _ARGUMENT.sub(lambda found: _FLAGS[found[1]], text)
    return _TURN_MODE.sub(r"--turn-mode \1", text)
