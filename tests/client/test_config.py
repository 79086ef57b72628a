"""Where the server is: explicit, then environment, then default; all forms of an address."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk import AsyncVLLM
from vllm_agent_sdk.client.config import normalise_url, resolve
from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.options import HTTPOptions, Timeout

pytestmark = pytest.mark.feature("C-01")

NAMES = [
    "VLLM_BASE_URL", "VLLM_API_BASE", "OPENAI_BASE_URL", "VLLM_API_KEY", "OPENAI_API_KEY",
    "VLLM_MODEL", "VLLM_TIMEOUT",
]  # fmt: skip
BASE = "http://h:1/v1"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def key_of(**settings: Any) -> str | None:
    config = resolve(**settings)
    return config.authorization() if config.has_key else None


# ── the address ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    [
        "http://h:1",
        "http://h:1/",
        "http://h:1/v1",
        "http://h:1/v1/",
        "http://h:1//",
        " http://h:1/v1\n",
        "HTTP://h:1/v1",
        "http://h:1/v1/chat/completions",
        "http://h:1/v1/chat/completions/",
        "http://h:1/v1/completions",
        "http://h:1/v1/embeddings",
        "http://h:1/v1/responses",
        "http://h:1/v1/models",
        "http://h:1/v1/messages",
        "http://h:1/v1/audio/transcriptions",
        "http://h:1/tokenize",
        "http://h:1/health",
        "http://h:1/metrics",
    ],
)
def test_every_form_of_an_address_is_the_same_base(url: str) -> None:
    config = resolve(env={}, base_url=url)
    assert (config.base_url, config.root_url) == (BASE, "http://h:1")


@pytest.mark.parametrize(
    ("url", "base", "root"),
    [
        ("https://h/api/llm", "https://h/api/llm/v1", "https://h/api/llm"),
        ("https://h/api/v1/models", "https://h/api/v1", "https://h/api"),
        ("http://[::1]:8000", "http://[::1]:8000/v1", "http://[::1]:8000"),
        ("http://h/v10", "http://h/v10/v1", "http://h/v10"),
    ],
)
def test_paths_before_v1_are_kept(url: str, base: str, root: str) -> None:
    config = resolve(env={}, base_url=url)
    assert (config.base_url, config.root_url) == (base, root)


@given(
    host=st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True),
    path=st.sampled_from(["", "/api", "/a/b"]),
    ending=st.sampled_from(["", "/", "/v1", "/v1/", "/v1/models", "/chat/completions"]),
)
def test_normalising_twice_changes_nothing(host: str, path: str, ending: str) -> None:
    base = normalise_url(f"http://{host}{path}{ending}")
    assert base == f"http://{host}{path}/v1" == normalise_url(base)


def test_routes_outside_v1_may_have_a_root_of_their_own() -> None:
    http = HTTPOptions(root_url="https://admin:9/x/")
    assert resolve(env={}, base_url=BASE, http=http).root_url == "https://admin:9/x"
    with pytest.raises(UsageError, match=r"HTTPOptions\(root_url=…\)"):
        resolve(env={}, http=HTTPOptions(root_url="admin:9"))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("h:8000", "write it like 'http://h:8000'"),
        ("localhost", "write it like 'http://localhost'"),
        ("ftp://h/v1", "no http"),
        ("http://", "no http"),
        ("http://:8000", "no http"),
        ("http://h:99999", "no number from 0 to 65535"),
        ("http://h:port", "no number from 0 to 65535"),
        ("http://[::1", "no address"),
        ("http://a b/v1", "holds a blank"),
        ("http://h/v1\x00", "holds a blank"),
    ],
)
@pytest.mark.parametrize(
    "source", ["base_url=", "VLLM_BASE_URL", "VLLM_API_BASE", "OPENAI_BASE_URL"]
)
def test_an_address_that_cannot_be_names_where_it_came_from(
    url: str, text: str, source: str
) -> None:
    given: dict[str, Any] = {"env": {source: url}}
    if source == "base_url=":
        given = {"env": {}, "base_url": url}
    with pytest.raises(UsageError, match=text) as caught:
        resolve(**given)
    assert source in caught.value.message


@pytest.mark.feature("C-11")
@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@h/v1",
        "http://hunter2@h",
        "ftp://user:hunter2@h",
        "user:hunter2@h:80",
        "http://user:hunter2@h:99999",
        "http://h/v1?api_key=hunter2",
        "http://h/#hunter2",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        normalise_url(url, "VLLM_BASE_URL")
    assert "VLLM_BASE_URL" in caught.value.message
    assert "hunter2" not in repr(caught.value)


@given(url=st.text())
def test_any_text_is_an_address_or_a_usage_error(url: str) -> None:
    try:
        base = normalise_url(url)
    except UsageError:
        return
    assert base.endswith("/v1")
    assert base.startswith(("http://", "https://"))


# ── precedence ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("at", range(4))
def test_the_first_address_that_is_set_wins(at: int) -> None:
    sources = ["VLLM_BASE_URL", "VLLM_API_BASE", "OPENAI_BASE_URL"]
    env = {name: f"http://{name.lower().replace('_', '-')}" for name in sources}
    for name in sources[:at]:
        env[name] = "  " if at % 2 else ""
    expected = f"http://{sources[at].lower().replace('_', '-')}/v1" if at < 3 else None
    assert resolve(env=env).base_url == (expected or "http://127.0.0.1:8000/v1")
    assert resolve(env=env, base_url="http://mine").base_url == "http://mine/v1"


def test_unset_means_the_default() -> None:
    config = resolve(env={})
    assert config.base_url == "http://127.0.0.1:8000/v1"
    assert (config.model, config.timeout, config.has_key) == (None, Timeout(), False)


def test_the_model_is_explicit_before_the_environment() -> None:
    assert resolve(env={"VLLM_MODEL": "a"}).model == "a"
    assert resolve(env={"VLLM_MODEL": "a"}, model="b").model == "b"
    assert resolve(env={"VLLM_MODEL": ""}).model is None
    assert resolve(env={"VLLM_MODEL": "a"}, model="").model == "a"


OURS = {"VLLM_BASE_URL": "http://own"}
CLOUD = {"OPENAI_BASE_URL": "http://cloud"}


@pytest.mark.parametrize(
    ("env", "given", "sent"),
    [
        (OURS, {}, None),
        (OURS | {"VLLM_API_KEY": "v"}, {}, "Bearer v"),
        (OURS | {"VLLM_API_KEY": "v"}, {"api_key": "mine"}, "Bearer mine"),
        (OURS | {"VLLM_API_KEY": "v"}, {"api_key": ""}, "Bearer v"),
        (OURS | {"VLLM_API_KEY": ""}, {}, None),
        (OURS | {"OPENAI_API_KEY": "o"}, {}, None),
        ({"OPENAI_API_KEY": "o"}, {}, None),
        ({"OPENAI_API_KEY": "o"}, {"base_url": "http://x"}, None),
        (CLOUD | {"OPENAI_API_KEY": "o"}, {"base_url": "http://x"}, None),
        (CLOUD | OURS | {"OPENAI_API_KEY": "o"}, {}, None),
        (CLOUD | {"OPENAI_API_KEY": "o"}, {}, "Bearer o"),
        (CLOUD | {"OPENAI_API_KEY": "o", "VLLM_API_KEY": "v"}, {}, "Bearer v"),
    ],
)
def test_a_key_goes_to_its_own_host_only(
    env: dict[str, str], given: dict[str, Any], sent: str | None
) -> None:
    assert key_of(env=env, **given) == sent


@pytest.mark.feature("C-11")
@pytest.mark.parametrize("key", ["hunter2\n", " hunter2", "hunt\x00er2", "hünter2"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    for settings, source in (
        ({"env": {"VLLM_API_KEY": key}}, "VLLM_API_KEY"),
        ({"env": {}, "api_key": key}, "api_key="),
    ):
        with pytest.raises(UsageError, match=source) as caught:
            resolve(**settings)  # type: ignore[arg-type]
        assert "nter2" not in caught.value.message


# ── time ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_timeout_is_explicit_before_the_environment() -> None:
    env = {"VLLM_TIMEOUT": "7.5"}
    assert resolve(env=env).timeout == Timeout(total=7.5)
    assert resolve(env=env, timeout=3).timeout == Timeout(total=3.0)
    assert resolve(env=env, timeout=Timeout(idle=1)).timeout == Timeout(idle=1)
    assert resolve(env={"VLLM_TIMEOUT": " "}).timeout == Timeout()


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "1,5"])
def test_a_timeout_that_is_none_names_its_variable(value: str) -> None:
    with pytest.raises(UsageError, match=rf"VLLM_TIMEOUT='{value}'"):
        resolve(env={"VLLM_TIMEOUT": value})


@pytest.mark.parametrize("value", ["soon", [1], 0, -1])
def test_a_timeout_argument_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"(?i)timeout"):
        resolve(env={}, timeout=value)


# ── the client reads it once ─────────────────────────────────────────────────────────────────────


def test_the_client_reads_the_environment_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BASE_URL", "http://h:1")
    monkeypatch.setenv("VLLM_MODEL", "m")
    client = AsyncVLLM()
    monkeypatch.setenv("VLLM_BASE_URL", "http://h:2")
    assert (client.base_url, client.model) == (BASE, "m")
    assert repr(client) == f"AsyncVLLM({BASE!r}, model='m')"


def test_a_bad_setting_fails_when_the_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_TIMEOUT", "soon")
    with pytest.raises(UsageError, match="VLLM_TIMEOUT"):
        AsyncVLLM()
    assert AsyncVLLM(timeout=1).model is None
