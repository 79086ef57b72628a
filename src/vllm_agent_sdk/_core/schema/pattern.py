"""Regular expressions as grammars know them."""

from __future__ import annotations

__all__ = ["looks_around", "unsupported_syntax"]

_ESCAPES = {
    "b": "a word boundary (\\b)",
    "B": "a word boundary (\\B)",
    "p": "a Unicode class (\\p)",
    "P": "a Unicode class (\\P)",
    "k": "a reference back to a group (\\k)",
}


def unsupported_syntax(pattern: str) -> str | None:
    """Say what of a pattern no grammar can be made of (xgrammar 0.2.8); `None` for all others."""
    depth = 0
    in_class = False
    place = 0
    while place < len(pattern):
        character = pattern[place]
        if character == "\\":
            said = _escape(pattern[place + 1 : place + 2], in_class)
            if said is not None:
                return said
            place += 2
            continue
        if in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character == "(":
            depth += 1
            if pattern.startswith("(?", place) and pattern[place + 2 : place + 3] not in set(
                ":=!<P"
            ):
                return "flags inside it"
        elif character == ")":
            depth -= 1
            if depth < 0:
                return "a parenthesis that was not opened"
        place += 1
    if in_class:
        return "a class that is not closed"
    return "a parenthesis that is not closed" if depth else None


def looks_around(pattern: str) -> bool:
    """True for a pattern that looks ahead or behind, which grammars ignore."""
    return any(each in pattern for each in ("(?=", "(?!", "(?<=", "(?<!"))


def _escape(letter: str, in_class: bool) -> str | None:
    if not letter:
        return "a backslash at its end"
    if in_class and letter in "bB":
        return None
    if letter in "123456789" and not in_class:
        return f"a reference back to a group (\\{letter})"
    return _ESCAPES.get(letter)
