"""HTTP over aiohttp: the only modules that import it. Above it: the pipeline; below: sockets."""

from vllm_agent_sdk.transport.http.transport import AiohttpTransport, tls_context

__all__ = ["AiohttpTransport", "tls_context"]
