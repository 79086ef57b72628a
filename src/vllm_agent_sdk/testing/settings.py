"""How a simulated server was started."""

from __future__ import annotations

from typing import TypedDict

from vllm_agent_sdk.types._codec import Record

__all__ = ["Settings", "SimulatorOptions"]


class SimulatorOptions(TypedDict, total=False):
    """How the simulated server was started.

    Attributes:
        model: The name it serves. Default `"sim-model"`.
        max_model_len: The model's context in tokens; longer prompts are refused. Default 8192.
        api_key: The key it asks for, as `Authorization: Bearer …`. Default `None`: none.
        version: What `/version` says. Default `"0.32.0"`.
        blind: Whether the chat template leaves tools out, so that `/tokenize` counts the same with
            and without them. Default `False`.
        tool_parser: The parser for calls; `None` for a server without one, which refuses
            `tool_choice` and gives scripted calls as text. Default `"hermes"`.
        store: Whether it keeps responses, as with `VLLM_ENABLE_RESPONSES_API_STORE=1`. One made
            in the background is done after its reply's `delay`. Default `False`.
        keepalive_s: Seconds after which an idle connection is closed. Default 5.
        request_id_headers: Whether every answer has an `X-Request-Id`, that of the request or a new
            one, as with `--enable-request-id-headers`. Default `False`.
        check_fields: Whether a request with a field that vLLM does not know, or of another type
            than it expects, fails the test: at the end of the `with` block, by a `UsageError` that
            names route, field and what was expected. A wrong type is refused by the server in any
            case, an unknown field is not. Default `True`.
    """

    model: str
    max_model_len: int
    api_key: str | None
    version: str
    blind: bool
    tool_parser: str | None
    store: bool
    keepalive_s: float
    request_id_headers: bool
    check_fields: bool


class Settings(Record, frozen=True):
    """The same, with defaults."""

    model: str = "sim-model"
    max_model_len: int = 8192
    api_key: str | None = None
    version: str = "0.32.0"
    blind: bool = False
    tool_parser: str | None = "hermes"
    store: bool = False
    keepalive_s: float = 5.0
    request_id_headers: bool = False
    check_fields: bool = True
