"""What every whole reply keeps beside its fields: its bytes, and what no field knows."""

from __future__ import annotations

from typing import Any

import msgspec

from vllm_agent_sdk.errors import ProtocolError
from vllm_agent_sdk.types import _codec

__all__ = ["GeneratedReply", "ServerLoad", "WireReply"]


class WireReply(msgspec.Struct, dict=True, omit_defaults=True):
    """Base of whole replies."""

    def attach(
        self, raw: bytes, request_id: str | None, offered: frozenset[str] | None = None
    ) -> None:
        """Keep what is known beside the body: its bytes, the request's id, the tools offered."""
        vars(self).update(_raw=raw, _request_id=request_id, _offered=offered)

    @property
    def raw(self) -> bytes:
        """The body as the server sent it; empty for a reply put together from a stream."""
        raw: bytes = self.__dict__.get("_raw", b"")
        return raw

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` that was sent with the request."""
        return self.__dict__.get("_request_id")

    @property
    def extra(self) -> dict[str, Any]:
        """The keys of the body that this class does not know, at any level."""
        if "_extra" not in self.__dict__:
            raw = self.raw
            vars(self)["_extra"] = _codec.unknown_keys(_codec.decode(raw), self) if raw else {}
        extra: dict[str, Any] = self.__dict__["_extra"]
        return extra


class ServerLoad(msgspec.Struct, frozen=True):
    """How loaded a server was when it answered.

    Attributes:
        kv_cache_usage_perc: How full the KV cache is, 0 to 1.
        num_requests_waiting: Requests that wait for a place.
    """

    kv_cache_usage_perc: float | None = None
    num_requests_waiting: float | None = None


class _LoadReport(msgspec.Struct):
    named_metrics: ServerLoad | None = None


_decode_report = _codec.decoder(_LoadReport)


class GeneratedReply(WireReply, dict=True, omit_defaults=True):
    """Base of the replies that may report the server's load."""

    def attach_load(self, header: str | None) -> None:
        """Keep what the `endpoint-load-metrics` header says."""
        kind, _, report = (header or "").partition(" ")
        if kind == "JSON":
            try:
                vars(self)["_load"] = _decode_report(report.encode()).named_metrics
            except ProtocolError:
                return  # the reply itself is good

    @property
    def server_load(self) -> ServerLoad | None:
        """With `load_metrics=True`: how loaded the server is, `None` where it did not say."""
        return self.__dict__.get("_load")
