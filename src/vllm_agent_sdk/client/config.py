"""Where the server is, and what is sent to it by default: explicit, then environment, then default.

The only module of the client that reads the environment, and only when a client is made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from vllm_agent_sdk.errors import UsageError
from vllm_agent_sdk.types.options import HTTPOptions, Timeout

__all__ = ["Config", "resolve"]

DEFAULT_BASE_URL = "http://127.0.0.1:8000/v1"
URL_VARIABLES = ("VLLM_BASE_URL", "VLLM_API_BASE", "OPENAI_BASE_URL")

#: Endpoint paths that people paste with the address; longest first.
ENDPOINTS = (
    "/chat/completions",
    "/audio/transcriptions",
    "/audio/translations",
    "/completions",
    "/embeddings",
    "/responses",
    "/tokenize",
    "/detokenize",
    "/messages",
    "/models",
    "/health",
    "/version",
    "/metrics",
)


class Config:
    """A client's settings, resolved once. The key is held by a closure, so that nothing shows it.

    Attributes:
        base_url: With `/v1`, without a trailing slash; of several servers the first.
        root_url: Where the routes outside `/v1` live.
        others: The addresses of the other servers of a pool.
        model: The model that calls use when they name none, or `None`.
        timeout: The clocks of a call.
        http: How HTTP is spoken.
        has_key: True if a key is sent.
        proxy_for: Gives the proxy of an address, or `None`.
    """

    __slots__ = (
        "authorization", "base_url", "has_key", "http", "model", "others", "proxy_for", "root_url",
        "timeout",
    )  # fmt: skip

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        model: str | None,
        timeout: Timeout,
        http: HTTPOptions,
        others: tuple[str, ...] = (),
    ) -> None:
        self.base_url = base_url
        self.others = others
        if others and (http.root_url is not None or http.unix_socket is not None):
            raise UsageError(
                "HTTPOptions(root_url=…) and (unix_socket=…) are for one server; base_url= names "
                f"{1 + len(others)}."
            )
        self.root_url = base_url.removesuffix("/v1")
        if http.root_url is not None:
            root = _address(http.root_url.strip(), "HTTPOptions(root_url=…)")
            from urllib.parse import urlunsplit

            self.root_url = urlunsplit((*root, "", "")).rstrip("/")
        self.model = model
        self.timeout = timeout
        self.http = http
        if http.unix_socket is not None:
            for address in (self.base_url, self.root_url):
                if not address.startswith("http://"):
                    raise UsageError(
                        f"HTTPOptions(unix_socket=…) and {address!r}: there is no TLS on a Unix "
                        "socket; write the address with http://."
                    )
        self.proxy_for: Callable[[str], str | None] = lambda _url: http.proxy
        self.has_key = api_key is not None
        self.authorization: Callable[[], str] = lambda: f"Bearer {api_key}"

    def urls(self, path: str, *, root: bool) -> tuple[str, ...]:
        """Give the URLs of a path on all servers; `root` for routes outside `/v1`."""
        first = (self.root_url if root else self.base_url) + path
        if not self.others:
            return (first,)
        bases = (url.removesuffix("/v1") for url in self.others) if root else self.others
        return (first, *(base + path for base in bases))

    def __repr__(self) -> str:
        return (
            f"Config({self.base_url}, model={self.model!r}, key={'set' if self.has_key else None})"
        )


def resolve(
    *,
    env: Mapping[str, str] | None = None,
    base_url: str | Sequence[str] | None = None,
    api_key: str | None = None,
    model: str | None = None,
    timeout: Timeout | float | None = None,
    http: HTTPOptions | None = None,
) -> Config:
    """Resolve a client's settings. Empty strings count as unset.

    Args:
        env: The environment (default: the process's). These variables are read: `VLLM_BASE_URL`,
            `VLLM_API_BASE`, `OPENAI_BASE_URL`, `VLLM_API_KEY`, `OPENAI_API_KEY` (only where the
            address came from `OPENAI_BASE_URL`: a cloud's key must not go to another host),
            `VLLM_MODEL`, `VLLM_TIMEOUT` (seconds in all); under `HTTPOptions(trust_env=True)` the
            proxy variables.
        base_url: The server's address, in any form; or those of several.
        api_key: The bearer key.
        model: The model for calls that name none.
        timeout: The clocks, or seconds in all.
        http: How HTTP is spoken.

    Raises:
        UsageError: An address or a number cannot be used; the message names the variable.
    """
    env = os.environ if env is None else env
    addresses = ((name, env.get(name)) for name in URL_VARIABLES)
    first, others = _servers(base_url)
    url, source = _first(("base_url=", first), *addresses)
    variables = ["VLLM_API_KEY", *(["OPENAI_API_KEY"] if source == "OPENAI_BASE_URL" else [])]
    key, key_source = _first(("api_key=", api_key), *((name, env.get(name)) for name in variables))
    if key is not None and (not key.isascii() or not key.isprintable() or key != key.strip()):
        raise UsageError(
            f"The key from {key_source} holds a line break, blank or other character that no HTTP "
            "header can carry; was it read from a file without stripping it?"
        )
    config = Config(
        normalise_url(url, source) if url else DEFAULT_BASE_URL,
        key,
        _first(("model=", model), ("VLLM_MODEL", env.get("VLLM_MODEL")))[0],
        _timeout(timeout, env.get("VLLM_TIMEOUT")),
        http or HTTPOptions(),
        others,
    )
    if config.http.trust_env and config.http.proxy is None:
        config.proxy_for = _proxies(env)
    return config


def _servers(given: str | Sequence[str] | None) -> tuple[str | None, tuple[str, ...]]:
    """Give the first address, and the others in full."""
    if given is None or isinstance(given, str):
        return given, ()
    if not given or not all(each.strip() for each in given):
        raise UsageError("base_url= takes an address, or a list of one or more addresses.")
    urls = [normalise_url(each) for each in given]
    if len(set(urls)) < len(urls):
        raise UsageError("base_url= names the same server twice.")
    return given[0], tuple(urls[1:])


def _proxies(env: Mapping[str, str]) -> Callable[[str], str | None]:
    """Read the proxy variables once; what is given holds their passwords, unseen."""

    def read(name: str) -> tuple[str | None, str]:
        names = [name, name.upper()]
        if name == "http_proxy" and "REQUEST_METHOD" in env:
            names.pop()  # under CGI a client's header `Proxy:` sets it
        return _first(*((each, env.get(each)) for each in names))

    known: dict[str, str | None] = {}
    for scheme in ("http", "https"):
        value, source = read(f"{scheme}_proxy")
        if value is None:
            value, source = read("all_proxy")
        if value is not None:
            value = value.strip() if "://" in value else f"http://{value.strip()}"
            try:
                HTTPOptions(proxy=value)
            except UsageError:
                raise UsageError(f"{source} is no address of an http or https proxy.") from None
        known[scheme] = value
    direct = [each.strip().lstrip(".").lower() for each in (read("no_proxy")[0] or "").split(",")]

    from urllib.parse import urlsplit

    def proxy_for(url: str) -> str | None:
        parts = urlsplit(url)
        names = (parts.hostname or "", parts.netloc.lower())  # without and with the port
        for each in filter(None, direct):
            if each == "*" or any(name == each or name.endswith(f".{each}") for name in names):
                return None
        return known[parts.scheme]

    return proxy_for


def _first(*options: tuple[str, str | None]) -> tuple[str | None, str]:
    for source, value in options:
        if value is not None and value.strip():
            return value, source
    return None, ""


def _timeout(given: Timeout | float | None, variable: str | None) -> Timeout:
    if given is not None:
        return as_timeout(given)
    if variable is None or not variable.strip():
        return Timeout()
    try:
        return Timeout(total=float(variable))
    except (ValueError, UsageError):
        raise UsageError(f"VLLM_TIMEOUT={variable!r} is no number of seconds above 0.") from None


def as_timeout(given: Timeout | float) -> Timeout:
    """Take seconds for the total, or a `Timeout` as it is."""
    if isinstance(given, Timeout):
        return given
    try:
        return Timeout(total=float(given))
    except (TypeError, ValueError):
        raise UsageError(
            f"timeout= takes seconds or a Timeout, not {type(given).__name__}."
        ) from None


def normalise_url(url: str, source: str = "base_url=") -> str:
    """Give the base URL, with `/v1`, of any form of a server's address.

    With or without `/v1`, with or without a trailing slash, or cut back from an endpoint's path.
    """
    from urllib.parse import urlunsplit  # what loads aiohttp loads it too

    scheme, netloc, path = _address(url.strip(), source)
    path = path.rstrip("/")
    for endpoint in ENDPOINTS:
        if path.endswith(endpoint):
            path = path.removesuffix(endpoint).rstrip("/")
            break
    if not path.endswith("/v1"):
        path += "/v1"
    return urlunsplit((scheme, netloc, path, "", ""))


def _address(url: str, source: str) -> tuple[str, str, str]:
    """Give scheme, host with port, and path of an address; no secret in it is ever shown."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
    except ValueError as cause:
        raise UsageError(f"{source} is no address: {cause}.") from None
    if "@" in url or parts.username or parts.password:
        raise UsageError(f"{source} holds a user or password; give the key as api_key= instead.")
    if parts.query or parts.fragment:
        raise UsageError(f"{source} has a query or fragment; a base address has none.")
    if not url.isprintable() or " " in url:
        raise UsageError(f"{source} {url!r} holds a blank or another character of no address.")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        hint = f"http://{url}" if "://" not in url else "http://127.0.0.1:8000/v1"
        raise UsageError(f"{source} {url!r} is no http(s) address; write it like {hint!r}.")
    try:
        _ = parts.port
    except ValueError:
        raise UsageError(
            f"{source} {url!r} has a port that is no number from 0 to 65535."
        ) from None
    return parts.scheme, parts.netloc, parts.path
