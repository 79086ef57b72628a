"""What follows from a model's name, where a server does not tell: nothing else is guessed."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["call_format_of", "is_gpt_oss", "sends_reasoning", "switch_of"]

#: Models that think between calls, and whose templates read the reasoning of earlier turns.
_SENDS_REASONING = re.compile(r"gpt-oss|kimi|minimax|deepseek-v(3\.[2-9]|[4-9])", re.IGNORECASE)
#: The format of calls that a model was trained on, as vLLM's parsers for it read them.
_CALL_FORMATS = (
    (re.compile(r"qwen3-coder|qwen-?3\.[5-9]|step-3\.5", re.IGNORECASE), "qwen_xml"),
    (re.compile(r"hermes|qwen-?2\.5|qwen-?3|qwq", re.IGNORECASE), "hermes"),
    (re.compile(r"llama-?4|toolace", re.IGNORECASE), "pythonic"),
    (re.compile(r"llama-?3", re.IGNORECASE), "llama_json"),
)
#: The variable by which a template switches thinking.
_SWITCHES = (
    (re.compile(r"deepseek-v3\.1|granite", re.IGNORECASE), "thinking"),
    (re.compile(r"qwen-?3|glm-?4\.[5-9]", re.IGNORECASE), "enable_thinking"),
)


def call_format_of(names: Iterable[str]) -> str | None:
    """Give the format in which a model writes calls, by its names; `None` for unknown."""
    return _first(_CALL_FORMATS, names)


def switch_of(names: Iterable[str]) -> str | None:
    """Give the template's variable that switches thinking, by the model's names."""
    return _first(_SWITCHES, names)


def sends_reasoning(names: Iterable[str]) -> bool:
    """True for models that are to get their reasoning of earlier turns back."""
    return any(_SENDS_REASONING.search(name) for name in names)


def is_gpt_oss(names: Iterable[str]) -> bool:
    """True for OpenAI's open models, which think always and know efforts alone."""
    return any("gpt-oss" in name.lower() for name in names)


def _first(table: Iterable[tuple[re.Pattern[str], str]], names: Iterable[str]) -> str | None:
    names = list(names)
    for pattern, value in table:
        if any(pattern.search(name) for name in names):
            return value
    return None
