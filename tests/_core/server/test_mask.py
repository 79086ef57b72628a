"""Secrets of a request are hidden wherever a server repeats them."""

from __future__ import annotations

import base64
import html
import json
import pickle
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk._core.server.mask import Mask
from vllm_agent_sdk.errors import ProtocolError, ServerError

pytestmark = pytest.mark.feature("C-11")

#: What a header can hold: visible ASCII; long enough not to be found in our own words.
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60)
AROUND = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda key: key,
    "percent": lambda key: quote(key, safe=""),
    "json": json.dumps,
    "html": html.escape,
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "basic": lambda key: base64.b64encode(f"user:{key}".encode()).decode(),
    "url-safe": lambda key: base64.urlsafe_b64encode(f"ab{key}cd".encode()).decode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(key=KEYS, before=AROUND, after=AROUND)
def test_each_spelling_is_hidden_wherever_it_stands(
    spelling: str, key: str, before: str, after: str
) -> None:
    told = SPELLINGS[spelling](key)
    mask = Mask({"authorization": f"Bearer {key}"})
    hidden = mask.text(f"{before} {told} {after}")
    assert "***" in hidden
    assert key not in hidden.replace(before, "").replace(after, "")
    assert mask.data(f"x{told}".encode()).count(key.encode()) == 0


@given(key=KEYS, cut=st.integers(8, 60))
def test_what_is_left_of_a_key_that_was_cut_is_hidden(key: str, cut: int) -> None:
    mask = Mask({"x-api-key": key})
    assert mask.text(f"bad: {key[:cut]}") == "bad: ***"


@given(user=KEYS, password=KEYS)
def test_what_a_basic_authorization_holds_is_hidden(user: str, password: str) -> None:
    pair = f"{user.replace(':', '.')}:{password}"
    coded = base64.b64encode(pair.encode()).decode()
    mask = Mask({"authorization": f"Basic {coded}"})
    assert mask.text(coded) == "***"
    assert mask.text(password) == "***"


@given(KEYS)
def test_an_error_shows_it_neither_in_facts_nor_causes_nor_pickles(key: str) -> None:
    error = ServerError(f"no {key}", status=500, body=f'{{"k": "{key}"}}', type=key)
    try:
        f"é{key}".encode("latin-1").decode("utf-8")
    except UnicodeDecodeError as cause:
        error.__cause__ = cause
    error.__context__ = ProtocolError(f"x {key}")
    Mask({"authorization": f"Bearer {key}"}).error(error)
    shown = [error, vars(error), error.__cause__, vars(error.__context__), error.__context__]
    assert all(key not in str(each) and key not in repr(each) for each in shown)
    assert isinstance(error.__cause__, UnicodeDecodeError)
    assert key.encode() not in error.__cause__.object
    assert key.encode() not in pickle.dumps(error)


@given(st.text())
def test_without_a_secret_nothing_is_changed(text: str) -> None:
    assert Mask({"x-request-id": "abc", "accept": "*/*"}).text(text) == text
