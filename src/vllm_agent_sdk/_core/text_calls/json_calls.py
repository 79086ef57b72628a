"""Calls as JSON in a text: Hermes' tagged objects, and Llama's bare ones."""

from __future__ import annotations

import re

from vllm_agent_sdk._core.text_calls.python_literal import skip_space
from vllm_agent_sdk._core.text_calls.reader import (
    NO_CALL,
    PYTHON_TAG,
    SPACE,
    TOOL_CALL,
    Found,
    Tools,
    tag_place,
)
from vllm_agent_sdk.errors import ProtocolError
from vllm_agent_sdk.types import _codec
from vllm_agent_sdk.types.call_text import decode_call_text

__all__ = ["Hermes", "LlamaJson"]

_OPEN, _CLOSE = TOOL_CALL


_NAME = re.compile(r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"([^"\\]{1,128})"\s*')
_ARGUMENTS = re.compile(r',\s*"(?:arguments|parameters)"\s*:\s*')


class _Scan:
    """Looks for the end of an object as its text grows; what was seen is not looked at again.

    Attributes:
        end: The place behind the object, when it has come.
        stop: The place of an end tag outside the object's strings, where that came first.
    """

    __slots__ = ("_depth", "_escaped", "_in_string", "_place", "end", "stop")

    def __init__(self, at: int) -> None:
        self._place = at
        self._depth = 0
        self._in_string = self._escaped = False
        self.end: int | None = None
        self.stop: int | None = None

    def on(self, text: str) -> None:
        """Look on."""
        place = self._place
        while place < len(text) and self.end is None and self.stop is None:
            character = text[place]
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._in_string = False
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                self.end = place + 1 if self._depth <= 0 else None
            elif character == "<":
                if text.startswith(_CLOSE, place):
                    self.stop = place
                elif _CLOSE.startswith(text[place:]):
                    break  # it may become the tag
            place += 1
        self._place = place


def _object_call(text: str, *, bare: bool = True) -> tuple[str, str] | None:
    """Read an object as a call; `None` if it is none. `bare`: it may lack its arguments."""
    data = text.encode("utf-8", "surrogatepass")
    try:
        _codec.decode(data)
        call = decode_call_text(data)
    except ProtocolError:
        return _broken_call(text)
    raw = bytes(call.arguments) or bytes(call.parameters)
    if not call.name or (not raw and not bare):
        return None
    # The arguments stay as the model wrote them; a null is none.
    return call.name, "{}" if raw in (b"", b"null") else raw.decode()


def _broken_call(text: str) -> tuple[str, str] | None:
    """Read the name of a call whose JSON is broken behind it, and keep the rest as it is."""
    name = _NAME.match(text)
    arguments = None if name is None else _ARGUMENTS.match(text, name.end())
    if name is None or arguments is None:
        return None
    rest = text[arguments.end() :].rstrip()
    rest = rest[:-1].rstrip() if rest.endswith("}") else rest
    try:
        _codec.decode(rest.encode("utf-8", "surrogatepass"))
    except ProtocolError:
        return name[1], rest
    # Alone they would parse, and be taken for what was meant.
    return name[1], text


class Hermes:
    """`<tool_call>{…}</tool_call>`."""

    separator = SPACE

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._scan: _Scan | None = None

    def begin(self, text: str, line_begins: bool, begun: bool, ended: bool) -> int | None:
        """Find the tag."""
        return tag_place(text, (_OPEN,), ended)

    def read(self, text: str, ended: bool) -> Found | None:
        """Read up to the end of the JSON, which may hold the end tag in a string."""
        if not text.startswith(_OPEN):
            return NO_CALL if ended else None
        at = skip_space(text, len(_OPEN))
        if at == len(text):
            return NO_CALL if ended else None
        if text[at] != "{":
            return NO_CALL
        scan = self._scan = self._scan or _Scan(at)
        scan.on(text)
        found = self._tagged(text, at, scan, ended)
        if found is not None:
            self._scan = None
        return found

    def _tagged(self, text: str, at: int, scan: _Scan, ended: bool) -> Found | None:
        if scan.end is not None:
            return self._found(text, text[at : scan.end], scan.end, ended)
        tag = scan.stop
        if tag is None:
            # At the end, a string that never ended has swallowed the end tag.
            tag = text.find(_CLOSE, at) if ended else -1
        if tag < 0:
            return NO_CALL if ended else None
        call = _broken_call(text[at:tag].rstrip())
        return NO_CALL if call is None else Found((call,), tag + len(_CLOSE))

    def _found(self, text: str, json: str, end: int, ended: bool) -> Found | None:
        after = skip_space(text, end)
        rest = text[after:]
        if not rest.startswith(_CLOSE):
            if not ended and _CLOSE.startswith(rest):
                return None  # the end tag is on its way
            if ended and rest and _CLOSE.startswith(rest):
                after = len(text)  # a cut end tag is no text
            elif rest.startswith("}") or not (rest.startswith("<") or not rest):
                return self._overlong(text, json, end, ended)
            else:
                after = end
        else:
            after += len(_CLOSE)
        call = _object_call(json)
        return NO_CALL if call is None else Found((call,), after)

    @staticmethod
    def _overlong(text: str, json: str, end: int, ended: bool) -> Found | None:
        """Take what goes on behind the JSON, up to the end tag: the call is malformed."""
        tag = text.find(_CLOSE, end)
        found = _object_call(json)
        if found is None:
            return NO_CALL
        if tag < 0:
            # Without an end tag the object's end is the call's; what follows is text.
            return Found((found,), end) if ended else None
        whole = text[skip_space(text, len(_OPEN)) : tag].rstrip()
        return Found(((found[0], whole),), tag + len(_CLOSE))


class LlamaJson:
    """`{"name": …, "parameters": …}`."""

    separator = SPACE + ";"
    _first = re.compile(r'\{\s*("(n(a(m(e(".*)?)?)?)?|t(y(p(e(".*)?)?)?)?)?)?', re.DOTALL)

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._scan: _Scan | None = None

    def begin(self, text: str, line_begins: bool, begun: bool, ended: bool) -> int | None:
        """Find the tag, or a brace at the beginning of a line."""
        places = [] if (tag := tag_place(text, (PYTHON_TAG,), ended)) is None else [tag]
        at = 0
        while (at := text.find("{", at)) >= 0:
            line = text.rfind("\n", 0, at)
            before = text[line + 1 : at]
            if not before.strip() and (line >= 0 or line_begins):
                places.append(at)
                break
            at += 1
        return min(places) if places else None

    def read(self, text: str, ended: bool) -> Found | None:
        """Read one object; its tool must have been offered."""
        at = 0
        if not text.startswith("{"):
            if not text.startswith(PYTHON_TAG):
                return NO_CALL if ended else None
            at = skip_space(text, len(PYTHON_TAG))
            if at == len(text):
                return NO_CALL if ended else None
        if self._first.fullmatch(text, at) is None:
            return NO_CALL
        scan = self._scan = self._scan or _Scan(at)
        scan.on(text)
        if scan.end is None and not ended:
            return None
        self._scan = None
        call = None if scan.end is None else _object_call(text[at : scan.end], bare=False)
        if call is None or call[0] not in self._tools:
            return NO_CALL
        return Found((call,), scan.end or 0)
