"""A call and its whole reply: what the pipeline takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from vllm_agent_sdk.errors import UsageError, VLLMError
from vllm_agent_sdk.transport.guard import Booking
from vllm_agent_sdk.types._codec import Record
from vllm_agent_sdk.types.options import Timeout

if TYPE_CHECKING:
    from vllm_agent_sdk._core.server.mask import Mask

__all__ = ["Call", "Whole", "hide", "mask_of"]


class Call(Record, frozen=True, kw_only=True):
    """A request with everything that decides how it goes.

    Attributes:
        url: The whole URL, on the first server.
        elsewhere: The same on the other servers, in their order.
        headers: All headers, the key among them.
        body: The bytes to send, `None` for a GET.
        timeout: The clocks.
        request_id: The `X-Request-Id` sent, if one is.
        has_key: True if a key is among the headers.
        booking: What the guard has to know.
        max_response_bytes: When to stop reading.
    """

    method: str = "POST"
    url: str
    elsewhere: tuple[str, ...] = ()
    headers: Mapping[str, str]
    body: bytes | None = None
    timeout: Timeout
    request_id: str | None = None
    has_key: bool = False
    booking: Booking = Booking()
    max_response_bytes: int | None = None

    def at(self, server: int) -> str:
        """Give the URL on the server of this number."""
        return self.elsewhere[server - 1] if server else self.url

    def __repr__(self) -> str:
        return f"Call({self.method} {self.url}, request_id={self.request_id!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("method", self.method), ("url", self.url), ("request_id", self.request_id)]

    def __reduce__(self) -> NoReturn:
        raise UsageError("A call cannot be pickled: it may hold a key.")


class Whole(Record, frozen=True, kw_only=True):
    """A whole reply with a status of 2xx."""

    headers: Mapping[str, str]
    body: bytes


def mask_of(call: Call) -> Mask:
    """Give what hides a call's key in what a server says."""
    from vllm_agent_sdk._core.server.mask import Mask  # needed where something failed

    return Mask(call.headers)


def hide(call: Call, error: VLLMError) -> None:
    """Hide a call's key in an error."""
    mask_of(call).error(error)
