"""Groups of options: frozen, validated once, every default written down."""

from __future__ import annotations

import os
from typing import Any, Literal

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types._codec import Record

__all__ = [
    "Breaker",
    "Context",
    "HTTPOptions",
    "Limits",
    "Price",
    "RetryPolicy",
    "Sampling",
    "Timeout",
]

FilePath = str | os.PathLike[str]
TurnMode = Literal["auto", "plain", "native", "required", "guided", "envelope"]


def _positive(group: str, **values: Any) -> None:
    for name, value in values.items():
        if value is not None and not (isinstance(value, (int, float)) and value > 0):
            raise UsageError(f"{group}({name}={value!r}): give a number above 0, or None for none.")


class Timeout(Record, frozen=True):
    """How long to wait, in seconds. A slow but moving stream is never ended by itself.

    Attributes:
        connect: For a connection, TLS included (5.0).
        first_token: From the last byte of the request to a stream's first data (None: no limit).
        idle: Between bytes of a stream that has begun (120.0).
        total: For the whole call, retries included (None: no limit).
    """

    connect: float | None = 5.0
    first_token: float | None = None
    idle: float | None = 120.0
    total: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be a duration."""
        _positive(
            "Timeout",
            connect=self.connect,
            first_token=self.first_token,
            idle=self.idle,
            total=self.total,
        )


class RetryPolicy(Record, frozen=True):
    """When and how often a call is sent again. See `_core.resilience` for what is retried.

    Attributes:
        max_attempts: Attempts of one call in all (3); 1 switches retries off.
        base_s: The first wait is random, up to this many seconds; it doubles each time (0.1).
        cap_s: No wait is longer (10).
        retry_after_cap_s: A server's `Retry-After` is followed up to this many seconds (60).
        budget: Retries of all calls together, as a part of the calls of the last minute; 10 are
            always allowed (0.1).
    """

    max_attempts: int = 3
    base_s: float = 0.1
    cap_s: float = 10.0
    retry_after_cap_s: float = 60.0
    budget: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        _positive("RetryPolicy", max_attempts=self.max_attempts, base_s=self.base_s)
        if min(self.cap_s, self.retry_after_cap_s, self.budget) < 0:
            raise UsageError("RetryPolicy(…): give numbers of 0 or more.")


class Breaker(Record, frozen=True):
    """When a server that keeps failing is left alone.

    Attributes:
        failures: Failures in a row that open it (5).
        reset_s: Seconds until one call is let through as a probe (10).
    """

    failures: int = 5
    reset_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        _positive("Breaker", failures=self.failures, reset_s=self.reset_s)


class HTTPOptions(Record, frozen=True):
    """How the client speaks HTTP.

    Attributes:
        max_connections: Connections at once, to all addresses together; calls wait for a free one,
            and their total time counts (None: no limit).
        max_connections_per_server: The same for each address (None: no limit).
        keepalive_s: Seconds an idle connection is kept (4; vLLM closes its own after 5).
        verify: Check the server's certificate (True). `False` lets anybody answer in its place.
        ca: The authority to trust instead of the system's: a PEM file, or a folder as OpenSSL
            hashes it (None: the system's).
        client_cert: A PEM file with a certificate and its key, or the two files, for servers that
            demand one (None).
        proxy: `http://[user:password@]host:port`, or `https://` (None).
        trust_env: Take the proxy from `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in
            small or capital letters, where `proxy` is not given (False).
        unix_socket: The path of a socket to connect to instead of the address's host (None).
        root_url: Where the routes outside `/v1` live (None: the base URL without `/v1`).
        max_request_bytes: A larger body is refused before it is sent (None: no limit).
        max_response_bytes: Bytes of a whole reply, or of one event of a stream, that are read at
            most (None: no limit).
        max_concurrency: Calls under way at once; others wait, and their deadlines count (None: no
            limit).
        requests_per_s: Requests go out no faster than this (None: no limit).
        tokens_per_min: Tokens a minute: a call is charged its estimated prompt and its `max_tokens`
            when it begins, and what it did not use is given back (None: no limit).
        breaker: When a server that keeps failing is left alone; `None` never.
        balance: Which of several servers takes a call: `"least_busy"`, the one with the fewest of
            this client's calls under way, or `"round_robin"`, each in its turn ("least_busy").
    """

    max_connections: int | None = None
    max_connections_per_server: int | None = None
    keepalive_s: float = 4.0
    verify: bool = True
    ca: FilePath | None = None
    client_cert: FilePath | tuple[FilePath, FilePath] | None = None
    proxy: str | None = None
    trust_env: bool = False
    unix_socket: FilePath | None = None
    root_url: str | None = None
    max_request_bytes: int | None = None
    max_response_bytes: int | None = None
    max_concurrency: int | None = None
    requests_per_s: float | None = None
    tokens_per_min: float | None = None
    breaker: Breaker | None = Breaker()
    balance: Literal["least_busy", "round_robin"] = "least_busy"

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.balance not in {"least_busy", "round_robin"}:
            raise UsageError(
                f"HTTPOptions(balance={self.balance!r}): it is 'least_busy' or 'round_robin'."
            )
        _positive(
            "HTTPOptions",
            max_connections=self.max_connections,
            max_connections_per_server=self.max_connections_per_server,
            keepalive_s=self.keepalive_s,
            max_request_bytes=self.max_request_bytes,
            max_concurrency=self.max_concurrency,
            requests_per_s=self.requests_per_s,
            tokens_per_min=self.tokens_per_min,
            max_response_bytes=self.max_response_bytes,
        )
        self._check_tls()
        if self.proxy is not None:
            _check_proxy(self.proxy)
        if self.unix_socket is not None:
            self._check_unix_socket()

    def _check_tls(self) -> None:
        if not isinstance(self.verify, bool):
            raise UsageError("HTTPOptions(verify=…) takes True or False; ca=… names an authority.")
        if self.ca is not None:
            if not self.verify:
                raise UsageError("HTTPOptions(verify=False, ca=…): without a check no ca is used.")
            _there("ca", self.ca)
        for file in self.cert_files():
            _there("client_cert", file)

    def _check_unix_socket(self) -> None:
        given = {
            "proxy": self.proxy is not None,
            "trust_env": self.trust_env,
            "ca": self.ca is not None,
            "client_cert": self.client_cert is not None,
            "verify=False": not self.verify,
        }
        for name, clash in given.items():
            if clash:
                what = "proxy" if name in {"proxy", "trust_env"} else "TLS"
                raise UsageError(
                    f"HTTPOptions(unix_socket=…) and {name}: there is no {what} on a Unix socket."
                )

    def cert_files(self) -> tuple[FilePath, ...]:
        """Give the files of the client certificate: none, one, or certificate and key."""
        cert = self.client_cert
        if cert is None:
            return ()
        if not isinstance(cert, tuple):
            return (cert,)
        if len(cert) != 2:
            raise UsageError("HTTPOptions(client_cert=…) takes one file, or (certificate, key).")
        return cert

    def __repr__(self) -> str:
        fields = (f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"HTTPOptions({', '.join(fields)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # A proxy's user and password are never shown.
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        if self.proxy is not None:
            shown["proxy"] = without_user(self.proxy)
        return list(shown.items())


def _there(name: str, path: FilePath) -> None:
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(f"HTTPOptions({name}=…) takes a path, not {type(path).__name__}.")
    if not os.path.exists(path):
        raise UsageError(f"HTTPOptions({name}=…): there is no {os.fspath(path)!r}.")


def _check_proxy(proxy: str) -> None:
    """Refuse what is no proxy's address; the message does not repeat its password."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port
    except (ValueError, AttributeError):
        usable = False
    if not usable:
        raise UsageError(
            "HTTPOptions(proxy=…) takes an address like 'http://proxy.example:3128' (http or "
            "https; SOCKS is not spoken)."
        )


def without_user(address: str) -> str:
    """Give an address with `***` in the place of its user and password."""
    before, at, after = address.rpartition("@")
    if not at:
        return address
    scheme, slashes, _ = before.partition("://")
    return f"{scheme}{slashes}***@{after}" if slashes else f"***@{after}"


class Sampling(Record, frozen=True, omit_defaults=True):
    """How the model's tokens are chosen; what is unset is left to the server's default.

    Attributes:
        temperature: 0 (greedy) to 2.
        top_p: Above 0, up to 1.
        top_k: 0 or -1 switches it off.
        min_p: 0 to 1.
        max_tokens: Tokens of one turn at most.
        stop: A string, or several, that end the turn.
        seed: For repeatable sampling.
        presence_penalty: -2 to 2.
        frequency_penalty: -2 to 2.
        repetition_penalty: Above 0; 1 is none.
        logit_bias: Token id as text to bias, -100 to 100.
        thinking: True, False, an effort (`none`, `minimal`, `low`, `medium`, `high`, `xhigh` or
            `max`), or tokens; what model or server cannot is `UnsupportedByServerError`.
        parallel_tool_calls: Several calls in one turn. Unset: the server's default in native
            turns, one call a turn in guided ones.
        extra_body: Anything else to send, by its wire name.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    parallel_tool_calls: bool | None = None
    thinking: bool | str | int | None = None
    extra_body: dict[str, Any] | None = None

    def wire(self) -> dict[str, Any]:
        """Give what is set, as keywords of `chat.completions` (without `extra_body`)."""
        names = (name for name in self.__struct_fields__ if name != "extra_body")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class Limits(Record, frozen=True, omit_defaults=True):
    """What a run may use; each limit has a `stop_reason` of its name.

    Attributes:
        max_turns: Model calls (20).
        max_tool_calls: Tool calls executed (None: no limit).
        max_total_tokens: Input and output tokens of all turns together (None: no limit).
        max_seconds: Wall time of the run (None: no limit).
        max_parallel_tools: Tools running at once (8).
        tool_timeout_s: Seconds for one tool call, unless the tool says otherwise (120).
        repeated_calls: The same call (name and arguments) this many times in a row ends the run
            with `repeated_call`; the last of them is not executed (3).
        repairs: How often in a row the model may correct invalid calls or an invalid output before
            the run ends (2).
        max_cost: What the run may cost by `Agent(prices=…)`, in its currency (None: no limit).
        last_turn_without_tools: Offer none in the last turn: it answers from what is there (False).
    """

    max_turns: int = 20
    max_tool_calls: int | None = None
    max_total_tokens: int | None = None
    max_seconds: float | None = None
    max_cost: float | None = None
    max_parallel_tools: int = 8
    tool_timeout_s: float | None = 120.0
    repeated_calls: int = 3
    repairs: int = 2
    last_turn_without_tools: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be a limit."""
        _positive(
            "Limits",
            max_turns=self.max_turns,
            max_tool_calls=self.max_tool_calls,
            max_total_tokens=self.max_total_tokens,
            max_seconds=self.max_seconds,
            max_cost=self.max_cost,
            max_parallel_tools=self.max_parallel_tools,
            tool_timeout_s=self.tool_timeout_s,
        )
        if self.repeated_calls < 2:
            raise UsageError("Limits(repeated_calls=…): give 2 or more.")
        if self.repairs < 0:
            raise UsageError("Limits(repairs=…): give 0 or more.")


class Context(Record, frozen=True, omit_defaults=True):
    """When and how older messages are replaced by a summary.

    Attributes:
        compact_at: The part of the model's window that a request may fill before (0.8).
        strategy: `summarise`, or `off`: the run ends with `context_overflow` instead.
        instruction: What the summariser is asked, in place of the built-in words (None).
        keep_last: Messages at the end that stay as they are, at least (4). The newest prompt and
            what follows it always stay.
    """

    compact_at: float = 0.8
    strategy: Literal["summarise", "off"] = "summarise"
    instruction: str | None = None
    keep_last: int = 4

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 0 < self.compact_at <= 1:
            raise UsageError("Context(compact_at=…): give a part of the window, above 0 up to 1.")
        if self.strategy not in {"summarise", "off"}:
            raise UsageError(f"Context(strategy={self.strategy!r}): it is 'summarise' or 'off'.")
        if self.keep_last < 0:
            raise UsageError("Context(keep_last=…): give 0 or more.")


class Price(Record, frozen=True, omit_defaults=True):
    """What a model costs, in any one currency.

    Attributes:
        input: A million prompt tokens that did not come from the prefix cache.
        cached: A million prompt tokens that did (None: as `input`).
        output: A million generated tokens.
        gpu_hour: An hour of model time instead: the run is charged its time in model calls.
    """

    input: float = 0.0
    cached: float | None = None
    output: float = 0.0
    gpu_hour: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no price."""
        given = (self.input, self.cached or 0.0, self.output, self.gpu_hour or 0.0)
        if min(given) < 0:
            raise UsageError("Price(…): give numbers of 0 or more.")
        if self.gpu_hour is not None and (self.input or self.cached or self.output):
            raise UsageError("Price(…): give prices of tokens, or gpu_hour, not both.")

    def of(
        self, input_tokens: int, cached_tokens: int, output_tokens: int, seconds: float
    ) -> float:
        """Give what a model call costs."""
        if self.gpu_hour is not None:
            return self.gpu_hour * seconds / 3600
        cached = self.input if self.cached is None else self.cached
        fresh = max(0, input_tokens - cached_tokens)
        return (fresh * self.input + cached_tokens * cached + output_tokens * self.output) / 1e6
