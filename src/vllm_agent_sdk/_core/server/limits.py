"""Values and pairs of fields that no server takes, whatever its settings (tried with vLLM 0.32).

What a server's settings can allow (the number of stop strings, of choices, of log probabilities) is
left to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from vllm_agent_sdk.errors import UsageError

__all__ = ["check_generation", "check_ranges"]

_INT64 = 2**63
#: Lowest and highest value, and what to give.
_RANGES: dict[str, tuple[float, float, str]] = {
    "temperature": (0, 2, "a number from 0 to 2"),
    "presence_penalty": (-2, 2, "a number from -2 to 2"),
    "frequency_penalty": (-2, 2, "a number from -2 to 2"),
    "top_p": (0, 1, "a number above 0, up to 1"),
    "min_p": (0, 1, "a number from 0 to 1"),
    "repetition_penalty": (0, inf, "a number above 0"),
    "top_k": (-1, inf, "a number of tokens, or 0 or -1 for all"),
    "min_tokens": (0, inf, "0 or more"),
    "max_tokens": (1, inf, "1 or more"),
    "max_completion_tokens": (1, inf, "1 or more"),
    "max_output_tokens": (1, inf, "1 or more"),
    "n": (1, inf, "1 or more"),
    "stream_interval": (1, inf, "1 or more"),
    "truncate_prompt_tokens": (-1, inf, "0 or more, or -1 for what the context takes"),
    "prompt_logprobs": (-1, inf, "0 or more, or -1 for all"),
    "top_logprobs": (-1, inf, "0 or more, or -1 for all"),
    "logprobs": (-1, inf, "0 or more, or -1 for all"),
    "thinking_token_budget": (-1, inf, "0 or more, or -1 for no limit"),
    "routed_experts_prompt_start": (0, inf, "0 or more"),
    "seed": (-_INT64, _INT64 - 1, "a number of 64 bits"),
    "priority": (-_INT64, _INT64 - 1, "a number of 64 bits"),
}
#: The lowest value itself is too low.
_ABOVE = frozenset({"top_p", "repetition_penalty"})
_NUMBERS = frozenset({int, float})
_GREEDY = 1e-5


def check_ranges(body: Mapping[str, Any]) -> None:
    """Refuse numbers that are out of their range, and empty texts that would end every reply.

    Raises:
        UsageError: Names the field, and what to give.
    """
    for name, value in body.items():
        if name in _RANGES and value is not None:
            low, high, _ = _RANGES[name]
            if type(value) not in _NUMBERS or not low < value <= high:
                _check_range(name, value)
    for name in ("stop", "bad_words"):
        texts = body.get(name)
        if texts is not None and (
            texts == "" or (isinstance(texts, (list, tuple)) and "" in texts)
        ):
            raise UsageError(f"{name}= holds an empty text, which vLLM refuses. Leave it out.")
    if body.get("allowed_token_ids") is not None and not body["allowed_token_ids"]:
        raise UsageError("allowed_token_ids= is empty: nothing could be written. Leave it out.")


def _check_range(name: str, value: Any) -> None:
    if name == "logprobs" and isinstance(value, bool):
        return  # a chat's
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{name}= takes a number, not {type(value).__name__}.")
    low, high, give = _RANGES[name]
    within = value > low if name in _ABOVE else value >= low
    if not within or value > high:
        raise UsageError(f"{name}={value!r}: give {give}.")


def check_generation(body: Mapping[str, Any], *, stream: bool) -> None:
    """Refuse pairs of fields that chat completions and completions never take together.

    Raises:
        UsageError: Names both.
    """
    if body.get("stream_options") is not None and not stream:
        raise UsageError("stream_options= needs a stream: use stream(), or stream=True.")
    if stream and body.get("prompt_logprobs") is not None:
        raise UsageError("prompt_logprobs= works without a stream only: use create().")
    most = body.get("max_completion_tokens")
    most = body.get("max_tokens") if most is None else most
    least = body.get("min_tokens")
    if least is not None and most is not None and least > most:
        raise UsageError(f"min_tokens={least} is more than the {most} tokens of the reply.")
    beams = body.get("use_beam_search")
    n, heat = body.get("n"), body.get("temperature")
    if n is not None and n > 1 and heat is not None and heat < _GREEDY and not beams:
        raise UsageError(
            f"n={n} at temperature={heat}: all choices would be the same, and vLLM refuses it. "
            "Give a higher temperature=, n=1, or use_beam_search=True."
        )
    if body.get("logprob_token_ids"):
        if beams:
            raise UsageError("logprob_token_ids= cannot go with use_beam_search=.")
        if body.get("logprobs") in {None, False}:
            raise UsageError("logprob_token_ids= needs logprobs=.")
