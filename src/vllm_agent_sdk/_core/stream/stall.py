"""A constrained reply that emits nothing but white space, which JSON allows without end."""

from __future__ import annotations

from vllm_agent_sdk.errors import OutputStalledError

__all__ = ["MOST_SPACE", "StallGuard"]

#: White-space characters in a row, outside strings, that end a reply.
MOST_SPACE = 64
_SPACE = " \t\n\r"


class StallGuard:
    """Counts white space outside JSON strings in the text of one choice."""

    __slots__ = ("_escaped", "_in_string", "_run")

    def __init__(self) -> None:
        self._in_string = False
        self._escaped = False
        self._run = 0

    def push(self, text: str) -> None:
        """Take a piece of the text.

        Raises:
            OutputStalledError: There were `MOST_SPACE` white-space characters in a row.
        """
        for character in text:
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._in_string = False
            elif character in _SPACE:
                self._run += 1
                if self._run >= MOST_SPACE:
                    raise OutputStalledError(
                        f"The constrained reply wrote {MOST_SPACE} white-space characters in a row "
                        "and was cut. Say in the prompt what the output looks like; a server with "
                        "disable_any_whitespace in --structured-outputs-config cannot do this."
                    )
            else:
                self._run = 0
                self._in_string = character == '"'
