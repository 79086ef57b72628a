"""Hiding the secrets of a request where a server or proxy repeats them in what it says.

Masked are the values of headers whose names speak of secrets: as they were sent, without their
scheme, percent-encoded, escaped for JSON or HTML, inside base64 at any position, and what a Basic
authorization holds.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, quote_plus

__all__ = ["Mask"]

_SECRET = re.compile(r"auth|cookie|token|secret|key|passw|credential", re.IGNORECASE)
_STARS = "***"
#: So much of a secret's beginning is masked also where the rest of it was cut off.
_BEGIN = 8
#: A shorter piece of base64 is no evidence.
_SHORTEST_B64 = 8


class Mask:
    """Puts `***` in the place of a request's secrets.

    Args:
        headers: The request's headers.
    """

    __slots__ = ("_begins", "_forms")

    def __init__(self, headers: Mapping[str, str]) -> None:
        forms: set[str] = set()
        for name, value in headers.items():
            if _SECRET.search(name):
                for secret in _secrets(value):
                    forms.update(_forms(secret))
        self._forms = forms
        begins = "|".join(sorted({re.escape(form[:_BEGIN]) for form in forms}, key=len)[::-1])
        self._begins = re.compile(begins) if begins else None

    def text(self, text: str) -> str:
        """Give a text without the secrets, nor what is left of one where the text was cut."""
        if self._begins is None:
            return text
        parts: list[str] = []
        at = 0
        while (found := self._begins.search(text, at)) is not None:
            begin = found.start()
            length = max(_common(form, text, begin) for form in self._forms)
            parts += [text[at:begin], _STARS]
            at = begin + length
        return "".join([*parts, text[at:]]) if parts else text

    def data(self, data: bytes) -> bytes:
        """Give bytes without the secrets."""
        # Latin-1 keeps each byte; what a header can hold is ASCII.
        return self.text(data.decode("latin-1")).encode("latin-1")

    def error(self, error: BaseException) -> None:
        """Hide the secrets in an error: in its message, its facts, its causes."""
        seen: set[int] = set()
        todo: list[BaseException | None] = [error]
        while todo and self._begins is not None:
            each = todo.pop()
            if each is None or id(each) in seen:
                continue
            seen.add(id(each))
            each.args = self._value(each.args)
            for name, fact in vars(each).items():
                if isinstance(fact, (str, bytes, dict, list, tuple)):
                    vars(each)[name] = self._value(fact)
            if isinstance(each, UnicodeDecodeError):
                each.object = self._value(each.object)
            todo += [each.__cause__, each.__context__]

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (bytes, bytearray)):
            return self.data(bytes(value))
        if isinstance(value, Mapping):
            return {self._value(key): self._value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if type(value) is tuple:
            return tuple(self._value(item) for item in value)
        return value


def _common(form: str, text: str, at: int) -> int:
    """Count the characters of a form that stand at a place of a text; few are none."""
    length = 0
    while length < len(form) and text[at + length : at + length + 1] == form[length]:
        length += 1
    return length if length >= min(len(form), _BEGIN) else 0


def _secrets(value: str) -> list[str]:
    """Give what is secret in a header's value: without its scheme, and what Basic holds."""
    scheme, blank, rest = value.strip().partition(" ")
    found = [rest.strip() if blank else scheme]
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(rest, validate=True).decode()
        except (binascii.Error, ValueError):
            pair = ""
        found += [pair, pair.partition(":")[2]]
    return [secret for secret in found if secret]


def _forms(secret: str) -> set[str]:
    """Give all spellings of a secret that are looked for."""
    escaped = json.dumps(secret)[1:-1]
    percent = quote(secret, safe="")
    forms = {
        secret,
        percent,
        percent.lower(),
        quote(secret),
        quote_plus(secret),
        escaped,
        escaped.replace("/", "\\/"),
        html.escape(secret),
    }
    data = secret.encode()
    for shift in range(3):
        # The characters that depend on these bytes alone, wherever the text around them begins.
        whole = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        first = -(-8 * shift // 6)
        inner = whole[first : (shift + len(data)) * 8 // 6]
        if len(inner) >= _SHORTEST_B64:
            forms |= {inner, inner.replace("+", "-").replace("/", "_"), quote(inner, safe="")}
    return forms
