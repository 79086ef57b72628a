"""A stand-in for a tokenizer: a token a word, numbered in the order the words turn up."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from vllm_agent_sdk.testing.jsontypes import is_list, is_object
from vllm_agent_sdk.testing.reply import words

__all__ = ["Prompts", "Vocabulary", "render_chat"]


class Vocabulary:
    """Gives each word a number, and finds the word again by it."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._words: list[str] = []
        self._lock = threading.Lock()

    def encode(self, text: str) -> list[int]:
        """Number the words of a text."""
        with self._lock:
            return [self._id_of(word) for word in words(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Give the text of numbers; unknown ones stand for nothing."""
        return "".join(self.word(id_) for id_ in ids)

    def word(self, id_: int) -> str:
        """Give the word of one number."""
        return self._words[id_] if 0 <= id_ < len(self._words) else ""

    def _id_of(self, word: str) -> int:
        id_ = self._ids.setdefault(word, len(self._words))
        if id_ == len(self._words):
            self._words.append(word)
        return id_


class Prompts:
    """Turns messages into prompts.

    Attributes:
        vocabulary: The words so far.
    """

    def __init__(self, *, blind: bool) -> None:
        self.vocabulary = Vocabulary()
        self._blind = blind

    def of_chat(self, messages: Sequence[Any], tools: object) -> list[int]:
        """Give the prompt of a chat; a blind template leaves the tools out."""
        return self.vocabulary.encode(render_chat(messages, None if self._blind else tools))


def render_chat(messages: Sequence[Any], tools: object) -> str:
    """Write messages as a chat template would (ChatML, tools first)."""
    parts: list[str] = []
    if tools:
        parts.append(f"<|im_start|>tools\n{json.dumps(tools)}<|im_end|>\n")
    for message in messages:
        if not is_object(message):
            continue
        text = _content_text(message.get("content"))
        calls = message.get("tool_calls")
        text += json.dumps(calls) if calls else ""
        parts.append(f"<|im_start|>{message.get('role')}\n{text}<|im_end|>\n")
    parts.append("<|im_start|>assistant\n")
    return "".join(parts)


def _content_text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not is_list(content):
        return ""
    texts = [part.get("text") if is_object(part) else None for part in content]
    # Whatever is not text is one token.
    return "".join(text if isinstance(text, str) else " <|media|>" for text in texts)
