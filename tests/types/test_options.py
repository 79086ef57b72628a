"""Groups of options: frozen, checked at construction; cards of models."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.options import HTTPOptions, Limits, Sampling, Timeout
from vllm_agent_sdk.types.server import ModelInfo, ModelList, decode_models, decode_tokens


def test_the_defaults_are_the_documented_ones() -> None:
    assert Timeout() == Timeout(connect=5.0, first_token=None, idle=120.0, total=None)
    http = HTTPOptions()
    assert (http.keepalive_s, http.root_url, http.max_response_bytes) == (4.0, None, None)


@pytest.mark.feature("C-04")
@pytest.mark.parametrize("name", ["connect", "first_token", "idle", "total"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), "5"])
def test_what_is_no_duration_is_refused_with_its_name(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"Timeout\({name}={value!r}\): give a number above 0"):
        Timeout(**{name: value})


@pytest.mark.parametrize("name", ["connect", "first_token", "idle", "total"])
def test_none_is_no_limit(name: str) -> None:
    assert getattr(Timeout(**{name: None}), name) is None


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        (HTTPOptions, "keepalive_s", 0),
        (HTTPOptions, "max_response_bytes", -1),
        (Limits, "max_turns", 0),
        (Limits, "max_seconds", 0),
        (Limits, "repeated_calls", 1),
        (Limits, "repairs", -1),
    ],
)
def test_limits_that_cannot_be_are_refused(group: Any, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name):
        group(**{name: value})


def test_options_are_frozen_values() -> None:
    with pytest.raises(AttributeError):
        Timeout().idle = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        Timeout(read=3)  # type: ignore[call-arg]
    assert hash(Timeout()) == hash(Timeout())


def test_sampling_sends_what_is_set() -> None:
    sampling = Sampling(temperature=0.0, stop=["x"], extra_body={"top_k": 1})
    assert sampling.wire() == {"temperature": 0.0, "stop": ["x"]}


# ── cards of models ──────────────────────────────────────────────────────────────────────────────


def test_adapters_and_other_names_of_the_same_weights_are_not_models_of_their_own() -> None:
    cards = ModelList(
        [
            ModelInfo("big", root="/m/big"),
            ModelInfo("gpt-4", root="/m/big"),
            ModelInfo("style", root="/l/style", parent="big"),
            ModelInfo("other"),
        ]
    )
    for _ in range(2):  # asked again, the answer is the same
        own = cards.own_models()
        assert [card.id for card in own] == ["big", "other"]
        assert [card.aliases for card in own] == [["gpt-4"], []]


def test_cards_with_nulls_and_unknown_keys_are_read() -> None:
    (card,) = decode_models(b'{"data": [{"id": "m", "created": null, "new": 1}]}').data
    assert (card.id, card.created, card.max_model_len) == ("m", 0, None)
    assert decode_models(b'{"data": null}').data == []
    assert decode_tokens(b'{"count": 2, "tokens": null, "token_strs": null}').count == 2
