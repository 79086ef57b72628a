"""Error bodies in all their shapes: one typed error each, with the facts as attributes."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_agent_sdk import errors
from vllm_agent_sdk._core.server.failures import server_error, stream_failure
from vllm_agent_sdk.errors import (
    AuthenticationError,
    BadRequestError,
    ContextLengthError,
    EngineDeadError,
    ModelNotFoundError,
    NotFoundError,
    NotImplementedByModelError,
    ProtocolError,
    ServerError,
    ServerOverloadedError,
    StreamFailedError,
    UnprocessableEntityError,
    UnsupportedByServerError,
    VLLMError,
)

URL = "http://127.0.0.1:8000/v1/chat/completions"


def error(
    status: int,
    body: bytes | Any = b"",
    *,
    key: bool = False,
    sent: bytes | None = None,
    **headers: str,
) -> VLLMError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server_error(status, named, data, url=URL, has_key=key, sent=sent)


def said(
    message: str, type: str = "BadRequestError", param: str | None = None, code: Any = 400
) -> Any:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


# ── the six shapes, and none ─────────────────────────────────────────────────────────────────────


def test_the_normal_shape_gives_message_type_param_and_code() -> None:
    raised = error(400, said("bad top_p (parameter=top_p, value=2)", param="top_p"))
    assert type(raised) is BadRequestError
    assert raised.message == "bad top_p (parameter=top_p, value=2)"
    assert (raised.status, raised.code, raised.type) == (400, 400, "BadRequestError")
    assert raised.param == "top_p"
    assert json.loads(raised.body) == said("bad top_p (parameter=top_p, value=2)", param="top_p")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (503, {"error": "The model is currently scaling."}, "The model is currently scaling."),
        (403, {"detail": "Nobody may"}, "The server answered 403 with Nobody may at " + URL + "."),
        (500, {"type": "error", "error": {"type": "api_error", "message": "boom"}}, "boom"),
        (
            500,
            {"object": "error", "message": "old", "type": "E", "param": None, "code": 500},
            "old",
        ),
        (
            500,
            b"Internal Server Error",
            f"The server answered 500 with Internal Server Error at {URL}.",
        ),
        (502, b"<html><body>Bad gateway", f"The server answered 502 with an HTML page at {URL}."),
        (503, b"", "HTTP 503 without a message"),
        (500, said("", "InternalServerError", code=500), "HTTP 500 without a message"),
        (500, {"error": None}, "HTTP 500 without a message"),
        (500, {"error": ["?"]}, "HTTP 500 without a message"),
        (500, {"error": {"message": {"a": 1}}}, "HTTP 500 without a message"),
        (422, {"detail": [{"loc": ["body"], "msg": "missing"}]}, "HTTP 422 without a message"),
    ],
)
def test_every_shape_has_its_message(status: int, body: Any, message: str) -> None:
    assert error(status, body).message == message


def test_a_code_that_is_a_string_is_kept_as_one() -> None:
    assert vars(error(500, said("x", code="server_error")))["code"] == "server_error"


def test_a_long_plain_text_is_cut_in_the_message_and_whole_in_the_body() -> None:
    raised = error(500, b"x" * 5000)
    assert len(raised.message) < 700
    assert isinstance(raised, ServerError)
    assert len(raised.body) == 5000


# ── status to class ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (408, "ServerError"),
        (409, "ConflictError"),
        (418, "ServerError"),
        (422, "UnprocessableEntityError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (501, "NotImplementedByModelError"),
        (502, "ServerOverloadedError"),
        (503, "ServerOverloadedError"),
        (504, "ServerOverloadedError"),
        (507, "ServerError"),
    ],
)
def test_the_status_decides_the_class(status: int, name: str) -> None:
    raised = error(status, said("what", "AnyType", code=status))
    assert type(raised) is getattr(errors, name)
    assert isinstance(raised, ServerError)
    assert raised.status == status


@pytest.mark.parametrize("type", ["Service Unavailable", "ServiceUnavailableError"])
def test_both_spellings_of_503_are_overload_and_retryable(type: str) -> None:
    raised = error(503, said("The engine is currently busy", type, code=503))
    assert isinstance(raised, ServerOverloadedError)
    assert raised.retryable


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1", 1.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after_is_seconds_or_nothing(value: str, seconds: float | None) -> None:
    raised = error(429, b"", retry_after=value)
    assert isinstance(raised, ServerError)
    assert raised.retry_after == seconds


# ── sentences that say what to do ────────────────────────────────────────────────────────────────


def test_no_key_and_a_wrong_key_say_different_things() -> None:
    body = {"error": "Unauthorized"}
    missing, wrong = error(401, body), error(401, body, key=True)
    assert isinstance(missing, AuthenticationError)
    assert "wants a key" in missing.message
    assert "refused the key" in wrong.message
    assert all("VLLM_API_KEY" in each.message and URL in each.message for each in (missing, wrong))


@pytest.mark.parametrize(
    "body", [{"detail": "Not Found"}, b"<!doctype html>", b"", b"404 page not found"]
)
def test_a_route_that_is_not_there_names_the_address(body: Any) -> None:
    raised = error(404, body)
    assert isinstance(raised, UnsupportedByServerError)
    assert URL in raised.message
    assert "base_url" in raised.message
    assert raised.feature == URL


def test_an_unknown_model_is_told_from_an_unknown_object() -> None:
    missing = said("The model `x` does not exist. Valid aliases: y", "NotFoundError", "model", 404)
    assert isinstance(error(404, missing), ModelNotFoundError)
    assert isinstance(error(404, said("The model `x` does not exist.")), ModelNotFoundError)
    other = error(404, said("Response with id 'r' not found.", "invalid_request_error", code=404))
    assert type(other) is NotFoundError


def test_a_wrong_method_asks_whether_it_is_a_vllm_server() -> None:
    raised = error(405, {"detail": "Method Not Allowed"})
    assert isinstance(raised, UnsupportedByServerError)
    assert "is it a vLLM server" in raised.message


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_and_names_its_target(status: int) -> None:
    raised = error(status, b"", location="https://other/v1")
    assert isinstance(raised, ProtocolError)
    assert "https://other/v1" in raised.message
    assert "base_url" in raised.message


def test_a_dead_engine_is_not_any_500() -> None:
    text = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    raised = error(500, said(text, "InternalServerError", code=500))
    assert type(raised) is EngineDeadError
    assert "start the server again" in raised.message
    assert text in raised.body


def test_what_the_model_cannot_do_is_501() -> None:
    text = "The model does not support Chat Completions API"
    assert (
        type(error(501, said(text, "NotImplementedError", code=501))) is NotImplementedByModelError
    )


def test_a_media_url_that_the_server_could_not_fetch_is_422() -> None:
    assert type(error(422, said("Failed to fetch", code=422))) is UnprocessableEntityError


TOO_LONG = (
    "This model's maximum context length is 2048 tokens. However, your prompt contains {}2049 "
    "input tokens, which exceeds this limit even without any output tokens. Please reduce the "
    "length of the input prompt. (parameter=input_tokens, value=2049)"
)
TOO_LONG_TEXT = (
    "This model's maximum context length is 2048 tokens. However, your prompt contains 99999 "
    "characters (more than 20480 characters, which is the upper bound for 2047 input tokens). "
    "Please reduce the length of the input prompt. (parameter=input_text, value=99999)"
)
REQUESTED = (
    "This model's maximum context length is 2048 tokens. However, you requested 2100 tokens "
    "(2000 in the messages, 100 in the completion). Please reduce the length."
)
TOO_MANY = (
    "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context "
    "length is 2048 tokens and your request has 12 input tokens (4096 > 2048 - 12)."
)


@pytest.mark.parametrize(
    ("text", "param", "got"),
    [
        (TOO_LONG.format(""), "input_tokens", 2049),
        (TOO_LONG.format("at least "), "input_tokens", 2049),
        (TOO_LONG_TEXT, "input_text", None),
        (REQUESTED, None, 2000),
        (TOO_MANY, None, 12),
    ],
    ids=["too long", "at least", "by its characters", "older: requested", "max_tokens"],
)
def test_a_prompt_over_the_context_names_both_numbers(
    text: str, param: str | None, got: int | None
) -> None:
    raised = error(400, said(text, param=param))
    assert isinstance(raised, ContextLengthError)
    assert (raised.max, raised.got) == (2048, got)
    assert raised.message == text


def test_a_prompt_of_exactly_the_context_is_too_long_and_a_zero_that_was_asked_for_is_not() -> None:
    text = "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"
    body = said(text, param="max_tokens")
    assert type(error(400, body, sent=b'{"messages":[]}')) is ContextLengthError
    for name in (b"max_tokens", b"max_completion_tokens", b"max_output_tokens"):
        assert type(error(400, body, sent=b'{"%s": 0}' % name)) is BadRequestError
    assert type(error(400, body)) is BadRequestError


AUTO = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
REQUIRED = 'tool_choice="required" requires --tool-call-parser to be set'


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (AUTO, ("--enable-auto-tool-choice", "--tool-call-parser")),
        (REQUIRED, ("--tool-call-parser",)),
    ],
)
def test_missing_tool_flags_are_named(text: str, flags: tuple[str, ...]) -> None:
    raised = error(400, said(text))
    assert isinstance(raised, UnsupportedByServerError)
    assert raised.flags == flags
    assert (raised.feature, raised.status) == ("tool_choice", 400)
    assert "turn_mode='guided'" in raised.message
    assert pickle.loads(pickle.dumps(raised)).flags == flags


# ── inside a stream ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.feature("S-06")
@pytest.mark.parametrize(
    ("frame", "text", "status", "retryable"),
    [
        (said("boom", code=400)["error"], "boom", 400, False),
        (said("busy", code=503)["error"], "busy", 503, True),
        (said("", code=500)["error"], "an error without a message", 500, False),
        (said("EngineCore encountered an issue.")["error"], "its engine has died", 400, False),
        ("just text", "just text", None, False),
        ({"message": "no code"}, "no code", None, False),
        ({"message": "x", "code": "503"}, "x", 503, True),
        ({"message": "x", "code": "server_error"}, "x", None, False),
        ({"message": "x", "code": "9" * 5000}, "x", None, False),
        ({"message": "x", "code": True}, "x", None, False),
        (["?"], "an error without a message", None, False),
        (17, "an error without a message", None, False),
    ],
)  # fmt: skip
def test_an_error_frame_is_a_typed_error(
    frame: object, text: str, status: int | None, retryable: bool
) -> None:
    raised = stream_failure(frame)
    assert text in raised.message
    assert (raised.status, raised.retryable) == (status, retryable)
    assert json.loads(raised.body) == frame


# ── whatever comes ───────────────────────────────────────────────────────────────────────────────

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "type", "param", "code", "detail", "object"]),
            inner,
        )
    ),
    max_leaves=15,
)


@pytest.mark.feature("S-01")
@given(
    status=st.integers(0, 999),
    body=st.binary()
    | st.text().map(lambda text: text.encode())
    | JSON.map(json.dumps).map(str.encode),
    headers=st.dictionaries(st.sampled_from(["location", "retry-after"]), st.text()),
    has_key=st.booleans(),
)
def test_whatever_a_server_says_is_a_typed_error(
    status: int, body: bytes, headers: dict[str, str], has_key: bool
) -> None:
    raised = server_error(status, headers, body, url=URL, has_key=has_key)
    assert isinstance(raised, ServerError if not 300 <= status < 400 else ProtocolError)
    assert raised.message
    assert str(pickle.loads(pickle.dumps(raised))) == raised.message


@pytest.mark.feature("S-01")
@given(frame=JSON)
def test_whatever_an_error_frame_holds_is_a_typed_error(frame: object) -> None:
    raised = stream_failure(frame)
    assert type(raised) is StreamFailedError
    assert raised.message
