"""Calls that a server without a tool parser left in the text, whole and streamed.

1. Any text ends in calls or none, never in an exception, and never in half a call.
2. Any split of the text gives the same calls and the same text.
3. Text is held back only from where a call could begin, until it is one or none.
4. Arguments that are malformed stay as they were written; `ToolCall.error` says what is wrong.

Only the one family of formats that is named is read:

- `hermes`: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, several in a row.
- `qwen_xml`: `<tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>`.
- `llama_json`: `{"name": …, "parameters": {…}}` at the beginning of a line, or behind
  `<|python_tag|>`; several are separated by `;`.
- `pythonic`: `[name(key=value), …]` at the beginning of the text.

The last two look like any other text, so a tool of that name must have been offered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vllm_agent_sdk._core.text_calls.json_calls import Hermes, LlamaJson
from vllm_agent_sdk._core.text_calls.markup import Pythonic, QwenXml
from vllm_agent_sdk._core.text_calls.reader import NO_CALL, Found, Reader, Tools
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types._codec import Fact

__all__ = ["FAMILIES", "TextCall", "TextCallParser", "TextCalls", "find_calls"]

_FORMATS: dict[str, Callable[[Tools], Reader]] = {
    "hermes": Hermes,
    "qwen_xml": QwenXml,
    "llama_json": LlamaJson,
    "pythonic": Pythonic,
}
FAMILIES = tuple(_FORMATS)


class TextCall(Fact, frozen=True, gc=False):
    """A call as it stood in the text.

    Attributes:
        name: The tool's name.
        arguments: Its arguments: JSON as the model wrote it, or made of what it wrote.
    """

    name: str
    arguments: str


class TextCalls(Fact, frozen=True, gc=True):
    """How calls are found in a text.

    Attributes:
        family: The format, one of `FAMILIES`.
        tools: The offered tools by name, with the JSON Schema of their arguments.
    """

    family: str
    tools: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        """Refuse a family that there is not."""
        if self.family not in _FORMATS:
            raise UsageError(
                f"{self.family!r} is no format of calls; there are {', '.join(FAMILIES)}."
            )

    def parser(self) -> TextCallParser:
        """Give a parser for one text."""
        return TextCallParser(self)


class TextCallParser:
    """Finds the calls of one text as it comes in."""

    def __init__(self, calls: TextCalls) -> None:
        self._reader: Reader = _FORMATS[calls.family](calls.tools)
        self._held = ""
        self._line_begins = True  # nothing but white space stands before it on its line
        self._begun = False  # something but white space has come
        self._after_call = False
        self.found = 0

    def push(self, text: str) -> list[str | TextCall]:
        """Take a piece; give what it settles, text and calls, in order."""
        self._held += text
        return self._read(ended=False)

    def close(self) -> list[str | TextCall]:
        """Give what is held back, at the end of the text: calls that are whole, else text."""
        return self._read(ended=True)

    def _read(self, *, ended: bool) -> list[str | TextCall]:
        settled: list[str | TextCall] = []
        while self._held:
            if self._after_call and not self._skip_separator(ended):
                break
            if not self._held:
                break
            at = self._reader.begin(self._held, self._line_begins, self._begun, ended)
            if at is None:
                self._say(self._held, settled)
                break
            if at:
                self._say(self._held[:at], settled)
            found = self._reader.read(self._held, ended)
            if found is None:
                if ended:
                    self._say(self._held, settled)
                break
            if found is NO_CALL:
                self._say(self._held[:1], settled)
                continue
            self._take(found, settled)
        return settled

    def _take(self, found: Found, settled: list[str | TextCall]) -> None:
        settled += [TextCall(name, arguments) for name, arguments in found.calls]
        self.found += len(found.calls)
        self._held = self._held[found.end :]
        self._after_call = self._line_begins = self._begun = True

    def _skip_separator(self, ended: bool) -> bool:
        """Drop what separates calls; False while more may come of it."""
        rest = self._held.lstrip(self._reader.separator)
        if not rest:
            if ended:
                self._held = ""
            return False
        at = self._reader.begin(rest, True, True, ended)
        if at is None or at > 0:
            self._after_call = False  # text follows: what stands before it is a part of it
        elif self._reader.read(rest, ended) is not NO_CALL:
            self._held = rest
        else:
            self._after_call = False
        return True

    def _say(self, text: str, settled: list[str | TextCall]) -> None:
        self._held = self._held[len(text) :]
        if settled and isinstance(settled[-1], str):
            settled[-1] += text
        else:
            settled.append(text)
        self._after_call = False
        if text.strip():
            self._begun = True
        last = text.rpartition("\n")
        if last[1]:
            self._line_begins = not last[2].strip()
        else:
            self._line_begins = self._line_begins and not text.strip()


def find_calls(text: str, calls: TextCalls) -> tuple[str, list[TextCall]]:
    """Split a whole text into what is no call, and the calls."""
    parser = calls.parser()
    settled = [*parser.push(text), *parser.close()]
    said = "".join(each for each in settled if isinstance(each, str))
    return said, [each for each in settled if isinstance(each, TextCall)]
