"""Calls in a markup or a programming language: Qwen's XML, and Python's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vllm_agent_sdk._core.text_calls.python_literal import (
    PythonLiteralError,
    read_literal,
    skip_space,
)
from vllm_agent_sdk._core.text_calls.reader import (
    NO_CALL,
    PYTHON_TAG,
    SPACE,
    TOOL_CALL,
    Found,
    Tools,
    tag_place,
)
from vllm_agent_sdk.errors import ProtocolError, UsageError
from vllm_agent_sdk.types import _codec

__all__ = ["Pythonic", "QwenXml"]

_OPEN, _CLOSE = TOOL_CALL


class QwenXml:
    """`<tool_call><function=…>…</function></tool_call>`, the outer tag at will."""

    separator = SPACE
    _function = re.compile(r"<function=([^<>\s]{1,128})>")
    _parameter = re.compile(r"<parameter=([^<>\n]{1,256})>")
    _ends = ("<parameter=", "</function>")

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def begin(self, text: str, line_begins: bool, begun: bool, ended: bool) -> int | None:
        """Find either tag."""
        return tag_place(text, (_OPEN, "<function="), ended)

    def read(self, text: str, ended: bool) -> Found | None:
        """Read a call with all its parameters; one that is cut is none."""
        more = NO_CALL if ended else None
        at = skip_space(text, len(_OPEN)) if (outer := text.startswith(_OPEN)) else 0
        function = self._function.match(text, at)
        if function is None:
            rest = text[at:]
            begins = "<function=".startswith(rest[:10]) and ">" not in rest and len(rest) < 160
            return more if begins or (not outer and _OPEN.startswith(rest)) else NO_CALL
        values: dict[str, Any] = {}
        place = skip_space(text, function.end())
        while not text.startswith("</function>", place):
            parameter = self._parameter.match(text, place)
            if parameter is None:
                rest = text[place : place + 300]
                begins = any(end.startswith(rest[: len(end)]) for end in self._ends)
                return more if begins and ">" not in rest else NO_CALL
            end = self._value_end(text, parameter.end(), ended)
            if end is None:
                return more
            values[parameter[1]] = self._value(
                function[1], parameter[1], text[parameter.end() : end]
            )
            place = skip_space(text, end + len("</parameter>"))
        end = place + len("</function>")
        arguments = _json(values)
        if arguments is None:
            return NO_CALL
        call = (function[1], arguments)
        if not outer:
            return Found((call,), end)
        rest = text[skip_space(text, end) :]
        if rest.startswith(_CLOSE):
            return Found((call,), len(text) - len(rest) + len(_CLOSE))
        if not _CLOSE.startswith(rest):
            return Found((call,), end)
        return Found((call,), len(text)) if ended else None

    def _value_end(self, text: str, at: int, ended: bool) -> int | None:
        """Find the end tag behind which the call goes on or ends: a value may hold others."""
        while (at := text.find("</parameter>", at)) >= 0:
            rest = text[skip_space(text, at + len("</parameter>")) :]
            if rest.startswith(self._ends):
                return at
            if not ended and any(end.startswith(rest) for end in self._ends):
                return None
            at += 1
        return None

    def _value(self, tool: str, key: str, text: str) -> Any:
        """Read a value by its schema: text as it is, anything else as JSON where it is JSON."""
        text = text.removeprefix("\n").removesuffix("\n")
        properties = self._tools.get(tool, {}).get("properties")
        schema = properties.get(key) if isinstance(properties, Mapping) else None
        kind = schema.get("type") if isinstance(schema, Mapping) else "string"
        if kind == "string" or (isinstance(schema, Mapping) and _all_text(schema)):
            return text
        try:
            return _codec.decode(text.encode("utf-8", "surrogatepass"))
        except ProtocolError:
            words = {"True": True, "False": False, "None": None}
            return words.get(text.strip(), text)


def _json(values: dict[str, Any]) -> str | None:
    """Write arguments as JSON; `None` where a text is no text, or a number too large."""
    try:
        return _codec.encode(values).decode()
    except UsageError:
        return None


def _all_text(schema: Mapping[str, Any]) -> bool:
    values = schema.get("enum")
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


class Pythonic:
    """`[name(key=value), …]`."""

    separator = SPACE
    _begun = re.compile(r"\[\s*([A-Za-z_][\w.]*\s*(\(.*)?)?", re.DOTALL)
    _name = re.compile(r"([A-Za-z_][\w.]*)\s*\(")
    _key = re.compile(r"([A-Za-z_]\w*)\s*=(?!=)")

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._seen = 0  # so much of the text holds no end

    def begin(self, text: str, line_begins: bool, begun: bool, ended: bool) -> int | None:
        """Find the tag, or a bracket at the beginning of the text."""
        tag = tag_place(text, (PYTHON_TAG,), ended)
        at = skip_space(text, 0)
        if not begun and text.startswith("[", at):
            return at
        return tag

    def read(self, text: str, ended: bool) -> Found | None:
        """Read a list of calls; all its tools must have been offered."""
        more = NO_CALL if ended else None
        at = 0
        if not text.startswith("["):
            if not text.startswith(PYTHON_TAG):
                return more
            at = skip_space(text, len(PYTHON_TAG))
            if at == len(text):
                return more
        if self._begun.fullmatch(text, at) is None:
            return NO_CALL
        if not ended and "]" not in text[self._seen :]:
            self._seen = len(text)
            return None
        end = _list_end(text, at)
        if end is None:
            self._seen = len(text)
            return more
        self._seen = 0
        calls = self._calls(text[at + 1 : end - 1])
        if not calls or any(name not in self._tools for name, _ in calls):
            return NO_CALL
        return Found(tuple(calls), end)

    def _calls(self, text: str) -> list[tuple[str, str]]:
        calls: list[tuple[str, str]] = []
        at = skip_space(text, 0)
        while at < len(text):
            name = self._name.match(text, at)
            end = None if name is None else _list_end(text, name.end() - 1)
            if name is None or end is None:
                return []
            calls.append((name[1], self._arguments(text[name.end() : end - 1])))
            at = skip_space(text, end)
            if at < len(text) and text[at] != ",":
                return []
            at = skip_space(text, at + 1)
        return calls

    def _arguments(self, text: str) -> str:
        """Give the keywords as JSON; what cannot be read stays as it was written."""
        values: dict[str, Any] = {}
        at = skip_space(text, 0)
        try:
            while at < len(text):
                key = self._key.match(text, at)
                if key is None:
                    return f"({text})"
                values[key[1]], at = read_literal(text, skip_space(text, key.end()))
                at = skip_space(text, at)
                if at < len(text) and text[at] != ",":
                    return f"({text})"
                at = skip_space(text, at + 1)
        except PythonLiteralError:
            return f"({text})"
        return _json(values) or f"({text})"


def _list_end(text: str, at: int) -> int | None:
    """Find the place behind the bracket that closes the one at `at`, outside of strings."""
    depth, quote = 0, ""
    place = at
    while place < len(text):
        character = text[place]
        if quote:
            if character == "\\":
                place += 1
            elif text.startswith(quote, place):
                place += len(quote) - 1
                quote = ""
        elif character in "'\"":
            quote = character * 3 if text.startswith(character * 3, place) else character
            place += len(quote) - 1
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth <= 0:
                return place + 1
        place += 1
    return None
