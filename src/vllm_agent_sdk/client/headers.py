"""The headers of a client's calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vllm_agent_sdk._ids import random_hex
from vllm_agent_sdk._version import __version__
from vllm_agent_sdk.client.config import Config
from vllm_agent_sdk.errors import UsageError

__all__ = ["Headers"]


class Headers:
    """Makes the headers of calls. A `repr` shows none of them: they may hold a key.

    Args:
        config: The client's settings.
        given: Sent with every request; `None` as a value removes one of ours.
    """

    def __init__(self, config: Config, given: Mapping[str, str | None]) -> None:
        self._config = config
        mine = dict(given)
        self._given: Callable[[], dict[str, str | None]] = lambda: mine
        self._common: Callable[[], dict[str, str]] | None = None

    def request_id(self, params: Mapping[str, Any], *, prefix: str = "") -> str | None:
        """Give a call's `X-Request-Id`: the one that was asked for, or a new one."""
        given = params.get("request_id")
        if given is not None:
            return str(given)
        for headers in (params.get("extra_headers") or {}, self._given()):
            for name, value in headers.items():
                if name.lower() == "x-request-id":
                    return value
        return prefix + random_hex()

    def of(
        self, request_id: str | None, extra: Mapping[str, str | None] | None = None
    ) -> dict[str, str]:
        """Give the headers of a call.

        Args:
            request_id: Its `X-Request-Id`, if it has one.
            extra: Those of the call alone; `None` as a value removes one.

        Raises:
            UsageError: A name or a value cannot be sent.
        """
        if self._common is None:
            common = self._same_for_all()
            self._common = lambda: common
        head = dict(self._common())
        for name, value in (extra or {}).items():
            name = name.lower()
            head.pop(name, None)
            if value is not None:
                head[name] = _checked(name, value)
        head.pop("x-request-id", None)
        if request_id is not None:
            plain = request_id.isalnum()  # as ours are
            head["x-request-id"] = request_id if plain else _checked("x-request-id", request_id)
        return head

    def _same_for_all(self) -> dict[str, str]:
        head: dict[str, str | None] = {
            "accept": "*/*",
            "content-type": "application/json",
            "user-agent": f"vllm-agent-sdk/{__version__}",
        }
        if self._config.has_key:
            head["authorization"] = self._config.authorization()
        head.update((name.lower(), value) for name, value in self._given().items())
        return {name: _checked(name, value) for name, value in head.items() if value is not None}


def _checked(name: str, value: object) -> str:
    """Refuse what no header can carry; the value may be a key and is not shown."""
    if not isinstance(value, str):
        raise UsageError(f"The header {name!r} takes text, not {type(value).__name__}.")
    if not (name.isascii() and name.isprintable()) or " " in name or ":" in name:
        raise UsageError(f"{name!r} is no name of a header.")
    if not value.isprintable():
        raise UsageError(f"The header {name!r} holds a line break or another control character.")
    return value
